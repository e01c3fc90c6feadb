"""Two files of benchmarks: what is printed, and what is an error."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from bench.compare import main


def benchmark(name, median, **extra):
    return {"name": name, "extra_info": extra, "stats": {"median": median}}


@pytest.fixture
def run(tmp_path):
    def compare(old, new, *options):
        for name, benchmarks in (("old", old), ("new", new)):
            (tmp_path / name).write_text(json.dumps({"benchmarks": benchmarks}))
        return CliRunner().invoke(main, [str(tmp_path / "old"), str(tmp_path / "new"), *options])

    return compare


OLD = [benchmark("pairs", 1.0, ratio=100.0), benchmark("dense", 2.0, kept={"ratio": 50.0}, fresh={"ratio": 80.0})]


def test_the_same_file_loses_nothing(run):
    done = run(OLD, OLD)
    assert done.exit_code == 0, done.output
    assert "dense kept" in done.output
    assert "1.00" in done.output


def test_a_lost_ratio_is_named(run):
    new = [OLD[0], benchmark("dense", 2.0, kept={"ratio": 44.0}, fresh={"ratio": 80.0})]
    done = run(OLD, new)
    assert done.exit_code == 1
    assert "ratio to the competitor: dense kept" in done.output
    assert "dense fresh\n" not in done.output.split("Error")[1]
    assert run(OLD, new, "--allowed", "0.2").exit_code == 0


def test_a_gain_is_no_loss(run):
    assert run([benchmark("pairs", 2.0, ratio=50.0)], [benchmark("pairs", 1.0, ratio=100.0)], "--times").exit_code == 0


def test_times_are_judged_only_when_asked(run):
    slower = [benchmark("pairs", 1.5, ratio=100.0), OLD[1]]
    assert run(OLD, slower).exit_code == 0
    done = run(OLD, slower, "--times")
    assert done.exit_code == 1
    assert "median seconds: pairs" in done.output


def test_a_missing_benchmark_is_a_loss(run):
    done = run(OLD, OLD[:1])
    assert done.exit_code == 1
    assert "dense kept" in done.output


def test_a_foreign_file(tmp_path):
    path = tmp_path / "other.json"
    path.write_text("[]")
    done = CliRunner().invoke(main, [str(path), str(path)])
    assert done.exit_code == 2
    assert "is no file of pytest-benchmark" in done.output
