"""The built-in network: what happens to its first and its last layer once it is trained."""

from __future__ import annotations

import pytest
import torch

from fastpdr.training.encoder import MLP


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
