"""The tables of results: a CSV file for each protocol, a row for each run, and what people read of them.

Rows are sorted. A run that was made before takes the place of the earlier one: the same set, method, changes, threads,
machine and seed.
"""

from __future__ import annotations

import csv
import fcntl
import os
import statistics
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

from fastpdr.cli.output import written_aside

from .. import pages
from .methods import METHODS
from .sets import SOURCES

FOLDER = Path(__file__).parents[1] / "results" / "quality"
KEY = ("set", "method", "changed", "threads", "machine", "seed")
INTRODUCTION = """\
# Quality on rows never seen

Written by `python -m bench.quality table --write` from the files beside it; [bench/quality](../../quality/README.md)
says how they are made. Medians of the seeds, ± half of the range from the least to the largest. The best comes first.
Seconds are the processor's in all threads: to fit, neighbours included, + to place the test rows.
"""
COLUMNS = {
    "published": {
        "test_mu": "mu",
        "test_trust7": "trustworthiness",
        "test_cont7": "continuity",
        "test_nh7": "neighbourhood hit",
        "test_mu_self": "mu, self counted",
        "test_rnx_auc": "R_NX AUC",
        "train_mu": "mu, training map",
        "gap_mu": "gap in mu",
    },
    "scale": {
        "test_rnx_auc": "R_NX AUC",
        "test_np15": "preserved of 15",
        "test_trust15": "trustworthiness",
        "test_knn10": "10-NN",
        "transfer_knn10": "10-NN, training map → test rows",
        "train_rnx_auc": "R_NX AUC, training map",
        "train_np15": "preserved of 15, training map",
        "train_trust15": "trustworthiness, training map",
        "train_knn10": "10-NN, training map",
    },
}

Row = dict[str, str]


def as_row(values: dict[str, Any]) -> Row:
    """The values as the file has them: nothing for None."""
    return {key: "" if value is None else str(value) for key, value in values.items()}


def read(path: Path) -> list[Row]:
    """The rows of a table; none where there is no file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def add(path: Path, row: Row) -> None:
    """Put a row into a table, in place of an earlier one of the same key."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _alone_in(path.parent):
        rows = {_key(each): each for each in (*read(path), row)}
        columns = dict.fromkeys(name for each in (row, *rows.values()) for name in each)
        with written_aside(path) as aside, aside.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(columns), restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows[key] for key in sorted(rows))


def markdown(folder: Path) -> str:
    """The tables of a folder as people read them; empty where there are no results."""
    parts = []
    for protocol, columns in COLUMNS.items():
        rows = read(folder / f"{protocol}.csv")
        for (name, threads, machine), section in _groups(rows, ("set", "threads", "machine")):
            sizes = f"{int(section[0]['n_train']):,} training rows, {int(section[0]['n_test']):,} test rows"
            where = f"{threads} thread{'s' if threads != '1' else ''}; {machine}"
            parts += [f"## {name}, {protocol} protocol", f"{sizes}; {where}", _section(section, columns)]
    return "\n\n".join([INTRODUCTION.rstrip(), *parts]) + "\n" if parts else ""


def _section(rows: list[Row], columns: dict[str, str]) -> str:
    lead = next(iter(columns))
    groups = sorted(_groups(rows, ("method", "changed")), key=lambda group: -_median(group[1], lead))
    shown = [name for name in columns if any(row.get(name) for row in rows)]
    head = ["method", "changed", "seeds", "CPU s", *(columns[name] for name in shown), "version", "commit"]
    lines = []
    for (method, changed), runs in groups:
        seconds = f"{_median(runs, 'fit_cpu_s'):.1f} + {_median(runs, 'place_cpu_s'):.1f}"
        sources = [", ".join(sorted({row.get(name, "") for row in runs})) for name in ("version", "commit")]
        figures = [_figure(runs, name) for name in shown]
        lines.append([METHODS[method].title, changed, str(len(runs)), seconds, *figures, *sources])
    return pages.markdown(head, lines)


def _figure(runs: list[Row], name: str) -> str:
    values = [float(row[name]) for row in runs if row.get(name)]
    if not values:
        return ""
    spread = f" ± {_short((max(values) - min(values)) / 2)}" if len(values) > 1 else ""
    return _short(statistics.median(values)) + spread


def _short(value: float) -> str:
    return f"{value:.4f}".replace("0.", ".", 1)


def _median(runs: list[Row], name: str) -> float:
    return statistics.median(float(row[name]) for row in runs)


def _groups(rows: Iterable[Row], names: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], list[Row]]]:
    """Rows that agree in some columns; sets and methods in the order of their declaration."""
    places = {"set": list(SOURCES), "method": list(METHODS)}

    def key(row: Row) -> tuple[str, ...]:
        return tuple(row[name] for name in names)

    def place(row: Row) -> tuple[Any, ...]:
        return tuple(places[name].index(row[name]) if name in places else row[name] for name in names)

    for values, group in groupby(sorted(rows, key=place), key):
        yield values, list(group)


def _key(row: Row) -> tuple[str, ...]:
    return tuple(row[name] for name in KEY)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Two runs may end at the same time."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
