"""Which rows make a batch: all rows in random order, or the ends of edges drawn by their weight.

Beyond some 10,000 rows a random batch holds hardly any pair of neighbours (1000 of a million rows: one edge in a
million); drawn edges bring half as many pairs as rows, whatever the size. Each distinct row is encoded once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch

from fastpdr import ops
from fastpdr._progress import phase
from fastpdr.training.seeds import ORDER, derived_seed

DRAWN_AT_ONCE = 2**16  # rows, of several batches
SUMMED_AT_ONCE = 2**24  # weights in float64


class Batch(NamedTuple):
    """The rows of a batch, and how many of them count."""

    rows: torch.Tensor  # [b] int64, the first of them distinct
    points: torch.Tensor | None = None  # [] int64, how many of them are; the others are padding. None: all


class RandomBatches:
    """Cuts a random order of the n rows into batches of equal size (give or take one): no row is left out.

    The order of an epoch depends on the generator's seed and the number of the epoch alone.

    Attributes
    ----------
    per_epoch : int
        Batches of an epoch.
    largest : int
        Rows of a batch at most.
    step : int
        Batches drawn so far, from which :meth:`epoch` goes on; it may be set.
    """

    def __init__(self, n: int, batch_size: int, generator: torch.Generator) -> None:
        self.n, self.generator = n, generator
        self.per_epoch = math.ceil(n / batch_size)
        self.largest, self.step = math.ceil(n / self.per_epoch), 0

    def epoch(self, padded: bool = False) -> Iterator[Batch]:
        """Yield the batches up to the end of an epoch, every row once; no padding, as they say where ``padded``."""
        number, begin = divmod(self.step, self.per_epoch)
        device = self.generator.device
        generator = torch.Generator(device).manual_seed(derived_seed(self.generator.initial_seed(), ORDER, number))
        order = torch.randperm(self.n, generator=generator, device=device)
        for rows in order.tensor_split(self.per_epoch)[begin:]:
            self.step += 1
            yield Batch(rows, torch.full((), len(rows), device=rows.device) if padded else None)


class EdgeBatches:
    """Draws edges in proportion to their weights, with replacement; a batch holds the distinct rows at their ends.

    Parameters
    ----------
    graph : torch.Tensor
        ``[n, n]`` sparse_csr, symmetric weights >= 0, at least one of them positive.
    batch_size : int
        Ends drawn for a batch, twice as many as edges; the distinct rows among them are somewhat fewer.
    per_epoch : int or None
        Batches of an epoch. None: as many as draw every edge ``weight / largest weight`` times in expectation. (UMAP
        lists an edge once for each of its directions: its epoch is two of these.)
    seed : int
        Of the draws, which depend on it and the number of the step alone.

    Attributes
    ----------
    largest : int
        Rows of a batch at most.
    step : int
        Batches drawn so far, from which :meth:`epoch` goes on; it may be set.
    """

    def __init__(self, graph: torch.Tensor, batch_size: int, per_epoch: int | None, seed: int) -> None:
        self.indptr, self.indices, weights = graph.crow_indices(), graph.col_indices(), graph.values()
        with phase("table of edges"):
            self.table = ops.alias_table(weights)
        self.edges = max(1, batch_size // 2)
        self.largest = 2 * self.edges
        total = sum(float(part.double().sum()) for part in weights.split(SUMMED_AT_ONCE))
        visits = total / float(weights.max()) / 2  # every edge is stored twice
        self.per_epoch = per_epoch or max(1, math.ceil(visits / self.edges))
        self.seed, self.step = seed, 0

    def epoch(self, padded: bool = False) -> Iterator[Batch]:
        """Yield the batches up to the end of an epoch, their distinct rows ascending.

        Where ``padded``, the rows that were drawn again follow as padding: all batches have one size, and nothing waits
        for a device. Several are made at once, since an op takes longer to start than to draw a batch.
        """
        together = max(1, DRAWN_AT_ONCE // (2 * self.edges))
        for begin in range(self.step % self.per_epoch, self.per_epoch, together):
            drawn = self._draw(min(together, self.per_epoch - begin))
            batches = map(Batch, *map(torch.unbind, duplicates_last(drawn))) if padded else map(Batch, distinct(drawn))
            for batch in batches:
                self.step += 1
                yield batch

    def _draw(self, batches: int) -> torch.Tensor:
        """The ends of the edges of the next batches, ``[batches, 2 edges]``."""
        steps = range(self.step, self.step + batches)
        drawn = [ops.sample_edges(self.table, self.edges, seed=self.seed, step=step) for step in steps]
        entries = torch.stack(drawn)
        # Of one dtype, or PyTorch would make a copy of the whole indptr.
        heads = torch.searchsorted(self.indptr, entries.to(self.indptr.dtype), right=True) - 1
        return torch.cat([heads, self.indices[entries].long()], dim=1)


def distinct(rows: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """What is in each row of rows ``[m, b]``, once and ascending: m tensors."""
    rows, new = sorted_rows(rows)
    return rows[new].split(new.sum(1).tolist())


def duplicates_last(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Each row of rows ``[m, b]`` sorted, what repeats moved behind the distinct; and the number of these, ``[m]``.

    The repeated rows keep their order, so the same draws give the same batch.
    """
    rows, new = sorted_rows(rows)
    rank = new.cumsum(1)
    points = rank[:, -1]
    order = torch.arange(rows.shape[1], device=rows.device)
    places = torch.where(new, rank - 1, points[:, None] + order - rank)
    return torch.empty_like(rows).scatter_(1, places, rows), points


def sorted_rows(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Each row of rows ``[m, b]`` sorted, and which of its entries differ from the one before."""
    rows = rows.sort(dim=1).values
    new = torch.ones_like(rows, dtype=torch.bool)
    new[:, 1:] = rows[:, 1:] != rows[:, :-1]
    return rows, new
