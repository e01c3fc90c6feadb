"""Whole sweeps on tiny data: what is written, how it goes on, what trials share, and all that can stop one."""

from __future__ import annotations

import contextlib
import csv
import json
import logging
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from running import NAMES, FragileBench, X, entries, run, y
from sklearn.preprocessing import MinMaxScaler, StandardScaler

import fastpdr
from fastpdr import KNNGraph, metrics
from fastpdr.cli import learning, showing
from fastpdr.cli.sweep import config, ledger, sections, workers
from fastpdr.cli.sweep.ledger import Ticket
from fastpdr.cli.sweep.trial import Failed

optuna = pytest.importorskip("optuna")

OWN = {"study.db", "trials.csv", "best", "best.yml", ".lock"}
SMALL = {"n_epochs": 2, "hidden_dims": [8], "neighbor_noise": 0.0}
SPACE = {"learning_rate": {"distribution": "log_uniform_values", "min": 1e-3, "max": 1e-1}}
HELD = learning.held_out_rows(learning.data.Table(X, NAMES[y]), 0.2, 0)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pd.DataFrame(X, columns=list("abcd")).assign(kind=NAMES[y]).to_csv("x.csv", index=False)
    return tmp_path


@pytest.fixture
def builds(monkeypatch):
    """Searches of neighbours, as (metric, k)."""
    found = []
    build = KNNGraph.build

    def counted(data, n_neighbors, **settings):
        found.append((settings.get("metric", "euclidean"), n_neighbors))
        return build(data, n_neighbors, **settings)

    monkeypatch.setattr(KNNGraph, "build", counted)
    return found


def write(name="sweep.yml", **content):
    model = content.pop("model", {})
    data = {"features": "x.csv", "label_column": "kind"} | content.pop("data", {})
    whole = {"parameters": SPACE, "data": data, "model": SMALL | model} | content
    Path(name).write_text(yaml.safe_dump(whole, sort_keys=False))
    return name


def search(*options, code=0, **content):
    return run("sweep", "--config", write(**content), "-o", "out", *options, code=code)


def trials():
    with open("out/trials.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    """Pictures and reports take most of the time of a tiny sweep; one test has them."""
    drawn = showing.draw_map, showing.write_report
    for name in ("draw_map", "write_report"):
        monkeypatch.setattr(showing, name, lambda path, *_: path.touch() or "")
    return drawn


# What is written


def test_a_sweep_writes_all(here, undrawn, monkeypatch):
    monkeypatch.setattr(showing, "draw_map", undrawn[0])
    monkeypatch.setattr(showing, "write_report", undrawn[1])
    output = search("--count", 3)
    assert entries(here / "out") == OWN
    rows = trials()
    assert [row["state"] for row in rows] == ["complete"] * 3
    names = ["trial", "state", "learning_rate", *sections.METRICS, "n_epochs", "message"]
    assert list(rows[0]) == names
    best = max(rows, key=lambda row: float(row["trustworthiness"]))
    parts = {
        "model",
        "embedding.npy",
        "labels.npy",
        "held_out.npy",
        "metrics.json",
        "map.png",
        "report.html",
        "train.yml",
    }
    assert entries(here / "out/best") == parts
    written = json.loads((here / "out/best/metrics.json").read_text())
    for name in ("trustworthiness", "silhouette", "neighborhood_preservation", "rnx_auc", "knn_accuracy"):
        assert written["held_out"][name] == pytest.approx(float(best[name]))
    assert written["final_loss"] == pytest.approx(float(best["final_loss"]))
    assert f"The best, trial {best['trial']}, as a config:" in output
    assert f"learning_rate: {best['learning_rate']}" in output
    assert "3 trials: 3 complete, 0 pruned, 0 failed" in output


def test_measures_are_of_rows_never_seen():
    search("--count", 1)
    scaled = StandardScaler().fit(X[~HELD]).transform(X)
    model = fastpdr.load("out/best/model")
    Z = model.transform(pd.DataFrame(X, columns=list("abcd")))
    expected = metrics.evaluate(scaled[HELD], Z[HELD], NAMES[y][HELD], n_neighbors=7)
    expected["knn_accuracy"] = metrics.knn_accuracy(Z[~HELD], y[~HELD], Z[HELD], y[HELD], n_neighbors=7)
    (row,) = trials()
    for name, value in expected.items():
        assert float(row[name]) == pytest.approx(value, abs=1e-6)


def test_the_best_model_is_made_again_from_its_config():
    search("--count", 3, parameters=SPACE | {"scaler": {"values": ["MinMaxScaler", "none"]}})
    run("train", "--config", "out/best.yml")
    run("train", "--config", "out/best/train.yml", "--set", "output.model_name=other")
    for folder in ("out/trained", yaml.safe_load(Path("out/best.yml").read_text())["output"]["model_dir"] + "/trained"):
        np.testing.assert_array_equal(np.load(f"{folder}/embedding.npy"), np.load("out/best/embedding.npy"))
    run("transform", "out/best", "x.csv", "-o", "z.npy")
    np.testing.assert_allclose(np.load("z.npy"), np.load("out/best/embedding.npy"), atol=1e-5)


def test_one_measure_for_all_scalers():
    search(method="grid", parameters={"scaler": {"values": ["none", "MinMaxScaler"]}}, data={"held_out": 0.25})
    held = learning.held_out_rows(learning.data.Table(X, NAMES[y]), 0.25, 0)
    standard = StandardScaler().fit(X[~held]).transform(X)[held]
    for row in trials():
        scaler = {"none": None, "MinMaxScaler": MinMaxScaler().fit(X[~held])}[row["scaler"]]
        own = X if scaler is None else scaler.transform(X)
        estimator = fastpdr.MultiscaleParametricTSNE(**SMALL, random_state=0).fit(own[~held])
        value = metrics.trustworthiness(standard, estimator.transform(own[held]), n_neighbors=9)
        assert float(row["trustworthiness"]) == pytest.approx(value, abs=1e-4)


def test_no_model_where_none_is_wanted(here):
    search("--count", 1, saving={"save_model": False})
    assert entries(here / "out") == OWN - {"best"}


def test_without_labels(here):
    np.save("x.npy", X)
    data = {"features": "x.npy", "label_column": None}
    search("--count", 1, data=data)
    assert "silhouette" not in trials()[0]
    output = search("--count", 1, "--overwrite", data=data, metric={"name": "silhouette"}, code=2)
    assert "metric.name: silhouette needs labels that are classes, which the data has not" in output


@pytest.mark.parametrize(("metric", "best"), [("final_loss", min), ("rnx_auc", max), ("training_time_seconds", min)])
def test_other_metrics(metric, best):
    output = search("--count", 3, metric={"name": metric})
    values = {row["trial"]: float(row[metric]) for row in trials()}
    assert f"The best, trial {best(values, key=values.get)}," in output
    if metric == "final_loss":
        assert "Warning: metric.name: a loss is of the rows that are trained on" in output


def test_the_target_ends_a_sweep():
    search("--count", 9, metric={"name": "trustworthiness", "target": 0.1})
    assert len(trials()) == 1
    search("--count", 9, metric={"name": "trustworthiness", "target": 0.1})
    assert len(trials()) == 1


# How it goes on


def test_the_same_command_goes_on_to_more_trials():
    search("--count", 2)
    first = trials()
    output = search("--count", 4)
    assert "4 trials: 4 complete" in output
    assert trials()[:2] == first
    assert len({row["learning_rate"] for row in trials()}) == 4
    assert "trial 3" not in search("--count", 3).partition("4 trials:")[0]
    assert len(trials()) == 4


def test_a_grid_is_run_through_once():
    parameters = {"learning_rate": {"values": [1e-3, 1e-2]}, "activation": {"values": ["relu", "tanh"]}}
    search("--count", 3, method="grid", parameters=parameters)
    search(method="grid", parameters=parameters)
    points = [(row["learning_rate"], row["activation"]) for row in trials()]
    assert points == [("0.001", "relu"), ("0.001", "tanh"), ("0.01", "relu"), ("0.01", "tanh")]


def test_the_same_seed_searches_alike():
    search("--count", 2, "--seed", 3)
    first = [(row["learning_rate"], row["trustworthiness"]) for row in trials()]
    search("--count", 2, "--seed", 3, "--overwrite")
    assert [(row["learning_rate"], row["trustworthiness"]) for row in trials()] == first
    search("--count", 2, "--seed", 4, "--overwrite")
    assert [(row["learning_rate"], row["trustworthiness"]) for row in trials()] != first


def test_another_search_does_not_go_on():
    search("--count", 1)
    before = Path("out/trials.csv").read_text()
    for change, message in [
        ({"parameters": SPACE | {"batch_size": {"values": [20]}}}, "parameters: batch_size was not there, is"),
        ({"parameters": {"learning_rate": {"values": [0.1]}}}, "parameters: learning_rate was {'distribution': 'log_"),
        ({"method": "random"}, "method: was bayes, is random"),
        ({"metric": {"name": "rnx_auc"}}, "metric: was trustworthiness, is rnx_auc"),
        ({"model": {"n_epochs": 3}}, "model: n_epochs was 2, is 3"),
        ({"data": {"held_out": 0.3}}, "data: held_out was 0.2, is 0.3"),
    ]:
        output = search("--count", 2, code=2, **change)
        assert "out holds a sweep of something else; --overwrite replaces it" in output
        assert message in output
    assert Path("out/trials.csv").read_text() == before
    search("--count", 2, "--overwrite", method="random")
    assert len(trials()) == 2


def test_other_rows_are_another_search():
    search("--count", 1)
    pd.DataFrame(X + 1, columns=list("abcd")).assign(kind=NAMES[y]).to_csv("x.csv", index=False)
    assert "rows: was " in search("--count", 2, code=2)


def test_folders_of_others_are_left_alone(here):
    (here / "out").mkdir()
    (here / "out/thesis.txt").write_text("mine")
    assert "out is not empty and holds no sweep" in search("--count", 1, code=2)
    assert "out is not empty and holds no sweep" in search("--count", 1, "--overwrite", code=2)
    assert entries(here / "out") == {"thesis.txt"}
    (here / "file").write_text("")
    assert "file is not a folder" in run("sweep", "--config", write(), "-o", "file", "--count", 1, code=2)


def test_two_sweeps_do_not_write_one_folder(here):
    search("--count", 1)
    with ledger.locked(here / "out"):
        assert "out: another fastpdr sweep is at work there" in search("--count", 2, code=2)
    search("--count", 2)


# What trials share


def test_neighbours_are_found_once_for_all(builds):
    parameters = {
        "method": {"values": ["umap", "largevis", "tsne", "mstsne"]},
        "n_neighbors": {"values": [5, 9]},
        "perplexity": {"values": [3, 6]},
        "affinity": {"values": ["knn"]},
        "learning_rate": {"values": [1e-3, 1e-2]},
    }
    output = search(method="grid", parameters=parameters)
    assert "14 trials: 14 complete" in output
    # mstsne takes perplexities up to a third of the 63 rows that it is trained on: 16, and so 48 neighbours
    assert builds == [("euclidean", 48)]
    assert output.count("48 neighbours of each of 64 rows, found once for all trials") == 1
    search("--count", 15, method="grid", parameters=parameters)
    assert len(builds) == 1


def test_rows_and_metrics_of_another_kind_have_neighbours_of_their_own(builds):
    parameters = {
        "metric": {"values": ["euclidean", "cosine"]},
        "scaler": {"values": ["StandardScaler", "none"]},
        "pca": {"values": [2, None]},
        "n_neighbors": {"values": [5, 7]},
    }
    search(method="grid", parameters=parameters, model={"method": "umap"})
    assert sorted(builds) == [("cosine", 6)] * 4 + [("euclidean", 6)] * 4
    assert len(entries(Path("out/graphs"))) == 8


def test_a_map_is_that_of_neighbours_of_its_own():
    search(method="grid", parameters={"n_neighbors": {"values": [5, 15]}}, model={"method": "umap"})
    scaled = StandardScaler().fit(X[~HELD]).transform(X)
    for row in trials():
        umap = fastpdr.ParametricUMAP(int(row["n_neighbors"]), random_state=0, **SMALL).fit(scaled[~HELD])
        value = metrics.trustworthiness(scaled[HELD], umap.transform(scaled[HELD]), n_neighbors=7)
        assert float(row["trustworthiness"]) == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize(
    "space",
    [
        {"perplexity": {"distribution": "q_normal", "mu": 8, "sigma": 2}},
        {"method": {"values": ["mstsne"]}, "perplexities": {"values": [[2, 14.5], [5], None]}},
        {"perplexity": {"values": [14.5, "auto", 3]}},
    ],
)
def test_neighbours_are_enough_for_the_widest(builds, space):
    search(
        "--count",
        3,
        "--seed",
        1,
        parameters=space | {"affinity": {"values": ["knn"]}},
        model={"method": "tsne"} if "method" not in space else {},
    )
    assert [row["state"] for row in trials()] == ["complete"] * 3
    assert len(builds) == 1


def test_a_trial_that_asks_for_more_gets_more(builds):
    """Where what was taken for the widest cannot be."""
    search(method="grid", parameters={"perplexity": {"values": [3, 9, 900]}}, model={"method": "largevis"})
    assert [row["state"] for row in trials()] == ["complete", "complete", "failed"]
    assert "perplexity must be at least 1 and less than the number of rows" in trials()[2]["message"]
    assert [k for _, k in builds] == [9, 27]


def test_trackers_of_the_file_look_at_every_trial(here):
    search("--count", 2, tracking={"csv": "log.csv"}, model={"logdir": "runs", "n_epochs": 3})
    assert len((here / "log.csv").read_text().splitlines()) == 1 + 3
    assert len((here / "log-2.csv").read_text().splitlines()) == 1 + 3
    assert entries(here / "runs") == {"run-1", "run-2"}


def test_noise_from_neighbours_needs_them_too(builds):
    search("--count", 2, model={"neighbor_noise": "auto"})
    assert builds == [("euclidean", 10)]


def test_nothing_is_searched_where_nothing_needs_it(here, builds):
    search("--count", 1, model={"neighbor_noise": 0.0})
    assert builds == []
    assert not (here / "out/graphs").exists()


# Processes


def test_several_processes(builds):
    parameters = {"learning_rate": {"values": [1e-3, 1e-2]}, "n_neighbors": {"values": [5, 9]}}
    output = search("--jobs", 2, method="grid", parameters=parameters, model={"method": "umap"})
    assert "4 trials: 4 complete" in output
    assert builds == [("euclidean", 8)]
    rows = trials()
    assert len({(row["learning_rate"], row["n_neighbors"]) for row in rows}) == 4
    best = max(rows, key=lambda row: float(row["trustworthiness"]))
    held_out = json.loads(Path("out/best/metrics.json").read_text())["held_out"]
    assert held_out["trustworthiness"] == float(best["trustworthiness"])
    search("--overwrite", method="grid", parameters=parameters, model={"method": "umap"})
    assert [row["trustworthiness"] for row in trials()] == [row["trustworthiness"] for row in rows]


def test_a_process_that_dies_takes_one_trial_with_it():
    class Referee:
        def __init__(self):
            self.left, self.heard = [1, 0], {}

        def next_trial(self):
            if not self.left:
                return None
            x = self.left.pop()
            return Ticket(type("Trial", (), {"number": x}), {"x": x})

        def answer(self, ticket, message):
            self.heard[ticket.number] = message

    referee = Referee()
    workers.run_in_processes(FragileBench(), referee, 1, None)
    assert referee.heard == {0: Failed("its process died with code 3"), 1: Failed("x is 1")}


# Trials that do not end well


def test_trials_that_fall_behind_are_pruned():
    """One in three survives each band: of two trials the better one."""
    output = search(
        method="grid",
        parameters={"learning_rate": {"values": [1e-2, 1e-9]}},
        early_terminate={"type": "hyperband", "min_iter": 2},
        model={"n_epochs": 12},
    )
    good, bad = trials()
    assert (good["state"], bad["state"]) == ("complete", "pruned")
    assert bad["message"].startswith("after 2 of 12 epochs, trustworthiness 0.")
    assert "2 trials: 1 complete, 1 pruned, 0 failed" in output


def test_trials_behind_the_median_are_pruned_by_default(here):
    """From the second half of their training on, once five are there to compare with."""
    plan = config.load(Path(write()))
    with ledger.opened(here, plan, {}) as book:
        for number in range(5):
            ticket = book.begin()
            assert not book.report(ticket, 5, 0.9 - 0.01 * number)
            book.complete(ticket, {"trustworthiness": 0.9})
        ticket = book.begin()
        assert not book.report(ticket, 4, 0.1)
        assert book.report(ticket, 5, 0.1)
        ticket = book.begin()
        assert not book.report(ticket, 5, 0.89)


@pytest.mark.parametrize(
    ("content", "n_epochs", "steps"),
    [
        ({}, 10, [1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ({}, 25, [1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ({}, 3, [3, 6]),
        ({"early_terminate": None}, 10, []),
        ({"early_terminate": {"type": "hyperband", "min_iter": 2}}, 10, [2, 6]),
        ({"metric": {"name": "training_time_seconds"}}, 10, []),
    ],
)
def test_when_trials_are_compared(content, n_epochs, steps, monkeypatch):
    """By tenths of a training, whatever its length, or at hyperband's epochs."""
    seen = []
    monkeypatch.setattr(ledger.Ledger, "report", lambda self, ticket, step, value: seen.append((step, value)))
    search("--count", 1, model={"n_epochs": n_epochs}, **content)
    assert [step for step, _ in seen] == steps
    assert all(0.4 < value < 1 for _, value in seen)


def test_trials_that_cannot_be_are_noted_and_the_sweep_goes_on():
    output = search(method="grid", parameters={"min_dist": {"values": [5.0, 0.1]}}, model={"method": "umap"})
    failed, good = trials()
    assert (failed["state"], good["state"]) == ("failed", "complete")
    assert "min_dist must be at most spread, got 5.0 > 1.0" in failed["message"]
    assert "trial 0 failed: ParametricUMAP: min_dist" in output
    assert "The best, trial 1," in output


def test_diverging_trials_fail(monkeypatch):
    fit = fastpdr.MultiscaleParametricTSNE.fit

    def diverge(self, X, y=None):
        if self.learning_rate > 1:
            raise FloatingPointError("the loss became nan in epoch 1")
        return fit(self, X, y)

    monkeypatch.setattr(fastpdr.MultiscaleParametricTSNE, "fit", diverge)
    search(method="grid", parameters={"learning_rate": {"values": [10.0, 0.01]}})
    assert [row["message"] for row in trials()] == ["the loss became nan in epoch 1", ""]


def test_nothing_but_failures_is_a_failure(here):
    parameters = {"min_dist": {"values": [5.0, 6.0]}}
    output = search(method="grid", parameters=parameters, model={"method": "umap"}, code=1)
    assert "Error: no trial of 2 was completed; the last one: ParametricUMAP: min_dist must be at most spread" in output
    assert entries(here / "out") == OWN - {"best", "best.yml"} | {"graphs"}


def test_a_measure_that_is_not_defined_fails():
    labels = ["ant"] * 79 + ["bee"]
    pd.DataFrame(X, columns=list("abcd")).assign(kind=labels).to_csv("x.csv", index=False)
    output = search("--count", 1, "--seed", 1, metric={"name": "silhouette"}, code=1)
    assert "silhouette is not defined for the held-out rows" in output


# What stops a sweep


def stopping_at(monkeypatch, number, error):
    """Have a training raise."""
    train, calls = learning.learn, []

    def stop(*arguments, **settings):
        calls.append(None)
        if len(calls) == number:
            raise error
        return train(*arguments, **settings)

    monkeypatch.setattr(learning, "learn", stop)


def test_ctrl_c_keeps_what_is_done(here, monkeypatch):
    stopping_at(monkeypatch, 3, KeyboardInterrupt)
    output = run("sweep", "--config", write(), "-o", "out", "--count", 5, code=130, error=False)
    assert "Interrupted: 2 of 5 trials are done, the best of them is in out; the same command goes on" in output
    assert [row["state"] for row in trials()] == ["complete", "complete", "interrupted"]
    assert entries(here / "out") == OWN
    fastpdr.load("out/best/model")
    search("--count", 5)
    assert [row["state"] for row in trials()] == ["complete", "complete", "interrupted", *["complete"] * 3]


def test_ctrl_c_before_anything_is_done(monkeypatch):
    stopping_at(monkeypatch, 1, KeyboardInterrupt)
    output = run("sweep", "--config", write(), "-o", "out", "--count", 5, code=130, error=False)
    assert "Interrupted: 0 of 5 trials are done, no model is there yet" in output


def test_a_point_of_a_grid_that_was_interrupted_is_run_again(monkeypatch):
    parameters = {"learning_rate": {"values": [1e-3, 1e-2, 1e-1]}}
    with monkeypatch.context() as patch:
        stopping_at(patch, 2, KeyboardInterrupt)
        run("sweep", "--config", write(method="grid", parameters=parameters), "-o", "out", code=130, error=False)
    search(method="grid", parameters=parameters)
    complete = [row["learning_rate"] for row in trials() if row["state"] == "complete"]
    assert complete == ["0.001", "0.01", "0.1"]


def test_what_was_running_when_all_was_killed_does_not_count(here):
    search("--count", 1)
    plan = config.load(here / "sweep.yml", folder=Path("out"))
    with ledger.opened(here / "out", plan, book_of("out")) as book:
        book.begin()
    (here / "out/.trial-1").mkdir()
    search("--count", 2)
    assert [row["state"] for row in trials()] == ["complete", "interrupted", "complete"]
    assert entries(here / "out") == OWN


def book_of(folder):
    study = optuna.load_study(study_name="sweep", storage=f"sqlite:///{folder}/study.db")
    return study.user_attrs["definition"]


def test_ctrl_c_in_a_terminal_reaches_processes_at_work(here):
    name = write(model={"n_epochs": 60})
    # A shell that runs tests in the background has signals of the terminal ignored.
    (here / "program.py").write_text(
        "import signal\n"
        "if __name__ == '__main__':\n"
        "    signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "    from fastpdr.cli import main\n"
        f"    main(['sweep', '--config', '{name}', '-o', 'out', '--count', '5000', '--jobs', '2'])\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(fastpdr.__file__).parents[1])}
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    process = subprocess.Popen(
        [sys.executable, "program.py"], **pipes, text=True, env=environment, start_new_session=True
    )
    try:
        deadline = time.monotonic() + 120
        while not Path("out/best.yml").exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130, said
    assert "Interrupted: " in said
    assert "Traceback" not in said
    fastpdr.load("out/best/model")
    assert not list((here / "out").glob(".trial-*"))


def test_a_query_that_ctrl_c_ends_writes_no_traceback(here, caplog):
    search("--count", 1)
    logging.getLogger("sqlalchemy.pool.impl.QueuePool").error("Error closing cursor")
    assert "cursor" not in caplog.text


def test_a_full_disk_leaves_the_best_so_far(here, monkeypatch):
    search("--count", 1)
    before = {path: path.read_bytes() for path in (here / "out/best").rglob("*") if path.is_file()}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fastpdr.estimators.saving.save_file", full)
    # The first trial that is better is the first that is saved.
    output = search("--count", 60, code=1)
    assert "Error: No space left on device" in output
    assert {path: path.read_bytes() for path in (here / "out/best").rglob("*") if path.is_file()} == before
    assert entries(here / "out") == OWN
    monkeypatch.undo()
    monkeypatch.chdir(here)
    known = len([row for row in trials() if row["state"] != "interrupted"])
    search("--count", known + 1)


def test_a_full_disk_of_the_study(monkeypatch):
    from sqlalchemy.exc import OperationalError

    def full(self, *_):
        cause = OperationalError("INSERT", {}, Exception("database or disk is full"))
        raise optuna.exceptions.StorageInternalError("an exception in the storage") from cause

    monkeypatch.setattr(ledger.Ledger, "complete", full)
    output = search("--count", 2, code=1)
    assert "Error: out/study.db: database or disk is full" in output


def test_a_full_disk_of_the_graphs(here, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(KNNGraph, "save", full)
    assert "No space left on device" in search("--count", 2, model={"method": "umap"}, code=1)
    assert not (here / "out/best").exists()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"features": "nowhere.csv"}, "nowhere.csv: no such file"),
        ({"label_column": None}, "all columns but that of the labels must be numbers"),
        ({"held_out": 0.01}, "held_out 0.01 of 80 rows holds out 1"),
    ],
)
def test_data_that_do_not_fit_leave_nothing(here, data, message):
    assert message in search("--count", 1, data=data, code=2)
    assert entries(here) == {"x.csv", "sweep.yml"}


@pytest.mark.parametrize("package", ["optuna", "filelock"])
def test_packages_that_are_missing_are_named(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    assert f"fastpdr sweep needs {package}: pip install 'fastpdr[sweep]'" in search("--count", 1, code=1)


# The smoke test


def test_a_smoke_test_leaves_nothing(here, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(here / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (here / "tmp").mkdir()
    output = run("sweep", "--config", write(), "--smoke-test")
    assert "Smoke test passed: 80 rows, 5 epochs" in output
    assert entries(here) == {"x.csv", "sweep.yml", "tmp"}
    assert entries(here / "tmp") == set()


def test_a_smoke_test_in_a_folder(here):
    space = {"method": {"values": ["largevis", "umap"]}, "perplexity": {"values": [3, 900]}, "lr": {"values": [0.1]}}
    smoke = {"smoke_test": {"sample_size": 40, "iterations": 1}}
    output = search("--smoke-test", parameters=space, modes=smoke, model={"n_epochs": 900})
    assert "Smoke test passed: 40 rows, 1 epochs" in output
    assert entries(here / "out") == OWN | {"graphs"}
    assert trials()[0]["n_epochs"] == "1"


def test_a_smoke_test_that_fails(monkeypatch):
    monkeypatch.setattr(
        "fastpdr.load", lambda _: type("Model", (), {"transform": lambda *_: np.full((80, 2), math.nan)})()
    )
    assert "smoke test: the model places 80 rows" in run("sweep", "--config", write(), "--smoke-test", code=1)


def test_the_rest_of_the_command_line_does_without():
    program = "import sys, fastpdr.cli, fastpdr.cli.fit; print({'optuna', 'wandb', 'sqlalchemy'} & sys.modules.keys())"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
