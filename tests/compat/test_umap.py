"""Scripts written for umap-learn's ParametricUMAP, with the import changed; and what cannot be done, said at once."""

from __future__ import annotations

import copy
import inspect
import logging

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from torch import nn

import fastpdr
from fastpdr.compat.umap import IMPOSSIBLE, SHARED, WITHOUT_EFFECT, ParametricUMAP, load_ParametricUMAP
from fastpdr.estimators import neighbors

# What umap.parametric_umap.ParametricUMAP 0.5.12 adds to UMAP's parameters, in its order.
OWN = {
    "batch_size": None,
    "dims": None,
    "encoder": None,
    "decoder": None,
    "parametric_reconstruction": False,
    "parametric_reconstruction_loss_fcn": None,
    "parametric_reconstruction_loss_weight": 1.0,
    "autoencoder_loss": False,
    "reconstruction_validation": None,
    "global_correlation_loss_weight": 0,
    "landmark_loss_fn": None,
    "landmark_loss_weight": 1.0,
    "keras_fit_kwargs": None,  # there an empty dict, which all instances share
}
SETTABLE = {"n_training_epochs": 1, "loss_report_frequency": 10}  # attributes there

digits, classes = load_digits(return_X_y=True)
digits = (digits / 16).astype(np.float32)
X, y = digits[:200], classes[:200]


def short(**parameters):
    return ParametricUMAP(**{"n_epochs": 2, "random_state": 0, **parameters})


def knn(rows, k=15):
    distances = np.linalg.norm(rows[:, None] - rows[None], axis=2)
    indices = distances.argsort(1)[:, :k]
    return indices, np.take_along_axis(distances, indices, 1)


def edges(umap):
    return umap.graph_.toarray() > 0


@pytest.fixture(scope="module")
def fitted():
    return short(n_epochs=20).fit(X)


# The signature


def test_no_parameter_is_missing_and_defaults_agree():
    theirs = inspect.signature(pytest.importorskip("umap.umap_").UMAP).parameters
    expected = OWN | SETTABLE | {name: parameter.default for name, parameter in theirs.items()}
    ours = {name: parameter.default for name, parameter in inspect.signature(ParametricUMAP).parameters.items()}
    assert ours == expected
    assert list(ours)[: len(OWN)] == list(OWN)


def test_every_parameter_is_translated_ignored_or_refused():
    translated = {
        *("dims", "encoder", "decoder", "parametric_reconstruction_loss_fcn", "landmark_loss_fn", "init", "unique"),
        *("disconnection_distance", "precomputed_knn", "n_training_epochs", "output_metric"),
    }
    groups = [set(SHARED), set(WITHOUT_EFFECT), set(IMPOSSIBLE), translated]
    assert sum(map(len, groups)) == len(set.union(*groups))
    assert set.union(*groups) == set(ParametricUMAP().get_params())


def test_clone_and_parameters():
    umap = ParametricUMAP(n_neighbors=7, dims=(8, 8), metric="cosine", keras_fit_kwargs={})
    assert clone(umap).get_params() == umap.get_params()
    assert umap.set_params(n_neighbors=9).n_neighbors == 9
    assert isinstance(umap, fastpdr.ParametricUMAP)


# Scripts


def test_fit_and_transform(fitted):
    assert fitted.embedding_.shape == (200, 2)
    assert fitted.embedding_.dtype == np.float32
    np.testing.assert_array_equal(fitted.transform(X, batch_size=50), fitted.embedding_)
    assert fitted.transform(digits[200:210]).shape == (10, 2)
    assert fitted.n_features_in_ == 64
    assert fitted._history["loss"] == fitted.loss_history_
    assert 0 < fitted.score(X) <= 1
    assert list(fitted.get_feature_names_out()) == ["parametricumap0", "parametricumap1"]


def test_the_map_is_that_of_the_estimator(fitted):
    estimator = fastpdr.ParametricUMAP(n_epochs=20, random_state=0).fit(X)
    np.testing.assert_array_equal(fitted.embedding_, estimator.embedding_)


def test_fit_again_begins_anew(fitted):
    again = copy.deepcopy(fitted).fit(X)
    np.testing.assert_array_equal(again.embedding_, fitted.embedding_)


def test_in_a_pipeline():
    assert make_pipeline(MinMaxScaler(), short(n_components=3)).fit_transform(X).shape == (200, 3)


def test_precomputed_knn():
    indices, distances = knn(X)
    umap = short(n_neighbors=10, precomputed_knn=(indices, distances, None))
    umap.fit(X)
    np.testing.assert_array_equal(edges(umap), edges(short(n_neighbors=10).fit(X)))
    umap = short(n_neighbors=10, precomputed_knn=fastpdr.KNNGraph.build(X, 12))
    np.testing.assert_array_equal(edges(umap.fit(X)), edges(short(n_neighbors=10).fit(X)))


@pytest.mark.parametrize("given", [knn(X[:150]), knn(X, 5)], ids=["rows", "neighbours"])
def test_precomputed_knn_of_other_size_is_ignored_with_a_warning(given):
    with pytest.warns(UserWarning, match="precomputed_knn is of"):
        umap = short(precomputed_knn=given).fit(X)
    np.testing.assert_array_equal(edges(umap), edges(short().fit(X)))


def test_labels():
    umap = short(target_metric="categorical", target_weight=0.9)
    umap.fit(X, y=y)
    other = (y[:, None] != y[None]) & edges(short().fit(X))
    assert other.any()
    assert np.median(umap.graph_.toarray()[other]) < 1e-6
    some = np.where(np.arange(200) % 2, y, -1)
    assert short().fit_transform(X, some).shape == (200, 2)


def test_numbers_as_targets():
    assert short(target_metric="euclidean", target_n_neighbors=5).fit(X, X.sum(1)).embedding_.shape == (200, 2)


def test_autoencoder():
    umap = ParametricUMAP(parametric_reconstruction=True, autoencoder_loss=True, n_epochs=50, random_state=0)
    Z = umap.fit_transform(X)
    rows = umap.inverse_transform(Z)
    assert rows.shape == X.shape
    assert np.square(rows - X).mean() < 0.7 * X.var(0).mean()


def test_own_loss_of_the_reconstruction_has_the_rows_first():
    seen = []

    def loss(rows, reconstruction):
        seen.append((rows.requires_grad, reconstruction.requires_grad))
        return nn.functional.mse_loss(reconstruction, rows)

    short(parametric_reconstruction=True, parametric_reconstruction_loss_fcn=loss).fit(X)
    assert set(seen) == {(False, True)}


def test_convolutions():
    encoder = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(36, 2))
    decoder = nn.Sequential(nn.Linear(2, 64), nn.Unflatten(1, (1, 8, 8)))
    images = X.reshape(-1, 1, 8, 8)
    umap = short(dims=(1, 8, 8), encoder=encoder, decoder=decoder, parametric_reconstruction=True)
    Z = umap.fit_transform(images)
    np.testing.assert_array_equal(umap.transform(X), Z)
    np.testing.assert_array_equal(umap.transform(images), Z)
    assert umap.inverse_transform(Z).shape == images.shape


def test_n_training_epochs(monkeypatch):
    umap = short(n_epochs=3)
    umap.n_training_epochs = 4
    umap.loss_report_frequency = 1
    assert umap.fit(X).n_iter_ == 12
    assert clone(umap).n_training_epochs == 4
    monkeypatch.setattr(neighbors.NeighborEmbedding, "_automatic_epochs", lambda *_: 3)
    assert ParametricUMAP(n_training_epochs=2, random_state=0).fit(X[:50]).n_iter_ == 6


def test_global_correlation():
    assert short(global_correlation_loss_weight=0.1).fit(X).embedding_.shape == (200, 2)


@pytest.mark.parametrize("init", ["spectral", "tswspectral", "random"])
def test_inits_that_teach_nothing(init, fitted):
    np.testing.assert_array_equal(short(n_epochs=20, init=init).fit(X).embedding_, fitted.embedding_)


@pytest.mark.parametrize("init", ["pca", X[:, 20:22]])
def test_inits_that_teach(init, fitted):
    assert not np.array_equal(short(n_epochs=20, init=init).fit(X).embedding_, fitted.embedding_)


def test_precomputed_distances():
    rows = X + np.random.default_rng(0).normal(size=X.shape).astype(np.float32)  # no two distances are equal
    distances = np.abs(rows[:, None] - rows[None]).sum(2)
    umap = short(metric="precomputed")
    umap.fit(rows, precomputed_distances=distances)
    np.testing.assert_array_equal(edges(umap), edges(short(metric="manhattan").fit(rows)))
    assert distances.diagonal().max() == 0
    assert umap.transform(digits[200:205]).shape == (5, 2)


def test_unique():
    twice = np.concatenate([X[:100], X])
    umap = short(unique=True)
    umap.fit(twice, np.concatenate([y[:100], y]))
    assert umap.graph_.shape == (200, 200)
    assert umap.embedding_.shape == (300, 2)
    np.testing.assert_array_equal(umap.embedding_[:100], umap.embedding_[100:200])


def test_disconnection_distance():
    longest = float(np.median(knn(X)[1]))
    umap = short(disconnection_distance=longest).fit(X)
    row, column = umap.graph_.nonzero()
    assert np.linalg.norm(X[row] - X[column], axis=1).max() < longest
    assert umap.graph_.nnz < short().fit(X).graph_.nnz


def test_what_has_no_effect_is_logged(caplog):
    with caplog.at_level(logging.INFO, "fastpdr"):
        umap = short(low_memory=False, transform_seed=1, tqdm_kwds={"disable": True}, reconstruction_validation=X)
        umap.fit(X)
    assert "without effect here: low_memory, transform_seed, tqdm_kwds, reconstruction_validation" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO, "fastpdr"):
        short().fit(X)
    assert "without effect" not in caplog.text


# Landmarks


def test_retraining_with_landmarks_holds_them(fitted):
    umap = copy.deepcopy(fitted)
    umap.add_landmarks(X, sample_pct=0.1)
    assert umap.landmark_loss_weight == 0.01
    landmarks = umap.prev_epoch_X
    assert landmarks.shape == (20, 64)
    before = umap.transform(landmarks)
    umap.set_params(n_epochs=60).fit(digits[200:400])
    assert umap.embedding_.shape == (220, 2)
    assert umap.n_iter_ == len(umap.loss_history_) == 20 + 60
    moved = np.linalg.norm(umap.transform(landmarks) - before, axis=1).mean()
    assert moved < 0.1 * np.linalg.norm(before - before.mean(0), axis=1).mean()
    umap.remove_landmarks()
    assert umap.fit(digits[200:400]).embedding_.shape == (200, 2)


def test_chosen_landmarks_and_labels(fitted):
    umap = copy.deepcopy(fitted)
    umap.add_landmarks(X, sample_mode="predetermined", idx=[3, 5, 8])
    np.testing.assert_array_equal(umap.prev_epoch_X, X[[3, 5, 8]])
    assert umap.fit_transform(digits[200:300], classes[200:300]).shape == (103, 2)
    with pytest.raises(ValueError, match="y must be None or numbers for classes"):
        umap.fit(digits[200:300], classes[200:300].astype(str))


def test_positions_of_landmarks(fitted):
    umap, seen = copy.deepcopy(fitted), []

    def loss(positions, places):
        seen.append(positions.requires_grad)
        return (places - positions).norm(dim=1).mean()

    umap.set_params(landmark_loss_fn=loss)
    positions = np.concatenate([np.full((100, 2), np.nan), umap.transform(X[:50])])
    umap.fit(np.concatenate([digits[200:300], X[:50]]), landmark_positions=positions)
    assert umap.n_iter_ == 40
    assert seen
    assert not any(seen)
    assert short().fit_transform(X, landmark_positions=fitted.embedding_).shape == (200, 2)
    assert copy.deepcopy(fitted).partial_fit(digits[200:300]).n_iter_ == 40


def test_landmarks_of_a_map_that_is_not_there():
    with pytest.raises(ValueError, match="not fitted"):
        short().add_landmarks(X)


@pytest.mark.parametrize("arguments", [{"sample_mode": "best"}, {"sample_mode": "predetermined"}, {"sample_pct": 0}])
def test_bad_landmarks(fitted, arguments):
    with pytest.raises(ValueError, match="sample_mode must be 'uniform' with sample_pct"):
        copy.deepcopy(fitted).add_landmarks(X, **arguments)


# Saving


def test_save_and_load(fitted, tmp_path):
    fitted.save(tmp_path / "model")
    fitted.save(str(tmp_path / "model"), verbose=False, exclude_raw_data=True)
    for umap in (load_ParametricUMAP(tmp_path / "model", verbose=False), fastpdr.load(tmp_path / "model")):
        assert isinstance(umap, fastpdr.ParametricUMAP)
        np.testing.assert_array_equal(umap.transform(X), fitted.embedding_)
    loaded = load_ParametricUMAP(tmp_path / "model")
    assert type(loaded) is ParametricUMAP
    assert loaded.get_params() == fitted.get_params()
    loaded.add_landmarks(X)
    assert loaded.fit(digits[200:300]).embedding_.shape == (102, 2)


def test_save_by_our_function_with_all_it_takes(fitted, tmp_path):
    fastpdr.save(fitted, tmp_path / "model", metrics={"a": 1}, embedding=fitted.embedding_)
    loaded = load_ParametricUMAP(tmp_path / "model")
    np.testing.assert_array_equal(loaded.transform(X), loaded.embedding_)
    np.testing.assert_array_equal(loaded.embedding_, fitted.embedding_)


def test_load_what_the_estimator_saved(tmp_path):
    estimator = fastpdr.ParametricUMAP(n_neighbors=8, parametric_reconstruction=True, n_epochs=2).fit(X)
    estimator.save(tmp_path / "model")
    loaded = load_ParametricUMAP(tmp_path / "model")
    assert loaded.n_neighbors == 8
    Z = estimator.embedding_
    np.testing.assert_array_equal(loaded.inverse_transform(Z), estimator.inverse_transform(Z))


def test_load_own_networks(tmp_path):
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    umap = short(dims=(8, 8), encoder=encoder).fit(X)
    umap.save(tmp_path / "model")
    loaded = load_ParametricUMAP(tmp_path / "model", encoder=encoder, dims=(8, 8))
    np.testing.assert_array_equal(loaded.transform(X), umap.embedding_)


def test_load_another_method(tmp_path):
    fastpdr.ParametricTSNE(n_epochs=1).fit(X).save(tmp_path / "model")
    with pytest.raises(ValueError, match="load_ParametricUMAP: .* holds a ParametricTSNE"):
        load_ParametricUMAP(tmp_path / "model")


# What cannot be done


class Keras:
    """Stands for an object of Keras."""

    def __call__(self, *arguments):
        raise AssertionError


Keras.__module__ = "keras.losses"


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"densmap": True}, "densmap must be False"),
        ({"output_dens": True}, "output_dens must be False"),
        ({"output_metric": "hyperboloid"}, "output_metric must be 'euclidean', got 'hyperboloid'"),
        ({"metric": lambda a, b: 0.0}, "metric must be a name, got a function"),
        ({"metric": "mahalanobis"}, "metric must be one of euclidean"),
        ({"metric_kwds": {"p": 3}}, "metric_kwds must be empty"),
        ({"target_metric_kwds": {"p": 3}}, "target_metric_kwds must be empty"),
        ({"target_metric": "l1"}, "'target_metric' parameter of ParametricUMAP must be"),
        ({"encoder": Keras()}, "encoder must be a torch.nn.Module or None, got keras.losses.Keras"),
        ({"decoder": Keras()}, "decoder must be a torch.nn.Module or None"),
        ({"landmark_loss_fn": Keras()}, "landmark_loss_fn must be a function of torch tensors"),
        ({"parametric_reconstruction_loss_fcn": Keras()}, "parametric_reconstruction_loss_fcn must be a function"),
        ({"keras_fit_kwargs": {"callbacks": []}}, "keras_fit_kwargs must be empty"),
        ({"init": "best"}, "init must be an array or one of spectral"),
        ({"n_training_epochs": 0}, "n_training_epochs must be an integer >= 1, got 0"),
        ({"metric": "precomputed"}, "precomputed_distances must be given with metric='precomputed'"),
        ({"metric": "precomputed", "unique": True}, "unique must be False with metric='precomputed'"),
        ({"disconnection_distance": "far"}, "disconnection_distance must be None or a number > 0, got 'far'"),
        ({"disconnection_distance": 1e-9}, "no row has a neighbour"),
        ({"precomputed_knn": (knn(X)[0],)}, "precomputed_knn must be a KNNGraph or"),
        ({"n_neighbors": 1}, "'n_neighbors' parameter of ParametricUMAP must be"),
    ],
)
def test_errors_name_class_and_parameter(parameters, message):
    with pytest.raises(ValueError, match=message) as error:
        short(**parameters).fit(X)
    assert "ParametricUMAP" in str(error.value)


def test_bad_precomputed_distances():
    with pytest.raises(ValueError, match=r"precomputed_distances must be of shape \(200, 200\), got \(5, 5\)"):
        short(metric="precomputed").fit(X, precomputed_distances=np.zeros((5, 5)))
    from scipy.sparse import csr_matrix

    with pytest.raises(ValueError, match="precomputed_distances must be a dense array"):
        short(metric="precomputed").fit(X, precomputed_distances=csr_matrix((200, 200)))


def test_without_a_decoder(fitted):
    with pytest.raises(AttributeError, match="inverse_transform needs a decoder"):
        fitted.inverse_transform(fitted.embedding_)
