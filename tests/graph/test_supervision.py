"""Supervised fuzzy sets against umap-learn on the same input."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
import torch
from conftest import peer

from fastpdr import KNNGraph
from fastpdr.graph import categorical_intersection, continuous_intersection, fuzzy_set

OTHERS_RMS = 1e-4


@pytest.fixture
def fuzzy(rng):
    return fuzzy_set(KNNGraph.build(rng.standard_normal((300, 5)), 14))


@pytest.fixture
def labels(rng):
    return rng.integers(-1, 4, 300)


def as_scipy(graph):
    parts = (graph.values().numpy().copy(), graph.col_indices().numpy(), graph.crow_indices().numpy())
    return scipy.sparse.csr_matrix(parts, graph.shape)


def require_same(actual, expected, close):
    assert actual.layout is torch.sparse_csr
    assert actual.dtype == torch.float32
    assert torch.equal(actual.to_dense(), actual.to_dense().T)
    close(actual.to_dense(), torch.from_numpy(expected.toarray()), OTHERS_RMS)


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.5, 0.9, 1.0])
def test_labels(fuzzy, labels, weight, close):
    umap_ = peer("umap.umap_")
    far = 2.5 / (1 - weight) if weight < 1 else 1e12
    expected = umap_.discrete_metric_simplicial_set_intersection(as_scipy(fuzzy).tocoo(), labels, far_dist=far)
    before = fuzzy.values().clone()
    require_same(categorical_intersection(fuzzy, labels, weight), expected, close)
    assert torch.equal(fuzzy.values(), before)


def test_labels_of_every_kind(fuzzy, labels):
    expected = categorical_intersection(fuzzy, labels)
    for same in (labels.tolist(), labels.astype(float), torch.from_numpy(labels), labels.astype(object)):
        assert torch.equal(categorical_intersection(fuzzy, same).values(), expected.values())
    names = np.array(["d", "a", "b", "c", "-1"])
    strings = categorical_intersection(fuzzy, names[labels])  # a string "-1" is a class
    complete = categorical_intersection(fuzzy, np.where(labels < 0, 4, labels))
    assert torch.equal(strings.values(), complete.values())


def test_one_class_changes_nothing_but_scale(fuzzy, close):
    united = categorical_intersection(fuzzy, np.zeros(300))
    close(united.to_dense().amax(1), torch.ones(300))


@pytest.mark.parametrize("weight", [0.0, 0.2, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("columns", [1, 3])
def test_values(fuzzy, rng, weight, columns, close):
    umap_ = peer("umap.umap_")
    y = rng.standard_normal((300, columns)).astype(np.float32)
    target = umap_.fuzzy_simplicial_set(
        y, 15, np.random.RandomState(0), "euclidean", *neighbors_for_umap(y, 15), apply_set_operations=False
    )
    expected = umap_.general_simplicial_set_intersection(as_scipy(fuzzy), target[0], weight)
    expected = umap_.reset_local_connectivity(expected)
    given = y if columns > 1 else y[:, 0]
    require_same(continuous_intersection(fuzzy, given, weight), expected, close)


def neighbors_for_umap(y, n_neighbors):
    graph = KNNGraph.build(y, n_neighbors - 1)
    own = np.arange(len(y))[:, None]
    return {}, np.hstack([own, graph.indices]), np.hstack([np.zeros((len(y), 1), np.float32), graph.distances])


def test_values_with_ties(fuzzy, labels):
    """Many equal targets, as of a rounded scale, are no error and leave every row connected."""
    united = continuous_intersection(fuzzy, labels, n_neighbors=10)
    assert united.to_dense().amax(1).min() > 0.99


def test_a_weight_above_half_follows_the_targets(fuzzy, rng):
    y = rng.standard_normal(300)
    apart = []
    for weight in (0.1, 0.9):
        edges = continuous_intersection(fuzzy, y, weight).to_dense()
        apart.append(float((edges * torch.from_numpy(np.abs(y[:, None] - y))).sum() / edges.sum()))
    assert apart[1] < apart[0]


BOTH = pytest.mark.parametrize("function", [categorical_intersection, continuous_intersection])


@BOTH
@pytest.mark.parametrize("weight", [-0.1, 1.5, np.nan, "a", None, True])
def test_bad_weights(fuzzy, labels, function, weight):
    with pytest.raises(ValueError, match=f"{function.__name__}: target_weight must be from 0 to 1, got"):
        function(fuzzy, labels, weight)


@BOTH
def test_bad_graphs(labels, function):
    with pytest.raises(TypeError, match=r"graph must be a sparse_csr tensor \[n, n\], got float32 \[3, 3\]"):
        function(torch.ones(3, 3), labels)
    with pytest.raises(TypeError, match=r"graph must be a sparse_csr tensor \[n, n\], got ndarray"):
        function(np.ones((3, 3)), labels)
    with pytest.raises(ValueError, match=r"graph must be floats \[n, n\], got float32 \[3, 4\]"):
        function(torch.ones(3, 4).to_sparse_csr(), labels)


@BOTH
def test_bad_targets(fuzzy, labels, function):
    with pytest.raises(ValueError, match="y must have one entry for each of the graph's 300 rows, got 299"):
        function(fuzzy, labels[1:])
    with pytest.raises(ValueError, match=r"y must be .*, got shape \[300, 1, 1\]"):
        function(fuzzy, labels[:, None, None])
    missing = labels.astype(float)
    missing[4] = np.nan
    with pytest.raises(ValueError, match=r"y must .*, got (NaN|nan)"):
        function(fuzzy, missing)


def test_bad_labels_and_neighbours(fuzzy, labels):
    with pytest.raises(ValueError, match="y must hold labels of one kind that can be sorted"):
        categorical_intersection(fuzzy, np.array([1, "a", *labels[2:]], dtype=object))
    with pytest.raises(ValueError, match="y must hold real numbers"):
        continuous_intersection(fuzzy, ["a"] * 300)
    for number in (1, 301, 2.5):
        with pytest.raises(ValueError, match="n_neighbors must be an integer from 2 to the number of rows = 300, got"):
            continuous_intersection(fuzzy, labels, n_neighbors=number)
