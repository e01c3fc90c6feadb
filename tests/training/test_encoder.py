"""The built-in network: its blocks, and what happens to its first and its last layer once it is trained."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from conftest import relative_rms
from torch import nn

from fastpdr import _native
from fastpdr.training import encoder
from fastpdr.training.encoder import MLP, ROWS_OF_A_PRODUCT, Block

native = pytest.mark.skipif("cpu" not in _native.KERNELS["layer_norm_gelu"], reason="no compiled kernels")


def value_and_gradients(function, rows, parameters):
    """Value, and the gradients of rows and parameters to one that comes in."""
    rows = rows.clone().requires_grad_()
    value = function(rows)
    incoming = torch.linspace(-1, 1, value.numel()).reshape(value.shape).to(value.dtype)
    return value.detach(), *torch.autograd.grad(value, [rows, *parameters], incoming)


def block(generator, activation="gelu"):
    """A block whose LayerNorm is not that of a new one, and the same modules one after the other."""
    result = Block(30, 17, activation)
    for parameter in result[1].parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator))
    return result, nn.Sequential(*result)


@pytest.fixture
def kernel_calls(monkeypatch):
    """Number of rows of every call of the kernel by a block."""
    calls = []
    kernel = encoder.ops.layer_norm_gelu

    def counted(x, *arguments, **settings):
        calls.append(len(x))
        return kernel(x, *arguments, **settings)

    monkeypatch.setattr(encoder.ops, "layer_norm_gelu", counted)
    return calls


@pytest.mark.parametrize("hidden_dims", [(), (16,), (16, 8)])
def test_a_projection_becomes_part_of_the_first_layer(hidden_dims, generator, close):
    rows, axes = torch.randn(20, 30, generator=generator), torch.randn(30, 5, generator=generator)
    network = MLP(5, 2, hidden_dims, "gelu")
    expected = network(rows @ axes)
    network.absorb_projection(axes)
    close(network(rows), expected.detach(), 1e-5)
    assert str(network).count("in_features=30") == 1


def test_outputs_that_are_kept_do_not_change(generator):
    network, rows = MLP(4, 5, (8,), "relu"), torch.randn(3, 4, generator=generator)
    expected = network(rows)[:, :2]
    network.keep_outputs(2)
    torch.testing.assert_close(network(rows), expected)


@native
@pytest.mark.parametrize("eps", [1e-5, 0.5])
def test_a_block_in_training_does_what_its_modules_do(eps, generator, close, kernel_calls):
    trained, plain = block(generator)
    trained[1].eps = eps
    rows = torch.randn(50, 30, generator=generator)
    results = value_and_gradients(trained, rows, trained.parameters())
    assert kernel_calls == [50]
    for result, expected in zip(results, value_and_gradients(plain, rows, plain.parameters()), strict=True):
        close(result, expected)
    assert kernel_calls == [50]


@native
def test_under_autocast_a_block_loses_no_more_than_its_modules(generator, kernel_calls):
    trained, plain = block(generator)
    rows = torch.randn(50, 30, generator=generator)
    exact = value_and_gradients(plain, rows, plain.parameters())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        results = value_and_gradients(trained, rows, trained.parameters())
        others = value_and_gradients(plain, rows, plain.parameters())
    assert kernel_calls == [50]
    assert [result.dtype for result in results] == [torch.bfloat16, *[torch.float32] * 5]
    for result, other, expected in zip(results, others, exact, strict=True):
        assert relative_rms(result, expected) <= 1.5 * relative_rms(other, expected) < 0.1


@pytest.mark.parametrize("activation", [name for name in encoder.ACTIVATIONS if name != "gelu"])
def test_blocks_with_other_activations_have_no_kernel(activation, generator, kernel_calls):
    trained, plain = block(generator, activation)
    rows = torch.randn(50, 30, generator=generator)
    results = value_and_gradients(trained, rows, trained.parameters())
    others = value_and_gradients(plain, rows, plain.parameters())
    assert all(torch.equal(result, other) for result, other in zip(results, others, strict=True))
    assert not kernel_calls


@pytest.mark.parametrize("mode", ["eval", "no_grad", "inference"])
def test_without_gradients_a_block_is_its_modules(mode, generator, kernel_calls):
    """What transform gives, what is exported and what the exported model gives stay one."""
    trained, plain = block(generator)
    rows = torch.randn(50, 30, generator=generator)
    if mode == "eval":
        trained.eval()
    with {"eval": torch.enable_grad, "no_grad": torch.no_grad, "inference": torch.inference_mode}[mode]():
        assert torch.equal(trained(rows), plain(rows))
    assert not kernel_calls


def test_names_of_the_parameters_stay():
    """Saved models and checkpoints name them."""
    names = [f"hidden.{i}.{j}.{kind}" for i in (0, 1) for j in (0, 1) for kind in ("weight", "bias")]
    assert list(MLP(5, 2, (16, 8), "gelu").state_dict()) == [*names, "head.weight", "head.bias"]


def test_the_reference_backend_runs_the_modules():
    program = """
import torch
from fastpdr.training.encoder import Block
block, rows = Block(30, 17, "gelu"), torch.randn(50, 30)
print(torch.equal(block(rows), torch.nn.Sequential(*block)(rows)), block(rows).grad_fn.name())
"""
    settings = {**os.environ, "FASTPDR_BACKEND": "reference"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=settings, check=True)
    assert done.stdout.split() == ["True", "GeluBackward0"]


@pytest.mark.parametrize("b", [1, 31, 32, 33])
def test_products_in_bf16_are_of_whole_numbers_of_rows(b, generator):
    network, x = MLP(5, 2, [7], "gelu").train(), torch.randn(40, 5, generator=generator)
    seen = []
    network.hidden[0][0].register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, all_rows = network(x[:b]), network(x)
    assert seen == [-(-b // ROWS_OF_A_PRODUCT) * ROWS_OF_A_PRODUCT, 2 * ROWS_OF_A_PRODUCT]
    assert y.shape == (b, 2)
    torch.testing.assert_close(y, all_rows[:b], rtol=2e-2, atol=2e-2)
    assert len(network(x[:b])) == b  # in float32 as they are
    assert seen[-1] == b
