"""What batches are compared with: perplexities, P as scikit-learn's t-SNE would take it, subgraphs, UMAP's curve."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastpdr import ops
from fastpdr.training.batches import Batch, EdgeBatches, RandomBatches
from fastpdr.training.objectives import (
    BatchTSNE,
    Curve,
    NeighborTSNE,
    PairObjective,
    automatic_perplexities,
    curve_of,
)
from fastpdr.training.objectives.tsne import WIDE, squared_distances


def batch_tsne(data, perplexities):
    return BatchTSNE(data, perplexities, 1.0, RandomBatches(len(data), len(data), torch.Generator()))


def ring(n):
    """Every row joined with the next one, weights 1, 2, ..., n."""
    i, w = torch.arange(n), torch.arange(1.0, n + 1)
    entries = torch.cat([torch.stack([i, (i + 1) % n]), torch.stack([(i + 1) % n, i])], dim=1)
    return torch.sparse_coo_tensor(entries, torch.cat([w, w]), (n, n)).coalesce().to_sparse_csr()


@pytest.mark.parametrize(
    ("b", "expected"),
    [
        (0, [1]),
        (1, [1]),
        (2, [1]),
        (3, [1]),
        (4, [2]),
        (5, [2]),
        (6, [2, 4]),
        (16, [2, 4, 8]),
        (500, 2.0 ** np.arange(1, 9)),
    ],
)
def test_automatic_perplexities_are_reachable_powers_of_two(b, expected):
    scales = automatic_perplexities(b)
    assert scales == list(expected)
    assert all(scale < max(b - 1, 2) for scale in scales)


def test_perplexity_is_shared_among_batches():
    objective = batch_tsne(torch.zeros(5000, 1), [30.0, 200.0])
    assert objective.perplexities_of(5000) == [30.0, 200.0]
    assert objective.perplexities_of(500) == [3.0, 20.0]
    assert objective.perplexities_of(50) == [2.0]  # 0.3 and 2 neighbours: not below 2
    assert batch_tsne(torch.zeros(100, 1), [1.5]).perplexities_of(50) == [1.5]
    assert batch_tsne(torch.zeros(6, 1), [5.0]).perplexities_of(6) == [2.5]  # at most half of the other rows


@pytest.mark.parametrize("b", [0, 1, 127, 128, 129, 400])
@pytest.mark.parametrize("d", [9, WIDE])
def test_distances_in_blocks_are_those_of_all_rows(b, d, generator, close):
    rows = torch.randn(b, d, generator=generator)
    rows[b // 2 :] = rows[: b - b // 2].clone()  # duplicates
    sqdist = squared_distances(rows)
    assert bool((sqdist >= 0).all())
    assert torch.equal(sqdist.diagonal(), torch.full((b,), torch.inf))
    expected = torch.cdist(rows.double(), rows.double()).square()
    if b > 1:
        close(sqdist.fill_diagonal_(0), expected, 1e-6)


def test_similarities_agree_with_scikit_learn(rng, close):
    from scipy.spatial.distance import squareform
    from sklearn.manifold._t_sne import _joint_probabilities

    X = rng.normal(size=(80, 7)).astype(np.float32)
    distances = ((X[:, None] - X[None]) ** 2).sum(-1).astype(np.float32)
    expected = squareform(_joint_probabilities(distances, 12.0, 0))
    p = batch_tsne(torch.from_numpy(X), [12.0]).similarities(Batch(torch.arange(80)), torch.from_numpy(X))
    assert torch.equal(p, p.T)
    close(p / p.sum(), torch.from_numpy(expected), 1e-4)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support:UserWarning")
def test_graphs_give_a_batch_what_is_among_its_rows(generator, close):
    graph, rows = ring(50), torch.tensor([4, 7, 5, 30, 6])
    y = torch.randn(5, 2, generator=generator)
    edges = EdgeBatches(graph, 8, None, 0)
    part = PairObjective(graph, Curve(1.0, 1.0, 5.0, 0.1, 5.0), edges).similarities(Batch(rows))
    assert torch.equal(part.to_dense(), graph.to_dense()[rows][:, rows])
    for objective, normalization in (
        (NeighborTSNE(graph, 1.0, RandomBatches(50, 8, generator)), "global"),
        (NeighborTSNE(graph, 1.0, edges), "row"),
    ):
        assert torch.equal(objective.similarities(Batch(rows)).to_dense(), part.to_dense())
        close(objective.loss(y, part, 2.0), ops.student_t_kl(y, part, exaggeration=2.0, normalization=normalization))


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support:UserWarning")
def test_exaggeration_of_pairs_multiplies_the_attraction_alone(generator, close):
    graph = ring(20)
    objective = PairObjective(graph, Curve(1.5, 0.9, 5.0, 1e-3, 4.0), EdgeBatches(graph, 8, None, 0))
    y = torch.randn(20, 2, generator=generator)
    one, four = objective.loss(y, graph, 1.0), objective.loss(y, graph, 4.0)
    attraction = ops.pair_loss(y, graph, a=1.5, b=0.9, repulsion=0.0)
    close(four - one, 3 * attraction)


@pytest.mark.parametrize(("min_dist", "spread"), [(0.1, 1.0), (0.0, 1.0), (0.5, 2.0), (0.99, 1.0)])
def test_curve_is_umap_learns(min_dist, spread):
    umap_ = pytest.importorskip("umap.umap_")
    np.testing.assert_allclose(curve_of(min_dist, spread), umap_.find_ab_params(spread, min_dist), rtol=1e-3)
