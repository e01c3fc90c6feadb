"""sparse_csr tensors: their integers; made without PyTorch's notices, which it gives once a process; for SciPy."""

from __future__ import annotations

import warnings
from typing import Any

import torch

# That they are in beta; that nothing is checked, in torch 2.11 even where that is asked for.
NOTICES = "Sparse CSR tensor support|Sparse invariant checks are implicitly disabled"
_noticed = False


def index_dtype(n: int, entries: int) -> torch.dtype:
    """Of the indices of a matrix of the whole data: 32 bits where these are enough for its rows and its entries."""
    return torch.int32 if max(n, entries) < 2**31 else torch.int64


def csr_tensor(indptr: torch.Tensor, indices: torch.Tensor, values: torch.Tensor, n: int) -> torch.Tensor:
    """Return the sparse_csr ``[n, n]`` of parts that are known to be right."""
    global _noticed
    if _noticed:
        return torch.sparse_csr_tensor(indptr, indices, values, (n, n), check_invariants=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", NOTICES, UserWarning)
        _noticed = True
        return torch.sparse_csr_tensor(indptr, indices, values, (n, n), check_invariants=False)


def scipy_csr(matrix: torch.Tensor) -> Any:
    """Return a sparse_csr tensor as SciPy's matrix, over the same memory where that is the CPU's."""
    from scipy.sparse import csr_matrix

    parts = (matrix.values(), matrix.col_indices(), matrix.crow_indices())
    return csr_matrix(tuple(part.detach().cpu().numpy() for part in parts), matrix.shape)
