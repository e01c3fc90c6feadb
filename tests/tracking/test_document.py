"""The examples of docs/tracking.md run as printed, and its tables name what they write."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
from sklearn.datasets import load_digits

import fastpdr
from fastpdr.cli import config

TEXT = (Path(__file__).parents[2] / "docs/tracking.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, flags=re.DOTALL | re.MULTILINE)


def test_every_example(tmp_path, monkeypatch):
    for package in ("tensorboard", "matplotlib"):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    package = SimpleNamespace(init=lambda **_: MagicMock(), Error=Exception)
    monkeypatch.setitem(sys.modules, "wandb", package)
    monkeypatch.setattr(fastpdr.ParametricUMAP, "_automatic_epochs", lambda *_: 1)
    X, y = load_digits(return_X_y=True)
    monkeypatch.setattr("sklearn.datasets.load_digits", lambda **_: (X[:200], y[:200]))
    names = {}
    for block in blocks("python"):
        exec(block, names)
    assert {path.name for path in Path("runs").iterdir()} == {
        "digits.csv", "digits-epoch-0001.png", "digits.jsonl", "run-1"
    }  # fmt: skip
    columns = Path("runs/digits.csv").read_text().splitlines()[0].split(",")
    assert len(columns) == 11
    assert all(f"`{column}`" in TEXT or f"`{column.partition('/')[2]}`" in TEXT for column in columns[1:])


def test_the_section_of_a_config(tmp_path):
    (yaml,) = blocks("yaml")
    (tmp_path / "train.yml").write_text(yaml)
    whole = config.load(tmp_path / "train.yml", "train")
    assert (whole.tracking.tensorboard, whole.tracking.jsonl) == ("runs", "runs/digits.jsonl")
    assert (whole.data.held_out, whole.tracking.map_every) == (0.2, 20)
