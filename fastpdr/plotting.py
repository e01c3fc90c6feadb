"""Maps drawn: one point per row, coloured by its label.

Figures are made without pyplot: nothing needs a display, no global state changes, and nothing stays in memory
after the caller drops it.  Points are drawn in a random but fixed order, because class after class would let
the last class cover the others.  Colours stay apart under every common form of colour blindness up to ten
classes: Okabe and Ito's eight (yellow and black softened for white paper) and two more, chosen for the largest
smallest distance in Oklab under Machado's simulation.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastpdr._files import written_aside

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TEN_COLORS = (
    *("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#e8d92e", "#222222"),
    *("#7f4f24", "#4b2e83"),
)
MISSING_COLOR = "#d9d9d9"
FRAME_COLOR = "#bbbbbb"
LEGEND_CLASSES = 20
WRITTEN_CLASSES = 60
MANY_POINTS = 100_000
MANY_POINTS_ALPHA = 0.5
DOTS_PER_INCH = 160
# Ink of all points together as a share of the axes' area, and the smallest and largest area of one in points².
INK_SHARE = 0.14
SMALLEST_POINT, LARGEST_POINT = 0.15, 40.0


def map(
    Z: ArrayLike,
    labels: ArrayLike | None = None,
    *,
    ax: Axes | None = None,
    title: str | None = None,
    legend: bool = True,
    point_size: float | None = None,
) -> Axes:
    """Draw a map.

    Parameters
    ----------
    Z : array-like [n, 2]
        The map, finite, n >= 1.
    labels : array-like [n], optional
        What colours the points.  Numbers with fractions are values and get a colour bar; all else are classes: up
        to 20 get a legend, beyond that the names of the largest stand at the median of their points.  Rows without
        a label (NaN, None) are light grey.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default the axes of a new figure, which is the result's ``figure``.
    title : str, optional
        Stands above the map.
    legend : bool
        Whether to say what the colours mean.
    point_size : float, optional
        Area of a point in points²; by default it follows from n and the size of the axes.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        Z is not [n, 2] or not finite, or labels has another length.
    ModuleNotFoundError
        matplotlib is not installed.
    """
    points = _as_points(Z)
    values = None if labels is None else _as_labels(labels, len(points))
    ax = _new_axes() if ax is None else ax
    order = np.random.default_rng(0).permutation(len(points))
    if values is None:
        _scatter(ax, points[order], point_size, color=TEN_COLORS[0])
    elif is_continuous(values):
        _draw_values(ax, points[order], values[order], point_size, legend)
    else:
        _draw_classes(ax, points[order], values[order], point_size, legend)
    _frame(ax, title)
    return ax


def save(figure_or_axes: Figure | Axes, path: str | os.PathLike[str]) -> None:
    """Write a figure to a file whose suffix names the format (.png, .pdf, .svg).

    The file is written aside and renamed: a failure leaves an older file as it was.

    Parameters
    ----------
    figure_or_axes : matplotlib.figure.Figure or matplotlib.axes.Axes
        A figure, or axes of it.
    path : path-like
        The file; its folder must exist.

    Raises
    ------
    ValueError
        matplotlib does not know the format.
    OSError
        The file cannot be written.
    """
    with written_aside(Path(path)) as aside:
        figure_or_axes.figure.savefig(aside, dpi=DOTS_PER_INCH, bbox_inches="tight")  # type: ignore[union-attr]


def is_continuous(labels: ArrayLike) -> bool:
    """Tell whether labels are values on a scale (any number with a fraction) and not classes.

    Parameters
    ----------
    labels : array-like [n]
        Labels of any kind.

    Returns
    -------
    bool
    """
    values = np.asarray(labels)
    if values.dtype.kind != "f":
        return False
    known = values[np.isfinite(values)]
    return bool(np.any(known != np.round(known)))


def require_matplotlib() -> None:
    """Say what to install where matplotlib is missing.

    Raises
    ------
    ModuleNotFoundError
        matplotlib is not installed.
    """
    try:
        importlib.import_module("matplotlib.figure")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("drawing a map needs matplotlib: pip install 'fastpdr[plot]'") from error


def _as_points(Z: ArrayLike) -> NDArray:
    points = np.asarray(Z)
    if points.ndim != 2 or points.shape[1] != 2 or len(points) == 0 or points.dtype.kind not in "iuf":
        raise ValueError(f"map: Z must be numbers [n, 2], got {points.dtype} {list(points.shape)}")
    if not np.isfinite(points).all():
        raise ValueError("map: Z must be finite, got NaN or infinity")
    return points


def _as_labels(labels: ArrayLike, n: int) -> NDArray:
    values = np.asarray(labels)
    if values.shape != (n,):
        raise ValueError(f"map: labels must be [n] = [{n}], got shape {list(values.shape)}")
    return values


def _new_axes() -> Axes:
    require_matplotlib()
    from matplotlib.figure import Figure

    return Figure(figsize=(7.5, 6.5), layout="constrained").subplots()


def _scatter(ax: Axes, points: NDArray, point_size: float | None, **colors: object) -> None:
    n = len(points)
    crowded = n > MANY_POINTS
    ax.scatter(
        points[:, 0],
        points[:, 1],
        s=_automatic_size(ax, n) if point_size is None else point_size,
        linewidths=0,
        alpha=MANY_POINTS_ALPHA if crowded else None,
        # A vector file with a hundred thousand circles opens in minutes.
        rasterized=crowded,
        **colors,  # type: ignore[arg-type]
    )


def _automatic_size(ax: Axes, n: int) -> float:
    box = ax.get_window_extent()
    area = box.width * box.height * (72 / ax.figure.dpi) ** 2
    return float(np.clip(INK_SHARE * area / n, SMALLEST_POINT, LARGEST_POINT))


def _draw_values(ax: Axes, points: NDArray, values: NDArray, point_size: float | None, legend: bool) -> None:
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    known = values[np.isfinite(values)]
    norm, cmap = Normalize(known.min(), known.max()), colormaps["viridis"].with_extremes(bad=MISSING_COLOR)
    _scatter(ax, points, point_size, c=values, norm=norm, cmap=cmap, plotnonfinite=True)
    if legend:
        # Not the points themselves: their transparency would pale the bar.
        bar = ax.figure.colorbar(ScalarMappable(norm, cmap), ax=ax, shrink=0.6, pad=0.02)
        bar.outline.set_visible(False)


def _draw_classes(ax: Axes, points: NDArray, values: NDArray, point_size: float | None, legend: bool) -> None:
    names, codes = _classes(values)
    colors = _class_colors(len(names))
    _scatter(ax, points, point_size, color=colors[codes])
    if legend and len(names) <= LEGEND_CLASSES:
        _add_legend(ax, names, colors)
    elif legend:
        _write_names(ax, points, names, codes)


def _classes(values: NDArray) -> tuple[list[str], NDArray[np.int64]]:
    """Return the names in order and the class of each row, -1 where it has no label."""
    if values.dtype.kind == "O":
        missing = np.array([str(value) in ("None", "nan", "<NA>", "NaT") for value in values], dtype=bool)
    else:
        missing = values != values
    # A list lets NumPy find out what the objects are: numbers sort as numbers.
    classes, known_codes = np.unique(np.array(values[~missing].tolist()), return_inverse=True)
    codes = np.full(len(values), -1)
    codes[~missing] = known_codes
    return [f"{name:.0f}" if classes.dtype.kind == "f" else str(name) for name in classes], codes


def _class_colors(n: int) -> NDArray[np.float64]:
    """Return the colours [n + 1, 4] of n classes; the last is for rows without a label."""
    from matplotlib import colormaps
    from matplotlib.colors import to_rgba_array

    if n <= len(TEN_COLORS):
        colors = to_rgba_array(TEN_COLORS[:n]).reshape(-1, 4)
    elif n <= LEGEND_CLASSES:
        colors = colormaps["tab20"](np.arange(n))
    else:
        colors = colormaps["turbo"](np.linspace(0.03, 0.97, n))
    return np.vstack([colors, to_rgba_array(MISSING_COLOR)])


def _add_legend(ax: Axes, names: list[str], colors: NDArray[np.float64]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], linestyle="", marker="o", markersize=7, color=tuple(color), label=name)
        for name, color in zip(names, colors, strict=False)
    ]
    ax.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0, frameon=False, handletextpad=0.2
    )


def _write_names(ax: Axes, points: NDArray, names: list[str], codes: NDArray[np.int64]) -> None:
    from matplotlib.patheffects import withStroke

    sizes = np.bincount(codes[codes >= 0], minlength=len(names))
    for code in np.argsort(-sizes, kind="stable")[:WRITTEN_CLASSES]:
        x, y = np.median(points[codes == code], axis=0)
        text = ax.text(x, y, names[code], ha="center", va="center", fontsize=9)
        text.set_path_effects([withStroke(linewidth=2.5, foreground="white")])


def _frame(ax: Axes, title: str | None) -> None:
    # The axes of a map mean nothing, only distances do: no ticks, and equal units.
    ax.set(xticks=[], yticks=[], aspect="equal")
    for spine in ax.spines.values():
        spine.set_color(FRAME_COLOR)
    if title is not None:
        ax.set_title(title)
