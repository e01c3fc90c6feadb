"""bench.readme: the tables of README.md are those of the committed results."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from bench import pages, readme
from bench.quality import table


def test_the_tables_are_those_of_the_results():
    assert f"{pages.BEGIN}\n\n{readme.text()}\n{pages.END}\n" in (readme.ROOT / "README.md").read_text("utf-8")


def test_speed_is_the_ratio_in_a_fresh_process_of_the_last_file(tmp_path):
    def record(name, *benchmarks):
        found = [{"name": benchmark, "extra_info": info} for benchmark, info in benchmarks]
        (tmp_path / name).write_text(json.dumps({"benchmarks": found}))

    assert readme.speed(tmp_path) == ""
    first, *_, last = readme.FILES
    record(first, (readme.SPEED[0].benchmark, {"ratio": 60.4}), (readme.SPEED[3].benchmark, {"ratio": 1.0}))
    heaps = {"default_malloc": {"ratio": 61.7}, "kept_pages": {"ratio": 40.0}}
    record(last, (readme.SPEED[3].benchmark, heaps), ("test_of_something_else", {}))
    assert readme.speed(tmp_path).splitlines()[2:] == [
        f"| {readme.SPEED[0].title} | **60{readme.TIMES}** scikit-learn |",
        f"| {readme.SPEED[3].title} | **62{readme.TIMES}** eager PyTorch |",
    ]


def test_quality_is_the_median_of_the_seeds_in_one_thread(tmp_path):
    assert readme.quality(tmp_path) == ""
    shared = {"machine": "abacus", "changed": "preset=best", "fit_cpu_s": 41.4}
    for seed, mu in enumerate((0.91, 0.9426, 0.95)):
        run = {"set": "mnist", "method": "tsne", "threads": 1, "seed": seed, "test_mu": mu}
        table.add(tmp_path / "quality" / "published.csv", table.as_row({**shared, **run}))
        table.add(tmp_path / "quality" / "published.csv", table.as_row({**shared, **run, "threads": 2, "test_mu": 1}))
    (line,) = readme.quality(tmp_path).splitlines()[2:]
    assert line == '| `ParametricTSNE(preset="best")` | .943 in 41 s |  |  |'


def test_the_command_writes_between_the_marks(tmp_path, monkeypatch):
    page = tmp_path / "README.md"
    page.write_text(f"before\n{pages.BEGIN}\nold\n{pages.END}\nafter\n")
    monkeypatch.setattr(readme, "ROOT", tmp_path)
    assert CliRunner().invoke(readme.main).output == readme.text() + "\n"
    assert CliRunner().invoke(readme.main, ["--write"]).exit_code == 0
    assert page.read_text() == f"before\n{pages.BEGIN}\n\n{readme.text()}\n{pages.END}\nafter\n"


def test_a_page_without_marks_is_left_alone(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("text\n")
    with pytest.raises(ValueError, match="must hold the lines"):
        pages.put("table", page)
    assert page.read_text() == "text\n"
