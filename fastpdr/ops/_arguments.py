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


def require_choice(function: str, name: str, value: object, choices: tuple[str, ...]) -> None:
    """Require one of a few words."""
    if value not in choices:
        raise ValueError(f"{function}: {name} must be {' or '.join(map(repr, choices))}, got {value!r}")


def require_map(function: str, y: torch.Tensor) -> None:
    """Require a map ``[b, c]`` with at least one column."""
    require_floats(function, "y", y, "[b, c]")
    if y.shape[1] == 0:
        raise ValueError(f"{function}: y must have at least one column, got {describe(y)}")


def require_square(
    function: str, name: str, value: torch.Tensor, y: torch.Tensor, layouts: tuple[torch.layout, ...]
) -> None:
    """Require ``[b, b]`` of the dtype and device of y ``[b, c]``, in one of the layouts."""
    require_floats(function, name, value, "[b, b]")
    b = len(y)
    if value.layout not in layouts:
        words = " or ".join(
            "dense" if layout is torch.strided else str(layout).removeprefix("torch.") for layout in layouts
        )
        raise ValueError(f"{function}: {name} must be {words}, got {describe(value)}")
    if value.shape != (b, b) or value.dtype != y.dtype or value.device != y.device:
        wanted = f"{str(y.dtype).removeprefix('torch.')} [{b}, {b}] on {y.device}"
        raise ValueError(f"{function}: {name} must be {wanted} like y, got {describe(value)}")


def require_points(function: str, points: object, like: torch.Tensor) -> None:
    """Require None or an int64 scalar tensor on the device of another argument; its value is not read."""
    if points is None:
        return
    good = isinstance(points, torch.Tensor) and points.dtype is torch.int64 and points.dim() == 0
    if not isinstance(points, torch.Tensor) or not good or points.device != like.device:
        raise ValueError(f"{function}: points must be int64 [] on {like.device}, got {describe(points)}")


def csr_parts(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(indptr, indices, values) of a sparse_csr matrix, int64, as the kernels take it."""
    return matrix.crow_indices().long(), matrix.col_indices().long(), matrix.values().detach()


def require_indices(
    function: str, name: str, value: object, shape: str, dtypes: tuple[torch.dtype, ...] = (torch.int64,)
) -> None:
    """Require a tensor of integers with as many dimensions as ``shape`` names, such as ``[n, k]``."""
    words = " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{function}: {name} must be an {words} tensor {shape}, got {describe(value)}")
    if value.dtype not in dtypes or value.dim() != shape.count(",") + 1:
        raise ValueError(f"{function}: {name} must be {words} {shape}, got {describe(value)}")


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
