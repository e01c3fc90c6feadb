"""The tables of results: one CSV file a protocol, sorted, one row a run.

A run that was made before takes the place of the earlier one: same set, method, changes, threads, machine and seed.
"""

from __future__ import annotations

import csv
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastpdr.cli.output import written_aside

FOLDER = Path(__file__).parents[1] / "results" / "quality"
KEY = ("set", "method", "changed", "threads", "machine", "seed")

Row = dict[str, str]


def as_row(values: dict[str, object]) -> Row:
    """The values as the file has them: figures to five decimals, nothing for None."""
    return {key: _as_text(value) for key, value in values.items()}


def _as_text(value: object) -> str:
    return "" if value is None else f"{value:.5f}" if isinstance(value, float) else str(value)


def read(path: Path) -> list[Row]:
    """The rows of a table, none where there is no file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def add(path: Path, row: Row) -> None:
    """Put a row into a table, in place of an earlier one of the same key."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _alone_in(path.parent):
        rows = {_key(earlier): earlier for earlier in read(path)}
        rows[_key(row)] = row
        columns = dict.fromkeys(key for each in (row, *rows.values()) for key in each)
        with written_aside(path) as aside, aside.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(columns), restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows[key] for key in sorted(rows))


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
