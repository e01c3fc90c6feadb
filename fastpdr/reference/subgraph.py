"""The entries of a sparse matrix among some of its rows.

Every entry of the rows is looked up in an array that has the place of a row, -1 for those that are not asked for;
it takes O(n), where the kernel takes a hash.
"""

from __future__ import annotations

import torch

from fastpdr._sparse import csr_tensor


def subgraph(
    indptr: torch.Tensor,
    indices: torch.Tensor,
    values: torch.Tensor,
    rows: torch.Tensor,
    *,
    points: torch.Tensor | None = None,
    capacity: int | None = None,
) -> torch.Tensor:
    """See :func:`fastpdr.ops.subgraph`."""
    if points is not None or capacity is not None:
        whole = subgraph(indptr, indices, values, rows if points is None else rows[: int(points)])
        return _with_room(whole, len(rows), capacity)
    n, b = len(indptr) - 1, len(rows)
    if ((rows < 0) | (rows >= n)).any():
        raise ValueError("subgraph: rows must lie in [0, n)")
    if len(rows.unique()) < b:
        raise ValueError("subgraph: rows must be distinct")
    begins = indptr[rows].long()  # [b]
    degrees = indptr[rows + 1].long() - begins
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


def _with_room(matrix: torch.Tensor, b: int, capacity: int | None) -> torch.Tensor:
    """Empty rows up to b, and room for so many entries."""
    indptr, indices, values = matrix.crow_indices(), matrix.col_indices(), matrix.values()
    room = 0 if capacity is None else capacity - len(values)
    if room < 0:
        raise ValueError("subgraph: capacity must be the number of entries or more")
    ends = indptr[-1:].expand(b + 1 - len(indptr))
    pad = torch.nn.functional.pad
    return csr_tensor(torch.cat([indptr, ends]), pad(indices, (0, room)), pad(values, (0, room)), b)
