"""Two files of benchmarks beside each other, old against new: ratios to the competitors, and times.

    python bench/compare.py OLD.json NEW.json [--allowed 0.1] [--times]

Exits with 1 where a ratio has fallen by more than is allowed (a tenth). Ratios are those of two things measured in turn
in one process; times depend on the machine of the day and are judged with --times alone, where both files come from
one. A benchmark that is missing in the new file is a loss as well.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from fastpdr.cli.output import aligned

HEAD = ["benchmark", "old", "new", "new / old"]


def ratios(benchmark: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """(Name, ratio) of all contests in one benchmark: each heap of a fresh process is one."""
    extra = benchmark["extra_info"]
    for part, facts in {"": extra, **{key: value for key, value in extra.items() if isinstance(value, dict)}}.items():
        if "ratio" in facts:
            yield f"{benchmark['name']} {part}".rstrip(), float(facts["ratio"])


def seconds(benchmark: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """(Name, median)."""
    yield benchmark["name"], float(benchmark["stats"]["median"])


def read(path: Path) -> list[dict[str, Any]]:
    """The benchmarks of a file of pytest-benchmark."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))["benchmarks"]
    except (ValueError, KeyError, TypeError) as error:
        raise click.BadParameter(f"{path} is no file of pytest-benchmark ({type(error).__name__}: {error})") from error


def compared(
    old: dict[str, float], new: dict[str, float], allowed: float, *, larger_is_better: bool
) -> tuple[list[list[str]], list[str]]:
    """Rows of a table, those that are in both files, and the names of what got worse or is missing."""
    rows, worse = [], [name for name in old if name not in new]
    for name in (name for name in old if name in new):
        change = new[name] / old[name]
        rows.append([name, f"{old[name]:.3g}", f"{new[name]:.3g}", f"{change:.2f}"])
        if change < 1 - allowed if larger_is_better else change > 1 + allowed:
            worse.append(name)
    return rows, worse


@click.command(help=__doc__)
@click.argument("old", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.argument("new", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--allowed", type=click.FloatRange(0, 1), default=0.1, show_default=True, help="Loss that is none.")
@click.option("--times", is_flag=True, help="Judge the times as well.")
def main(old: Path, new: Path, allowed: float, times: bool) -> None:
    """Print the tables."""
    before, after = read(old), read(new)
    lost = []
    for title, values, judged in (("ratio to the competitor", ratios, True), ("median seconds", seconds, times)):
        parts = [dict(pair for benchmark in file for pair in values(benchmark)) for file in (before, after)]
        rows, worse = compared(*parts, allowed, larger_is_better=judged and values is ratios)
        if rows:
            click.echo(f"{title}\n{aligned([HEAD, *rows], numbers=True)}\n")
        if judged:
            lost += [f"{title}: {name}" for name in worse]
    if lost:
        raise click.ClickException(f"worse by more than {100 * allowed:g}%, or missing:\n  " + "\n  ".join(lost))


if __name__ == "__main__":
    main()
