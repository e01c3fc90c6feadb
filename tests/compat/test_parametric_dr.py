"""Scripts written for parametric_dr, with the import changed; every parameter is honoured or refused."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from torch import nn

import fastpdr
from fastpdr.compat.parametric_dr import LARGEVIS_NN, TSNE_NN, UMAP_NN

X, y = load_digits(return_X_y=True)
FEW = X[:120]
METHODS = {
    TSNE_NN: fastpdr.ParametricTSNE,
    LARGEVIS_NN: fastpdr.ParametricLargeVis,
    UMAP_NN: fastpdr.ParametricUMAP,
}
every = pytest.mark.parametrize("cls", METHODS)


def small(cls, **parameters):
    settings = {"n_epochs": 3, "hidden_dim": 16, "num_layers": 1, "verbose": False, "batch_size": 64}
    return cls("cpu", **{**settings, **parameters})


@pytest.mark.parametrize(
    ("cls", "added"),
    [
        (TSNE_NN, {"batch_size": 256}),
        (LARGEVIS_NN, {"batch_size": 256, "neg_rate": 5, "gamma": 7}),
        (UMAP_NN, {"batch_size": 4096, "neg_rate": 5}),
    ],
)
def test_signature(cls, added):
    shared = {"num_layers": 3, "hidden_dim": 256, "n_components": 2, "verbose": True}
    parameters = inspect.signature(cls).parameters
    assert list(parameters)[:2] == ["device", "n_epochs"]
    assert {name: parameters[name].default for name in list(parameters)[2:]} == shared | added


# Scripts


@every
def test_quick_start(cls):
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows = np.random.default_rng(0).random((512, 128))
    Z = cls(device, n_epochs=3, batch_size=256).fit(rows)
    assert Z.shape == (512, 2)
    assert np.isfinite(Z).all()


@every
def test_train_then_place_others(cls):
    torch.manual_seed(0)
    method = cls(torch.device("cpu"), n_epochs=15, batch_size=256)
    Z = method.fit(X[:1000])
    others = method.fit_val(X[1000:])
    assert Z.dtype == others.dtype == np.float32
    assert others.shape == (797, 2)
    assert fastpdr.metrics.knn_accuracy(Z, y[:1000], others, y[1000:]) > 0.8
    np.testing.assert_array_equal(method.fit_val(X[:1000]), Z)
    np.testing.assert_allclose(method.fit_val(X[1000:1001]), others[:1], rtol=1e-5, atol=1e-5)
    assert len(method.epoch_losses) == 15
    assert isinstance(method.encoder, nn.Module)


def test_tsne_lies_between_0_and_1():
    method = small(TSNE_NN, n_components=3)
    Z = method.fit(FEW)
    assert (Z.min(), Z.max()) == (0, 1)
    low, high = method.estimator_.embedding_.min(), method.estimator_.embedding_.max()
    np.testing.assert_allclose(Z * (high - low) + low, method.estimator_.embedding_, atol=1e-6)
    with pytest.raises(ValueError, match="all 20 rows of X are the same"):
        small(TSNE_NN).fit(np.zeros((20, 3)))


@every
def test_the_global_seed_repeats_a_map(cls):
    maps = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        maps.append(small(cls).fit(FEW))
    np.testing.assert_array_equal(maps[0], maps[1])
    assert not np.array_equal(maps[0], maps[2])


@every
def test_save_through_the_estimator(cls, tmp_path):
    method = small(cls)
    method.fit(FEW)
    method.estimator_.save(tmp_path / "model")
    loaded = fastpdr.load(tmp_path / "model", device="cpu")
    np.testing.assert_array_equal(loaded.transform(FEW), method.estimator_.embedding_)


# What their parameters do


@every
def test_every_parameter_reaches_the_training(cls):
    added = {LARGEVIS_NN: {"neg_rate": 3, "gamma": 2.0}, UMAP_NN: {"neg_rate": 3}}.get(cls, {})
    given = {"n_epochs": 2, "num_layers": 2, "hidden_dim": 24, "n_components": 3, "verbose": True, "batch_size": 32}
    method = cls("cpu", **given, **added)
    method.fit(FEW)
    expected = {
        "n_components": 3,
        "hidden_dims": (512, 24, 24, 24),
        "n_epochs": 2,
        "batch_size": 32,
        "device": "cpu",
        "verbose": True,
    }
    names = {"neg_rate": "negative_sample_rate", "gamma": "gamma"}
    expected |= {names[name]: value for name, value in added.items()}
    assert type(method.estimator_) is METHODS[cls]
    assert {name: getattr(method.estimator_, name) for name in expected} == expected
    assert {"device", *given, *added} == set(inspect.signature(cls).parameters)


@pytest.mark.parametrize("cls", [TSNE_NN, LARGEVIS_NN])
def test_perplexity(cls):
    method = small(cls)
    method.fit(FEW)
    assert method.estimator_.perplexity == 15
    method.perplexity = 5
    method.fit(FEW)
    assert method.estimator_.perplexity == 5


def test_tsne_compares_with_one_graph():
    method = small(TSNE_NN)
    method.fit(FEW)
    assert method.estimator_.affinity == "knn"


@every
def test_one_epoch_trains_and_fits_do_not_add_up(cls):
    method = small(cls, n_epochs=1)
    method.fit(FEW)
    method.fit(FEW)
    assert len(method.epoch_losses) == 1


# Bad input


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_epochs", 0),
        ("n_epochs", "many"),
        ("num_layers", -1),
        ("hidden_dim", 0),
        ("n_components", 0),
        ("verbose", "loud"),
        ("batch_size", 1),
        ("batch_size", None),
    ],
)
@every
def test_bad_parameters_are_named(cls, name, value):
    with pytest.raises(ValueError, match=rf"'{name}' parameter of {cls.__name__} must be"):
        small(cls, **{name: value})


def test_bad_parameters_of_some():
    for cls, name in ((LARGEVIS_NN, "neg_rate"), (LARGEVIS_NN, "gamma"), (UMAP_NN, "neg_rate")):
        with pytest.raises(ValueError, match=rf"'{name}' parameter of {cls.__name__} must be"):
            small(cls, **{name: -1})
    with pytest.raises(TypeError, match="positional"):
        TSNE_NN("cpu", 10, 256)
    with pytest.raises(ValueError, match="'device' parameter of TSNE_NN must be"):
        TSNE_NN(0, 10)


@every
def test_bad_data_and_device(cls):
    for bad in (FEW[0], np.where(FEW > 3, np.nan, FEW), FEW[:1], FEW[:0]):
        with pytest.raises(ValueError, match=r"array|NaN|minimum"):
            small(cls).fit(bad)
    with pytest.raises(ValueError, match="device must be 'auto'"):
        cls("abacus", 3).fit(FEW)


@every
def test_before_and_after_a_fit(cls):
    method = small(cls)
    with pytest.raises(NotFittedError, match=rf"{cls.__name__}: fit must come before fit_val"):
        method.fit_val(FEW)
    method.fit(FEW)
    with pytest.raises(ValueError, match="features"):
        method.fit_val(FEW[:, :9])
