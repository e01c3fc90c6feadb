"""Pipelines of scalers, PCA and a map saved as numbers, and the encoder of labels beside them."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import LabelEncoder, MinMaxScaler, RobustScaler, StandardScaler

import fastpdr

SMALL = {"n_epochs": 2, "hidden_dims": (16, 8), "random_state": 0}


@pytest.fixture
def X(rng):
    return rng.normal(size=(60, 5)) * [1, 10, 100, 1e3, 1] + 1e3


def pipeline_of(*steps):
    return make_pipeline(*steps, fastpdr.ParametricTSNE(**SMALL))


@pytest.mark.parametrize(
    "steps",
    [
        (),
        (StandardScaler(),),
        (StandardScaler(with_mean=False),),
        (StandardScaler(with_std=False),),
        (MinMaxScaler((-1, 1)),),
        (StandardScaler(), PCA(3)),
        (PCA(0.9, whiten=True),),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_round_trip_bit_for_bit(X, tmp_path, steps, dtype):
    X = X.astype(dtype)
    pipeline = pipeline_of(*steps).fit(X)
    fastpdr.save(pipeline, tmp_path / "model")
    loaded = fastpdr.load(tmp_path / "model")
    assert isinstance(loaded, Pipeline)
    assert [name for name, _ in loaded.steps] == [name for name, _ in pipeline.steps]
    np.testing.assert_array_equal(loaded.transform(X), pipeline.transform(X))
    assert loaded.n_features_in_ == 5
    np.testing.assert_array_equal(loaded.fit(X).transform(X), pipeline.transform(X))
    for (_, old), (_, new) in zip(pipeline.steps[:-1], loaded.steps[:-1], strict=True):
        np.testing.assert_array_equal(old.inverse_transform(old.transform(X)), new.inverse_transform(old.transform(X)))


@pytest.mark.parametrize("nothing", ["passthrough", None])
def test_steps_that_do_nothing_are_left_out(X, tmp_path, nothing):
    pipeline = Pipeline([("scale", StandardScaler()), ("more", nothing), ("map", fastpdr.ParametricTSNE(**SMALL))])
    Z = pipeline.fit_transform(X)
    fastpdr.save(pipeline, tmp_path / "model")
    loaded = fastpdr.load(tmp_path / "model")
    assert [name for name, _ in loaded.steps] == ["scale", "map"]
    np.testing.assert_array_equal(loaded.transform(X), Z)


def test_no_pickle_and_no_rows(X, tmp_path):
    fastpdr.save(pipeline_of(StandardScaler(), PCA(3)).fit(X), tmp_path / "model")
    files = {"README.md", "config.json", "encoder.safetensors", "preprocessing.safetensors"}
    assert {entry.name for entry in (tmp_path / "model").iterdir()} == files
    config = json.loads((tmp_path / "model/config.json").read_text())
    assert [step["class"] for step in config["pipeline"]["steps"]] == ["StandardScaler", "PCA"]


def test_names_of_columns_are_checked(X, tmp_path):
    frame = pd.DataFrame(X, columns=list("abcde"))
    fastpdr.save(pipeline_of(StandardScaler()).fit(frame), tmp_path / "model")
    loaded = fastpdr.load(tmp_path / "model")
    assert list(loaded.feature_names_in_) == list("abcde")
    with pytest.raises(ValueError, match="feature names"):
        loaded.transform(frame[list("bacde")])


@pytest.mark.parametrize("labels", [["b", "a", "b"], [3, 1, 3], [True, False, True], [0.5, 0.25, 0.5]])
def test_labels_come_back(X, tmp_path, labels):
    encoder = LabelEncoder().fit(labels)
    model = fastpdr.ParametricTSNE(**SMALL).fit(X)
    fastpdr.save(model, tmp_path / "model", label_encoder=encoder, label_column="kind")
    loaded = fastpdr.load_label_encoder(tmp_path / "model")
    assert loaded.inverse_transform(encoder.transform(labels)).tolist() == labels
    fastpdr.save(model, tmp_path / "model", overwrite=True)
    assert fastpdr.load_label_encoder(tmp_path / "model") is None


def test_what_has_no_numbers_is_refused_before_anything_is_written(X, tmp_path):
    with pytest.raises(ValueError, match="step robustscaler must be one of StandardScaler, MinMaxScaler, PCA"):
        fastpdr.save(pipeline_of(RobustScaler()).fit(X), tmp_path / "model")
    with pytest.raises(ValueError, match="a pipeline that ends with one"):
        fastpdr.save(make_pipeline(StandardScaler()).fit(X), tmp_path / "model")
    with pytest.raises(ValueError, match="must be a map of fastpdr"):
        fastpdr.save(StandardScaler(), tmp_path / "model")
    with pytest.raises(NotFittedError):
        fastpdr.save(pipeline_of(StandardScaler()), tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_damaged_numbers(X, tmp_path):
    folder = tmp_path / "model"
    fastpdr.save(pipeline_of(StandardScaler()).fit(X), folder)
    numbers = folder / "preprocessing.safetensors"
    numbers.write_bytes(numbers.read_bytes()[:-8])
    with pytest.raises(ValueError, match="is damaged"):
        fastpdr.load(folder)
    numbers.unlink()
    with pytest.raises(FileNotFoundError, match=r"preprocessing.safetensors is missing"):
        fastpdr.load(folder)


def test_a_step_of_another_class_is_not_imported(X, tmp_path):
    fastpdr.save(pipeline_of(StandardScaler()).fit(X), tmp_path / "model")
    config = tmp_path / "model/config.json"
    config.write_text(config.read_text().replace('"StandardScaler"', '"FunctionTransformer"'))
    with pytest.raises(ValueError, match="do not fit together"):
        fastpdr.load(tmp_path / "model")
