"""Noise on the encoder's input: the map of rows never seen is better where the network has seen what lies around a row.

Gaussian noise moves a row in all directions; noise from neighbours moves it within the span of its nearest rows, so
along the manifold that the data lies on (in the manner of the tangents of Rifai et al. 2011, The Manifold Tangent
Classifier, found by neighbours). Similarities stay those of the clean rows. Each step takes another stretch of one pool
of numbers, since drawing is a tenth of a step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from fastpdr.training.seeds import OFFSET, POOL, derived_seed, derived_seeds

POOL_SIZE = 2**22  # numbers drawn once
SEEDS_AT_ONCE = 64  # of as many steps; one alone takes a hundredth of a step


@dataclass(frozen=True)
class Surroundings:
    """What moves rows towards and away from their neighbours."""

    inputs: torch.Tensor | None  # [n, ...] float32; None where every batch brings its rows' neighbours
    neighbors: torch.Tensor  # [n, k] int64, rows near each row; k >= 2
    deviation: float  # 1 moves a row by about as much as two of its neighbours differ

    def __call__(self, rows: torch.Tensor, numbers: torch.Tensor, near: torch.Tensor | None = None) -> torch.Tensor:
        """A random combination of the neighbours whose weights sum to 0, for rows ``[b]``; ``numbers`` are b k.

        ``near`` ``[b, k, ...]`` are the neighbours where they are not taken from the inputs.
        """
        k = self.neighbors.shape[1]
        if near is not None:
            table, numbered = near.flatten(0, 1), torch.arange(len(rows) * k, device=near.device).view(-1, k)
        else:
            assert self.inputs is not None
            table, numbered = self.inputs, self.neighbors.index_select(0, rows)
        weights = numbers.view(-1, k)
        weights = (weights - weights.mean(1, keepdim=True)) * (self.deviation * math.sqrt(2 / k))
        moves = nn.functional.embedding_bag(numbered, table.flatten(1), per_sample_weights=weights, mode="sum")
        return moves.view(-1, *table.shape[1:])


class Noise:
    """Moves the rows of a batch at random.

    Parameters
    ----------
    deviation : float
        Of the Gaussian noise, per coordinate.
    generator : torch.Generator
        Whose seed the pool and the places in it depend on.
    device : torch.device
        Where the rows of a batch are.
    largest : int
        Rows of a batch at most.
    surroundings : Surroundings, optional
        On that device.
    """

    def __init__(
        self,
        deviation: float,
        generator: torch.Generator,
        device: torch.device,
        largest: int,
        surroundings: Surroundings | None = None,
    ) -> None:
        self.deviation, self.seed, self.device = deviation, generator.initial_seed(), device
        self.largest, self.surroundings = largest, surroundings
        self.pool = torch.empty(0)
        self.together, self.seeds = -1, [0]  # which steps' seeds are here

    def draw(self, x: torch.Tensor, step: int) -> int:
        """Where in the pool the numbers for the batch x ``[b, ...]`` of a step begin."""
        count = self._count(x)
        if count == 0:
            return 0
        if len(self.pool) == 0:
            generator = torch.Generator(self.device).manual_seed(derived_seed(self.seed, POOL))
            size = max(POOL_SIZE, 2 * self.largest * (count // len(x)))
            self.pool = torch.empty(size, device=self.device).normal_(generator=generator)
        together, number = divmod(step, SEEDS_AT_ONCE)
        if together != self.together:
            self.together, self.seeds = together, derived_seeds(self.seed, OFFSET, together, SEEDS_AT_ONCE)
        return self.seeds[number] % (len(self.pool) - count + 1)

    def add(
        self, x: torch.Tensor, rows: torch.Tensor, begin: int | torch.Tensor, near: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return x ``[b, ...]``, which are the rows ``[b]``, moved by the numbers that begin there.

        A place on the device is looked up there. ``near`` are the rows' neighbours, where the surroundings lack them.
        """
        count = self._count(x)
        if count == 0:
            return x
        if isinstance(begin, torch.Tensor):
            numbers = self.pool.unfold(0, count, 1).index_select(0, begin.view(1)).view(-1)
        else:
            numbers = self.pool[begin : begin + count]
        moved = x
        if self.deviation > 0:
            moved = torch.add(moved, numbers[: x.numel()].view(x.shape), alpha=self.deviation)
        if self.surroundings is not None:
            moved = self.surroundings(rows, numbers[self._gaussian(x) :], near).add_(moved)
        return moved

    def _gaussian(self, x: torch.Tensor) -> int:
        return x.numel() if self.deviation > 0 else 0

    def _count(self, x: torch.Tensor) -> int:
        near = 0 if self.surroundings is None else len(x) * self.surroundings.neighbors.shape[1]
        return self._gaussian(x) + near
