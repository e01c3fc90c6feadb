"""Colours of classes: as far apart as the page says, near ones unlike."""

from __future__ import annotations

import numpy as np
import pytest

from fastpdr import plotting
from fastpdr.plotting import colors


def smallest_distance(names):
    lab = colors._oklab(names)
    distances = np.linalg.norm(lab[:, None] - lab, axis=2)
    return distances[~np.eye(len(lab), dtype=bool)].min()


@pytest.mark.parametrize(("n", "least"), [(10, 0.14), (20, 0.12), (79, 0.07), (100, 0.065)])
def test_colours_are_far_apart(n, least):
    assert smallest_distance(plotting.class_colors(n)) > least


@pytest.mark.parametrize("grey", [plotting.MISSING_COLOR, plotting.FRAME_COLOR, "#ffffff"])
def test_no_class_looks_like_none(grey):
    assert all(smallest_distance([grey, color]) > 0.06 for color in plotting.CLASS_COLORS)


def test_oklab_of_white_and_of_the_published_red():
    # https://bottosson.github.io/posts/oklab, and CSS Color 4 for #ff0000
    np.testing.assert_allclose(colors._oklab(["#ffffff", "#ff0000"]), [[1, 0, 0], [0.628, 0.225, 0.126]], atol=1e-3)


def test_the_order_of_colours_does_not_depend_on_how_many():
    assert plotting.class_colors(3) == list(plotting.TEN_COLORS[:3])
    assert plotting.class_colors(30) == plotting.class_colors(50)[:30]


def test_more_than_a_hundred_classes_share_a_grey():
    assert plotting.class_colors(103)[100:] == [plotting.FRAME_COLOR] * 3


@pytest.mark.parametrize("n", [1, 2, 79, 103])
def test_near_classes_get_unlike_colours(n):
    places = np.random.default_rng(0).uniform(size=(n, 2))
    apart = colors.colors_apart(places)
    assert sorted(apart) == sorted(plotting.class_colors(n))
    if n == 79:

        def unlikeness(names):
            lab = colors._oklab(names)
            far = np.linalg.norm(places[:, None] - places, axis=2) + 9 * np.eye(n)
            return np.linalg.norm(lab - lab[far.argmin(axis=1)], axis=1)

        assert unlikeness(apart).min() > 2 * unlikeness(plotting.class_colors(n)).min()


def test_places_may_coincide():
    assert len(set(colors.colors_apart(np.zeros((30, 2))))) == 30
