"""What fit and transform are given, as rows that have been checked as scikit-learn does; large ones in blocks.

Arrays, lists and data frames of ordinary size are validated by scikit-learn as a whole. Of everything else (memory
maps, files, folders, sparse matrices, tensors, data sets, and arrays whose conversion to floating point would take a
copy of some size) scikit-learn sees the first rows, and the finiteness of all is checked block by block.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_array, validate_data

from fastpdr.data import Rows, TensorRows, as_tensor, open_rows, widened

FIRST_ROWS = 16
CONVERTED_BYTES = 2**26  # of the copy that a conversion at once may make


def validated(estimator: Any, X: Any, *, minimum: int = 1, reset: bool = False, finite: bool = True) -> Rows:
    """X ``[n, d]`` as rows of finite real numbers.

    Parameters
    ----------
    estimator : fastpdr estimator
        Whose number and names of columns it must have, or gets.
    X : array-like, or anything that :func:`fastpdr.data.open_rows` takes
    minimum : int
        Rows that are needed.
    reset : bool
        Whether the estimator gets the columns of X.
    finite : bool
        Whether all rows of a file are read to see that they are finite; those in memory are in any case.

    Raises
    ------
    ValueError
        As scikit-learn's validate_data, and open_rows.
    OSError
        If a file cannot be read.
    """
    checks: dict[str, Any] = {"ensure_min_samples": minimum, "reset": reset}
    if not _by_blocks(X):
        return TensorRows(as_tensor(np.ascontiguousarray(validate_data(estimator, X, dtype=_dtypes(X), **checks))))
    rows = open_rows(type(estimator).__name__, X)
    first = widened(rows.block(0, min(len(rows), FIRST_ROWS))).cpu().numpy()
    validate_data(estimator, first, dtype=[np.float64, np.float32], **checks)
    if rows.dtype.is_floating_point and (finite or rows.in_memory):
        for _, _, block in rows.blocks():
            require_finite(estimator, block)
    return rows


def require_finite(estimator: Any, block: torch.Tensor) -> None:
    """Raise scikit-learn's error where rows ``[b, d]`` hold NaN or an infinite value."""
    if block.dtype.is_floating_point and not bool(block.isfinite().all()):
        check_array(widened(block).cpu().numpy(), estimator=estimator, input_name="X", dtype=[np.float64, np.float32])


def _by_blocks(X: Any) -> bool:
    if isinstance(X, Rows | str | os.PathLike | torch.Tensor | torch.utils.data.Dataset | np.memmap):
        return True
    if hasattr(X, "tocsr") or hasattr(X, "__getitems__"):
        return True
    if not isinstance(X, np.ndarray) or X.dtype.kind not in "biuf":
        return False
    exact = X.dtype in (np.float32, np.float64) and X.flags.c_contiguous
    return not exact and X.size * (4 if X.dtype.itemsize <= 2 else 8) > CONVERTED_BYTES


def _dtypes(X: object) -> list[type]:
    """float32 and float64 stay; small types become float32, which holds them exactly, others float64."""
    dtype = getattr(X, "dtype", None)
    small = isinstance(dtype, np.dtype) and dtype.itemsize <= 2
    return [np.float32, np.float64] if small else [np.float64, np.float32]
