"""How much of the data's neighbourhood structure a map keeps: measures of ranks in both spaces.

All of them read the co-ranking of X [n, d] and Z [n, c]: rank r_X(i, j) of row j among the other
rows by distance from row i, and r_Z likewise.  Each measure is made of sums over anchors i
(`fastpdr.ops.coranking`), block by block of `_ranks`; integers, so the result does not depend on the
blocks.
Sources: Venna & Kaski 2001; Lee & Verleysen 2009; Lee, Peluffo-Ordonez & Verleysen 2015.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from fastpdr import ops
from fastpdr.metrics._checks import (
    RandomState,
    anchor_rows,
    as_integer,
    as_matrices,
    as_rank_neighbors,
)
from fastpdr.metrics._ranks import Points, block_distances


def trustworthiness(
    X: ArrayLike,
    Z: ArrayLike,
    *,
    n_neighbors: int = 12,
    sample: int | None = None,
    random_state: RandomState = 0,
    verbose: bool = False,
) -> float:
    """Share of the map's neighbourhoods that is no intrusion from afar.

    T = 1 - 2 / (m k (2n - 3k - 1)) * sum_i sum_{j in kNN_Z(i)} max(0, r_X(i, j) - k), with m
    anchors i.  Equal to `sklearn.manifold.trustworthiness` where no distances tie.

    Parameters
    ----------
    X : array-like [n, d], real numbers
        Original data.  float64 is worked in float64, everything else in float32 where that tells
        the neighbours apart.
    Z : array-like [n, c], real numbers
        Map of the same rows; a single column is [n, 1].
    n_neighbors : int
        k, with 1 <= k < n/2.
    sample : int, optional
        Score this many random anchors i instead of all n; their neighbours and ranks are still
        taken among all n rows, so the estimate is unbiased.
    random_state : int, numpy.random.Generator or None
        Draws the anchors; global generators are never touched.
    verbose : bool
        Show progress, on a terminal or in a notebook.

    Returns
    -------
    float in [0, 1]
        1 where every map neighbour is a neighbour in the data, about 0.5 for a random map.

    Raises
    ------
    ValueError
        Wrong shape, different lengths, NaN or infinity, `n_neighbors` or `sample` out of range.

    Notes
    -----
    The point itself is never its own neighbour.  Rows at equal distance rank in the order of
    their row numbers, in both spaces.

    References
    ----------
    J. Venna, S. Kaski: Neighborhood preservation in nonlinear projection methods: an experimental
    study.  ICANN 2001.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from fastpdr import metrics
    >>> X = load_iris().data
    >>> metrics.trustworthiness(X, X), round(metrics.trustworthiness(X, X[:, 2:]), 2)
    (1.0, 0.94)
    """
    pair = _Pair.of("trustworthiness", X, Z, sample, random_state, verbose)
    k = as_rank_neighbors("trustworthiness", n_neighbors, pair.n)
    return _rank_score(pair.coranking(k).intruding, pair, k)


def continuity(
    X: ArrayLike,
    Z: ArrayLike,
    *,
    n_neighbors: int = 12,
    sample: int | None = None,
    random_state: RandomState = 0,
    verbose: bool = False,
) -> float:
    """Share of the data's neighbourhoods that the map does not tear apart.

    Trustworthiness with the spaces swapped:
    C = 1 - 2 / (m k (2n - 3k - 1)) * sum_i sum_{j in kNN_X(i)} max(0, r_Z(i, j) - k).

    Parameters
    ----------
    X, Z, n_neighbors, sample, random_state, verbose
        As for `trustworthiness`.

    Returns
    -------
    float in [0, 1]
        1 where every neighbour in the data is a neighbour in the map.

    Raises
    ------
    ValueError
        As for `trustworthiness`.

    References
    ----------
    J. Venna, S. Kaski: Neighborhood preservation in nonlinear projection methods: an experimental
    study.  ICANN 2001.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from fastpdr import metrics
    >>> X = load_iris().data
    >>> round(metrics.continuity(X, X[:, 2:]), 2)
    0.96
    """
    pair = _Pair.of("continuity", X, Z, sample, random_state, verbose)
    k = as_rank_neighbors("continuity", n_neighbors, pair.n)
    return _rank_score(pair.coranking(k).torn, pair, k)


def neighborhood_preservation(
    X: ArrayLike,
    Z: ArrayLike,
    *,
    n_neighbors: int = 12,
    sample: int | None = None,
    random_state: RandomState = 0,
    verbose: bool = False,
) -> float:
    """Mean overlap of the k nearest neighbours in data and map, Q_NX(k).

    Q_NX(k) = 1 / (m k) * sum_i |kNN_X(i) ∩ kNN_Z(i)|, with m anchors i.

    Parameters
    ----------
    X, Z, sample, random_state, verbose
        As for `trustworthiness`.
    n_neighbors : int
        k, with 1 <= k <= n - 1.

    Returns
    -------
    float in [0, 1]
        1 where the neighbourhoods agree, about k / (n - 1) for a random map.

    Raises
    ------
    ValueError
        As for `trustworthiness`.

    References
    ----------
    J. A. Lee, M. Verleysen: Quality assessment of dimensionality reduction: rank-based criteria.
    Neurocomputing 72, 2009.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from fastpdr import metrics
    >>> X = load_iris().data
    >>> round(metrics.neighborhood_preservation(X, X[:, 2:], n_neighbors=15), 2)
    0.57
    """
    pair = _Pair.of("neighborhood_preservation", X, Z, sample, random_state, verbose)
    k = as_integer("neighborhood_preservation", "n_neighbors", n_neighbors, 1, pair.n - 1, "n - 1")
    return _preserved(pair.coranking(k), pair, k)


def rnx_curve(
    X: ArrayLike,
    Z: ArrayLike,
    *,
    k_max: int | None = None,
    sample: int | None = None,
    random_state: RandomState = 0,
    verbose: bool = False,
) -> NDArray[np.float64]:
    """Neighbourhood agreement above chance for every neighbourhood size, R_NX(K).

    R_NX(K) = ((n - 1) Q_NX(K) - K) / (n - 1 - K), where Q_NX(K) is the mean overlap of the K
    nearest neighbours (`neighborhood_preservation`).

    Parameters
    ----------
    X, Z, sample, random_state, verbose
        As for `trustworthiness`.
    k_max : int, optional
        Last K, with 1 <= k_max <= n - 2; by default n - 2.

    Returns
    -------
    numpy.ndarray [k_max], float64
        R_NX(1), ..., R_NX(k_max): 1 for a perfect map, about 0 for a random one, negative (down to
        -K / (n - 1 - K)) for one worse than chance.

    Raises
    ------
    ValueError
        As for `trustworthiness`; fewer than 3 rows; `k_max` out of range.

    References
    ----------
    J. A. Lee, D. H. Peluffo-Ordonez, M. Verleysen: Multi-scale similarities in stochastic
    neighbour embedding: reducing dimensionality while preserving both local and global structure.
    Neurocomputing 169, 2015.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from fastpdr import metrics
    >>> X = load_iris().data
    >>> metrics.rnx_curve(X, X[:, 2:]).shape
    (148,)
    """
    return _rnx_curve("rnx_curve", X, Z, k_max, sample, random_state, verbose)


def rnx_auc(
    X: ArrayLike,
    Z: ArrayLike,
    *,
    k_max: int | None = None,
    sample: int | None = None,
    random_state: RandomState = 0,
    verbose: bool = False,
) -> float:
    """Area under the R_NX curve over log K: one figure for all neighbourhood sizes.

    AUC = sum_K R_NX(K) / K / sum_K 1 / K for K = 1, ..., k_max.

    Parameters
    ----------
    X, Z, k_max, sample, random_state, verbose
        As for `rnx_curve`.

    Returns
    -------
    float, at most 1
        1 for a perfect map, about 0 for a random one.

    Raises
    ------
    ValueError
        As for `rnx_curve`.

    References
    ----------
    As for `rnx_curve`.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from fastpdr import metrics
    >>> X = load_iris().data
    >>> round(metrics.rnx_auc(X, X[:, 2:]), 2)
    0.48
    """
    return log_k_mean(_rnx_curve("rnx_auc", X, Z, k_max, sample, random_state, verbose))


def structure_scores(
    x: NDArray, z: NDArray, rows: NDArray[np.int64], n_neighbors: int, verbose: bool
) -> tuple[dict[str, float], NDArray[np.float64]]:
    """Return the four structure measures of checked arguments, and the R_NX curve, from one pass over the anchors."""
    pair, k = _Pair(x, z, rows, verbose), n_neighbors
    sums = pair.coranking(k)
    curve = _curve_from_counts(sums.counts[: pair.n - 2], pair)
    scores = {
        "trustworthiness": _rank_score(sums.intruding, pair, k),
        "continuity": _rank_score(sums.torn, pair, k),
        "neighborhood_preservation": _preserved(sums, pair, k),
        "rnx_auc": log_k_mean(curve),
    }
    return scores, curve


class _Sums(NamedTuple):
    """Of :func:`fastpdr.ops.coranking` over all anchors."""

    counts: NDArray[np.int64]  # [n]
    intruding: int
    torn: int


@dataclass(frozen=True)
class _Pair:
    """Data and map of the same n rows, and the m anchors among them."""

    x: NDArray
    z: NDArray
    rows: NDArray[np.int64]
    verbose: bool

    @classmethod
    def of(
        cls, function: str, X: ArrayLike, Z: ArrayLike, sample: object, random_state: RandomState, verbose: bool
    ) -> _Pair:
        x, z = as_matrices(function, X, Z)
        return cls(x, z, anchor_rows(function, sample, len(x), random_state), verbose)

    @property
    def n(self) -> int:
        return len(self.x)

    @property
    def m(self) -> int:
        return len(self.rows)

    def coranking(self, k: int) -> _Sums:
        x, z = Points(self.x), Points(self.z)
        counts, intruding, torn = torch.zeros(self.n, dtype=torch.int64), 0, 0
        for block in block_distances(x, z, self.rows, self.verbose):
            of_block = ops.coranking(*block, k)
            counts += of_block[0]
            intruding, torn = intruding + int(of_block[1]), torn + int(of_block[2])
        return _Sums(counts.numpy(), intruding, torn)


def _preserved(sums: _Sums, pair: _Pair, k: int) -> float:
    return float(sums.counts[:k].sum()) / (pair.m * k)


def _rank_score(excess: int, pair: _Pair, k: int) -> float:
    return 1.0 - 2.0 * excess / (pair.m * k * (2 * pair.n - 3 * k - 1))


def _curve_from_counts(counts: NDArray[np.int64], pair: _Pair) -> NDArray[np.float64]:
    K = np.arange(1, len(counts) + 1)
    overlap = np.cumsum(counts) / (pair.m * K)
    others = pair.n - 1
    return (others * overlap - K) / (others - K)


def _rnx_curve(
    function: str,
    X: ArrayLike,
    Z: ArrayLike,
    k_max: int | None,
    sample: int | None,
    random_state: RandomState,
    verbose: bool,
) -> NDArray[np.float64]:
    pair = _Pair.of(function, X, Z, sample, random_state, verbose)
    if pair.n < 3:
        raise ValueError(f"{function}: X must have at least 3 rows, got {pair.n}")
    last = pair.n - 2
    if k_max is not None:
        last = as_integer(function, "k_max", k_max, 1, last, "n - 2")
    return _curve_from_counts(pair.coranking(0).counts[:last], pair)


def log_k_mean(curve: NDArray[np.float64]) -> float:
    """Return the area under an R_NX curve [k_max] over log K."""
    return float(np.average(curve, weights=1.0 / np.arange(1, len(curve) + 1)))
