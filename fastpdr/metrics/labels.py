"""How well a map Z [n, c] separates the classes y [n]: neighbours' labels and silhouette.

Neighbours and silhouette are scikit-learn's (a tree for maps, so no n x n work), on the map centred
and scaled in float64; the vote is its rule too, the smallest class among the most frequent.
scikit-learn is imported where it is called: it costs more than the rest of this package.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from fastpdr.metrics._checks import (
    RandomState,
    anchor_rows,
    as_codes,
    as_integer,
    as_labels,
    as_matrix,
)
from fastpdr.metrics._ranks import Frame

SILHOUETTE_MIB = 128


def neighborhood_hit(
    Z: ArrayLike,
    y: ArrayLike,
    *,
    n_neighbors: int = 7,
    sample: int | None = None,
    random_state: RandomState = 0,
) -> float:
    """Mean share of a point's k map neighbours that carry its label.

    Parameters
    ----------
    Z : array-like [n, c], real numbers
        Map; a single column is [n, 1].
    y : array-like [n], integers, strings or anything that sorts
        Class labels, none missing.
    n_neighbors : int
        k, with 1 <= k <= n - 1; the point itself is not one of them.
    sample : int, optional
        Score this many random rows instead of all; their neighbours are taken among all n rows.
    random_state : int, numpy.random.Generator or None
        Draws the rows; global generators are never touched.

    Returns
    -------
    float in [0, 1]
        1 where no neighbourhood mixes classes.

    Raises
    ------
    ValueError
        Wrong shape, different lengths, NaN or infinity in Z, labels missing, `n_neighbors` or
        `sample` out of range.

    References
    ----------
    F. V. Paulovich, L. G. Nonato, R. Minghim, H. Levkowitz: Least square projection.  IEEE TVCG
    14(3), 2008.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from fastpdr import metrics
    >>> X, y = load_iris(return_X_y=True)
    >>> round(metrics.neighborhood_hit(X[:, 2:], y), 2)
    0.95
    """
    z = as_matrix("neighborhood_hit", "Z", Z)
    labels = as_labels("neighborhood_hit", "y", y, "Z", len(z))
    codes = as_codes("neighborhood_hit", "y", labels)
    k = as_integer("neighborhood_hit", "n_neighbors", n_neighbors, 1, len(z) - 1, "n - 1")
    rows = anchor_rows("neighborhood_hit", sample, len(z), random_state)
    return hit_share(neighbor_codes(z, codes, k, rows), codes[rows])


def knn_accuracy(
    Z: ArrayLike,
    y: ArrayLike,
    Z_test: ArrayLike | None = None,
    y_test: ArrayLike | None = None,
    *,
    n_neighbors: int = 7,
) -> float:
    """Accuracy of a k-nearest-neighbour classifier in the map.

    With a test map, scikit-learn's `KNeighborsClassifier(n_neighbors).fit(Z, y)` scored on it.
    Without, leave-one-out on Z: each row is classified by its k nearest other rows.  Among equally
    frequent classes the smallest wins, as in scikit-learn.

    Parameters
    ----------
    Z : array-like [n, c], real numbers
        Map of the labelled rows; a single column is [n, 1].
    y : array-like [n], integers, strings or anything that sorts
        Class labels, none missing.
    Z_test : array-like of shape (m, c), optional
        Map of the test rows.
    y_test : array-like of shape (m,), optional
        Their labels, given exactly when `Z_test` is; a class that is not in y counts as missed.
    n_neighbors : int
        k, with 1 <= k <= n with a test map and 1 <= k <= n - 1 without.

    Returns
    -------
    float in [0, 1]
        Share of rows classified correctly.

    Raises
    ------
    ValueError
        Wrong shape, different lengths or numbers of columns, NaN or infinity, labels missing,
        `n_neighbors` out of range, one of `Z_test` and `y_test` without the other.

    References
    ----------
    E. Fix, J. L. Hodges: Discriminatory analysis, nonparametric discrimination.  1951.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from fastpdr import metrics
    >>> X, y = load_iris(return_X_y=True)
    >>> Z = X[:, 2:]
    >>> round(metrics.knn_accuracy(Z, y), 2), round(metrics.knn_accuracy(Z[::2], y[::2], Z[1::2], y[1::2]), 2)
    (0.96, 0.95)
    """
    z = as_matrix("knn_accuracy", "Z", Z)
    labels = as_labels("knn_accuracy", "y", y, "Z", len(z))
    codes = as_codes("knn_accuracy", "y", labels)
    if Z_test is not None:
        k = as_integer("knn_accuracy", "n_neighbors", n_neighbors, 1, len(z), "n")
        return _test_accuracy(z, labels, Z_test, y_test, k)
    if y_test is not None:
        raise ValueError("knn_accuracy: Z_test must be given along with y_test, got None")
    k = as_integer("knn_accuracy", "n_neighbors", n_neighbors, 1, len(z) - 1, "n - 1")
    return vote_accuracy(neighbor_codes(z, codes, k, np.arange(len(z))), codes)


def silhouette(
    Z: ArrayLike,
    y: ArrayLike,
    *,
    sample: int | None = None,
    random_state: RandomState = 0,
) -> float:
    """Mean silhouette of the classes in the map, `sklearn.metrics.silhouette_score`.

    The mean of (b - a) / max(a, b), where a is a row's mean distance to its own class and b that
    to the nearest other class.

    Parameters
    ----------
    Z : array-like [n, c], real numbers
        Map; a single column is [n, 1].
    y : array-like [n], integers, strings or anything that sorts
        Class labels, none missing; at least 2 classes and fewer than rows.
    sample : int, optional
        Use this many random rows only, scored among themselves (as scikit-learn's
        `sample_size` does): the cost grows with the square of the rows.
    random_state : int, numpy.random.Generator or None
        Draws the rows; global generators are never touched.

    Returns
    -------
    float in [-1, 1]
        1 for compact classes far apart, 0 for classes that overlap.

    Raises
    ------
    ValueError
        Wrong shape, different lengths, NaN or infinity in Z, labels missing, `sample` out of
        range, fewer than 2 classes or as many classes as rows among the rows used.

    References
    ----------
    P. J. Rousseeuw: Silhouettes.  Journal of Computational and Applied Mathematics 20, 1987.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from fastpdr import metrics
    >>> X, y = load_iris(return_X_y=True)
    >>> round(metrics.silhouette(X[:, 2:], y), 2)
    0.64
    """
    z = as_matrix("silhouette", "Z", Z)
    labels = as_labels("silhouette", "y", y, "Z", len(z))
    codes = as_codes("silhouette", "y", labels)
    rows = anchor_rows("silhouette", sample, len(z), random_state)
    classes = len(np.unique(codes[rows]))
    if not 2 <= classes < len(rows):
        raise ValueError(
            f"silhouette: y must have from 2 to {len(rows) - 1} classes among the {len(rows)} rows used, got {classes}"
        )
    return silhouette_of(z, codes, rows)


def neighbor_codes(z: NDArray, codes: NDArray[np.int64], k: int, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the class codes [m, k] of the k nearest other rows of `rows` [m]."""
    from sklearn.neighbors import NearestNeighbors

    z = Frame.of(z).apply(z)
    found = NearestNeighbors(n_neighbors=k + 1).fit(z).kneighbors(z[rows], return_distance=False)
    others = found != rows[:, None]
    # Among many duplicates a row may not find itself; then the farthest candidate is one too many.
    others[others.all(axis=1), k] = False
    return codes[found[others].reshape(len(rows), k)]


def hit_share(neighbors: NDArray[np.int64], own: NDArray[np.int64]) -> float:
    """Return the share of neighbours' codes [m, k] that equal the rows' own [m]."""
    return float((neighbors == own[:, None]).mean())


def vote_accuracy(neighbors: NDArray[np.int64], own: NDArray[np.int64]) -> float:
    """Return how often the most frequent of the neighbours' codes [m, k] is the row's own [m]."""
    ordered = torch.from_numpy(np.sort(neighbors, axis=1))
    # Counting inside the sorted row needs no [m, classes] table, and argmax meets the smallest
    # of the most frequent classes first.
    votes = torch.searchsorted(ordered, ordered, right=True) - torch.searchsorted(ordered, ordered)
    winner = ordered.numpy()[np.arange(len(own)), votes.numpy().argmax(axis=1)]
    return float((winner == own).mean())


def silhouette_of(z: NDArray, codes: NDArray[np.int64], rows: NDArray[np.int64]) -> float:
    """Return scikit-learn's silhouette score of some rows in a bounded amount of memory."""
    from sklearn import config_context
    from sklearn.metrics import silhouette_score

    z = z[rows]
    with config_context(working_memory=SILHOUETTE_MIB):
        return float(silhouette_score(Frame.of(z).apply(z), codes[rows]))


def _test_accuracy(z: NDArray, labels: NDArray, Z_test: ArrayLike, y_test: ArrayLike | None, k: int) -> float:
    from sklearn.neighbors import KNeighborsClassifier

    z_test = as_matrix("knn_accuracy", "Z_test", Z_test)
    if z_test.shape[1] != z.shape[1]:
        raise ValueError(f"knn_accuracy: Z_test must have as many columns as Z = {z.shape[1]}, got {z_test.shape[1]}")
    labels_test = as_labels("knn_accuracy", "y_test", y_test, "Z_test", len(z_test))
    frame = Frame.of(z)
    classifier = KNeighborsClassifier(n_neighbors=k).fit(frame.apply(z), labels)
    return float(np.mean(classifier.predict(frame.apply(z_test)) == labels_test))
