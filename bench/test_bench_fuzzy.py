"""UMAP's memberships of 60,000 rows against umap-learn's compiled search."""

from __future__ import annotations

import numpy as np
import pytest
from cases import neighbor_graph
from competitors import umap_memberships

from fastpdr import ops


def test_memberships_against_umap(versus):
    pytest.importorskip("umap")
    indices, distances = neighbor_graph()
    n = len(indices)
    whole = np.concatenate([np.zeros((n, 1), np.float32), distances.numpy()], axis=1)
    with_self = np.concatenate([np.arange(n)[:, None], indices.numpy()], axis=1).astype(np.int32)
    weights, rho, _ = ops.fuzzy_weights(distances)
    expected, expected_rho, _ = umap_memberships(with_self, whole)  # compiles
    assert np.abs(weights.numpy() - expected).max() <= 1e-4
    assert np.array_equal(rho.numpy(), expected_rho)
    versus(
        lambda: ops.fuzzy_weights(distances),
        lambda: umap_memberships(with_self, whole),
        "umap-learn smooth_knn_dist and compute_membership_strengths (numba, all threads)",
        15,
    )
