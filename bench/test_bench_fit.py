"""A whole fit of digits with default parameters: time, and quality on rows never seen, over five seeds."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
import torch
from cases import BLOB_ROWS, GRAPH_NEIGHBORS, THREADS, as_scipy, blobs, digits
from clock import timed
from competitors import PerEdgeUMAP
from sklearn.manifold import trustworthiness
from sklearn.neighbors import KNeighborsClassifier

from bench.breakdown.network import against_network, wide_rows
from fastpdr import KNNGraph, MultiscaleParametricTSNE, ParametricLargeVis, ParametricTSNE, ParametricUMAP, metrics
from fastpdr.training.batches import EdgeBatches
from fastpdr.training.objectives import Curve, PairObjective, curve_of


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


@pytest.mark.parametrize(
    ("cls", "parameters"),
    [
        pytest.param(ParametricTSNE, {}, id="ParametricTSNE"),
        pytest.param(ParametricTSNE, {"affinity": "knn"}, id="ParametricTSNE-knn"),
        pytest.param(MultiscaleParametricTSNE, {}, id="MultiscaleParametricTSNE"),
        pytest.param(ParametricUMAP, {}, id="ParametricUMAP"),
        pytest.param(ParametricLargeVis, {}, id="ParametricLargeVis"),
    ],
)
def test_fit_digits(cls, parameters, benchmark):
    train, y_train, test, y_test = digits()
    runs = []
    for seed in range(1 if benchmark.disabled else 5):
        estimator, seconds = timed(lambda seed=seed: cls(**parameters, random_state=seed).fit(train))
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


def count_of_an_epoch(graph: torch.Tensor, batch_size: int) -> dict[str, int]:
    """What one epoch of our training holds: edges drawn, and pairs that attract (both directions, as in a list)."""
    curve = Curve(1.0, 1.0, 1.0, 0.0, 0.0)
    objective = PairObjective(graph, curve, EdgeBatches(graph, batch_size, None, seed=0))
    batches = list(objective.epoch())
    return {
        "pairs": sum(objective.similarities(batch).values().numel() for batch in batches),
        "edges": len(batches) * objective.batches.edges,
    }


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("unit", ["pairs", "edges"])
def test_umap_against_the_per_edge_loop(unit, benchmark):
    """CPU seconds until as many pairs have attracted each other as in ten epochs of the published loop.

    Ours is counted by the pairs in its losses, or by the edges it drew alone. Both get their neighbours.
    """
    n = 300 if benchmark.disabled else BLOB_ROWS
    X, graph = blobs(n)
    theirs = PerEdgeUMAP(n_epochs=2 if benchmark.disabled else 10)
    Z, their_seconds = timed(lambda: theirs.fit(torch.from_numpy(X), as_scipy(graph), *curve_of(0.1, 1.0)))
    neighbors = KNNGraph.build(X, GRAPH_NEIGHBORS, random_state=0)
    batch_size = ParametricUMAP()._batch_size(n)
    epoch = count_of_an_epoch(graph, batch_size)
    epochs = max(1, round(theirs.positive_pairs / epoch[unit]))
    umap, our_seconds = timed(lambda: ParametricUMAP(precomputed_knn=neighbors, n_epochs=epochs, random_state=0).fit(X))
    counts = {name: epochs * value for name, value in epoch.items()}
    per_unit = their_seconds["cpu_s"] / theirs.positive_pairs, our_seconds["cpu_s"] / counts[unit]
    judged = {"n_neighbors": 12, "sample": min(n, 2000)}
    benchmark.extra_info.update(
        competitor="per-edge Python loop, pairs encoded",
        theirs={**their_seconds, "pairs": theirs.positive_pairs, "epochs": theirs.n_epochs},
        ours={**our_seconds, **counts, "epochs": epochs, "batch_size": batch_size},
        trustworthiness={
            "theirs": metrics.trustworthiness(X, Z.numpy(), **judged),
            "ours": metrics.trustworthiness(X, umap.embedding_, **judged),
        },
        ratio=per_unit[0] / per_unit[1],
    )
    benchmark.pedantic(lambda: umap.transform(X), rounds=3)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("cls", [ParametricTSNE, MultiscaleParametricTSNE, ParametricUMAP, ParametricLargeVis])
def test_step_against_the_network(cls, precision, benchmark):
    """A whole training step, and the network's own forward, backward and optimizer with the batch in hand, in turn."""
    found = against_network(cls, wide_rows(), precision, turns=1 if benchmark.disabled else 20)
    medians = found.medians()
    benchmark.extra_info.update(
        competitor="forward, backward and optimizer of the network alone",
        competitor_median_s=medians["network"],
        ours_median_s=medians["step"],
        ratio=medians["network"] / medians["step"],
        step_over_network=medians["step"] / medians["network"],
    )
    benchmark.pedantic(lambda: found.once(found.x), rounds=1 if benchmark.disabled else 20, warmup_rounds=2)
