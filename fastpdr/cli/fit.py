"""fastpdr fit: train a map on a table and write all there is to know about it into a folder.

fastpdr train does the same with what its config says.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from fastpdr._files import save_array
from fastpdr.cli import data, output, showing, tracked
from fastpdr.cli.learning import Learnt, classes_of, learn, neighbors_of, require_fewer
from fastpdr.training.ranks import current

CONFIG = "train.yml"
PARTS = {
    *(f"embedding{suffix}" for suffix in data.MAP_SUFFIXES),
    *("labels.npy", "held_out.npy", "metrics.json", "map.png", "report.html", CONFIG),
}


def run(
    table: data.Table,
    model: Any,
    folder: Path,
    suffix: str,
    *,
    held_out: float | None = None,
    neighbors: int | None = None,
    quiet: bool = False,
    without: Collection[str] = (),
    config: str | None = None,
    trackers: tracked.MakeTrackers | None = None,
    embedding_in_model: bool = False,
) -> None:
    """Train, judge, write, report; where several processes train, rank 0 does the rest.

    Parameters
    ----------
    table : Table
        The rows [n, d] and perhaps labels.
    model : fastpdr estimator or sklearn.pipeline.Pipeline
        Not yet fitted.
    folder : Path
        Gets model/, embedding, metrics.json, map.png and report.html, all of them or none; what it holds of them is
        replaced.
    suffix : str
        Format of the embedding: .npy, .csv or .parquet.
    held_out : float, optional
        Share of the rows that the training does not see; they are placed afterwards and judged.
    neighbors : int, optional
        How many of the nearest other rows of each row the embedding names, in a .csv or .parquet.
    quiet : bool
        Whether to print nothing.
    without : collection of {"embedding", "metrics", "preprocessing"}
        What not to write.
    config : str, optional
        Text of the config, written as well.
    trackers : callable, optional
        Of :func:`fastpdr.cli.tracked.trackers_of`; what looks at the training.
    embedding_in_model : bool
        Whether the model's folder gets the map of the rows that it was learnt from too.

    Raises
    ------
    ValueError
        Too few rows, or data or parameters that the estimator refuses.
    FloatingPointError
        The training diverged.
    OSError
        A file cannot be written.
    """
    if current().rank > 0:
        learn(table, model, held_out=held_out, judged=False)
        return
    with output.filled_folder(folder, PARTS) as aside:
        require_fewer(neighbors, table)
        learnt = learn(table, model, held_out=held_out, judged="metrics" not in without, trackers=trackers)
        written = write(
            learnt,
            aside,
            suffix,
            folder=folder,
            neighbors=neighbors,
            without=without,
            config=config,
            embedding_in_model=embedding_in_model,
        )
    if not quiet:
        showing.say(learnt, folder, written)


def write(
    learnt: Learnt,
    aside: Path,
    suffix: str,
    *,
    folder: Path,
    neighbors: int | None = None,
    without: Collection[str] = (),
    config: str | None = None,
    embedding_in_model: bool = False,
) -> dict[str, str]:
    """Write what was learnt into an empty folder; :func:`run` has the parameters, `folder` is where it will be.

    Returns
    -------
    dict of str to str
        The entries, and what to say about them.
    """
    model = learnt.estimator if "preprocessing" in without else learnt.model
    save_model(learnt, model, aside / "model", with_embedding=embedding_in_model)
    written = {"model/": f"places new rows: fastpdr transform {folder} NEW -o OUT"}
    if "embedding" not in without:
        written |= _write_embedding(aside, suffix, learnt, neighbors)
    if "metrics" not in without:
        output.write_json(aside / "metrics.json", learnt.facts)
        written["metrics.json"] = "these figures and the versions"
    if config is not None:
        (aside / CONFIG).write_text(config, encoding="utf-8")
        written[CONFIG] = f"all settings: fastpdr train --config {folder / CONFIG}"
    written["map.png"] = showing.draw_map(aside / "map.png", learnt)
    written["report.html"] = showing.write_report(aside / "report.html", learnt, config)
    return written


def save_model(learnt: Learnt, model: Any, path: Path, *, with_embedding: bool) -> None:
    """Save a model with the encoder of the labels, the figures where it was judged, and perhaps the map of its rows."""
    from sklearn.preprocessing import LabelEncoder

    import fastpdr

    classes = classes_of(learnt.table)
    fastpdr.save(
        model,
        path,
        overwrite=True,
        label_encoder=None if classes is None else LabelEncoder().fit(classes),
        label_column=learnt.table.label_column,
        metrics=learnt.figures if learnt.scores else None,
        embedding=learnt.estimator.embedding_ if with_embedding else None,
    )


def _write_embedding(folder: Path, suffix: str, learnt: Learnt, neighbors: int | None) -> dict[str, str]:
    (n, c), classes = learnt.Z.shape, classes_of(learnt.table)
    held_out = None if learnt.held_out is None else learnt.held_out.rows
    nearest = neighbors_of(learnt, neighbors)
    data.write_map(folder / f"embedding{suffix}", learnt.Z, learnt.table.labels, held_out=held_out, neighbors=nearest)
    also = "" if neighbors is None else f", and {neighbors} neighbours of each row"
    written = {f"embedding{suffix}": f"the map, {n} x {c}{also}"}
    if suffix == ".npy" and classes is not None:
        save_array(folder / "labels.npy", np.unique(classes, return_inverse=True)[1].reshape(-1))
        written["labels.npy"] = "codes of the labels: fastpdr.load_label_encoder reads what they mean"
    if suffix == ".npy" and held_out is not None:
        save_array(folder / "held_out.npy", held_out)
        written["held_out.npy"] = "which rows of the map were held out"
    return written
