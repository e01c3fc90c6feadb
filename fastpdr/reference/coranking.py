"""Ranks by sorting: the bits of a distance above the number of its column, so that equal distances rank by number."""

from __future__ import annotations

import torch


def coranking(
    sqdist_x: torch.Tensor, sqdist_z: torch.Tensor, k: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """See :func:`fastpdr.ops.coranking`."""
    n = sqdist_x.shape[1]
    x, z = _ranks(sqdist_x), _ranks(sqdist_z)
    counts = torch.bincount((torch.maximum(x, z) - 1).flatten(), minlength=n)
    intruding, torn = (torch.where(near <= k, (far - k).clamp_min(0), 0).sum() for near, far in ((z, x), (x, z)))
    return counts, intruding, torn


def _ranks(sqdist: torch.Tensor) -> torch.Tensor:
    """From 1, int64 [b, n]."""
    order = sqdist.abs().sort(dim=1, stable=True).indices
    ranks = torch.arange(1, sqdist.shape[1] + 1, device=sqdist.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, ranks)
