"""The rows of any input as float32 rows in which plain distances can be searched.

Whatever ``fastpdr.data`` opens is read in blocks. What float32 would lose is taken out in float64 first: a common
offset (subtracting the mean leaves distances alone, and keeps the digits of the Gram form |x|² + |y|² - 2xy) and a
common scale (a power of two, exact). Cosine distances are those of rows of length 1: 1 - cos = |x - y|² / 2. A row of
zeros gets a direction of its own, in one more column: cosine distance 1 to all but other such rows, as in umap-learn. A
float32 matrix that needs none of this is searched where it lies, without a copy.

Small inputs become one float32 matrix. Large ones of fewer bytes (half floats, bytes) are held as they are stored, and
made float32 whenever some of them are compared; what is too large even for that is read from its file each time.

Sparse rows are made dense, block by block, for a matrix of n d floats. Of 20,000 random topic rows (TF-IDF, 5,000
columns, 114 filled) a truncated SVD to 100 components kept 21% of the 15 nearest neighbours by cosine, and of 20,000
MNIST rows 89%; dense rows keep all, at 9 and 2 times the processor time. Products of sparse matrices took 0.4 and 6
times as long as dense ones before anything was chosen from them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from fastpdr import data
from fastpdr._memory import free_host_memory
from fastpdr._progress import LOG

# Names of scikit-learn and umap-learn for the same thing. FAISS also knows Canberra and Jensen-Shannon distances, but
# gets them wrong where both rows hold a zero.
METRICS = {
    "euclidean": "euclidean",
    "l2": "euclidean",
    "cosine": "cosine",
    "manhattan": "manhattan",
    "cityblock": "manhattan",
    "l1": "manhattan",
    "chebyshev": "chebyshev",
    "linf": "chebyshev",
    "braycurtis": "braycurtis",
}

LARGEST_VALUE = 1e30  # squares and sums of float64, and the distances as float32, stay finite below
BLOCK_ELEMENTS = 1 << 23
CACHED_ELEMENTS = 1 << 18  # of float64: a tenth of the time that whole blocks take
LARGE_BYTES = 1 << 27  # of a float32 matrix, from which rows that are smaller as they are stored stay so
HELD_SHARE = 0.5  # of the memory that is available


@dataclass(frozen=True)
class Rows:
    """A float32 matrix to search in; distances of the input are those in the matrix, times ``unit``."""

    matrix: torch.Tensor  # [n, d or d + 1] on the input's device
    metric: str
    unit: float

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns that are compared."""
        return self.matrix.shape[0], self.matrix.shape[1]

    @property
    def device(self) -> torch.device:
        """Where the rows are."""
        return self.matrix.device

    @property
    def squared(self) -> bool:
        """Whether the search compares squared Euclidean distances."""
        return self.metric in ("euclidean", "cosine")

    @property
    def step(self) -> int:
        """How many rows are seen at a time: all of them."""
        return max(1, len(self.matrix))

    def block(self, begin: int, end: int) -> torch.Tensor:
        """Rows begin .. end - 1 in float32."""
        return self.matrix[begin:end]

    def take(self, numbers: torch.Tensor) -> torch.Tensor:
        """The rows of these numbers in float32."""
        return self.matrix[numbers]

    def held(self) -> Rows | StoredRows:
        """Rows that can be gathered often."""
        return self


@dataclass(frozen=True)
class StoredRows:
    """The same for rows that stay as they are stored, in memory or in a file, until they are compared."""

    source: data.Rows  # [n, d]
    mean: torch.Tensor | None  # [d] float64, to be subtracted
    lengths: torch.Tensor | None  # [n] float64 for cosine distances, else None
    extra: bool  # a column for rows of zeros
    metric: str
    unit: float

    squared = True

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns that are compared."""
        return self.source.shape[0], self.source.shape[1] + self.extra

    @property
    def device(self) -> torch.device:
        """Where the rows come."""
        return self.source.device

    @property
    def step(self) -> int:
        """How many rows are seen at a time."""
        return max(1, BLOCK_ELEMENTS // self.shape[1])

    def block(self, begin: int, end: int) -> torch.Tensor:
        """Rows begin .. end - 1 in float32."""
        lengths = None if self.lengths is None else self.lengths[begin:end]
        return self._compared(self.source.block(begin, end), lengths)

    def take(self, numbers: torch.Tensor) -> torch.Tensor:
        """The rows of these numbers in float32."""
        return self._compared(self.source.take(numbers), None if self.lengths is None else self.lengths[numbers])

    def held(self) -> StoredRows:
        """Rows that can be gathered often: in memory, where that has room for them as they are stored."""
        n, d = self.source.shape
        if self.source.in_memory or isinstance(self.source, data.SparseRows):
            return self
        if n * self.source.row_bytes > HELD_SHARE * free_host_memory():
            LOG.info("%d rows of %d bytes are read from their file again and again", n, self.source.row_bytes)
            return self
        stored = torch.empty(n, d, dtype=self.source.dtype)
        for begin, end, block in self.source.blocks(BLOCK_ELEMENTS):
            stored[begin:end] = block
        return replace(self, source=data.TensorRows(stored))

    def _compared(self, stored: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
        """What is done to a row is the same wherever it stands, so that duplicates stay duplicates."""
        rows = data.widened(stored)
        if lengths is not None:
            rows = (rows / lengths.masked_fill(lengths == 0, 1.0).to(rows.dtype)[:, None]).float()
            return torch.cat([rows, (lengths == 0).float()[:, None]], 1) if self.extra else rows
        if self.mean is not None:
            rows = rows - self.mean.to(rows.dtype)
        return (rows / self.unit if self.unit != 1.0 else rows).float()


AnyRows = Rows | StoredRows


@dataclass(frozen=True)
class Moments:
    """What one pass over the data says about it."""

    mean: torch.Tensor  # [d] float64
    spread: float  # root mean square distance to the mean
    lengths: torch.Tensor | None  # [n] float64 where asked for; 0 for rows of nothing but zeros, and no others


def known_metric(function: str, metric: object) -> str:
    """The metric under its first name."""
    if not isinstance(metric, str) or metric not in METRICS:
        raise ValueError(f"{function}: metric must be one of {', '.join(METRICS)}, got {metric!r}")
    return METRICS[metric]


def true_distances(found: torch.Tensor, metric: str, unit: float) -> torch.Tensor:
    """The metric's distances, from what the search compared, which they take the place of."""
    if metric == "cosine":
        return found.div_(2)
    return (found.sqrt_() if metric == "euclidean" else found).mul_(unit)


def open_source(function: str, X: Any) -> data.Rows:
    """Check type and shape; nothing is read yet."""
    source = data.open_rows(function, X)
    _require_shape(function, source.shape)
    return source


def _require_shape(function: str, shape: tuple[int, ...]) -> None:
    if len(shape) != 2:
        hint = " (one column is [n, 1])" if len(shape) == 1 else ""
        raise ValueError(f"{function}: X must be 2-D [n, d]{hint}, got shape {list(shape)}")
    if 0 in shape:
        raise ValueError(f"{function}: X must have rows and columns, got shape {list(shape)}")


def prepare(function: str, X: Any, metric: str) -> AnyRows:
    """Check X and turn it into the rows that are searched for `metric`'s distances.

    Raises
    ------
    ValueError
        If X is not a 2-D array, CSR matrix or tensor of finite real numbers.
    """
    source = open_source(function, X)
    cosine = metric == "cosine"
    moments = _measure(function, source, with_lengths=cosine)
    unit = 1.0 if cosine else _unit(moments.spread)
    shift = not cosine and metric != "braycurtis" and float(moments.mean.norm()) > 2 * moments.spread
    whole = _float32_matrix(source, X)
    if whole is not None and unit == 1.0 and not shift and not cosine:
        return Rows(whole, metric, 1.0)
    if metric in ("euclidean", "cosine") and _stays_as_stored(source):
        extra = moments.lengths is not None and bool((moments.lengths == 0).any())
        return StoredRows(source, moments.mean if shift else None, moments.lengths, extra, metric, unit)
    if moments.lengths is not None:
        return Rows(_unit_rows(source, moments.lengths == 0), metric, 1.0)
    matrix = torch.empty(source.shape, device=source.device)
    for begin, end, block in _blocks(source):
        matrix[begin:end] = (block.double() - moments.mean) / unit if shift else block / unit
    return Rows(matrix, metric, 1.0 if metric == "braycurtis" else unit)


def _float32_matrix(source: data.Rows, X: Any) -> torch.Tensor | None:
    """The input itself where it is a float32 matrix already, in memory or mapped into it."""
    if isinstance(source, data.TensorRows):
        whole = source.tensor
    elif isinstance(X, np.ndarray) and X.dtype == np.float32:
        whole = data.as_tensor(X)
    else:
        return None
    return whole if whole.dtype == torch.float32 and whole.is_contiguous() else None


def _stays_as_stored(source: data.Rows) -> bool:
    """Whether a float32 matrix would be large and larger than the rows are now, or too large for the memory."""
    n, d = source.shape
    if source.device.type != "cpu":
        return False
    smaller = source.row_bytes < 4 * d and not isinstance(source, data.SparseRows)
    return (smaller and 4 * n * d > LARGE_BYTES) or 4 * n * d > HELD_SHARE * free_host_memory()


def _blocks(source: data.Rows) -> Iterator[tuple[int, int, torch.Tensor]]:
    """All rows in float32 or float64, about 8 million numbers at a time."""
    for begin, end, block in source.blocks(BLOCK_ELEMENTS):
        yield begin, end, data.widened(block)


def _wide_parts(source: data.Rows) -> Iterator[tuple[int, torch.Tensor]]:
    """All rows in float64, as many at a time as a processor's cache holds, after the number of the first."""
    elements = CACHED_ELEMENTS if source.device.type == "cpu" else BLOCK_ELEMENTS
    step = max(1, elements // source.shape[1])
    for begin, end, block in _blocks(source):
        for first in range(begin, end, step):
            yield first, block[first - begin : first - begin + step].double()


def _measure(function: str, source: data.Rows, with_lengths: bool) -> Moments:
    n = source.shape[0]
    total, squares = torch.zeros(()), 0.0
    lengths = torch.empty(n, dtype=torch.float64, device=source.device) if with_lengths else None
    for begin, wide in _wide_parts(source):
        largest = float(wide.abs().max())  # NaN where there is one
        if not largest < LARGEST_VALUE:
            raise ValueError(
                f"{function}: X must be finite and within ±{LARGEST_VALUE:g}, "
                f"got {_first_invalid(wide)} in row {begin + _first_invalid_row(wide)}"
            )
        total = wide.sum(0) + total.to(wide.device)
        squares += float(wide.square().sum())
        if lengths is not None:
            lengths[begin : begin + len(wide)] = _lengths(wide)
    mean = total / n
    variance = max(0.0, squares / n - float(mean.square().sum()))
    return Moments(mean, math.sqrt(variance), lengths)


def _lengths(wide: torch.Tensor) -> torch.Tensor:
    """Of rows of float64; never 0 but for rows of nothing but zeros."""
    return torch.where((wide == 0).all(1), 0.0, wide.norm(dim=1).clamp_min(1e-300))


def _first_invalid_row(block: torch.Tensor) -> int:
    return int((~(block.abs() < LARGEST_VALUE)).any(1).nonzero()[0])


def _first_invalid(block: torch.Tensor) -> float:
    row = block[_first_invalid_row(block)]
    return float(row[~(row.abs() < LARGEST_VALUE)][0])


def _unit(spread: float) -> float:
    """A power of two to divide by where squares would leave float32's comfortable range, else 1."""
    exponent = round(math.log2(spread)) if spread > 0 else 0
    return 2.0**exponent if abs(exponent) > 20 else 1.0


def _unit_rows(source: data.Rows, zeros: torch.Tensor) -> torch.Tensor:
    """Rows of length 1; rows of zeros, where there are any, point along one more column."""
    n, d = source.shape
    extra = int(zeros.any())
    matrix = torch.zeros(n, d + extra, device=zeros.device)
    for begin, end, block in _blocks(source):
        wide = block.double()
        wide = wide / wide.abs().amax(1, keepdim=True).clamp_min(1e-300)  # so that the squares stay finite
        matrix[begin:end, :d] = wide / wide.norm(dim=1, keepdim=True).clamp_min(1e-300)
    if extra:
        matrix[zeros, d] = 1.0
    return matrix
