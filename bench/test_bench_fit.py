"""A whole fit of digits with default parameters: time, and quality on rows never seen, over five seeds."""

from __future__ import annotations

import statistics
import time

import numpy as np
import pytest
from cases import THREADS, digits
from sklearn.manifold import trustworthiness
from sklearn.neighbors import KNeighborsClassifier

from fastpdr import MultiscaleParametricTSNE, ParametricTSNE, metrics


def score(map_of_train, y_train, test, map_of_test, y_test) -> dict[str, float]:
    classifier = KNeighborsClassifier(7).fit(map_of_train, y_train)
    return {
        "trustworthiness_12": float(trustworthiness(test, map_of_test, n_neighbors=12)),
        "knn7_accuracy": float(classifier.score(map_of_test, y_test)),
        "rnx_auc": metrics.rnx_auc(test, map_of_test),
    }


def record(benchmark, runs: list[dict[str, float]]) -> None:
    medians = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
    benchmark.extra_info.update(median=medians, runs=runs)


def timed(function) -> tuple[object, dict[str, float]]:
    cpu, wall = time.process_time(), time.perf_counter()
    result = function()
    return result, {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}


@pytest.mark.parametrize("cls", [ParametricTSNE, MultiscaleParametricTSNE])
def test_fit_digits(cls, benchmark):
    train, y_train, test, y_test = digits()
    runs = []
    for seed in range(1 if benchmark.disabled else 5):
        estimator, seconds = timed(lambda seed=seed: cls(random_state=seed).fit(train))
        runs.append({**score(estimator.embedding_, y_train, test, estimator.transform(test), y_test), **seconds})
    record(benchmark, runs)
    benchmark.pedantic(lambda: estimator.transform(test), rounds=20, warmup_rounds=2)


def test_opentsne_digits(benchmark):
    """The non-parametric yardstick: openTSNE's fit and its transform, which optimises every new row."""
    openTSNE = pytest.importorskip("openTSNE")
    train, y_train, test, y_test = digits()
    runs = []
    for seed in range(1 if benchmark.disabled else 5):
        tsne = openTSNE.TSNE(random_state=seed, n_jobs=THREADS)
        embedding, seconds = timed(lambda tsne=tsne: tsne.fit(train))
        placed, placing = timed(lambda embedding=embedding: embedding.transform(test))
        runs.append(
            {
                **score(np.asarray(embedding), y_train, test, np.asarray(placed), y_test),
                **seconds,
                **{f"transform_{key}": value for key, value in placing.items()},
            }
        )
    record(benchmark, runs)
    benchmark.pedantic(lambda: embedding.transform(test), rounds=1)
