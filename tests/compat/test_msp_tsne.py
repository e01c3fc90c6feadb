"""Scripts written for msp_tsne, with the import changed; every parameter is honoured or refused."""

from __future__ import annotations

import inspect
import pickle
import sys

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator
from torch import nn

import fastpdr
from fastpdr.compat.msp_tsne import MultiscaleParametricTSNE, ParametricTSNE

X, y = load_digits(return_X_y=True)
FEW = X[:120]
every = pytest.mark.parametrize("cls", [ParametricTSNE, MultiscaleParametricTSNE])
# msp_tsne's parameters in its order, and what is added here.
TRAINING = {
    "n_iter": 1000,
    "batch_size": 500,
    "early_exaggeration_epochs": 50,
    "early_exaggeration_value": 4.0,
    "early_stopping_epochs": np.inf,
    "early_stopping_min_improvement": 1e-2,
    "alpha": 1,
}
WIDTHS = {"nl1": 1000, "nl2": 500, "nl3": 250, "logdir": None, "verbose": 0}
SIGNATURES = {
    ParametricTSNE: {"n_components": 2, "perplexity": 30.0, **TRAINING, **WIDTHS, "device": "auto", "lr": 1e-3},
    MultiscaleParametricTSNE: {"n_components": 2, **TRAINING, "lr": 1e-3, **WIDTHS},
}
ADDED = {ParametricTSNE: {"random_state": None}, MultiscaleParametricTSNE: {"device": "auto", "random_state": None}}


def small(cls, **parameters):
    settings = {"n_iter": 4, "nl1": 32, "nl2": 16, "nl3": 8, "random_state": 0, "device": "cpu"}
    if cls is ParametricTSNE:
        settings["perplexity"] = 10
    return cls(**{**settings, **parameters})


@every
def test_signature(cls):
    ours = {name: parameter.default for name, parameter in inspect.signature(cls).parameters.items()}
    assert list(ours.items()) == [*SIGNATURES[cls].items(), *ADDED[cls].items()]


# Scripts


def test_example_of_a_pipeline():
    train, test, y_train, y_test = train_test_split(X, y, test_size=0.25, random_state=0)
    msp = MultiscaleParametricTSNE(n_iter=120, lr=5e-3, nl1=128, nl2=64, nl3=32, verbose=1, random_state=0)
    pipeline = Pipeline([("scaler", StandardScaler()), ("msp_tsne", msp)])
    Z = pipeline.fit_transform(train)
    assert Z.shape == (1347, 2)
    assert Z.dtype == np.float32
    assert fastpdr.metrics.knn_accuracy(Z, y_train, pipeline.transform(test), y_test) > 0.85
    assert len(msp.loss_history) == 120


@every
def test_script_of_a_comparison(cls):
    torch.manual_seed(42)
    first = small(cls, random_state=None)
    Z = first.fit_transform(FEW)
    np.testing.assert_array_equal(first.transform(FEW), Z)
    assert isinstance(first.model, nn.Module)
    assert first._model is first.model
    assert first._final_loss == first.loss_history[-1]
    assert len(first.loss_history) == 4
    torch.manual_seed(42)
    np.testing.assert_array_equal(small(cls, random_state=None).fit_transform(FEW), Z)
    assert not np.array_equal(small(cls, random_state=None).fit_transform(FEW), Z)


def test_search_over_perplexities():
    search = GridSearchCV(small(ParametricTSNE), {"perplexity": [3, 9]}, cv=2).fit(FEW)
    assert 0 < search.best_score_ <= 1
    assert search.best_estimator_.perplexity in (3, 9)


@every
def test_clone_pickle_save(cls, tmp_path):
    estimator = small(cls, alpha=2.0)
    assert clone(estimator).get_params() == estimator.get_params()
    Z = estimator.fit_transform(FEW)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(estimator)).transform(FEW), Z)
    estimator.save(tmp_path / "model")
    np.testing.assert_array_equal(fastpdr.load(tmp_path / "model", device="cpu").transform(FEW), Z)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        estimator.save(tmp_path / "model")
    estimator.save(tmp_path / "model", overwrite=True)


@pytest.mark.filterwarnings("ignore:.* is more than half of a batch")
@every
def test_scikit_learn_contract(cls):
    check_estimator(small(cls, perplexity=2) if cls is ParametricTSNE else small(cls))


@every
def test_data_frames_and_names(cls):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(FEW, columns=[f"pixel{i}" for i in range(64)])
    estimator = small(cls).set_output(transform="pandas")
    assert list(estimator.fit_transform(frame).columns) == [f"{cls.__name__.lower()}{i}" for i in range(2)]
    assert list(estimator.feature_names_in_) == list(frame.columns)
    assert estimator.n_features_in_ == 64


# What their parameters do


@every
def test_every_parameter_reaches_the_training(cls):
    given = {
        "n_components": 3,
        "n_iter": 7,
        "batch_size": 60,
        "early_exaggeration_epochs": 2,
        "early_exaggeration_value": 3.0,
        "early_stopping_epochs": 5,
        "early_stopping_min_improvement": 0.5,
        "alpha": 0.5,
        "lr": 2e-3,
        "nl1": 20,
        "nl2": 15,
        "nl3": 10,
        "verbose": 1,
        "device": "cpu",
        "random_state": 3,
    }
    trained = small(cls, **given).fit(FEW).estimator_
    expected = {
        "n_components": 3,
        "n_epochs": 7,
        "batch_size": 60,
        "early_exaggeration_epochs": 2,
        "early_exaggeration": 3.0,
        "early_stopping_patience": 5,
        "early_stopping_min_delta": 0.5,
        "dof": 0.5,
        "learning_rate": 2e-3,
        "hidden_dims": (20, 15, 10),
        "verbose": 1,
        "device": "cpu",
        "random_state": 3,
        "callbacks": None,
    }
    assert {name: getattr(trained, name) for name in expected} == expected
    assert type(trained) is getattr(fastpdr, cls.__name__)
    assert set(given) | {"logdir", "perplexity"} >= set(cls().get_params())


def test_perplexity_is_counted_in_the_batch():
    for batch_size, ours in ((None, 10.0), (500, 10.0), (60, 20.0), (50, 30.0)):
        trained = small(ParametricTSNE, batch_size=batch_size).fit(FEW).estimator_
        assert trained.perplexity == ours


def test_perplexity_beyond_the_batch_is_lowered_with_a_warning():
    with pytest.warns(UserWarning, match=r"perplexity=30 is more than half of a batch: 19\.5 is taken"):
        trained = small(ParametricTSNE, perplexity=30, batch_size=40).fit(FEW).estimator_
    assert trained.perplexity == 58.5


@every
def test_batches_of_all_rows(cls):
    estimator = small(cls, batch_size=None).fit(FEW)
    assert estimator.batch_size is None
    assert estimator.estimator_.batch_size == 120


@every
def test_fewer_rows_than_a_batch_and_rows_left_over(cls):
    for n, batch_size in ((30, 500), (101, 50)):
        assert small(cls, batch_size=batch_size).fit_transform(X[:n]).shape == (n, 2)


@every
def test_early_stopping(cls):
    impatient = {"early_exaggeration_epochs": 10, "early_stopping_epochs": 3, "early_stopping_min_improvement": 10.0}
    assert len(small(cls, n_iter=50, **impatient).fit(FEW).loss_history) == 28  # counted from the middle on
    for never in (np.inf, 1000):
        assert len(small(cls, early_stopping_epochs=never).fit(FEW).loss_history) == 4


@every
def test_refit_starts_anew(cls):
    estimator = small(cls).fit(FEW)
    losses = estimator.loss_history
    assert estimator.fit(FEW).loss_history == losses


@every
def test_logdir(cls, tmp_path):
    pytest.importorskip("tensorboard")
    small(cls, logdir=str(tmp_path / "run")).fit(FEW)
    assert len(list((tmp_path / "run/run-1").iterdir())) == 1


@every
def test_logdir_without_tensorboard(cls, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    estimator = small(cls, logdir=tmp_path)
    with pytest.raises(ImportError, match=r"pip install 'fastpdr\[tensorboard\]'"):
        estimator.fit(FEW)
    assert estimator.model is None


# Bad input


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_components", 0),
        ("n_iter", 0),
        ("n_iter", 2.5),
        ("batch_size", 1),
        ("early_exaggeration_epochs", -1),
        ("early_exaggeration_value", 0.0),
        ("early_stopping_epochs", 0),
        ("early_stopping_epochs", None),
        ("early_stopping_min_improvement", -1.0),
        ("alpha", 0),
        ("lr", 0),
        ("nl1", 0),
        ("nl2", "wide"),
        ("nl3", -3),
        ("logdir", 5),
        ("verbose", "loud"),
        ("device", 0),
        ("random_state", "seed"),
    ],
)
@every
def test_bad_parameters_are_named(cls, name, value):
    with pytest.raises(ValueError, match=rf"'{name}' parameter of {cls.__name__} must be"):
        small(cls, **{name: value}).fit(FEW)


def test_bad_perplexity_and_device():
    with pytest.raises(ValueError, match="'perplexity' parameter of ParametricTSNE must be"):
        small(ParametricTSNE, perplexity=-1.0).fit(FEW)
    with pytest.raises(ValueError, match="device must be 'auto'"):
        small(ParametricTSNE, device="abacus").fit(FEW)
    with pytest.raises(TypeError, match="unexpected keyword argument 'perplexity'"):
        MultiscaleParametricTSNE(perplexity=30)


@pytest.mark.filterwarnings("ignore:.* is more than half of a batch")
@every
def test_bad_data(cls):
    for bad in (FEW[0], np.where(FEW > 3, np.nan, FEW), FEW[:1], FEW[:0], np.array([["a", "b"]] * 9)):
        with pytest.raises(ValueError, match=r"array|NaN|minimum|convert"):
            small(cls).fit(bad)
    with pytest.raises(TypeError, match=r"array-like|sequence"):
        small(cls).fit(None)


@every
def test_before_and_after_a_fit(cls):
    estimator = small(cls)
    for method in (estimator.transform, estimator.score, estimator.save):
        with pytest.raises(NotFittedError):
            method(FEW)
    assert estimator.model is None
    assert not hasattr(estimator, "loss_history")
    estimator.fit(FEW)
    with pytest.raises(ValueError, match="features"):
        estimator.transform(FEW[:, :9])
