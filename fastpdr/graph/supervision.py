"""Supervision of a fuzzy set by labels or target values, as UMAP's: memberships are weakened where the targets differ.

Labels: an edge between two classes is multiplied by exp(-2.5 / (1 - target_weight)), one to a row without a label by
exp(-1). Values: the fuzzy set of the targets' own nearest neighbours is mixed in by a weighted geometric mean, in which
an edge that one set lacks counts there with half its smallest membership. Afterwards every row's strongest membership
is made 1 again and the two directions are united (McInnes, Healy & Melville 2018; umap-learn's supervised mode).
umap-learn visits edges one by one; here both sets are aligned as arrays, in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from fastpdr import ops
from fastpdr._sparse import csr_tensor, index_dtype, scipy_csr
from fastpdr.data import as_tensor
from fastpdr.graph.knn import KNNGraph

UNLABELLED = -1
UNLABELLED_DISTANCE = 1.0
SMALLEST_MEMBERSHIP, LARGEST_ABSENT_TARGET = 1e-8, 1e-4


def categorical_intersection(graph: torch.Tensor, y: ArrayLike, target_weight: float = 0.5) -> torch.Tensor:
    """Weaken a fuzzy set's memberships between rows of different classes.

    Parameters
    ----------
    graph : torch.Tensor
        ``sparse_csr`` ``[n, n]`` float32 or float64, symmetric, as :func:`fastpdr.graph.fuzzy_set` returns it.
    y : array-like of shape (n,)
        Labels of any kind. Among numbers, -1 is a row without a label.
    target_weight : float
        From 0, where labels still count a little (UMAP's exp(-2.5)), to 1, where no edge between classes is left.

    Returns
    -------
    torch.Tensor
        ``sparse_csr`` ``[n, n]`` of the graph's dtype, symmetric.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, shape or range.

    References
    ----------
    McInnes, Healy & Melville (2018), UMAP, section 5 and umap-learn's supervised mode.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from fastpdr import KNNGraph, graph
    >>> X, y = load_iris(return_X_y=True)
    >>> fuzzy = graph.fuzzy_set(KNNGraph.build(X, 14))
    >>> apart = graph.categorical_intersection(fuzzy, y, target_weight=1.0)
    >>> apart.values().numel() < fuzzy.values().numel()
    True
    """
    function = "categorical_intersection"
    fuzzy = _to_scipy(function, graph)
    weight = _weight(function, target_weight)
    codes = _codes(function, y, fuzzy.shape[0])
    far = 2.5 / (1.0 - weight) if weight < 1.0 else math.inf
    edges = fuzzy.tocoo()
    first, second = codes[edges.row], codes[edges.col]
    unknown = (first == UNLABELLED) | (second == UNLABELLED)
    distance = np.where(unknown, UNLABELLED_DISTANCE, np.where(first != second, far, 0.0))
    edges.data = edges.data * np.exp(-distance)
    return _to_torch(_reconnected(edges.tocsr()), graph)


def continuous_intersection(
    graph: torch.Tensor, y: ArrayLike, target_weight: float = 0.5, n_neighbors: int = 15
) -> torch.Tensor:
    """Intersect a fuzzy set with that of target values.

    Parameters
    ----------
    graph : torch.Tensor
        ``sparse_csr`` ``[n, n]`` float32 or float64, symmetric, as :func:`fastpdr.graph.fuzzy_set` returns it.
    y : array-like of shape (n,) or (n, t)
        Finite target values; Euclidean distances between them count.
    target_weight : float
        From 0, the data alone, to 1, the targets alone.
    n_neighbors : int
        Of a row among the targets, from 2 to n; the row itself counts, as in UMAP.

    Returns
    -------
    torch.Tensor
        ``sparse_csr`` ``[n, n]`` of the graph's dtype, symmetric.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, shape or range.

    References
    ----------
    McInnes, Healy & Melville (2018), UMAP, and umap-learn's supervised mode.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from fastpdr import KNNGraph, graph
    >>> X = load_iris().data
    >>> fuzzy = graph.fuzzy_set(KNNGraph.build(X[:, :3], 14))
    >>> graph.continuous_intersection(fuzzy, X[:, 3]).shape
    torch.Size([150, 150])
    """
    function = "continuous_intersection"
    fuzzy = _to_scipy(function, graph)
    weight = _weight(function, target_weight)
    targets = _targets(function, y, fuzzy.shape[0])
    if not isinstance(n_neighbors, int | np.integer) or not 2 <= n_neighbors <= len(targets):
        raise ValueError(
            f"{function}: n_neighbors must be an integer from 2 to the number of rows = {len(targets)}, "
            f"got {n_neighbors!r}"
        )
    return _to_torch(_reconnected(_geometric_mean(fuzzy, _target_set(targets, int(n_neighbors)), weight)), graph)


def _target_set(targets: NDArray[np.float64], n_neighbors: int) -> Any:
    """Directed memberships of the targets' own neighbours; UMAP does not unite them here."""
    from scipy.sparse import csr_matrix

    nearest = KNNGraph.build(targets, n_neighbors - 1)
    weights, _, _ = ops.fuzzy_weights(as_tensor(nearest.distances))
    indptr = np.arange(nearest.n + 1) * nearest.k
    return csr_matrix((weights.numpy().ravel(), nearest.indices.ravel(), indptr), (nearest.n, nearest.n))


def _geometric_mean(data: Any, targets: Any, weight: float) -> Any:
    """data^(1 - weight) targets^weight, its larger exponent made 1, over the edges of either.

    An edge that stands at its absent value in both keeps the sum of the two, as in umap-learn.
    """
    targets.eliminate_zeros()
    total = (data + targets).tocsr()
    low = max(float(data.data.min(initial=1.0)) / 2, SMALLEST_MEMBERSHIP)
    low_target = min(max(float(targets.data.min(initial=1.0)) / 2, SMALLEST_MEMBERSHIP), LARGEST_ABSENT_TARGET)
    left, right = _aligned(total, data, low), _aligned(total, targets, low_target)
    larger = max(weight, 1 - weight)
    mean = left ** ((1 - weight) / larger) * right ** (weight / larger)
    total.data = np.where((left > low) | (right > low_target), mean, total.data)
    return total


def _aligned(pattern: Any, matrix: Any, absent: float) -> NDArray[np.float64]:
    """The matrix's entries [nnz] at the places of the pattern's, which includes them all."""
    n = pattern.shape[1]
    places, own = (_keys(m, n) for m in (pattern, matrix))
    values = np.full(len(places), absent)
    order = np.argsort(places)
    values[order[np.searchsorted(places, own, sorter=order)]] = matrix.data
    return values


def _keys(matrix: Any, n: int) -> NDArray[np.int64]:
    edges = matrix.tocoo()
    return edges.row.astype(np.int64) * n + edges.col


def _reconnected(fuzzy: Any) -> Any:
    """Make every row's strongest membership 1, then unite the directions: a + b - ab."""
    fuzzy.eliminate_zeros()
    strongest = fuzzy.max(axis=1).toarray().ravel()
    rows = np.repeat(np.arange(fuzzy.shape[0]), np.diff(fuzzy.indptr))
    fuzzy.data = fuzzy.data / strongest[rows]
    transpose = fuzzy.T.tocsr()
    united = (fuzzy + transpose - fuzzy.multiply(transpose)).tocsr()
    united.eliminate_zeros()
    united.sort_indices()
    return united


def _to_scipy(function: str, graph: object) -> Any:
    if not isinstance(graph, torch.Tensor) or graph.layout is not torch.sparse_csr:
        raise TypeError(f"{function}: graph must be a sparse_csr tensor [n, n], got {_described(graph)}")
    if graph.dim() != 2 or graph.shape[0] != graph.shape[1] or not graph.dtype.is_floating_point:
        raise ValueError(f"{function}: graph must be floats [n, n], got {_described(graph)}")
    return scipy_csr(graph).astype(np.float64)


def _described(graph: object) -> str:
    if isinstance(graph, torch.Tensor):
        return f"{str(graph.dtype).removeprefix('torch.')} {list(graph.shape)} {graph.layout}"
    return type(graph).__name__


def _to_torch(matrix: Any, like: torch.Tensor) -> torch.Tensor:
    index = index_dtype(matrix.shape[0], matrix.nnz)
    indptr, columns = (torch.from_numpy(part).to(index) for part in (matrix.indptr, matrix.indices))
    values = torch.from_numpy(matrix.data).to(like.dtype)
    return csr_tensor(indptr, columns, values, matrix.shape[0]).to(like.device)


def _weight(function: str, target_weight: float) -> float:
    valid = isinstance(target_weight, int | float | np.number) and not isinstance(target_weight, bool)
    if not valid or not 0 <= target_weight <= 1:
        raise ValueError(f"{function}: target_weight must be from 0 to 1, got {target_weight!r}")
    return float(target_weight)


def _codes(function: str, y: ArrayLike, n: int) -> NDArray[np.int64]:
    """Classes numbered from 0; -1 for a number -1, and for nothing else."""
    labels = _rows_of(function, y, n, lambda shape: len(shape) == 1, "labels [n]")
    try:
        classes, codes = np.unique(labels, return_inverse=True)
    except TypeError as error:
        raise ValueError(f"{function}: y must hold labels of one kind that can be sorted, got {error}") from error
    if any(value != value for value in classes):
        raise ValueError(f"{function}: y must have a label in every row (-1 for none among numbers), got NaN")
    unlabelled = [not isinstance(value, str) and bool(value == UNLABELLED) for value in classes]
    return np.where(np.array(unlabelled, dtype=bool)[codes], UNLABELLED, codes)


def _targets(function: str, y: ArrayLike, n: int) -> NDArray[np.float64]:
    targets = _rows_of(function, y, n, lambda shape: len(shape) in (1, 2) and 0 not in shape, "values [n] or [n, t]")
    try:
        targets = targets.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{function}: y must hold real numbers, got {error}") from error
    if not np.isfinite(targets).all():
        raise ValueError(f"{function}: y must be finite, got {targets[~np.isfinite(targets)][0]}")
    return targets.reshape(n, -1)


def _rows_of(function: str, y: Any, n: int, fits: Callable[[tuple[int, ...]], bool], what: str) -> NDArray[Any]:
    array = y.detach().cpu().numpy() if isinstance(y, torch.Tensor) else np.asarray(y)
    if not fits(array.shape):
        raise ValueError(f"{function}: y must be {what}, got shape {list(array.shape)}")
    if len(array) != n:
        raise ValueError(f"{function}: y must have one entry for each of the graph's {n} rows, got {len(array)}")
    return array
