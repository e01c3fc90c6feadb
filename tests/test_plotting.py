"""Maps drawn: colours, legends, files; never pyplot."""

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


def test_many_classes_are_written_at_their_median():
    centers = points(30) * 100
    ax = plotting.map(np.repeat(centers, 3, axis=0), np.repeat(np.arange(30), 3))
    assert ax.get_legend() is None
    places = {text.get_text(): text.get_position() for text in ax.texts}
    assert places.keys() == {str(i) for i in range(30)}
    np.testing.assert_allclose(places["7"], centers[7])


def test_only_the_largest_of_very_many_classes_are_written():
    labels = np.r_[np.arange(200), np.repeat(150, 5)]
    ax = plotting.map(points(205), labels)
    assert len(ax.texts) == plotting.WRITTEN_CLASSES
    assert ax.texts[0].get_text() == "150"


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


def test_many_points_are_small_pale_and_rasterised():
    few, many = dots(plotting.map(points(1000))), dots(plotting.map(points(100_001)))
    assert many.get_sizes()[0] < few.get_sizes()[0]
    assert many.get_alpha() < 1
    assert many.get_rasterized()
    assert few.get_alpha() is None
    assert not few.get_rasterized()


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
