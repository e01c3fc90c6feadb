"""fastpdr fit of .npy files and folders that are larger than is read at once: the same as of tables in memory.

But for their judging, which is that of a sample.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
from running import NAMES, N, X, run, y

from fastpdr.cli import data, learning
from fastpdr.data import Rows


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder of shards, the same rows as one file, and files that count as large."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(data, "READ_AT_ONCE", 100)
    (tmp_path / "shards").mkdir()
    for number, part in enumerate(np.split(X, [30, 31])):
        np.save(f"shards/{number}.npy", part)
    np.save("rows.npy", X)
    np.save("y.npy", NAMES[y])
    return tmp_path


def fit(source, *more):
    run("fit", source, "-o", "out", "--n-epochs", 1, "--overwrite", *more)
    return np.load("out/embedding.npy"), json.loads((data.Path("out") / "metrics.json").read_text())


@pytest.mark.parametrize("source", ["shards", "rows.npy"])
@pytest.mark.parametrize("more", [(), ("--labels", "y.npy"), ("--labels", "y.npy", "--held-out", 0.3)])
def test_the_map_is_that_of_a_table_in_memory(source, more, here, monkeypatch):
    assert isinstance(data.read(source, whole=False).X, Rows)
    Z, facts = fit(source, *more)
    monkeypatch.undo()
    monkeypatch.chdir(here)
    assert isinstance(data.read(source, whole=False).X, np.ndarray)
    expected, facts_of_all = fit(source, *more)
    assert np.array_equal(Z, expected)
    for part in (facts, facts_of_all, facts.get("held_out", {}), facts_of_all.get("held_out", {})):
        part.pop("training_time_seconds", None)
        part.pop("transform_time_seconds", None)
    assert facts == facts_of_all


@pytest.mark.usefixtures("here")
def test_a_sample_is_judged(monkeypatch):
    monkeypatch.setattr(learning, "JUDGED_ROWS", 25)
    seen = []
    measure = learning.measure
    monkeypatch.setattr(learning, "measure", lambda x, *rest: seen.append(x.shape) or measure(x, *rest))
    _, facts = fit("shards", "--labels", "y.npy", "--held-out", 0.4)
    assert seen == [(25, 4), (25, 4)]
    assert facts["n_samples"] == N - 32
    assert facts["held_out"]["n_samples"] == 32


@pytest.mark.usefixtures("here")
def test_labels_in_a_column_take_the_table_as_a_whole():
    assert isinstance(data.read("rows.npy", 0, whole=False).X, np.ndarray)


@pytest.mark.usefixtures("here")
def test_configs_read_the_rows_as_needed_where_nothing_is_done_to_them(monkeypatch):
    seen = []
    read = data.read
    monkeypatch.setattr(data, "read", lambda *a, **k: seen.append(type(read(*a, **k).X)) or read(*a, **k))
    settings = ["--set", "data.features=shards", "--set", "model.n_epochs=1", "--set", "model.memory_limit=2GB"]
    run("train", *settings, "--set", "preprocessing.scaler=none")
    run("train", *settings, "--overwrite")
    assert [issubclass(kind, Rows) for kind in seen] == [True, False]


@pytest.mark.usefixtures("here")
def test_bad_large_files_are_named():
    bad = X.copy()
    bad[3:5, 2] = np.nan
    np.save("rows.npy", bad)
    assert "column 2 (2 of 80 rows)" in run("fit", "rows.npy", "-o", "out", code=2)
    np.save("shards/2.npy", X[:, :3])
    assert "2.npy has shape [80, 3]" in run("fit", "shards", "-o", "out", code=2)
    np.save("rows.npy", X)
    assert "memory_limit must be" in run("fit", "rows.npy", "-o", "out", "--memory-limit", "much", code=2)
    assert "only 1 MB may be taken" in run("fit", "rows.npy", "-o", "out", "--memory-limit", "1MB", code=1)
