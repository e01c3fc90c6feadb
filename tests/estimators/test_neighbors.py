"""Given graphs, and what UMAP and LargeVis have beyond the other estimators: labels, landmarks, growth, decoders."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import fastpdr
from fastpdr import (
    KNNGraph,
    MultiscaleParametricTSNE,
    ParametricLargeVis,
    ParametricTSNE,
    ParametricUMAP,
    metrics,
)
from fastpdr.estimators import presets

SMALL = {"n_epochs": 3, "hidden_dims": (16,), "random_state": 0}
LONGER = {"hidden_dims": (64, 64), "random_state": 0}
both = pytest.mark.parametrize("cls", [ParametricUMAP, ParametricLargeVis])
OF_GRAPHS = [
    (ParametricUMAP, {"n_neighbors": 12}),
    (ParametricLargeVis, {"perplexity": 5}),
    (ParametricTSNE, {"affinity": "knn", "perplexity": 5}),
    (MultiscaleParametricTSNE, {"affinity": "knn", "perplexities": [2, 8]}),
]
of_graphs = pytest.mark.parametrize(("cls", "own"), OF_GRAPHS)


@pytest.fixture
def X(rng):
    return rng.normal(size=(90, 6)).astype(np.float32)


@pytest.fixture(scope="module")
def blobs():
    """Three groups of 100 rows, two of them near each other."""
    rng = np.random.default_rng(0)
    centres = np.repeat([[0.0] * 5, [1.5] + [0.0] * 4, [8.0] * 5], 100, axis=0)
    return (centres + rng.normal(size=centres.shape)).astype(np.float32), np.repeat([0, 1, 2], 100)


def silhouette(Z, y):
    return metrics.silhouette(Z, y)


# Graphs ---------------------------------------------------------------------------------------------------------------


def test_graph_is_umap_learns(X):
    umap_ = pytest.importorskip("umap.umap_")
    estimator = ParametricUMAP(n_neighbors=10, **SMALL).fit(X)
    expected = umap_.fuzzy_simplicial_set(X, 10, np.random.RandomState(0), "euclidean")[0]
    np.testing.assert_allclose(estimator.graph_.toarray(), expected.toarray(), atol=1e-4)


@of_graphs
def test_given_graphs_are_used_in_every_form(cls, own, X, monkeypatch):
    graph = KNNGraph.build(X, 60)
    settings = {**SMALL, **own}
    expected = cls(**settings).fit_transform(X)
    itself = np.column_stack([np.arange(90), graph.indices]), np.column_stack([np.zeros(90), graph.distances])
    assert np.array_equal(cls(precomputed_knn=(None, None, None), **settings).fit_transform(X), expected)
    monkeypatch.setattr(KNNGraph, "build", None)
    for given in (graph, (graph.indices, graph.distances), [*itself, None]):
        assert np.array_equal(cls(precomputed_knn=given, **settings).fit_transform(X), expected)


def test_a_graph_serves_all_methods(X):
    graph = KNNGraph.build(X, 45)
    for cls, own in OF_GRAPHS:
        assert np.isfinite(cls(precomputed_knn=graph, **own, **SMALL).fit_transform(X)).all()


@pytest.mark.parametrize("cls", [ParametricTSNE, MultiscaleParametricTSNE])
def test_a_graph_that_would_not_be_used_is_refused(cls, X):
    message = "precomputed_knn needs affinity='knn' or neighbor_noise"
    with pytest.raises(ValueError, match=f"{cls.__name__}: {message}"):
        cls(precomputed_knn=KNNGraph.build(X, 45), neighbor_noise=0, **SMALL).fit(X)


@of_graphs
def test_bad_graphs_are_named(cls, own, X):
    graph = KNNGraph.build(X, 60)
    indices, distances = graph.indices.copy(), graph.distances.copy()
    few = KNNGraph.build(X, 5)
    name = cls.__name__
    for given, message in [
        ((indices[:50], distances[:50]), "no graph of neighbours|row for each of the 90 rows of X, got 50"),
        (KNNGraph.build(X[:80], 60), "row for each of the 90 rows of X, got 80"),
        (few, r"must have at least \d+ neighbours without the row itself, got 5"),
        ((indices, distances[:, :3]), "distances must have the shape of indices"),
        ((indices + 60, distances), "indices must be rows from 0 to"),
        ((indices, -distances), "distances must be >= 0"),
        ((indices[:, :1].repeat(60, 1), distances), "must not repeat within a row"),
        ((indices.astype(float), distances), "indices must be integers"),
        ((indices,), r"KNNGraph or \(indices, distances\[, index\]\), got 1 items"),
    ]:
        with pytest.raises(ValueError, match=f"{name}: precomputed_knn.*({message})"):
            cls(precomputed_knn=given, **own, **SMALL).fit(X)


@both
def test_rows_without_neighbours_are_placed_all_the_same(cls, X):
    graph = KNNGraph.build(X, 60)
    indices, distances = graph.indices.copy(), graph.distances.copy()
    indices[3], distances[3] = -1, np.inf
    Z = cls(precomputed_knn=(indices, distances), **SMALL).fit_transform(X)
    assert np.isfinite(Z).all()
    indices[:], distances[:] = -1, np.inf
    with pytest.raises(ValueError, match="no row has a neighbour with a weight"):
        cls(precomputed_knn=(indices, distances), **SMALL).fit(X)


@both
def test_metric(cls, X):
    scaled = X * np.linspace(0.1, 10, 90, dtype=np.float32)[:, None]  # cosine does not see the lengths
    first, second = (cls(metric="cosine", **SMALL).fit(data) for data in (X, scaled))
    assert abs(first.graph_ - second.graph_).max() < 1e-4
    assert abs(first.graph_ - cls(**SMALL).fit(X).graph_).max() > 1e-3
    with pytest.raises(ValueError, match="metric must be one of .*euclidean"):
        cls(metric="hamming-ish", **SMALL).fit(X)


def test_more_neighbours_than_rows_are_cut_with_a_warning(X):
    with pytest.warns(UserWarning, match="n_neighbors=15 is more than there are rows: all 10 are taken"):
        ParametricUMAP(**SMALL).fit(X[:10])


# Labels ---------------------------------------------------------------------------------------------------------------


@both
def test_labels_separate_what_the_data_does_not(cls, rng):
    X = rng.normal(size=(300, 5)).astype(np.float32)
    y = (X[:, 0] > 0).astype(int)  # a border without a gap
    settings = {"n_epochs": 60, "input_noise": 0.0, **LONGER}
    plain, told = (cls(**settings).fit(X, labels) for labels in (None, y))
    assert silhouette(told.embedding_, y) > silhouette(plain.embedding_, y) + 0.2
    names = np.array(["a", "b"])[y]
    assert (cls(**SMALL).fit(X, names).graph_ != told.graph_).nnz == 0


@both
def test_unlabelled_rows_are_left_to_the_data(cls, X):
    nothing = cls(**SMALL).fit(X, np.full(90, -1)).graph_
    plain = cls(**SMALL).fit(X).graph_
    if cls is ParametricUMAP:  # every edge is weakened alike, and made up for again
        assert abs(nothing - plain).max() < 0.35
    assert (nothing != 0).sum() == (plain != 0).sum()


def test_continuous_targets_pull_like_values_together(rng):
    X = rng.normal(size=(300, 5)).astype(np.float32)
    y = X[:, 0]
    settings = {"n_epochs": 60, "input_noise": 0.0, "target_metric": "l2", **LONGER}
    plain, told = (ParametricUMAP(**settings).fit(X, targets).embedding_ for targets in (None, y))

    def spread(Z):
        nearest = KNNGraph.build(Z, 5).indices
        return np.abs(y[nearest] - y[:, None]).mean()

    assert spread(told) < 0.6 * spread(plain)


@both
def test_targets_of_wrong_length_are_named(cls, X):
    for y in (np.zeros(89), np.zeros((90, 2)), 3):
        with pytest.raises(ValueError, match=f"{cls.__name__}: y must have one value for each of the 90 rows of X"):
            cls(**SMALL).fit(X, y)


# Landmarks and growth -------------------------------------------------------------------------------------------------


@both
def test_landmarks_lie_where_they_are_told(cls, blobs):
    X, y = blobs
    wanted = np.full((300, 2), np.nan)
    wanted[::10] = np.array([[-10.0, 0.0], [10.0, 0.0], [0.0, 10.0]])[y[::10]]
    Z = cls(n_epochs=40, landmark_loss_weight=10.0, **LONGER).fit_transform(X, landmark_positions=wanted)
    held = np.isfinite(wanted[:, 0])
    assert np.linalg.norm(Z[held] - wanted[held], axis=1).mean() < 2.5
    own = cls(n_epochs=2, landmark_loss_fn=lambda z, p: (z - p).abs().sum(), **LONGER)
    assert np.isfinite(own.fit_transform(X, landmark_positions=wanted)).all()


@both
def test_a_map_grows_without_moving(cls, blobs):
    X, y = blobs
    old = y != 2
    estimator = cls(n_epochs=30, landmark_loss_weight=10.0, **LONGER).fit(X[old])
    before = estimator.transform(X[old])
    places = np.full((300, 2), np.nan)
    places[old] = before
    estimator.partial_fit(X, landmark_positions=places)
    after = estimator.transform(X)
    moved = np.linalg.norm(after[old] - before, axis=1).mean()
    assert moved < 0.15 * np.linalg.norm(before - before.mean(0), axis=1).mean() * 2
    assert estimator.n_iter_ == len(estimator.loss_history_) == 60
    assert metrics.knn_accuracy(after, y == 2, after, y == 2) > 0.8  # the new group is told apart; two thirds by chance


@both
def test_partial_fit_begins_with_a_fit_and_goes_on(cls, X):
    estimator = cls(**SMALL).partial_fit(X)
    assert np.array_equal(estimator.embedding_, cls(**SMALL).fit_transform(X))
    first = estimator.encoder_[1].head.weight.clone()
    estimator.partial_fit(X[:50])
    assert estimator.embedding_.shape == (50, 2)
    assert not torch.equal(estimator.encoder_[1].head.weight, first)
    assert torch.equal(estimator.encoder_[0].mean, cls(**SMALL).fit(X).encoder_[0].mean)  # the input stays as it was
    with pytest.raises(ValueError, match="expecting 6 features"):
        estimator.partial_fit(X[:, :5])


@both
def test_landmarks_of_wrong_shape_are_named(cls, X):
    for bad in (np.zeros((89, 2)), np.zeros((90, 3)), np.full((90, 2), np.inf)):
        with pytest.raises(ValueError, match=r"landmark_positions must be finite or NaN, of shape \(90, 2\)"):
            cls(**SMALL).fit(X, landmark_positions=bad)


# Decoder --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("own", [False, True], ids=["built_in", "own"])
@pytest.mark.parametrize("autoencoder_loss", [False, True])
def test_inverse_transform_gives_rows_back(autoencoder_loss, own, blobs):
    X, _ = blobs
    decoder = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 5)) if own else None
    estimator = ParametricUMAP(
        n_epochs=60, parametric_reconstruction=True, decoder=decoder, autoencoder_loss=autoencoder_loss, **LONGER
    ).fit(X)
    back = estimator.inverse_transform(estimator.embedding_)
    assert back.shape == X.shape
    assert back.dtype == np.float32
    assert ((back - X) ** 2).mean() < 0.35 * X.var(0).mean()
    with pytest.raises(ValueError, match="Z must have the 2 columns of the map, got 3"):
        estimator.inverse_transform(np.zeros((4, 3)))


def test_own_reconstruction_loss(X):
    seen = []

    def loss(reconstruction, rows):
        seen.append((reconstruction.shape, rows.shape))
        return (reconstruction - rows).abs().mean()

    ParametricUMAP(parametric_reconstruction=True, parametric_reconstruction_loss_fcn=loss, **SMALL).fit(X)
    assert all(shape == rows and rows[1] == 6 for shape, rows in seen)


def test_without_a_decoder_there_is_no_way_back(X):
    with pytest.raises(AttributeError, match="fit with parametric_reconstruction=True"):
        ParametricUMAP(**SMALL).fit(X).inverse_transform(np.zeros((1, 2)))
    with pytest.raises(ValueError, match=r"decoder must map \[b, 2\] to \[b, n_features=6\], got \(2, 5\)"):
        ParametricUMAP(decoder=nn.Linear(2, 5), **SMALL).fit(X)


@pytest.mark.parametrize("own", [False, True], ids=["built_in", "own"])
def test_decoders_are_saved(own, X, tmp_path):
    decoder = nn.Linear(2, 6) if own else None
    estimator = ParametricUMAP(parametric_reconstruction=True, decoder=decoder, **SMALL).fit(X)
    estimator.save(tmp_path / "model")
    loaded = fastpdr.load(tmp_path / "model", decoder=decoder)
    assert np.array_equal(loaded.transform(X), estimator.embedding_)
    assert np.array_equal(
        loaded.inverse_transform(estimator.embedding_), estimator.inverse_transform(estimator.embedding_)
    )
    assert (loaded._a, loaded._b) == (estimator._a, estimator._b)
    loaded.set_params(**SMALL).partial_fit(X)
    assert loaded.n_iter_ == 6
    if own:
        with pytest.raises(ValueError, match="own decoder"):
            fastpdr.load(tmp_path / "model")


# The rest -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_epochs", [1, 2, 7])
@both
def test_any_number_of_epochs_trains(cls, n_epochs, X):
    untrained = cls(**{**SMALL, "n_epochs": 1, "learning_rate": 1e-12}).fit(X)
    estimator = cls(**{**SMALL, "n_epochs": n_epochs}).fit(X)
    assert estimator.n_iter_ == len(estimator.loss_history_) == n_epochs
    assert np.abs(estimator.embedding_ - untrained.embedding_).max() > 1e-3


def test_automatic_epochs_make_a_number_of_steps(X):
    for n in (5_000, 50_000):
        steps = presets.level_of(presets.PAIRS["fast"], n).steps
        assert ParametricUMAP()._automatic_epochs(7, n) == round(steps / 7)
    assert ParametricUMAP()._automatic_epochs(10_000, 10**6) == 1


def test_curve_parameters(X):
    estimator = ParametricUMAP(min_dist=0.5, spread=2.0, **SMALL).fit(X)
    umap_ = pytest.importorskip("umap.umap_")
    np.testing.assert_allclose((estimator._a, estimator._b), umap_.find_ab_params(2.0, 0.5), rtol=1e-3)
    given = ParametricUMAP(a=1.2, b=0.7, **SMALL).fit(X)
    assert (given._a, given._b) == (1.2, 0.7)
    with pytest.raises(ValueError, match="min_dist must be at most spread, got 2 > 1"):
        ParametricUMAP(min_dist=2, **SMALL).fit(X)


@pytest.mark.parametrize(
    "settings",
    [
        {"kernel": "keras"},
        {"global_correlation_loss_weight": 1.0},
        {"negative_sample_rate": 0},
        {"repulsion_strength": 3.0},
        {"local_connectivity": 2.5, "set_op_mix_ratio": 0.3},
        {"n_components": 3},
        {"encoder": nn.Linear(6, 2)},
        {"batch_size": 7},
        {"init": "pca"},
    ],
)
def test_settings_train(settings, X):
    estimator = ParametricUMAP(**{**SMALL, **settings}).fit(X)
    assert np.isfinite(estimator.embedding_).all()
    assert not np.array_equal(estimator.embedding_, ParametricUMAP(**SMALL).fit(X).embedding_)


def test_global_correlation_keeps_far_things_far(rng):
    X = np.column_stack([np.linspace(0, 30, 300), rng.normal(size=(300, 3))]).astype(np.float32)

    def correlation(weight):
        Z = ParametricUMAP(n_epochs=20, global_correlation_loss_weight=weight, **LONGER).fit_transform(X)
        pairs = rng.integers(0, 300, size=(2, 2000))
        far = [np.linalg.norm(data[pairs[0]] - data[pairs[1]], axis=1) for data in (X, Z)]
        return np.corrcoef(*far)[0, 1]

    assert correlation(10.0) > correlation(0.0) - 0.01
    assert correlation(10.0) > 0.95


def test_edges_bring_neighbours_where_random_rows_do_not(monkeypatch, rng):
    """Beyond the size where random batches hold enough of P, t-SNE's batches hold far more of it."""
    X = rng.normal(size=(600, 4)).astype(np.float32)
    seen = {}
    from fastpdr.training.objectives import NeighborTSNE

    similarities = NeighborTSNE.similarities

    def record(self, batch, data):
        p = similarities(self, batch, data)
        seen.setdefault(type(self.batches).__name__, []).append(p.values().numel() / len(batch.rows))
        return p

    monkeypatch.setattr(NeighborTSNE, "similarities", record)
    settings = {"affinity": "knn", "perplexity": 4, "batch_size": 30, **SMALL}
    ParametricTSNE(**settings).fit(X)
    monkeypatch.setattr("fastpdr.estimators.tsne.RANDOM_ROWS", 100)
    ParametricTSNE(**settings).fit(X)
    assert np.mean(seen["EdgeBatches"]) > 1.0
    assert np.mean(seen["EdgeBatches"]) > 1.8 * np.mean(seen["RandomBatches"])


@pytest.mark.parametrize(
    ("cls", "settings", "message"),
    [
        (ParametricUMAP, {"n_neighbors": 1}, "n_neighbors"),
        (ParametricUMAP, {"min_dist": -0.1}, "min_dist"),
        (ParametricUMAP, {"spread": 0}, "spread"),
        (ParametricUMAP, {"negative_sample_rate": -1}, "negative_sample_rate"),
        (ParametricUMAP, {"set_op_mix_ratio": 1.5}, "set_op_mix_ratio"),
        (ParametricUMAP, {"kernel": "tensorflow"}, "kernel"),
        (ParametricUMAP, {"target_metric": "hamming"}, "target_metric"),
        (ParametricUMAP, {"target_weight": 2}, "target_weight"),
        (ParametricUMAP, {"precomputed_knn": 3}, "precomputed_knn"),
        (ParametricUMAP, {"decoder": "mlp"}, "decoder"),
        (ParametricUMAP, {"landmark_loss_fn": 3}, "landmark_loss_fn"),
        (ParametricLargeVis, {"perplexity": 90}, "perplexity must be at least 1 and less than the number of rows"),
        (ParametricLargeVis, {"gamma": -7}, "gamma"),
        (ParametricTSNE, {"affinity": "global"}, "affinity"),
        (ParametricUMAP, {"hidden_dims": (0,)}, "hidden_dims"),
    ],
)
def test_bad_parameters_are_named_before_training(cls, settings, message, X):
    def fail(state):
        raise AssertionError("training began")

    with pytest.raises(ValueError, match=message):
        cls(callbacks=[fail], **settings).fit(X)
