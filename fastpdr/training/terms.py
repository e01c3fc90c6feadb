"""What a method may add to its loss: landmarks, a decoder that reconstructs the input, a correlation of distances.

A term sees one batch: its rows, the input of the encoder without noise, and the map ``[b, n_components]``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from fastpdr.training.rows import Source, gathered

Comparison = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Landmarks(nn.Module):
    """Draws rows of known position towards it; rows of NaN are free.

    Parameters
    ----------
    positions : torch.Tensor
        ``[n, n_components]`` float32.
    compare : callable
        Of (map, positions), both ``[l, n_components]``, to a scalar.
    weight : float
        Factor of this term.
    """

    def __init__(self, positions: torch.Tensor, compare: Comparison, weight: float) -> None:
        super().__init__()
        self.positions, self.compare, self.weight = positions, compare, weight

    def forward(self, rows: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the weighted loss of the batch's landmarks, 0 where it has none."""
        wanted = self.positions[rows]
        held = wanted.isfinite().all(1)
        if not bool(held.any()):
            return y.new_zeros(())
        return self.weight * self.compare(y[held], wanted[held])


class Reconstruction(nn.Module):
    """Trains a decoder from the map back to the data.

    Parameters
    ----------
    decoder : torch.nn.Module
        ``[b, n_components] -> [b, d]``.
    target : torch.Tensor or PreparedRows
        ``[n, d]`` float32, what it shall give.
    compare : callable
        Of (reconstruction, target) to a scalar.
    weight : float
        Factor of this term.
    through : bool
        Whether the encoder learns from it too (an autoencoder), or the decoder alone.
    """

    def __init__(self, decoder: nn.Module, target: Source, compare: Comparison, weight: float, through: bool) -> None:
        super().__init__()
        self.decoder, self.target, self.compare = decoder, target, compare
        self.weight, self.through = weight, through

    def forward(self, rows: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the weighted loss of the batch's reconstruction."""
        wanted = gathered(self.target, rows).to(y.device)  # large ones may be in the host's memory, or in a file
        return self.weight * self.compare(self.decoder(y if self.through else y.detach()), wanted)


class GlobalCorrelation(nn.Module):
    """Keeps far things far: minus Pearson's correlation of distances in the input and on the map.

    Distances are those from each row of the batch to the next one of a random order.
    """

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, rows: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the weighted term of the batch, 0 for fewer than three rows."""
        if len(y) < 3:
            return y.new_zeros(())
        order = torch.randperm(len(y), device=y.device)
        far = [(part[order] - part[order].roll(1, 0)).flatten(1).norm(dim=1) for part in (x, y)]
        centred = [part - part.mean() for part in far]
        lengths = [part.norm().clamp_min(1e-12) for part in centred]
        return -self.weight * (centred[0] * centred[1]).sum() / (lengths[0] * lengths[1])
