"""What all objectives share: they draw batches, say what a batch is compared with, and compare."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch

from fastpdr import ops
from fastpdr.training.batches import EdgeBatches, RandomBatches


class Objective(ABC):
    """What the loop minimises.

    Parameters
    ----------
    batches : RandomBatches or EdgeBatches
        Draws the rows.
    """

    def __init__(self, batches: RandomBatches | EdgeBatches) -> None:
        self.batches = batches

    @property
    def per_epoch(self) -> int:
        """Batches of an epoch."""
        return self.batches.per_epoch

    def epoch(self) -> Iterator[torch.Tensor]:
        """Draw the rows of the batches of one epoch, ``[b]`` int64 each, distinct."""
        return self.batches.epoch()

    @abstractmethod
    def similarities(self, rows: torch.Tensor) -> torch.Tensor:
        """Return ``[b, b]``, what the map of a batch of rows is compared with."""

    @abstractmethod
    def loss(self, y: torch.Tensor, similarities: torch.Tensor, exaggeration: float) -> torch.Tensor:
        """Return the scalar loss of the map y ``[b, c]``, its attraction multiplied by the exaggeration."""


class GraphObjective(Objective):
    """Compares with the entries of one graph of the whole data, whichever rows are drawn.

    Parameters
    ----------
    graph : torch.Tensor
        ``[n, n]`` sparse_csr float32, symmetric.
    batches : RandomBatches or EdgeBatches
        Draws the rows.
    """

    def __init__(self, graph: torch.Tensor, batches: RandomBatches | EdgeBatches) -> None:
        super().__init__(batches)
        self.graph = graph.crow_indices(), graph.col_indices(), graph.values()

    def similarities(self, rows: torch.Tensor) -> torch.Tensor:
        """Return all entries of the graph among the rows, ``[b, b]`` sparse_csr; the ops normalise their sum."""
        return ops.subgraph(*self.graph, rows)
