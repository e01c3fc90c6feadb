"""The command ``python -m bench.quality``: ``run``, ``table`` and ``gallery``.

Bad input ends with exit code 2 before anything has run, a run that fails with 1 after the others have been made; a
method whose package is missing is skipped with a line that says so.
"""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import click

from fastpdr.cli.output import aligned, written_aside

from . import gallery, sets, table
from .methods import METHODS, NotInstalledError
from .run import InputError, RunError, in_fresh_process, written

METHOD = click.option("--method", "methods", type=click.Choice(list(METHODS)), multiple=True, required=True)
THREADS = click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True)
PRESET = click.option("--preset", help="Short for --param preset=...")
PARAM = click.option(
    "--param", "settings", multiple=True, metavar="NAME=VALUE", help="A parameter of the method; JSON or text."
)
OUTPUT = click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=table.FOLDER,
    help="Folder of the tables.  [default: bench/results/quality]",
)


class Refused(click.ClickException):
    """Bad input, in one line."""

    exit_code = 2


@click.group()
def main() -> None:
    """What maps of rows never seen are worth."""


@main.command("run")
@METHOD
@click.option("--set", "names", type=click.Choice(list(sets.SOURCES)), multiple=True, required=True)
@click.option("--protocol", type=click.Choice(list(table.COLUMNS)), default="published", show_default=True)
@click.option("--seed", "seeds", type=int, multiple=True, default=[0], help="Of the method.  [default: 0]")
@THREADS
@PRESET
@PARAM
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@OUTPUT
def run_command(
    methods: tuple[str, ...],
    names: tuple[str, ...],
    protocol: str,
    seeds: tuple[int, ...],
    threads: int,
    preset: str | None,
    settings: tuple[str, ...],
    debug: bool,
    output: Path,
) -> None:
    """Fit methods to sets, each in a process of its own, and add a row a run to the protocol's table.

    --method, --set, --seed and --param may be given more than once.
    """
    changed = _parameters(preset, settings)
    try:
        for name in names:
            sets.require(name, protocol)
    except (ValueError, FileNotFoundError) as error:
        raise Refused(str(error)) from error
    failed = False
    for name, method, seed in product(names, methods, seeds):
        what = f"{method} on {name}, seed {seed}, {written(changed)}"
        arguments = {"method": method, "name": name, "protocol": protocol, "seed": seed, "threads": threads}
        try:
            row = table.as_row(in_fresh_process({**arguments, "changed": changed}, debug))
        except NotInstalledError as error:
            click.echo(f"skipped {what}: {error}")
        except InputError as error:
            raise Refused(f"{what}: {error}") from error
        except RunError as error:
            click.echo(f"Error: {what}: {error}", err=True)
            failed = True
        else:
            table.add(output / f"{protocol}.csv", row)
            click.echo(f"{what}\n{aligned(list(row.items()))}")
    if failed:
        raise SystemExit(1)


@main.command("table")
@click.option("--write", is_flag=True, help="Write README.md beside the files instead of printing.")
@OUTPUT
def table_command(write: bool, output: Path) -> None:
    """Show the results: medians and spread over the seeds, the peers beside."""
    text = table.markdown(output)
    if not text:
        raise Refused(f"{output} holds no results; python -m bench.quality run makes some")
    if not write:
        click.echo(text, nl=False)
        return
    with written_aside(output / "README.md") as aside:
        aside.write_text(text, encoding="utf-8")
    click.echo(f"wrote {output / 'README.md'}")


@main.command("gallery")
@METHOD
@click.option("--set", "name", type=click.Choice(list(sets.SOURCES)), required=True)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the method.")
@THREADS
@PRESET
@PARAM
@click.argument("picture", type=click.Path(path_type=Path, dir_okay=False))
def gallery_command(
    methods: tuple[str, ...],
    name: str,
    seed: int,
    threads: int,
    preset: str | None,
    settings: tuple[str, ...],
    picture: Path,
) -> None:
    """Draw the maps of a set into a file: training rows above, rows never seen below, a column for each --method."""
    try:
        gallery.draw(methods, name, seed, threads, _parameters(preset, settings), picture)
    except (NotInstalledError, ValueError, TypeError, OSError) as error:
        raise Refused(str(error)) from error
    click.echo(f"wrote {picture}")


def _parameters(preset: str | None, settings: tuple[str, ...]) -> dict[str, Any]:
    changed: dict[str, Any] = {} if preset is None else {"preset": preset}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not (key.isidentifier() and equals):
            raise click.BadParameter(f"expected name=value, got {setting}", param_hint="--param")
        if key in changed:
            raise click.BadParameter(f"{key} is given twice", param_hint="--param")
        try:
            changed[key] = json.loads(value)
        except json.JSONDecodeError:
            changed[key] = value
    return changed


if __name__ == "__main__":
    main(prog_name="python -m bench.quality")
