"""PyTorch's optimizers by name, fused where there is such a form, and without the compiler that they import."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import nn

BETAS = (0.9, 0.99)
MOMENTUM = 0.9


def make_optimizer(
    name: str, networks: Sequence[nn.Module], learning_rate: float, weight_decay: float, device: torch.device
) -> torch.optim.Optimizer:
    """An optimizer of all parameters of networks that are on a device: "adamw", "adam", "sgd" or "rmsprop".

    On a GPU its rate lies there, and so does what it counts: a CUDA graph repeats the addresses of both.
    """
    parameters = [parameter for network in networks for parameter in network.parameters()]
    fused, recorded = device.type in ("cpu", "cuda"), device.type == "cuda"
    rate = torch.full((), learning_rate, device=device) if recorded else learning_rate
    if name in ("adamw", "adam"):
        adam = lean(torch.optim.AdamW if name == "adamw" else torch.optim.Adam)
        return adam(parameters, rate, betas=BETAS, weight_decay=weight_decay, fused=fused, capturable=recorded)
    if name == "rmsprop":
        return lean(torch.optim.RMSprop)(parameters, rate, weight_decay=weight_decay, capturable=recorded)
    return lean(torch.optim.SGD)(parameters, rate, momentum=MOMENTUM, weight_decay=weight_decay, fused=fused)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of the next step, in place where it lies on the device."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


@cache
def lean(optimizer: type[torch.optim.Optimizer]) -> Callable[..., torch.optim.Optimizer]:
    """The same optimizer, whose methods are not wrapped for torch.compile.

    Their wrappers import ``torch._dynamo`` when they first run, which takes longer than many a training: 1.3 s on a
    fast CPU, 4.5 s where there is a GPU. What is wrapped is the same function.
    """
    bare_step = inspect.unwrap(optimizer.step)

    @torch.no_grad()
    def step(self: torch.optim.Optimizer, closure: Callable[[], Any] | None = None) -> Any:
        return bare_step(self, closure)

    methods = {"add_param_group": inspect.unwrap(optimizer.add_param_group), "step": step}
    return type(optimizer.__name__, (optimizer,), methods)
