"""What an estimator does otherwise where several processes fit it together (``training/ranks.py``).

All of them are given the same rows and run the same program. Each searches for the neighbours of its own shard of rows
and places a part of the map; a graph that must be seen whole, such as by labels, is put together and cut again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fastpdr._sparse import scipy_csr
from fastpdr.data import Rows
from fastpdr.estimators.resolve import placed_at_once
from fastpdr.graph import KNNGraph
from fastpdr.graph.sharded import NeighborShard, own_rows, whole
from fastpdr.training.checkpoints import digest
from fastpdr.training.ranks import Ranks, current

COMPARED_ROWS = 1000


class Part(Rows):
    """Rows begin .. end - 1 of others."""

    def __init__(self, X: Rows, begin: int, end: int) -> None:
        self.X, self.begin, self.dtype, self.device = X, begin, X.dtype, X.device
        self.shape = (end - begin, *X.shape[1:])

    @property
    def in_memory(self) -> bool:
        """Whether all are."""
        return self.X.in_memory

    def block(self, begin: int, end: int) -> torch.Tensor:
        """Rows begin .. end - 1 of the part."""
        return self.X.block(self.begin + begin, self.begin + end)

    def take(self, rows: torch.Tensor) -> torch.Tensor:
        """The rows of these numbers in the part."""
        return self.X.take(self.begin + rows)


def require_same(X: Rows, ranks: Ranks, name: str) -> None:
    """Refuse rows that are not those of rank 0, as far as a thousand of them tell."""
    if ranks.size == 1:
        return
    sample = X.take(torch.arange(0, len(X), max(1, len(X) // COMPARED_ROWS)))
    own = [str(X.dtype), list(X.shape), digest(sample)]
    first = ranks.same(own)
    if any(ranks.largest(float(own != first))):
        raise ValueError(
            f"{name}: X must be the same on all ranks, got {own[0]} {own[1]} on rank {ranks.rank} and "
            f"{first[0]} {first[1]} on rank 0"
        )


def find_neighbors(X: Any, k: int, **settings: Any) -> KNNGraph:
    """The nearest others of all rows, or of the own ones of several ranks."""
    ranks = current()
    return KNNGraph.build(X, k, **settings) if ranks.size == 1 else NeighborShard.search(ranks, X, k, **settings)


def own_neighbors(graph: KNNGraph) -> KNNGraph:
    """Of a whole graph, the rows that are this rank's."""
    ranks = current()
    return graph if ranks.size == 1 else NeighborShard.of(graph, ranks)


def on_whole(graph: torch.Tensor, change: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """What is made of a whole graph; where ranks have each a part of it, the own part of that."""
    ranks = current()
    if ranks.size == 1:
        return change(graph)
    every = whole(graph, ranks, everywhere=True)
    assert every is not None
    return own_rows(change(every), ranks)


def whole_graph(graph: torch.Tensor) -> Any:
    """SciPy's matrix of the graph; of several ranks' parts on rank 0, None on the others."""
    ranks = current()
    every = graph if ranks.size == 1 else whole(graph, ranks, everywhere=False)
    return None if every is None else scipy_csr(every)


def place_together(X: Rows, ranks: Ranks, place: Callable[[Rows], NDArray[np.float32]]) -> NDArray[np.float32]:
    """Place rows on all ranks, each as many of the blocks in which one process would, so that the bits are the same."""
    if ranks.size == 1:
        return place(X)
    size = placed_at_once(X)
    begin, end = (min(len(X), size * block) for block in ranks.shard(-(-len(X) // size)))
    return torch.cat(ranks.gather(torch.from_numpy(place(Part(X, begin, end))), "placed")).numpy()
