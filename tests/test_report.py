"""What stands in a report, and what is said of bad arguments; test_report_browser.py opens it in a browser."""

from __future__ import annotations

import re
import sys

import numpy as np
import pytest
from matplotlib.colors import to_hex
from reports import Page, unpacked

from fastpdr import plotting, report

pytest.importorskip("plotly")

rng = np.random.default_rng(0)
EVIL = "</script><script>alert(1)</script><b>&amp;"


def points(n):
    return rng.normal(size=(n, 2)).astype(np.float32)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "report.html"


@pytest.fixture
def written(path):
    def write(*arguments, **settings):
        report.write(path, *arguments, **settings)
        return Page(path)

    return write


def names_of(column):
    """The class of each row by its name."""
    return np.array([None, *column["names"]], dtype=object)[unpacked(column["values"])]


def test_the_points_are_there_once(written):
    Z = points(300)
    page = written(Z)
    np.testing.assert_array_equal(unpacked(page.data["x"]), Z[:, 0])
    np.testing.assert_array_equal(unpacked(page.data["y"]), Z[:, 1])
    assert page.data["row_numbers"] is None
    assert page.data["columns"] == []
    assert page.data["held_out"] is None
    assert "300 rows" in page.text
    assert page.source.count(page.data["x"]["bdata"]) == 1


def test_nothing_is_fetched(written):
    page = written(points(3), ["a", "b", EVIL], config="see https://example.org", title="A map")
    for tag, attributes in page.elements:
        assert tag not in ("iframe", "object", "embed", "img", "base")
        for name in ("src", "href", "srcset", "data", "action"):
            assert attributes.get(name, "data:,") == "data:,", (tag, attributes)
    policy = next(attributes["content"] for tag, attributes in page.elements if "http-equiv" in attributes)
    assert policy.startswith("default-src 'none';")
    assert "http" not in policy
    assert page.source.count("plotly.js v") == 1
    style = re.search(r"<style>(.*?)</style>", page.source, re.DOTALL)[1]
    assert "url(" not in style
    assert "@import" not in style


def test_text_stays_text(written):
    page = written(
        points(3),
        [EVIL, "b", "b"],
        columns={EVIL: [1, 2, 3]},
        scores={EVIL: {EVIL: EVIL}},
        rnx={EVIL: [0.5, 0.1]},
        config=EVIL,
        versions={EVIL: EVIL},
        title=EVIL,
    )
    assert [kind for kind, _ in page.scripts] == [None, "application/json", None]
    assert not [tag for tag, _ in page.elements if tag == "b"]
    assert page.text.count(EVIL) == 1 + 1 + 3 + 1 + 2  # title and heading, table, settings, versions
    assert page.data["columns"][0]["names"] == [EVIL, "b"]
    assert page.data["columns"][1]["name"] == EVIL


def test_labels_are_classes_with_the_colours_of_pictures(written):
    labels = np.array(["cat", "ant", "bee", "ant"])
    column = written(points(4), labels).data["columns"][0]
    assert (column["name"], column["kind"], column["is_label"]) == ("label", "classes", True)
    assert column["names"] == ["ant", "bee", "cat"]
    assert column["colors"] == list(plotting.TEN_COLORS[:3])
    assert column["values"]["dtype"] == "u1"
    assert list(names_of(column)) == list(labels)


def test_rows_without_a_label_have_code_0(written):
    column = written(points(3), np.array(["a", None, "b"], dtype=object)).data["columns"][0]
    assert list(names_of(column)) == ["a", None, "b"]


def test_values_are_a_scale(written):
    labels = np.array([0.5, np.nan, 2.25, -1.0])
    column = written(points(4), labels).data["columns"][0]
    assert (column["kind"], column["min"], column["max"]) == ("scale", -1.0, 2.25)
    assert not column["below"]
    assert not column["above"]
    np.testing.assert_array_equal(unpacked(column["values"]), labels.astype(np.float32))


def test_a_scale_leaves_outliers_beyond_its_ends(written):
    column = written(points(1000), np.r_[np.linspace(0, 1, 999), 1e6]).data["columns"][0]
    assert column["max"] <= 1.0
    assert column["above"]


def test_a_scale_without_any_value(written):
    column = written(points(2), columns={"empty": [np.nan, np.inf], "also": [0.5, np.nan]}).data["columns"][1]
    assert (column["kind"], column["min"], column["max"]) == ("scale", 0.5, 0.5)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (np.arange(30) % 10, "classes"),
        (np.arange(30) % 11, "scale"),
        (np.arange(30) % 2 == 0, "classes"),
        (np.arange(30) % 2 + 0.5, "scale"),
        (np.array(["x", "y", "z"] * 10), "classes"),
    ],
)
def test_kinds_of_columns(written, values, kind):
    column = written(points(30), columns={"one": values}).data["columns"][0]
    assert (column["name"], column["kind"]) == ("one", kind)


def test_of_very_many_classes_the_largest_have_colours(written):
    labels = np.r_[np.arange(400), 7, 300, 300]
    column = written(points(403), labels).data["columns"][0]
    assert column["values"]["dtype"] == "u2"
    assert [column["names"][code] for code in column["own"]] == ["7", "300"]
    assert column["colors"] == list(plotting.TEN_COLORS[:2])


def test_many_classes_have_the_colours_of_pictures_and_places(written):
    labels = np.arange(90) % 30
    Z = points(30)[labels]
    column = written(Z, labels).data["columns"][0]
    drawn = plotting.map(Z, labels).collections[0]
    where = np.flatnonzero((drawn.get_offsets() == Z[7]).all(axis=1))[0]
    assert column["colors"][column["names"].index("7")] == to_hex(drawn.get_facecolors()[where])
    np.testing.assert_allclose(column["places"][7], Z[7], rtol=1e-6)
    assert len(set(column["colors"])) == 30


def test_held_out_rows_are_marked(written):
    held_out = np.arange(10) >= 6
    page = written(points(10), held_out=held_out)
    np.testing.assert_array_equal(unpacked(page.data["held_out"]), held_out)
    column = page.data["columns"][0]
    assert list(names_of(column)) == ["training"] * 6 + ["held out"] * 4
    assert "10 rows · 6 for training, 4 held out" in page.text


def test_more_rows_than_a_browser_can_move_are_sampled(written, monkeypatch):
    monkeypatch.setattr(report, "MOST_POINTS", 50)
    Z, labels = points(200), np.arange(200) % 3
    page = written(Z, labels, held_out=labels == 0)
    rows = unpacked(page.data["row_numbers"])
    assert len(np.unique(rows)) == 50
    np.testing.assert_array_equal(unpacked(page.data["x"]), Z[rows, 0])
    assert list(names_of(page.data["columns"][0])) == [str(labels[row]) for row in rows]
    np.testing.assert_array_equal(unpacked(page.data["held_out"]), labels[rows] == 0)
    assert "200 rows · 133 for training, 67 held out · 50 of them drawn, chosen at random" in page.text
    assert page.source == written(Z, labels, held_out=labels == 0).source


def test_measures_stand_side_by_side(written):
    scores = {
        "training": {"rnx_auc": np.float64(0.51234), "n_samples": 12345, "training_time_seconds": 123.45},
        "held out": {"rnx_auc": 0.4, "silhouette": float("nan"), "n_samples": np.int64(7)},
    }
    page = written(points(3), scores=scores)
    assert "training held out rnx auc 0.5123 0.4000 n samples 12,345 7" in page.text
    assert "training time seconds 123.5 \u2013" in page.text
    assert "silhouette \u2013 \u2013" in page.text


def test_curves(written):
    page = written(points(3), loss=[3.0, 2.0, 1.0], rnx={"training": np.linspace(0.6, 0, 5000), "held out": [0.25]})
    loss, rnx = page.data["curves"]["loss"], page.data["curves"]["rnx"]
    assert (loss["lines"][0]["x"], loss["lines"][0]["y"]) == ([1, 2, 3], [3.0, 2.0, 1.0])
    training, held_out = rnx["lines"]
    assert (training["name"], held_out["name"], held_out["y"]) == ("training", "held out", [0.25])
    assert training["color"] != held_out["color"]
    x = training["x"]
    assert len(x) <= report.CURVE_POINTS
    assert (x[0], x[-1]) == (1, 5000)
    np.testing.assert_allclose(training["y"], np.linspace(0.6, 0, 5000)[np.array(x) - 1], atol=1e-6)


def test_a_loss_that_is_no_number_leaves_a_gap(written):
    assert written(points(3), loss=[1.0, np.nan]).data["curves"]["loss"]["lines"][0]["y"] == [1.0, None]


def test_what_is_not_given_takes_no_place(written):
    page = written(points(3))
    assert not [tag for tag, _ in page.elements if tag in ("table", "details", "h2")]
    assert page.data["curves"] == {}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"Z": np.zeros((3, 3))}, r"write: Z must be numbers \[n, 2\], got float64 \[3, 3\]"),
        ({"Z": [[0, np.inf]]}, "write: Z must be finite"),
        ({"labels": [1]}, r"write: labels must be \[n\] = \[3\], got shape \[1\]"),
        ({"columns": {"a": [1]}}, r"write: columns\['a'\] must be \[n\] = \[3\], got shape \[1\]"),
        ({"held_out": [True]}, r"write: held_out must be \[n\] = \[3\], got shape \[1\]"),
        ({"loss": []}, r"write: loss must be numbers \[k\], k >= 1, got float64 \[0\]"),
        ({"loss": ["a"]}, r"write: loss must be numbers"),
        ({"rnx": {"training": [[1.0]]}}, r"write: rnx\['training'\] must be numbers \[k\]"),
    ],
)
def test_bad_arguments(path, settings, message):
    with pytest.raises(ValueError, match=message):
        report.write(path, **{"Z": np.zeros((3, 2))} | settings)
    assert not list(path.parent.iterdir())


@pytest.mark.parametrize("module", ["plotly.offline", "matplotlib.colors"])
def test_missing_packages(path, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        ModuleNotFoundError, match=r"a report needs plotly and matplotlib: pip install 'fastpdr\[report\]'"
    ):
        report.write(path, points(3))
    assert not list(path.parent.iterdir())


def test_a_failed_write_leaves_the_old_file(path, monkeypatch):
    path.write_text("old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        report.write(path, points(3))
    assert path.read_text() == "old"
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_the_folder_must_exist(tmp_path):
    with pytest.raises(FileNotFoundError):
        report.write(tmp_path / "none" / "report.html", points(3))


def test_a_report_is_small_beside_its_program(path):
    plotly = len(report._plotly())
    report.write(path, points(100_000), np.arange(100_000) % 10)
    # Eight bytes of coordinates, one of the class; base64 has four letters for three of them.
    assert path.stat().st_size - plotly < 100_000 * 9 * 4 / 3 + 50_000
