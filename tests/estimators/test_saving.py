"""Saved models: the round trip bit for bit, and a clear word about every folder that is not one."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.exceptions import NotFittedError
from torch import nn

import fastpdr
from fastpdr import MultiscaleParametricTSNE, ParametricLargeVis, ParametricTSNE, ParametricUMAP

SMALL = {"n_epochs": 2, "hidden_dims": (16, 8), "random_state": 0}


@pytest.fixture
def X(rng):
    return rng.normal(size=(60, 5)) + 1e4


@pytest.fixture
def folder(X, tmp_path):
    ParametricTSNE(perplexity=np.float64(7.5), **SMALL).fit(X).save(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("cls", [ParametricTSNE, MultiscaleParametricTSNE, ParametricUMAP, ParametricLargeVis])
def test_round_trip_bit_for_bit(cls, X, tmp_path):
    estimator = cls(n_components=3, **SMALL).fit(X)
    estimator.save(tmp_path / "deep" / "model")
    loaded = fastpdr.load(tmp_path / "deep" / "model")
    assert type(loaded) is cls
    assert np.array_equal(loaded.transform(X), estimator.transform(X))
    assert loaded.n_iter_ == 2
    assert loaded.loss_history_ == estimator.loss_history_
    assert loaded.get_params()["hidden_dims"] == [16, 8]
    assert not hasattr(loaded, "embedding_")


def test_only_json_and_safetensors_and_no_rows(folder):
    assert sorted(entry.name for entry in folder.iterdir()) == ["config.json", "encoder.safetensors"]
    config = json.loads((folder / "config.json").read_text())
    assert config["parameters"]["perplexity"] == 7.5
    assert config["class"] == "ParametricTSNE"
    assert sum(entry.stat().st_size for entry in folder.iterdir()) < 8000


def test_permissions_follow_the_umask(folder):
    mask = os.umask(0)
    os.umask(mask)
    modes = [entry.stat().st_mode & 0o777 for entry in (folder, *folder.iterdir())]
    assert modes == [0o777 & ~mask, 0o666 & ~mask, 0o666 & ~mask]


def test_loads_in_another_process(folder, X):
    program = "import sys, numpy, fastpdr; print(fastpdr.load(sys.argv[1]).transform(numpy.ones((1, 5))).shape)"
    result = subprocess.run([sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "(1, 2)"


def test_loaded_model_can_be_fitted_and_saved_again(folder, X, tmp_path):
    loaded = fastpdr.load(folder).fit(X)
    loaded.save(tmp_path / "again")
    assert np.array_equal(fastpdr.load(tmp_path / "again").transform(X), loaded.embedding_)


def test_feature_names_survive(X, tmp_path):
    frame = pd.DataFrame(X, columns=list("abcde"))
    ParametricTSNE(**SMALL).fit(frame).save(tmp_path / "model")
    loaded = fastpdr.load(tmp_path / "model")
    assert list(loaded.feature_names_in_) == list("abcde")
    with pytest.raises(ValueError, match="feature names"):
        loaded.transform(frame[list("bacde")])


def test_own_encoder_is_loaded_into_one_like_it(X, tmp_path):
    estimator = ParametricTSNE(encoder=nn.Linear(5, 2), n_epochs=2, random_state=0).fit(X)
    estimator.save(tmp_path / "model")
    with pytest.raises(ValueError, match=r"own encoder \(Linear\): pass one like it as encoder="):
        fastpdr.load(tmp_path / "model")
    loaded = fastpdr.load(tmp_path / "model", encoder=nn.Linear(5, 2))
    assert np.array_equal(loaded.transform(X), estimator.embedding_)
    with pytest.raises(ValueError, match="do not fit together"):
        fastpdr.load(tmp_path / "model", encoder=nn.Linear(4, 2))


def test_what_json_cannot_hold_is_named(X, tmp_path):
    estimator = ParametricTSNE(callbacks=[print], random_state=np.random.default_rng(0), n_epochs=1).fit(X)
    estimator.save(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert sorted(config["omitted_parameters"]) == ["callbacks", "random_state"]
    assert fastpdr.load(tmp_path / "model").callbacks is None


def test_loading_leaves_the_global_generator(folder):
    before = torch.get_rng_state()
    fastpdr.load(folder)
    assert torch.equal(torch.get_rng_state(), before)


def test_unfitted_is_not_saved(tmp_path):
    with pytest.raises(NotFittedError):
        ParametricTSNE().save(tmp_path / "model")


def test_overwriting_is_asked_for(folder, X, tmp_path):
    other = ParametricTSNE(n_components=3, **SMALL).fit(X)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        other.save(folder)
    assert fastpdr.load(folder).n_components == 2
    other.save(folder, overwrite=True)
    assert fastpdr.load(folder).n_components == 3
    (folder / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match="holds more than a model"):
        other.save(folder, overwrite=True)
    with pytest.raises(FileExistsError, match="is a file"):
        other.save(folder / "thesis.txt", overwrite=True)
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]


def test_failed_save_leaves_what_was_there(folder, X, tmp_path, monkeypatch):
    other = ParametricTSNE(n_components=3, **SMALL).fit(X)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fastpdr.estimators.saving.save_file", full)
    with pytest.raises(OSError, match="No space left"):
        other.save(folder, overwrite=True)
    assert fastpdr.load(folder).n_components == 2
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]


def edit(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def test_missing_folder_and_files(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="no model folder"):
        fastpdr.load(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="is no model folder"):
        fastpdr.load(tmp_path)
    (folder / "encoder.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="encoder.safetensors is missing"):
        fastpdr.load(folder)


def test_truncated_files(folder):
    weights = folder / "encoder.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(ValueError, match="is damaged"):
        fastpdr.load(folder)
    config = folder / "config.json"
    config.write_text(config.read_text()[:100])
    with pytest.raises(ValueError, match="is damaged"):
        fastpdr.load(folder)


def test_foreign_and_newer_folders(folder):
    edit(folder, format_version=2, fastpdr_version="9.0")
    with pytest.raises(ValueError, match=r"format version 2, written by fastpdr 9.0; .* upgrade"):
        fastpdr.load(folder)
    edit(folder, format_version=1, format="something else")
    with pytest.raises(ValueError, match="not written by fastpdr"):
        fastpdr.load(folder)
    (folder / "config.json").write_text("[1, 2]")
    with pytest.raises(ValueError, match="not written by fastpdr"):
        fastpdr.load(folder)


@pytest.mark.parametrize(
    "changes", [{"class": "os"}, {"fitted": {}}, {"parameters": {"typo": 1}}, {"parameters": {"n_components": 4}}]
)
def test_config_that_does_not_fit(folder, changes):
    edit(folder, **changes)
    with pytest.raises(ValueError, match="do not fit together"):
        fastpdr.load(folder)


def test_unknown_device(folder):
    with pytest.raises(ValueError, match="device must be"):
        fastpdr.load(folder, device="gpu")
