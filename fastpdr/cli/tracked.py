"""Trainings that trackers look at: those that a config asks for, and held-out rows as the map reads them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

from numpy.typing import NDArray

from fastpdr.cli.config import Config

HeldOut: TypeAlias = tuple[Any, Any] | None  # raw rows [m, d], labels [m] or None
MakeTrackers: TypeAlias = Callable[[HeldOut], list[Any]]


def trackers_of(config: Config) -> MakeTrackers:
    """Return what makes the trackers of a config, given the held-out rows that they judge and draw.

    Raises
    ------
    ImportError
        A package is missing.
    ValueError
        A path cannot be what it shall be.
    """
    from fastpdr import tracking

    section = config.tracking
    classes: dict[str, Any] = {
        "tensorboard": tracking.TensorBoard,
        "wandb": partial(tracking.WeightsAndBiases, config=config.model_dump(by_alias=True)),
        "csv": tracking.CSVLog,
        "jsonl": tracking.JSONLines,
    }
    asked = {name: getattr(section, name) for name in classes}
    makers = [partial(classes[name], target) for name, target in asked.items() if target is not None]
    for maker in makers:
        maker()  # what is wrong is said before any data are read

    def make(held_out: HeldOut) -> list[Any]:
        map_every = None if held_out is None else section.map_every
        return [maker(held_out=held_out, metrics_every=section.metrics_every, map_every=map_every) for maker in makers]

    return make


def fit_transform(model: Any, rows: Any, make_trackers: MakeTrackers | None, held_out: HeldOut = None) -> NDArray[Any]:
    """Do what ``model.fit_transform(rows)`` does, under the eyes of trackers.

    Parameters
    ----------
    model : fastpdr estimator or sklearn.pipeline.Pipeline
        Not yet fitted. Afterwards it has its own callbacks alone: what is saved holds no rows of trackers.
    rows : array-like [n, d]
        To train on.
    make_trackers : callable or None
        Of :func:`trackers_of`; None for none.
    held_out : tuple of array-like [m, d] and [m] or None, optional
        Rows that are not trained on and their labels.

    Returns
    -------
    ndarray [n, c]
        The map.
    """
    if make_trackers is None:
        return model.fit_transform(rows)
    estimator = estimator_of(model)
    if estimator is not model:
        before = model[:-1]
        rows = before.fit_transform(rows)
        held_out = None if held_out is None else (before.transform(held_out[0]), held_out[1])
    own = estimator.callbacks
    estimator.set_params(callbacks=[*(own or ()), *make_trackers(held_out)])
    Z = estimator.fit_transform(rows)
    estimator.set_params(callbacks=own)
    return Z


def estimator_of(model: Any) -> Any:
    """Return the map at the end of a pipeline, or the model if it is none."""
    return model.steps[-1][1] if hasattr(model, "steps") else model
