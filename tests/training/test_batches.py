"""Which rows make a batch: all of them at random, or the ends of edges in proportion to their weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from fastpdr.training.batches import EdgeBatches, RandomBatches, duplicates_last

pytestmark = pytest.mark.filterwarnings("ignore:Sparse CSR tensor support:UserWarning")


def weighted(weights, pairs, n):
    i, j = torch.tensor(pairs).T
    entries = torch.cat([torch.stack([i, j]), torch.stack([j, i])], dim=1)
    values = torch.tensor(weights).repeat(2)
    return torch.sparse_coo_tensor(entries, values, (n, n)).coalesce().to_sparse_csr()


def rows_of(epoch):
    return torch.cat([batch.rows for batch in epoch])


@pytest.mark.parametrize(("n", "batch_size", "sizes"), [(90, 40, {30}), (7, 3, {2, 3}), (5, 100, {5})])
def test_random_batches_use_every_row_once(n, batch_size, sizes, generator):
    batches = RandomBatches(n, batch_size, generator)
    epochs = [list(batches.epoch()) for _ in range(2)]
    for epoch in epochs:
        assert len(epoch) == batches.per_epoch
        assert {len(batch.rows) for batch in epoch} == sizes
        assert all(batch.points is None for batch in epoch)
        assert torch.equal(rows_of(epoch).sort().values, torch.arange(n))
    assert n < 6 or not torch.equal(rows_of(epochs[0]), rows_of(epochs[1]))


def test_edges_are_drawn_in_proportion_to_their_weights():
    pairs, weights = [(0, 1), (1, 2), (2, 3), (0, 5)], [1.0, 2.0, 4.0, 0.5]
    batches = EdgeBatches(weighted(weights, pairs, 6), 2, 500 * 32, 3)  # an edge a batch: its rows are the two ends
    seen = dict.fromkeys(pairs, 0)
    for rows, _ in batches.epoch():
        assert torch.equal(rows, rows.unique())
        assert rows.shape == (2,)
        seen[tuple(rows.tolist())] += 1
    counts = np.array([seen[pair] for pair in pairs])
    assert counts.sum() == 500 * 32
    assert chisquare(counts, counts.sum() * np.array(weights) / sum(weights)).pvalue > 1e-3


def test_an_epoch_draws_every_edge_weight_over_largest_times():
    graph = weighted([1.0, 0.5, 0.25], [(0, 1), (1, 2), (2, 3)], 4)
    batches = EdgeBatches(graph, 2, None, 0)
    assert batches.per_epoch == 2  # 1.75 edges, one at a time
    assert EdgeBatches(graph, 1000, None, 0).per_epoch == 1
    assert EdgeBatches(graph, 2, 9, 0).per_epoch == 9


def test_draws_depend_on_the_seed_alone():
    graph = weighted([1.0] * 50, [(i, i + 1) for i in range(50)], 51)
    first, second, other = (EdgeBatches(graph, 16, 5, seed) for seed in (1, 1, 2))
    rows = [[batch.rows.tolist() for batch in batches.epoch()] for batches in (first, second, other)]
    assert rows[0] == rows[1] != rows[2]
    assert [batch.rows.tolist() for batch in first.epoch()] != rows[0]  # the next epoch draws anew


def test_indices_of_32_bits_give_the_same_batches():
    wide = weighted([1.0] * 50, [(i, (3 * i + 1) % 51) for i in range(50)], 51)
    narrow = torch.sparse_csr_tensor(wide.crow_indices().int(), wide.col_indices().int(), wide.values(), wide.shape)
    rows = [[batch.rows for batch in EdgeBatches(graph, 16, 5, 1).epoch()] for graph in (wide, narrow)]
    assert all(b.dtype == torch.int64 and torch.equal(a, b) for a, b in zip(*rows, strict=True))


@pytest.mark.parametrize("drawn_at_once", [1, 200, 2**20])
def test_padded_batches_hold_the_same_rows_and_then_what_was_drawn_again(drawn_at_once, monkeypatch):
    monkeypatch.setattr("fastpdr.training.batches.DRAWN_AT_ONCE", drawn_at_once)
    graph = weighted([1.0] * 50, [(i, (3 * i + 1) % 51) for i in range(50)], 51)
    plain, padded = EdgeBatches(graph, 64, 7, 5), EdgeBatches(graph, 64, 7, 5)
    for _ in range(2):
        pairs = list(zip(plain.epoch(), padded.epoch(padded=True), strict=True))
        assert len(pairs) == 7
        assert all(torch.equal(batch.rows, batch.rows.unique()) for batch, _ in pairs)
        for batch, fixed in pairs:
            assert fixed.rows.shape == (64,)
            m = int(fixed.points)
            assert torch.equal(fixed.rows[:m], batch.rows)
            assert set(fixed.rows[m:].tolist()) <= set(batch.rows.tolist())


@pytest.mark.parametrize("padded", [False, True])
def test_batches_go_on_within_those_that_were_drawn_together(padded):
    graph = weighted([1.0] * 50, [(i, (3 * i + 1) % 51) for i in range(50)], 51)
    whole, resumed = EdgeBatches(graph, 16, 7, 5), EdgeBatches(graph, 16, 7, 5)
    rows = [batch.rows for batch in whole.epoch(padded)]
    begun = resumed.epoch(padded)
    first = [next(begun).rows for _ in range(3)]
    assert resumed.step == 3
    assert all(
        torch.equal(a, b) for a, b in zip(rows, [*first, *(rest.rows for rest in resumed.epoch(padded))], strict=True)
    )


def test_rows_that_repeat_move_behind_the_distinct_ones():
    rows, points = duplicates_last(torch.tensor([[5, 2, 5, 5, 9, 2], [1, 2, 3, 4, 5, 6], [7, 7, 7, 7, 7, 7]]))
    assert rows.tolist() == [[2, 5, 9, 2, 5, 5], [1, 2, 3, 4, 5, 6], [7] * 6]
    assert points.tolist() == [3, 6, 1]
