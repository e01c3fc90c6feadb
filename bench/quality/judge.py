"""What a protocol judges a map of training rows and a map of rows never seen by; labels are used here alone.

published   Trustworthiness, continuity and neighbourhood hit of 7 neighbours, and mu, their mean (Lai et al. 2022,
            Parametric Dimension Reduction by Preserving Local Structure). ``_self``: with the point itself counted as
            the first of its 7 neighbours, as the paper's own evaluation does. All rows are scored.
scale       R_NX AUC, neighbourhood preservation and trustworthiness of 15 neighbours, 10-NN accuracy within a map.
            Up to 10,000 rows all are scored, beyond that 2,000 random ones against all others.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fastpdr.metrics import evaluate, knn_accuracy, neighborhood_hit

from .sets import Split

Labels = NDArray[np.int64] | None


def judge(protocol: str, data: Split, Z: NDArray, Z_test: NDArray) -> dict[str, float | None]:
    """All figures of a protocol: of the training map, of the test map, and of both.

    Parameters
    ----------
    protocol : {"published", "scale"}
    data : Split
    Z, Z_test : ndarray [n, 2], [m, 2]
        Maps of its training rows and of its test rows.

    Returns
    -------
    dict of str to float or None
        None where a figure needs labels that the set does not have.

    Raises
    ------
    FloatingPointError
        A place is not finite.
    """
    for rows, places in (("training", Z), ("test", Z_test)):
        if bad := int((~np.isfinite(places).all(axis=1)).sum()):
            raise FloatingPointError(f"{bad} of the {len(places)} places of {rows} rows are not finite")
    of_map = MEASURES[protocol]
    test = {f"test_{key}": value for key, value in of_map(data.X_test, Z_test, data.y_test).items()}
    train = {f"train_{key}": value for key, value in of_map(data.X, Z, data.y).items()}
    scores = {**test, **train}
    if protocol == "published":
        scores["gap_mu"] = scores["train_mu"] - scores["test_mu"]
    else:
        known = data.y is not None
        scores["transfer_knn10"] = knn_accuracy(Z, data.y, Z_test, data.y_test, n_neighbors=10) if known else None
    return scores


def published(X: NDArray, Z: NDArray, y: Labels) -> dict[str, float | None]:
    """The published protocol's figures of one map."""
    scores = evaluate(X, Z, y, n_neighbors=7, label_neighbors=7, sample=len(X))
    trust, cont, hit = (scores[key] for key in ("trustworthiness", "continuity", "neighborhood_hit"))
    hit_self = (1 + 6 * neighborhood_hit(Z, y, n_neighbors=6)) / 7
    return {
        "mu": (trust + cont + hit) / 3,
        "trust7": trust,
        "cont7": cont,
        "nh7": hit,
        "mu_self": (trust + cont + hit_self) / 3,
        "nh7_self": hit_self,
        "rnx_auc": scores["rnx_auc"],
    }


def scale(X: NDArray, Z: NDArray, y: Labels) -> dict[str, float | None]:
    """The scale protocol's figures of one map."""
    scores = evaluate(X, Z, y, n_neighbors=15, label_neighbors=10)
    return {
        "rnx_auc": scores["rnx_auc"],
        "np15": scores["neighborhood_preservation"],
        "trust15": scores["trustworthiness"],
        "knn10": scores.get("knn_accuracy"),
    }


MEASURES: dict[str, Callable[[NDArray, NDArray, Labels], dict[str, float | None]]] = {
    "published": published,
    "scale": scale,
}
