"""What a protocol judges a map of training rows and a map of rows never seen by; labels are used here alone.

published   Trustworthiness, continuity and neighbourhood hit of 7 neighbours, and mu, their mean (Lai et al. 2022,
            Parametric Dimension Reduction by Preserving Local Structure). ``_self``: with the point itself counted as
            the first of its 7 neighbours, as the paper's own evaluation does. All rows are scored.
scale       R_NX AUC, neighbourhood preservation and trustworthiness of 15 neighbours, 10-NN accuracy within a map.
            Up to 10,000 rows all are scored, beyond that 2,000 random ones against all others.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastpdr.metrics import evaluate, knn_accuracy, neighborhood_hit

from .sets import Split

Labels = NDArray[np.int64] | None
Figures = dict[str, Any]  # None where a figure needs labels that the set does not have


def judge(protocol: str, data: Split, Z: NDArray, Z_test: NDArray) -> Figures:
    """All figures of a protocol.

    Parameters
    ----------
    protocol : {"published", "scale"}
    data : Split
    Z, Z_test : ndarray [n, 2], [m, 2]
        Maps of its training rows and of its test rows.

    Returns
    -------
    Figures
        Of the test map, of the training map, and of both: the gap in mu (training - test), or the accuracy of 10-NN
        from the training map's labels to the test rows.

    Raises
    ------
    FloatingPointError
        A place is not finite.
    """
    for rows, places in (("training", Z), ("test", Z_test)):
        if bad := int((~np.isfinite(places).all(axis=1)).sum()):
            raise FloatingPointError(f"{bad} of the {len(places)} places of {rows} rows are not finite")
    measure = published if protocol == "published" else scale
    test = {f"test_{key}": value for key, value in measure(data.X_test, Z_test, data.y_test).items()}
    train = {f"train_{key}": value for key, value in measure(data.X, Z, data.y).items()}
    return {**test, **train, **_of_both(protocol, data, Z, Z_test, test, train)}


def _of_both(protocol: str, data: Split, Z: NDArray, Z_test: NDArray, test: Figures, train: Figures) -> Figures:
    if protocol == "published":
        return {"gap_mu": train["train_mu"] - test["test_mu"]}
    if data.y is None:
        return {"transfer_knn10": None}
    return {"transfer_knn10": knn_accuracy(Z, data.y, Z_test, data.y_test, n_neighbors=10)}


def published(X: NDArray, Z: NDArray, y: Labels) -> Figures:
    """The published protocol's figures of one map."""
    if y is None:
        raise ValueError("the published protocol needs labels")
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


def scale(X: NDArray, Z: NDArray, y: Labels) -> Figures:
    """The scale protocol's figures of one map."""
    scores = evaluate(X, Z, y, n_neighbors=15, label_neighbors=10)
    return {
        "rnx_auc": scores["rnx_auc"],
        "np15": scores["neighborhood_preservation"],
        "trust15": scores["trustworthiness"],
        "knn10": scores.get("knn_accuracy"),
    }
