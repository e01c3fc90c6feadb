"""Very many points as an image: every cell shows the mean colour of its points, the stronger the more there are.

Points drawn over each other would show whichever came last. Colours are averaged as light, so that a mixture of
classes looks like one; where nothing colours the points, their number does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CELLS_PER_INCH = 130
MARGIN = 0.03  # around the points, as a share of their extent
BLUR = 0.8  # of a point, in cells: one alone can be seen
FAINTEST = 0.35  # opacity of a cell with a single point
# From few points to many where only their number is shown: around the blue of single points.
STEPS = (0.0, 0.45, 1.0)
STEP_COLORS = ((0.60, 0.81, 0.94), (0.0, 0.45, 0.70), (0.0, 0.10, 0.22))
FULL_SHARE = 0.97  # of the cells are less than wholly opaque


def shade(ax: Axes, points: NDArray, colors: NDArray[np.float64] | None) -> None:
    """Draw points [n, 2] of colours [n, 3 or more], or of none, as an image in axes of equal units."""
    low, cell, shape = _grid(ax, points)
    rows, columns = shape
    place = np.minimum(((points - low) / cell).astype(np.int64), [columns - 1, rows - 1])
    cells = place[:, 1] * columns + place[:, 0]
    counts = _blurred(np.bincount(cells, minlength=rows * columns), shape)
    strength = _strength(counts)
    image = np.empty((rows, columns, 4))
    if colors is None:
        image[:] = _by_number(strength)
    else:
        for channel in range(3):
            light = np.bincount(cells, colors[:, channel] ** 2.2, rows * columns)
            image[..., channel] = (_blurred(light, shape) / np.maximum(counts, 1e-12)).clip(0, 1) ** (1 / 2.2)
        image[..., 3] = strength
    x, y = low
    extent = (x, x + columns * cell, y, y + rows * cell)
    ax.imshow(image, extent=extent, origin="lower", interpolation="antialiased")


def _grid(ax: Axes, points: NDArray) -> tuple[NDArray[np.float64], float, tuple[int, int]]:
    """Return the lower left corner of the cells, their side, and how many rows and columns of them there are."""
    low, high = points.min(axis=0).astype(np.float64), points.max(axis=0).astype(np.float64)
    margin = MARGIN * float((high - low).max()) or 0.5
    span = high - low + 2 * margin
    box = ax.get_window_extent()
    cell = float((span * ax.figure.dpi / CELLS_PER_INCH / (box.width, box.height)).max())
    columns, rows = np.ceil(span / cell).astype(int)
    return low - margin, cell, (int(rows), int(columns))


def _blurred(cells: NDArray, shape: tuple[int, int]) -> NDArray[np.float64]:
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(cells.reshape(shape).astype(np.float64), BLUR)


def _strength(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return opacities from 0 to 1: by the logarithm of the number of points, from that of a single one on."""
    single = 1 / (2 * np.pi * BLUR**2)
    full = max(float(np.quantile(counts[counts > single / 2], FULL_SHARE)), 2 * single)
    log_share = np.log(np.maximum(counts, single) / single) / np.log(full / single)
    return np.minimum(counts / single, 1) * (FAINTEST + (1 - FAINTEST) * log_share.clip(0, 1))


def _by_number(strength: NDArray[np.float64]) -> NDArray[np.float64]:
    share = (strength - FAINTEST) / (1 - FAINTEST)
    channels = [np.interp(share, STEPS, column) for column in np.transpose(STEP_COLORS)]
    return np.stack([*channels, (strength / FAINTEST).clip(0, 1)], axis=-1)
