"""What must be the same for a training to go on from a checkpoint: the data by hash, the parameters by value."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
from torch import nn

from fastpdr.data import Rows
from fastpdr.estimators.saving import json_parameters
from fastpdr.graph import KNNGraph
from fastpdr.training.checkpoints import Checkpoints, digest
from fastpdr.training.ranks import Ranks

# Where a training runs, who watches it and how long it may take change no map, or are the user's to change.
FREE = {
    *("callbacks", "checkpoint_dir", "checkpoint_every", "device", "max_time", "memory_limit", "n_jobs", "resume"),
    "verbose",
}
LONG = 200  # characters of a value that is rather hashed than shown


def open_checkpoints(
    estimator: Any, X: Any, y: Any, landmarks: Any, start: nn.Module | None, device: torch.device, ranks: Ranks
) -> Checkpoints | None:
    """The checkpoints of a fit, if the estimator is to keep such; with the one to go on from."""
    if estimator.checkpoint_dir is None:
        return None
    data = {"X": mark(X), "y": mark(y), "landmark_positions": mark(landmarks), "the map before": mark(start)}
    return Checkpoints(
        type(estimator).__name__,
        estimator.checkpoint_dir,
        estimator.checkpoint_every,
        estimator.resume,
        data,
        settings_of(estimator, device),
        ranks,
    )


def settings_of(estimator: Any, device: torch.device) -> dict[str, Any]:
    """What a map depends on beside the data."""
    shown, others = json_parameters(estimator)
    given = estimator.get_params(deep=False)
    marks = {name: mark(given[name]) for name in others}
    settings = {name: mark(value) if len(json.dumps(value)) > LONG else value for name, value in shown.items()}
    kept = {name: value for name, value in sorted((settings | marks).items()) if name not in FREE}
    return {"class": type(estimator).__name__, "device": device.type, **kept}


def mark(value: Any) -> Any:
    """What tells a value from others, in JSON's form: a hash of arrays and networks, the name of a function."""
    if value is None:
        return None
    if isinstance(value, nn.Module):
        return digest(np.asarray(str(value)), *value.state_dict().values())
    if isinstance(value, KNNGraph):
        return digest(value.indices, value.distances)
    if callable(value):
        return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__qualname__)}"
    if isinstance(value, tuple):
        return [mark(part) for part in value]
    if isinstance(value, np.random.Generator | np.random.RandomState):
        return type(value).__name__
    return digest(value if isinstance(value, torch.Tensor | Rows) else np.asarray(value))
