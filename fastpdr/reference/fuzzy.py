"""UMAP's smooth kNN distances, all rows at once.

With beta = 1 / sigma, the sum of the weights beyond rho is a sum of exponentials of beta, whose logarithm is convex and
falls: Newton's method on it from beta = 0 approaches the root from the left and never passes it.
"""

from __future__ import annotations

import math

import torch

_MAX_EVALUATIONS = 200
_SMALLEST_SHARE = 1e-3  # of the mean distance, for sigma
_SMALLEST_INTERPOLATION = 1e-5  # of local_connectivity beyond a whole number
_SMALLEST_BETA = 1e-6  # relative to the largest distance beyond rho, where only sigma = inf would do


def fuzzy_weights(
    dist: torch.Tensor, *, local_connectivity: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """See :func:`fastpdr.ops.fuzzy_weights`."""
    dtype, dist = dist.dtype, dist.double()
    n, k = dist.shape
    if n == 0 or k == 0:
        return dist.to(dtype), dist.new_zeros(n, dtype=dtype), dist.new_zeros(n, dtype=dtype)
    invalid = (dist.isnan() | (dist == -torch.inf)).any(1)  # [n]
    present = dist < torch.inf  # [n, k]
    finite = present.sum(1)
    rho = _connected_distance(dist, finite, local_connectivity)
    beyond = (dist - rho[:, None]).clamp_min(0.0)  # [n, k], inf where there is no neighbour
    tied = (beyond == 0).sum(1)

    total = torch.where(present, dist, 0.0).sum(1)
    mean = total / (finite + 1)
    mean_of_all = total[~invalid].sum() / (finite + 1)[~invalid].sum().clamp_min(1)
    smallest = _SMALLEST_SHARE * torch.where(rho > 0, mean, mean_of_all)
    target = torch.log2((finite + 1).to(dist.dtype)) - tied  # of the sum beyond rho
    sigma = torch.where(target > 0, _solve(beyond, target.clamp_min(torch.finfo(dist.dtype).tiny)), 0.0)
    sigma = torch.where((finite == 1) & (tied == 1), 1.0, sigma).maximum(smallest)  # [n]

    weights = torch.exp(-beyond / sigma[:, None])
    weights = torch.where(beyond == 0, 1.0, weights)
    weights, rho, sigma = (part.masked_fill(invalid, torch.nan) for part in (weights.T, rho, sigma))
    return weights.T.contiguous().to(dtype), rho.to(dtype), sigma.to(dtype)


def _connected_distance(dist: torch.Tensor, finite: torch.Tensor, local_connectivity: float) -> torch.Tensor:
    """Distance [n] to the local_connectivity-th neighbour not at distance 0, interpolated, or to the last of them."""
    zeros = (dist <= 0).sum(1)
    positive = finite - zeros

    def neighbor(number: torch.Tensor) -> torch.Tensor:
        return dist.gather(1, (zeros + number - 1).clamp(0, dist.shape[1] - 1)[:, None])[:, 0]

    connectivity = min(local_connectivity, dist.shape[1] + 1.0)
    whole = math.floor(connectivity)
    fraction = connectivity - whole
    rho = neighbor(torch.full_like(positive, whole)) if whole > 0 else torch.zeros_like(dist[:, 0])
    if whole == 0 or fraction > _SMALLEST_INTERPOLATION:
        rho = rho + fraction * (neighbor(torch.full_like(positive, whole + 1)) - rho)
    last = torch.where(positive > 0, neighbor(positive), 0.0)
    rho = torch.where(positive >= connectivity, rho, last)
    return torch.where((positive == 0) | (rho < 0), 0.0, rho)


def _solve(beyond: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Sigma [n] at which ``sum exp(-beyond / sigma)`` over the entries beyond rho is the target."""
    counted = (beyond > 0) & (beyond < torch.inf)
    beyond = torch.where(counted, beyond, 0.0)
    largest = beyond.amax(1)
    unit = torch.where(largest > 0, largest, 1.0)
    scaled = beyond / unit[:, None]
    number = counted.sum(1)
    beta = torch.log(number / target).clamp_min(0.0) * number / scaled.sum(1).clamp_min(1e-300)
    done = (number == 0) | ~(target > 1e-300)
    for _ in range(_MAX_EVALUATIONS):
        weights = torch.where(counted, torch.exp(-scaled * beta[:, None]), 0.0)
        total = weights.sum(1)
        error = torch.log(total / target)
        step = error * total / (weights * scaled).sum(1).clamp_min(1e-300)
        done = done | (error.abs() <= 1e-14) | (step.abs() <= 1e-14 * beta) | ~step.isfinite()
        if done.all():
            break
        beta = torch.where(done, beta, beta + step)
    return unit / beta.clamp_min(_SMALLEST_BETA)
