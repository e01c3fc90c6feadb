"""fastpdr export: one file from a folder, and what is no folder or no format."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import pytest
import torch
from running import NAMES, D, X, entries, run, y

import fastpdr

onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder of train, with a scaler and names of columns."""
    folder = tmp_path_factory.mktemp("trained")
    pd.DataFrame(X, columns=list("abcd")).assign(kind=NAMES[y]).to_csv(folder / "x.csv", index=False)
    settings = [f"data.features={folder / 'x.csv'}", "data.label_column=kind", f"output.model_dir={folder}"]
    options = [part for setting in (*settings, "model.n_epochs=1") for part in ("--set", setting)]
    run("train", *options)
    return folder / "fastpdr_model"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("suffix", ["onnx", "pt2"])
def test_a_file_that_places_raw_rows(trained, here, suffix):
    (here / f"map.{suffix}").write_text("older")
    output = run("export", trained, "-o", f"map.{suffix}")
    assert output == f"map.{suffix}: rows [n, {D}] float32 to places [n, 2], checked against the model"
    if suffix == "onnx":
        Z = onnxruntime.InferenceSession("map.onnx").run(None, {"X": X})[0]
    else:
        Z = torch.export.load("map.pt2").module()(torch.from_numpy(X)).numpy()
    np.testing.assert_allclose(Z, np.load(trained / "embedding.npy"), rtol=1e-4, atol=1e-4)
    assert entries(here) == {f"map.{suffix}"}


def test_into_a_new_folder_from_the_model_itself(trained, here):
    run("export", trained / "model", "-o", "deep/map.pt2")
    assert entries(here / "deep") == {"map.pt2"}


def test_what_is_no_format(trained):
    output = run("export", trained, "-o", "map.h5", code=2)
    assert "--output map.h5: the suffix must be one of .onnx, .pt2" in output
    assert "--output" in run("export", trained, code=2)


def test_what_is_no_model(here):
    (here / "empty").mkdir()
    assert "empty holds no model" in run("export", "empty", "-o", "map.onnx", code=2)
    run("export", "missing", "-o", "map.onnx", code=2)
    fastpdr.ParametricTSNE(encoder=torch.nn.Linear(D, 2), n_epochs=1).fit(X).save("own")
    output = run("export", "own", "-o", "deep/map.pt2", code=2)
    assert "own encoder (Linear)" in output
    assert entries(here) == {"empty", "own"}


def test_without_the_packages(trained, here, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert "pip install 'fastpdr[onnx]'" in run("export", trained, "-o", "deep/map.onnx", code=1)
    assert entries(here) == set()


def test_a_file_that_does_otherwise_is_a_failure(trained, here, monkeypatch):
    monkeypatch.setattr("fastpdr.estimators.export._difference", lambda *_: 1.0)
    output = run("export", trained, "-o", "map.pt2", code=1)
    assert "differs from transform by 1.0e+00 of the map's scale" in output
    assert entries(here) == set()
