"""The rows of any input as one float32 matrix in which plain distances can be searched.

Arrays, memory maps, CSR matrices and tensors are read in blocks. What float32 would lose is taken out in float64 first:
a common offset (subtracting the mean leaves distances alone, and keeps the digits of the Gram form |x|² + |y|² - 2xy)
and a common scale (a power of two, exact). Cosine distances are those of rows of length 1: 1 - cos = |x - y|² / 2. A
row of zeros gets a direction of its own, in one more column: cosine distance 1 to all but other such rows, as in
umap-learn. A float32 matrix that needs none of this is searched where it lies, without a copy.

Sparse rows are made dense, block by block, for a matrix of n d floats. Of 20,000 random topic rows (TF-IDF, 5,000
columns, 114 filled) a truncated SVD to 100 components kept 21% of the 15 nearest neighbours by cosine, and of 20,000
MNIST rows 89%; dense rows keep all, at 9 and 2 times the processor time. Products of sparse matrices took 0.4 and 6
times as long as dense ones before anything was chosen from them.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fastpdr import data

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


@dataclass(frozen=True)
class Rows:
    """A matrix to search in; distances of the input are those in the matrix, times ``unit``."""

    matrix: torch.Tensor  # [n, d or d + 1] float32 on the input's device
    metric: str
    unit: float

    @property
    def squared(self) -> bool:
        """Whether the search compares squared Euclidean distances."""
        return self.metric in ("euclidean", "cosine")

    def distances(self, found: torch.Tensor) -> torch.Tensor:
        """The metric's distances, from squared Euclidean or plain ones in the matrix."""
        if self.metric == "cosine":
            return found / 2
        return (found.sqrt() if self.squared else found) * self.unit


@dataclass(frozen=True)
class Source:
    """Rows to read: ``read(begin, end)`` returns them as a float32 or float64 tensor [rows, d]."""

    shape: tuple[int, int]
    read: Callable[[int, int], torch.Tensor]
    whole: torch.Tensor | None = None  # the input itself where it is a float32 matrix already

    def blocks(self) -> Iterator[tuple[int, int, torch.Tensor]]:
        """All rows, at most about 8 million numbers at a time."""
        n, d = self.shape
        for begin in range(0, n, step := max(1, BLOCK_ELEMENTS // d)):
            yield begin, min(n, begin + step), self.read(begin, min(n, begin + step))


@dataclass(frozen=True)
class Moments:
    """What one pass over the data says about it."""

    mean: torch.Tensor  # [d] float64
    spread: float  # root mean square distance to the mean
    zeros: torch.Tensor  # [n] bool, rows of nothing but zeros


def known_metric(function: str, metric: object) -> str:
    """The metric under its first name."""
    if not isinstance(metric, str) or metric not in METRICS:
        raise ValueError(f"{function}: metric must be one of {', '.join(METRICS)}, got {metric!r}")
    return METRICS[metric]


def as_tensor(array: np.ndarray) -> torch.Tensor:
    """The array's own memory as a tensor that nobody writes to: PyTorch's warning about read-only data is moot."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


def open_source(function: str, X: Any) -> Source:
    """Check type and shape; nothing is read yet."""
    if isinstance(X, torch.Tensor):
        return _tensor_source(function, X.detach())
    if isinstance(X, data.Rows):
        _require_shape(function, X.shape, True, X.dtype)
        return Source((X.shape[0], X.shape[1]), lambda begin, end: data.widened(X.block(begin, end)))
    if hasattr(X, "tocsr"):
        csr = X.tocsr()
        _require_shape(function, csr.shape, csr.dtype.kind in "biuf", csr.dtype)
        return Source(csr.shape, lambda begin, end: as_tensor(_floats(csr[begin:end].toarray())))
    array = np.asarray(X)
    if array.dtype.kind == "O":
        try:
            array = array.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{function}: X must hold real numbers, got {error}") from error
    _require_shape(function, array.shape, array.dtype.kind in "biuf", array.dtype)
    whole = as_tensor(array) if array.dtype == np.float32 and array.flags.c_contiguous else None
    return Source(array.shape, lambda begin, end: as_tensor(_floats(array[begin:end])), whole)


def _tensor_source(function: str, tensor: torch.Tensor) -> Source:
    if tensor.layout is not torch.strided:
        raise ValueError(f"{function}: X must be a dense tensor or a SciPy CSR matrix, got {tensor.layout}")
    _require_shape(function, tuple(tensor.shape), not tensor.dtype.is_complex, tensor.dtype)
    wide = torch.float32 if tensor.dtype.itemsize <= 2 or tensor.dtype == torch.float32 else torch.float64
    whole = tensor if tensor.dtype == torch.float32 and tensor.is_contiguous() else None
    return Source((tensor.shape[0], tensor.shape[1]), lambda begin, end: tensor[begin:end].to(wide), whole)


def _require_shape(function: str, shape: tuple[int, ...], real: bool, dtype: object) -> None:
    if len(shape) != 2:
        hint = " (one column is [n, 1])" if len(shape) == 1 else ""
        raise ValueError(f"{function}: X must be 2-D [n, d]{hint}, got shape {list(shape)}")
    if 0 in shape:
        raise ValueError(f"{function}: X must have rows and columns, got shape {list(shape)}")
    if not real:
        raise ValueError(f"{function}: X must hold real numbers, got dtype {dtype}")


def _floats(block: np.ndarray) -> np.ndarray:
    """float32 for what it holds exactly, float64 for the rest."""
    small = block.dtype.itemsize <= 2 or block.dtype == np.float32
    return np.ascontiguousarray(block, dtype=np.float32 if small else np.float64)


def prepare(function: str, X: Any, metric: str) -> Rows:
    """Check X and turn it into the matrix that is searched for `metric`'s distances.

    Raises
    ------
    ValueError
        If X is not a 2-D array, CSR matrix or tensor of finite real numbers.
    """
    source = open_source(function, X)
    moments = _measure(function, source)
    if metric == "cosine":
        return Rows(_unit_rows(source, moments.zeros), metric, 1.0)
    unit = _unit(moments.spread)
    shift = metric != "braycurtis" and float(moments.mean.norm()) > 2 * moments.spread
    if unit == 1.0 and not shift and source.whole is not None:
        return Rows(source.whole, metric, 1.0)
    matrix = _empty(source, moments, source.shape[1])
    for begin, end, block in source.blocks():
        matrix[begin:end] = (block.double() - moments.mean) / unit if shift else block / unit
    return Rows(matrix, metric, 1.0 if metric == "braycurtis" else unit)


def _measure(function: str, source: Source) -> Moments:
    n = source.shape[0]
    total, squares, zeros = torch.zeros(()), 0.0, []
    for begin, _, block in source.blocks():
        wide = block.double()
        largest = float(wide.abs().max())  # NaN where there is one
        if not largest < LARGEST_VALUE:
            raise ValueError(
                f"{function}: X must be finite and within ±{LARGEST_VALUE:g}, "
                f"got {_first_invalid(wide)} in row {begin + _first_invalid_row(wide)}"
            )
        total = wide.sum(0) + total.to(wide.device)
        squares += float(wide.square().sum())
        zeros.append((block == 0).all(1))
    mean = total / n
    variance = max(0.0, squares / n - float(mean.square().sum()))
    return Moments(mean, math.sqrt(variance), torch.cat(zeros))


def _first_invalid_row(block: torch.Tensor) -> int:
    return int((~(block.abs() < LARGEST_VALUE)).any(1).nonzero()[0])


def _first_invalid(block: torch.Tensor) -> float:
    row = block[_first_invalid_row(block)]
    return float(row[~(row.abs() < LARGEST_VALUE)][0])


def _unit(spread: float) -> float:
    """A power of two to divide by where squares would leave float32's comfortable range, else 1."""
    exponent = round(math.log2(spread)) if spread > 0 else 0
    return 2.0**exponent if abs(exponent) > 20 else 1.0


def _unit_rows(source: Source, zeros: torch.Tensor) -> torch.Tensor:
    """Rows of length 1; rows of zeros, where there are any, point along one more column."""
    n, d = source.shape
    extra = int(zeros.any())
    matrix = torch.zeros(n, d + extra, device=zeros.device)
    for begin, end, block in source.blocks():
        wide = block.double()
        wide = wide / wide.abs().amax(1, keepdim=True).clamp_min(1e-300)  # so that the squares stay finite
        matrix[begin:end, :d] = wide / wide.norm(dim=1, keepdim=True).clamp_min(1e-300)
    if extra:
        matrix[zeros, d] = 1.0
    return matrix


def _empty(source: Source, moments: Moments, columns: int) -> torch.Tensor:
    return torch.empty(source.shape[0], columns, device=moments.mean.device)
