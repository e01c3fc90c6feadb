"""UMAP's fuzzy union of 60,000 rows against scipy's sums of sparse matrices."""

from __future__ import annotations

import numpy as np
from cases import neighbor_graph
from competitors import scipy_fuzzy_union

from fastpdr import ops


def test_union_against_scipy(versus):
    indices, distances = neighbor_graph()
    values = ops.fuzzy_weights(distances)[0].clamp_min(1e-6)
    array, rows = values.numpy(), indices.numpy()
    result, expected = ops.symmetrize(indices, values, product_factor=-1.0), scipy_fuzzy_union(rows, array)
    expected.sort_indices()
    assert np.array_equal(result.col_indices().numpy(), expected.indices)
    assert np.abs(result.values().numpy() - expected.data).max() <= 1e-6
    versus(
        lambda: ops.symmetrize(indices, values, product_factor=-1.0),
        lambda: scipy_fuzzy_union(rows, array),
        "scipy A + A.T - A.multiply(A.T) (1 thread: it has no more; columns not sorted)",
        15,
    )
