"""fastpdr fit: train a map on a table and write all there is to know about it into a folder.

fastpdr train does the same with what its config says.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from numpy.typing import NDArray

from fastpdr.cli import data, output

if TYPE_CHECKING:
    from fastpdr.graph import KNNGraph

EVALUATED_NEIGHBORS, LABEL_NEIGHBORS = 12, 7
FEWEST_ROWS = 3  # that can be judged
CONFIG = "train.yml"
PARTS = {*(f"embedding{suffix}" for suffix in data.MAP_SUFFIXES), "labels.npy", "metrics.json", "map.png", CONFIG}


@dataclass(frozen=True)
class Learnt:
    """A table and what was made of it."""

    table: data.Table
    model: Any  # an estimator, or a pipeline that ends with one
    Z: NDArray  # [n, c]
    seconds: float
    scores: dict[str, float]

    @property
    def estimator(self) -> Any:
        """The map itself, without the steps before it."""
        return self.model.steps[-1][1] if hasattr(self.model, "steps") else self.model

    @property
    def measured(self) -> Any:
        """The rows [n, d] as they were scaled; before PCA, which is part of what is judged."""
        scaler = getattr(self.model, "named_steps", {}).get("scaler")
        return self.table.X if scaler is None else scaler.transform(self.table.rows)

    @property
    def facts(self) -> dict[str, Any]:
        """The scores, and how they came about."""
        return self.scores | {
            "training_time_seconds": self.seconds,
            "final_loss": float(self.estimator.loss_history_[-1]),
            "n_epochs": int(self.estimator.n_iter_),
            "n_samples": self.table.X.shape[0],
            "n_features": self.table.X.shape[1],
            "n_components": self.Z.shape[1],
            "method": type(self.estimator).__name__,
            "label_column": self.table.label_column,
            "versions": output.versions(),
        }


def run(
    table: data.Table,
    model: Any,
    folder: Path,
    suffix: str,
    *,
    neighbors: int | None = None,
    quiet: bool = False,
    without: Collection[str] = (),
    config: str | None = None,
) -> None:
    """Train, judge, write, report.

    Parameters
    ----------
    table : Table
        The rows [n, d] and perhaps labels.
    model : fastpdr estimator or sklearn.pipeline.Pipeline
        Not yet fitted.
    folder : Path
        Gets model/, embedding, metrics.json and map.png, all of them or none; what it holds of them is replaced.
    suffix : str
        Format of the embedding: .npy, .csv or .parquet.
    neighbors : int, optional
        How many of the nearest other rows of each row the embedding names, in a .csv or .parquet.
    quiet : bool
        Whether to print nothing.
    without : collection of {"embedding", "metrics", "preprocessing"}
        What not to write.
    config : str, optional
        Text of the config, written as well.

    Raises
    ------
    ValueError
        Too few rows, or data or parameters that the estimator refuses.
    FloatingPointError
        The training diverged.
    OSError
        A file cannot be written.
    """
    with output.filled_folder(folder, PARTS) as aside:
        require_fewer(neighbors, table)
        learnt = learn(table, model, judged="metrics" not in without)
        written = {"model/": f"places new rows: fastpdr transform {folder} NEW -o OUT"}
        save_model(learnt.estimator if "preprocessing" in without else model, table, aside / "model")
        if "embedding" not in without:
            written |= _write_embedding(aside, suffix, learnt, neighbors)
        if "metrics" not in without:
            output.write_json(aside / "metrics.json", learnt.facts)
            written["metrics.json"] = "these figures and the versions"
        if config is not None:
            (aside / CONFIG).write_text(config, encoding="utf-8")
            written[CONFIG] = f"all settings: fastpdr train --config {folder / CONFIG}"
        written["map.png"] = _draw(aside / "map.png", learnt.Z, table.labels, type(learnt.estimator).__name__)
    if not quiet:
        _report(learnt, folder, written)


def learn(table: data.Table, model: Any, *, judged: bool = True) -> Learnt:
    """Train, and judge the map."""
    if len(table.X) < FEWEST_ROWS:
        raise ValueError(f"the data must have at least {FEWEST_ROWS} rows, got {len(table.X)}")
    data.require_finite(table)
    start = time.perf_counter()
    Z = model.fit_transform(table.rows)
    seconds = time.perf_counter() - start
    learnt = Learnt(table, model, Z, seconds, {})
    return replace(learnt, scores=_scores(learnt.measured, Z, classes_of(table))) if judged else learnt


def require_fewer(neighbors: int | None, table: data.Table) -> None:
    """Refuse more neighbours than there are other rows, before any work."""
    if neighbors is not None and neighbors >= len(table.X):
        raise ValueError(f"neighbors must be fewer than the {len(table.X)} rows, got {neighbors}")


def neighbors_of(learnt: Learnt, k: int | None) -> KNNGraph | None:
    """Return the k nearest other rows of each, by the metric of the map."""
    if k is None:
        return None
    from fastpdr import KNNGraph

    estimator = learnt.estimator
    return KNNGraph.build(
        learnt.measured,
        k,
        metric=getattr(estimator, "metric", "euclidean"),
        random_state=estimator.random_state,
        verbose=bool(estimator.verbose),
    )


def save_model(model: Any, table: data.Table, path: Path) -> None:
    """Save a model with the encoder of the labels."""
    from sklearn.preprocessing import LabelEncoder

    import fastpdr

    classes = classes_of(table)
    encoder = None if classes is None else LabelEncoder().fit(classes)
    fastpdr.save(model, path, overwrite=True, label_encoder=encoder, label_column=table.label_column)


def classes_of(table: data.Table) -> NDArray | None:
    """Return the labels if they are classes: there is no vote among values on a scale."""
    from fastpdr.plotting import is_continuous

    return None if table.labels is None or is_continuous(table.labels) else table.labels


def _scores(X: NDArray, Z: NDArray, classes: NDArray | None) -> dict[str, float]:
    from fastpdr.metrics import evaluate

    n = len(Z)
    return evaluate(
        X,
        Z,
        classes,
        n_neighbors=max(1, min(EVALUATED_NEIGHBORS, (n - 1) // 2)),
        label_neighbors=min(LABEL_NEIGHBORS, n - 1),
    )


def _write_embedding(folder: Path, suffix: str, learnt: Learnt, neighbors: int | None) -> dict[str, str]:
    Z, classes = learnt.Z, classes_of(learnt.table)
    data.write_map(folder / f"embedding{suffix}", Z, learnt.table.labels, neighbors_of(learnt, neighbors))
    also = "" if neighbors is None else f", and {neighbors} neighbours of each row"
    written = {f"embedding{suffix}": f"the map, {Z.shape[0]} x {Z.shape[1]}{also}"}
    if suffix == ".npy" and classes is not None:
        np.save(folder / "labels.npy", np.unique(classes, return_inverse=True)[1].reshape(-1))
        written["labels.npy"] = "codes of the labels: fastpdr.load_label_encoder reads what they mean"
    return written


def _draw(path: Path, Z: NDArray, labels: NDArray | None, title: str) -> str:
    """Draw the map if that is possible; returns what to say about it."""
    from fastpdr import plotting

    if Z.shape[1] < 2:
        return "not drawn: a map needs two components"
    try:
        axes = plotting.map(Z[:, :2], labels, title=title)
    except ModuleNotFoundError as error:
        return f"not drawn: {error}"
    plotting.save(axes, path)
    return "the map as a picture" + (", its first two components" if Z.shape[1] > 2 else "")


def _report(learnt: Learnt, folder: Path, written: dict[str, str]) -> None:
    n, d = learnt.table.X.shape
    click.echo(f"{type(learnt.estimator).__name__}: {n} rows of {d} columns in {learnt.seconds:.1f} s\n")
    figures = learnt.scores | {"final loss": learnt.facts["final_loss"]}
    click.echo(output.aligned([(name.replace("_", " "), f"{value:.4f}") for name, value in figures.items()]))
    click.echo(f"\nIn {folder}:")
    click.echo(output.aligned(list(written.items())))
