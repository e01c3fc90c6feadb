"""Layer normalisation and GELU, as PyTorch has them."""

from __future__ import annotations

import torch
from torch.nn import functional


def layer_norm_gelu(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, *, eps: float = 1e-5) -> torch.Tensor:
    """See :func:`fastpdr.ops.layer_norm_gelu`."""
    normalized = functional.layer_norm(x.to(weight.dtype), weight.shape, weight, bias, eps)
    return functional.gelu(normalized).to(x.dtype)
