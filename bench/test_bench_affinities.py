"""What t-SNE and UMAP make of a graph of 60,000 rows, against openTSNE and umap-learn on the same neighbours."""

from __future__ import annotations

import numpy as np
import pytest
from cases import KNN_PERPLEXITY, THREADS
from competitors import opentsne_affinities, umap_fuzzy_set

from fastpdr import KNNGraph
from fastpdr.graph import fuzzy_set, perplexity_affinities

ROWS, UMAP_NEIGHBORS, TSNE_NEIGHBORS = 60_000, 14, 90


@pytest.fixture(scope="module")
def make_graph():
    """Points of N(0, I) in 10 dimensions with their neighbours; a few of them where nothing is timed."""
    graphs: dict[int, KNNGraph] = {}

    def make(n: int) -> KNNGraph:
        if n not in graphs:
            x = np.random.default_rng(0).standard_normal((n, 10)).astype(np.float32)
            graphs[n] = KNNGraph.build(x, TSNE_NEIGHBORS, random_state=0)
        return graphs[n]

    return make


def require_close(actual, expected):
    """Of two sparse matrices, whose explicit zeros may differ."""
    from scipy.sparse import csr_matrix

    parts = (actual.values().numpy(), actual.col_indices().numpy(), actual.crow_indices().numpy())
    difference = (csr_matrix(parts, actual.shape) - expected).tocsr()
    assert np.linalg.norm(difference.data) <= 1e-4 * np.linalg.norm(expected.tocsr().data)


def test_fuzzy_set_against_umap(make_graph, versus, benchmark):
    pytest.importorskip("umap")
    graph = make_graph(2000 if benchmark.disabled else ROWS).take(UMAP_NEIGHBORS)
    own = np.arange(graph.n)[:, None]
    indices = np.hstack([own, graph.indices])
    distances = np.hstack([np.zeros((graph.n, 1), np.float32), graph.distances])
    require_close(fuzzy_set(graph), umap_fuzzy_set(indices, distances))  # compiles
    versus(
        lambda: fuzzy_set(graph),
        lambda: umap_fuzzy_set(indices, distances),
        "umap-learn fuzzy_simplicial_set, n_neighbors=15 (numba, all threads)",
        9,
    )


def test_perplexity_affinities_against_opentsne(make_graph, versus, benchmark):
    pytest.importorskip("openTSNE")
    graph = make_graph(2000 if benchmark.disabled else ROWS)
    distances = graph.distances.astype(float)
    expected = opentsne_affinities(graph.indices, distances, KNN_PERPLEXITY, THREADS)
    require_close(perplexity_affinities(graph, KNN_PERPLEXITY), expected)
    versus(
        lambda: perplexity_affinities(graph, KNN_PERPLEXITY),
        lambda: opentsne_affinities(graph.indices, distances, KNN_PERPLEXITY, THREADS),
        "openTSNE joint_probabilities_nn (2 threads)",
        7,
    )
