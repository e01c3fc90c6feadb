"""Student-t Kullback-Leibler divergence, term by term as in van der Maaten & Hinton (2008) and van der Maaten (2009).

Needs O(b²) memory and leaves the gradient to autograd.
"""

from __future__ import annotations

import torch

from fastpdr._sparse import csr_tensor


def student_t_kl(
    y: torch.Tensor,
    p: torch.Tensor,
    *,
    dof: float = 1.0,
    exaggeration: float = 1.0,
    normalization: str = "global",
    points: torch.Tensor | None = None,
) -> torch.Tensor:
    """See :func:`fastpdr.ops.student_t_kl`."""
    y, p = without_padding(y, p, points)
    b = y.shape[0]
    sqdist = (y[:, None, :] - y[None, :, :]).square().sum(-1)  # [b, b]
    log_w = -(dof + 1) / 2 * torch.log1p(sqdist / dof)  # [b, b]
    other = ~torch.eye(b, dtype=torch.bool, device=y.device)

    rows, columns, values = entries(p)
    mass = values.sum()
    if b < 2:
        return 0.0 * y.sum()
    if mass == 0:
        return 0.0 * y.sum() if normalization == "row" else torch.logsumexp(log_w[other], dim=0)
    values = values / mass
    loss = torch.xlogy(values, values).sum() - exaggeration * (values * log_w[rows, columns]).sum()
    if normalization == "global":
        return loss + torch.logsumexp(log_w[other], dim=0)
    share = values.new_zeros(b).index_add(0, rows, values)  # r_i
    log_z = torch.logsumexp(log_w.masked_fill(~other, -torch.inf), dim=1)  # log Z_i
    return loss + (share * log_z).sum() - torch.xlogy(share, share).sum()


def without_padding(y: torch.Tensor, p: torch.Tensor, points: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """The rows of a map that are points, and their part of a sparse p, which may have room for more entries."""
    if points is None:
        return y, p
    m = int(points)
    indptr = p.crow_indices()[: m + 1]
    end = int(indptr[-1])
    return y[:m], csr_tensor(indptr, p.col_indices()[:end], p.values()[:end], m)


def entries(p: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows, columns and values of a dense or sparse p off the diagonal."""
    coordinates = p.to_sparse_coo()
    rows, columns = coordinates._indices()
    off = rows != columns
    return rows[off], columns[off], coordinates._values()[off]
