"""The examples of docs/sweeps.md and configs/sweep.yml run as printed."""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from running import blocks, commands, entries, run

from fastpdr.cli import config as configs
from fastpdr.cli import showing, train
from fastpdr.cli.sweep import config, sections, space, workers

pytest.importorskip("optuna")

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs/sweeps.md").read_text(encoding="utf-8")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with all that the document speaks of, where trainings take two epochs on few rows, in this process."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "configs", "configs")
    for text in blocks(TEXT, "yaml"):
        Path(re.match("# (.*)", text)[1]).write_text(text)
    make = configs.make_estimator
    monkeypatch.setattr(configs, "make_estimator", lambda whole: make(whole).set_params(n_epochs=2))
    monkeypatch.setattr(
        workers, "run_in_processes", lambda bench, referee, jobs, hub: workers.run_here(bench, referee, hub)
    )
    read = train.read
    monkeypatch.setattr(train, "read", lambda section, **how: read(section, **how).take(np.arange(300)))
    for name in ("draw_map", "write_report"):
        monkeypatch.setattr(showing, name, lambda path, *_: path.touch() or "")
    return tmp_path


def test_every_command(here):
    assert len(commands(TEXT)) == 7
    for command in commands(TEXT):
        run(*command)
    assert entries(here / "models") == {"digits-sweep", "maps", "sweep"}
    assert (here / "models/digits-sweep/trained/model").is_dir()
    for name, count in (("digits-sweep", 6), ("maps", 4), ("sweep", 2)):
        with open(f"models/{name}/trials.csv", newline="") as file:
            assert len(list(csv.DictReader(file))) == count


def test_the_document_names_all_there_is():
    for name in (*space.KINDS, *sections.METRICS, *config.UNSUPPORTED):
        assert f"`{name}`" in TEXT
    for key in ("method", "metric", "parameters", "early_terminate", "run_cap", "data.held_out"):
        assert f"`{key}" in TEXT
