"""Arguments of the public measures, checked before any work is done.

Every error is a ValueError that names the function, the argument, what was expected and what came.
"""

from __future__ import annotations

import operator
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

RandomState: TypeAlias = int | np.random.Generator | None

# Sums of n values and differences of two stay finite in float64 below this.
LARGEST_VALUE = 1e300


def as_matrix(function: str, name: str, value: ArrayLike) -> NDArray:
    """Return `value` as a numeric array [n, columns] without copying it where possible."""
    data = np.asarray(value)
    if data.ndim != 2:
        hint = " (one column is [n, 1])" if data.ndim == 1 else ""
        raise ValueError(f"{function}: {name} must be 2-D [n, columns]{hint}, got shape {list(data.shape)}")
    if 0 in data.shape:
        raise ValueError(f"{function}: {name} must have rows and columns, got shape {list(data.shape)}")
    if data.dtype.kind == "O":
        data = _numbers_from_objects(function, name, data)
    if data.dtype.kind not in "biuf":
        raise ValueError(f"{function}: {name} must hold real numbers, got dtype {data.dtype}")
    low, high = float(data.min()), float(data.max())
    if not (low > -LARGEST_VALUE and high < LARGEST_VALUE):
        raise ValueError(
            f"{function}: {name} must be finite and within ±{LARGEST_VALUE:g}, got values from {low} to {high}"
        )
    return data


def _numbers_from_objects(function: str, name: str, data: NDArray) -> NDArray:
    try:
        return data.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{function}: {name} must hold real numbers, got {error}") from error


def as_matrices(function: str, X: ArrayLike, Z: ArrayLike) -> tuple[NDArray, NDArray]:
    """Return data [n, d] and map [n, c] with the same number of rows."""
    x, z = as_matrix(function, "X", X), as_matrix(function, "Z", Z)
    if len(x) != len(z):
        raise ValueError(f"{function}: X and Z must have the same number of rows, got {len(x)} and {len(z)}")
    return x, z


def as_labels(function: str, name: str, value: ArrayLike | None, rows_of: str, n: int) -> NDArray:
    """Return labels [n]; strings, numbers and objects that sort among themselves are all fine."""
    labels = np.asarray(value)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        got = "None" if value is None else f"shape {list(labels.shape)}"
        raise ValueError(f"{function}: {name} must be labels [n], got {got}")
    if len(labels) != n:
        raise ValueError(
            f"{function}: {name} must have one label for each of the {n} rows of {rows_of}, got {len(labels)}"
        )
    # NumPy would turn the NaN in a list of strings into the string "nan".
    original = np.asarray(value, dtype=object) if isinstance(value, list | tuple) else labels
    missing = int(np.count_nonzero(_is_missing(original)))
    if missing:
        raise ValueError(f"{function}: {name} must have a label in every row, got {missing} missing")
    return labels


def _is_missing(labels: NDArray) -> NDArray[np.bool_]:
    if labels.dtype.kind in "fcmM":
        return np.isnan(labels)
    if labels.dtype.kind == "O":
        # pandas.NA cannot be compared, and pandas is not needed here to recognise it.
        return np.array([x is None or repr(x) == "<NA>" or x != x for x in labels], dtype=bool)
    return np.zeros(len(labels), dtype=bool)


def as_codes(function: str, name: str, labels: NDArray) -> NDArray[np.int64]:
    """Number the classes 0, 1, ... in sorted order."""
    try:
        return np.unique(labels, return_inverse=True)[1].astype(np.int64)
    except TypeError as error:
        raise ValueError(f"{function}: {name} must hold labels of one kind that can be sorted, got {error}") from error


def as_integer(function: str, name: str, value: object, low: int, high: int, limit: str) -> int:
    """Return `value` as an int in [low, high]; `limit` is how the message writes `high`."""
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = None
    if number is None or not low <= number <= high:
        raise ValueError(f"{function}: {name} must be an integer from {low} to {limit} = {high}, got {value!r}")
    return number


def as_rank_neighbors(function: str, value: object, n: int) -> int:
    """Return a number of neighbours for which the rank sums stay within [0, 1] (k < n/2)."""
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = 0
    if number < 1:
        raise ValueError(f"{function}: n_neighbors must be an integer >= 1, got {value!r}")
    if 2 * number >= n:
        raise ValueError(f"{function}: n_neighbors must be < n/2 = {n / 2:.15g}, got {number}")
    return number


def anchor_rows(function: str, sample: object, n: int, random_state: RandomState) -> NDArray[np.int64]:
    """Return the sorted rows to score: all n, or `sample` of them without replacement."""
    if sample is None:
        return np.arange(n)
    size = as_integer(function, "sample", sample, 1, n, "n")
    return np.sort(np.random.default_rng(random_state).choice(n, size, replace=False))
