"""Every format of tables, where the labels may be, and what is no table."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from running import NAMES, D, N, X, run, y

from fastpdr.cli import data

NAMED = pd.DataFrame(X, columns=list("abcd"))
LABELLED = NAMED.assign(kind=NAMES[y])


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_h5ad(sparse=False):
    anndata = pytest.importorskip("anndata")
    scipy_sparse = pytest.importorskip("scipy.sparse")
    cells = anndata.AnnData(
        scipy_sparse.csr_matrix(X) if sparse else X, obs=pd.DataFrame({"kind": NAMES[y]}, dtype="category")
    )
    cells.var_names = list("abcd")
    cells.write_h5ad("x.h5ad")


# One table in all formats


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("x.tsv", lambda: LABELLED.to_csv("x.tsv", sep="\t", index=False)),
        ("x.json", lambda: LABELLED.to_json("x.json", orient="records", double_precision=15)),
        ("x.json", lambda: Path("x.json").write_text(json.dumps(LABELLED.to_dict("list")))),
        ("x.pkl", lambda: LABELLED.to_pickle("x.pkl")),
        ("x.pickle", lambda: LABELLED.to_pickle("x.pickle")),
        ("x.h5ad", write_h5ad),
        ("x.h5ad", lambda: write_h5ad(sparse=True)),
    ],
)
@pytest.mark.filterwarnings("ignore:x.*reading a pickle")
def test_tables_with_names(name, write):
    write()
    table = data.read(name, "kind", allow_pickle=True)
    np.testing.assert_allclose(table.X, X, rtol=1e-6)
    assert table.labels.tolist() == NAMES[y].tolist()
    assert table.names == ("a", "b", "c", "d")
    assert table.label_column == "kind"


@pytest.mark.parametrize("content", [X.tolist(), {"data": X.tolist()}, {"features": X.tolist(), "about": "x"}])
def test_rows_in_json(here, content):
    (here / "x.json").write_text(json.dumps(content))
    table = data.read("x.json")
    np.testing.assert_allclose(table.X, X)
    assert table.names is None


@pytest.mark.filterwarnings("ignore:x.pkl.*reading a pickle")
@pytest.mark.parametrize("content", [X, X.tolist(), (X, y), {name: X[:, i] for i, name in enumerate("abcd")}])
def test_kinds_of_pickles(here, content):
    (here / "x.pkl").write_bytes(pickle.dumps(content))
    table = data.read("x.pkl", allow_pickle=True)
    np.testing.assert_allclose(table.X, X)
    assert (table.labels is None) == (not isinstance(content, tuple))


def test_a_folder_of_parts_is_read_in_the_order_of_names(here):
    (here / "parts").mkdir()
    for i, part in enumerate(np.split(X, [10, 50])):
        np.save(here / f"parts/part-{i}.npy", part)
    np.testing.assert_array_equal(data.read("parts").X, X)


def test_a_named_array_of_an_npz(here):
    np.savez("x.npz", data=X, target=y, other=X)
    table = data.read("x.npz", "target", array="data")
    np.testing.assert_array_equal(table.X, X)
    np.testing.assert_array_equal(table.labels, y)
    assert table.label_column == "target"


def test_a_format_in_place_of_the_suffix(here):
    LABELLED.to_csv("x.dat", index=False)
    assert data.read("x.dat", "kind", file_format=".csv").X.shape == (N, D)


@pytest.mark.parametrize("position", [0, 4])
def test_labels_by_position(here, position):
    columns = [*range(position), "y", *range(position, D)]
    both = np.insert(X, position, y, axis=1)
    np.save("x.npy", both)
    pd.DataFrame(both, columns=[f"c{name}" for name in columns]).to_csv("x.csv", index=False)
    for name, column in (("x.npy", None), ("x.csv", "cy")):
        table = data.read(name, position)
        np.testing.assert_allclose(table.X, X, rtol=1e-6)
        np.testing.assert_array_equal(table.labels, y)
        assert table.label_column == column


def test_names_of_rows_as_r_writes_them(here):
    (here / "x.tsv").write_text("a\tb\nr1\t1\t2\nr2\t3\t4\n")
    table = data.read("x.tsv")
    assert table.X.tolist() == [[1, 2], [3, 4]]
    assert table.names == ("a", "b")


@pytest.mark.parametrize("labels", ["sort", 9])
def test_labels_may_be_optional(here, labels):
    NAMED.to_csv("x.csv", index=False)
    np.save("x.npy", X)
    for name in ("x.csv", "x.npy"):
        assert data.read(name, labels, labels_optional=True).labels is None
        with pytest.raises(ValueError, match=f"labels {labels} is neither a column nor a file"):
            data.read(name, labels)


def test_values_of_an_optional_column_may_be_missing(here):
    NAMED.assign(kind=[None, *NAMES[y[1:]]]).to_csv("x.csv", index=False)
    np.save("x.npy", np.column_stack([X, [np.nan, *y[1:]]]))
    for name, labels in (("x.csv", "kind"), ("x.npy", 4)):
        table = data.read(name, labels, labels_optional=True)
        assert table.labels is None
        assert table.X.shape == (N, D)
        with pytest.raises(ValueError, match=f"column {labels} must have a label in every row, but 1 are missing"):
            data.read(name, labels)


# What is no table


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", "a,b\n1,2,3\n4,5,6\n", "line 2 has 3 fields, but line 1 has 2"),
        ("x.csv", "a,b\n1,2\n3\n4,5\n", "NaN or infinite values, fill or remove them; in column b (1 of 3 rows)"),
        ("x.csv", "a,b\n", "there are no rows"),
        ("x.json", "[1, 2", "Expecting"),
        ("x.json", "3", "must be a list of records"),
        ("x.json", "[1, 2]", "must be a list of records"),
        ("x.json", '{"a": [1, 2], "b": [3]}', "same length"),
        ("x.json", "[" * 100_000, "nested too deeply"),
        ("x.pkl", "cos\nsystem", "reading a pickle can run any code"),
    ],
)
def test_bad_files(here, name, content, message):
    (here / name).write_text(content)
    output = run("fit", name, "-o", "out", code=2)
    assert f"Error: {name}: " in output or "NaN" in output or "rows" in output
    assert message in output
    assert not (here / "out").exists()


def test_an_infinite_value_is_named(here):
    bad = X.copy()
    bad[3, 2] = np.inf
    np.save("x.npy", bad)
    assert "in column 2 (1 of 80 rows)" in run("fit", "x.npy", "-o", "out", code=2)


def test_unreadable_pickles(here):
    (here / "x.pkl").write_bytes(b"\x80\x04nonsense")
    with (
        pytest.warns(UserWarning, match="x.pkl: reading a pickle can run any code"),
        pytest.raises(ValueError, match=r"x.pkl: not a readable pickle"),
    ):
        data.read("x.pkl", allow_pickle=True)


def test_bad_names_of_arrays(here):
    np.savez("x.npz", a=X, b=X)
    np.save("x.npy", X)
    with pytest.raises(ValueError, match="there is no array c; the arrays are a, b"):
        data.read("x.npz", array="c")
    with pytest.raises(ValueError, match=r"an array is named only in .npz files, not in .npy"):
        data.read("x.npy", array="a")


def test_a_damaged_h5ad(here):
    pytest.importorskip("anndata")
    (here / "x.h5ad").write_bytes(b"no cells")
    with pytest.raises(ValueError, match=r"x.h5ad: not a complete .h5ad file"):
        data.read("x.h5ad")


def test_h5ad_without_its_package(here, monkeypatch):
    (here / "x.h5ad").write_bytes(b"cells")
    monkeypatch.setitem(sys.modules, "anndata", None)
    assert "reading .h5ad needs anndata: pip install 'fastpdr[h5ad]'" in run("fit", "x.h5ad", "-o", "out", code=1)
