"""What a sweep leaves in its folder and in the terminal: all trials as a table, the best model and its config."""

from __future__ import annotations

import csv
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import yaml

from fastpdr._files import replace_folder, written_aside
from fastpdr.cli import config as configs
from fastpdr.cli import output
from fastpdr.cli.sweep.config import Sweep
from fastpdr.cli.sweep.ledger import LOCK, STUDY, Record
from fastpdr.cli.sweep.sections import EPOCHS, METRICS
from fastpdr.cli.sweep.space import label

TRIALS, BEST, BEST_CONFIG, GRAPHS, TRACKED = "trials.csv", "best", "best.yml", "graphs", "wandb"
OWN = {STUDY, TRIALS, BEST, BEST_CONFIG, GRAPHS, TRACKED}
ASIDE = ".trial-"  # and a number: a model that may become the best
SHOWN = 5  # of the best trials


def refuse_foreign(folder: Path) -> None:
    """Raise where a folder holds something, but no sweep."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"output {folder} is not a folder")
    if not folder.exists() or (folder / STUDY).exists():
        return
    if any(path.name != LOCK for path in folder.iterdir()):
        raise ValueError(f"output {folder} is not empty and holds no sweep; move it away first, or name another")


def remove_own(folder: Path) -> None:
    """Remove all that an earlier sweep has left."""
    for name in OWN:
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    remove_asides(folder)


def remove_asides(folder: Path) -> None:
    """Remove models that were being written when a sweep was stopped."""
    for path in folder.glob(f"{ASIDE}*"):
        shutil.rmtree(path, ignore_errors=True)


def write_trials(folder: Path, sweep: Sweep, records: Sequence[Record]) -> None:
    """Write all trials, their parameters as they were drawn and their measures."""
    metrics = [name for name in (*METRICS, EPOCHS) if any(name in record.metrics for record in records)]
    with (
        written_aside(folder / TRIALS) as aside,
        open(aside, "w", newline="", encoding="utf-8") as file,
    ):
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(["trial", "state", *sweep.space, *metrics, "message"])
        for record in records:
            values = [label(record.values[name]) if name in record.values else "" for name in sweep.space]
            figures = [record.metrics.get(name, "") for name in metrics]
            lines.writerow([record.number, record.state, *values, *figures, record.message])


def install_best(folder: Path, aside: Path) -> None:
    """Let the model that a trial has saved take the place of the best."""
    replace_folder(aside, folder / BEST)


def write_best_config(folder: Path, sweep: Sweep, record: Record) -> None:
    """Write the config of the best trial, with which fastpdr train makes its model again."""
    config = config_of(folder, sweep, record)
    with written_aside(folder / BEST_CONFIG) as aside:
        aside.write_text(configs.dump(config), encoding="utf-8")


def config_of(folder: Path, sweep: Sweep, record: Record) -> configs.Config:
    """Return the config of a trial; fastpdr train would write its results beside those of the sweep."""
    config = sweep.config_of(record.values)
    place = config.output.model_copy(update={"model_dir": str(folder), "model_name": "trained"})
    return config.model_copy(update={"output": place})


def say(folder: Path, sweep: Sweep, records: Sequence[Record], ranked: Sequence[Record]) -> None:
    """Print the best trials, the config of the best, and what is in the folder."""
    click.echo(summary(records))
    if not ranked:
        return
    click.echo("")
    click.echo(table(sweep, ranked[:SHOWN]))
    click.echo(f"\nThe best, trial {ranked[0].number}, as a config:\n")
    click.echo(_indented(searched(sweep, ranked[0])))
    click.echo(f"\nIn {folder}:")
    entries = [
        (f"{BEST}/", f"its model and map: fastpdr transform {folder / BEST} NEW -o OUT"),
        (BEST_CONFIG, f"its config: fastpdr train --config {folder / BEST_CONFIG}"),
        (TRIALS, "all trials with their parameters and measures"),
        (STUDY, "the optuna study: the same command with a larger --count goes on"),
    ]
    click.echo(output.aligned([(name, text) for name, text in entries if (folder / name).exists()]))


def summary(records: Sequence[Record]) -> str:
    """Return how many trials ended in which way."""
    counts = {state: sum(record.state == state for record in records) for state in ("complete", "pruned", "failed")}
    return f"{len(records)} trials: " + ", ".join(f"{count} {state}" for state, count in counts.items())


def table(sweep: Sweep, records: Sequence[Record]) -> str:
    """Return trials in columns: the metric first, the other measures, and the parameters."""
    metrics = [sweep.metric, *(name for name in METRICS if name in records[0].metrics and name != sweep.metric)]
    rows = [["", *(f"trial {record.number}" for record in records)]]
    for name in metrics:
        rows.append([name.replace("_", " "), *(f"{record.metrics[name]:.4f}" for record in records)])
    for name in (name for name in sweep.space if any(name in record.values for record in records)):
        rows.append([name, *(shown(record.values.get(name, "")) for record in records)])
    return output.aligned(rows, numbers=True)


def line(sweep: Sweep, record: Record, best: Record | None) -> str:
    """Return what is said when a trial ends."""
    values = ", ".join(f"{name} {shown(value)}" for name, value in record.values.items())
    if record.state != "complete":
        return f"trial {record.number} {record.state}: {record.message} ({values})"
    mark = ", the best so far" if best is not None and best.number == record.number else ""
    return f"trial {record.number}: {sweep.metric} {record.metrics[sweep.metric]:.4f}{mark} ({values})"


def searched(sweep: Sweep, record: Record) -> str:
    """Return the YAML of what a trial gives the sections preprocessing and model, nothing by default."""
    config = sweep.config_of(record.values).model_dump(by_alias=True)
    given = sweep.content_of(record.values)
    sections = {}
    for section in ("preprocessing", "model"):
        keys = {configs.ALIASES.get(key, key) for key in given[section]}
        keys |= {"hidden_dims"} if configs.WIDTHS.keys() & keys else set()
        sections[section] = {key: value for key, value in config[section].items() if key in keys}
    return yaml.dump({name: keys for name, keys in sections.items() if keys}, Dumper=_Dumper, sort_keys=False)


def shown(value: Any) -> str:
    """Return a value in few characters."""
    if isinstance(value, float) and not isinstance(value, bool) and math.isfinite(value):
        return f"{value:.6g}"
    return str(value)


class _Dumper(yaml.SafeDumper):
    """Writes lists in one line."""


_Dumper.add_representer(
    list, lambda dumper, items: dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=True)
)


def _indented(text: str) -> str:
    return "\n".join(f"  {row}" for row in text.splitlines())
