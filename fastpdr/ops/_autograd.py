"""Autograd around kernels whose forward pass returns loss and gradient together: backward is one multiplication."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch.autograd import function

Gradients = tuple[torch.Tensor | None, ...]


def once_differentiable(backward: Callable[..., Gradients]) -> Callable[..., Gradients]:
    """PyTorch's decorator, which takes a seventh of a small backward pass, only where a gradient is to have a graph."""
    guarded = function.once_differentiable(backward)

    @wraps(backward)
    def wrapper(ctx: Any, *gradients: torch.Tensor) -> Gradients:
        return (guarded if torch.is_grad_enabled() else backward)(ctx, *gradients)

    return wrapper


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
    def backward(ctx: Any, grad_loss: torch.Tensor) -> Gradients:
        (grad,) = ctx.saved_tensors
        return (None, grad_loss * grad, *(None,) * ctx.arguments)
