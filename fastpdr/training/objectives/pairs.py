"""UMAP and LargeVis: drawn edges choose the rows of a batch, all edges among these rows attract, all pairs repel.

In expectation over the drawn edges alone this is what the sampling methods minimise, with far less variance: b encoded
rows give b² pairs that repel instead of a few for each edge, and edges that a batch holds by chance are not wasted.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import torch

from fastpdr import ops
from fastpdr.training.batches import EdgeBatches
from fastpdr.training.objectives.base import GraphObjective


@dataclass(frozen=True)
class Curve:
    """The arguments of :func:`fastpdr.ops.pair_loss` that a method fixes."""

    a: float
    b: float
    repulsion: float
    eps: float
    clip: float
    kernel: str = "umap"


class PairObjective(GraphObjective):
    """:func:`fastpdr.ops.pair_loss` over batches of a graph.

    Parameters
    ----------
    graph : torch.Tensor
        ``[n, n]`` sparse_csr float32, symmetric.
    curve : Curve
        Of the method.
    batches : EdgeBatches
        Draws from the same graph.
    """

    def __init__(self, graph: torch.Tensor, curve: Curve, batches: EdgeBatches) -> None:
        super().__init__(graph, batches)
        self.settings = asdict(curve)

    def loss(
        self, y: torch.Tensor, similarities: torch.Tensor, exaggeration: float, points: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the scalar loss of the map y ``[b, c]``; more attraction is less repulsion, times a factor."""
        repulsion = self.settings["repulsion"] / exaggeration
        settings = {**self.settings, "repulsion": repulsion}
        return exaggeration * ops.pair_loss(y, similarities, **settings, points=points)


def curve_of(min_dist: float, spread: float) -> tuple[float, float]:
    """UMAP's a and b: the least-squares fit of ``1 / (1 + a d^(2b))`` to ``min(1, exp(-(d - min_dist) / spread))``.

    On 300 distances up to 3 spread, as umap-learn fits it.
    """
    from scipy.optimize import curve_fit

    distances = np.linspace(0, 3 * spread, 300)
    wanted = np.exp(-np.maximum(distances - min_dist, 0) / spread)
    (a, b), _ = curve_fit(lambda d, a, b: 1 / (1 + a * d ** (2 * b)), distances, wanted)
    return float(a), float(b)
