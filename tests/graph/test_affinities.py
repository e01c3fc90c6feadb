"""Similarities of a graph against openTSNE and umap-learn on the same neighbours."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import peer

from fastpdr import KNNGraph, ops
from fastpdr.graph import fuzzy_set, perplexity_affinities

# float32 against the float64 of others, whose searches stop at tolerances of their own.
OTHERS_RMS = 1e-4


@pytest.fixture
def points(rng):
    x = rng.standard_normal((500, 8))
    return np.concatenate([x, x[:60], x[:3] + 30])  # duplicates and outliers


@pytest.fixture
def graph(points):
    return KNNGraph.build(points, 90)


def require_symmetric(p: torch.Tensor) -> None:
    assert p.layout is torch.sparse_csr
    assert p.dtype == torch.float32
    dense = p.to_dense()
    assert torch.equal(dense, dense.T)
    assert (dense.diagonal() == 0).all()
    assert (p.values() > 0).all()


def opentsne_affinities(graph: KNNGraph, perplexities) -> torch.Tensor:
    affinity = peer("openTSNE.affinity")
    p = affinity.joint_probabilities_nn(graph.indices, graph.distances.astype(float), perplexities)
    return torch.from_numpy(p.toarray())


@pytest.mark.parametrize("scale", [1.0, 1e-22, 1e22])
def test_one_perplexity(points, scale, close):
    graph = KNNGraph.build(points * scale, 90)
    p = perplexity_affinities(graph, 30)
    require_symmetric(p)
    assert float(p.values().double().sum()) == pytest.approx(1.0, abs=1e-6)
    expected = opentsne_affinities(KNNGraph.build(points, 90), [30.0])
    close(p.to_dense(), expected, OTHERS_RMS)


def test_several_perplexities(graph, close):
    """Averaging rows or joint probabilities is the same. Below about 8 openTSNE's search stops far from its target."""
    levels = [10.0, 16.0, 24.0, 30.0]
    p = perplexity_affinities(graph, levels)
    require_symmetric(p)
    close(p.to_dense(), torch.stack([opentsne_affinities(graph, [level]) for level in levels]).mean(0), OTHERS_RMS)
    expected = torch.stack([perplexity_affinities(graph, level).to_dense() for level in levels]).mean(0)
    close(p.to_dense(), expected)
    close(perplexity_affinities(graph, np.array(levels)).to_dense(), p.to_dense())


def test_several_perplexities_as_opentsne_does(points, close):
    affinity = peer("openTSNE.affinity")
    x = points[60:560]  # without duplicates, of which openTSNE may keep a row as its own neighbour
    theirs = affinity.Multiscale(x, perplexities=[10, 20, 30], method="exact", n_jobs=1)
    p = perplexity_affinities(KNNGraph.build(x, 90), [10, 20, 30])
    close(p.to_dense(), torch.from_numpy(theirs.P.toarray()), OTHERS_RMS)


def test_missing_neighbours(graph, close):
    indices, distances = graph.indices.copy(), graph.distances.copy()
    indices[5], distances[5] = -1, np.inf
    indices[6, 40:], distances[6, 40:] = -1, np.inf
    p = perplexity_affinities(KNNGraph.from_precomputed(indices, distances), 30)
    require_symmetric(p)
    assert float(p.values().double().sum()) == pytest.approx(1.0, abs=1e-6)
    row, _ = ops.perplexity_search(torch.from_numpy(distances[6:7]).square(), 30)
    other = p.to_dense()[6, indices[6, :40]]
    assert (other >= row[0, :40] / (2 * graph.n)).all()
    lonely = KNNGraph.from_precomputed(np.full((3, 2), -1), np.full((3, 2), np.inf))
    assert perplexity_affinities(lonely, 1.0).values().numel() == 0
    assert fuzzy_set(lonely).values().numel() == 0


def test_all_others_are_enough(points):
    small = KNNGraph.build(points[:20], 19)
    assert perplexity_affinities(small, 15).shape == (20, 20)


@pytest.mark.parametrize(
    ("perplexities", "message"),
    [
        (31, r"graph must have k >= 93 neighbours for perplexity 31, got k = 90; build it with n_neighbors=93"),
        ([2, 100], r"graph must have k >= 300 neighbours for perplexity 100"),
        (600, r"perplexities must be less than the graph's 563 rows, got 600"),
        (0.5, "perplexities must be >= 1"),
        ([], "perplexities must name at least one"),
        ([np.nan], "perplexities must be >= 1"),
    ],
)
def test_bad_perplexities(graph, perplexities, message):
    with pytest.raises(ValueError, match=message):
        perplexity_affinities(graph, perplexities)


def umap_set(graph: KNNGraph, mix: float = 1.0, connectivity: float = 1.0) -> torch.Tensor:
    umap_ = peer("umap.umap_")
    own = np.arange(graph.n)[:, None]
    theirs = umap_.fuzzy_simplicial_set(
        np.empty((graph.n, 1)),
        graph.k + 1,
        np.random.RandomState(0),
        "euclidean",
        knn_indices=np.hstack([own, graph.indices]),
        knn_dists=np.hstack([np.zeros((graph.n, 1), np.float32), graph.distances]),
        set_op_mix_ratio=mix,
        local_connectivity=connectivity,
    )[0]
    return torch.from_numpy(theirs.toarray())


@pytest.mark.parametrize(("mix", "connectivity"), [(1.0, 1.0), (0.0, 1.0), (0.3, 1.0), (1.0, 2.0), (0.5, 1.5)])
def test_fuzzy_set(graph, mix, connectivity, close):
    few = graph.take(14)
    fuzzy = fuzzy_set(few, mix, connectivity)
    require_symmetric(fuzzy)
    close(fuzzy.to_dense(), umap_set(few, mix, connectivity), OTHERS_RMS)


def test_fuzzy_set_with_missing_neighbours(graph, close):
    few = graph.take(10)
    indices, distances = few.indices.copy(), few.distances.copy()
    indices[7, 4:], distances[7, 4:] = -1, np.inf
    fuzzy = fuzzy_set(KNNGraph.from_precomputed(indices, distances))
    require_symmetric(fuzzy)
    gone = set(few.indices[7, 4:]) - {int(i) for i in np.nonzero((indices == 7).any(1))[0]}
    assert (fuzzy.to_dense()[7, list(gone)] == 0).all()


@pytest.mark.parametrize("mix", [-0.1, 1.1, np.nan, "1", None, True])
def test_bad_mix_ratio(graph, mix):
    with pytest.raises(ValueError, match="fuzzy_set: set_op_mix_ratio must be from 0 to 1, got"):
        fuzzy_set(graph, mix)


def test_bad_graphs():
    for function in (fuzzy_set, lambda graph: perplexity_affinities(graph, 5.0)):
        with pytest.raises(TypeError, match="graph must be a KNNGraph, got ndarray"):
            function(np.ones((3, 2)))
