"""Student-t KL divergence of a map: argument checks, autograd, the choice of native or reference."""

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

_DENSE = _native.overload("student_t_kl")
_CSR = _native.overload("student_t_kl_csr")
_MAX_COMPONENTS = 64  # of the native kernels

if _DENSE is not None:

    @torch.library.register_fake("fastpdr::student_t_kl")
    def _(
        y: torch.Tensor, p: torch.Tensor, dof: float, exaggeration: float, by_row: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return y.new_empty(()), y.new_empty(y.shape)

    @torch.library.register_fake("fastpdr::student_t_kl_csr")
    def _(
        y: torch.Tensor,
        indptr: torch.Tensor,
        indices: torch.Tensor,
        values: torch.Tensor,
        dof: float,
        exaggeration: float,
        by_row: bool,
        points: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return y.new_empty(()), y.new_empty(y.shape)


def student_t_kl(
    y: torch.Tensor,
    p: torch.Tensor,
    *,
    dof: float = 1.0,
    exaggeration: float = 1.0,
    normalization: str = "global",
    points: torch.Tensor | None = None,
) -> torch.Tensor:
    """Kullback-Leibler divergence between similarities p and the Student-t similarities of a map.

    With ``w_ij = (1 + |y_i - y_j|² / dof)^(-(dof + 1) / 2)``, ``Z = Σ_{i≠j} w_ij`` and p normalised to sum 1 (by the
    op, its diagonal ignored)::

        loss = Σ p log p - exaggeration Σ p log w + log Z

    With ``normalization="row"`` every row is compared with its own ``Z_i = Σ_{k≠i} w_ik`` and weighted by its mass
    ``r_i = Σ_j p_ij`` (InfoNC-t-SNE)::

        loss = Σ p log(p / r) - exaggeration Σ p log w + Σ r log Z

    Exaggeration multiplies the attraction alone; scaling the whole of p would change nothing but the loss's size.
    No [b, b] temporary is made: the memory beyond the arguments is O(b c).

    Parameters
    ----------
    y : torch.Tensor
        ``[b, c]`` float32 (native) or float64 (reference), the map; differentiable, once.
    p : torch.Tensor
        ``[b, b]``, of y's dtype and device, dense or ``sparse_csr``, entries >= 0, symmetric or not. Not
        differentiable.
    dof : float
        Degrees of freedom of the Student distribution, > 0.
    exaggeration : float
        Factor of the attraction, > 0.
    normalization : {"global", "row"}
        One sum for all pairs, or one for every row.
    points : torch.Tensor, optional
        With a sparse p: how many rows of y are points, as for :func:`pair_loss`.

    Returns
    -------
    torch.Tensor
        The loss, a scalar of y's dtype. 0 for b < 2; a p without mass leaves ``log Z``, or nothing by row.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, dtype, shape, device or range.

    References
    ----------
    van der Maaten & Hinton (2008), Visualizing Data using t-SNE, JMLR 9; van der Maaten (2009), Learning a Parametric
    Embedding by Preserving Local Structure, AISTATS. By row: Damrich, Böhm, Hamprecht & Kobak (2023), From t-SNE to
    UMAP with contrastive learning, ICLR.

    Examples
    --------
    >>> import torch
    >>> from fastpdr import ops
    >>> y = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]], requires_grad=True)
    >>> loss = ops.student_t_kl(y, torch.ones(3, 3))
    >>> round(loss.item(), 4)
    0.1231
    >>> loss.backward()
    >>> y.grad.shape
    torch.Size([3, 2])
    """
    require_map("student_t_kl", y)
    require_square("student_t_kl", "p", p, y, (torch.strided, torch.sparse_csr))
    dof = require_number("student_t_kl", "dof", dof, above=0.0)
    exaggeration = require_number("student_t_kl", "exaggeration", exaggeration, above=0.0)
    require_choice("student_t_kl", "normalization", normalization, ("global", "row"))
    dense = p.layout is torch.strided
    require_points("student_t_kl", points, y)
    if dense and points is not None:
        raise ValueError("student_t_kl: points must be None with a dense p")
    op = "student_t_kl" if dense else "student_t_kl_csr"
    if y.shape[1] > _MAX_COMPONENTS or not _native.has_kernel(op, y, p):
        return reference.student_t_kl(
            y, p.detach(), dof=dof, exaggeration=exaggeration, normalization=normalization, points=points
        )
    by_row = normalization == "row"
    if dense:
        return FusedLoss.apply(_DENSE, y, p.detach(), dof, exaggeration, by_row)
    return FusedLoss.apply(_CSR, y, *csr_parts(p), dof, exaggeration, by_row, points)
