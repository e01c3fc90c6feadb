"""Gaussian similarities of given perplexity: argument checks, the choice of native or reference."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from fastpdr import _native, reference
from fastpdr.ops._arguments import require_floats, require_number

_SEARCH = _native.overload("perplexity_search")

if _SEARCH is not None:

    @torch.library.register_fake("fastpdr::perplexity_search")
    def _(sqdist: torch.Tensor, perplexities: list[float], tol: float) -> tuple[torch.Tensor, torch.Tensor]:
        n, k = sqdist.shape
        return sqdist.new_empty(n, k), sqdist.new_empty(n, len(perplexities))


def perplexity_search(
    sqdist: torch.Tensor, perplexities: float | Sequence[float], *, tol: float = 1e-5
) -> tuple[torch.Tensor, torch.Tensor]:
    """Turn squared distances into similarities of one or several perplexities.

    For every row i and perplexity K, the precision beta solves ``H(p_i) = log K`` (nats), where
    ``p_ij ∝ exp(-beta (d_ij - min_j d_ij))``; with several perplexities ``p`` is the mean over them. Subtracting the
    minimum keeps rows of any scale finite. All scales come from one read of the row.

    Parameters
    ----------
    sqdist : torch.Tensor
        ``[n, k]`` float32 (native) or float64 (reference), squared distances of n points to k others each, in any
        order. ``inf`` marks an entry that does not count (the diagonal of a dense batch, padding): it gets exactly 0.
    perplexities : float or sequence of float
        H values >= 1.
    tol : float
        The largest error of a row's entropy in nats; float32 cannot do better than 2e-6.

    Returns
    -------
    p : torch.Tensor
        ``[n, k]``, rows sum to 1. Not differentiable.
    beta : torch.Tensor
        ``[n, H]``, the precisions.

        A perplexity that a row cannot reach (K >= its finite entries) gives the uniform row and beta 0; one below
        the number of entries tied at the minimum gives the uniform row over these and the largest float as beta.
        A row without finite entries is all zero, a row with NaN or -inf is all NaN.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, dtype, shape or range.

    References
    ----------
    van der Maaten & Hinton (2008), Visualizing Data using t-SNE, JMLR 9, section 2. Lee, Peluffo-Ordóñez & Verleysen
    (2015), Multi-scale similarities in stochastic neighbour embedding, Neurocomputing 169.

    Examples
    --------
    >>> import torch
    >>> from fastpdr import ops
    >>> sqdist = torch.tensor([[1.0, 4.0, 9.0], [1.0, 2.0, torch.inf]])
    >>> p, beta = ops.perplexity_search(sqdist, [1.2, 2.0])
    >>> p.shape, beta.shape
    (torch.Size([2, 3]), torch.Size([2, 2]))
    >>> p[1, 2].item(), round(p[0].sum().item(), 5)
    (0.0, 1.0)
    """
    require_floats("perplexity_search", "sqdist", sqdist, "[n, k]")
    values: Iterable[Any] = perplexities if isinstance(perplexities, Iterable) else [perplexities]
    levels = [require_number("perplexity_search", "perplexities", v, above=1.0, inclusive=True) for v in values]
    if not levels:
        raise ValueError("perplexity_search: perplexities must name at least one perplexity, got none")
    tol = require_number("perplexity_search", "tol", tol, above=0.0)
    sqdist = sqdist.detach()
    if _native.has_kernel("perplexity_search", sqdist):
        return _SEARCH(sqdist, levels, tol)
    return reference.perplexity_search(sqdist, levels, tol=tol)
