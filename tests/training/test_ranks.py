"""Several processes on one machine: loss, gradients and graphs of one process, the same bits twice and resumed."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import suppress
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from conftest import relative_rms
from sklearn.datasets import load_digits
from torch import nn

import fastpdr
from fastpdr import KNNGraph, ParametricTSNE, ParametricUMAP, metrics
from fastpdr.data import TensorRows
from fastpdr.estimators import base
from fastpdr.graph import fuzzy_set, inverted, perplexity_affinities
from fastpdr.graph.search import has_faiss
from fastpdr.graph.sharded import NeighborShard, own_rows, whole
from fastpdr.training.batches import RandomBatches
from fastpdr.training.objectives import BatchTSNE, Curve, NeighborTSNE, PairObjective
from fastpdr.training.ranks import Ranks, distributed
from fastpdr.training.rows import AsFloat32, PreparedRows, gathered
from fastpdr.training.share import RankShare, Share, apportioned, edge_batches, share_of
from fastpdr.training.step import Step
from fastpdr.training.terms import GlobalCorrelation, Landmarks

N, B, SEEDS = 300, 48, 2
X = load_digits().data[:N].astype(np.float32)
SHORT = {"n_epochs": 2, "batch_size": 96, "hidden_dims": (32,), "random_state": 0, "device": "cpu"}
OBJECTIVES = ["t-sne, rows", "t-sne, all pairs", "t-sne of the batch", "umap"]


def objective_of(name, graph, X, ranks):
    """An objective on what one process has, or a rank."""
    random = RandomBatches(N, B, torch.Generator().manual_seed(0))
    if name == "t-sne of the batch":
        return BatchTSNE(X, [30.0], 1.0, random)
    graph = graph if ranks.size == 1 else own_rows(graph, ranks)
    batches = random if name == "t-sne, all pairs" else edge_batches(graph, B, 3, 0, ranks)
    if name == "umap":
        return PairObjective(graph, Curve(1.58, 0.9, 5.0, 1e-3, 4.0), batches)
    return NeighborTSNE(graph, 1.0, batches)


def gradients(name, dtype, ranks):
    """Errors of loss and gradient, relative, of three batches: those of the ranks against one process's."""
    graph = perplexity_affinities(KNNGraph.build(X, 30), 10.0).to(dtype)
    inputs = torch.from_numpy(X).to(dtype) / 16
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(64, 32), nn.LayerNorm(32), nn.Tanh(), nn.Linear(32, 2)).to(dtype)
    share = RankShare(ranks, N, None, 0)
    encoder, held = share.encoder(network, inputs[:1]), share.held(inputs)
    alone, several = (objective_of(name, graph, inputs, part) for part in (Ranks(), ranks))
    landmarks = Landmarks(torch.arange(2.0 * N).view(N, 2).to(dtype) / N, nn.functional.mse_loss, 0.1)
    errors = []
    for own, (x, *_) in share.feed(several.epoch(), [held], held.device):
        data = x if name == "t-sne of the batch" else None
        batch = share.joined(own)
        results = []
        for part, run, rows in ((share, encoder, own), (Share(Ranks()), network, batch)):
            network.zero_grad()
            objective, z = (several, x) if part is share else (alone, inputs[batch.rows])
            y = part.map(run(z))
            similarities = part.similarities(objective, rows, data if part is share or data is None else z)
            loss = objective.loss(y, similarities, 2.0) + landmarks(batch.rows, z, y)
            loss.backward()
            results.append((loss.detach(), torch.cat([value.grad.flatten() for value in network.parameters()])))
        errors.append([relative_rms(mine, one) for mine, one in zip(*results, strict=True)])
    return errors


def graphs(ranks):
    """Whether the shards' graphs are those of one process, bit for bit; and the recall of an approximate search."""
    same = {}
    for metric in ("euclidean", "cosine"):
        one, shard = KNNGraph.build(X, 30, metric=metric), NeighborShard.search(ranks, X, 30, metric=metric)
        begin, end = ranks.shard(N)
        same[metric] = np.array_equal(shard.indices, one.indices[begin:end])
        for make in (partial(perplexity_affinities, perplexities=[4.0, 10.0]), fuzzy_set):
            wanted, found = make(one), whole(make(shard), ranks, everywhere=True)
            same[metric, str(make)] = all(
                torch.equal(getattr(found, part)(), getattr(wanted, part)())
                for part in ("crow_indices", "col_indices", "values")
            )
    if not has_faiss():
        return same, None, None
    inverted.EXACT_OPERATIONS = 0.0
    rows = np.random.default_rng(0).normal(size=(1500, 8)).astype(np.float32)
    shard = NeighborShard.search(ranks, rows, 10, random_state=0)
    found = KNNGraph.from_precomputed(*(np.concatenate(every) for every in zip(*together(ranks, shard), strict=True)))
    return same, shard.settings["recall"], found.recall(rows)


def together(ranks, shard):
    parts = [ranks.gather(torch.from_numpy(array.copy()), "test") for array in (shard.indices, shard.distances)]
    return zip(*([part.numpy() for part in every] for every in parts), strict=True)


def act_at(number, act):
    """Let the step of this number, from 1, of the next training do something first."""
    call, steps = Step.__call__, iter(range(1, 10**9))

    def run(self, inputs, phase):
        if next(steps) == number:
            act()
        call(self, inputs, phase)

    Step.__call__ = run
    return partial(setattr, Step, "__call__", call)


def maps(ranks, folder):
    """Losses and maps of fits: twice the same, one stopped by a signal to the last rank and resumed, with labels."""
    makers = {
        "tsne": partial(ParametricTSNE, **SHORT, neighbor_noise=0.5),
        "umap": partial(
            ParametricUMAP, **SHORT, encoder=nn.Sequential(nn.Linear(64, 8), nn.Dropout(0.2), nn.Linear(8, 2))
        ),
    }
    results = {}
    for name, make in makers.items():
        with distributed():
            fits = [make().fit(X) for _ in range(2)]
        undo = act_at(5, lambda: ranks.rank == ranks.size - 1 and os.kill(os.getpid(), signal.SIGTERM))
        with distributed(), suppress(SystemExit):
            make(checkpoint_dir=folder / name).fit(X)
        undo()
        with distributed():
            resumed = make(checkpoint_dir=folder / name, resume=True).fit(X)
        fits.append(resumed)
        results[name] = [(fit.loss_history_, fit.embedding_, fit.transform(X)) for fit in fits]
    with distributed():
        labelled = ParametricUMAP(**SHORT, init="pca", max_time=100.0).fit(X, load_digits().target[:N])
    results["graph"] = labelled.graph_
    path = folder / f"rows-{ranks.rank}.npy"
    np.save(path, X)
    planned = base.plan_of
    base.plan_of = lambda *arguments: replace(planned(*arguments), rows="by batch")
    with distributed():
        results["streamed"] = ParametricUMAP(**SHORT, neighbor_noise=0.5).fit(path).embedding_
    base.plan_of = planned
    with distributed():
        results["held"] = ParametricUMAP(**SHORT, neighbor_noise=0.5).fit(X).embedding_
    return results


def fails(ranks, folder):
    """What is refused before a training, by which words."""
    messages = {}

    def note(name, work):
        with distributed():
            try:
                work()
            except ValueError as error:
                messages[name] = str(error)

    decoder = ParametricUMAP(**SHORT, parametric_reconstruction=True)
    norm = ParametricTSNE(**SHORT, encoder=nn.Sequential(nn.Linear(64, 2), nn.BatchNorm1d(2)))
    note("decoder", lambda: decoder.fit(X))
    note("batch norm", lambda: norm.fit(X))
    note("few rows", lambda: share_of(ranks, 3, None, 0, [nn.Linear(2, 2)], []))
    note("other rows", lambda: ParametricTSNE(**SHORT).fit(X + ranks.rank))
    try:
        ParametricTSNE(**SHORT, neighbor_noise=0.5, checkpoint_dir=folder / "tsne", resume=True).fit(X)
    except ValueError as error:
        messages["other ranks"] = str(error)
    note("correlation", lambda: share_of(ranks, N, None, 0, [nn.Linear(2, 2)], [GlobalCorrelation(1.0)]))
    return messages


def start(rank, size, port):
    """Be one of several processes, as torchrun would say; a GPU that is there could not be each one's own."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    os.environ["CUDA_VISIBLE_DEVICES"] = ""


def work(rank, size, port, folder):
    """What each process of the tests below does."""
    start(rank, size, port)
    with distributed(timeout=60.0) as ranks:
        results = {"rank": (ranks.rank, ranks.size), "graphs": graphs(ranks)}
        for name in OBJECTIVES:
            for dtype in (torch.float32, torch.float64):
                results[name, dtype] = gradients(name, dtype, ranks)
    results |= {"maps": maps(ranks, folder), "fails": fails(ranks, folder)}
    torch.save(results, folder / f"{rank}.pt")


def quality(rank, size, port, folder):
    """Place held-out rows on the maps of several seeds."""
    start(rank, size, port)
    rows = np.load(folder / "rows.npz")
    with distributed(timeout=60.0):
        placed = maps_of_seeds(rows["train"], rows["test"])
    if rank == 0:
        np.save(folder / "placed.npy", placed)


def maps_of_seeds(train, test):
    return [ParametricTSNE(random_state=seed, device="cpu").fit(train).transform(test) for seed in range(SEEDS)]


def spawn(work, size, folder):
    """Run something in so many processes."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(work, (size, port, folder), nprocs=size)


@pytest.fixture(scope="module", params=[2, 3])
def results(request, tmp_path_factory):
    """What each of two or three processes found."""
    folder = tmp_path_factory.mktemp("ranks")
    spawn(work, request.param, folder)
    every = [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(request.param)]
    assert [found["rank"] for found in every] == [(rank, request.param) for rank in range(request.param)]
    return every


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_loss_and_gradient_are_those_of_one_process(results, name, dtype, tolerance):
    """With the joined batch; landmarks are part of the loss. float64 takes the reference."""
    for found in results:
        assert len(found[name, dtype]) >= 3
        assert max(max(errors) for errors in found[name, dtype]) <= tolerance


def test_graphs_are_those_of_one_process(results):
    for found in results:
        same, recall, measured = found["graphs"]
        assert all(same.values()), same
        if has_faiss():
            assert recall >= inverted.TARGET_RECALL
            assert measured >= inverted.TARGET_RECALL


@pytest.mark.parametrize("method", ["tsne", "umap"])
def test_fits_give_the_same_bits_on_all_ranks_twice_and_resumed(results, method):
    first = results[0]["maps"][method][0]
    for found in results:
        for losses, embedding, placed in found["maps"][method]:
            assert losses == first[0]
            assert np.array_equal(embedding, first[1])
            assert np.array_equal(placed, embedding)


def test_rows_of_a_file_are_read_by_batch_where_they_do_not_fit(results):
    """A thread draws and reads ahead, of the own rows and their neighbours: the map is that of rows in memory."""
    for found in results:
        assert np.array_equal(found["maps"]["streamed"], results[0]["maps"]["held"])


def test_labels_see_the_whole_graph(results):
    """Rank 0 keeps it."""
    one = ParametricUMAP(**SHORT).fit(X, load_digits().target[:N])
    assert (results[0]["maps"]["graph"] != one.graph_).nnz == 0
    assert all(found["maps"]["graph"] is None for found in results[1:])


def test_what_cannot_be_cut_is_refused_before_a_training(results):
    for found in results:
        messages = found["fails"]
        assert f"other settings (number of ranks was {len(results)}, is None)" in messages.pop("other ranks")
        assert {name: message.split(": ")[1][:16] for name, message in messages.items()} == {
            "decoder": "decoders and glo",
            "batch norm": "encoder must not",
            "few rows": "X must have at l",
            "other rows": "X must be the sa",
            "correlation": "decoders and glo",
        }


def test_two_processes_are_as_good_as_one(tmp_path, digits):
    """By every measure of rows that were held out: within 0.01, but for what the seeds make of the means."""
    train, _, test, y = digits
    np.savez(tmp_path / "rows.npz", train=train, test=test)
    spawn(quality, 2, tmp_path)
    maps = maps_of_seeds(train, test), np.load(tmp_path / "placed.npy")
    one, two = ([metrics.evaluate(test, Z, y) for Z in every] for every in maps)
    for name in one[0]:
        every = [np.array([scores[name] for scores in kind]) for kind in (one, two)]
        standard_error = np.sqrt(sum(scores.var(ddof=1) / len(scores) for scores in every))
        # Of two seeds that are alike by chance the error would be none; that of five is .005 and less.
        assert abs(every[0].mean() - every[1].mean()) < 0.01 + 2 * max(0.005, standard_error), name


def test_one_process_is_a_group_of_one():
    with fastpdr.distributed() as ranks:
        assert (ranks.rank, ranks.size) == (0, 1)
    with pytest.raises(ValueError, match="timeout must be > 0"), fastpdr.distributed(timeout=0):
        pass


def test_edges_are_apportioned_by_weight():
    assert apportioned(10, [1.0, 1.0, 2.0]) == [3, 2, 5] or apportioned(10, [1.0, 1.0, 2.0]) == [2, 3, 5]
    assert apportioned(4, [1.0, 1e-9]) == [4, 1]


@pytest.mark.parametrize("hold", [None, torch.device("cpu")])
@pytest.mark.parametrize("whole", [True, False])
def test_a_rank_holds_its_rows_and_their_neighbours(hold, whole):
    """Of a matrix, or of rows that are made as they are asked for."""

    class Second(Ranks):
        rank, size = 1, 2

    near = torch.randint(N, (N // 2, 5), generator=torch.Generator().manual_seed(0))
    share = RankShare(Second(), N, near, 0, hold)
    rows = torch.from_numpy(X)
    held = share.held(rows if whole else PreparedRows(TensorRows(rows), AsFloat32()))
    assert isinstance(held, torch.Tensor) == (whole or hold is not None)
    assert len(held) == N // 2 + len(set(near[near < N // 2].tolist()))
    assert torch.equal(gathered(held, torch.arange(N // 2)), rows[N // 2 :])
    assert torch.equal(gathered(held, share.neighbors(near).flatten()), rows[near.flatten()])
