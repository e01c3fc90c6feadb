"""Sums over the co-ranking of data and map: argument checks, the choice of native or reference."""

from __future__ import annotations

import torch

from fastpdr import _native, reference
from fastpdr.ops._arguments import describe, require_count, require_floats

_CORANKING = _native.overload("coranking")

if _CORANKING is not None:

    @torch.library.register_fake("fastpdr::coranking")
    def _(sqdist_x: torch.Tensor, sqdist_z: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        counts, single = ((sqdist_x.shape[1],), ())
        return tuple(sqdist_x.new_empty(shape, dtype=torch.int64) for shape in (counts, single, single))  # type: ignore[return-value]


def coranking(
    sqdist_x: torch.Tensor, sqdist_z: torch.Tensor, k: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Compare the order of all rows around some anchors in two spaces.

    Around anchor i the columns are ranked by distance, from 1, in either space: r_X(i, j) and r_Z(i, j). Equal
    distances rank in the order of their columns. All measures of ``fastpdr.metrics`` that rest on ranks are made of
    the sums that this gives, which add up over blocks of anchors.

    Parameters
    ----------
    sqdist_x, sqdist_z : torch.Tensor
        ``[b, n]`` float32 (native on the CPU) or float64 (reference): distances of b anchors to n rows in data and map,
        squared or not, >= 0; ``inf`` from an anchor to itself, which so ranks last. NaN is not looked for. Not
        differentiable.
    k : int
        Neighbours of the two sums, >= 0.

    Returns
    -------
    counts : torch.Tensor
        ``[n]`` int64: how many pairs (i, j) have ``max(r_X, r_Z) = 1, ..., n``. Summed up to K and divided by b K it is
        Q_NX(K), the mean overlap of the K nearest.
    intruding : torch.Tensor
        ``[]`` int64, ``Σ max(0, r_X - k)`` over the k nearest in the map: what trustworthiness counts.
    torn : torch.Tensor
        ``[]`` int64, ``Σ max(0, r_Z - k)`` over the k nearest in the data: what continuity counts.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, dtype, shape or range.

    References
    ----------
    Lee & Verleysen (2009), Quality assessment of dimensionality reduction: rank-based criteria. Venna & Kaski (2001),
    Neighborhood preservation in nonlinear projection methods.

    Examples
    --------
    >>> import torch
    >>> from fastpdr import ops
    >>> inf = torch.inf
    >>> counts, intruding, torn = ops.coranking(torch.tensor([[inf, 1.0, 2.0]]), torch.tensor([[inf, 3.0, 2.0]]), 1)
    >>> counts, int(intruding), int(torn)
    (tensor([0, 2, 1]), 1, 1)
    """
    for name, value in (("sqdist_x", sqdist_x), ("sqdist_z", sqdist_z)):
        require_floats("coranking", name, value, "[b, n]")
    like = (sqdist_x.shape, sqdist_x.dtype, sqdist_x.device)
    if (sqdist_z.shape, sqdist_z.dtype, sqdist_z.device) != like:
        raise ValueError(f"coranking: sqdist_z must be {describe(sqdist_x)} like sqdist_x, got {describe(sqdist_z)}")
    k = require_count("coranking", "k", k)
    sqdist_x, sqdist_z = sqdist_x.detach(), sqdist_z.detach()
    if _native.has_kernel("coranking", sqdist_x):
        return _CORANKING(sqdist_x, sqdist_z, k)
    return reference.coranking(sqdist_x, sqdist_z, k)
