"""The graph of neighbours in several processes: each has the rows of its shard, and what it makes is what one would.

Every process searches among all rows for the neighbours of its own. Similarities are rows of their own too; to make
them symmetric, each entry (i, j) goes to the process that has row j, which adds it where one process would. Entries
are sums of the same two numbers in float64, so they are the same bits as those of one process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch

from fastpdr._progress import LOG
from fastpdr._sparse import csr_tensor, index_dtype
from fastpdr.data import as_tensor
from fastpdr.graph.knn import KNNGraph, searched


class Exchange(Protocol):
    """Processes that work together; ``fastpdr.training.ranks.Ranks`` is one."""

    rank: int
    size: int

    def bounds(self, n: int) -> list[int]:
        """Where each process's rows of n begin, and n."""

    def shard(self, n: int) -> tuple[int, int]:
        """Where the own rows begin and end."""

    def gather(self, part: torch.Tensor, purpose: str) -> list[torch.Tensor]:
        """Return the parts of all."""

    def collect(self, part: torch.Tensor, purpose: str) -> list[torch.Tensor] | None:
        """Return the parts of all to the first."""

    def exchange(self, parts: Sequence[torch.Tensor], purpose: str) -> list[torch.Tensor]:
        """Send a part to each; return what came."""

    def total(self, *values: float) -> list[float]:
        """Sums over all."""

    def largest(self, *values: float) -> list[float]:
        """Maxima over all."""


@dataclass(frozen=True, eq=False, repr=False)
class NeighborShard(KNNGraph):
    """The nearest others of the rows of this process: indices of any row, ``[m, k]`` of the shard's m.

    :func:`fastpdr.graph.perplexity_affinities` and :func:`fastpdr.graph.fuzzy_set` make of it an ``[n, n]`` matrix in
    which the rows of other processes are empty. All processes have to call them.

    Attributes
    ----------
    rows : int
        n, of all processes.
    exchange : Exchange
        Between them.
    """

    rows: int = 0
    exchange: Any = None

    @property
    def n(self) -> int:
        return self.rows

    @property
    def first(self) -> int:
        return self.exchange.shard(self.rows)[0]

    @classmethod
    def search(cls, exchange: Exchange, X: Any, n_neighbors: int, **settings: Any) -> NeighborShard:
        """Find the neighbours of the own rows; X, the same in all processes, and settings as for ``KNNGraph.build``."""
        arrays, metric, made = searched("KNNGraph.build", X, n_neighbors, exchange=exchange, **settings)
        shard = cls(*arrays, metric, made, None, len(X) if not hasattr(X, "shape") else X.shape[0], exchange)
        LOG.info("rank %d: %r", exchange.rank, shard)
        return shard

    @classmethod
    def of(cls, graph: KNNGraph, exchange: Exchange) -> NeighborShard:
        """The own rows of a whole graph."""
        begin, end = exchange.shard(graph.n)
        arrays = (graph.indices[begin:end].copy(), graph.distances[begin:end].copy())
        return cls(*arrays, graph.metric, graph.settings, None, graph.n, exchange)

    def take(self, k: int) -> KNNGraph:
        """The nearest k neighbours."""
        return replace(self, indices=self.indices[:, :k].copy(), distances=self.distances[:, :k].copy())

    def total(self, value: float) -> float:
        return self.exchange.total(value)[0]

    def largest(self, value: float) -> float:
        return self.exchange.largest(value)[0]

    def symmetrized(self, values: torch.Tensor, sum_factor: float, product_factor: float = 0.0) -> torch.Tensor:
        return symmetrize_rows(as_tensor(self.indices), values, self.rows, self.exchange, sum_factor, product_factor)


def symmetrize_rows(
    indices: torch.Tensor,
    values: torch.Tensor,
    n: int,
    exchange: Exchange,
    sum_factor: float,
    product_factor: float,
) -> torch.Tensor:
    """The own rows of what :func:`fastpdr.ops.symmetrize` makes of the parts of all processes.

    Parameters
    ----------
    indices : torch.Tensor
        ``[m, k]`` int64, of the own rows.
    values : torch.Tensor
        ``[m, k]`` float32 or float64.
    n : int
        Rows of all.
    exchange : Exchange
        Between the processes.
    sum_factor, product_factor : float
        As there.

    Returns
    -------
    torch.Tensor
        ``sparse_csr`` ``[n, n]``; rows of others are empty.
    """
    begin, end = exchange.shard(n)
    rows = torch.arange(begin, end)[:, None].expand_as(indices)
    present = (indices >= 0) & (values != 0)
    i, j, entries = rows[present], indices[present], values[present]
    order = j.argsort(stable=True)  # by owner
    ends = torch.searchsorted(j[order], torch.tensor(exchange.bounds(n)))
    counts = ends.diff().tolist()
    theirs = [
        torch.cat(exchange.exchange(part[order].split(counts), "neighbours")) for part in (j, i, entries)
    ]  # of the transpose, whose rows are ours

    keys = torch.cat([(i - begin) * n + j, (theirs[0] - begin) * n + theirs[1]])
    union, where = torch.unique(keys, return_inverse=True)
    here, there = where.split([len(i), len(theirs[0])])
    a = torch.zeros(len(union), dtype=torch.float64).index_put((here,), entries.double())
    b = torch.zeros(len(union), dtype=torch.float64).index_put((there,), theirs[2].double())
    merged = (sum_factor * (a + b) + product_factor * (a * b)).to(values.dtype)
    union, merged = union[merged != 0], merged[merged != 0]
    degrees = torch.bincount(union // n, minlength=end - begin)
    return among_all(degrees, union % n, merged, n, begin)


def among_all(degrees: torch.Tensor, columns: torch.Tensor, values: torch.Tensor, n: int, begin: int) -> torch.Tensor:
    """A sparse ``[n, n]`` of rows that begin somewhere, of so many entries each; the others are empty."""
    dtype = index_dtype(n, len(values))
    every = degrees.new_zeros(n + 1)
    every[begin + 1 : begin + 1 + len(degrees)] = degrees
    return csr_tensor(every.cumsum(0, dtype=dtype), columns.to(dtype), values, n)


def whole(part: torch.Tensor, exchange: Exchange, *, everywhere: bool) -> torch.Tensor | None:
    """The matrix of all processes' rows, in each of them or in the first alone."""
    n, (begin, end) = part.shape[0], exchange.shard(part.shape[0])
    parts = (part.crow_indices().diff()[begin:end], part.col_indices(), part.values())
    gathered = [(exchange.gather if everywhere else exchange.collect)(own, "whole graph") for own in parts]
    degrees, columns, values = (None if every is None else torch.cat(every) for every in gathered)
    if degrees is None or columns is None or values is None:
        return None
    return among_all(degrees, columns, values, n, 0)


def own_rows(matrix: torch.Tensor, exchange: Exchange) -> torch.Tensor:
    """A whole matrix without the rows of other processes."""
    n, (begin, end) = matrix.shape[0], exchange.shard(matrix.shape[0])
    indptr = matrix.crow_indices()
    entries = slice(int(indptr[begin]), int(indptr[end]))
    return among_all(
        indptr.diff()[begin:end], matrix.col_indices()[entries].clone(), matrix.values()[entries].clone(), n, begin
    )
