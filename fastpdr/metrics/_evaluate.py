"""Every measure of one map in a flat dict, from a single pass over the data.

Neighbour orders in X and Z are computed once per anchor and shared by the four structure measures;
the label measures share one neighbour search in the map.  Beyond FULL_ROWS the measures whose cost
grows with n² take random anchors, enough for a standard error of a few thousandths.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastpdr.metrics._checks import (
    RandomState,
    anchor_rows,
    as_codes,
    as_integer,
    as_labels,
    as_matrices,
    as_rank_neighbors,
)
from fastpdr.metrics.labels import hit_share, neighbor_codes, silhouette_of, vote_accuracy
from fastpdr.metrics.structure import structure_scores

FULL_ROWS = 10_000
STRUCTURE_ANCHORS = 2_000
SILHOUETTE_ROWS = 10_000


def evaluate(
    X: ArrayLike,
    Z: ArrayLike,
    y: ArrayLike | None = None,
    *,
    n_neighbors: int = 12,
    label_neighbors: int = 7,
    sample: int | None = None,
    random_state: RandomState = 0,
    verbose: bool = False,
) -> dict[str, float]:
    """Judge a map by all measures at once.

    Parameters
    ----------
    X : array-like [n, d], real numbers
        Original data, n >= 3.
    Z : array-like [n, c], real numbers
        Map of the same rows; a single column is [n, 1].
    y : array-like of shape (n,), optional
        Class labels (integers, strings, anything that sorts), none missing.
    n_neighbors : int
        k of trustworthiness, continuity and neighborhood_preservation, 1 <= k < n/2.
    label_neighbors : int
        k of neighborhood_hit and knn_accuracy, 1 <= k <= n - 1; not used without y.
    sample : int, optional
        Score this many random rows in every measure.  By default all rows up to n = 10,000; beyond,
        2,000 random anchors for the structure measures, 10,000 random rows for the silhouette and
        all rows for neighborhood_hit and knn_accuracy.  Neighbours and ranks of an anchor are
        always taken among all n rows; only the silhouette compares the drawn rows with each other.
    random_state : int, numpy.random.Generator or None
        Draws the rows; global generators are never touched.
    verbose : bool
        Show progress, on a terminal or in a notebook.

    Returns
    -------
    dict of str to float
        trustworthiness, continuity, neighborhood_preservation in [0, 1], rnx_auc at most 1; with y
        also neighborhood_hit and knn_accuracy (leave-one-out) in [0, 1] and silhouette in [-1, 1].
        Each equals the function of that name.  silhouette is NaN where it is not defined: fewer
        than 2 classes, or as many classes as rows, among the rows used.

    Raises
    ------
    ValueError
        Wrong shape, different lengths, NaN or infinity, labels missing, `n_neighbors`,
        `label_neighbors` or `sample` out of range.

    References
    ----------
    Those of the single measures.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from fastpdr import metrics
    >>> X, y = load_iris(return_X_y=True)
    >>> scores = metrics.evaluate(X, X[:, 2:], y)  # a map of two of the four columns
    >>> {name: round(score, 2) for name, score in scores.items() if name in ("continuity", "knn_accuracy")}
    {'continuity': 0.96, 'knn_accuracy': 0.96}
    """
    return evaluate_with_curve(
        X,
        Z,
        y,
        n_neighbors=n_neighbors,
        label_neighbors=label_neighbors,
        sample=sample,
        random_state=random_state,
        verbose=verbose,
    )[0]


def evaluate_with_curve(
    X: ArrayLike,
    Z: ArrayLike,
    y: ArrayLike | None = None,
    *,
    n_neighbors: int = 12,
    label_neighbors: int = 7,
    sample: int | None = None,
    random_state: RandomState = 0,
    verbose: bool = False,
) -> tuple[dict[str, float], NDArray[np.float64]]:
    """Judge a map by all measures at once and keep the R_NX curve, which costs nothing more.

    Parameters
    ----------
    X, Z, y, n_neighbors, label_neighbors, sample, random_state, verbose
        As for `evaluate`.

    Returns
    -------
    scores : dict of str to float
        As from `evaluate`.
    curve : numpy.ndarray [n - 2], float64
        As from `rnx_curve`.

    Raises
    ------
    ValueError
        As for `evaluate`.

    References
    ----------
    Those of the single measures.
    """
    x, z = as_matrices("evaluate", X, Z)
    n = len(x)
    k = as_rank_neighbors("evaluate", n_neighbors, n)
    if y is not None:
        codes = as_codes("evaluate", "y", as_labels("evaluate", "y", y, "X", n))
        label_k = as_integer("evaluate", "label_neighbors", label_neighbors, 1, n - 1, "n - 1")

    given = None if sample is None else anchor_rows("evaluate", sample, n, random_state)
    scores, curve = structure_scores(x, z, _rows(given, n, STRUCTURE_ANCHORS, random_state), k, verbose)
    if y is not None:
        neighbor_rows = _rows(given, n, n, random_state)
        silhouette_rows = _rows(given, n, SILHOUETTE_ROWS, random_state)
        scores |= _label_scores(z, codes, label_k, neighbor_rows, silhouette_rows)
    return scores, curve


def _label_scores(
    z: NDArray,
    codes: NDArray[np.int64],
    k: int,
    neighbor_rows: NDArray[np.int64],
    silhouette_rows: NDArray[np.int64],
) -> dict[str, float]:
    neighbors = neighbor_codes(z, codes, k, neighbor_rows)
    defined = 2 <= len(np.unique(codes[silhouette_rows])) < len(silhouette_rows)
    return {
        "neighborhood_hit": hit_share(neighbors, codes[neighbor_rows]),
        "knn_accuracy": vote_accuracy(neighbors, codes[neighbor_rows]),
        "silhouette": silhouette_of(z, codes, silhouette_rows) if defined else float("nan"),
    }


def _rows(given: NDArray[np.int64] | None, n: int, most: int, random_state: RandomState) -> NDArray[np.int64]:
    """Return the rows the caller drew, or else all of them up to FULL_ROWS, `most` beyond."""
    if given is not None:
        return given
    size = None if n <= FULL_ROWS or most >= n else most
    return anchor_rows("evaluate", size, n, random_state)
