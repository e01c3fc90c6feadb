"""KNNGraph on real data against exact search and pynndescent: seconds, processor seconds, recall, one after another."""

from __future__ import annotations

import numpy as np
import pytest
from cases import THREADS, digits, real_rows
from clock import timed
from competitors import pynndescent_graph

from fastpdr import KNNGraph
from fastpdr.graph import inverted

NEIGHBORS = 15


def rows_of(name: str, small: bool) -> np.ndarray:
    if not small:
        return real_rows(name).astype(np.float32)
    x = digits()[0]
    return np.concatenate([x, x + 0.1])[:2000].astype(np.float32)


def pynndescent_seconds(x: np.ndarray, metric: str) -> dict[str, float]:
    """The first call in a process also compiles; the second is the search alone."""
    _, compiled = timed(lambda: pynndescent_graph(x[:2000], NEIGHBORS, metric, THREADS))
    (indices, distances), seconds = timed(lambda: pynndescent_graph(x, NEIGHBORS, metric, THREADS))
    graph = KNNGraph.from_precomputed(indices, distances, metric=metric)
    return {**seconds, "recall": graph.recall(x), "compiling_wall_s": compiled["wall_s"]}


@pytest.mark.parametrize(("name", "metric"), [("fashion_mnist_70k", "euclidean"), ("glove_341k", "cosine")])
def test_build(name, metric, benchmark, monkeypatch):
    pytest.importorskip("pynndescent")
    small = benchmark.disabled
    x = rows_of(name, small)
    with monkeypatch.context() as patch:
        if small:
            patch.setattr(inverted, "EXACT_OPERATIONS", 0)
        graph, ours = timed(lambda: KNNGraph.build(x, NEIGHBORS, metric=metric, random_state=0))
    ours["recall"] = graph.recall()
    assert ours["recall"] >= 0.95
    with monkeypatch.context() as patch:
        patch.setattr(inverted, "EXACT_OPERATIONS", np.inf)
        exact, seconds = timed(lambda: KNNGraph.build(x, NEIGHBORS, metric=metric))
    benchmark.extra_info.update(
        ours={**ours, **graph.settings},
        exact={**seconds, "recall": exact.recall()},
        pynndescent=pynndescent_seconds(x, metric),
        rows=len(x),
        columns=x.shape[1],
    )
    benchmark.pedantic(lambda: graph.take(5), rounds=1)
