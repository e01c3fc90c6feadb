"""Trustworthiness, continuity and R_NX of all rows together, against scikit-learn's trustworthiness alone."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
from clock import timed
from sklearn.decomposition import PCA
from sklearn.manifold import trustworthiness

from fastpdr import metrics

NEIGHBORS = 12


def rows(n: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    """Clusters [n, d], and their map [n, 2]."""
    rng = np.random.default_rng(0)
    X = (rng.normal(size=(10, d))[rng.integers(10, size=n)] + rng.normal(size=(n, d))).astype(np.float32)
    return X, PCA(2, random_state=0).fit_transform(X)


def test_all_rows_against_scikit_learn(benchmark):
    X, Z = rows(500 if benchmark.disabled else 10_000, 784)
    rounds = 1 if benchmark.disabled else 3
    theirs = [timed(lambda: trustworthiness(X, Z, n_neighbors=NEIGHBORS)) for _ in range(rounds)]
    scores = benchmark.pedantic(
        lambda: metrics.evaluate(X, Z, n_neighbors=NEIGHBORS, sample=len(X)), rounds=rounds, warmup_rounds=1
    )
    assert scores["trustworthiness"] == pytest.approx(theirs[0][0], abs=1e-6)
    median = statistics.median(seconds["wall_s"] for _, seconds in theirs)
    ours = median if benchmark.disabled else benchmark.stats.stats.median
    benchmark.extra_info.update(
        competitor="scikit-learn's trustworthiness alone",
        competitor_median_s=median,
        ours_median_s=ours,
        ratio=median / ours,
        runs=[seconds for _, seconds in theirs],
    )


def test_many_rows(benchmark):
    X, Z = rows(2_000 if benchmark.disabled else 70_000, 784)
    scores = benchmark.pedantic(lambda: metrics.evaluate(X, Z, n_neighbors=NEIGHBORS), rounds=1)
    assert 0.5 < scores["trustworthiness"] < 1.0
