"""The command: ``python -m bench.quality run ...`` and ``table``. Bad input ends with exit code 2, a failure with 1."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import yaml

from .run import run, settle_threads

RESULTS = Path(__file__).parents[1] / "results" / "quality"


@click.group()
def main() -> None:
    """Judge maps of rows never seen."""


def _parameters(preset: str | None, settings: tuple[str, ...]) -> dict[str, Any]:
    changed: dict[str, Any] = {} if preset is None else {"preset": preset}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not (key and equals):
            raise click.BadParameter(f"expected name=value, got {setting}", param_hint="--param")
        changed[key] = yaml.safe_load(value)
    return changed


@main.command("run")
@click.option("--method", required=True)
@click.option("--set", "name", required=True)
@click.option("--protocol", type=click.Choice(["published", "scale"]), required=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--threads", default=1, show_default=True, type=click.IntRange(min=1))
@click.option("--preset")
@click.option("--param", "settings", multiple=True, metavar="NAME=VALUE")
@click.option("--output", default=RESULTS, type=click.Path(path_type=Path, file_okay=False), show_default=True)
def run_command(
    method: str,
    name: str,
    protocol: str,
    seed: int,
    threads: int,
    preset: str | None,
    settings: tuple[str, ...],
    output: Path,
) -> None:
    """Fit a method to a set and add a row to the table."""
    changed = _parameters(preset, settings)
    settle_threads(threads)
    values = run(method, name, protocol, seed, threads, changed)
    from .table import add, as_row  # it imports fastpdr, and imports are timed

    row = as_row(values)
    add(output / f"{protocol}.csv", row)
    for key, value in row.items():
        click.echo(f"{key:16} {value}")


if __name__ == "__main__":
    main(prog_name="python -m bench.quality")
