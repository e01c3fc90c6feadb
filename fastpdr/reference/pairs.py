"""UMAP's and LargeVis's loss, pair by pair as in McInnes, Healy & Melville (2018) and Tang et al. (2016).

Needs O(b² c) memory and leaves the gradient to autograd; the clip of a pair's gradient is a hook on its difference.
"""

from __future__ import annotations

import torch

from fastpdr.reference.student_t import entries, without_padding

_NEAREST = 1e-12  # squared distance below which points coincide


def pair_loss(
    y: torch.Tensor,
    targets: torch.Tensor,
    *,
    a: float,
    b: float,
    repulsion: float,
    eps: float = 1e-3,
    clip: float = 4.0,
    kernel: str = "umap",
    points: torch.Tensor | None = None,
) -> torch.Tensor:
    """See :func:`fastpdr.ops.pair_loss`."""
    y, targets = without_padding(y, targets, points)
    settings = (targets, a, b, repulsion, eps, clip, {"umap": 0.0, "keras": 1.0}[kernel])
    if clip == 0 or not (torch.is_grad_enabled() and y.requires_grad):
        return _loss(y, *settings)
    # A clip does not scale with what is multiplied on later: the gradient is taken here and handed on.
    inner = y.detach().requires_grad_()
    loss = _loss(inner, *settings)
    (grad,) = torch.autograd.grad(loss, inner)
    return loss.detach() + ((y - y.detach()) * grad).sum()


def _loss(
    y: torch.Tensor,
    targets: torch.Tensor,
    a: float,
    b: float,
    repulsion: float,
    eps: float,
    clip: float,
    shift: float,
) -> torch.Tensor:
    rows, columns, values = entries(targets)
    mass, count = values.sum(), len(y)
    loss = 0.0 * y.sum()
    if count > 1 and mass != 0:
        v = values / mass
        power = _power(y[rows] - y[columns], v, a, b, 0.0, clip)
        loss = loss + (v * torch.log1p(shift + power)).sum()
    if count > 1:
        i, j = torch.triu_indices(count, count, 1, device=y.device)
        weight = torch.full_like(y[i, 0], 2 * repulsion / (count * (count - 1)))
        power = _power(y[i] - y[j], weight, a, b, eps, clip)
        loss = loss + (weight * torch.log1p(1 / (shift + power))).sum()
    return loss


def _power(difference: torch.Tensor, weight: torch.Tensor, a: float, b: float, eps: float, clip: float) -> torch.Tensor:
    """``a s^b`` of pairs with the differences ``[m, c]``, whose gradients will be clipped to ``weight * clip``."""
    if difference.requires_grad and clip > 0:
        difference.register_hook(lambda grad: _shorten(grad, weight * clip))
    s = (difference.square().sum(1) + eps).clamp_min(_NEAREST)
    return a * s**b


def _shorten(grad: torch.Tensor, longest: torch.Tensor) -> torch.Tensor:
    length = grad.norm(dim=1).clamp_min(torch.finfo(grad.dtype).tiny)
    return grad * (longest / length).clamp_max(1.0)[:, None]
