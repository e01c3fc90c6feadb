"""Checks that the ops share: every message names function, argument, what was expected and what came."""

from __future__ import annotations

import math
import operator
from typing import Any, NoReturn

import torch


def describe(value: object) -> str:
    """Say what came: dtype and shape of a tensor, the type of anything else."""
    if isinstance(value, torch.Tensor):
        layout = "" if value.layout is torch.strided else f" {str(value.layout).removeprefix('torch.')}"
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}{layout} on {value.device}"
    return type(value).__name__


def require_floats(function: str, name: str, value: object, shape: str) -> None:
    """Require a float32 or float64 tensor with as many dimensions as ``shape`` names, such as ``[n, k]``."""
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{function}: {name} must be a float32 or float64 tensor {shape}, got {describe(value)}")
    if value.dtype not in (torch.float32, torch.float64) or value.dim() != shape.count(",") + 1:
        raise ValueError(f"{function}: {name} must be float32 (or float64) {shape}, got {describe(value)}")


def require_number(function: str, name: str, value: float, *, above: float, inclusive: bool = False) -> float:
    """Require a finite number above (or equal to) a bound."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number) or number < above or (number == above and not inclusive):
        raise ValueError(f"{function}: {name} must be {'>=' if inclusive else '>'} {above:g}, got {value!r}")
    return number


def require_indices(function: str, name: str, value: object, shape: str) -> None:
    """Require an int64 tensor with as many dimensions as ``shape`` names, such as ``[n, k]``."""
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{function}: {name} must be an int64 tensor {shape}, got {describe(value)}")
    if value.dtype is not torch.int64 or value.dim() != shape.count(",") + 1:
        raise ValueError(f"{function}: {name} must be int64 {shape}, got {describe(value)}")


def require_count(function: str, name: str, value: Any) -> int:
    """Require an integer in [0, 2^63), such as a size or a seed."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{function}: {name} must be an integer, got {value!r}") from None
    if not 0 <= number < 2**63:
        raise ValueError(f"{function}: {name} must be an integer in [0, 2^63), got {value!r}")
    return number


def raise_from_kernel(function: str, error: RuntimeError) -> NoReturn:
    """Raise what a kernel found wrong with the contents of an argument as the ValueError that it is."""
    start = str(error).find(f"{function}: ")
    if start < 0:
        raise error
    raise ValueError(str(error)[start:].splitlines()[0]) from None
