"""Noise on the encoder's input: where it begins, how large it is, and which way it moves a row."""

from __future__ import annotations

import pytest
import torch

from fastpdr.training.noise import SEEDS_AT_ONCE, Noise, Surroundings

CPU = torch.device("cpu")


def make(deviation, near=None, seed=0):
    return Noise(deviation, torch.Generator().manual_seed(seed), CPU, 5000, near)


def surroundings(deviation=1.0, n=50, d=7, k=10):
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(n, d, generator=generator)
    return Surroundings(inputs, torch.randint(n, (n, k), generator=generator), deviation)


@pytest.mark.parametrize("near", [None, surroundings()])
@pytest.mark.parametrize("deviation", [0.0, 0.5])
def test_noise_begins_where_it_is_told_from_either_side(deviation, near):
    if deviation == 0.0 and near is None:
        return
    noise, rows, x = make(deviation, near), torch.arange(40), torch.randn(40, 7)
    places = [noise.draw(x, step) for step in range(5)]
    assert len(set(places)) == 5
    assert make(deviation, near).draw(x, 3) == places[3]
    for place in places:
        assert torch.equal(noise.add(x, rows, place), noise.add(x, rows, torch.tensor(place)))
        assert not torch.equal(noise.add(x, rows, place), x)


def test_where_noise_begins_depends_on_the_step_alone():
    x = torch.zeros(40, 7)
    onward, backward = make(0.5), make(0.5)
    steps = [0, 1, SEEDS_AT_ONCE - 1, SEEDS_AT_ONCE, 5 * SEEDS_AT_ONCE + 3]
    places = [onward.draw(x, step) for step in steps]
    assert [backward.draw(x, step) for step in reversed(steps)] == places[::-1]
    assert len(set(places)) == len(steps)


def test_without_noise_nothing_is_drawn_and_nothing_moves():
    noise, x = make(0.0), torch.randn(9, 3)
    assert noise.draw(x, 0) == 0
    assert len(noise.pool) == 0
    assert noise.add(x, torch.arange(9), 0) is x


def test_gaussian_noise_has_its_deviation():
    noise, x = make(0.3), torch.zeros(200, 50)
    moved = noise.add(x, torch.arange(200), noise.draw(x, 0))
    assert float(moved.std()) == pytest.approx(0.3, rel=0.05)


def test_neighbours_move_a_row_within_their_span():
    """With all neighbours in a plane no row leaves it, and one common offset of them moves nothing."""
    generator = torch.Generator().manual_seed(0)
    plane = torch.randn(2, 6, generator=generator)
    inputs = torch.randn(60, 2, generator=generator) @ plane + 1000.0
    near = Surroundings(inputs, torch.randint(60, (60, 10), generator=generator), 1.0)
    noise, x = make(0.0, near), inputs[:30].clone()
    moves = (noise.add(x, torch.arange(30), noise.draw(x, 0)) - x).double()
    outside = moves - moves @ torch.linalg.pinv(plane.double()) @ plane.double()
    assert float(outside.abs().max()) < 2e-3  # float32 around 1000
    assert float(moves.norm(dim=1).mean()) > 0.5


def test_a_deviation_of_one_moves_a_row_as_much_as_two_neighbours_differ():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(5000, 20, generator=generator)
    near = Surroundings(inputs, torch.randint(5000, (5000, 10), generator=generator), 1.0)
    noise = make(0.0, near)
    moves = noise.add(inputs, torch.arange(5000), noise.draw(inputs, 0)) - inputs
    apart = inputs[near.neighbors[:, 0]] - inputs[near.neighbors[:, 1]]
    ratio = float(moves.square().sum(1).mean() / apart.square().sum(1).mean())
    assert ratio == pytest.approx(0.9, rel=0.1)  # k - 1 of k: the weights sum to 0


def test_images_are_moved_as_rows_are():
    near = surroundings(d=12)
    images = Surroundings(near.inputs.view(50, 3, 2, 2), near.neighbors, near.deviation)
    rows, flat, square = torch.arange(5, 15), make(0.1, near), make(0.1, images)
    place = flat.draw(near.inputs[rows], 0)
    assert square.draw(images.inputs[rows], 0) == place
    moved = square.add(images.inputs[rows], rows, place)
    assert torch.equal(moved.flatten(1), flat.add(near.inputs[rows], rows, place))
