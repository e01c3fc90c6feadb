"""Makes sparse_csr tensors without PyTorch's notice, once per process, of their beta state; shows them to SciPy."""

from __future__ import annotations

import warnings
from typing import Any

import torch

_noticed = False


def csr_tensor(indptr: torch.Tensor, indices: torch.Tensor, values: torch.Tensor, n: int) -> torch.Tensor:
    """Return the sparse_csr ``[n, n]`` of parts that are known to be right."""
    global _noticed
    if _noticed:
        return torch.sparse_csr_tensor(indptr, indices, values, (n, n), check_invariants=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support", UserWarning)
        _noticed = True
        return torch.sparse_csr_tensor(indptr, indices, values, (n, n), check_invariants=False)


def scipy_csr(matrix: torch.Tensor) -> Any:
    """Return a sparse_csr tensor as SciPy's matrix, over the same memory where that is the CPU's."""
    from scipy.sparse import csr_matrix

    parts = (matrix.values(), matrix.col_indices(), matrix.crow_indices())
    return csr_matrix(tuple(part.detach().cpu().numpy() for part in parts), matrix.shape)
