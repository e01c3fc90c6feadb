"""bench.breakdown: whose the time is, floors, the command end to end on digits, tables, the picture, bad input."""

from __future__ import annotations

import json
import threading
import time

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from bench import pages
from bench.breakdown import floors, measure, network, parts, stopwatch, table
from bench.breakdown.__main__ import main
from fastpdr import ParametricTSNE, ParametricUMAP
from fastpdr.training.encoder import MLP
from fastpdr.training.share import Share


@pytest.fixture
def ticks(monkeypatch):
    """A clock that moves when it is told to."""
    now = [0.0]
    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: now[0])

    def tick(seconds):
        now[0] += seconds

    return tick


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    """The file of a run on digits, one thread, six steps."""
    path = tmp_path_factory.mktemp("breakdown") / "digits.json"
    picture = path.with_suffix(".png")
    words = ["run", "--method", "umap", "--set", "digits", "--threads", "1", "--steps", "6"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "IMPORTS", 1)
        ended = CliRunner().invoke(main, [*words, "--output", str(path), "--picture", str(picture)])
    assert ended.exit_code == 0, ended.output
    assert f"### 1,347 {table.TIMES} 64 (digits)" in ended.output
    assert picture.stat().st_size > 10_000
    return path


def test_time_is_that_of_the_innermost_part(ticks):
    watch = stopwatch.Stopwatch()
    inner = watch.called("inner")(lambda: ticks(2))

    @watch.called("outer")
    def outer():
        ticks(1)
        inner()
        ticks(4)
        inner()

    ticks(8)  # of nobody
    outer()
    inner()
    assert watch.seconds == {"outer": 5, "inner": 6}
    assert watch.calls == 4


def test_a_part_that_fails_ends(ticks):
    watch = stopwatch.Stopwatch()

    @watch.called("inner")
    def inner():
        ticks(2)
        raise KeyError

    with watch.part("outer"):
        with pytest.raises(KeyError):
            inner()
        ticks(1)
    assert watch.seconds == {"outer": 1, "inner": 2}


def test_a_generator_has_the_time_in_which_it_works(ticks):
    watch = stopwatch.Stopwatch()

    @watch.iterated("draw")
    def drawn():
        for _ in range(3):
            ticks(1)
            yield 7

    @watch.iterated("gather")
    def gathered(source):
        for each in source:
            ticks(10)
            yield each

    with watch.part("rest"):
        for each in gathered(drawn()):
            assert each == 7
            ticks(100)
    assert watch.seconds == {"draw": 3, "gather": 30, "rest": 300}


def test_parts_that_run_go_on_after_the_watch_is_cleared(ticks):
    watch = stopwatch.Stopwatch()
    with watch.part("rest"):
        ticks(5)
        watch.clear()
        ticks(2)
        assert watch.lap() == {"rest": 2}
        ticks(1)
    assert watch.seconds == {"rest": 3}


def test_other_threads_have_no_time(ticks):
    watch = stopwatch.Stopwatch()
    with watch.part("waiting"):
        other = threading.Thread(target=watch.called("working")(lambda: ticks(3)))
        other.start()
        other.join()
    assert watch.seconds == {"waiting": 3}


def test_what_was_replaced_is_put_back():
    class Owner:
        @classmethod
        def name(cls):
            return cls.__name__

        def own(self):
            return 1

    before = dict(vars(Owner))
    changes = [(Owner, "name", lambda old: lambda cls: old(cls) + "!"), (Owner, "own", lambda old: lambda self: 2)]
    with stopwatch.replaced(changes):
        assert (Owner.name(), Owner().own()) == ("Owner!", 2)
    assert dict(vars(Owner)) == before


@pytest.mark.parametrize("cls", [ParametricTSNE, ParametricUMAP])
def test_the_parts_are_the_loop(cls, rng):
    X = rng.normal(size=(300, 210)).astype(np.float32)
    X[:, 20:] *= 0.01  # so that the network reads principal components
    watched = parts.WatchedFit(steps=8)
    estimator = cls(batch_size=60, n_epochs=100, random_state=0)
    begin = time.perf_counter()
    with watched.phases.part("other"):
        watched.fit(estimator, X)
    took = time.perf_counter() - begin
    assert set(watched.parts) == {*parts.NAMES, parts.REST}
    assert sum(watched.parts.values()) == pytest.approx(watched.wall, rel=0.01, abs=1e-4)
    assert sum(watched.phases.lap().values()) == pytest.approx(took, rel=0.01, abs=1e-3)
    assert {"validate", "scale", "neighbours", "affinities", "training", "map", "other"} == set(watched.phases.seconds)
    assert (watched.measured, watched.done) == (8, parts.WARM_UP + 8)
    assert watched.network_s > 0
    assert estimator.transform(X[:3]).shape == (3, 2)
    assert floors.layers(watched.encoder)[0] == (100, 256)  # the network as it was trained
    least = floors.of_step(watched, round(watched.rows / 8))
    assert set(least) == set(parts.NAMES)
    assert all(value > 0 for value in least.values())
    assert all(value is None or value > 0 for value in floors.of_phases(watched, 300, 210, 14).values())


def test_half_of_the_steps_have_the_extra_components(rng, monkeypatch):
    faded = []
    fade = parts.step.fade_extra
    monkeypatch.setattr(
        parts.step, "fade_extra", lambda y, c, weight: faded.append(weight is None) or fade(y, c, weight)
    )
    X = rng.normal(size=(100, 5)).astype(np.float32)
    parts.WatchedFit(steps=6).fit(ParametricTSNE(n_epochs=100, random_state=0, batch_size=50), X)
    assert faded[parts.WARM_UP :] == [False] * 3 + [True] * 3


def test_a_training_that_ends_before_is_measured_as_far_as_it_goes(rng):
    watched = parts.WatchedFit(steps=50)
    watched.fit(ParametricTSNE(n_epochs=7, random_state=0, batch_size=50), rng.normal(size=(100, 5)))
    assert watched.measured == 2 * 7 - parts.WARM_UP
    assert sum(watched.parts.values()) == pytest.approx(watched.wall, rel=0.01, abs=1e-4)


def test_nothing_of_the_package_stays_replaced(rng):
    before = [vars(owner)[name] for owner, name, _ in (*parts.PHASES, *parts.STEP)] + [vars(Share)["feed"]]
    parts.WatchedFit(steps=2).fit(ParametricTSNE(n_epochs=20, random_state=0), rng.normal(size=(50, 5)))
    after = [vars(owner)[name] for owner, name, _ in (*parts.PHASES, *parts.STEP)] + [vars(Share)["feed"]]
    assert all(old is new for old, new in zip(before, after, strict=True))


def test_steps_and_the_network_in_turn(rng):
    found = network.AgainstNetwork(turns=2)
    found.fit(ParametricTSNE(n_epochs=40, random_state=0, batch_size=30), rng.normal(size=(60, 5)).astype(np.float32))
    # Without the first turn, and the first of each other; a turn may hold the end of an epoch, which is no step.
    assert len(found.steps) == len(found.network) == 2 * (network.TURN - 1)
    assert all(value > 0 for value in found.medians().values())


def test_operations_of_a_network():
    widths = floors.layers(MLP(10, 3, (20, 5), "gelu"))
    assert widths == [(10, 20), (20, 5), (5, 3)]
    forward, backward = floors.operations(widths, 7)
    assert forward == 2 * 7 * (10 * 20 + 20 * 5 + 5 * 3)
    assert backward == 2 * 7 * (10 * 20 + 2 * (20 * 5 + 5 * 3))  # no gradient of the rows
    assert floors.forward(widths, 64, torch.float32) > 0
    assert floors.backward(widths, 64, torch.float32) > 0


def test_a_record_says_what_it_took(record):
    found = json.loads(record.read_text())
    (fit,) = found["fits"]
    assert {"machine", "threads", "torch", "commit"} < found.keys()
    assert (fit["method"], fit["set"], fit["n"], fit["d"], fit["measured_steps"]) == ("umap", "digits", 1347, 64, 6)
    assert found["imports"].keys() == {"import torch", "import fastpdr"}
    assert sum(part["ms"] for part in fit["step"].values()) == pytest.approx(fit["step_ms"], rel=0.01)
    assert fit["phases"]["training"]["s"] == pytest.approx(fit["steps"] * fit["step_ms"] / 1000, rel=0.01)
    assert fit["stopwatch_ms"] < 0.1 * fit["step_ms"]
    assert "network" not in found  # that is measured beside mnist-5k


def test_the_table_goes_between_the_marks_of_a_page(record, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{pages.BEGIN}\nold\n{pages.END}\nafter\n")
    ended = CliRunner().invoke(main, ["table", str(record), "--write", str(page)])
    assert ended.exit_code == 0, ended.output
    text = page.read_text()
    shown = CliRunner().invoke(main, ["table", str(record)]).output
    assert text == f"before\n{pages.BEGIN}\n\n{shown}\n{pages.END}\nafter\n"
    assert CliRunner().invoke(main, ["table", str(record), "--write", str(page)]).exit_code == 0
    assert page.read_text() == text


def cell(value, floor, unit):
    return {unit: value, "floor": floor}


def test_cells_of_a_table():
    fit = {
        "method": "tsne",
        "set": "glove",
        "n": 341479,
        "d": 100,
        "columns": 100,
        "rows_of_a_batch": 800,
        "precision": "float32",
        "steps": 640,
        "measured_steps": 20,
        "phases": {"neighbours": cell(60.0, 30.0, "s"), "training": cell(39.0, 13.0, "s")},
        "step": {"draw": cell(15.0, 0.01, "ms"), "bookkeeping": cell(45.0, None, "ms")},
        "step_ms": 60.0,
        "network_ms": 48.0,
        "stopwatch_ms": 0.3,
        "rates": {"memory_gb_s": 20.0, "float32_gflop_s": 100, "bfloat16_gflop_s": 200},
    }
    against = {"method": "tsne", "step_ms": 11.0, "network_ms": 10.0, "ratio": 1.1, "hidden_dims": [1000, 500]}
    record = {"machine": "a machine", "threads": 2, "torch": "2.13", "commit": "abc", "imports": {"import torch": 1.0}}
    network = [{**against, "precision": each, "batch_size": 500} for each in ("float32", "bfloat16")]
    lines = table.markdown({**record, "fits": [fit], "network": network}).splitlines()
    assert "a machine; 2 threads, PyTorch 2.13, commit abc. A copy in memory moves 20 GB/s" in lines[0]
    for line in (
        f"### 341,479 {table.TIMES} 100 (GloVe)",
        "| import torch | 1.00 · 1% |",
        f"| neighbours | 60.0 · 60% · 30.0 · 2.0{table.TIMES} |",
        "| **in all** | **100** |",
        f"| draw | 15.0 · 25% · 0.01 · 1,500{table.TIMES} |",
        "| bookkeeping | 45.0 · 75% |",
        "| the network alone: a step over it | 48.0: 1.25 |",
        "| t-SNE | 11.0 / 10.0: **1.10** | 11.0 / 10.0: **1.10** |",
    ):
        assert line in lines
    assert any("the stopwatch is 0.5% of a step at most" in line for line in lines)


def test_bad_input_ends_with_2(tmp_path, monkeypatch, record):
    def refused(*words):
        ended = CliRunner().invoke(main, [str(word) for word in words])
        assert ended.exit_code == 2, ended.output
        assert "Traceback" not in ended.output
        return ended.output.splitlines()[-1]

    monkeypatch.delenv("FASTPDR_DATA", raising=False)
    output = ("--output", tmp_path / "out.json")
    assert "FASTPDR_DATA must name the folder" in refused("run", *output)
    assert "is not one of" in refused("run", "--set", "unknown", *output)
    assert "x>=2" in refused("run", "--set", "digits", "--steps", 1, *output)
    (tmp_path / "file").touch()
    assert "file" in refused("run", "--set", "digits", "--output", tmp_path / "file" / "out.json")
    assert "No such file" in refused("table", tmp_path / "none.json")
    (tmp_path / "text.json").write_text("text")
    assert "is no JSON" in refused("table", tmp_path / "text.json")
    (tmp_path / "other.json").write_text("{}")
    assert "must be a file of python -m bench.breakdown run" in refused("picture", tmp_path / "other.json", "a.png")
    page = tmp_path / "page.md"
    page.write_text("no marks")
    assert "must hold the lines" in refused("table", record, "--write", page)
    assert page.read_text() == "no marks"
    assert "is not supported" in refused("picture", record, tmp_path / "picture.unknown")


def test_a_fit_that_fails_leaves_the_others(tmp_path, monkeypatch, record):
    found = json.loads(record.read_text())["fits"][0]

    def ended(what, arguments):
        if arguments["method"] == "tsne":
            raise measure.RunError("the process ended with exit code -9")
        return found

    monkeypatch.setattr(measure, "in_fresh_process", ended)
    monkeypatch.setattr(measure, "imports", lambda threads: {"import torch": 1.0})
    words = ["run", "--set", "digits", "--method", "tsne", "--method", "umap", "--output", str(tmp_path / "out.json")]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 1
    assert "the process ended with exit code -9" in result.output
    assert json.loads((tmp_path / "out.json").read_text())["fits"] == [found]
