"""The measurements as people read them, and where they stand in a page."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from .. import pages
from .measure import TITLES

TIMES = "\N{MULTIPLICATION SIGN}"
NAMES = {"digits": "digits", "mnist-5k": "MNIST", "mnist-60k": "MNIST", "glove": "GloVe"}

Record = dict[str, Any]


def read(path: Path) -> Record:
    """The measurements of a file.

    Raises
    ------
    ValueError
        If it holds none.
    OSError
        If it cannot be read.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no JSON ({error})") from error
    if not isinstance(record, dict) or not record.get("fits") or not record.get("imports"):
        raise ValueError(f"{path} must be a file of python -m bench.breakdown run, and holds no fits")
    return record


def markdown(record: Record) -> str:
    """All tables."""
    parts = [_introduction(record)]
    for name in dict.fromkeys(fit["set"] for fit in record["fits"]):
        fits = [fit for fit in record["fits"] if fit["set"] == name]
        parts += [f"### {shape(fits[0])}", _phases(fits, record["imports"]), _facts(fits), _step(fits)]
    return "\n\n".join([*parts, *_network(record)]) + "\n"


def phases_of(fit: Record, imports: dict[str, float]) -> dict[str, dict[str, Any]]:
    """The phases of a fit in a fresh process, in order: {"s", "floor"} of each."""
    return {**{name: {"s": seconds, "floor": None} for name, seconds in imports.items()}, **fit["phases"]}


def _introduction(record: Record) -> str:
    rates = {key: statistics.median(fit["rates"][key] for fit in record["fits"]) for key in record["fits"][0]["rates"]}
    threads = f"{record['threads']} thread{'s' if record['threads'] != 1 else ''}"
    return (
        f"{record['machine']}; {threads}, PyTorch {record['torch']}, commit {record['commit']}. A copy in memory moves "
        f"{rates['memory_gb_s']:.0f} GB/s, a large product makes {rates['float32_gflop_s']:.0f} GFLOP/s in float32 and "
        f"{rates['bfloat16_gflop_s']:.0f} in bf16. "
        "A cell: time · share · floor · time over floor; the last two where something was counted."
    )


def shape(fit: Record) -> str:
    """Rows and columns, and of what."""
    return f"{fit['n']:,} {TIMES} {fit['d']} ({NAMES[fit['set']]})"


def _facts(fits: list[Record]) -> str:
    each = [f"{TITLES[fit['method']]} {fit['steps']:,} of {fit['rows_of_a_batch']:,} rows" for fit in fits]
    stopwatch = max(fit["stopwatch_ms"] / fit["step_ms"] for fit in fits)
    columns, precision = fits[0]["columns"], {fit["precision"] for fit in fits}
    return (
        f"Steps: {', '.join(each)}; the network reads {columns} columns, in {', '.join(sorted(precision))}. "
        f"{fits[0]['measured_steps']} were measured; the stopwatch is {100 * stopwatch:.1f}% of a step at most."
    )


def _phases(fits: list[Record], imports: dict[str, float]) -> str:
    columns = [phases_of(fit, imports) for fit in fits]
    totals = [sum(phase["s"] for phase in column.values()) for column in columns]
    rows = _rows(columns, totals, "s")
    rows.append(["**in all**", *(f"**{_short(total)}**" for total in totals)])
    return pages.markdown(["s of a fit", *(TITLES[fit["method"]] for fit in fits)], rows)


def _step(fits: list[Record]) -> str:
    totals = [fit["step_ms"] for fit in fits]
    rows = _rows([fit["step"] for fit in fits], totals, "ms")
    floors = [sum(part["floor"] or 0 for part in fit["step"].values()) for fit in fits]
    whole = [_cell(total, total, floor) for total, floor in zip(totals, floors, strict=True)]
    rows.append(["**a step**", *(f"**{cell}**" for cell in whole)])
    alone = (f"{_short(fit['network_ms'])}: {fit['step_ms'] / fit['network_ms']:.2f}" for fit in fits)
    rows.append(["the network alone: a step over it", *alone])
    return pages.markdown(["ms of a step", *(TITLES[fit["method"]] for fit in fits)], rows)


def _network(record: Record) -> list[str]:
    """A step over the network alone, by method and precision; nothing where that was not measured."""
    found = record.get("network", [])
    if not found:
        return []
    widths = ", ".join(str(width) for width in found[0]["hidden_dims"])
    precisions = list(dict.fromkeys(each["precision"] for each in found))
    rows = []
    for method in dict.fromkeys(each["method"] for each in found):
        of = {each["precision"]: each for each in found if each["method"] == method}
        rows.append([TITLES[method], *(_against(of.get(precision)) for precision in precisions)])
    title = f"### Over the network alone: layers of {widths}, 784 columns, b = {found[0]['batch_size']}"
    text = "ms of a step / of the network's forward, backward and optimizer, in turn: their ratio."
    return [title, text, pages.markdown(["", *precisions], rows)]


def _against(each: Record | None) -> str:
    return "" if each is None else f"{_short(each['step_ms'])} / {_short(each['network_ms'])}: **{each['ratio']:.2f}**"


def _rows(columns: list[dict[str, dict[str, Any]]], totals: list[float], unit: str) -> list[list[str]]:
    def cell(column: dict[str, dict[str, Any]], total: float, name: str) -> str:
        part = column.get(name)
        return "" if part is None else _cell(part[unit], total, part["floor"])

    names = dict.fromkeys(name for column in columns for name in column)
    return [[name, *(cell(*each, name) for each in zip(columns, totals, strict=True))] for name in names]


def _cell(value: float, total: float, floor: float | None) -> str:
    least = "" if not floor else f" · {_short(floor)} · {_times(value / floor)}{TIMES}"
    return f"{_short(value)} · {_percent(value / total)}{least}"


def _short(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.2g}" if value else "0"


def _times(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%" if share >= 0.005 else "<1%"
