"""Runs of Weights & Biases: when they begin and end, with a stand-in for the package, and what an offline run holds."""

from __future__ import annotations

import copy
import json
import struct
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.base import clone

from fastpdr import ParametricTSNE, ParametricUMAP
from fastpdr.tracking import WeightsAndBiases

rng = np.random.default_rng(0)
X, HELD = (rng.normal(size=(n, 5)).astype(np.float32) for n in (60, 30))
SMALL = {"n_epochs": 3, "hidden_dims": (8,), "random_state": 0}
SCALARS = ["loss", "learning_rate", "gradient_norm"]


class Run:
    """Stands for wandb.Run and remembers what it is told."""

    def __init__(self, settings):
        self.settings, self.lines, self.axes, self.exit_code = settings, [], {}, None

    def log(self, line):
        assert self.exit_code is None
        self.lines.append(line)

    def define_metric(self, name, step_metric):
        self.axes[name] = step_metric

    def finish(self, exit_code):
        self.exit_code = exit_code

    def __deepcopy__(self, memo):
        return self


@pytest.fixture
def runs(monkeypatch):
    """Runs in the order of their beginning, in place of a package that talks to a server."""
    made = []

    def init(**settings):
        made.append(Run(settings))
        return made[-1]

    package = SimpleNamespace(init=init, Error=type("Error", (Exception,), {}), Image=lambda pixels: pixels)
    monkeypatch.setitem(sys.modules, "wandb", package)
    return made


def fail(state):
    if state.epoch == 2:
        raise RuntimeError("stop")


def test_every_training_is_a_run_that_ends_with_it(runs):
    estimator = ParametricUMAP(callbacks=[WeightsAndBiases("maps", tags=["a"])], **SMALL).fit(X)
    estimator.partial_fit(X)
    clone(estimator).fit(X)
    assert [run.settings for run in runs] == [{"project": "maps", "reinit": "create_new", "tags": ["a"]}] * 3
    assert [run.exit_code for run in runs] == [0, 0, 0]
    assert [list(line) for line in runs[0].lines] == [["epoch", *SCALARS]] * 3
    assert [line["epoch"] for line in runs[1].lines] == [1, 2, 3]
    assert runs[0].axes == dict.fromkeys((*SCALARS, "held_out/*"), "epoch")


def test_after_an_error_it_has_failed(runs):
    with pytest.raises(RuntimeError, match="stop"):
        ParametricTSNE(callbacks=[WeightsAndBiases(), fail], **SMALL).fit(X)
    assert [run.exit_code for run in runs] == [1]


def test_an_earlier_error_is_not_this_trainings(runs):
    try:
        raise KeyError("elsewhere")
    except KeyError:
        ParametricTSNE(callbacks=[WeightsAndBiases()], **SMALL).fit(X)
        with pytest.raises(RuntimeError, match="stop"):
            ParametricTSNE(callbacks=[WeightsAndBiases(), fail], **SMALL).fit(X)
    assert [run.exit_code for run in runs] == [0, 1]


def test_early_stopping_is_no_failure(runs):
    settings = {**SMALL, "n_epochs": 20, "early_stopping_patience": 1, "early_stopping_min_delta": 1e9}
    estimator = ParametricTSNE(callbacks=[WeightsAndBiases("maps")], **settings).fit(X)
    assert len(runs[0].lines) == estimator.n_iter_ < 20
    assert runs[0].exit_code == 0


def test_a_run_that_is_given_stays_open(runs):
    given = Run({})
    tracker = WeightsAndBiases(run=given)
    estimator = ParametricTSNE(callbacks=[tracker], **SMALL).fit(X)
    copy.deepcopy(estimator).fit(X)
    with pytest.raises(RuntimeError, match="stop"):
        ParametricTSNE(callbacks=[tracker, fail], **SMALL).fit(X)
    assert given.exit_code is None
    assert len(given.lines) == 8
    assert runs == []


def test_pictures_and_measures_are_in_the_line_of_their_epoch(runs):
    pytest.importorskip("matplotlib")
    tracker = WeightsAndBiases(held_out=HELD, metrics_every=2, map_every=3)
    ParametricTSNE(callbacks=[tracker], **SMALL).fit(X)
    pictures = [line.get("held_out/map") for line in runs[0].lines]
    assert [picture is None for picture in pictures] == [False, True, False]
    assert pictures[0].dtype == np.uint8
    assert pictures[0].shape[2] == 3
    assert len(np.unique(pictures[0])) > 1
    assert ["held_out/rnx_auc" in line for line in runs[0].lines] == [True, True, True]


def test_settings_of_a_run_that_exists(runs):
    with pytest.raises(ValueError, match="WeightsAndBiases: .* give run or project, tags, not both"):
        WeightsAndBiases("maps", run=Run({}), tags=["a"])


def test_without_a_login(runs, monkeypatch):
    def init(**_):
        raise sys.modules["wandb"].Error("no API key")

    monkeypatch.setattr(sys.modules["wandb"], "init", init)
    with pytest.raises(RuntimeError, match="WeightsAndBiases: no run can be begun: no API key"):
        ParametricTSNE(callbacks=[WeightsAndBiases("maps")], **SMALL).fit(X)


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ImportError, match=r"WeightsAndBiases: .* pip install 'fastpdr\[wandb\]'"):
        WeightsAndBiases("maps")


def records(path):
    """Records of an offline run: LevelDB's log format, of which wandb has a reader in Go alone."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, position, record = path.read_bytes(), 7, b""
    assert content[:4] == b":W&B"
    while position < len(content):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        _, length, part = struct.unpack("<IHB", content[position : position + 7])
        record += content[position + 7 : position + 7 + length]
        position += 7 + length
        if part in (1, 4):  # whole, or the last of several
            yield Record.FromString(record)
            record = b""


def test_wandb_itself_keeps_an_offline_run(tmp_path, monkeypatch, request):
    wandb = pytest.importorskip("wandb")
    pytest.importorskip("matplotlib")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    wandb.teardown()  # it reads the environment once
    request.addfinalizer(wandb.teardown)
    other = wandb.init(project="other", dir=tmp_path / "other")
    tracker = WeightsAndBiases(
        "maps", held_out=HELD, map_every=3, dir=str(tmp_path), config={"method": "tsne"}, name="first"
    )
    losses = []
    watch = lambda state: losses.append(state.loss_history[-1])  # noqa: E731
    estimator = ParametricTSNE(callbacks=[tracker, watch], **SMALL).fit(X)
    with pytest.raises(RuntimeError, match="stop"):
        ParametricTSNE(callbacks=[tracker, watch, fail], **SMALL).fit(X)
    assert wandb.run is other
    other.log({"still": "open"})
    other.finish()

    first, second = sorted((tmp_path / "wandb").glob("offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime)
    read = list(records(first))
    lines = [
        {(item.key or ".".join(item.nested_key)): json.loads(item.value_json) for item in record.history.item}
        for record in read
        if record.HasField("history")
    ]
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert [line["loss"] for line in lines] == estimator.loss_history_ == losses[:3]
    assert all(line["learning_rate"] > 0 and line["gradient_norm"] > 0 for line in lines)
    assert ["held_out/trustworthiness" in line for line in lines] == [True, False, True]
    assert [line.get("held_out/map._type") for line in lines] == ["image-file", None, "image-file"]
    assert len(list((first.parent / "files/media/images/held_out").glob("map_*.png"))) == 2
    assert {record.run.project for record in read if record.HasField("run")} == {"maps"}
    exits = [[r.exit.exit_code for r in records(path) if r.HasField("exit")] for path in (first, second)]
    assert exits == [[0], [1]]
