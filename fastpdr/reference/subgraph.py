"""The entries of a sparse matrix among some of its rows.

Every entry of the rows is looked up in an array that has the place of a row, -1 for those that are not asked for;
it takes O(n), where the kernel takes a hash.
"""

from __future__ import annotations

import torch

from fastpdr._sparse import csr_tensor


def subgraph(indptr: torch.Tensor, indices: torch.Tensor, values: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """See :func:`fastpdr.ops.subgraph`."""
    n, b = len(indptr) - 1, len(rows)
    if ((rows < 0) | (rows >= n)).any():
        raise ValueError("subgraph: rows must lie in [0, n)")
    if len(rows.unique()) < b:
        raise ValueError("subgraph: rows must be distinct")
    begins, degrees = indptr[rows], indptr[rows + 1] - indptr[rows]  # [b]
    if ((begins < 0) | (degrees < 0) | (begins + degrees > len(indices))).any():
        raise ValueError("subgraph: indptr must rise from 0 to the number of entries")
    s = torch.repeat_interleave(torch.arange(b, device=rows.device), degrees)  # [entries], the row of each
    rank = torch.arange(len(s), device=rows.device) - (degrees.cumsum(0) - degrees)[s]
    entries = begins[s] + rank
    columns = indices[entries]
    if ((columns < 0) | (columns >= n)).any():
        raise ValueError("subgraph: indices must lie in [0, n)")

    places = torch.full((n,), -1, device=rows.device)
    places[rows] = torch.arange(b, device=rows.device)
    t = places[columns]
    found = t >= 0
    s, t, entries = s[found], t[found], entries[found]
    order = torch.argsort(s * b + t, stable=True)
    ends = torch.bincount(s, minlength=b).cumsum(0)
    return csr_tensor(torch.cat([ends.new_zeros(1), ends]), t[order], values[entries[order]], b)
