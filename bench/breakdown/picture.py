"""Fits as three bars each: the whole, its phases, and what the steps of the training are made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .measure import TITLES
from .table import Record, phases_of, shape

LETTERS = 0.0062  # share of the width that a letter takes
TOP, PHASES, PARTS = 2, 1, 0  # heights of the bars


def draw(record: Record, path: Path) -> None:
    """Draw all fits of a record into a file, each to its own scale of time.

    Raises
    ------
    ImportError
        Without matplotlib.
    OSError, ValueError
        If the file cannot be written, or its ending is unknown.
    """
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    fits = record["fits"]
    colors = _colors(record, plt.get_cmap("tab20"))
    figure, axes = plt.subplots(len(fits), 1, figsize=(12, 1.25 * len(fits) + 0.8), squeeze=False)
    for axis, fit in zip(axes[:, 0], fits, strict=True):
        _bars(axis, fit, record["imports"], colors)
    handles = [plt.Rectangle((0, 0), 1, 1, color=color) for color in colors.values()]
    figure.tight_layout(rect=(0, 0.9 / figure.get_figheight(), 1, 1))
    figure.legend(handles, colors, loc="lower center", ncols=9, frameon=False, fontsize=8)
    try:
        figure.savefig(path, dpi=110)
    finally:
        plt.close(figure)


def _colors(record: Record, palette: Any) -> dict[str, Any]:
    """One of each phase and part, the same in all fits."""
    names: dict[str, None] = {}
    for fit in record["fits"]:
        names |= dict.fromkeys([*phases_of(fit, record["imports"]), *fit["step"]])
    return {name: palette(place % palette.N) for place, name in enumerate(names)}


def _bars(axis: Any, fit: Record, imports: dict[str, float], colors: dict[str, Any]) -> None:
    phases = {name: phase["s"] for name, phase in phases_of(fit, imports).items()}
    whole, before = sum(phases.values()), 0.0
    label = f"{TITLES[fit['method']]}, {shape(fit)}: {whole:.1f} s"
    axis.barh(TOP, whole, height=1, color="0.85", edgecolor="white")
    axis.text(whole / 2, TOP, label, ha="center", va="center", fontsize=8)
    for name, seconds in phases.items():
        _segment(axis, before, seconds, PHASES, name, colors[name], whole)
        if name == "training":
            start = before
            for part, value in fit["step"].items():
                took = value["ms"] / 1000 * fit["steps"]
                _segment(axis, start, took, PARTS, part, colors[part], whole)
                start += took
        before += seconds
    axis.set(xlim=(0, whole), ylim=(PARTS - 0.5, TOP + 0.5), yticks=[])
    axis.tick_params(labelsize=7)
    for side in ("top", "left", "right"):
        axis.spines[side].set_visible(False)


def _segment(axis: Any, begin: float, seconds: float, height: int, name: str, color: Any, whole: float) -> None:
    """A part of a bar, named where the name has room."""
    axis.barh(height, seconds, left=begin, height=1, color=color, edgecolor="white", linewidth=0.5)
    words = (f"{name} {100 * seconds / whole:.0f}%", name)
    fitting = next((text for text in words if len(text) * LETTERS < seconds / whole), None)
    if fitting:
        axis.text(begin + seconds / 2, height, fitting, ha="center", va="center", fontsize=7)
