"""The entries of a sparse matrix among the rows of a batch: argument checks, the choice of native or reference."""

from __future__ import annotations

import torch

from fastpdr import _native, reference
from fastpdr._sparse import csr_tensor
from fastpdr.ops._arguments import (
    describe,
    raise_from_kernel,
    require_count,
    require_floats,
    require_indices,
    require_points,
)

_SUBGRAPH = _native.overload("subgraph")  # no fake: the number of entries depends on the data
_MAX_ROWS = 2**29 - 1  # of the native kernel
_VALUES = (torch.float32, torch.float64)
_INDICES = (torch.int64, torch.int32)


def subgraph(
    indptr: torch.Tensor,
    indices: torch.Tensor,
    values: torch.Tensor,
    rows: torch.Tensor,
    *,
    points: torch.Tensor | None = None,
    capacity: int | None = None,
) -> torch.Tensor:
    """Take what a batch needs of a sparse matrix of the whole data set: ``P[rows][:, rows]``.

    Time and memory are those of the rows read, O(b k) for k entries a row, whatever n; the matrix is not scanned.

    Parameters
    ----------
    indptr : torch.Tensor
        ``[n + 1]`` int64 or int32 (both native); row i has the entries indptr[i] .. indptr[i + 1].
    indices : torch.Tensor
        ``[nnz]`` of the same dtype, their columns, in [0, n), in any order.
    values : torch.Tensor
        ``[nnz]`` float32 or float64 (both native), of the same device. Pass contiguous tensors: others are copied.
    rows : torch.Tensor
        ``[b]`` int64, distinct, in [0, n).
    points : torch.Tensor, optional
        ``[]`` int64 of the same device: only so many rows, the first ones, count. The others are padding: they may be
        anything, and their rows and columns are empty.
    capacity : int, optional
        Give the result room for so many entries, whatever it holds. Then its size does not depend on the contents, and
        nothing waits for the device, where errors in the contents and too little room leave an empty matrix instead of
        being raised. The entries are those that ``crow_indices()`` says; what is behind them is undefined, so the
        result is for the losses' ``points``, not for PyTorch's operations.

    Returns
    -------
    torch.Tensor
        ``sparse_csr`` ``[b, b]`` with int64 indices: entry (s, t) is entry (rows[s], rows[t]) of the matrix. Columns
        ascend within a row. Not differentiable.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, dtype, shape or device, if ``rows`` are repeated or out of range, or if a
        column of these rows is.

    Examples
    --------
    >>> import torch
    >>> from fastpdr import ops
    >>> P = ops.symmetrize(torch.tensor([[1], [2], [0]]), torch.tensor([[1.0], [2.0], [3.0]]))
    >>> ops.subgraph(P.crow_indices(), P.col_indices(), P.values(), rows=torch.tensor([2, 0])).to_dense()
    tensor([[0., 3.],
            [3., 0.]])
    """
    require_indices("subgraph", "indptr", indptr, "[n + 1]", _INDICES)
    require_indices("subgraph", "indices", indices, "[nnz]", (indptr.dtype,))
    require_floats("subgraph", "values", values, "[nnz]")
    require_indices("subgraph", "rows", rows, "[b]")
    _require_one_matrix(indptr, indices, values, rows)
    require_points("subgraph", points, values)
    capacity = None if capacity is None else require_count("subgraph", "capacity", capacity)
    values, b = values.detach(), len(rows)
    if b > _MAX_ROWS or not _native.has_kernel("subgraph", values, dtypes=_VALUES):
        return reference.subgraph(indptr, indices, values, rows, points=points, capacity=capacity)
    try:
        indptr, indices, values = _SUBGRAPH(indptr, indices, values, rows, points, capacity)
    except RuntimeError as error:
        raise_from_kernel("subgraph", error)
    return csr_tensor(indptr, indices, values, b)


def _require_one_matrix(indptr: torch.Tensor, indices: torch.Tensor, values: torch.Tensor, rows: torch.Tensor) -> None:
    if len(indptr) == 0:
        raise ValueError(f"subgraph: indptr must be [n + 1], got {describe(indptr)}")
    if len(values) != len(indices):
        raise ValueError(f"subgraph: values must be [{len(indices)}] like indices, got {describe(values)}")
    for name, tensor in (("indptr", indptr), ("indices", indices), ("rows", rows)):
        if tensor.device != values.device:
            raise ValueError(f"subgraph: {name} must be on {values.device} like values, got {describe(tensor)}")
