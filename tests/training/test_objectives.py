"""The similarities of a batch: which perplexities it gets, and that P is what scikit-learn's t-SNE would take."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastpdr.training.objectives import BatchTSNE, automatic_perplexities


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
    objective = BatchTSNE(5000, [30.0, 200.0], 1.0)
    assert objective.perplexities_of(5000) == [30.0, 200.0]
    assert objective.perplexities_of(500) == [3.0, 20.0]
    assert objective.perplexities_of(50) == [2.0]  # 0.3 and 2 neighbours: not below 2
    assert BatchTSNE(100, [1.5], 1.0).perplexities_of(50) == [1.5]
    assert BatchTSNE(6, [5.0], 1.0).perplexities_of(6) == [2.5]  # at most half of the other rows


def test_similarities_agree_with_scikit_learn(rng, close):
    from scipy.spatial.distance import squareform
    from sklearn.manifold._t_sne import _joint_probabilities

    X = rng.normal(size=(80, 7)).astype(np.float32)
    distances = ((X[:, None] - X[None]) ** 2).sum(-1).astype(np.float32)
    expected = squareform(_joint_probabilities(distances, 12.0, 0))
    p = BatchTSNE(80, [12.0], 1.0).similarities(torch.from_numpy(X))
    assert torch.equal(p, p.T)
    close(p / p.sum(), torch.from_numpy(expected), 1e-4)
