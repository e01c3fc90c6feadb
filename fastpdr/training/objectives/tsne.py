"""t-SNE on the similarities of the batch, calibrated anew for every batch, or on those of a neighbour graph.

A batch of b out of n rows holds a share b / n of every row's neighbours. Perplexities are therefore given for the
whole data set and scaled by that share; the perplexity-free method takes the scales 2^h, h = 1 .. round(log2(b / 2)),
of the batch itself (Crecchi, de Bodt, Verleysen, Lee & Bacciu 2020, Perplexity-free Parametric t-SNE).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from fastpdr import ops
from fastpdr.training.batches import Batch, EdgeBatches, RandomBatches
from fastpdr.training.objectives.base import GraphObjective, Objective
from fastpdr.training.rows import Source

BLOCK_ROWS = 128  # whose distances are taken together
WIDE = 256  # columns from which on half of the products cost more than their mirror image
SMALLEST_PERPLEXITY = 2.0  # in the batch; 4 and 8 trade local structure for global


def automatic_perplexities(b: int) -> list[float]:
    """All powers of two up to about b / 2 that a batch of b rows can reach; [1] where there is none."""
    scales = [2.0**h for h in range(1, round(math.log2(max(b, 2) / 2)) + 1)]
    return [scale for scale in scales if scale < b - 1] or [1.0]


def squared_distances(rows: torch.Tensor) -> torch.Tensor:
    """Squared distances ``[b, b]`` among rows ``[b, d]``, the diagonal infinite.

    Of wide rows on the CPU some at a time with those that follow, which is mirrored: about half of the products.
    """
    b, d = rows.shape
    together = BLOCK_ROWS if d >= WIDE and rows.device.type == "cpu" else max(1, b)
    square = rows.square().sum(1)
    sqdist = rows.new_empty(b, b)
    for begin in range(0, b, together):
        end = begin + together
        block = sqdist[begin:end, begin:]
        torch.add(square[begin:end, None], square[begin:], out=block)
        block.addmm_(rows[begin:end], rows[begin:].T, alpha=-2).clamp_min_(0)
        sqdist[begin:end, :begin] = sqdist[:begin, begin:end].T
    return sqdist.fill_diagonal_(torch.inf)


class BatchTSNE(Objective):
    """Kullback-Leibler divergence between the similarities of a batch and those of its map.

    Parameters
    ----------
    data : torch.Tensor or PreparedRows
        ``[n, d]`` float32, what similarities are measured on.
    perplexities : sequence of float or None
        Counted in the whole data set; None takes all powers of two of the batch.
    dof : float
        Degrees of freedom of the map's Student distribution.
    batches : RandomBatches
        Draws the rows.
    """

    def __init__(self, data: Source, perplexities: Sequence[float] | None, dof: float, batches: RandomBatches) -> None:
        super().__init__(batches)
        self.n = batches.n  # which data may be a part of
        self.data: Source = data
        self.perplexities, self.dof = perplexities, dof

    def perplexities_of(self, b: int) -> list[float]:
        """The perplexities that a batch of b rows is calibrated to."""
        if self.perplexities is None:
            return automatic_perplexities(b)
        share, largest = b / self.n, max(1.0, (b - 1) / 2)
        smallest = min(SMALLEST_PERPLEXITY, largest)
        return sorted({min(max(k * share, min(k, smallest)), largest) for k in self.perplexities})

    def similarities(self, batch: Batch, data: torch.Tensor | None) -> torch.Tensor:
        """Symmetric P ``[b, b]`` of the rows; the op that reads it normalises its sum."""
        assert data is not None
        p, _ = ops.perplexity_search(squared_distances(data), self.perplexities_of(len(data)))
        return p + p.T

    def loss(
        self, y: torch.Tensor, similarities: torch.Tensor, exaggeration: float, points: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Scalar loss of the map y ``[b, c]``."""
        return ops.student_t_kl(y, similarities, dof=self.dof, exaggeration=exaggeration)


class NeighborTSNE(GraphObjective):
    """Divergence between the global similarities among the rows of a batch, normalised to sum 1, and those of its map.

    Random batches are compared as a whole. Batches of drawn edges hold pairs of neighbours far more often than the
    global P does, of which a sum over all pairs would know nothing: every row is compared with its own sum.

    Parameters
    ----------
    graph : torch.Tensor
        ``[n, n]`` sparse_csr float32, symmetric P.
    dof : float
        Degrees of freedom of the map's Student distribution.
    batches : RandomBatches or EdgeBatches
        Draws the rows.
    """

    def __init__(self, graph: torch.Tensor, dof: float, batches: RandomBatches | EdgeBatches) -> None:
        super().__init__(graph, batches)
        self.dof = dof
        self.normalization = "row" if isinstance(batches, EdgeBatches) else "global"

    def loss(
        self, y: torch.Tensor, similarities: torch.Tensor, exaggeration: float, points: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Scalar loss of the map y ``[b, c]``."""
        return ops.student_t_kl(
            y,
            similarities,
            dof=self.dof,
            exaggeration=exaggeration,
            normalization=self.normalization,
            points=points,
        )
