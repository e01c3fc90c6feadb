"""fastpdr fit: train a map on a table and write all there is to know about it into a folder."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click
from numpy.typing import NDArray

from fastpdr.cli import data, output

EVALUATED_NEIGHBORS, LABEL_NEIGHBORS = 12, 7
FEWEST_ROWS = 3  # that can be judged


def run(table: data.Table, estimator: Any, folder: Path, suffix: str, *, overwrite: bool, quiet: bool) -> None:
    """Train, judge, write, report.

    Parameters
    ----------
    table : Table
        The rows [n, d] and perhaps labels.
    estimator : fastpdr estimator
        Not yet fitted.
    folder : Path
        Exists and can be written; gets model/, embedding, metrics.json and map.png.
    suffix : str
        Format of the embedding: .npy, .csv or .parquet.
    overwrite : bool
        Whether an older model in the folder may be replaced.
    quiet : bool
        Whether to print nothing.

    Raises
    ------
    ValueError
        Too few rows, or data or parameters that the estimator refuses.
    FloatingPointError
        The training diverged.
    OSError
        A file cannot be written.
    """
    if len(table.X) < FEWEST_ROWS:
        raise ValueError(f"the data must have at least {FEWEST_ROWS} rows, got {len(table.X)}")
    start = time.perf_counter()
    Z = estimator.fit_transform(table.rows)
    seconds = time.perf_counter() - start
    metrics = _scores(table, Z)
    estimator.save(folder / "model", overwrite=overwrite)
    written = {"model/": f"places new rows: fastpdr transform {folder} NEW -o OUT"}
    _write_embedding(folder, suffix, Z, table.labels)
    written[f"embedding{suffix}"] = f"the map, {Z.shape[0]} x {Z.shape[1]}"
    output.write_json(folder / "metrics.json", metrics | _facts(table, estimator, seconds))
    written["metrics.json"] = "these figures and the versions"
    written["map.png"] = _draw(folder / "map.png", Z, table.labels, type(estimator).__name__)
    if not quiet:
        _report(table, estimator, folder, metrics, seconds, written)


def _scores(table: data.Table, Z: NDArray) -> dict[str, float]:
    from fastpdr.metrics import evaluate
    from fastpdr.plotting import is_continuous

    n = len(Z)
    # Values on a scale are no classes: there is no accuracy of a vote among them.
    classes = None if table.labels is None or is_continuous(table.labels) else table.labels
    return evaluate(
        table.X,
        Z,
        classes,
        n_neighbors=max(1, min(EVALUATED_NEIGHBORS, (n - 1) // 2)),
        label_neighbors=min(LABEL_NEIGHBORS, n - 1),
    )


def _facts(table: data.Table, estimator: Any, seconds: float) -> dict[str, Any]:
    return {
        "training_time_seconds": seconds,
        "final_loss": float(estimator.loss_history_[-1]),
        "n_epochs": int(estimator.n_iter_),
        "n_samples": table.X.shape[0],
        "n_features": table.X.shape[1],
        "method": type(estimator).__name__,
        "label_column": table.label_column,
        "versions": output.versions(),
    }


def _write_embedding(folder: Path, suffix: str, Z: NDArray, labels: NDArray | None) -> None:
    data.write_map(folder / f"embedding{suffix}", Z, labels)
    # An older run's map in another format would contradict the new model.
    for other in data.MAP_SUFFIXES:
        if other != suffix:
            (folder / f"embedding{other}").unlink(missing_ok=True)


def _draw(path: Path, Z: NDArray, labels: NDArray | None, title: str) -> str:
    """Draw the map if that is possible; returns what to say about it."""
    from fastpdr import plotting

    path.unlink(missing_ok=True)
    if Z.shape[1] < 2:
        return "not drawn: a map needs two components"
    try:
        axes = plotting.map(Z[:, :2], labels, title=title)
    except ModuleNotFoundError as error:
        return f"not drawn: {error}"
    plotting.save(axes, path)
    return "the map as a picture" + (", its first two components" if Z.shape[1] > 2 else "")


def _report(
    table: data.Table,
    estimator: Any,
    folder: Path,
    metrics: dict[str, float],
    seconds: float,
    written: dict[str, str],
) -> None:
    n, d = table.X.shape
    click.echo(f"{type(estimator).__name__}: {n} rows of {d} columns in {seconds:.1f} s\n")
    figures = metrics | {"final loss": float(estimator.loss_history_[-1])}
    click.echo(output.aligned([(name.replace("_", " "), f"{value:.4f}") for name, value in figures.items()]))
    click.echo(f"\nIn {folder}:")
    click.echo(output.aligned(list(written.items())))
