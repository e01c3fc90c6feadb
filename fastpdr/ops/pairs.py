"""UMAP's and LargeVis's loss of a map: argument checks, autograd, the choice of native or reference."""

from __future__ import annotations

import torch

from fastpdr import _native, reference
from fastpdr.ops._arguments import (
    csr_parts,
    require_choice,
    require_map,
    require_number,
    require_points,
    require_square,
)
from fastpdr.ops._autograd import FusedLoss

_PAIR_LOSS = _native.overload("pair_loss")
_MAX_COMPONENTS = 64  # of the native kernel

if _PAIR_LOSS is not None:

    @torch.library.register_fake("fastpdr::pair_loss")
    def _(
        y: torch.Tensor,
        indptr: torch.Tensor,
        indices: torch.Tensor,
        values: torch.Tensor,
        a: float,
        b: float,
        repulsion: float,
        eps: float,
        clip: float,
        keras: bool,
        points: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return y.new_empty(()), y.new_empty(y.shape)


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
    """Attraction along given pairs and repulsion between all pairs of a map: UMAP, and LargeVis with a = b = 1.

    With ``s_ij = |y_i - y_j|²``, ``v = targets / Σ targets`` and the similarity ``q(s) = 1 / (1 + a s^b)``::

        loss = Σ v_ij (-log q(s_ij)) + repulsion · mean_{i≠j} (-log(1 - q(s_ij + eps)))

    All pairs of the batch repel. ``repulsion`` equals the negative samples per positive pair of the sampling methods
    (times gamma for LargeVis), whatever b and the size of the data set. No [b, b] temporary is made.

    Parameters
    ----------
    y : torch.Tensor
        ``[b, c]`` float32 (native) or float64 (reference), the map; differentiable, once.
    targets : torch.Tensor
        ``[b, b]`` sparse_csr of y's dtype and device, entries >= 0, symmetric or not, the diagonal ignored: the
        weights of the pairs that attract. Not differentiable.
    a, b : float
        Of the similarity's curve, > 0.
    repulsion : float
        Factor of the repulsion, >= 0.
    eps : float
        Added to the squared distance in the repulsion, >= 0.
    clip : float
        Longest gradient of a pair's -log q and of its -log(1 - q) with respect to one of its points, before weights
        and ``repulsion`` multiply it; 0 leaves gradients as they are. The loss itself is not clipped, so finite
        differences agree with the gradient only where nothing was.
    kernel : {"umap", "keras"}
        "keras" takes q / (1 + q) = 1 / (2 + a s^b) for q: what umap-learn's ParametricUMAP trains, since it applies
        a logistic function to log q.
    points : torch.Tensor, optional
        ``[]`` int64 on y's device, at most b: only so many rows of y, the first ones, are points. The others are
        padding: they have no targets, take no part, and get no gradient; ``targets`` may hold room for more entries
        than its rows have. So a batch has one shape whatever it holds, and nothing waits for its size.

    Returns
    -------
    torch.Tensor
        The loss, a scalar of y's dtype. 0 for fewer than two points; targets without mass leave the repulsion.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, dtype, shape, device or range.

    References
    ----------
    McInnes, Healy & Melville (2018), UMAP: Uniform Manifold Approximation and Projection, arXiv:1802.03426. Tang, Liu,
    Zhang & Mei (2016), Visualizing Large-scale and High-dimensional Data, WWW.

    Examples
    --------
    >>> import torch
    >>> from fastpdr import ops
    >>> neighbors = ops.symmetrize(torch.tensor([[1], [2], [0]]), torch.ones(3, 1))
    >>> y = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]], requires_grad=True)
    >>> loss = ops.pair_loss(y, neighbors, a=1.577, b=0.895, repulsion=5.0)
    >>> loss.backward()
    >>> y.grad.shape
    torch.Size([3, 2])
    """
    require_map("pair_loss", y)
    require_square("pair_loss", "targets", targets, y, (torch.sparse_csr,))
    a = require_number("pair_loss", "a", a, above=0.0)
    b = require_number("pair_loss", "b", b, above=0.0)
    repulsion = require_number("pair_loss", "repulsion", repulsion, above=0.0, inclusive=True)
    eps = require_number("pair_loss", "eps", eps, above=0.0, inclusive=True)
    clip = require_number("pair_loss", "clip", clip, above=0.0, inclusive=True)
    require_choice("pair_loss", "kernel", kernel, ("umap", "keras"))
    require_points("pair_loss", points, y)
    if y.shape[1] > _MAX_COMPONENTS or not _native.has_kernel("pair_loss", y, targets):
        return reference.pair_loss(
            y, targets.detach(), a=a, b=b, repulsion=repulsion, eps=eps, clip=clip, kernel=kernel, points=points
        )
    return FusedLoss.apply(_PAIR_LOSS, y, *csr_parts(targets), a, b, repulsion, eps, clip, kernel == "keras", points)
