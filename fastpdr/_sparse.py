"""Makes sparse_csr tensors without PyTorch's notice, once per process, that they are in beta state."""

from __future__ import annotations

import warnings

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
