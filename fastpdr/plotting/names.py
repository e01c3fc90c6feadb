"""Names of many classes, written on the map: each at the densest place of its class, none over another.

The largest classes choose first. A name whose place is taken moves away, with a line to where it belongs; one that
finds no room is left out, and a note below the map says how many are written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastpdr.plotting.colors import CLASS_COLORS
from fastpdr.plotting.figures import shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WRITTEN_CLASSES = 100
LONGEST_NAME = 24
FONT_SIZES = ((30, 9.0), (50, 8.0), (WRITTEN_CLASSES, 7.0))  # up to so many classes, in points
SHADE = 0.55  # of a class's colour, in which its name is written
CELLS = 48  # across the map, to find dense places
DIRECTIONS = 16
REACH = np.arange(0, 5.5, 0.6)  # how far a name may move, in its own height
NOTE_STYLE: dict[str, Any] = {"fontsize": 8, "color": "#777777"}


def write_names(
    ax: Axes, names: Sequence[str], colors: NDArray[np.float64], places: NDArray[np.float64], sizes: NDArray[np.int64]
) -> None:
    """Write names of n classes in shades of their colours [n, 3 or more] on a map that is complete but for them.

    A class lies at its place [n, 2] and has its size [n]; one without points has no name.
    """
    present = int(np.count_nonzero(sizes))
    largest = np.argsort(-sizes, kind="stable")[: min(present, WRITTEN_CLASSES)]
    ax.set_xlabel(" ", **NOTE_STYLE)  # its place is taken before the axes are measured
    ax.figure.draw_without_rendering()  # type: ignore[union-attr]
    to_points = 72 / ax.figure.dpi
    frame = np.asarray(ax.get_window_extent().extents) * to_points
    anchors = ax.transData.transform(places) * to_points
    font_size = next(size for limit, size in FONT_SIZES if len(largest) <= limit)
    taken = np.empty((0, 4))
    for code in largest:
        text = _text(ax, names[code], places[code], font_size, colors[code])
        extent = text.get_window_extent()
        size = np.array([extent.width, extent.height]) * to_points
        offset = _free_offset(anchors[code], size, taken, frame)
        if offset is None:
            text.remove()
            continue
        text.set_position(offset)
        moved = bool(offset.any())
        text.arrow_patch.set_visible(moved)
        text.set_zorder(3 if moved else 4)  # so that no line runs over a name that stands where it belongs
        taken = np.vstack([taken, _box(anchors[code] + offset, size)])
    if len(taken) < present:
        grey = f"; {len(CLASS_COLORS)} have colours" if len(names) > len(CLASS_COLORS) else ""
        ax.set_xlabel(f"names of {len(taken)} of {present} classes, the largest first{grey}")


def densest_places(points: NDArray, codes: NDArray[np.int64], n: int) -> NDArray[np.float64]:
    """Return where each of n classes lies [n, 2]: at the median of its points in and around its fullest cell.

    The median of all would stand between the parts of a class that is torn in two. A class without points is nowhere.
    """
    from scipy.ndimage import gaussian_filter

    low = points.min(axis=0)
    cell = float((points.max(axis=0) - low).max()) / CELLS or 1.0
    places = np.full((n, 2), np.nan)
    order = np.argsort(codes, kind="stable")
    for code, rows in enumerate(np.split(order, np.searchsorted(codes[order], np.arange(n + 1)))[1:-1]):
        if len(rows) == 0:
            continue
        own = points[rows]
        cells = ((own - low) / cell).astype(np.int64)
        counts = np.zeros((CELLS + 1, CELLS + 1))
        np.add.at(counts, (cells[:, 0], cells[:, 1]), 1)
        smooth = gaussian_filter(counts, 1.0)
        peak = np.unravel_index(smooth.argmax(), smooth.shape)
        near = (np.abs(cells - peak) <= 1).all(axis=1)
        places[code] = np.median(own[near] if near.any() else own, axis=0)
    return places


def _text(ax: Axes, name: str, place: NDArray, font_size: float, color: NDArray[np.float64]) -> Any:
    from matplotlib.patheffects import withStroke

    shade = tuple(SHADE * color[:3])
    line = {"arrowstyle": "-", "color": shade, "linewidth": 0.7, "shrinkA": 0, "shrinkB": 0}
    text = ax.annotate(
        shortened(name, LONGEST_NAME),
        tuple(place),
        xytext=(0, 0),
        textcoords="offset points",
        ha="center",
        va="center",
        fontsize=font_size,
        color=shade,
        arrowprops=line,
        parse_math=False,
    )
    text.set_path_effects([withStroke(linewidth=2.2, foreground="white")])
    return text


def _free_offset(anchor: NDArray, size: NDArray, taken: NDArray, frame: NDArray) -> NDArray[np.float64] | None:
    """Return how far [2] a name of that size must move to lie over no other and within the frame, all in points."""
    angles = np.linspace(0, 2 * np.pi, DIRECTIONS, endpoint=False)
    for reach in REACH:
        radius = np.array([reach * size[1] + min(reach, 1) * size[0] / 2, reach * size[1]])
        offsets = radius * np.column_stack([np.cos(angles), np.sin(angles)])
        boxes = _box(anchor + offsets, size)
        inside = np.all((boxes[:, :2] >= frame[:2]) & (boxes[:, 2:] <= frame[2:]), axis=1)
        apart = (boxes[:, None, :2] >= taken[:, 2:]) | (boxes[:, None, 2:] <= taken[:, :2])
        free = inside & np.all(np.any(apart, axis=2), axis=1)
        if free.any():
            return offsets[free.argmax()]
    return None


def _box(center: NDArray, size: NDArray) -> NDArray[np.float64]:
    """Return left, bottom, right, top [..., 4]."""
    return np.concatenate([center - size / 2, center + size / 2], axis=-1)
