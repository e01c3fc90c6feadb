"""fastpdr transform a piece at a time: the same map as of the whole, in memory that does not grow with the rows."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from running import NAMES, N, X, entries, run, y

import fastpdr
from fastpdr.cli import data, streaming

NAMED = pd.DataFrame(X.astype(float), columns=list("abcd"))
PIECE = 16  # rows, so that 80 rows are five pieces
OUTPUTS = (".npy", ".csv", ".parquet")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(streaming, "MOST_ROWS", PIECE)
    return tmp_path


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A saved map of columns with names, learnt beside the column kind."""
    folder = tmp_path_factory.mktemp("fitted")
    NAMED.assign(kind=NAMES[y]).to_csv(folder / "x.csv", index=False)
    run("fit", folder / "x.csv", "--labels", "kind", "-o", folder / "out", "--n-epochs", 1)
    return folder / "out"


def placed(path):
    """The places [n, 2] and the labels that a file holds."""
    if path.endswith(".npy"):
        return np.load(path), None
    frame = pd.read_csv(path) if path.endswith(".csv") else pd.read_parquet(path)
    assert list(frame.columns[:2]) == ["projection_x", "projection_y"]
    return frame.iloc[:, :2].to_numpy(np.float32), frame["label"].tolist() if "label" in frame else None


def write(name, frame):
    """Write a frame as a file of any kind."""
    if name == "shards":
        Path(name).mkdir()
        for i, part in enumerate(np.split(frame[list("abcd")].to_numpy(), [3, 3, 50])):
            np.save(f"{name}/{i}.npy", part)
    elif name.endswith(".npy"):
        np.save(name, frame[list("abcd")].to_numpy())
    elif name.endswith(".npz"):
        np.savez(name, X=frame[list("abcd")].to_numpy())
    elif name.endswith(".parquet"):
        frame.to_parquet(name, row_group_size=30)
    elif name.endswith(".json"):
        frame.to_json(name, orient="records", double_precision=15)
    else:
        frame.to_csv(name, index=False, sep="\t" if name.endswith(".tsv") else ",")


# The same as of the whole


@pytest.mark.parametrize("suffix", OUTPUTS)
@pytest.mark.parametrize("source", ["x.npy", "shards", "x.csv", "x.tsv", "x.parquet", "x.npz", "x.json"])
def test_pieces_make_the_same_map(model, source, suffix):
    write(source, NAMED.assign(kind=NAMES[y]))
    output = run("transform", model, source, "-o", f"z{suffix}")
    assert f"z{suffix}: {N} rows placed in " in output
    Z, labels = placed(f"z{suffix}")
    assert Z.dtype == np.float32
    np.testing.assert_allclose(Z, fastpdr.load(model / "model").transform(NAMED), rtol=1e-5, atol=1e-5)
    has_labels = suffix != ".npy" and source not in ("x.npy", "shards", "x.npz")
    assert labels == (NAMES[y].tolist() if has_labels else None)


@pytest.mark.parametrize("suffix", OUTPUTS)
def test_files_are_as_if_written_whole(model, suffix):
    NAMED.assign(kind=NAMES[y]).to_csv("x.csv", index=False)
    run("transform", model, "x.csv", "-o", f"z{suffix}")
    Z = placed(f"z{suffix}")[0]
    data.write_map(Path(f"whole{suffix}"), Z, None if suffix == ".npy" else NAMES[y])
    if suffix == ".parquet":
        pd.testing.assert_frame_equal(pd.read_parquet("z.parquet"), pd.read_parquet("whole.parquet"))
    else:
        assert Path(f"z{suffix}").read_bytes() == Path(f"whole{suffix}").read_bytes()


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["float32", "int16", ">f8"])
def test_arrays_of_any_layout(model, order, dtype):
    rows = np.asarray(X * 10, dtype=dtype, order=order)
    np.save("x.npy", rows)
    run("transform", model, "x.npy", "-o", "z.npy")
    expected = fastpdr.load(model / "model").transform(pd.DataFrame(rows.astype(float), columns=list("abcd")))
    np.testing.assert_allclose(np.load("z.npy"), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([1] * 40 + [2] * 40, [1] * 40 + [2] * 40),
        ([1] * 40 + [2.5] * 40, [1.0] * 40 + [2.5] * 40),
        (["007"] * 40 + ["ant"] * 40, ["007"] * 40 + ["ant"] * 40),
        ([True] * 40 + [False] * 40, [True] * 40 + [False] * 40),
        ([True] * 40 + ["ant"] * 40, ["True"] * 40 + ["ant"] * 40),
        ([1] * 79 + [None], None),
        ([None] * 80, None),
    ],
)
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_labels_are_of_one_kind_from_the_first_row_to_the_last(model, labels, expected, suffix):
    NAMED.assign(kind=pd.Series(labels, dtype=object)).to_csv("x.csv", index=False)
    run("transform", model, "x.csv", "-o", f"z{suffix}")
    kept = placed(f"z{suffix}")[1]
    assert kept == expected
    data.write_map(
        Path(f"whole{suffix}"), placed(f"z{suffix}")[0], data.read("x.csv", "kind", labels_optional=True).labels
    )
    assert placed(f"whole{suffix}")[1] == kept


def test_a_file_that_has_the_name_of_the_labels_is_left_alone(model, here):
    (here / "kind").write_text("no labels")
    write("x.npy", NAMED)
    NAMED.to_csv("x.csv", index=False)
    for source in ("x.npy", "x.csv"):
        run("transform", model, source, "-o", "z.csv")
        assert placed("z.csv")[1] is None


@pytest.mark.parametrize("index", [True, False])
def test_names_of_rows_are_no_features(model, index):
    frame = NAMED.set_index(pd.Index([f"row {i}" for i in range(N)]))
    frame.to_csv("x.csv", index=index)
    frame.to_parquet("x.parquet", index=index)
    for source in ("x.csv", "x.parquet"):
        run("transform", model, source, "-o", "z.npy")
        assert np.load("z.npy").shape == (N, 2)


def test_a_csv_without_header(model):
    NAMED.to_csv("x.csv", index=False, header=False)
    run("transform", model, "x.csv", "-o", "z.npy")
    np.testing.assert_allclose(np.load("z.npy"), fastpdr.load(model / "model").transform(NAMED), rtol=1e-5, atol=1e-5)


def test_pieces_are_whole_blocks_of_the_network(monkeypatch):
    monkeypatch.setattr(streaming, "MOST_ROWS", 2**16)
    for d, rows in ((1, 2**16), (64, 2**16), (100, 2**15), (784, 2**12), (36_000, 64), (10**8, 1)):
        assert streaming.rows_at_once(d) == rows


# What later rows can hold


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_a_word_in_a_late_row(model, here, suffix):
    frame = NAMED.astype(object)
    frame.loc[70, "c"] = "many"
    write(f"x{suffix}", frame)
    output = run("transform", model, f"x{suffix}", "-o", "deep/z.csv", code=2)
    assert f"x{suffix}: row 71, column c: expected a number, got 'many'" in output
    assert entries(here) == {f"x{suffix}"}


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_column_of_words(model, here, suffix):
    write(f"x{suffix}", NAMED.assign(c=NAMES[y]))
    output = run("transform", model, f"x{suffix}", "-o", "z.csv", code=2)
    assert f"x{suffix}: row 1, column c: expected a number, got '{NAMES[y[0]]}'" in output
    write("digits.parquet", NAMED.assign(c="1"))
    output = run("transform", model, "digits.parquet", "-o", "z.csv", code=2)
    assert "digits.parquet: all columns but that of the labels must be numbers; these are not: c" in output


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("source", ["x.npy", "shards", "x.csv", "x.parquet", "x.npz"])
def test_no_number_in_a_late_row(model, here, source, value):
    frame = NAMED.copy()
    frame.loc[70, "c"] = value
    write(source, frame)
    (here / "z.npy").write_text("older")
    column = "c" if source in ("x.csv", "x.parquet") else "2"
    message = f"{source}: row 71, column {column}: NaN or an infinite value"
    assert message in run("transform", model, source, "-o", "z.npy", code=2)
    assert entries(here) == {source, "z.npy"}
    assert (here / "z.npy").read_text() == "older"


def test_a_late_row_with_more_fields(model, here):
    lines = NAMED.to_csv(index=False).splitlines()
    lines[70] += ",1"
    (here / "x.csv").write_text("\n".join(lines))
    output = run("transform", model, "x.csv", "-o", "z.npy", code=2)
    assert "x.csv: " in output
    assert "Expected 4 fields in line 71, saw 5" in output
    assert entries(here) == {"x.csv"}


@pytest.mark.parametrize("source", ["x.npy", "shards", "x.csv", "x.parquet"])
def test_no_rows(model, here, source):
    write(source, NAMED[:0])
    assert f"{source}: there are no rows" in run("transform", model, source, "-o", "z.csv", code=2)
    assert entries(here) == {source}


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (X[:, 0], "must be a table [rows, columns], got shape [80]"),
        (np.float64(1), "must be a table"),
        (X.astype(str), "must be real numbers"),
        (np.array([{}]), "pickled objects are never loaded"),
    ],
)
def test_arrays_that_are_no_table(model, here, array, message):
    np.save("x.npy", array)
    assert message in run("transform", model, "x.npy", "-o", "z.npy", code=2)
    assert entries(here) == {"x.npy"}


def test_a_cut_off_file(model, here):
    np.save("x.npy", X)
    (here / "x.npy").write_bytes((here / "x.npy").read_bytes()[:-10])
    assert "x.npy: not a complete NumPy file" in run("transform", model, "x.npy", "-o", "z.npy", code=2)


def test_parts_that_do_not_fit_are_found_before_anything_is_placed(model, here, monkeypatch):
    write("shards", NAMED)
    np.save("shards/9.npy", X[:, :2])
    monkeypatch.setattr(fastpdr.ParametricTSNE, "transform", lambda *_: pytest.fail("placed"))
    assert "but 9.npy has shape [80, 2]" in run("transform", model, "shards", "-o", "z.npy", code=2)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("suffix", OUTPUTS)
def test_a_full_disk_leaves_the_older_map(model, here, monkeypatch, suffix):
    np.save("x.npy", X)
    (here / f"z{suffix}").write_text("older")
    written_aside = streaming.written_aside

    @contextmanager
    def on_a_full_disk(path):
        with written_aside(path) as aside:
            aside.symlink_to("/dev/full")
            yield aside

    monkeypatch.setattr(streaming, "written_aside", on_a_full_disk)
    assert "No space left on device" in run("transform", model, "x.npy", "-o", f"z{suffix}", code=1)
    assert entries(here) == {"x.npy", f"z{suffix}"}
    assert (here / f"z{suffix}").read_text() == "older"


# Progress and memory


def test_progress_is_for_terminals(model, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    from fastpdr import _progress
    from fastpdr.cli import transform

    monkeypatch.setattr(_progress, "DELAY", 0)
    np.save("x.npy", X)
    for stream, shown in ((Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr(sys, "stderr", stream)
        transform.run(model, "x.npy", Path("z.npy"))
        assert ("z.npy: " in stream.getvalue()) == shown
        assert (stream.getvalue() == "") != shown


PROGRAM = """
import sys
from pathlib import Path
from fastpdr.cli import streaming, transform

streaming.PIECE_ELEMENTS = 2**16

def peak(source):  # MB, of this process so far: ru_maxrss would be of the one that started it as well
    transform.run(Path("model"), source, Path("z" + Path(source).suffix))
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024

for suffix in sys.argv[1:]:
    before = peak("few" + suffix)
    print("growth", peak("many" + suffix) - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's account of a process's memory")
def test_memory_does_not_grow_with_the_rows(here):
    many, names = 500_000, list("abcd")
    model = fastpdr.ParametricTSNE(hidden_dims=(2,), n_epochs=1, random_state=0).fit(NAMED)
    fastpdr.save(model, "model", label_column="kind")
    for stem, n in (("few", 50_000), ("many", many)):
        rows = (np.arange(4 * n) % 1000).reshape(n, 4)
        np.save(f"{stem}.npy", rows)
        pd.DataFrame(rows, columns=names).assign(kind="ant").to_parquet(f"{stem}.parquet", row_group_size=n)
        Path(f"{stem}.csv").write_text("a,b,c,d,kind\n" + n * "1.5,2.25,3.125,4.0625,ant\n")
    program = [sys.executable, "-c", PROGRAM, ".npy", ".parquet", ".csv"]
    result = subprocess.run(program, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert result.returncode == 0, result.stderr
    growth = [float(line.split()[1]) for line in result.stdout.splitlines() if line.startswith("growth")]
    # Read whole, they take 35, 118 and 86 MB more.
    assert len(growth) == 3
    assert max(growth) < 16, growth
    assert len(pd.read_csv("z.csv")) == len(pd.read_parquet("z.parquet")) == len(np.load("z.npy")) == many
