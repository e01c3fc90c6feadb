"""What all trackers write, when, and that a training neither notices nor misses them; CSV, JSON lines, TensorBoard."""

from __future__ import annotations

import copy
import csv
import json
import pickle
import random
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

import fastpdr
from fastpdr import MultiscaleParametricTSNE, ParametricTSNE, ParametricUMAP
from fastpdr.tracking import CSVLog, JSONLines, TensorBoard

rng = np.random.default_rng(0)
X, HELD = (rng.normal(size=(n, 5)).astype(np.float32) for n in (60, 30))
LABELS = np.array(["ant", "bee"])[(HELD[:, 0] > 0).astype(int)]
SMALL = {"n_epochs": 5, "hidden_dims": (8,), "random_state": 0}
SCALARS = ["loss", "learning_rate", "gradient_norm"]
MEASURES = ["trustworthiness", "continuity", "neighborhood_preservation", "rnx_auc"]
OF_LABELS = ["neighborhood_hit", "knn_accuracy", "silhouette"]
PNG = b"\x89PNG\r\n\x1a\n"


def read_csv(path):
    with open(path, newline="") as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]


def read_jsonl(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def read_events(path):
    """Lines as the other two write them, of the run in a folder."""
    module = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = module.EventAccumulator(str(path)).Reload()
    lines = {}
    for name in events.Tags()["scalars"]:
        for event in events.Scalars(name):
            lines.setdefault(event.step, {"epoch": event.step})[name] = event.value
    return [lines[epoch] for epoch in sorted(lines)]


def pictures_beside(path):
    return {int(p.stem[-4:]): p.read_bytes() for p in path.parent.glob(f"{path.stem}-epoch-*.png")}


def pictures_of_events(path):
    module = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = module.EventAccumulator(str(path)).Reload()
    if not events.Tags()["images"]:
        return {}
    return {event.step: event.encoded_image_string for event in events.Images("held_out/map")}


# (tracker, what it is given, what the first and the second training write, reader, reader of pictures)
KINDS = [
    pytest.param((CSVLog, "log.csv", "log.csv", "log-2.csv", read_csv, pictures_beside), id="csv"),
    pytest.param((JSONLines, "log.jsonl", "log.jsonl", "log-2.jsonl", read_jsonl, pictures_beside), id="jsonl"),
    pytest.param((TensorBoard, "runs", "runs/run-1", "runs/run-2", read_events, pictures_of_events), id="tensorboard"),
]


@pytest.fixture(params=KINDS)
def kind(request, tmp_path):
    cls, given, first, second, read, pictures = request.param
    if cls is TensorBoard:
        pytest.importorskip("tensorboard")
    return SimpleNamespace(
        make=lambda **settings: cls(tmp_path / "logs" / given, **settings),
        first=tmp_path / "logs" / first,
        second=tmp_path / "logs" / second,
        read=read,
        pictures=pictures,
    )


def values(lines, name):
    return [line[name] for line in lines]


# What is written


def test_loss_rate_and_gradient_of_every_epoch(kind):
    seen = []
    watch = lambda state: seen.append((state.epoch, state.loss_history[-1], state.learning_rate, state.gradient_norm))  # noqa: E731
    estimator = ParametricTSNE(callbacks=[watch, kind.make()], **SMALL).fit(X)
    lines = kind.read(kind.first)
    assert [list(line) for line in lines] == [["epoch", *SCALARS]] * 5
    np.testing.assert_allclose([list(line.values()) for line in lines], seen, rtol=1e-6)
    np.testing.assert_allclose(values(lines, "loss"), estimator.loss_history_, rtol=1e-6)


@pytest.mark.parametrize("labels", [None, LABELS])
def test_measures_of_rows_that_are_not_trained_on(kind, labels):
    maps = {}
    watch = lambda state: maps.update({state.epoch: state.transform(HELD)})  # noqa: E731
    tracker = kind.make(held_out=(HELD, labels), metrics_every=2)
    ParametricTSNE(callbacks=[watch, tracker], **SMALL).fit(X)
    lines = kind.read(kind.first)
    names = {f"held_out/{name}" for name in (MEASURES if labels is None else MEASURES + OF_LABELS)}
    judged = {int(line["epoch"]): line for line in lines if len(line) > 4}
    assert judged.keys() == {1, 2, 4, 5}
    for epoch, line in judged.items():
        assert line.keys() == {"epoch", *SCALARS, *names}
        expected = fastpdr.metrics.evaluate(HELD, maps[epoch], labels)
        assert {f"held_out/{name}": value for name, value in expected.items()} == pytest.approx(
            {name: line[name] for name in names}, abs=1e-6
        )


def test_pictures_every_so_often(kind):
    pytest.importorskip("matplotlib")
    tracker = kind.make(held_out=(HELD, LABELS), metrics_every=None, map_every=3)
    ParametricTSNE(callbacks=[tracker], **SMALL).fit(X)
    pictures = kind.pictures(kind.first)
    assert pictures.keys() == {1, 3, 5}
    assert all(picture.startswith(PNG) for picture in pictures.values())
    assert len(set(pictures.values())) == 3
    assert all(len(line) == 4 for line in kind.read(kind.first))


def test_nothing_is_judged_unless_asked(kind):
    ParametricTSNE(callbacks=[kind.make(held_out=HELD, metrics_every=None)], **SMALL).fit(X)
    assert all(len(line) == 4 for line in kind.read(kind.first))
    assert kind.pictures(kind.first) == {}


def test_only_the_last_planned_epoch_is_judged_beside_the_first(kind):
    ParametricTSNE(callbacks=[kind.make(held_out=HELD)], **SMALL).fit(X)
    assert [int(line["epoch"]) for line in kind.read(kind.first) if len(line) > 4] == [1, 5]


def test_many_held_out_rows_are_sampled(kind, monkeypatch):
    monkeypatch.setattr("fastpdr.tracking.base.JUDGED_ROWS", 9)
    monkeypatch.setattr("fastpdr.tracking.base.DRAWN_ROWS", 20)
    sizes = []
    whole = fastpdr.metrics.evaluate
    monkeypatch.setattr("fastpdr.tracking.base.evaluate", lambda x, *a, **k: sizes.append(len(x)) or whole(x, *a, **k))
    drawn = []
    draw = fastpdr.plotting.map
    monkeypatch.setattr("fastpdr.plotting.map", lambda Z, y, **k: drawn.append((Z, y)) or draw(Z, y, **k))
    last = {}
    watch = lambda state: last.update(Z=state.transform(HELD))  # noqa: E731
    tracker = kind.make(held_out=(HELD, np.arange(30)), map_every=5, metrics_every=5)
    ParametricTSNE(callbacks=[tracker, watch], **SMALL).fit(X)
    assert sizes == [9, 9]
    Z, rows = drawn[-1]
    assert len(set(rows)) == len(Z) == 20
    np.testing.assert_allclose(Z, last["Z"][rows], rtol=1e-5, atol=1e-6)


def test_values_as_labels_colour_the_picture_and_judge_nothing(kind):
    tracker = kind.make(held_out=(HELD, HELD[:, 0]), map_every=5)
    ParametricTSNE(callbacks=[tracker], **SMALL).fit(X)
    assert kind.read(kind.first)[-1].keys() == {"epoch", *SCALARS, *(f"held_out/{name}" for name in MEASURES)}
    assert len(kind.pictures(kind.first)) == 2


def test_columns_with_names(kind, recwarn):
    pandas = pytest.importorskip("pandas")
    frames = [pandas.DataFrame(rows, columns=list("abcde")) for rows in (X, HELD)]
    ParametricTSNE(callbacks=[kind.make(held_out=frames[1])], **SMALL).fit(frames[0])
    assert not [warning for warning in recwarn if "feature names" in str(warning.message)]
    assert "held_out/trustworthiness" in kind.read(kind.first)[-1]


def test_a_measure_that_is_not_defined_is_null_in_json(tmp_path):
    tracker = JSONLines(tmp_path / "log.jsonl", held_out=(HELD, ["one"] * 30))
    ParametricTSNE(callbacks=[tracker], **SMALL).fit(X)
    line = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[0], parse_constant=pytest.fail)
    assert line["held_out/silhouette"] is None
    assert line["held_out/knn_accuracy"] == 1.0


def test_every_line_is_there_at_once(tmp_path):
    """Whoever kills a training keeps what it has written, and can follow it."""
    lengths = []

    def look(state):
        lengths.append([len((tmp_path / name).read_bytes().splitlines()) for name in ("log.csv", "log.jsonl")])
        assert all((tmp_path / name).read_bytes().endswith(b"\n") for name in ("log.csv", "log.jsonl"))

    trackers = [CSVLog(tmp_path / "log.csv"), JSONLines(tmp_path / "log.jsonl")]
    ParametricTSNE(callbacks=[*trackers, look], **SMALL).fit(X)
    assert lengths == [[epoch + 1, epoch] for epoch in range(1, 6)]


# Trainings


@pytest.mark.parametrize("cls", [ParametricTSNE, MultiscaleParametricTSNE, ParametricUMAP])
def test_a_map_is_the_same_with_and_without(cls, tmp_path):
    pytest.importorskip("tensorboard")
    asked = {"held_out": (HELD, LABELS), "metrics_every": 1, "map_every": 2}
    trackers = [CSVLog(tmp_path / "log.csv", **asked), TensorBoard(tmp_path / "runs", **asked)]
    states = np.random.get_state()[1].copy(), torch.get_rng_state(), random.getstate()  # noqa: NPY002
    tracked = cls(callbacks=trackers, **SMALL).fit(X)
    assert np.array_equal(states[0], np.random.get_state()[1])  # noqa: NPY002
    assert torch.equal(states[1], torch.get_rng_state())
    assert states[2] == random.getstate()
    np.testing.assert_array_equal(tracked.embedding_, cls(**SMALL).fit(X).embedding_)
    assert tracked.loss_history_ == cls(**SMALL).fit(X).loss_history_


def test_every_training_writes_its_own(kind):
    estimator = ParametricUMAP(callbacks=[kind.make()], **SMALL).fit(X)
    first = estimator.loss_history_
    estimator.partial_fit(X)
    np.testing.assert_allclose(values(kind.read(kind.first), "loss"), first, rtol=1e-6)
    np.testing.assert_allclose(values(kind.read(kind.second), "loss"), estimator.loss_history_[5:], rtol=1e-6)


def test_what_an_earlier_training_left_stays_as_it_is(tmp_path):
    (tmp_path / "log.csv").write_text("epoch,loss\n1,0.5\n2,0.")
    ParametricTSNE(callbacks=[CSVLog(tmp_path / "log.csv")], **SMALL).fit(X)
    assert (tmp_path / "log.csv").read_text() == "epoch,loss\n1,0.5\n2,0."
    assert len(read_csv(tmp_path / "log-2.csv")) == 5


def test_early_stopping_ends_it_too(kind):
    settings = {**SMALL, "n_epochs": 20, "early_stopping_patience": 1, "early_stopping_min_delta": 1e9}
    estimator = ParametricTSNE(callbacks=[kind.make()], **settings).fit(X)
    assert estimator.n_iter_ < 20
    assert values(kind.read(kind.first), "epoch") == list(range(1, estimator.n_iter_ + 1))


def test_an_error_in_the_training_ends_it_too(kind):
    def fail(state):
        if state.epoch == 2:
            logs.append(tracker._log)
            raise RuntimeError("stop")

    logs, tracker = [], kind.make()
    with pytest.raises(RuntimeError, match="stop"):
        ParametricTSNE(callbacks=[tracker, fail], **SMALL).fit(X)
    assert tracker._log is None
    assert logs[0].closed if hasattr(logs[0], "closed") else logs[0].file_writer is None
    assert values(kind.read(kind.first), "epoch") == [1, 2]


def test_copies_write_their_own(kind):
    tracker = kind.make(held_out=(HELD, LABELS))
    estimator = ParametricTSNE(callbacks=[tracker], **SMALL).fit(X)
    for copied in (clone(estimator), copy.deepcopy(estimator), pickle.loads(pickle.dumps(estimator))):
        assert copied.callbacks[0] is not tracker
        assert copied.fit(X).loss_history_ == estimator.loss_history_
    fourth = kind.second.with_name(kind.second.name.replace("2", "4"))
    assert kind.read(fourth) == kind.read(kind.first)


def test_a_copy_made_during_a_training(tmp_path):
    tracker, copies = CSVLog(tmp_path / "log.csv"), []
    ParametricTSNE(callbacks=[tracker, lambda state: copies.append(pickle.dumps(tracker))], **SMALL).fit(X)
    ParametricTSNE(callbacks=[pickle.loads(copies[2])], **SMALL).fit(X)
    assert read_csv(tmp_path / "log.csv") == read_csv(tmp_path / "log-2.csv")


def test_a_search_in_two_processes(tmp_path):
    trackers = [CSVLog(tmp_path / "log.csv", held_out=HELD), JSONLines(tmp_path / "log.jsonl")]
    estimator = ParametricTSNE(callbacks=trackers, verbose=False, **SMALL)
    search = GridSearchCV(estimator, {"perplexity": [3.0, 5.0]}, cv=2, n_jobs=2, error_score="raise").fit(X)
    assert len(search.best_estimator_.loss_history_) == 5
    for read, pattern in ((read_csv, "log*.csv"), (read_jsonl, "log*.jsonl")):
        files = list(tmp_path.glob(pattern))
        assert len(files) == 5
        assert all(values(read(file), "epoch") == [1, 2, 3, 4, 5] for file in files)


# What is wrong


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"metrics_every": 0}, "metrics_every must be a number of epochs >= 1 or None, got 0"),
        ({"metrics_every": True}, "metrics_every must be a number of epochs >= 1 or None, got True"),
        ({"map_every": 2.5}, "map_every must be a number of epochs >= 1 or None, got 2.5"),
        ({"map_every": 3}, "map_every=3 needs held_out, the rows to draw"),
        ({"held_out": HELD[0]}, "held_out must be 2-D"),
        ({"held_out": (HELD, LABELS, 1)}, "held_out must be rows or (rows, labels), got a tuple of 3"),
        ({"held_out": HELD[:2]}, "held_out must have at least 3 rows, got 2"),
        ({"held_out": np.where(HELD > 2, np.nan, HELD)}, "held_out must be finite"),
        ({"held_out": (HELD, LABELS[:9])}, "must have one label for each of the 30 rows of held_out, got 9"),
        ({"held_out": (HELD, [None, *LABELS[1:]])}, "must have a label in every row, got 1 missing"),
    ],
)
def test_bad_arguments_are_named(kind, settings, message):
    name = type(kind.make()).__name__
    with pytest.raises(ValueError, match=f"^{name}: .*{re.escape(message)}"):
        kind.make(**settings)


def test_held_out_rows_of_another_width_write_nothing(kind):
    with pytest.raises(ValueError, match="5 features"):
        ParametricTSNE(callbacks=[kind.make(held_out=HELD[:, :4])], **SMALL).fit(X)
    assert not kind.first.exists()


def test_a_map_on_a_line_cannot_be_drawn(kind):
    tracker = kind.make(held_out=HELD, map_every=1)
    with pytest.raises(ValueError, match="map_every needs a map of two components, got n_components=1"):
        ParametricTSNE(n_components=1, callbacks=[tracker], **SMALL).fit(X)


def test_a_folder_is_no_file(tmp_path):
    for cls in (CSVLog, JSONLines):
        with pytest.raises(ValueError, match=f"{cls.__name__}: path must be a file, got the folder"):
            cls(tmp_path)


def test_a_place_that_cannot_be_written(kind, tmp_path):
    (tmp_path / "logs").write_text("a file")
    with pytest.raises(OSError, match="logs"):
        ParametricTSNE(callbacks=[kind.make()], **SMALL).fit(X)


def test_missing_packages_are_said_before_the_training(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ImportError, match=r"TensorBoard: .* pip install 'fastpdr\[tensorboard\]'"):
        TensorBoard(tmp_path)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'fastpdr\[plot\]'"):
        CSVLog(tmp_path / "log.csv", held_out=HELD, map_every=1)
