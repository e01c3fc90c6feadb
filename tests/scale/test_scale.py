"""bench.scale: a small run end to end, its record, its table and its picture."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bench import scale


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    """The folder and the record of a run of 2,000 rows that are no one's data."""
    folder = tmp_path_factory.mktemp("scale")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("FASTPDR_DATA", raising=False)
        folders = ["--folder", str(folder / "rows"), "--output", str(folder)]
        scale.main(["run", "--rows", "2000", "--epochs", "1", "--threads", "1", *folders])
    return folder, json.loads((folder / "umap-2000-1.json").read_text())


def test_a_record_says_what_it_took(record):
    folder, row = record
    assert (row["n"], row["d"], row["k"], row["epochs"], row["rows"]) == (2000, 100, 14, 1, "mixture of Gaussians")
    assert {"read", "neighbours", "similarities", "alias", "training", "placing", "rest"} == row["phases"].keys()
    spent = sum(part["cpu_s"] for part in row["phases"].values())
    assert spent == pytest.approx(row["fit"]["cpu_s"], rel=0.01, abs=0.01)
    assert row["graph_bytes"]["neighbours"] == 2000 * 14 * 12
    assert row["graph_bytes"]["edges"] == row["graph_bytes"]["table"] > 0
    assert row["peak_mb"] >= row["peak_seen_mb"] > 50
    assert row["recall"] == 1.0
    assert 0.5 < row["trustworthiness"] <= 1.0
    assert np.load(folder / "rows" / "mixture-2000.npy", mmap_mode="r").dtype == np.float16


def test_the_table_and_the_picture(record):
    folder, row = record
    (folder / "umap-4000-1.json").write_text(json.dumps({**row, "n": 4000}))
    scale.main(["plot", "--output", str(folder)])
    lines = (folder / "growth.md").read_text().splitlines()
    assert len(lines) == 4
    assert len({line.count("|") for line in lines}) == 1
    assert "| 16 |" in lines[2]  # bytes an entry
    assert (folder / "growth.png").stat().st_size > 10_000


def test_rows_are_written_once(tmp_path, monkeypatch):
    monkeypatch.delenv("FASTPDR_DATA", raising=False)
    path, words = scale.rows_of(300, tmp_path)
    rows, before = np.load(path), path.stat().st_mtime_ns
    assert rows.shape == (300, 100)
    assert words == "mixture of Gaussians"
    assert scale.rows_of(300, tmp_path)[0].stat().st_mtime_ns == before


def test_bad_input_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        scale.main(["run", "--rows", "100", "--epochs", "some"])
    assert "--epochs must be a number" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="must hold records, got none"):
        scale.main(["plot", "--output", str(tmp_path)])
