"""Maps drawn: colours, legends, names, files; never pyplot."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from matplotlib.colors import to_rgba_array
from matplotlib.figure import Figure

from fastpdr import plotting

rng = np.random.default_rng(0)


def points(n):
    return rng.normal(size=(n, 2)).astype(np.float32)


def dots(ax):
    return ax.collections[0]


def legend_names(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def color_of(ax, Z, row):
    """Colour of a row's point, found by its place."""
    place = np.flatnonzero(np.all(dots(ax).get_offsets() == Z[row], axis=1))[0]
    return tuple(dots(ax).get_facecolors()[place])


def test_without_labels():
    Z = points(50)
    ax = plotting.map(Z, title="A map")
    assert ax.get_title() == "A map"
    assert ax.get_legend() is None
    assert len(np.unique(dots(ax).get_facecolors(), axis=0)) == 1
    np.testing.assert_array_equal(np.sort(dots(ax).get_offsets(), axis=0), np.sort(Z, axis=0))
    assert ax.get_aspect() == 1
    assert len(ax.get_xticks()) == len(ax.get_yticks()) == 0


def test_draws_into_given_axes():
    figure = Figure()
    left, right = figure.subplots(1, 2)
    assert plotting.map(points(5), ax=right) is right
    assert not left.collections


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (np.array(["b", "a", "c"]), ["a", "b", "c"]),
        (np.array([2, 10, 1]), ["1", "2", "10"]),
        (np.array([2.0, 10.0, 1.0]), ["1", "2", "10"]),
        ([True, False, True], ["False", "True"]),
        (np.array([2, 10, 1], dtype=object), ["1", "2", "10"]),
    ],
)
def test_classes_get_a_legend_in_order(labels, names):
    assert legend_names(plotting.map(points(3), labels)) == names


def test_legend_and_points_agree():
    Z, labels = points(60), np.arange(60) % 10
    ax = plotting.map(Z, labels)
    handles = ax.get_legend().legend_handles
    for row in range(10):
        assert color_of(ax, Z, row) == pytest.approx(to_rgba_array(handles[row].get_color())[0])


@pytest.mark.parametrize("n", [1, 2, 10, 11, 20, 21, 100])
def test_every_class_has_its_own_colour(n):
    ax = plotting.map(points(200), np.arange(200) % n)
    assert len(np.unique(dots(ax).get_facecolors(), axis=0)) == n


def written(ax):
    """The names on a map with the places that they belong to."""
    return {text.get_text(): text.xy for text in ax.texts}


def test_many_classes_are_written_where_they_are():
    centers = points(30) * 100
    ax = plotting.map(np.repeat(centers, 3, axis=0), np.repeat(np.arange(30), 3))
    assert ax.get_legend() is None
    assert ax.get_xlabel().strip() == ""
    places = written(ax)
    assert places.keys() == {str(i) for i in range(30)}
    np.testing.assert_allclose(places["7"], centers[7])


def test_a_class_in_two_parts_is_written_at_the_larger():
    Z = np.vstack([[[0, 0]] * 6, [[100, 0]] * 5, np.column_stack([np.full(25, 50), np.linspace(50, 90, 25)])])
    ax = plotting.map(Z, [0] * 11 + list(range(1, 26)))
    assert written(ax)["0"] == (0, 0)


def text_boxes(ax):
    """Extents of names [n, 4] without the lines that some have."""
    from matplotlib.text import Text

    ax.figure.draw_without_rendering()
    return np.array([Text.get_window_extent(text).extents for text in ax.texts])


@pytest.mark.parametrize("spread", [10.0, 1.0])
def test_names_lie_in_the_frame_and_never_over_each_other(spread):
    centers = points(79) * spread
    Z = np.repeat(centers, 20, axis=0) + points(79 * 20)
    ax = plotting.map(Z, np.array([f"a long name of class {i}" for i in range(79)])[np.repeat(np.arange(79), 20)])
    found = text_boxes(ax)
    overlap = np.minimum(found[:, None, 2:], found[:, 2:]) - np.maximum(found[:, None, :2], found[:, :2])
    assert np.all((overlap < 0.5).any(axis=2) | np.eye(len(found), dtype=bool))
    frame = ax.get_window_extent().extents
    assert np.all(found[:, :2] >= frame[:2] - 0.5)
    assert np.all(found[:, 2:] <= frame[2:] + 0.5)
    assert len(found) > 30
    missing = "" if len(found) == 79 else f"names of {len(found)} of 79 classes, the largest first"
    assert ax.get_xlabel().strip() == missing


def test_a_name_that_had_to_move_has_a_line():
    Z = np.repeat([[0.0, 0.0], *points(25)], 2, axis=0)
    Z[2:4] = 0.0
    ax = plotting.map(Z, np.repeat(np.arange(26), 2))
    by_name = {text.get_text(): text for text in ax.texts}
    assert not by_name["0"].arrow_patch.get_visible()
    assert by_name["1"].arrow_patch.get_visible()


def test_of_very_many_classes_the_largest_have_names_and_colours():
    labels = np.r_[np.arange(200), np.repeat(150, 5)]
    Z = points(205)
    ax = plotting.map(Z, labels)
    assert len(ax.texts) <= plotting.WRITTEN_CLASSES
    assert ax.texts[0].get_text() == "150"
    assert ax.get_xlabel() == f"names of {len(ax.texts)} of 200 classes, the largest first; 100 have colours"
    grey = to_rgba_array(plotting.FRAME_COLOR)[0]
    assert color_of(ax, Z, 199) == pytest.approx(grey)
    assert color_of(ax, Z, 150) != pytest.approx(grey)


@pytest.mark.parametrize("n", [3, 30])
def test_names_are_no_formulas_and_may_be_long(n, tmp_path):
    names = np.array(["$x$", "_hidden", "a" * 80, *(f"c{i}" for i in range(3, n))])[np.arange(90) % n]
    ax = plotting.map(points(90), names)
    plotting.save(ax, tmp_path / "map.png")
    shown = legend_names(ax) if n == 3 else [text.get_text() for text in ax.texts]
    assert {"$x$", "_hidden"} < set(shown)
    assert max(len(name) for name in shown) == (32 if n == 3 else 24)


def test_values_get_a_colour_bar():
    Z = points(40)
    ax = plotting.map(Z, Z[:, 0])
    assert len(ax.figure.axes) == 2
    assert dots(ax).get_cmap().name == "viridis"
    assert len(plotting.map(Z, Z[:, 0], legend=False).figure.axes) == 1


@pytest.mark.parametrize("n", [3, 30])
def test_legend_can_be_left_out(n):
    ax = plotting.map(points(60), np.arange(60) % n, legend=False)
    assert ax.get_legend() is None
    assert not ax.texts


@pytest.mark.parametrize("labels", [[1.0, np.nan, 2.0], np.array(["a", None, "b"], dtype=object)])
def test_rows_without_a_label_are_grey(labels):
    Z = points(3)
    ax = plotting.map(Z, labels)
    assert color_of(ax, Z, 1) == pytest.approx(to_rgba_array(plotting.MISSING_COLOR)[0])
    assert len(legend_names(ax)) == 2


def test_values_without_a_number_are_grey():
    Z = points(4)
    ax = plotting.map(Z, [0.5, np.nan, 1.5, np.inf])
    ax.figure.draw_without_rendering()
    for row in (1, 3):
        assert color_of(ax, Z, row) == pytest.approx(to_rgba_array(plotting.MISSING_COLOR)[0])


def test_no_label_at_all():
    assert legend_names(plotting.map(points(2), [None, None])) == []


def test_many_points_are_small():
    few, many = dots(plotting.map(points(1000))), dots(plotting.map(points(100_000)))
    assert many.get_sizes()[0] < few.get_sizes()[0]
    assert not few.get_rasterized()


def test_outliers_do_not_bleach_the_other_values():
    values = np.linspace(0, 1, 1000) + 0.0001
    values[:3] = [-500.0, 900.0, np.nan]
    ax = plotting.map(points(1000), values)
    low, high = dots(ax).get_clim()
    assert 0 < low < 0.1
    assert 0.9 < high < 1.1
    assert ax.figure.axes[1]._colorbar.extend == "both"
    few = plotting.map(points(3), [0.5, 1.0, 7.0])
    assert dots(few).get_clim() == (0.5, 7.0)
    assert few.figure.axes[1]._colorbar.extend == "neither"


def test_point_size():
    assert dots(plotting.map(points(10), point_size=3.5)).get_sizes() == [3.5]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [([0.5, 1.0], True), ([1.0, np.nan, 2.0], False), ([1, 2], False), (["a"], False), ([np.nan], False)],
)
def test_is_continuous(labels, expected):
    assert plotting.is_continuous(labels) is expected


@pytest.mark.parametrize("Z", [np.zeros(3), np.zeros((3, 3)), np.zeros((0, 2)), np.array([["a", "b"]])])
def test_bad_maps(Z):
    with pytest.raises(ValueError, match=r"map: Z must be numbers \[n, 2\]"):
        plotting.map(Z)


def test_maps_that_are_not_finite():
    with pytest.raises(ValueError, match="map: Z must be finite"):
        plotting.map([[0.0, np.nan]])


@pytest.mark.parametrize("labels", [[1], [[1], [2]]])
def test_bad_labels(labels):
    with pytest.raises(ValueError, match=r"map: labels must be \[n\] = \[2\]"):
        plotting.map(points(2), labels)


# Side by side


def test_compare_draws_each_map_with_one_legend():
    first, second, labels = points(30), points(30), np.arange(30) % 3
    axes = plotting.compare({"first": first, "$second$": second}, labels)
    assert [ax.get_title() for ax in axes] == ["first", "$second$"]
    for ax, Z in zip(axes, (first, second), strict=True):
        np.testing.assert_array_equal(np.sort(dots(ax).get_offsets(), axis=0), np.sort(Z, axis=0))
        assert ax.get_legend() is None
        low, high = zip(ax.get_xlim(), ax.get_ylim(), strict=True)
        assert np.all(low < Z.min(axis=0))
        assert np.all(high > Z.max(axis=0))
        assert high[0] - low[0] == pytest.approx(high[1] - low[1])
    (legend,) = axes[0].figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["0", "1", "2"]
    assert not plotting.compare({"a": first}, labels, legend=False)[0].figure.legends


def test_compare_takes_labels_of_their_own_and_gives_a_class_one_colour():
    first, second = points(4), points(3)
    left, right = plotting.compare({"a": (first, ["x", "z", "z", None]), "b": (second, ["y", "z", "x"])})
    assert color_of(left, first, 1) == color_of(right, second, 1)
    assert color_of(left, first, 0) == color_of(right, second, 2)
    assert color_of(left, first, 3) == pytest.approx(to_rgba_array(plotting.MISSING_COLOR)[0])
    assert [text.get_text() for text in left.figure.legends[0].get_texts()] == ["x", "y", "z"]


def test_compare_without_labels_and_with_values():
    Z = points(20)
    assert not plotting.compare({"a": Z, "b": Z})[0].figure.legends
    axes = plotting.compare({"a": (Z, Z[:, 0]), "b": (Z, 2 * Z[:, 0])})
    assert len(axes[0].figure.axes) == 3
    assert dots(axes[0]).get_clim() == dots(axes[1]).get_clim()


def test_compare_in_the_same_frame():
    left, right = plotting.compare({"train": points(50), "test": points(5) / 10}, same_frame=True)
    assert left.get_xlim() == right.get_xlim()
    assert left.get_ylim() == right.get_ylim()
    assert dots(left).get_sizes() == dots(right).get_sizes()


@pytest.mark.parametrize(
    ("n", "columns", "grid"),
    [
        (1, None, (1, 1)),
        (3, None, (1, 3)),
        (4, None, (2, 2)),
        (5, None, (2, 3)),
        (8, None, (3, 3)),
        (8, 4, (2, 4)),
        (3, 5, (1, 3)),
        (3, 1, (3, 1)),
    ],
)
def test_compare_arranges_its_panels(n, columns, grid):
    axes = plotting.compare({str(i): points(3) for i in range(n)}, columns=columns)
    assert axes.shape == (n,)
    assert axes[0].get_gridspec().get_geometry() == grid
    assert len(axes[0].figure.axes) == n


def test_compare_refuses_no_columns():
    with pytest.raises(ValueError, match="columns must be at least 1, got 0"):
        plotting.compare({"a": points(3)}, columns=0)


def test_compare_names_many_classes_on_each_map():
    left, right = plotting.compare({"a": points(60), "b": points(60)}, np.arange(60) % 30)
    assert {text.get_text() for text in left.texts} | {text.get_text() for text in right.texts} <= {
        str(i) for i in range(30)
    }
    assert len(left.texts) > 20


def test_compare_of_classes_that_a_map_has_not():
    left, right = plotting.compare({"a": (points(50), np.arange(50) % 25), "b": (points(4), [0, 0, 1, 99])})
    assert {text.get_text() for text in right.texts} == {"0", "1", "99"}
    assert right.get_xlabel().strip() == ""
    assert "99" not in written(left)


@pytest.mark.parametrize(
    ("maps", "labels", "message"),
    [
        ({}, None, "compare: maps must hold at least one map, got none"),
        ({"a": np.zeros((3, 3))}, None, r"compare: a: Z must be numbers \[n, 2\]"),
        ({"a": np.zeros((3, 2)), "b": np.zeros((2, 2))}, [1, 2, 3], r"compare: b: labels must be \[n\] = \[2\]"),
        ({"a": (np.zeros((1, 2)), [1]), "b": np.zeros((2, 2))}, None, "for all maps or for none, got none for b"),
    ],
)
def test_bad_comparisons(maps, labels, message):
    with pytest.raises(ValueError, match=message):
        plotting.compare(maps, labels)


# Files


@pytest.mark.parametrize(("suffix", "begin"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_save(tmp_path, suffix, begin):
    ax = plotting.map(points(20), np.arange(20) % 3)
    for drawn in (ax, ax.figure):
        path = tmp_path / f"map.{suffix}"
        plotting.save(drawn, path)
        assert path.read_bytes().startswith(begin)
        assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "map.png"
    path.write_text("old")
    ax = plotting.map(points(3))

    def fail(aside, **_):
        aside.write_text("half")
        raise OSError("disk full")

    monkeypatch.setattr(ax.figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        plotting.save(ax, path)
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_unknown_picture_format(tmp_path):
    with pytest.raises(ValueError, match="xyz"):
        plotting.save(plotting.map(points(3)), tmp_path / "map.xyz")
    assert not list(tmp_path.iterdir())


def test_matplotlib_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ModuleNotFoundError, match="needs matplotlib: pip install 'fastpdr\\[plot\\]'"):
        plotting.map(points(3))


def test_pyplot_is_never_imported(tmp_path):
    code = (
        "import sys; from fastpdr import plotting; assert 'matplotlib' not in sys.modules;"
        f"plotting.save(plotting.map([[0, 1], [1, 0]], [0.5, 2]), {str(tmp_path / 'map.png')!r});"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert (tmp_path / "map.png").exists()
