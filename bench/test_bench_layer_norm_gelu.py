"""A hidden layer's LayerNorm and GELU, forward and backward, against PyTorch's two modules."""

from __future__ import annotations

import pytest
import torch
from alternate import in_fresh_processes
from cases import LAYER_ROWS, THREADS, hidden_layer
from competitors import eager_layer_norm_gelu

from fastpdr import ops, reference

# Relative, of value and gradients. In bfloat16 PyTorch rounds what lies between, and sums rounded numbers.
ALLOWED = {"float32": (1e-5, 1e-5), "bfloat16": (1e-2, 1e-1)}  # ours, theirs


def gradients(function, x, weight, bias, grad):
    """Value, and the gradients of x, weight and bias."""
    y = function(x, weight, bias)
    return y, *torch.autograd.grad(y, (x, weight, bias), grad)


def require_close(function, allowed, arguments):
    """Against the reference in float64."""
    actual = gradients(function, *arguments)
    expected = gradients(reference.layer_norm_gelu, *(tensor.double() for tensor in arguments))
    for ours, exact in zip(actual, expected, strict=True):
        assert (ours.double() - exact).norm() <= allowed * exact.norm()


@pytest.mark.parametrize("dtype", ALLOWED)
@pytest.mark.parametrize("n", LAYER_ROWS)
def test_against_the_modules(n, dtype, benchmark):
    arguments = hidden_layer(n, getattr(torch, dtype))
    for function, allowed in zip((ops.layer_norm_gelu, eager_layer_norm_gelu), ALLOWED[dtype], strict=True):
        require_close(function, allowed, arguments)
    rounds = 1 if benchmark.disabled else 31
    benchmark.extra_info.update(in_fresh_processes(contest, [n, dtype], rounds, 16, THREADS))
    benchmark.pedantic(lambda: gradients(ops.layer_norm_gelu, *arguments), rounds=rounds, warmup_rounds=5)


def contest(n, dtype):
    """Both, with the gradients of all three."""
    arguments = hidden_layer(n, getattr(torch, dtype))
    return lambda: gradients(ops.layer_norm_gelu, *arguments), lambda: gradients(eager_layer_norm_gelu, *arguments)
