"""The search for Gaussian similarities of given perplexity, all rows at once.

Every row's entropy H falls from log(finite entries) to log(entries tied at the minimum) as beta grows. The root of
H = log K is bracketed and sought by Newton steps on log(beta), as functions of logit(H / log m), which is nearly
linear; a step that leaves the bracket is replaced by its geometric middle.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

_MAX_EVALUATIONS = 200


def perplexity_search(
    sqdist: torch.Tensor, perplexities: float | Sequence[float], *, tol: float = 1e-5
) -> tuple[torch.Tensor, torch.Tensor]:
    """See :func:`fastpdr.ops.perplexity_search`."""
    levels = [float(k) for k in ([perplexities] if isinstance(perplexities, (int, float)) else perplexities)]
    dtype, sqdist = sqdist.dtype, sqdist.double()  # float32 cannot hold the range of beta d
    n, k = sqdist.shape
    if n == 0 or k == 0:
        return sqdist.to(dtype), sqdist.new_zeros(n, len(levels), dtype=dtype)
    invalid = (sqdist.isnan() | (sqdist == -torch.inf)).any(1, keepdim=True)
    excluded = sqdist == torch.inf
    finite = (~excluded).sum(1, keepdim=True)
    shifted = sqdist - torch.where(finite > 0, sqdist.amin(1, keepdim=True), 0.0)
    largest = shifted.masked_fill(excluded, 0.0).amax(1, keepdim=True)
    unit = torch.where(largest > 0, largest, 1.0)
    scaled = shifted / unit

    p = torch.zeros_like(sqdist)
    betas = []
    for level in levels:
        weights, beta = _search(scaled, finite, level, tol)
        p += weights / weights.sum(1, keepdim=True).clamp_min(1.0) / len(levels)
        betas.append((beta / unit).clamp_max(torch.finfo(dtype).max))
    beta = torch.cat(betas, dim=1)
    return p.masked_fill(invalid, torch.nan).to(dtype), beta.masked_fill(invalid, torch.nan).to(dtype)


def _search(
    scaled: torch.Tensor, finite: torch.Tensor, perplexity: float, tol: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights [n, k] and beta [n, 1] of one perplexity; scaled distances have minimum 0 and maximum 1."""
    log_finite = finite.clamp_min(1).to(scaled.dtype).log()
    tied = (scaled == 0).sum(1, keepdim=True)
    uniform, ties = perplexity >= finite, perplexity < tied
    done = uniform | ties
    # Inside (0, log m) the logit exists; the tolerance covers the difference.
    target = torch.full_like(log_finite, math.log(perplexity)).minimum(log_finite - tol / 2).clamp_min(tol / 2)

    counted = scaled.masked_fill(scaled == torch.inf, 0.0)
    mean = counted.sum(1, keepdim=True) / finite.clamp_min(1)
    variance = counted.square().sum(1, keepdim=True) / finite.clamp_min(1) - mean.square()
    beta = (2 * (log_finite - target) / variance.clamp_min(1e-30)).sqrt()
    low, high = torch.zeros_like(beta), torch.full_like(beta, torch.inf)
    for _ in range(_MAX_EVALUATIONS):
        entropy, slope = _entropy(scaled, beta)
        error = entropy - target
        done = done | (error.abs() <= tol)
        if done.all():
            break
        low, high = torch.where(error > 0, beta, low), torch.where(error < 0, beta, high)
        below, above = (log_finite - entropy).clamp_min(1e-12), entropy.clamp_min(1e-12)
        logit = torch.log(below * target / (above * (log_finite - target)))
        step = (-logit / (slope * (1 / below + 1 / above)).clamp_min(1e-12)).clamp(-4, 4)
        candidate = beta * step.exp()
        inside = (candidate > low) & (candidate < high)
        candidate = torch.where(inside, candidate, low.sqrt() * high.sqrt())
        done = done | (candidate == beta)
        beta = torch.where(done, beta, candidate)

    weights = torch.where(uniform, (scaled < torch.inf).to(scaled.dtype), _weights(scaled, beta))
    weights = torch.where(ties & ~uniform, (scaled == 0).to(scaled.dtype), weights)
    beta = torch.where(uniform, 0.0, torch.where(ties, torch.inf, beta))
    return weights, beta


def _weights(scaled: torch.Tensor, beta: torch.Tensor) -> torch.Tensor:
    """exp(-beta d), exactly 0 for an excluded entry."""
    return torch.exp(-(scaled * beta)).masked_fill(scaled == torch.inf, 0.0)


def _entropy(scaled: torch.Tensor, beta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """H in nats and -dH / dlog(beta) of every row, [n, 1] each."""
    x = (scaled * beta).clamp_max(1e3)  # beyond, the weight is 0
    weights = _weights(scaled, beta)
    total = weights.sum(1, keepdim=True).clamp_min(torch.finfo(scaled.dtype).tiny)
    mean = (weights * x).sum(1, keepdim=True) / total
    slope = (weights * (x - mean).square()).sum(1, keepdim=True) / total
    return total.log() + mean, slope
