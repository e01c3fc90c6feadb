"""A symmetric sparse matrix from directed neighbours: argument checks, the choice of native or reference."""

from __future__ import annotations

import math

import torch

from fastpdr import _native, reference
from fastpdr._sparse import csr_tensor
from fastpdr.ops._arguments import describe, raise_from_kernel, require_floats, require_indices, require_number

_SYMMETRIZE = _native.overload("symmetrize")  # no fake: the number of entries depends on the data
_MAX_ROWS = 2**31 - 1  # of the native kernel
_VALUES = (torch.float32, torch.float64)


def symmetrize(
    indices: torch.Tensor, values: torch.Tensor, *, sum_factor: float = 1.0, product_factor: float = 0.0
) -> torch.Tensor:
    """Make a symmetric sparse matrix of directed neighbours.

    With ``A[i, indices[i, j]] = values[i, j]``, the result is ``sum_factor (A + Aᵀ) + product_factor A∘Aᵀ``. UMAP's
    fuzzy union with ``set_op_mix_ratio=m`` has the factors m and 1 - 2m (1 and -1 for its default); t-SNE's joint
    probabilities have 1 / 2n and 0.

    Parameters
    ----------
    indices : torch.Tensor
        ``[n, k]`` int64: the neighbours of every row, others than itself, distinct, in any order. -1 is none.
    values : torch.Tensor
        ``[n, k]`` float32 or float64 (both native), of the same device. 0 is no neighbour.
    sum_factor, product_factor : float
        Finite.

    Returns
    -------
    torch.Tensor
        ``sparse_csr`` ``[n, n]`` with int32 indices, int64 where n or the number of entries is 2^31 or more; columns
        ascend within a row, entries equal to 0 are left out, and entries (i, j) and (j, i) are the same bits. Not
        differentiable.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, dtype, shape, device or range, or if a row names itself or another twice.

    References
    ----------
    McInnes, Healy & Melville (2018), UMAP: Uniform Manifold Approximation and Projection for Dimension Reduction. van
    der Maaten & Hinton (2008), Visualizing Data using t-SNE, JMLR 9.

    Examples
    --------
    >>> import torch
    >>> from fastpdr import ops
    >>> ops.symmetrize(torch.tensor([[1], [2], [0]]), torch.tensor([[1.0], [2.0], [3.0]])).to_dense()
    tensor([[0., 1., 3.],
            [1., 0., 2.],
            [3., 2., 0.]])
    """
    require_indices("symmetrize", "indices", indices, "[n, k]")
    require_floats("symmetrize", "values", values, "[n, k]")
    if values.shape != indices.shape or values.device != indices.device:
        wanted = f"{list(indices.shape)} on {indices.device}"
        raise ValueError(f"symmetrize: values must be {wanted} like indices, got {describe(values)}")
    sum_factor = require_number("symmetrize", "sum_factor", sum_factor, above=-math.inf)
    product_factor = require_number("symmetrize", "product_factor", product_factor, above=-math.inf)
    values = values.detach()
    if len(indices) > _MAX_ROWS or not _native.has_kernel("symmetrize", values, dtypes=_VALUES):
        return reference.symmetrize(indices, values, sum_factor=sum_factor, product_factor=product_factor)
    try:
        indptr, columns, merged = _SYMMETRIZE(indices, values, sum_factor, product_factor)
    except RuntimeError as error:
        raise_from_kernel("symmetrize", error)
    return csr_tensor(indptr, columns, merged, len(indices))
