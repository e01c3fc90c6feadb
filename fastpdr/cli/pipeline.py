"""fastpdr pipeline: train scaler and map as one scikit-learn pipeline, and save it for another program."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from fastpdr._files import written_aside
from fastpdr.cli import config as configs
from fastpdr.cli import data, fit, formats, learning, output, tracked, train
from fastpdr.training.ranks import current

JOBLIB_SUFFIXES = (".joblib", ".pkl")
METRICS = ("trustworthiness", "silhouette", "neighborhood_preservation", "final_loss", "training_time_seconds")


def run(config: configs.Config, *, overwrite: bool) -> None:
    """Read, train, judge, write.

    Parameters
    ----------
    config : Config
        Of fastpdr pipeline.
    overwrite : bool
        Replace older results, whatever the config says.

    Raises
    ------
    ValueError, FloatingPointError, OSError
        As :func:`fastpdr.cli.fit.run`; or there are older results.
    """
    out = config.output
    if current().rank > 0:
        learning.learn(train.read(config.data), train.make_model(config), judged=False)
        return
    paths = [Path(path) for path in (out.model_path, out.embeddings_path, out.metrics_path)]
    _refuse_used(paths, overwrite or out.overwrite_existing)
    trackers = tracked.trackers_of(config)
    table = train.read(config.data)
    with ExitStack() as folders:
        for path in paths:
            folders.enter_context(output.writable_folder(path.parent))
        learning.require_fewer(out.save_neighbors, table)
        learnt = learning.learn(table, train.make_model(config), trackers=trackers)
        _write(learnt, config, *paths)
    facts = learnt.facts
    click.echo(output.aligned([(name.replace("_", " "), f"{facts[name]:.4f}") for name in METRICS if name in facts]))
    click.echo(f"\n{paths[0]}: {_how_to_load(paths[0])}\n{paths[1]}: the map\n{paths[2]}: these figures and the config")


def _refuse_used(paths: list[Path], overwrite: bool) -> None:
    from fastpdr.estimators.saving import check_target

    model, embedding, _ = paths
    if embedding.suffix not in data.MAP_SUFFIXES:
        raise ValueError(
            f"output.embeddings_path {embedding}: the suffix must be one of {', '.join(data.MAP_SUFFIXES)}"
        )
    if embedding.suffix != ".npy":
        formats.require("writing", embedding.suffix)
    used = [str(path) for path in paths if path.exists()]
    if used and not overwrite:
        raise ValueError(f"output: there is {', '.join(used)} already; --overwrite replaces it")
    try:
        if model.suffix not in JOBLIB_SUFFIXES:
            check_target(model, overwrite=overwrite)
    except FileExistsError as error:
        raise ValueError(f"output.model_path {model} is no model that fastpdr wrote; move it away first") from error


def _write(learnt: learning.Learnt, config: configs.Config, model: Path, embedding: Path, metrics: Path) -> None:
    facts, neighbors = learnt.facts, learning.neighbors_of(learnt, config.output.save_neighbors)
    content = {
        "metrics": {name: facts[name] for name in METRICS if name in facts},
        "embedding_shape": list(learnt.Z.shape),
        "config": config.model_dump(by_alias=True),
        "versions": facts["versions"],
    }
    with written_aside(embedding) as embedding_aside, written_aside(metrics) as metrics_aside:
        data.write_map(embedding_aside, learnt.Z, learnt.table.labels, neighbors=neighbors)
        output.write_json(metrics_aside, content)
        # The last that can fail: after it there are only renames.
        _save(learnt, model, config.output.embedding_in_model)


def _save(learnt: learning.Learnt, path: Path, with_embedding: bool) -> None:
    if path.suffix not in JOBLIB_SUFFIXES:
        fit.save_model(learnt, learnt.model, path, with_embedding=with_embedding)
        return
    import joblib

    click.echo(f"Warning: {path}: loading a joblib file runs code; a path without suffix gives a safe folder", err=True)
    with written_aside(path) as aside:
        joblib.dump(learnt.model, aside)


def _how_to_load(path: Path) -> str:
    module: Any = "joblib" if path.suffix in JOBLIB_SUFFIXES else "fastpdr"
    return f"the pipeline, {module}.load({str(path)!r})"
