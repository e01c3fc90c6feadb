"""Autograd around kernels whose forward pass returns loss and gradient together: backward is one multiplication."""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable


class FusedLoss(torch.autograd.Function):
    """``kernel(y, *arguments) -> (loss, gradient in y)``; nothing but y is differentiable."""

    @staticmethod
    def forward(ctx: Any, kernel: Any, y: torch.Tensor, *arguments: Any) -> torch.Tensor:
        loss, grad = kernel(y, *arguments)
        ctx.save_for_backward(grad)
        ctx.arguments = len(arguments)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (grad,) = ctx.saved_tensors
        return (None, grad_loss * grad, *(None,) * ctx.arguments)
