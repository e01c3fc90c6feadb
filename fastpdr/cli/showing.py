"""What people look at after a training: the picture, the report, the figures in the terminal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np

from fastpdr.cli import output
from fastpdr.cli.learning import Learnt

TRAINING, HELD_OUT = "training", "held out"  # columns of figures
MOST_COLUMNS = 20  # of the data that the report offers as colours


def draw_map(path: Path, learnt: Learnt) -> str:
    """Draw the map if that is possible; returns what to say about it."""
    from fastpdr import plotting

    if learnt.Z.shape[1] < 2:
        return "not drawn: a map needs two components"
    try:
        axes = plotting.map(learnt.Z[:, :2], learnt.table.labels, title=type(learnt.estimator).__name__)
    except ModuleNotFoundError as error:
        return f"not drawn: {error}"
    plotting.save(axes, path)
    return "the map as a picture" + _of_components(learnt)


def write_report(path: Path, learnt: Learnt, config: str | None) -> str:
    """Write the report if that is possible; returns what to say about it."""
    from fastpdr import report

    if learnt.Z.shape[1] < 2:
        return "not written: a map needs two components"
    try:
        report.write(
            path,
            learnt.Z[:, :2],
            learnt.table.labels,
            columns=_columns(learnt),
            held_out=None if learnt.held_out is None else learnt.held_out.rows,
            scores=_figures(learnt) if learnt.scores else None,
            rnx=_curves(learnt),
            loss=learnt.estimator.loss_history_,
            config=parameters_of(learnt.estimator) if config is None else config,
            versions=output.versions(),
            title=type(learnt.estimator).__name__,
        )
    except ModuleNotFoundError as error:
        return f"not written: {error}"
    return "all of it as a page for the browser" + _of_components(learnt)


def say(learnt: Learnt, folder: Path, written: dict[str, str]) -> None:
    """Print what was learnt and what was written."""
    n, d = learnt.table.X.shape
    unseen = 0 if learnt.held_out is None else int(learnt.held_out.rows.sum())
    held_out = f"; {unseen} held out, placed in {learnt.held_out.seconds:.2f} s" if learnt.held_out else ""
    name = type(learnt.estimator).__name__
    click.echo(f"{name}: {n - unseen} rows of {d} columns in {learnt.seconds:.1f} s{held_out}\n")
    figures = _figures(learnt)
    rows = [
        (name.replace("_", " "), *("" if of.get(name) is None else f"{of[name]:.4f}" for of in figures.values()))
        for name in [*learnt.scores, "final_loss"]
    ]
    header = [("", *figures)] if len(figures) > 1 else []
    click.echo(output.aligned([*header, *rows], numbers=len(figures) > 1))
    click.echo(f"\nIn {folder}:")
    click.echo(output.aligned(list(written.items())))


def parameters_of(estimator: Any) -> str:
    """Return the parameters of a map as JSON."""
    from fastpdr.estimators.saving import json_parameters

    return json.dumps({"class": type(estimator).__name__, "parameters": json_parameters(estimator)[0]}, indent=2)


def _of_components(learnt: Learnt) -> str:
    return ", its first two components" if learnt.Z.shape[1] > 2 else ""


def _figures(learnt: Learnt) -> dict[str, dict[str, Any]]:
    facts = learnt.facts
    names = [*learnt.scores, "final_loss", "training_time_seconds", "n_epochs", "n_samples"]
    figures = {TRAINING: {name: facts[name] for name in names}}
    return figures | ({HELD_OUT: learnt.held_out_facts} if learnt.held_out else {})


def _curves(learnt: Learnt) -> dict[str, Any]:
    curves = {TRAINING: learnt.judgement.rnx}
    if learnt.held_out is not None:
        curves[HELD_OUT] = learnt.held_out.judgement.rnx
    return {name: curve for name, curve in curves.items() if curve is not None}


def _columns(learnt: Learnt) -> dict[str, Any]:
    """Return the columns that people know by their names, unless there are more than they can choose from."""
    names, X = learnt.table.names or (), learnt.table.X
    return {name: np.asarray(X[:, i]) for i, name in enumerate(names)} if len(names) <= MOST_COLUMNS else {}
