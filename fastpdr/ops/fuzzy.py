"""Fuzzy memberships of nearest neighbours: argument checks, the choice of native or reference."""

from __future__ import annotations

import torch

from fastpdr import _native, reference
from fastpdr.ops._arguments import require_floats, require_number

_WEIGHTS = _native.overload("fuzzy_weights")

if _WEIGHTS is not None:

    @torch.library.register_fake("fastpdr::fuzzy_weights")
    def _(dist: torch.Tensor, local_connectivity: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        n, k = dist.shape
        return dist.new_empty(n, k), dist.new_empty(n), dist.new_empty(n)


def fuzzy_weights(
    dist: torch.Tensor, *, local_connectivity: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Turn distances to nearest neighbours into UMAP's directed memberships.

    For row i with m neighbours, ``w_ij = exp(-max(d_ij - rho_i, 0) / sigma_i)`` with ``Σ_j w_ij = log2(m + 1)``. UMAP
    counts the point itself: its ``n_neighbors=15`` are 14 other rows, k = 14 columns here. sigma is at least 0.001
    times the mean distance, the point itself included: of the row, or of all rows where rho is 0.

    Parameters
    ----------
    dist : torch.Tensor
        ``[n, k]`` float32 (native) or float64 (reference): distances, not squared, to k other rows, ascending. ``inf``
        is a neighbour that is missing: its weight is exactly 0, and the row is as if it were shorter.
    local_connectivity : float
        The number of neighbours that are fully connected: rho is the distance to that neighbour not at distance 0,
        interpolated between two, or to the last where there are not as many. >= 0.

    Returns
    -------
    weights : torch.Tensor
        ``[n, k]``, in [0, 1]. Not differentiable.
    rho : torch.Tensor
        ``[n]``, the distances of local connection.
    sigma : torch.Tensor
        ``[n]``, the bandwidths.

        A target that is reached whatever sigma, because more neighbours are within rho, takes the smallest sigma; a
        lone neighbour within rho takes sigma 1, as UMAP does. A row with NaN or -inf is all NaN.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, dtype, shape or range.

    References
    ----------
    McInnes, Healy & Melville (2018), UMAP: Uniform Manifold Approximation and Projection for Dimension Reduction,
    section 3.1.

    Examples
    --------
    >>> import torch
    >>> from fastpdr import ops
    >>> weights, rho, sigma = ops.fuzzy_weights(torch.tensor([[1.0, 2.0, 3.0]]))
    >>> weights
    tensor([[1.0000, 0.6180, 0.3820]])
    """
    require_floats("fuzzy_weights", "dist", dist, "[n, k]")
    local_connectivity = require_number(
        "fuzzy_weights", "local_connectivity", local_connectivity, above=0.0, inclusive=True
    )
    dist = dist.detach()
    if _native.has_kernel("fuzzy_weights", dist):
        return _WEIGHTS(dist, local_connectivity)
    return reference.fuzzy_weights(dist, local_connectivity=local_connectivity)
