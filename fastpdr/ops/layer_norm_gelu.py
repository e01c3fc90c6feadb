"""Layer normalisation and GELU of a hidden layer: argument checks, autograd, the choice of native or reference."""

from __future__ import annotations

from typing import Any

import torch

from fastpdr import _native, reference
from fastpdr.ops._arguments import describe, require_floats, require_number
from fastpdr.ops._autograd import Gradients, once_differentiable

_FORWARD = _native.overload("layer_norm_gelu")
_BACKWARD = _native.overload("layer_norm_gelu_backward")
_ROWS = (torch.float32, torch.bfloat16)  # of the native kernel

if _FORWARD is not None:

    @torch.library.register_fake("fastpdr::layer_norm_gelu")
    def _(
        x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        n = x.shape[0]
        return x.new_empty(x.shape), x.new_empty(x.shape), weight.new_empty(n), weight.new_empty(n)

    @torch.library.register_fake("fastpdr::layer_norm_gelu_backward")
    def _(
        grad: torch.Tensor,
        x: torch.Tensor,
        slope: torch.Tensor,
        weight: torch.Tensor,
        mean: torch.Tensor,
        scale: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return x.new_empty(x.shape), weight.new_empty(weight.shape), weight.new_empty(weight.shape)


class _Native(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float) -> torch.Tensor:
        y, slope, mean, scale = _FORWARD(x, weight, bias, eps)
        ctx.save_for_backward(x, slope, weight, mean, scale)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> Gradients:
        return (*_BACKWARD(grad, *ctx.saved_tensors), None)


def layer_norm_gelu(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, *, eps: float = 1e-5) -> torch.Tensor:
    """``gelu(layer_norm(x))`` in one pass over x, and one more for its gradient.

    With mean m and variance v of a row, ``h = (x - m) / √(v + eps)`` and the normal distribution Φ::

        z = h weight + bias,  y = z Φ(z)

    It is what ``torch.nn.LayerNorm`` and ``torch.nn.GELU`` do one after the other, which on a CPU costs as much as the
    matrix products of a narrow layer.

    Parameters
    ----------
    x : torch.Tensor
        ``[n, d]`` float32 or bfloat16 (native), or float64 (reference), d >= 1; differentiable, once.
    weight, bias : torch.Tensor
        ``[d]`` float32, or float64 where x is; differentiable, once.
    eps : float
        Added to the variance, >= 0.

    Returns
    -------
    torch.Tensor
        ``[n, d]`` of x's dtype. Within, all is float32 (float64); in bfloat16 only x, the result and their gradients
        are rounded.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, dtype, shape or range.

    References
    ----------
    Ba, Kiros & Hinton (2016), Layer Normalization. Hendrycks & Gimpel (2016), Gaussian Error Linear Units.

    Examples
    --------
    >>> import torch
    >>> from fastpdr import ops
    >>> ops.layer_norm_gelu(torch.tensor([[1.0, 2.0, 3.0]]), torch.ones(3), torch.zeros(3))
    tensor([[-0.1351,  0.0000,  1.0896]])
    """
    _require_layer(x, weight, bias)
    eps = require_number("layer_norm_gelu", "eps", eps, above=0.0, inclusive=True)
    if _native.has_kernel("layer_norm_gelu", x, dtypes=_ROWS):
        return _Native.apply(x, weight, bias, eps)
    return reference.layer_norm_gelu(x, weight, bias, eps=eps)


def _require_layer(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> None:
    if not isinstance(x, torch.Tensor) or x.dtype is not torch.bfloat16:
        require_floats("layer_norm_gelu", "x", x, "[n, d]")
    if x.dim() != 2 or x.shape[1] == 0:
        raise ValueError(f"layer_norm_gelu: x must be [n, d] with at least one column, got {describe(x)}")
    dtype = torch.float32 if x.dtype is torch.bfloat16 else x.dtype
    for name, value in (("weight", weight), ("bias", bias)):
        require_floats("layer_norm_gelu", name, value, "[d]")
        if len(value) != x.shape[1] or value.dtype is not dtype or value.device != x.device:
            wanted = f"{str(dtype).removeprefix('torch.')} [{x.shape[1]}] on {x.device}"
            raise ValueError(f"layer_norm_gelu: {name} must be {wanted} like the columns of x, got {describe(value)}")
