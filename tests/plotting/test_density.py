"""Very many points as an image."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from fastpdr import plotting

N = plotting.MANY_POINTS + 1
rng = np.random.default_rng(0)
Z = np.vstack([rng.normal(size=(N - 2, 2)), [[30.0, 0.0], [0.0, -30.0]]])  # two alone
SIDE = (rng.random(N) < 0.5).astype(int)


def color_at(ax, x, y):
    """Colour [4] of the image at a place of the map."""
    (image,) = ax.images
    left, right, bottom, top = image.get_extent()
    pixels = image.get_array()
    row = int((y - bottom) / (top - bottom) * pixels.shape[0])
    column = int((x - left) / (right - left) * pixels.shape[1])
    return np.asarray(pixels[row, column])


def test_few_points_are_points():
    ax = plotting.map(Z[:-1])
    assert not ax.images
    assert len(ax.collections[0].get_offsets()) == plotting.MANY_POINTS


def test_every_point_can_be_seen_and_the_limits_hold_all():
    ax = plotting.map(Z)
    assert not ax.collections
    assert ax.get_aspect() == 1
    for x, y in Z[-2:]:
        assert 0.3 < color_at(ax, x, y)[3] <= 1
        assert ax.get_xlim()[0] < x < ax.get_xlim()[1]
        assert ax.get_ylim()[0] < y < ax.get_ylim()[1]
    assert color_at(ax, 25, -25)[3] == 0


def test_without_labels_dense_places_are_darker():
    ax = plotting.map(Z)
    dense, alone = color_at(ax, 0, 0), color_at(ax, 30, 0)
    assert dense[3] == 1
    assert dense[:3].sum() < alone[:3].sum() - 1


def test_classes_have_their_colours_and_mix_where_they_meet():
    left = np.where(Z[:, 0] < 0, 0, 1)
    ax = plotting.map(Z, left)
    for x, color in ((-0.5, plotting.TEN_COLORS[0]), (0.5, plotting.TEN_COLORS[1])):
        np.testing.assert_allclose(color_at(ax, x, 0)[:3], to_rgb(color), atol=0.02)
    np.testing.assert_allclose(color_at(ax, 30, 0)[:3], to_rgb(plotting.TEN_COLORS[1]), atol=0.02)
    mixed = color_at(plotting.map(Z, SIDE), 0, 0)[:3]
    light = (np.array(to_rgb(plotting.TEN_COLORS[0])) ** 2.2 + np.array(to_rgb(plotting.TEN_COLORS[1])) ** 2.2) / 2
    np.testing.assert_allclose(mixed, light ** (1 / 2.2), atol=0.08)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["0", "1"]


def test_values_have_a_colour_bar_and_no_value_is_grey():
    values = np.where(np.arange(N) < N - 1, 0.5, np.nan)
    values[0] = 1.0
    ax = plotting.map(Z, values)
    assert len(ax.figure.axes) == 2
    np.testing.assert_allclose(color_at(ax, 0, -30)[:3], to_rgb(plotting.MISSING_COLOR), atol=0.02)


def test_a_given_size_draws_points():
    ax = plotting.map(Z, point_size=1.0)
    assert not ax.images
    assert ax.collections[0].get_rasterized()


def test_points_all_at_one_place():
    ax = plotting.map(np.zeros((N, 2)))
    assert color_at(ax, 0, 0)[3] == 1


@pytest.mark.parametrize("offset", [1e6, -1e6])
def test_float32_far_from_the_origin(offset):
    far = (Z[:, ::-1] + offset).astype(np.float32)
    ax = plotting.map(far)
    assert color_at(ax, *far[-1])[3] > 0.3


def test_an_image_is_written_fast_and_small(tmp_path):
    plotting.save(plotting.map(Z, SIDE), tmp_path / "map.pdf")
    assert (tmp_path / "map.pdf").stat().st_size < 1e6
