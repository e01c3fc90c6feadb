"""What all objectives share: they draw batches, say what a batch is compared with, and compare."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch

from fastpdr import ops
from fastpdr.training.batches import Batch, EdgeBatches, RandomBatches
from fastpdr.training.rows import Source


class Objective(ABC):
    """What the loop minimises.

    Parameters
    ----------
    batches : RandomBatches or EdgeBatches
        Draws the rows.

    Attributes
    ----------
    graph : tuple of torch.Tensor
        What it is compared with, where that is the same for all batches.
    neighbors : torch.Tensor or None
        ``[n, k]`` int64, rows near each row, for noise on the input; whoever makes the objective knows them.
    fixed : bool
        Whether no shape may depend on what is drawn, so that nothing waits for a device and a step can be recorded.
    """

    data: Source | None = None  # [n, ...], of which similarities() is given the batch's rows
    graph: tuple[torch.Tensor, ...] = ()
    neighbors: torch.Tensor | None = None

    def __init__(self, batches: RandomBatches | EdgeBatches) -> None:
        self.batches = batches
        self.fixed = False

    @property
    def per_epoch(self) -> int:
        """Batches of an epoch."""
        return self.batches.per_epoch

    def epoch(self) -> Iterator[Batch]:
        """Draw the batches up to the end of an epoch."""
        return self.batches.epoch(padded=self.fixed)

    @abstractmethod
    def similarities(self, batch: Batch, data: torch.Tensor | None) -> torch.Tensor:
        """Return ``[b, b]``, what the map of a batch is compared with; ``data`` holds its rows of :attr:`data`."""

    @abstractmethod
    def loss(
        self, y: torch.Tensor, similarities: torch.Tensor, exaggeration: float, points: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the scalar loss of the map y ``[b, c]``, its attraction multiplied by the exaggeration.

        ``points`` are the batch's: padding neither attracts nor repels.
        """


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
        self.graph: tuple[torch.Tensor, torch.Tensor, torch.Tensor] = (
            graph.crow_indices(),
            graph.col_indices(),
            graph.values(),
        )
        self._capacities: dict[int, int] = {}

    def similarities(self, batch: Batch, data: torch.Tensor | None = None) -> torch.Tensor:
        """Return all entries of the graph among the rows, ``[b, b]`` sparse_csr; the ops normalise their sum."""
        capacity = self._capacity(len(batch.rows)) if self.fixed else None
        return ops.subgraph(*self.graph, batch.rows, points=batch.points, capacity=capacity)

    def _capacity(self, b: int) -> int:
        """The most entries among b rows, never too few: those of the b longest rows, or all pairs."""
        if b not in self._capacities:
            degrees = self.graph[0].diff()
            self._capacities[b] = min(b * b, int(degrees.topk(min(b, len(degrees))).values.sum()))
        return self._capacities[b]
