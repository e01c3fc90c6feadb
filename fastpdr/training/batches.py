"""Which rows make a batch: all rows in random order, or the ends of edges drawn by their weight.

Beyond some 10,000 rows a random batch holds hardly any pair of neighbours (1000 of a million rows: one edge in a
million); drawn edges bring half as many pairs as rows, whatever the size. Each distinct row is encoded once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from fastpdr import ops


class RandomBatches:
    """Cuts a random order of the n rows into batches of equal size (give or take one): no row is left out."""

    def __init__(self, n: int, batch_size: int, generator: torch.Generator) -> None:
        self.n, self.generator = n, generator
        self.per_epoch = math.ceil(n / batch_size)

    def epoch(self) -> Iterator[torch.Tensor]:
        """Yield the rows of the batches of one epoch, ``[b]`` each: every row once."""
        order = torch.randperm(self.n, generator=self.generator, device=self.generator.device)
        return iter(order.tensor_split(self.per_epoch))


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
        Of the draws, which depend on nothing else.
    """

    def __init__(self, graph: torch.Tensor, batch_size: int, per_epoch: int | None, seed: int) -> None:
        self.indptr, self.indices, weights = graph.crow_indices(), graph.col_indices(), graph.values()
        self.table = ops.alias_table(weights)
        self.edges = max(1, batch_size // 2)
        visits = float(weights.double().sum() / weights.max()) / 2  # every edge is stored twice
        self.per_epoch = per_epoch or max(1, math.ceil(visits / self.edges))
        self.seed, self.step = seed, 0

    def epoch(self) -> Iterator[torch.Tensor]:
        """Yield the rows of the batches of one epoch, ``[b]`` each, ascending."""
        for _ in range(self.per_epoch):
            entries = ops.sample_edges(self.table, self.edges, seed=self.seed, step=self.step)
            self.step += 1
            heads = torch.searchsorted(self.indptr, entries, right=True) - 1
            yield torch.unique(torch.cat([heads, self.indices[entries]]))
