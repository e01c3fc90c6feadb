"""Drawing the edges of a batch from 1.3 million against numpy's choice; the cost of a draw and of the table."""

from __future__ import annotations

import itertools
import statistics
import time

import numpy as np
import pytest
import torch
from cases import EDGES, EDGES_OF_BATCH, edge_weights
from competitors import numpy_draws

from fastpdr import ops

BATCHES = 4


@pytest.fixture(scope="module")
def weights():
    return edge_weights()


@pytest.fixture(scope="module")
def table(weights):
    return ops.alias_table(weights)


def require_drawn_by(edges, weights):
    """Counts over a hundred groups of edges, of like weights in each, are within 6 deviations of what is expected."""
    order = torch.argsort(weights)
    group = torch.empty(EDGES, dtype=torch.int64)
    group[order] = torch.arange(EDGES) * 100 // EDGES
    p = torch.bincount(group, weights.double(), minlength=100) / weights.double().sum()
    counts = torch.bincount(group[torch.as_tensor(edges).flatten()], minlength=100)
    total = counts.sum()
    assert ((counts - total * p).abs() <= 6 * (total * p).sqrt() + 6).all()


def test_batches_against_numpy(weights, table, versus):
    p = weights.double().numpy()
    p /= p.sum()
    generator, steps = np.random.default_rng(0), itertools.count()

    def ours():
        return [ops.sample_edges(table, EDGES_OF_BATCH, seed=0, step=next(steps)) for _ in range(BATCHES)]

    def theirs():
        return numpy_draws(generator, p, EDGES_OF_BATCH, BATCHES)

    require_drawn_by(ops.sample_edges(table, 100_000, seed=1, step=0), weights)
    require_drawn_by(theirs(), weights)
    versus(ours, theirs, f"numpy Generator.choice with p, {BATCHES} batches of {EDGES_OF_BATCH} (1 thread)", 15)


def test_cost_of_a_draw(table, benchmark):
    """Nanoseconds a draw by the number of draws: the call itself, and a cache miss each."""
    steps, cost = itertools.count(), {}
    for n_edges in (EDGES_OF_BATCH, 8192, 100_000, 1_000_000):
        seconds = []
        for _ in range(1 if benchmark.disabled else 51):
            begin = time.perf_counter()
            ops.sample_edges(table, n_edges, seed=0, step=next(steps))
            seconds.append(time.perf_counter() - begin)
        cost[n_edges] = 1e9 * statistics.median(seconds) / n_edges
    benchmark.extra_info["nanoseconds_a_draw"] = cost
    benchmark(lambda: ops.sample_edges(table, EDGES_OF_BATCH, seed=0, step=next(steps)))


def test_cost_of_the_table(weights, benchmark):
    benchmark(lambda: ops.alias_table(weights))
