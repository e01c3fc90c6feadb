"""The command ``python -m bench.breakdown``: ``run``, ``table`` and ``picture``.

Bad input ends with exit code 2 before anything has run, a fit that fails with 1 after the others have been made.
"""

from __future__ import annotations

import json
import os
from itertools import product
from pathlib import Path
from typing import Any

import click

from fastpdr._methods import METHODS
from fastpdr.cli.output import written_aside

from ..pages import put
from ..quality import sets
from ..quality.run import RunError
from . import measure
from . import picture as pictures
from . import table as tables

LARGE = ("mnist-5k", "mnist-60k", "glove")
COMPARED = "mnist-5k"  # the set beside which the network alone is measured, with rows of its shape
FILE = click.Path(path_type=Path, dir_okay=False)


class Refused(click.ClickException):
    """Bad input, in one line."""

    exit_code = 2


@click.group()
def main() -> None:
    """Where the time of a fit goes."""


@main.command("run")
@click.option("--method", "methods", type=click.Choice(list(METHODS)), multiple=True, default=list(METHODS))
@click.option("--set", "names", type=click.Choice(list(measure.SETS)), multiple=True, default=LARGE)
@click.option("--threads", type=click.IntRange(min=1), default=os.cpu_count(), show_default=True)
@click.option(
    "--steps", type=click.IntRange(min=2), default=400, show_default=True, help="To measure, after ten others."
)
@click.option("--output", type=FILE, required=True, help="JSON file of the results.")
@click.option("--picture", type=FILE, help="Draw the results into this file as well.")
def run_command(
    methods: tuple[str, ...], names: tuple[str, ...], threads: int, steps: int, output: Path, picture: Path | None
) -> None:
    """Fit methods to sets, each in a process of its own, and write where the time went.

    --method and --set may be given more than once; by default all methods, on mnist-5k, mnist-60k and glove. Neighbours
    and similarities are found in full, and of the training --steps steps are made.
    """
    _require(names, [path for path in (output, picture) if path is not None])
    record: dict[str, Any] = {**measure.circumstances(threads), "imports": measure.imports(threads), "fits": []}
    work: list[tuple[str, str, dict[str, Any]]] = [
        ("fits", "fit", {"name": name, "method": method, "threads": threads, "steps": steps})
        for name, method in product(names, methods)
    ]
    if COMPARED in names:
        both = product(methods, ("float32", "bfloat16"))
        work += [
            ("network", "against", {"method": method, "precision": each, "threads": threads}) for method, each in both
        ]
    failed = False
    for key, what, arguments in work:
        try:
            found = measure.in_fresh_process(what, arguments)
        except RunError as error:
            click.echo(f"Error: {what} {arguments}: {error}", err=True)
            failed = True
            continue
        record.setdefault(key, []).append(found)
        with written_aside(output) as aside:
            aside.write_text(json.dumps(record, indent=1) + "\n")
        click.echo(f"{what} {arguments}", err=True)
    if record["fits"]:
        click.echo(tables.markdown(record), nl=False)
        if picture is not None:
            _draw(record, picture)
    if failed:
        raise SystemExit(1)


@main.command("table")
@click.argument("file", type=FILE)
@click.option("--write", "page", type=FILE, help="Put the tables into this page instead of printing them.")
def table_command(file: Path, page: Path | None) -> None:
    """Show the results of a file as tables in Markdown."""
    text = tables.markdown(_read(file))
    if page is None:
        click.echo(text, nl=False)
        return
    try:
        put(text, page)
    except (OSError, ValueError) as error:
        raise Refused(str(error)) from error
    click.echo(f"wrote {page}")


@main.command("picture")
@click.argument("file", type=FILE)
@click.argument("picture", type=FILE)
def picture_command(file: Path, picture: Path) -> None:
    """Draw the results of a file."""
    _draw(_read(file), picture)


def _require(names: tuple[str, ...], written: list[Path]) -> None:
    """Refuse sets that are not there and files that cannot be written."""
    try:
        for name in names:
            sets.require(*measure.SETS[name][:2])
        for path in written:
            path.parent.mkdir(parents=True, exist_ok=True)
            with written_aside(path.with_suffix(".probe")) as probe:
                probe.touch()
            path.with_suffix(".probe").unlink()
    except (OSError, ValueError) as error:
        raise Refused(str(error)) from error


def _read(file: Path) -> tables.Record:
    try:
        return tables.read(file)
    except (OSError, ValueError) as error:
        raise Refused(str(error)) from error


def _draw(record: tables.Record, path: Path) -> None:
    try:
        pictures.draw(record, path)
    except (ImportError, OSError, ValueError) as error:
        raise Refused(str(error)) from error
    click.echo(f"wrote {path}")


if __name__ == "__main__":
    main(prog_name="python -m bench.breakdown")
