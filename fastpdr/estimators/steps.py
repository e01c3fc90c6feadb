"""scikit-learn's scalers and PCA before a map, as numbers.

A pipeline of them and a map is saved without pickle: parameters and single numbers as JSON, arrays as
tensors. The classes are looked up in a fixed list, so that a folder from elsewhere runs no code of its own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from fastpdr.estimators.base import ParametricEmbedding
from fastpdr.estimators.saving import json_parameters, plain

CLASSES = {cls.__name__: cls for cls in (StandardScaler, MinMaxScaler, PCA)}
NAMES = "feature_names_in_"


def split(model: Any, caller: str = "save") -> tuple[list[tuple[str, Any]], str, ParametricEmbedding]:
    """Return the steps before the map, the name of the map among the steps, and the map.

    Steps that let rows pass are left out.

    Raises
    ------
    ValueError
        If the model is neither a map nor a pipeline of scalers, PCA and a map.
    """
    if isinstance(model, ParametricEmbedding):
        return [], "", model
    if not isinstance(model, Pipeline) or not isinstance(model.steps[-1][1], ParametricEmbedding):
        raise ValueError(f"{caller}: model must be a map of fastpdr or a pipeline that ends with one, got {model!r}")
    *before, (name, estimator) = model.steps
    before = [(step, transformer) for step, transformer in before if transformer not in (None, "passthrough")]
    for step, transformer in before:
        if type(transformer) is not CLASSES.get(type(transformer).__name__):
            raise ValueError(
                f"{caller}: step {step} must be one of {', '.join(CLASSES)}, which are known as numbers, "
                f"got {type(transformer).__name__}"
            )
    return before, name, estimator


def describe_steps(steps: list[tuple[str, Any]]) -> tuple[list[dict[str, Any]], dict[str, NDArray[Any]]]:
    """What JSON holds of fitted steps, and their arrays."""
    described: list[dict[str, Any]] = []
    arrays: dict[str, NDArray[Any]] = {}
    for name, step in steps:
        fitted = {key: value for key, value in vars(step).items() if key.endswith("_") and not key.startswith("_")}
        numbers: dict[str, Any] = {}
        for key, value in fitted.items():
            if key == NAMES:
                numbers[key] = [str(item) for item in value]
            elif isinstance(value, np.ndarray):
                arrays[f"{name}.{key}"] = np.ascontiguousarray(value)
            else:
                numbers[key] = plain(value) if isinstance(value, np.generic) else value
        parameters, omitted = json_parameters(step)
        described.append(
            {
                "name": name,
                "class": type(step).__name__,
                "parameters": parameters,
                "omitted_parameters": omitted,
                "fitted": numbers,
            }
        )
    return described, arrays


def restore_steps(described: list[dict[str, Any]], arrays: dict[str, NDArray[Any]]) -> list[tuple[str, Any]]:
    """Make the fitted steps that :func:`describe_steps` described."""
    steps = []
    for entry in described:
        # What JSON made a list of was a tuple: no parameter of these classes is a list.
        parameters = {k: tuple(v) if isinstance(v, list) else v for k, v in entry["parameters"].items()}
        step = CLASSES[entry["class"]](**parameters)
        prefix = entry["name"] + "."
        own = {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}
        for key, value in (entry["fitted"] | own).items():
            setattr(step, key, np.asarray(value, dtype=object) if key == NAMES else value)
        steps.append((entry["name"], step))
    return steps
