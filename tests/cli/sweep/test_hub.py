"""Sweeps with Weights & Biases: runs written without a connection, and its own search by a stand-in for it."""

from __future__ import annotations

import contextlib
import csv
import signal
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import yaml
from running import X, entries, run

from fastpdr.cli import learning, showing

pytest.importorskip("optuna")
wandb = pytest.importorskip("wandb")

CONTENT = {
    "project": "maps",
    "name": "first",
    "entity": "me",
    "method": "random",
    "metric": {"name": "trustworthiness_score", "goal": "maximize"},
    "parameters": {
        "model": {"parameters": {"learning_rate": {"min": 1e-3, "max": 1e-1}}},
        "method": {"values": ["umap", "mstsne"]},
        "n_neighbors": {"values": [5, 9]},
    },
    "data": {"features": "x.npy"},
    "model": {"n_epochs": 5, "hidden_dims": [8]},
}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    np.save("x.npy", X)
    for name in ("draw_map", "write_report"):
        monkeypatch.setattr(showing, name, lambda path, *_: path.touch() or "")
    yield tmp_path
    wandb.teardown()


@pytest.fixture
def runs(monkeypatch):
    """What is logged to each run; the runs themselves are W&B's own."""
    made = []
    init = wandb.init

    def recorded(**settings):
        made.append({"settings": settings, "logged": [], "code": None})
        record = made[-1]
        begun = init(**settings)
        log, finish = begun.log, begun.finish
        monkeypatch.setattr(begun, "log", lambda values: (record["logged"].append(values), log(values))[1])
        monkeypatch.setattr(
            begun, "finish", lambda exit_code=0: (record.update(code=exit_code), finish(exit_code=exit_code))[1]
        )
        return begun

    monkeypatch.setattr(wandb, "init", recorded)
    return made


def search(*options, code=0, error=True, **content):
    Path("w.yml").write_text(yaml.safe_dump(CONTENT | content, sort_keys=False))
    return run("sweep", "--config", "w.yml", "-o", "out", "--engine", "wandb", *options, code=code, error=error)


def trials():
    with open("out/trials.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_without_a_connection_every_trial_is_a_run(here, runs):
    output = search("--count", 2)
    assert "2 trials: 2 complete" in output
    assert len(list((here / "out/wandb").glob("offline-run-*"))) == 2
    assert entries(here) == {"x.npy", "w.yml", "out"}
    for made, row in zip(runs, trials(), strict=True):
        settings = made["settings"]
        assert (settings["project"], settings["entity"], settings["group"]) == ("maps", "me", "first")
        assert settings["name"] == f"trial-{row['trial']}"
        assert str(settings["config"]["model.learning_rate"]) == row["model.learning_rate"]
        assert made["code"] == 0
        losses = [values for values in made["logged"] if "loss" in values]
        assert [values["epoch"] for values in losses] == [1, 2, 3, 4, 5]
        assert {"learning_rate", "gradient_norm"} <= losses[0].keys()
        reports = [values for values in made["logged"] if values.keys() == {"trustworthiness"}]
        assert len(reports) == 4
        final = made["logged"][-1]
        for name in ("trustworthiness", "neighborhood_preservation", "rnx_auc", "final_loss", "training_time_seconds"):
            assert final[name] == float(row[name])


def test_a_trial_that_fails_is_a_failed_run(runs):
    parameters = {"min_dist": {"values": [5.0]}}
    search("--count", 1, parameters=parameters, model={"method": "umap", "n_epochs": 1}, code=1)
    assert [made["code"] for made in runs] == [1]


def test_several_processes_write_runs(here):
    search("--count", 2, "--jobs", 2)
    assert len(list((here / "out/wandb").glob("offline-run-*"))) == 2


class StandIn:
    """W&B's search: hands out what it was given, each in a thread, as the agent does."""

    def __init__(self, monkeypatch, drawn):
        self.drawn, self.calls = list(drawn), []
        monkeypatch.setenv("WANDB_MODE", "online")
        monkeypatch.setattr(wandb, "login", lambda: self.calls.append("login"))
        monkeypatch.setattr(wandb, "sweep", self.sweep)
        monkeypatch.setattr(wandb, "agent", self.agent)
        self.init = wandb.init
        monkeypatch.setattr(wandb, "init", self.begin)

    def sweep(self, definition, entity, project):
        self.definition = definition
        self.calls.append(f"sweep {entity}/{project}")
        return "abc"

    def agent(self, identity, function, entity, project, count):
        self.calls.append(f"agent {identity} {count}")
        for _ in range(min(count, len(self.drawn))):
            thread = threading.Thread(target=function)
            thread.start()
            thread.join()

    def begin(self, **settings):
        return self.init(**settings, mode="offline", config=self.drawn.pop(0))


DRAWN = [
    {"model": {"learning_rate": 0.01}, "method": "umap", "n_neighbors": 5},
    {"model": {"learning_rate": 0.02}, "method": "mstsne", "n_neighbors": 9},
    {"model": {"learning_rate": 0.03}, "method": "umap", "n_neighbors": 9},
]


def test_with_a_connection_wandb_searches(here, monkeypatch):
    wandb_ = StandIn(monkeypatch, DRAWN)
    early = {"early_terminate": {"type": "hyperband", "min_iter": 2}}
    output = search("--count", 2, **early)
    assert wandb_.calls == ["login", "sweep me/maps", "agent abc 2"]
    assert wandb_.definition == {
        "name": "first",
        "method": "random",
        "parameters": CONTENT["parameters"],
        "metric": {"name": "trustworthiness", "goal": "maximize"},
        **early,
    }
    assert "2 trials: 2 complete" in output
    drawn = [(row["method"], row["model.learning_rate"], row["n_neighbors"]) for row in trials()]
    assert drawn == [("umap", "0.01", "5"), ("mstsne", "0.02", "")]
    assert entries(here / "out") >= {"best", "best.yml", "study.db", "wandb"}
    search("--count", 3, **early)  # the same search goes on
    assert wandb_.calls[3:] == ["login", "agent abc 1"]
    assert len(trials()) == 3


def test_trials_that_wandb_draws_can_fail(monkeypatch):
    parameters = {"min_dist": {"values": [5.0, 0.1]}}
    StandIn(monkeypatch, [{"min_dist": 5.0}, {"min_dist": 0.1}])
    search("--count", 2, parameters=parameters, model={"method": "umap", "n_epochs": 1, "hidden_dims": [8]})
    assert [row["state"] for row in trials()] == ["failed", "complete"]


def test_ctrl_c_with_a_connection(monkeypatch):
    stand_in, before = StandIn(monkeypatch, DRAWN), signal.getsignal(signal.SIGINT)

    def agent(*arguments, **settings):
        stand_in.agent(*arguments, **settings | {"count": 1})
        with contextlib.suppress(KeyboardInterrupt):  # as W&B's does
            signal.raise_signal(signal.SIGINT)  # to this thread, at once

    monkeypatch.setattr(wandb, "agent", agent)
    output = search("--count", 3, code=130, error=False)
    assert "Interrupted: 1 of 3 trials are done, the best of them is in out" in output
    assert signal.getsignal(signal.SIGINT) is before


def test_what_wandb_stops_is_pruned(monkeypatch):
    StandIn(monkeypatch, DRAWN)

    def stopped(*_, **__):
        raise Exception

    monkeypatch.setattr(learning, "learn", stopped)
    assert "trial 0 pruned: stopped by W&B" in search("--count", 1, code=1)


def test_a_search_that_hands_out_nothing(monkeypatch):
    StandIn(monkeypatch, [])
    assert "Error: no trial was run: W&B has handed out none" in search("--count", 1, code=1)


def test_with_a_connection_one_trial_at_a_time(monkeypatch):
    StandIn(monkeypatch, [])
    assert "--jobs: W&B hands out one trial at a time" in search("--count", 2, "--jobs", 2, code=2)


def test_without_a_login(here, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "online")

    def refuse():
        raise wandb.errors.UsageError("No API key configured.")

    monkeypatch.setattr(wandb, "login", refuse)
    output = search("--count", 2, code=1)
    assert "Error: --engine wandb: No API key configured. Without a connection: WANDB_MODE=offline" in output
    assert entries(here) == {"x.npy", "w.yml"}


def test_wandb_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert "--engine wandb needs wandb: pip install 'fastpdr[wandb]'" in search("--count", 1, code=1)
