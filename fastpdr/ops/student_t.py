"""Student-t KL divergence of a map: argument checks, autograd, the choice of native or reference.

The kernel's forward pass returns loss and gradient together, so backward is one multiplication.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from fastpdr import _native, reference
from fastpdr.ops._arguments import describe, require_floats, require_number

_DENSE = _native.overload("student_t_kl")
_CSR = _native.overload("student_t_kl_csr")
_MAX_COMPONENTS = 64  # of the native kernels

if _DENSE is not None:

    @torch.library.register_fake("fastpdr::student_t_kl")
    def _(y: torch.Tensor, p: torch.Tensor, dof: float, exaggeration: float) -> tuple[torch.Tensor, torch.Tensor]:
        return y.new_empty(()), y.new_empty(y.shape)

    @torch.library.register_fake("fastpdr::student_t_kl_csr")
    def _(
        y: torch.Tensor,
        indptr: torch.Tensor,
        indices: torch.Tensor,
        values: torch.Tensor,
        dof: float,
        exaggeration: float,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return y.new_empty(()), y.new_empty(y.shape)


class _StudentTKL(torch.autograd.Function):
    """Loss of y; p is one dense tensor, or (indptr, indices, values)."""

    @staticmethod
    def forward(ctx: Any, y: torch.Tensor, dof: float, exaggeration: float, *p: torch.Tensor) -> torch.Tensor:
        loss, grad = (_DENSE if len(p) == 1 else _CSR)(y, *p, dof, exaggeration)
        ctx.save_for_backward(grad)
        ctx.inputs = 3 + len(p)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (grad,) = ctx.saved_tensors
        return (grad_loss * grad,) + (None,) * (ctx.inputs - 1)


def student_t_kl(y: torch.Tensor, p: torch.Tensor, *, dof: float = 1.0, exaggeration: float = 1.0) -> torch.Tensor:
    """Kullback-Leibler divergence between similarities p and the Student-t similarities of a map.

    With ``w_ij = (1 + |y_i - y_j|² / dof)^(-(dof + 1) / 2)``, ``Z = Σ_{i≠j} w_ij`` and p normalised to sum 1 (by the
    op, its diagonal ignored)::

        loss = Σ p log p - exaggeration Σ p log w + log Z

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

    Returns
    -------
    torch.Tensor
        The loss, a scalar of y's dtype. 0 for b < 2; a p without mass leaves ``log Z``.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, dtype, shape, device or range.

    References
    ----------
    van der Maaten & Hinton (2008), Visualizing Data using t-SNE, JMLR 9; van der Maaten (2009), Learning a Parametric
    Embedding by Preserving Local Structure, AISTATS.
    """
    _require_arguments(y, p)
    dof = require_number("student_t_kl", "dof", dof, above=0.0)
    exaggeration = require_number("student_t_kl", "exaggeration", exaggeration, above=0.0)
    dense = p.layout is torch.strided
    op = "student_t_kl" if dense else "student_t_kl_csr"
    if y.shape[1] > _MAX_COMPONENTS or not _native.has_kernel(op, y, p):
        return reference.student_t_kl(y, p.detach(), dof=dof, exaggeration=exaggeration)
    if dense:
        return _StudentTKL.apply(y, dof, exaggeration, p.detach())
    indptr, indices = p.crow_indices().long(), p.col_indices().long()
    return _StudentTKL.apply(y, dof, exaggeration, indptr, indices, p.values().detach())


def _require_arguments(y: torch.Tensor, p: torch.Tensor) -> None:
    require_floats("student_t_kl", "y", y, "[b, c]")
    require_floats("student_t_kl", "p", p, "[b, b]")
    b, c = y.shape
    if c == 0:
        raise ValueError(f"student_t_kl: y must have at least one column, got {describe(y)}")
    if p.layout not in (torch.strided, torch.sparse_csr):
        raise ValueError(f"student_t_kl: p must be dense or sparse_csr, got {describe(p)}")
    if p.shape != (b, b) or p.dtype != y.dtype or p.device != y.device:
        wanted = f"{str(y.dtype).removeprefix('torch.')} [{b}, {b}] on {y.device}"
        raise ValueError(f"student_t_kl: p must be {wanted} like y, got {describe(p)}")
