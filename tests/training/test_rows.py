"""Rows made batch by batch are those of a whole matrix, fed ahead or not, with the neighbours that noise needs."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fastpdr.data import Rows, TensorRows
from fastpdr.training import rows as module
from fastpdr.training.batches import Batch, RandomBatches
from fastpdr.training.encoder import InputScaling, Reduction
from fastpdr.training.feed import feed
from fastpdr.training.noise import Noise, Surroundings
from fastpdr.training.rows import AsFloat32, NearRows, PreparedRows, gathered
from fastpdr.training.step import Inputs, fill, hold

CPU = torch.device("cpu")
N, D, K = 40, 6, 3


class Elsewhere(TensorRows):
    """Rows that count as those of a file, and note which thread asks for how many."""

    in_memory = False

    def __init__(self, tensor):
        super().__init__(tensor)
        self.asked = []

    def take(self, rows):
        self.asked.append(len(rows))
        return super().take(rows)


@pytest.fixture
def stored(generator):
    return torch.randint(0, 255, (N, D), generator=generator, dtype=torch.uint8)


@pytest.fixture
def neighbors(generator):
    return torch.randint(N, (N, K), generator=generator)


def scaling_of(stored):
    return InputScaling.fit(stored.float())


def test_prepared_rows_are_those_of_the_whole(stored, monkeypatch):
    scaling = scaling_of(stored)
    whole, chosen = scaling(stored.float()), torch.tensor([5, 0, 39, 5])
    rows = PreparedRows(TensorRows(stored), scaling)
    assert (rows.shape, rows.dtype) == ((N, D), torch.float32)
    for part, expected in ((rows.take(chosen), whole[chosen]), (rows.block(3, 9), whole[3:9])):
        assert part.dtype == torch.float32
        assert torch.equal(part, expected)
    assert torch.equal(gathered(rows, chosen), gathered(whole, chosen))
    assert rows.gather(chosen).dtype == torch.uint8
    monkeypatch.setattr(module, "PIECE_ELEMENTS", 7 * D)
    assert torch.equal(PreparedRows(Elsewhere(stored), scaling).take(torch.arange(N)), whole)


def test_rows_do_not_depend_on_what_becomes_of_the_module(stored):
    scaling = scaling_of(stored)
    rows, expected = PreparedRows(TensorRows(stored), scaling), scaling(stored.float())
    scaling.to("meta")  # as the network that has it goes to a GPU
    assert torch.equal(rows.block(0, N), expected)


def test_reduced_rows_have_the_columns_of_the_reduction(stored):
    axes = torch.linalg.qr(torch.randn(D, 2)).Q
    rows = PreparedRows(TensorRows(stored), nn.Sequential(scaling_of(stored), Reduction(axes)))
    assert rows.shape == (N, 2)
    torch.testing.assert_close(rows.block(0, N), scaling_of(stored)(stored.float()) @ axes)


def test_scaling_of_rows_in_blocks_is_that_of_a_tensor(stored, monkeypatch, close):
    expected = InputScaling.fit(stored.float())
    for elements in (2**21, 7 * D):
        monkeypatch.setattr("fastpdr.training.encoder.BLOCK_ELEMENTS", elements)
        found = InputScaling.fit(Elsewhere(stored))
        close(found.mean, expected.mean, 1e-14)
        close(found.scale, expected.scale, 1e-14)
    with pytest.raises(ValueError, match="all 5 rows of X are the same"):
        InputScaling.fit(Elsewhere(stored[:1].expand(5, D)))


@pytest.mark.parametrize("kind", [TensorRows, Elsewhere])
def test_fed_batches_are_those_of_a_tensor(kind, stored, neighbors):
    scaling = scaling_of(stored)
    whole, held = scaling(stored.float()), torch.arange(N)[:, None].float()
    rows = PreparedRows(kind(stored), scaling)
    batches = list(RandomBatches(N, 16, torch.Generator().manual_seed(0)).epoch())
    sources = [rows, held, NearRows(rows, neighbors), NearRows(whole, neighbors), rows]
    for batch, (x, number, near, same, again) in feed(batches, sources, CPU):
        assert torch.equal(x, whole[batch.rows])
        assert torch.equal(number[:, 0].long(), batch.rows)
        assert near.shape == (len(batch.rows), K, D)
        assert torch.equal(near, whole[neighbors[batch.rows]])
        assert torch.equal(near, same)
        assert again is x


def test_rows_of_a_file_are_gathered_once_for_a_batch_and_ahead(stored):
    raw = Elsewhere(stored)
    rows = PreparedRows(raw, AsFloat32())
    fed = feed([Batch(torch.arange(i, i + 4)) for i in range(0, 40, 4)], [rows, rows], CPU)
    for number, _ in enumerate(fed):
        assert len(raw.asked) >= number + 1
    assert raw.asked == [4] * 10


def test_neighbours_that_are_brought_move_rows_as_those_of_the_whole(stored, neighbors):
    whole = scaling_of(stored)(stored.float())
    batch = torch.tensor([7, 3, 12, 39])
    moved = []
    for table, near in ((whole, None), (None, whole[neighbors[batch]])):
        noise = Noise(0.1, torch.Generator().manual_seed(0), CPU, 10, Surroundings(table, neighbors, 0.7))
        moved.append(noise.add(whole[batch], batch, noise.draw(whole[batch], 3), near))
    assert torch.equal(*moved)
    assert not torch.equal(moved[0], whole[batch])


def test_recorded_steps_get_the_neighbours_of_every_batch():
    held = hold(Inputs(Batch(torch.arange(2)), torch.zeros(2, 3), None, 0.0, 1, torch.zeros(2, 4, 3)), CPU)
    fill(held, Inputs(Batch(torch.arange(2)), torch.ones(2, 3), None, 0.0, 1, torch.ones(2, 4, 3)))
    assert held.near.shape == (2, 4, 3)
    assert bool((held.near == 1).all())


def test_images_are_prepared_like_rows(stored):
    images = stored.view(N, 1, 2, 3)
    rows = PreparedRows(TensorRows(images), AsFloat32())
    assert isinstance(rows, Rows)
    assert rows.shape == (N, 1, 2, 3)
    assert torch.equal(rows.take(torch.tensor([4])), images[4:5].float())
