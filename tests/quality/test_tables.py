"""The files of results, and the tables that people read."""

from __future__ import annotations

from bench.quality import table

SHARED = {
    "set": "digits",
    "method": "tsne",
    "changed": "defaults",
    "threads": 1,
    "machine": "abacus, 2 cores",
    "fit_cpu_s": 3.14,
    "place_cpu_s": 0.2,
    "n_train": 1347,
    "n_test": 450,
    "version": "fastpdr 0.1.0",
    "commit": "abc",
}


def row(**values):
    return table.as_row({**SHARED, "seed": 0, **values})


def test_rows_are_sorted_and_a_repeated_run_replaces_the_earlier(tmp_path):
    path = tmp_path / "new" / "scale.csv"
    assert table.read(path) == []
    for seed, value in ((1, 0.5), (0, 0.25), (1, 0.75)):
        table.add(path, row(seed=seed, test_rnx_auc=value))
    table.add(path, row(method="opentsne", test_rnx_auc=0.5))
    table.add(path, row(changed="preset=best", test_rnx_auc=0.5))
    kept = [tuple(each[name] for name in ("method", "changed", "seed", "test_rnx_auc")) for each in table.read(path)]
    assert kept == [
        ("opentsne", "defaults", "0", "0.5"),
        ("tsne", "defaults", "0", "0.25"),
        ("tsne", "defaults", "1", "0.75"),
        ("tsne", "preset=best", "0", "0.5"),
    ]
    assert [entry.name for entry in path.parent.iterdir()] == ["scale.csv"]


def test_a_new_column_leaves_earlier_rows_empty_there(tmp_path):
    path = tmp_path / "scale.csv"
    table.add(path, row(test_rnx_auc=0.5, test_knn10=None))
    table.add(path, row(seed=1, test_rnx_auc=0.5, seconds_of_judging=4))
    first, second = table.read(path)
    assert (first["test_knn10"], first["seconds_of_judging"]) == ("", "")
    assert (second["test_knn10"], second["seconds_of_judging"]) == ("", "4")


def test_markdown_has_medians_spread_and_the_best_first(tmp_path):
    for seed, value in ((0, 0.2), (1, 0.21), (2, 0.3)):
        table.add(tmp_path / "scale.csv", row(seed=seed, test_rnx_auc=value))
    table.add(tmp_path / "scale.csv", row(method="opentsne", test_rnx_auc=0.5, version="openTSNE 1.0.4"))
    table.add(tmp_path / "scale.csv", row(set="glove", test_rnx_auc=-0.1, n_train=321_479))
    table.add(tmp_path / "scale.csv", row(set="glove", threads=2, test_rnx_auc=1))
    text = table.markdown(tmp_path)
    lines = text.splitlines()
    assert [line for line in lines if line.startswith("##")] == [
        "## digits, scale protocol",
        "## glove, scale protocol",
        "## glove, scale protocol",
    ]
    first = lines.index("| openTSNE `fit`, `transform` | defaults | 1 | 3.1 + 0.2 | .5000 | openTSNE 1.0.4 | abc |")
    ours = "| `ParametricTSNE` | defaults | 3 | 3.1 + 0.2 | .2100 ± .0500 | fastpdr 0.1.0 | abc |"
    assert lines[first + 1] == ours
    assert lines[first - 2] == "| method | changed | seeds | CPU s | R_NX AUC | version | commit |"
    assert "321,479 training rows, 450 test rows; 1 thread; abacus, 2 cores" in lines
    assert "1,347 training rows, 450 test rows; 2 threads; abacus, 2 cores" in lines
    assert "-.1000" in text
    assert "1.0000" in text


def test_markdown_of_nothing_is_empty(tmp_path):
    assert table.markdown(tmp_path) == ""
