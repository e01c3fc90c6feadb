"""Trackers of a config: what they see of rows that are held out from a model with preprocessing."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml
from running import X, run, y
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import fastpdr
from fastpdr.cli import config
from fastpdr.cli.tracked import fit_transform, trackers_of
from fastpdr.tracking import JSONLines

TRAIN, TEST = slice(0, 60), slice(60, None)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def estimator(callbacks=None):
    return fastpdr.ParametricTSNE(n_epochs=3, hidden_dims=(8,), random_state=0, callbacks=callbacks)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("steps", [(), (StandardScaler(),), (StandardScaler(), PCA(2, random_state=0))])
def test_held_out_rows_go_through_the_steps_before_the_map(here, steps):
    own = [lambda state: None]
    model, alone = (make_pipeline(*steps, estimator(own)) if steps else estimator(own) for _ in range(2))
    make = lambda held_out: [JSONLines("log.jsonl", held_out=held_out)]  # noqa: E731
    Z = fit_transform(model, X[TRAIN], make, (X[TEST], y[TEST]))
    np.testing.assert_array_equal(Z, alone.fit_transform(X[TRAIN]))
    np.testing.assert_array_equal(model.transform(X), alone.transform(X))
    read = model[:-1].transform(X[TEST]) if steps else X[TEST]
    expected = fastpdr.metrics.evaluate(read, model.transform(X[TEST]), y[TEST], n_neighbors=9)
    last = lines(here / "log.jsonl")[-1]
    for name, value in expected.items():
        assert last[f"held_out/{name}"] == pytest.approx(value, abs=1e-3)
    assert (model.steps[-1][1] if steps else model).callbacks is own


def test_rows_are_judged_and_drawn_as_the_config_says(here):
    pytest.importorskip("matplotlib")
    text = yaml.safe_dump({"tracking": {"jsonl": "log.jsonl", "metrics_every": 2}})
    (here / "train.yml").write_text(text)
    whole = config.load(here / "train.yml", "train")
    section = whole.tracking.model_copy(update={"map_every": 2})
    make = trackers_of(whole.model_copy(update={"tracking": section}))
    fit_transform(estimator(), X[TRAIN], make, (X[TEST], None))
    assert ["held_out/rnx_auc" in line for line in lines(here / "log.jsonl")] == [True, True, True]
    assert {path.name for path in here.glob("*.png")} == {f"log-epoch-000{epoch}.png" for epoch in (1, 2, 3)}
    fit_transform(estimator(), X[TRAIN], make)
    assert all(len(line) == 4 for line in lines(here / "log-2.jsonl"))


def test_a_folder_in_place_of_a_file_is_said_before_all(here):
    (here / "logs").mkdir()
    (here / "train.yml").write_text("{data: {features: nowhere.csv}, tracking: {csv: logs}}")
    assert "CSVLog: path must be a file, got the folder logs" in run("train", "--config", "train.yml", code=2)
