"""UMAP's and LargeVis's loss with its gradient, against eager PyTorch on all pairs and umap-learn's compiled loop."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
import torch
from alternate import in_fresh_processes, seconds_of
from cases import BLOB_ROWS, GRAPH_BATCH, PAIR_SIZES, THREADS, as_scipy, batch_map, blobs
from competitors import UmapLayout, eager_pair_loss

from fastpdr import ops, reference
from fastpdr.training.batches import EdgeBatches
from fastpdr.training.objectives import Curve, PairObjective

CURVES = {
    "umap": {"a": 1.577, "b": 0.8951, "repulsion": 5.0, "eps": 1e-3},
    "largevis": {"a": 1.0, "b": 1.0, "repulsion": 35.0, "eps": 0.1},
}


def gradient(function, y, targets, **settings):
    y.grad = None
    function(y, targets, **settings).backward()
    return y.grad


def require_close(function, y, targets, clip=0.0, **settings):
    """Against the reference in float64; an eager loss has no clip."""
    actual = gradient(function, y, targets, **settings).double()
    double = y.detach().double().requires_grad_()
    settings = {**settings, "clip": clip}
    expected = gradient(reference.pair_loss, double, targets.double().to_sparse_csr(), **settings)
    assert (actual - expected).norm() <= 1e-3 * expected.norm()  # Gram distances lose digits; ours keeps 1e-5


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("b", PAIR_SIZES)
def test_against_eager(b, curve, benchmark):
    """Ours clips the gradients of pairs as well, which eager leaves out."""
    y, targets, dense = batch_map(b)
    settings = CURVES[curve]
    require_close(ops.pair_loss, y, targets, clip=4.0, **settings)
    require_close(eager_pair_loss, y, dense, **settings)
    rounds = 1 if benchmark.disabled else 9
    benchmark.extra_info.update(in_fresh_processes(contest, [b, curve], rounds, 4, THREADS))
    benchmark.pedantic(lambda: gradient(ops.pair_loss, y, targets, **settings), rounds=rounds, warmup_rounds=5)


def contest(b, curve):
    """Both gradients, on sparse and on dense targets."""
    y, targets, dense = batch_map(b)
    settings = CURVES[curve]
    return (
        lambda: gradient(ops.pair_loss, y, targets, **settings),
        lambda: gradient(eager_pair_loss, y, dense, **settings),
    )


class Descent:
    """Our epoch of the same kind: edges drawn, what is among their rows, the loss of all pairs, places moved."""

    def __init__(self, graph: torch.Tensor, batch_size: int) -> None:
        curve = Curve(**CURVES["umap"], clip=4.0)
        self.objective = PairObjective(graph, curve, EdgeBatches(graph, batch_size, None, seed=0))
        self.places = 10 * torch.rand(graph.shape[0], 2, generator=torch.Generator().manual_seed(0))
        self.edges = self.pairs = self.repelling = 0

    def epoch(self) -> None:
        """Visit as many edges as are due in one."""
        self.edges = self.pairs = self.repelling = 0
        for batch in self.objective.epoch():
            similarities = self.objective.similarities(batch)
            y = self.places[batch.rows].requires_grad_()
            self.objective.loss(y, similarities, 1.0).backward()
            drawn = self.objective.batches.edges
            self.places.index_add_(0, batch.rows, y.grad, alpha=-float(drawn))  # a step of 1 for every edge
            self.edges += drawn
            self.pairs += similarities.values().numel()
            self.repelling += len(y) * (len(y) - 1)


@pytest.fixture
def use_threads():
    """Set PyTorch's and numba's number of threads for one test."""
    numba = pytest.importorskip("numba")
    before = numba.get_num_threads()

    def use(count: int) -> None:
        torch.set_num_threads(count)
        numba.set_num_threads(min(count, numba.config.NUMBA_NUM_THREADS))

    yield use
    numba.set_num_threads(before)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("threads", [1, THREADS])
def test_epoch_against_the_compiled_loop(threads, use_threads, benchmark):
    """Nanoseconds and thread for a pair that attracts: what UMAP costs where there is no encoder.

    Every positive pair of the loop stands beside 5 that repel; ours beside all others of the batch. The loop visits
    an edge once for each of its directions, and an entry of our targets is one direction of a pair as well.
    """
    pytest.importorskip("umap")
    use_threads(threads)
    _, graph = blobs(500 if benchmark.disabled else BLOB_ROWS)
    descent = Descent(graph, GRAPH_BATCH)
    layout = UmapLayout(as_scipy(graph), CURVES["umap"]["a"], CURVES["umap"]["b"], parallel=threads > 1)
    costs: dict[str, list[float]] = {"theirs_pair": [], "ours_pair": [], "ours_drawn_edge": []}
    for round_ in range(3 if benchmark.disabled else 53):
        due, before = layout.due(), layout.places.copy()
        theirs, ours = seconds_of(layout.epoch), seconds_of(descent.epoch)
        if round_ < 2:  # compiles, and warms the caches
            continue
        assert np.isfinite(layout.places).all()
        assert not np.array_equal(layout.places, before)
        assert bool(descent.places.isfinite().all())
        costs["theirs_pair"].append(1e9 * threads * theirs / due)
        costs["ours_pair"].append(1e9 * threads * ours / descent.pairs)
        costs["ours_drawn_edge"].append(1e9 * threads * ours / descent.edges)
    benchmark.extra_info.update(
        nanoseconds_and_thread={name: statistics.median(values) for name, values in costs.items()},
        pairs_that_repel_for_one_that_attracts={"ours": descent.repelling / descent.pairs, "theirs": 5},
        batch_size=GRAPH_BATCH,
    )
    benchmark.pedantic(descent.epoch, rounds=1)
