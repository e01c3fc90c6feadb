"""Figures made, framed, explained by a legend, and written to files."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastpdr._files import written_aside
from fastpdr.plotting.colors import FRAME_COLOR

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DOTS_PER_INCH = 160
LONGEST_NAME = 32  # letters of it that are shown


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


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of so many inches, which lays itself out."""
    require_matplotlib()
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def frame_map(ax: Axes, title: str | None) -> None:
    """Draw the frame of a map. Its axes mean nothing, only distances do: no ticks, and equal units."""
    ax.set(xticks=[], yticks=[], aspect="equal")
    for spine in ax.spines.values():
        spine.set_color(FRAME_COLOR)
    if title is not None:
        ax.set_title(title)


def frame_curves(ax: Axes, title: str | None, x: str, y: str) -> None:
    """Draw the frame of a diagram."""
    ax.set(xlabel=x, ylabel=y)
    ax.grid(color="#eeeeee")
    ax.set_axisbelow(True)
    for side, spine in ax.spines.items():
        spine.set_color(FRAME_COLOR)
        spine.set_visible(side in ("left", "bottom"))
    ax.tick_params(which="both", color=FRAME_COLOR)
    if title is not None:
        ax.set_title(title)


def add_legend(axes: list[Axes], names: Sequence[str], colors: Sequence[Any]) -> None:
    """Add a legend of dots beside axes, or one beside all of them."""
    from matplotlib.lines import Line2D

    dot: dict[str, Any] = {"linestyle": "", "marker": "o", "markersize": 7}
    style: dict[str, Any] = {"borderaxespad": 0, "frameon": False, "handletextpad": 0.2}
    style["handles"] = [Line2D([], [], color=color, label=str(i), **dot) for i, color in enumerate(colors)]
    if len(axes) == 1:
        legend = axes[0].legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), **style)
    else:
        legend = axes[0].figure.legend(loc="outside right center", **style)
    set_texts(legend, [shortened(name) for name in names])


def set_texts(legend: Any, names: Sequence[str]) -> None:
    """Name the entries of a legend, none a formula, and none left out that begins with an underscore."""
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set(text=name, parse_math=False)


def shortened(name: str, longest: int = LONGEST_NAME) -> str:
    """Return a name that takes one line, and not a long one."""
    line = " ".join(name.split())
    return line if len(line) <= longest else line[: longest - 1].rstrip() + "…"
