"""Maps drawn: one point per row, coloured by its label; one map, or several side by side.

Points are drawn in a random but fixed order, because class after class would let the last class cover the others.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastpdr.plotting.colors import (
    MISSING_COLOR,
    TEN_COLORS,
    as_classes,
    as_labels,
    class_colors,
    colors_apart,
    is_continuous,
)
from fastpdr.plotting.density import shade
from fastpdr.plotting.figures import add_legend, frame_map, new_figure
from fastpdr.plotting.names import densest_places, write_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEGEND_CLASSES = 20
MANY_POINTS = 100_000
# Ink of all points together as a share of the axes' area, and the smallest and largest area of one in points².
INK_SHARE = 0.14
SMALLEST_POINT, LARGEST_POINT = 0.15, 40.0
MARGIN = 0.04
PANEL = 4.4  # inches
OUTLIERS = 0.005  # the share of values at either end that has no colours of its own


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
        The map, finite, n >= 1. More than 100,000 points are drawn as an image: each of its cells has the mean colour
        of its points and is the stronger the more there are; without labels their number is the colour.
    labels : array-like [n], optional
        What colours the points. Numbers with fractions are values and get a colour bar; all else are classes: up
        to 20 get a legend, beyond that the names stand on the map where there is room, the largest first. Rows without
        a label (NaN, None) are light grey; beyond 100 classes the smallest have a grey in common.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default the axes of a new figure, which is the result's ``figure``.
    title : str, optional
        Stands above the map.
    legend : bool
        Whether to say what the colours mean.
    point_size : float, optional
        Area of a point in points², for any number of points; by default it follows from n and the size of the axes.

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
    points = as_points(Z, "map")
    look = _look_of(None if labels is None else as_labels(labels, len(points), "map"), points)
    ax = new_figure(7.5, 6.5).subplots() if ax is None else ax
    _draw(ax, points, look, point_size)
    frame_map(ax, title)
    if legend:
        _explain([ax], [points], [look])
    return ax


def compare(
    maps: Mapping[str, ArrayLike | tuple[ArrayLike, ArrayLike]],
    labels: ArrayLike | None = None,
    *,
    legend: bool = True,
    point_size: float | None = None,
    same_frame: bool = False,
    columns: int | None = None,
) -> NDArray[Any]:
    """Draw maps side by side, with the same colours and one legend.

    Parameters
    ----------
    maps : mapping of str to array-like [n, 2], or to a tuple of that and labels [n]
        The maps by their titles, each as for :func:`map`. A tuple has labels of its own: for maps of other rows.
    labels : array-like [n], optional
        Of the rows of all maps that have none of their own.
    legend : bool
        Whether to say what the colours mean.
    point_size : float, optional
        As for :func:`map`.
    same_frame : bool
        Whether all panels show the same part of the plane, as befits other rows on the same map.
    columns : int, optional
        Maps in a row of panels, at least 1. By default up to three, then as near to a square as can be.

    Returns
    -------
    numpy.ndarray of matplotlib.axes.Axes [len(maps)]
        In the order of the maps, in a new figure.

    Raises
    ------
    ValueError
        There are no maps, or one of them or its labels are not as for :func:`map`; only some have labels; columns is
        not at least 1.
    ModuleNotFoundError
        matplotlib is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> from fastpdr import plotting
    >>> Z = np.random.default_rng(0).normal(size=(50, 2))
    >>> axes = plotting.compare({"train": (Z[:30], np.arange(30) % 3), "test": (Z[30:], np.arange(20) % 3)})
    >>> plotting.save(axes[0], "maps.png")  # doctest: +SKIP
    """
    if not maps:
        raise ValueError("compare: maps must hold at least one map, got none")
    if columns is not None and columns < 1:
        raise ValueError(f"compare: columns must be at least 1, got {columns}")
    pairs = [value if isinstance(value, tuple) else (value, labels) for value in maps.values()]
    points = [as_points(Z, f"compare: {name}") for name, (Z, _) in zip(maps, pairs, strict=True)]
    looks = _looks_of(maps, [y for _, y in pairs], points)
    axes = _panels(len(maps), columns)
    everything, most = np.vstack(points), max(len(Z) for Z in points)
    for ax, name, Z, look in zip(axes, maps, points, looks, strict=True):
        _draw(ax, Z, look, point_size or (None if most > MANY_POINTS else _automatic_size(ax, most)))
        frame_map(ax, name)
        ax.title.set_parse_math(False)
        x, y = square_around(everything if same_frame else Z)
        ax.set(xlim=x, ylim=y)
    if legend:
        _explain(list(axes), points, looks)
    return axes


def as_points(Z: ArrayLike, function: str) -> NDArray:
    """Return a map as an array [n, 2], or say in the name of a function what is wrong with it."""
    points = np.asarray(Z)
    if points.ndim != 2 or points.shape[1] != 2 or len(points) == 0 or points.dtype.kind not in "iuf":
        raise ValueError(f"{function}: Z must be numbers [n, 2], got {points.dtype} {list(points.shape)}")
    if not np.isfinite(points).all():
        raise ValueError(f"{function}: Z must be finite, got NaN or infinity")
    return points


def square_around(points: NDArray) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the limits in x and in y of the square around points [n, 2], with a margin."""
    low, high = points.min(axis=0), points.max(axis=0)
    reach = float((high - low).max()) * (0.5 + MARGIN)
    x, y = (low + high) / 2
    return (float(x - reach), float(x + reach)), (float(y - reach), float(y + reach))


@dataclass(frozen=True)
class Scale:
    """Labels that are values."""

    values: NDArray  # [n]
    norm: Any
    cmap: Any

    @classmethod
    def of(cls, values: NDArray) -> Scale:
        from matplotlib import colormaps
        from matplotlib.colors import Normalize

        known = values[np.isfinite(values)]
        low = np.quantile(known, OUTLIERS, method="lower")
        high = np.quantile(known, 1 - OUTLIERS, method="higher")
        if low == high:
            low, high = known.min(), known.max()
        return cls(values, Normalize(low, high), colormaps["viridis"].with_extremes(bad=MISSING_COLOR))

    @property
    def beyond(self) -> str:
        """On which sides there are values beyond the scale, as matplotlib says it."""
        low, high = np.nanmin(self.values) < self.norm.vmin, np.nanmax(self.values) > self.norm.vmax
        return {(True, True): "both", (True, False): "min", (False, True): "max"}.get((low, high), "neither")

    def part(self, rows: slice) -> Scale:
        """Return the labels of some rows."""
        return replace(self, values=self.values[rows])

    def colors(self) -> NDArray[np.float64]:
        """Return the colours of the rows [n, 4]."""
        return self.cmap(self.norm(np.ma.masked_invalid(self.values)))


@dataclass(frozen=True)
class Classes:
    """Labels that are classes."""

    names: list[str]
    codes: NDArray[np.int64]  # [n], -1 for none
    palette: NDArray[np.float64]  # [classes + 1, 4], the last for rows without a label

    @classmethod
    def of(cls, values: NDArray, points: NDArray) -> Classes:
        from matplotlib.colors import to_rgba_array

        names, codes = as_classes(values)
        colors = class_colors(len(names))
        if len(names) > LEGEND_CLASSES:
            largest = np.argsort(-np.bincount(codes[codes >= 0]), kind="stable")
            apart = colors_apart(densest_places(points, codes, len(names))[largest])
            for code, color in zip(largest, apart, strict=True):
                colors[code] = color
        return cls(names, codes, to_rgba_array([*colors, MISSING_COLOR]))

    @property
    def sizes(self) -> NDArray[np.int64]:
        """How many rows each class has."""
        return np.bincount(self.codes[self.codes >= 0], minlength=len(self.names))

    def part(self, rows: slice) -> Classes:
        """Return the labels of some rows."""
        return replace(self, codes=self.codes[rows])

    def colors(self) -> NDArray[np.float64]:
        """Return the colours of the rows [n, 4]."""
        return self.palette[self.codes]


Look = Scale | Classes | None


def _look_of(labels: NDArray | None, points: NDArray) -> Look:
    if labels is None:
        return None
    return Scale.of(labels) if is_continuous(labels) else Classes.of(labels, points)


def _looks_of(names: Iterable[str], labels: Sequence[ArrayLike | None], points: Sequence[NDArray]) -> list[Look]:
    """Return what colours the points of each map, by the labels of all together."""
    if all(values is None for values in labels):
        return [None] * len(points)
    values = []
    for name, given, Z in zip(names, labels, points, strict=True):
        if given is None:
            raise ValueError(f"compare: labels must be there for all maps or for none, got none for {name}")
        values.append(as_labels(given, len(Z), f"compare: {name}"))
    look: Any = _look_of(np.concatenate(values), np.vstack(points))
    ends = np.cumsum([len(part) for part in values])
    return [look.part(slice(end - len(part), end)) for end, part in zip(ends, values, strict=True)]


def _panels(n: int, columns: int | None) -> NDArray[Any]:
    """Return axes [n] of a new figure."""
    columns = min(n, columns or (3 if n <= 3 else math.ceil(math.sqrt(n))))
    rows = math.ceil(n / columns)
    axes = new_figure(PANEL * columns + 1, PANEL * rows).subplots(rows, columns, squeeze=False).ravel()
    for ax in axes[n:]:
        ax.remove()
    return axes[:n]


def _draw(ax: Axes, points: NDArray, look: Look, point_size: float | None) -> None:
    n = len(points)
    if n > MANY_POINTS and point_size is None:
        shade(ax, points, None if look is None else look.colors())
        return
    order = np.random.default_rng(0).permutation(n)
    colors: dict[str, Any] = {"color": TEN_COLORS[0]}
    if isinstance(look, Classes):
        colors = {"color": look.colors()[order]}
    elif isinstance(look, Scale):
        colors = {"c": look.values[order], "norm": look.norm, "cmap": look.cmap, "plotnonfinite": True}
    size = _automatic_size(ax, n) if point_size is None else point_size
    x, y = points[order].T
    # A vector file with a hundred thousand circles opens in minutes.
    ax.scatter(x, y, s=size, linewidths=0, rasterized=n > MANY_POINTS, **colors)


def _automatic_size(ax: Axes, n: int) -> float:
    box = ax.get_window_extent()
    area = box.width * box.height * (72 / ax.figure.dpi) ** 2
    return float(np.clip(INK_SHARE * area / n, SMALLEST_POINT, LARGEST_POINT))


def _explain(axes: list[Axes], points: list[NDArray], looks: list[Look]) -> None:
    """Say what the colours mean, once for all axes."""
    from matplotlib.cm import ScalarMappable

    look = looks[0]
    if isinstance(look, Scale):
        style: dict[str, Any] = {"shrink": 0.6, "pad": 0.02, "extend": look.beyond}
        bar = axes[0].figure.colorbar(ScalarMappable(look.norm, look.cmap), ax=axes, **style)
        bar.outline.set_visible(False)
    elif isinstance(look, Classes) and len(look.names) <= LEGEND_CLASSES:
        add_legend(axes, look.names, list(look.palette[:-1]))
    else:
        for ax, Z, part in zip(axes, points, looks, strict=True):
            if isinstance(part, Classes):
                places = densest_places(Z, part.codes, len(part.names))
                write_names(ax, part.names, part.palette, places, part.sizes)
