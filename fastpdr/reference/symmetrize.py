"""A symmetric sparse matrix from directed nearest neighbours.

A and its transpose stand side by side on the union of their entries, which a sort of i n + j finds.
"""

from __future__ import annotations

import torch

from fastpdr._sparse import csr_tensor, index_dtype


def symmetrize(
    indices: torch.Tensor, values: torch.Tensor, *, sum_factor: float = 1.0, product_factor: float = 0.0
) -> torch.Tensor:
    """See :func:`fastpdr.ops.symmetrize`."""
    n = len(indices)
    rows = torch.arange(n, device=indices.device)[:, None].expand_as(indices)
    if ((indices < -1) | (indices >= n)).any():
        raise ValueError("symmetrize: indices must lie in [-1, n)")
    neighbors = (indices >= 0) & (values != 0)
    i, j, entries = rows[neighbors], indices[neighbors], values[neighbors].double()
    if (i == j).any():
        raise ValueError("symmetrize: indices must not name the row itself")

    union, where = torch.unique(torch.cat([i * n + j, j * n + i]), return_inverse=True)
    here, there = where.split([len(i), len(i)])
    if len(here.unique()) < len(here):
        raise ValueError("symmetrize: indices must be distinct within a row")
    a = entries.new_zeros(len(union)).index_put((here,), entries)
    b = entries.new_zeros(len(union)).index_put((there,), entries)
    merged = (sum_factor * (a + b) + product_factor * (a * b)).to(values.dtype)
    union, merged = union[merged != 0], merged[merged != 0]
    ends = torch.bincount(union // max(n, 1), minlength=n).cumsum(0)
    index = index_dtype(n, len(merged))
    return csr_tensor(torch.cat([ends.new_zeros(1), ends]).to(index), (union % max(n, 1)).to(index), merged, n)
