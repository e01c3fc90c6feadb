"""fastpdr transform: place new rows on a map that was learnt before."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Any

import click
from numpy.typing import NDArray

from fastpdr._progress import progress
from fastpdr.cli import data, formats, streaming
from fastpdr.cli.output import writable_folder
from fastpdr.cli.tracked import estimator_of


def run(folder: Path, source: str, path: Path) -> None:
    """Read a model, and new rows a piece at a time; write where they lie.

    Parameters
    ----------
    folder : Path
        A folder of fastpdr fit, or a saved model.
    source : str
        As for :func:`fastpdr.cli.data.read`; a column that held the labels of the training rows is not a feature here.
    path : Path
        The file to write, .npy, .csv or .parquet.

    Raises
    ------
    ValueError
        An unknown suffix, no model in the folder, other columns than the model was fitted with, a row with something
        that is no finite number.
    """
    import fastpdr

    if path.suffix not in data.MAP_SUFFIXES:
        raise ValueError(f"--output {path}: the suffix must be one of {', '.join(data.MAP_SUFFIXES)}")
    if path.suffix != ".npy":
        formats.require("writing", path.suffix)
    saved = model_folder(folder)
    model = fastpdr.load(saved)
    estimator_of(model).set_params(verbose=False)  # the bar is that of all pieces
    n, start = 0, time.perf_counter()
    stream = streaming.read(source, _label_column(saved), with_labels=path.suffix != ".npy")
    with (
        writable_folder(path.parent),
        streaming.written_map(path) as write,
        progress(path.name, stream.rows) as bar,
    ):
        for table in stream.pieces:
            d = table.X.shape[1]
            if d != model.n_features_in_:
                raise ValueError(f"{source} has {d} columns, but the model was fitted with {model.n_features_in_}")
            write(_place(model, table), table.labels)
            n += len(table.X)
            bar.update(len(table.X))
    click.echo(f"{path}: {n} rows placed in {time.perf_counter() - start:.2f} s")


def _place(estimator: Any, table: data.Table) -> NDArray:
    named = hasattr(estimator, "feature_names_in_")
    with warnings.catch_warnings():
        # A file without names is taken as it stands: its columns have been counted.
        warnings.filterwarnings("ignore", message="X does not have valid feature names")
        return estimator.transform(table.rows if named else table.X)


def model_folder(folder: Path) -> Path:
    """Return the folder of a saved model: this one, or the one in it that fastpdr fit wrote."""
    for candidate in (folder / "model", folder):
        if (candidate / "config.json").is_file():
            return candidate
    raise ValueError(f"{folder} holds no model: expected config.json in it or in its folder model")


def _label_column(saved: Path) -> str | None:
    """Return the column that held the labels of the training rows."""
    from fastpdr.estimators.saving import read_config

    return (read_config(saved).get("labels") or {}).get("column")
