"""fastpdr train: what fastpdr fit does, as a config file says."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from fastpdr.cli import config as configs
from fastpdr.cli import data, fit, formats, output, tracked
from fastpdr.training.ranks import current


def run(config: configs.Config, *, overwrite: bool) -> None:
    """Read, train, judge, write.

    Parameters
    ----------
    config : Config
        Of fastpdr train.
    overwrite : bool
        Replace older results, whatever the config says.

    Raises
    ------
    ValueError, FloatingPointError, OSError
        As :func:`fastpdr.cli.fit.run`; or there are older results.
    """
    out = config.output
    folder = Path(out.model_dir) / out.model_name
    if current().rank == 0:
        output.refuse_used_folder(folder, overwrite or out.overwrite_existing, "output")
    suffix = f".{out.embedding_format}"
    if suffix != ".npy":
        formats.require("writing", suffix)
    trackers = tracked.trackers_of(config)
    table = read(config.data, whole=bool(preprocessing_of(config)))
    kept = {"embedding": out.save_embeddings, "metrics": out.save_metrics, "preprocessing": out.save_preprocessing}
    without = [name for name, is_kept in kept.items() if not is_kept]
    fit.run(
        table,
        make_model(config),
        folder,
        suffix,
        held_out=config.data.held_out,
        neighbors=out.save_neighbors,
        without=without,
        config=configs.dump(config),
        trackers=trackers,
        embedding_in_model=out.embedding_in_model,
    )


def read(section: configs.Data, *, whole: bool = True) -> data.Table:
    """Read the table that the section data describes; `whole` as :func:`fastpdr.cli.data.read`."""
    table = data.read(
        section.features or "digits",
        section.label_column if section.labels is None else section.labels,
        labels_optional=section.labels is None and section.allow_missing_labels,
        file_format=None if section.format == "auto" else f".{section.format}",
        array=section.array,
        allow_pickle=section.allow_pickle,
        whole=whole,
    )
    if section.label_column is not None and table.labels is None:
        warnings.warn(
            f"{section.features}: column {section.label_column} is not there or has missing values, so there are no "
            "labels; data.allow_missing_labels: false makes this an error",
            stacklevel=2,
        )
    return table


def make_model(config: configs.Config) -> Any:
    """Return the estimator, or a pipeline of the preprocessing and the estimator."""
    from sklearn.pipeline import Pipeline

    steps, estimator = preprocessing_of(config), configs.make_estimator(config)
    return Pipeline([*steps, ("map", estimator)]) if steps else estimator


def preprocessing_of(config: configs.Config) -> list[tuple[str, Any]]:
    """Return the steps before the map, which need all rows in memory."""
    from sklearn.decomposition import PCA

    pca = config.preprocessing.pca
    steps: list[tuple[str, Any]] = []
    scaler = make_scaler(config.preprocessing.scaler)
    if scaler is not None:
        steps.append(("scaler", scaler))
    if pca is not None:
        steps.append(("pca", PCA(pca, random_state=config.model.random_state)))
    return steps


def make_scaler(name: str | None) -> Any:
    """Return a scaler by its name in a config; nothing for none."""
    from sklearn.preprocessing import MinMaxScaler, StandardScaler

    return None if name in (None, "none") else {"StandardScaler": StandardScaler, "MinMaxScaler": MinMaxScaler}[name]()
