"""One HTML file that shows a map: points to move in, curves, measures, settings.

The file fetches nothing: plotly's program is part of it (4.7 MB), and a content security policy forbids the rest. Each
coordinate and each column is packed once, as base64 of a typed array; the page sorts the points by class itself. The
page is made of the files in `fastpdr/assets`.
"""

from __future__ import annotations

import base64
import html
import importlib
import json
import os
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastpdr import plotting
from fastpdr._files import written_aside
from fastpdr.plotting.maps import Classes, Scale
from fastpdr.plotting.names import LONGEST_NAME, WRITTEN_CLASSES, densest_places

MOST_POINTS = 200_000  # drawn; a browser still moves them at once
CURVE_POINTS = 500
LABEL, HELD_OUT = "label", "training or held out"


def write(
    path: str | os.PathLike[str],
    Z: ArrayLike,
    labels: ArrayLike | None = None,
    *,
    columns: Mapping[str, ArrayLike] | None = None,
    held_out: ArrayLike | None = None,
    scores: Mapping[str, Mapping[str, Any]] | None = None,
    rnx: Mapping[str, ArrayLike] | None = None,
    loss: ArrayLike | None = None,
    config: str | None = None,
    versions: Mapping[str, str] | None = None,
    title: str = "Map",
) -> None:
    """Write a report: one HTML file that needs no network.

    Parameters
    ----------
    path : path-like
        The file; its folder must exist. It is written aside and renamed.
    Z : array-like [n, 2]
        The map, finite, n >= 1. Beyond 200,000 rows the page draws as many at random, always the same, and says so.
    labels : array-like [n], optional
        What colours the points at first: classes or values on a scale, as for :func:`fastpdr.plotting.map`.
    columns : mapping of str to array-like [n], optional
        What else can colour them. Numbers of more than ten different values are on a scale, all else are classes.
    held_out : array-like of bool [n], optional
        Which rows the training has not seen.
    scores : mapping of str to mapping, optional
        The table of measures: a name for each column and its figures, such as :func:`fastpdr.metrics.evaluate` returns.
    rnx : mapping of str to array-like [k_max], optional
        A name for each curve and R_NX(1), R_NX(2), ..., as from :func:`fastpdr.metrics.rnx_curve`.
    loss : array-like [n_epochs], optional
        The loss of each epoch, `loss_history_`.
    config : str, optional
        The settings, as they shall be read.
    versions : mapping of str to str, optional
        Of the programs that the result depends on.
    title : str
        Stands above all.

    Raises
    ------
    ValueError
        Z is not [n, 2] or not finite; labels, a column or held_out has another length; a curve is no row of numbers.
    ModuleNotFoundError
        plotly or matplotlib is not installed.
    OSError
        The file cannot be written.
    """
    points = plotting.as_points(Z, "write")
    n = len(points)
    marked = None if held_out is None else plotting.as_labels(held_out, n, "write", "held_out").astype(bool)
    curves = _curves(rnx or {}, loss)
    program = _plotly()
    drawn = _drawn_rows(n)
    data = {
        "x": _packed(points[drawn, 0].astype(np.float32)),
        "y": _packed(points[drawn, 1].astype(np.float32)),
        "row_numbers": None if len(drawn) == n else _packed(drawn.astype(np.uint32)),
        "held_out": None if marked is None else _packed(marked[drawn].astype(np.uint8)),
        "columns": [
            column | {"values": _packed(column["values"][drawn])}
            for column in _columns(points, labels, columns, marked)
        ],
        "curves": curves,
        **_drawing(),
    }
    page = Template(_asset("report.html")).substitute(
        title=html.escape(title),
        summary=_summary(n, len(drawn), marked),
        style=_asset("report.css"),
        sections="\n".join(_sections(scores or {}, curves, config, versions or {})),
        plotly=program,
        # A tag in a text would end the script.
        data=json.dumps(data, allow_nan=False).replace("<", "\\u003c"),
        program=_asset("report.js"),
    )
    with written_aside(Path(path)) as aside:
        aside.write_text(page, encoding="utf-8")


def _plotly() -> str:
    """Return the program of plotly, or say what to install."""
    try:
        importlib.import_module("matplotlib.colors")
        return importlib.import_module("plotly.offline").get_plotlyjs()
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("a report needs plotly and matplotlib: pip install 'fastpdr[report]'") from error


def _asset(name: str) -> str:
    return (files("fastpdr") / "assets" / name).read_text(encoding="utf-8")


def _packed(values: NDArray) -> dict[str, str]:
    """Return an array as plotly's JSON has it."""
    little = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    return {"dtype": little.dtype.str[1:], "bdata": base64.b64encode(little.tobytes()).decode("ascii")}


def _drawn_rows(n: int) -> NDArray[np.int64]:
    if n <= MOST_POINTS:
        return np.arange(n)
    return np.sort(np.random.default_rng(0).choice(n, MOST_POINTS, replace=False))


def _drawing() -> dict[str, Any]:
    """Return what the page takes over from pictures of maps."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    steps = np.linspace(0, 1, 17)
    return {
        "colors": {
            "single": plotting.TEN_COLORS[0],
            "others": plotting.FRAME_COLOR,
            "missing": plotting.MISSING_COLOR,
            "ramp": [[float(step), to_hex(colormaps["viridis"](step))] for step in steps],
        },
        "ink_share": plotting.INK_SHARE,
        "many_points": plotting.MANY_POINTS,
        "written_classes": WRITTEN_CLASSES,
        "longest_name": LONGEST_NAME,
    }


def _columns(
    points: NDArray,
    labels: ArrayLike | None,
    columns: Mapping[str, ArrayLike] | None,
    held_out: NDArray[np.bool_] | None,
) -> list[dict[str, Any]]:
    """Return what can colour the points, each a scale or classes."""
    n, described = len(points), []
    if labels is not None:
        values = plotting.as_labels(labels, n, "write")
        kind = _scale(values) if plotting.is_continuous(values) else _classes(values, points)
        described.append({"name": LABEL, "is_label": True} | kind)
    for name, column in (columns or {}).items():
        values = plotting.as_labels(column, n, "write", f"columns[{name!r}]")
        described.append({"name": name} | (_scale(values) if _has_many_numbers(values) else _classes(values, points)))
    if held_out is not None:
        parts = np.where(held_out, "held out", "training")
        described.append({"name": HELD_OUT, "is_held_out": True} | _classes(parts, points))
    return described


def _has_many_numbers(values: NDArray) -> bool:
    if values.dtype.kind not in "iuf":
        return False
    return plotting.is_continuous(values) or len(np.unique(values[values == values])) > len(plotting.TEN_COLORS)


def _scale(values: NDArray) -> dict[str, Any]:
    look = Scale.of(values)
    beyond = {"below": look.beyond in ("min", "both"), "above": look.beyond in ("max", "both")}
    ends = {"min": float(look.norm.vmin), "max": float(look.norm.vmax)}
    return {"kind": "scale", "values": values.astype(np.float32)} | ends | beyond


def _classes(values: NDArray, points: NDArray) -> dict[str, Any]:
    """Describe classes: their names, a code for each row (0 for none), and which have colours of their own."""
    from matplotlib.colors import to_hex

    names, codes = plotting.as_classes(values)
    own = _colored(np.bincount(codes[codes >= 0], minlength=len(names)))
    numbers = np.full(len(names) + 1, np.nan)  # the last is for rows without a label
    numbers[own] = np.arange(len(own))
    look = Classes.of(numbers[codes], points)
    places = densest_places(points, look.codes, len(own)) if len(own) > plotting.LEGEND_CLASSES else None
    small = next(dtype for dtype in (np.uint8, np.uint16, np.uint32) if len(names) <= np.iinfo(dtype).max)
    return {
        "kind": "classes",
        "names": names,
        "own": own.tolist(),
        "colors": [to_hex(color) for color in look.palette[:-1]],
        "places": None if places is None else places.tolist(),
        "values": (codes + 1).astype(small),
    }


def _colored(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the classes that get a colour: all, or of very many the largest that are more than one row."""
    most = len(plotting.CLASS_COLORS)
    if len(sizes) <= most:
        return np.arange(len(sizes))
    largest = np.argsort(-sizes, kind="stable")[:most]
    return np.sort(largest[sizes[largest] > 1])


def _curves(rnx: Mapping[str, ArrayLike], loss: ArrayLike | None) -> dict[str, Any]:
    """Return the diagrams by the id of their place on the page."""
    curves: dict[str, Any] = {}
    if loss is not None:
        line = _line("loss", "loss", loss, np.linspace, 0)
        curves["loss"] = {"x": "epoch", "y": "loss", "is_log": False, "lines": [line]}
    if rnx:
        lines = [_line(name, f"rnx[{name!r}]", curve, np.geomspace, i) for i, (name, curve) in enumerate(rnx.items())]
        curves["rnx"] = {"x": "neighbours K", "y": "R<sub>NX</sub>(K)", "is_log": True, "lines": lines}
    return curves


def _line(name: str, argument: str, values: ArrayLike, spread: Callable[..., NDArray], number: int) -> dict[str, Any]:
    """Return a curve over 1, 2, ..., of which a long one keeps as many points as can be told apart."""
    numbers = np.asarray(values)
    if numbers.ndim != 1 or len(numbers) == 0 or numbers.dtype.kind not in "iuf":
        raise ValueError(f"write: {argument} must be numbers [k], k >= 1, got {numbers.dtype} {list(numbers.shape)}")
    k = len(numbers)
    places = np.unique(np.round(spread(1, k, CURVE_POINTS)).astype(int)) if k > CURVE_POINTS else np.arange(1, k + 1)
    known = [float(f"{value:.6g}") if np.isfinite(value) else None for value in numbers[places - 1]]
    color = plotting.TEN_COLORS[number % len(plotting.TEN_COLORS)]
    return {"name": name, "color": color, "x": places.tolist(), "y": known}


def _summary(n: int, n_drawn: int, held_out: NDArray[np.bool_] | None) -> str:
    parts = [f"{n:,} rows"]
    if held_out is not None:
        unseen = int(held_out.sum())
        parts.append(f"{n - unseen:,} for training, {unseen:,} held out")
    if n_drawn < n:
        parts.append(f"{n_drawn:,} of them drawn, chosen at random")
    return " · ".join(parts)


def _sections(
    scores: Mapping[str, Mapping[str, Any]], curves: Mapping[str, Any], config: str | None, versions: Mapping[str, str]
) -> list[str]:
    sections = []
    if scores:
        sections.append(f"<h2>Measures</h2>\n{_table(scores)}")
    if "loss" in curves:
        sections.append('<h2>Loss</h2>\n<div id="loss" class="curve"></div>')
    if "rnx" in curves:
        what = "Agreement of the K nearest neighbours in data and map: 0 is chance, 1 is perfect."
        sections.append(f'<h2>R<sub>NX</sub>(K)</h2>\n<div id="rnx" class="curve"></div>\n<p>{what}</p>')
    if config is not None:
        text = f"<pre>{html.escape(config)}</pre>"
        sections.append(f"<details><summary>Settings</summary>\n{text}\n</details>")
    if versions:
        named = ", ".join(f"{name} {version}" for name, version in versions.items())
        sections.append(f"<h2>Versions</h2>\n<p>{html.escape(named)}</p>")
    return [f"<section>\n{section}\n</section>" for section in sections]


def _table(scores: Mapping[str, Mapping[str, Any]]) -> str:
    names = list(dict.fromkeys(name for figures in scores.values() for name in figures))
    head = "".join(f"<th scope='col'>{html.escape(column)}</th>" for column in ("", *scores))
    rows = []
    for name in names:
        cells = "".join(f"<td>{_figure(figures.get(name))}</td>" for figures in scores.values())
        rows.append(f"<tr><th scope='row'>{html.escape(name.replace('_', ' '))}</th>{cells}</tr>")
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n" + "\n".join(rows) + "\n</tbody>\n</table>"


def _figure(value: Any) -> str:
    value = value.item() if isinstance(value, np.generic) else value
    if value is None or value != value:
        return "&ndash;"
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) < 10 else f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) else html.escape(str(value))
