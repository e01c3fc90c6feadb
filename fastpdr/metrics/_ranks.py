"""Squared distances from anchor rows to all n rows, good enough for exact Euclidean ranks.

Data are centred and scaled in float64.  Distances come from direct differences up to 8 columns and
from one GEMM beyond, in float32; in float64 for float64 input and wherever float32 could not tell
the nearest neighbours apart.  No array is larger than a block of BLOCK_BYTES or the data.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from fastpdr._precision import full_float32
from fastpdr._progress import progress

DIRECT_COLUMNS = 8
BLOCK_BYTES = 64 * 2**20
# Both spaces' distances, one of them in float64 as well.
BYTES_PER_ENTRY = 16
COPY_ROWS_BYTES = 16 * 2**20

CENTER_ROWS = 1024
PROBE_ROWS = 128
PROBE_NEIGHBOR = 10
# Least (neighbour distance / distance from the mean)² that float32 still resolves to about 1e-4.
RESOLVED_BY_PRODUCTS = 1e-2
RESOLVED_BY_DIFFERENCES = 1e-6


@dataclass(frozen=True)
class Frame:
    """Centre [columns] and scale that bring data into [-1, 1] around zero."""

    center: NDArray[np.float64]
    scale: float

    @classmethod
    def of(cls, data: NDArray) -> Frame:
        # The median, not the mean: one far outlier would move the mean, and a GEMM loses the
        # distances between points that lie close together but far from the centre.
        center = np.median(data[spread_rows(len(data), CENTER_ROWS)].astype(np.float64), axis=0)
        reach = float(np.maximum(data.max(axis=0) - center, center - data.min(axis=0)).max())
        return cls(center, reach if reach > 0 else 1.0)

    def apply(self, data: NDArray, dtype: DTypeLike = np.float64) -> NDArray:
        """Return the framed data; float64 in between, but never all of it at once."""
        framed = np.empty(data.shape, dtype)
        step = max(1, COPY_ROWS_BYTES // (8 * data.shape[1]))
        for start in range(0, len(data), step):
            rows = slice(start, start + step)
            framed[rows] = (data[rows] - self.center) / self.scale
        return framed


class Points:
    """The n rows of one space, ready for squared distances."""

    def __init__(self, data: NDArray) -> None:
        frame = Frame.of(data)
        wide = data.dtype.kind == "f" and data.dtype.itemsize >= 8
        self._load(frame.apply(data, np.float64 if wide else np.float32))
        if not wide and not self._resolves_neighbors():
            self._load(frame.apply(data, np.float64))

    def _load(self, values: NDArray) -> None:
        self.values = values
        self.sqnorm = np.einsum("ij,ij->i", values, values, dtype=np.float64)
        self.direct = values.shape[1] <= DIRECT_COLUMNS

    def __len__(self) -> int:
        return len(self.values)

    def sqdist(self, rows: NDArray[np.int64]) -> Tensor:
        """Return squared distances float32 [b, n], infinite from a row to itself."""
        sqdist = self._by_differences(rows) if self.direct else self._by_products(rows)
        sqdist = sqdist.to(torch.float32)
        sqdist.scatter_(1, torch.from_numpy(rows)[:, None], torch.inf)
        return sqdist

    def _by_differences(self, rows: NDArray[np.int64]) -> Tensor:
        values = torch.from_numpy(self.values)
        sqdist = values.new_zeros(len(rows), len(values))
        for column in values.T:
            difference = column[rows, None] - column
            sqdist.addcmul_(difference, difference)
        return sqdist

    def _by_products(self, rows: NDArray[np.int64]) -> Tensor:
        values, sqnorm = torch.from_numpy(self.values), torch.from_numpy(self.sqnorm)
        sqnorm = sqnorm.to(values.dtype)
        # A caller's autocast or lower precision of products must not reach the ranks. NumPy's products would be
        # out of its reach, but their threads and PyTorch's would wait for each other.
        with torch.autocast("cpu", enabled=False), full_float32():
            sqdist = torch.addmm(sqnorm, values[rows], values.T, alpha=-2)
        return sqdist.add_(sqnorm[rows, None]).clamp_(min=0)

    def _resolves_neighbors(self) -> bool:
        # Sums over all rows are at stake, so what a spread of rows shows is enough.
        n = len(self)
        least = RESOLVED_BY_DIFFERENCES if self.direct else RESOLVED_BY_PRODUCTS
        k = max(1, min(PROBE_NEIGHBOR, n - 1))
        for block in row_blocks(spread_rows(n, PROBE_ROWS), n):
            kth = self.sqdist(block).numpy()
            kth.partition(k - 1, axis=1)
            if (kth[:, k - 1] < least * self.sqnorm[block]).any():
                return False
        return True


def spread_rows(n: int, most: int) -> NDArray[np.int64]:
    """Return at most `most` rows, evenly spread from the first to the last."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).astype(np.int64))


def block_rows(n: int) -> int:
    """Return how many anchors a block may hold so that its arrays stay within BLOCK_BYTES."""
    return max(1, BLOCK_BYTES // (BYTES_PER_ENTRY * n))


def row_blocks(rows: NDArray[np.int64], n: int) -> Iterator[NDArray[np.int64]]:
    """Cut the anchors into blocks."""
    step = block_rows(n)
    for start in range(0, len(rows), step):
        yield rows[start : start + step]


def block_distances(x: Points, z: Points, rows: NDArray[np.int64], verbose: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the squared distances [b, n] of the same anchors in both spaces, block by block."""
    with progress("judging", len(rows), shown=verbose) as bar:
        for block in row_blocks(rows, len(x)):
            yield x.sqdist(block), z.sqdist(block)
            bar.update(len(block))
