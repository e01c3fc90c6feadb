"""The search for perplexities against scikit-learn, openTSNE and a compiled bisection; the cost of further scales."""

from __future__ import annotations

import statistics
import time

import numpy as np
import pytest
import torch
from cases import (
    BATCH_SCALES,
    KNN_PERPLEXITY,
    THREADS,
    batch_distances,
    neighbor_distances,
)
from competitors import make_numba_bisection, opentsne_search, scikit_learn_search

from fastpdr import ops, reference


def require_close(actual, expected, tolerance=1e-4):
    actual, expected = np.asarray(actual, dtype=float), np.asarray(expected, dtype=float)
    assert np.linalg.norm(actual - expected) <= tolerance * np.linalg.norm(expected)


@pytest.fixture(scope="module")
def neighbors():
    return neighbor_distances()


def test_neighbors_against_scikit_learn(neighbors, versus):
    array = neighbors.numpy()
    expected, _ = reference.perplexity_search(neighbors[:500].double(), KNN_PERPLEXITY)
    require_close(ops.perplexity_search(neighbors[:500], KNN_PERPLEXITY)[0], expected)
    require_close(scikit_learn_search(array[:500], KNN_PERPLEXITY), expected)
    versus(
        lambda: ops.perplexity_search(neighbors, KNN_PERPLEXITY),
        lambda: scikit_learn_search(array, KNN_PERPLEXITY),
        "scikit-learn _binary_search_perplexity (1 thread: it has no more)",
        15,
    )


def test_neighbors_against_opentsne(neighbors, versus):
    distances = neighbors.sqrt().double().numpy()
    expected, _ = reference.perplexity_search(neighbors[:500].double(), KNN_PERPLEXITY)
    require_close(opentsne_search(distances[:500], KNN_PERPLEXITY, THREADS), expected)
    versus(
        lambda: ops.perplexity_search(neighbors, KNN_PERPLEXITY),
        lambda: opentsne_search(distances, KNN_PERPLEXITY, THREADS),
        "openTSNE compute_gaussian_perplexity (2 threads)",
        15,
    )


def test_multiscale_batch_against_compiled_bisection(versus):
    pytest.importorskip("numba")
    sqdist, search = batch_distances(), make_numba_bisection()
    array = sqdist.double().numpy()
    require_close(ops.perplexity_search(sqdist, BATCH_SCALES)[0], search(array, BATCH_SCALES))
    versus(
        lambda: ops.perplexity_search(sqdist, BATCH_SCALES),
        lambda: search(array, BATCH_SCALES),
        "numba bisection per row and scale (1 thread)",
        9,
    )


def test_cost_of_further_scales(benchmark):
    """Seconds of the first 1, 2, ... 8 scales of a batch; the marginal cost in extra_info."""
    sqdist, seconds = batch_distances(), []
    for count in range(1, len(BATCH_SCALES) + 1):
        levels, times = BATCH_SCALES[-count:], []
        for _ in range(1 if benchmark.disabled else 51):
            begin = time.perf_counter()
            ops.perplexity_search(sqdist, levels)
            times.append(time.perf_counter() - begin)
        seconds.append(statistics.median(times))
    marginal = (seconds[-1] - seconds[0]) / (len(seconds) - 1)
    benchmark.extra_info.update(seconds_by_scales=seconds, further_scale_relative_to_first=marginal / seconds[0])
    benchmark(lambda: ops.perplexity_search(sqdist, BATCH_SCALES))


def test_floor_of_one_evaluation(neighbors, benchmark):
    """One exp and its sums for every entry, by PyTorch's vectorised exp: what a search repeats about three times."""
    out = torch.empty_like(neighbors)
    benchmark(lambda: torch.exp(torch.neg(neighbors, out=out), out=out).sum(1))
