"""Files that are damaged or hold no table, labels that do not fit, broken models, full disks, interrupts."""

from __future__ import annotations

import io
import json
import os
import pickle
import resource
import shutil
import zipfile
from contextlib import contextmanager
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from running import D, N, X, entries, run, y

import fastpdr
from fastpdr import plotting
from fastpdr._files import save_array, written_aside
from fastpdr.cli import data, formats, main

FRAME = pd.DataFrame(X, columns=list("abcd"))
NO_NUMPY_FILE = "not a complete NumPy file of plain arrays (pickled objects are never loaded)"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def npy(here):
    np.save("x.npy", X)
    return "x.npy"


def fit(*arguments, code=0):
    return run("fit", *arguments, "--n-epochs", 1, code=code)


def bytes_of(write):
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


NPY = bytes_of(lambda file: np.save(file, X))
NPZ = bytes_of(lambda file: np.savez(file, X=X, y=y))
PARQUET = bytes_of(FRAME.to_parquet)


def overwritten(content, begin, part):
    return content[:begin] + part + content[begin + len(part) :]


# Files of bytes


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        *((f"x.{kind}", b"", "the file is empty") for kind in ("npy", "npz", "csv", "tsv", "parquet", "json", "h5ad")),
        *(("x.npy", NPY[:length], NO_NUMPY_FILE) for length in (3, 8, 40, 100, len(NPY) - 1)),
        ("x.npy", NPY.replace(b"'<f4'", b"'<q4'"), NO_NUMPY_FILE),
        ("x.npy", overwritten(NPY, NPY.index(b"(80"), b"(80,, "), NO_NUMPY_FILE),
        ("x.npy", NPY.replace(b"(80, 4)", b"(-8, 4)"), NO_NUMPY_FILE),
        ("x.npy", b"1,2,3\n", NO_NUMPY_FILE),
        *(("x.npz", NPZ[:length], NO_NUMPY_FILE) for length in (3, 30, 200, len(NPZ) - 60, len(NPZ) - 5)),
        ("x.npz", overwritten(NPZ, 400, b"\0" * 20), NO_NUMPY_FILE),
        ("x.csv", "é,b\n1,2\n".encode("latin-1"), "must be text in UTF-8, but byte 0 is not"),
        ("x.csv", "a,b\n1,é\n".encode("latin-1"), "must be text in UTF-8, but byte 6 is not"),
        ("x.csv", "a,b\n1,2\n".encode("utf-16"), "must be text in UTF-8, but byte 0 is not"),
        ("x.tsv", b"a\tb\n\xff\t1\n", "must be text in UTF-8"),
        ("x.csv", b"a,b\n" + b"1" * 200_000 + b",2\n", "not a readable .csv file (Error: field larger than"),
        ("x.json", '{"é":[1]}'.encode("latin-1"), "must be text in UTF-8, but byte 2 is not"),
        *(("x.parquet", PARQUET[:length], "Parquet") for length in (3, 50, len(PARQUET) - 3)),
        ("x.parquet", overwritten(PARQUET, len(PARQUET) - 200, b"\xff" * 50), "x.parquet: "),
    ],
)
def test_damaged_files(here, name, content, message):
    (here / name).write_bytes(content)
    output = fit(name, "-o", "out", code=2)
    assert output.startswith(f"Error: {name}: ")
    assert message in output
    assert entries(here) == {name}


def test_a_zip_file_of_other_things_beside_an_array(here):
    with zipfile.ZipFile("x.npz", "w") as archive:
        archive.writestr("about.txt", "notes")
        archive.writestr("X.npy", NPY)
    np.testing.assert_array_equal(data.read("x.npz").X, X)
    with zipfile.ZipFile("x.npz", "w") as archive:
        archive.writestr("about.txt", "notes")
    assert "x.npz: must hold an array X or a single array, but holds nothing" in fit("x.npz", "-o", "out", code=2)


# Texts


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", "\n\n\n", "x.csv: there are no rows"),
        ("x.csv", "a,b\n1,2\n1,2,3\n", "x.csv: Expected 2 fields in line 3, saw 3"),
        ("x.csv", 'a,b\n"1,2\n3,4\n', "x.csv: EOF inside string"),
        ("x.csv", "a,b,a\n1,2,3\n", "x.csv: the names of columns must differ; these stand more than once: a"),
        ("x.csv", "a,b\n1,\0\n3,4\n", "these are not: b"),
        ("x.csv", 'a,b\n"1,000",2\n', "these are not: a"),
        ("x.csv", "a;b\n1;2\n", "these are not: a;b"),
        ("x.csv", "a,b,\n1,2,\n3,4,\n5,6,\n", "in column Unnamed: 2 (3 of 3 rows)"),
        ("x.csv", "a,b\n,1\n,2\n,3\n", "in column a (3 of 3 rows)"),
        ("x.json", "[[1,2],[3", "x.json: not JSON: Expecting ',' delimiter: line 1 column 10"),
        ("x.json", "[[1,2],[3]]", "x.json: all rows must have the 2 values of the first, but row 1 has 1"),
        ("x.json", "[]", "x.json: there are no rows"),
        ("x.json", '{"data": []}', "x.json: there are no rows"),
        ("x.json", "{}", "x.json: there are no rows"),
        ("x.json", "null", "x.json: must be a list of records"),
        ("x.json", '{"data": "x"}', "x.json: must be a list of records"),
        ("x.json", '{"a": 1}', "x.json: must be a list of records"),
        ("x.json", '[[1,2],{"a":1}]', "x.json: must be a list of records"),
        ("x.json", '[[1,null],[2,3],[4,5]]', "NaN or infinite values, fill or remove them; in column 1 (1 of 3 rows)"),
        ("x.json", '[["a","b"]]', "x.json: the data must be real numbers, got dtype <U1"),
        ("x.json", f"[[1{'0' * 400}, 2]]", "x.json: all values must be numbers (int too large to convert to float)"),
        ("x.json", '[{"a":[1,2]}]', "these are not: a"),
    ],
)  # fmt: skip
def test_texts_that_are_no_table(here, name, content, message):
    (here / name).write_text(content)
    assert message in fit(name, "-o", "out", code=2)
    assert entries(here) == {name}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.csv", "a,b\n99999999999999999999999,True\n2,False\n4,True\n"),
        ("x.json", f'{{"a": [1{"0" * 23}, 2, 4], "b": [true, false, true]}}'),
        ("x.json", f"[[1{'0' * 23}, true], [2, 0], [4, 1]]"),
    ],
)
def test_integers_of_any_size_and_booleans_are_numbers(here, name, content):
    (here / name).write_text(content)
    np.testing.assert_allclose(data.read(name).X, [[1e23, 1], [2, 0], [4, 1]])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([Decimal("1.5"), None, Decimal("2")], [1.5, np.nan, 2]),
        (np.full(3, 2**64 - 1, dtype=np.uint64), [2.0**64] * 3),
        ([True, False, True], [1, 0, 1]),
    ],
)
def test_numbers_of_other_kinds_in_parquet(here, values, expected):
    pd.DataFrame({"a": values, "b": range(3)}).to_parquet("x.parquet")
    np.testing.assert_allclose(data.read("x.parquet").X[:, 0], expected)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (pd.DataFrame({"a": ["x", "y"]}), "these are not: a"),
        (pd.DataFrame({"a": [[1, 2], [3]]}), "these are not: a"),
        (pd.DataFrame({"a": pd.date_range("2020", periods=2)}), "these are not: a"),
        (pd.DataFrame(index=range(3)), "there are no"),
    ],
)
def test_parquet_files_that_are_no_table(here, frame, message):
    frame.to_parquet("x.parquet")
    assert message in fit("x.parquet", "-o", "out", code=2)


def test_columns_of_parquet_with_one_name(here):
    pyarrow = pytest.importorskip("pyarrow")
    pyarrow.parquet.write_table(pyarrow.table([[1.0, 2.0], [3.0, 4.0]], names=["a", "a"]), "x.parquet")
    assert "x.parquet: the names of columns must differ; these stand more than once: a" in fit(
        "x.parquet", "-o", "out", code=2
    )


# Arrays


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.float64(3), "the data must be a table [rows, columns], got shape []"),
        (np.zeros(5, dtype=[("a", "f4"), ("b", "i4")]), "the data must be a table [rows, columns], got shape [5]"),
        (np.zeros((5, 2), dtype="M8[s]"), "the data must be real numbers, got dtype datetime64[s]"),
        (np.zeros((5, 0)), "there are no columns"),
        (np.zeros((0, 5)), "there are no rows"),
    ],
)
def test_arrays_that_are_no_table(here, array, message):
    np.save("x.npy", array)
    assert f"x.npy: {message}" in fit("x.npy", "-o", "out", code=2)


@pytest.mark.parametrize("dtype", [bool, np.int64, np.uint64, np.float16, np.longdouble])
def test_numbers_of_every_type_are_learnt_from(here, dtype):
    np.save("x.npy", X > 1 if dtype is bool else (np.abs(X) * 100).astype(dtype))
    fit("x.npy", "-o", "out")
    assert np.isfinite(np.load("out/embedding.npy")).all()


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({}, "the folder holds no .npy files"),
        ({"a": X, "b": X[:, :2]}, "all files must be tables of as many columns as a.npy, of shape [80, 4]"),
        ({"a": X[:, 0]}, "a.npy: the data must be a table [rows, columns], got shape [80]"),
        ({"a": X, "b": X.astype(str)}, "b.npy: the data must be real numbers, got dtype <U32"),
        ({"a": X, "b": NPY[:50]}, f"b.npy: {NO_NUMPY_FILE}"),
        ({"a": pickle.dumps([1])}, f"a.npy: {NO_NUMPY_FILE}"),
    ],
)
def test_folders_of_parts(here, parts, message):
    (here / "parts").mkdir()
    for name, part in parts.items():
        path = here / f"parts/{name}.npy"
        path.write_bytes(part) if isinstance(part, bytes) else np.save(path, part)
    assert f"parts: {message}" in fit("parts", "-o", "out", code=2)


def test_a_folder_in_the_place_of_a_file(here):
    (here / "parts/a.npy").mkdir(parents=True)
    assert "parts/a.npy: Is a directory" in fit("parts", "-o", "out", code=2)
    (here / "x.csv").mkdir()
    assert "x.csv: the folder holds no .npy files" in fit("x.csv", "-o", "out", code=2)


@pytest.mark.parametrize("kind", [".npy", ".csv", ".parquet", ".json"])
def test_a_file_that_may_not_be_read(here, monkeypatch, kind):
    def refuse(source):
        raise PermissionError(13, "Permission denied", source)

    (here / f"x{kind}").write_text("1")
    monkeypatch.setitem(formats.READERS, kind, refuse)
    assert f"Error: x{kind}: Permission denied" in fit(f"x{kind}", "-o", "out", code=2)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_a_locked_file(npy, here):
    (here / npy).chmod(0)
    assert "Error: x.npy: Permission denied" in fit(npy, "-o", "out", code=2)


def test_a_reader_that_fails_in_its_own_way(here, monkeypatch):
    def fail(source):
        raise KeyError("a")

    (here / "x.csv").write_text("1")
    monkeypatch.setitem(formats.READERS, ".csv", fail)
    assert "Error: x.csv: not a readable .csv file (KeyError: 'a')" in fit("x.csv", "-o", "out", code=2)


# Values


@pytest.mark.parametrize("method", ["tsne", "mstsne", "umap", "largevis"])
def test_rows_that_are_all_the_same(here, method):
    np.save("x.npy", np.full((N, D), 0.1))
    output = fit("x.npy", "-o", "out", "--method", method, code=2)
    assert f"all {N} rows of X are the same: there is nothing to learn from them" in output
    assert not (here / "out").exists()


def test_numbers_too_large_to_be_squared(here):
    np.save("x.npy", X.astype(np.float64) * 1e300)
    assert "divide them by a number first" in fit("x.npy", "-o", "out", code=2)


@pytest.mark.parametrize("scaler", ["StandardScaler", "MinMaxScaler", "none"])
def test_a_constant_column_changes_nothing_that_matters(here, scaler):
    """As scikit-learn's scalers have it: it says nothing, and that is no error."""
    FRAME.assign(e=7.0).to_csv("x.csv", index=False)
    settings = [f"preprocessing.scaler={scaler}", "data.features=x.csv", "model.n_epochs=1"]
    output = run("train", *(part for setting in settings for part in ("--set", setting)))
    assert "Warning" not in output
    assert np.isfinite(np.load("models/fastpdr_model/embedding.npy")).all()


def test_a_column_without_a_value_is_named(here):
    FRAME.assign(b=np.nan).to_parquet("x.parquet")
    assert f"in column b ({N} of {N} rows)" in fit("x.parquet", "-o", "out", code=2)


# Labels


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("y.csv", b"", "y.csv: the file is empty"),
        ("y.csv", b"1\n2\n", "y.csv: labels must be one per row, 80 in all, got shape [2]"),
        ("y.csv", b"1\n" * 90, "y.csv: labels must be one per row, 80 in all, got shape [90]"),
        ("y.csv", b"1\n1,2\n", "y.csv: labels must have one value per row, got 2"),
        ("y.csv", "é\n".encode("latin-1") * 80, "y.csv: must be text in UTF-8, but byte 0 is not"),
        (
            "y.npy",
            bytes_of(lambda file: np.save(file, np.zeros((N, 2)))),
            "y.npy: labels must be one per row, 80 in all",
        ),
        ("y.npy", bytes_of(lambda file: np.save(file, np.array([1, None] * 40))), f"y.npy: {NO_NUMPY_FILE}"),
        ("y.npy", NPY[:50], f"y.npy: {NO_NUMPY_FILE}"),
    ],
)
def test_files_of_labels_that_do_not_fit(npy, here, name, content, message):
    (here / name).write_bytes(content)
    assert f"Error: x.npy: {message}" in fit(npy, "-o", "out", "--labels", name, code=2)
    assert not (here / "out").exists()


@pytest.mark.parametrize("labels", [y[:5], np.array([1, "a"] * 40, dtype=object)])
def test_labels_in_an_npz_that_do_not_fit(here, labels):
    np.savez("x.npz", X=X, y=labels)
    expected = NO_NUMPY_FILE if labels.dtype == object else "labels must be one per row, 80 in all, got shape [5]"
    assert f"Error: x.npz: {expected}" in fit("x.npz", "-o", "out", code=2)


# Configs


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 20_000, "nested too deeply"),
        ("a: \x00", "not YAML: unacceptable character"),
        ("data: &a [*a]", "data: expected a mapping of keys"),
        ("model: {[1, 2]: 3}", "not YAML: found unhashable key"),
        ("model: {n_epochs: 1e400}", "model.n_epochs: expected a valid integer, got inf"),
        ("model: {n_epochs: 2020-01-01}", "model.n_epochs: expected a valid integer, got datetime.date"),
        ("model: {learning_rate: .nan}", "model: The 'learning_rate' parameter of MultiscaleParametricTSNE must be"),
        (
            f"model: {{random_state: {10**30}}}",
            "model: The 'random_state' parameter of MultiscaleParametricTSNE must be",
        ),
        ("model: {hidden_dims: [-3]}", "hidden_dims must be widths >= 1, got [-3]"),
        ("data: {features: " + "a" * 5000 + "}", "File name too long"),
    ],
)
def test_extreme_configs(here, text, message):
    (here / "c.yml").write_text(text)
    assert message in run("train", "--config", "c.yml", code=2)
    assert entries(here) == {"c.yml"}


# Models


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fitted")
    np.save(folder / "x.npy", X)
    fit(folder / "x.npy", "-o", folder / "out")
    return folder / "out/model"


def change(**entries_of_config):
    def write(model):
        config = json.loads((model / "config.json").read_text())
        (model / "config.json").write_text(json.dumps(config | entries_of_config))

    return write


def cut(name, length):
    def write(model):
        (model / name).write_bytes((model / name).read_bytes()[:length])

    return write


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda model: (model / "encoder.safetensors").unlink(), "encoder.safetensors is missing"),
        (cut("encoder.safetensors", 1000), "encoder.safetensors is damaged"),
        (cut("encoder.safetensors", 0), "encoder.safetensors is damaged"),
        (cut("config.json", 0), "config.json is damaged"),
        (cut("config.json", 100), "config.json is damaged"),
        (lambda model: (model / "config.json").write_text("[]"), "config.json was not written by fastpdr"),
        (lambda model: (model / "config.json").write_bytes(b"\xff"), "config.json is damaged"),
        (change(**{"class": "os"}), "unknown class 'os'"),
        (change(parameters={"x": 1}), "do not fit together"),
        (change(parameters=None), "parameters must be mappings"),
        (change(fitted={}), "do not fit together ('n_features_in_')"),
        (change(labels=[1], pipeline=3), "labels, pipeline must be mappings"),
        (change(format_version=99), "upgrade it"),
        (change(encoder="Mine"), "the model has an own encoder (Mine)"),
    ],
)
def test_damaged_models(fitted, npy, here, damage, message):
    shutil.copytree(fitted, "model")
    damage(here / "model")
    assert message in run("transform", "model", npy, "-o", "z.npy", code=2)
    assert not (here / "z.npy").exists()


# Full disks


@contextmanager
def full_disk(limit):
    """Let no file become larger than so many bytes: what exceeds it fails as it does where no space is left."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("limit", [100, 1000])
def test_a_full_disk_leaves_the_older_results(npy, here, limit):
    fit(npy, "-o", "out")
    before = contents(here)
    with full_disk(limit):
        assert "File too large" in fit(npy, "-o", "out", "--overwrite", "--seed", 1, code=1)
        assert "File too large" in fit(npy, "-o", "new", code=1)
    assert contents(here) == before
    assert entries(here) == {"out", npy}


@pytest.mark.parametrize("suffix", ["npy", "csv", "parquet"])
@pytest.mark.parametrize("limit", [10, 500])
def test_a_full_disk_leaves_the_older_table(fitted, npy, here, suffix, limit):
    path = here / f"z.{suffix}"
    path.write_text("old")
    with full_disk(limit):
        output = run("transform", fitted, npy, "-o", path.name, code=1)
    assert f"Error: z.{suffix}: cannot be written (" in output
    assert output.count("cannot be written") == 1
    assert path.read_text() == "old"
    assert entries(here) == {npy, path.name}


def test_a_full_disk_leaves_an_older_pipeline(npy, here):
    paths = {"model_path": "p", "embeddings_path": "z.csv", "metrics_path": "m.json"}
    settings = ["data.features=x.npy", "algorithm.n_epochs=1", *(f"output.{k}={v}" for k, v in paths.items())]
    options = [part for setting in settings for part in ("--set", setting)]
    run("pipeline", *options)
    before = contents(here)
    with full_disk(1000):
        output = run("pipeline", *options, "--overwrite", "--set", "algorithm.random_state=1", code=1)
    assert "Error: z.csv: cannot be written (File too large)" in output
    assert contents(here) == before


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_a_full_disk_leaves_the_older_picture(here, suffix):
    path = here / f"map.{suffix}"
    path.write_text("old")
    with full_disk(1000), pytest.raises(OSError, match=rf"cannot be written \(File too large\): .*map.{suffix}"):
        plotting.save(plotting.map(X[:, :2]), path)
    assert path.read_text() == "old"
    assert entries(here) == {path.name}


def test_a_full_disk_leaves_the_older_graph(here):
    (here / "graph").write_text("old")
    with full_disk(1000), pytest.raises(OSError, match=r"cannot be written .*graph"):
        fastpdr.KNNGraph.build(X, 5).save("graph")
    assert (here / "graph").read_text() == "old"
    assert entries(here) == {"graph"}


@pytest.mark.parametrize("n", [1, 100, 100_000])
def test_the_end_of_an_array_is_not_lost(here, n):
    with full_disk(130), pytest.raises(OSError, match="File too large"):
        save_array(here / "x.npy", np.arange(n))
    save_array(here / "x.npy", np.arange(n)[::-1])
    np.testing.assert_array_equal(np.load("x.npy"), np.arange(n)[::-1])


def test_the_error_of_another_file_keeps_its_name(here):
    with pytest.raises(FileNotFoundError, match="other"), written_aside(here / "x"):
        open("other")  # noqa: SIM115


# On the way


def test_an_interrupt_leaves_nothing(npy, here, monkeypatch):
    fit(npy, "-o", "out")
    before = contents(here)

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(fastpdr.ParametricTSNE, "_keep", interrupt)
    for options in (["-o", "new"], ["-o", "out", "--overwrite"]):
        result = CliRunner().invoke(main, ["fit", npy, *options, "--n-epochs", "1"])
        assert result.exit_code == 130
        assert "Interrupted" in result.output
    assert contents(here) == before
    assert entries(here) == {"out", npy}


def test_an_error_that_nobody_expected_is_one_line(npy, monkeypatch):
    def fail(*_):
        raise KeyError("x")

    monkeypatch.setattr(fastpdr.ParametricTSNE, "fit_transform", fail)
    assert fit(npy, "-o", "out", code=1) == "Error: KeyError: 'x' (fastpdr --debug shows where)"
    result = CliRunner().invoke(main, ["--debug", "fit", npy, "-o", "out"])
    assert isinstance(result.exception, KeyError)
