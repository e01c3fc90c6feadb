"""How good is a map?  Structure it keeps, labels it separates, and all of it at once.

Structure compares data X [n, d] with a map Z [n, c]: trustworthiness, continuity,
neighborhood_preservation, rnx_curve, rnx_auc.  Labels judge the map alone: neighborhood_hit,
knn_accuracy, silhouette.  evaluate returns every figure from one pass over the data, evaluate_with_curve the R_NX
curve as well.
"""

from __future__ import annotations

from fastpdr.metrics._evaluate import evaluate, evaluate_with_curve
from fastpdr.metrics.labels import knn_accuracy, neighborhood_hit, silhouette
from fastpdr.metrics.structure import (
    continuity,
    neighborhood_preservation,
    rnx_auc,
    rnx_curve,
    trustworthiness,
)

__all__ = [
    "continuity",
    "evaluate",
    "evaluate_with_curve",
    "knn_accuracy",
    "neighborhood_hit",
    "neighborhood_preservation",
    "rnx_auc",
    "rnx_curve",
    "silhouette",
    "trustworthiness",
]
