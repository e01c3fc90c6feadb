"""The optimizers are PyTorch's, to the bit, and come without its compiler."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from conftest import DEVICES
from torch import nn

from fastpdr.training.optimizers import BETAS, MOMENTUM, make_optimizer, set_rate

THEIRS = {
    "adamw": lambda parameters: torch.optim.AdamW(parameters, 1e-2, betas=BETAS, weight_decay=0.1, fused=True),
    "adam": lambda parameters: torch.optim.Adam(parameters, 1e-2, betas=BETAS, weight_decay=0.1, fused=True),
    "sgd": lambda parameters: torch.optim.SGD(parameters, 1e-2, momentum=MOMENTUM, weight_decay=0.1, fused=True),
    "rmsprop": lambda parameters: torch.optim.RMSprop(parameters, 1e-2, weight_decay=0.1),
}


def trained(optimizer_of, device):
    """The parameters after steps at two rates."""
    torch.manual_seed(0)
    network, rows = nn.Sequential(nn.Linear(5, 8), nn.Linear(8, 2)).to(device), torch.randn(20, 5).to(device)
    optimizer = optimizer_of(network)
    for number in range(6):
        set_rate(optimizer, 1e-2 / (1 + number // 3))
        optimizer.zero_grad()
        network(rows).square().mean().backward()
        optimizer.step()
    return nn.utils.parameters_to_vector(network.parameters()).detach().cpu()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", THEIRS)
def test_steps_are_those_of_pytorch(name, device, close):
    ours = trained(lambda network: make_optimizer(name, [network], 1e-2, 0.1, torch.device(device)), device)
    theirs = trained(lambda network: THEIRS[name](network.parameters()), device)
    if device == "cpu":
        assert torch.equal(ours, theirs)
    else:
        close(ours, theirs)  # what is counted and the rate lie on the device


@pytest.mark.parametrize("name", THEIRS)
def test_its_state_is_that_of_pytorch(name):
    network = nn.Linear(3, 2)
    optimizer = make_optimizer(name, [network], 1e-2, 0.1, torch.device("cpu"))
    network(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    theirs = THEIRS[name](network.parameters())
    theirs.load_state_dict(optimizer.state_dict())
    assert isinstance(optimizer, type(theirs))
    assert optimizer.state_dict()["state"].keys() == theirs.state_dict()["state"].keys()


def test_a_training_does_not_import_the_compiler():
    code = """
import sys, fastpdr, numpy as np
fastpdr.ParametricTSNE(n_epochs=1, device="cpu").fit(np.random.default_rng(0).normal(size=(50, 4)))
print("torch._dynamo" in sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
