"""Steps of one shape: padding changes nothing, recordings are replayed with what is new, refusals are logged once."""

from __future__ import annotations

import logging

import pytest
import torch
from conftest import no_gpu
from torch import nn

from fastpdr.training import TrainingSettings, build_encoder, loop, train
from fastpdr.training.batches import Batch, EdgeBatches, RandomBatches
from fastpdr.training.encoder import InputScaling
from fastpdr.training.feed import _ahead, feed
from fastpdr.training.objectives import BatchTSNE, Curve, NeighborTSNE, PairObjective
from fastpdr.training.optimizers import make_optimizer
from fastpdr.training.step import (
    CudaGraphs,
    Inputs,
    Phase,
    Recorder,
    Step,
    descend,
    fade_extra,
    fill,
    hold,
    shorten,
)
from fastpdr.training.terms import GlobalCorrelation

pytestmark = pytest.mark.filterwarnings("ignore:Sparse CSR tensor support:UserWarning")
N = 300
UMAP = Curve(1.58, 0.9, 5.0, 1e-3, 4.0)
LARGEVIS = Curve(1.0, 1.0, 35.0, 0.1, 5.0)
KERAS = Curve(1.58, 0.3, 5.0, 1e-3, 0.0, "keras")


@pytest.fixture(scope="module")
def graph():
    """A sparse symmetric matrix [300, 300] with a hub."""
    generator = torch.Generator().manual_seed(1)
    i, j = torch.randint(N, (2, 1500), generator=generator)
    j[:200] = 7
    weights = torch.rand(1500, generator=generator)
    entries = torch.stack([torch.cat([i, j]), torch.cat([j, i])])[:, (i != j).repeat(2)]
    return torch.sparse_coo_tensor(entries, weights.repeat(2)[(i != j).repeat(2)], (N, N)).coalesce().to_sparse_csr()


def objectives(graph, dtype=torch.float32, device="cpu"):
    """Every objective on a graph, by name, as makers of new ones."""
    graph = graph.to(dtype).to(device)

    def edges():
        return EdgeBatches(graph, 64, 6, 3)

    def random():
        return RandomBatches(N, 64, torch.Generator(device).manual_seed(0))

    return {
        "umap": lambda: PairObjective(graph, UMAP, edges()),
        "largevis": lambda: PairObjective(graph, LARGEVIS, edges()),
        "heavy tails": lambda: PairObjective(graph, KERAS, edges()),
        "t-sne of edges": lambda: NeighborTSNE(graph, 0.5, edges()),
        "t-sne of random rows": lambda: NeighborTSNE(graph, 1.0, random()),
    }


NAMES = ["umap", "largevis", "heavy tails", "t-sne of edges", "t-sne of random rows"]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("name", NAMES)
def test_padding_changes_neither_loss_nor_gradient(name, dtype, tolerance, graph, generator, close):
    """float64 takes the reference."""
    plain, fixed = (objectives(graph, dtype)[name]() for _ in range(2))
    fixed.fixed = True
    places = torch.randn(N, 3, generator=generator).to(dtype)
    padded = 0
    for batch, other in zip(plain.epoch(), fixed.epoch(), strict=True):
        m, b = len(batch.rows), len(other.rows)
        padded += b - m
        y, z = (places[part.rows].requires_grad_() for part in (batch, other))
        similarities = fixed.similarities(other, None)
        assert similarities.values().numel() == fixed._capacity(b)
        loss = plain.loss(y, plain.similarities(batch, None), 2.0)
        loss_padded = fixed.loss(z, similarities, 2.0, other.points)
        loss.backward()
        loss_padded.backward()
        close(loss_padded.detach(), loss.detach(), tolerance)
        close(z.grad[:m], y.grad, tolerance)
        assert not z.grad[m:].any()
    assert (padded > 0) == ("random" not in name)


class Immediate:
    """Stands in for CUDA graphs: repeats the work by running it again."""

    def __init__(self, waits=None, error=None):
        self.reason, self.error = waits, error
        self.warm, self.recorded, self.replayed = 0, 0, 0

    def warm_up(self, work):
        self.warm += 1
        work()

    def waits(self, work):
        self.warm_up(work)
        return self.reason

    def record(self, work):
        if self.error:
            raise RuntimeError(self.error)
        self.recorded += 1

        def replay():
            self.replayed += 1
            work()

        return replay


def settings(**changes):
    defaults = {
        "n_components": 2,
        "n_epochs": 4,
        "batch_size": 64,
        "learning_rate": 6e-3,
        "lr_schedule": "cosine",
        "optimizer": "adamw",
        "weight_decay": 0.1,
        "exaggeration": 1.0,
        "exaggeration_epochs": 0,
        "clip_grad_value": None,
        "clip_grad_norm": 0.1,
        "input_noise": 0.0,
        "neighbor_noise": 0.0,
        "bfloat16": False,
    }
    return TrainingSettings(**{**defaults, **changes})


def trained(objective, numbers, graphs=None, monkeypatch=None, device="cpu", terms=()):
    """(State, parameters) of a training on 300 rows."""
    if monkeypatch is not None:
        monkeypatch.setattr(loop, "make_graphs", lambda *_: graphs)
    torch.manual_seed(0)
    rows = torch.randn(N, 5)
    encoder = build_encoder(InputScaling.fit(rows), numbers.n_components + 2, [32, 32], "gelu").to(device)
    generator = torch.Generator(device).manual_seed(0)
    state = train(encoder, rows.to(device), objective, numbers, generator, encoder, terms=terms)
    return state, nn.utils.parameters_to_vector(encoder.parameters()).detach().cpu()


@pytest.mark.parametrize("name", NAMES)
def test_replayed_steps_train_as_plain_ones_do(name, graph, monkeypatch, close):
    numbers = settings(exaggeration=3.0, exaggeration_epochs=1)
    make = objectives(graph)[name]
    plain, parameters = trained(make(), numbers)
    graphs, objective = Immediate(), make()
    replayed, same = trained(objective, numbers, graphs, monkeypatch)
    assert objective.fixed
    assert graphs.recorded == 3 or "random" in name  # exaggeration, then none, then without extra components
    assert graphs.replayed > graphs.recorded
    assert graphs.replayed + graphs.warm == 4 * objective.per_epoch
    close(torch.tensor(replayed.loss_history), torch.tensor(plain.loss_history), 1e-4)
    close(same, parameters, 1e-3)
    assert replayed.learning_rate == plain.learning_rate


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd", "rmsprop"])
def test_batches_of_similarities_of_their_own_are_replayed(optimizer, monkeypatch, close):
    data = torch.randn(N, 5, generator=torch.Generator().manual_seed(0))
    numbers = settings(optimizer=optimizer, learning_rate=1e-3, input_noise=0.1)

    def objective():
        return BatchTSNE(data, [20.0], 1.0, RandomBatches(N, 64, torch.Generator().manual_seed(0)))

    plain, parameters = trained(objective(), numbers)
    graphs = Immediate()
    replayed, same = trained(objective(), numbers, graphs, monkeypatch)
    assert graphs.replayed > 0
    close(torch.tensor(replayed.loss_history), torch.tensor(plain.loss_history), 1e-6)
    close(same, parameters, 1e-6)


@pytest.mark.parametrize(
    ("graphs", "reason"),
    [(Immediate(waits="called a synchronizing operation"), "waits for the device"), (Immediate(error="no"), "no")],
)
def test_what_cannot_be_recorded_runs_as_it_is_after_one_line(graphs, reason, graph, monkeypatch, caplog, close):
    make = objectives(graph)["umap"]
    _, parameters = trained(make(), settings())
    with caplog.at_level(logging.INFO, "fastpdr"):
        _, same = trained(make(), settings(), graphs, monkeypatch)
    lines = [record.message for record in caplog.records if "CUDA graph" in record.message]
    assert len(lines) == 1
    assert reason in lines[0]
    assert graphs.replayed == 0
    close(same, parameters, 1e-3)


def test_terms_and_missing_kernels_are_reasons_not_to_record(caplog, monkeypatch):
    assert loop.make_graphs(torch.device("cpu"), []) is None
    assert not caplog.records
    with caplog.at_level(logging.INFO, "fastpdr"):
        assert loop.make_graphs(torch.device("cuda"), [GlobalCorrelation(1.0)]) is None
        monkeypatch.setattr(loop._native, "KERNELS", dict.fromkeys(loop._native.OPS, frozenset({"cpu"})))
        assert loop.make_graphs(torch.device("cuda"), []) is None
    assert ["further terms" in record.message for record in caplog.records] == [True, False]
    assert "no compiled kernels" in caplog.records[1].message


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd", "rmsprop"])
@pytest.mark.parametrize("clip_value", [None, 1e-3])
def test_each_network_is_clipped_on_its_own_and_what_takes_no_part_stays(optimizer, clip_value, close):
    """As by PyTorch's functions, network by network; weight decay moves no parameter that has no gradient."""
    x, bounds, ends = torch.randn(20, 5), {}, []
    for clip in (descend, reference_descend):
        torch.manual_seed(0)
        networks = [nn.Sequential(nn.Linear(5, 8), nn.Linear(8, 2)) for _ in range(2)]
        for network in networks:
            network.unused = nn.Linear(3, 3)
        before = [network.unused.weight.detach().clone() for network in networks]
        descent = make_optimizer(optimizer, networks, 6e-3, 0.1, torch.device("cpu"))
        for number in range(3):
            loss = (networks[0][1](networks[0][0](x)) - 100.0 * networks[1][1](networks[1][0](x))).square().mean()
            bound = [0.5, 1e6][number % 2]
            norms = clip([[*network.parameters()] for network in networks], loss, descent, clip_value, bound)
            bounds.setdefault(number, []).append(torch.stack(norms))
        assert all(torch.equal(network.unused.weight, was) for network, was in zip(networks, before, strict=True))
        assert all(p.grad is None for network in networks for p in network.unused.parameters())
        ends.append(nn.utils.parameters_to_vector([p for network in networks for p in network.parameters()]).detach())
    for norms in bounds.values():
        close(*norms)
        assert norms[0].shape == (2,)
    close(*ends)


def reference_descend(networks, loss, optimizer, clip_value, clip_norm):
    optimizer.zero_grad()
    loss.backward()
    if clip_value is not None:
        for parameters in networks:
            nn.utils.clip_grad_value_(parameters, clip_value)
    norms = [nn.utils.clip_grad_norm_(parameters, clip_norm) for parameters in networks]
    optimizer.step()
    return norms


def test_a_gradient_that_is_lost_is_lost_in_all_parameters():
    parameters = [nn.Parameter(torch.ones(3)) for _ in range(2)]
    for parameter, value in zip(parameters, (1.0, torch.nan), strict=True):
        parameter.grad = torch.full((3,), value)
    assert shorten(parameters, 1.0).isnan()
    assert all(bool(parameter.grad.isnan().all()) for parameter in parameters)


def test_inputs_are_held_in_tensors_of_their_own():
    inputs = Inputs(Batch(torch.arange(4), torch.tensor(3)), torch.ones(4, 2), None, 0.25, 7)
    held = hold(inputs, torch.device("cpu"))
    addresses = [tensor.data_ptr() for tensor in (held.batch.rows, held.batch.points, held.x, held.fade, held.noise)]
    other = Inputs(Batch(torch.arange(4) + 1, torch.tensor(2)), torch.zeros(4, 2), None, 0.5, 2**40)
    fill(held, other)
    assert addresses == [t.data_ptr() for t in (held.batch.rows, held.batch.points, held.x, held.fade, held.noise)]
    assert torch.equal(held.batch.rows, other.batch.rows)
    assert (int(held.batch.points), float(held.fade), int(held.noise)) == (2, 0.5, 2**40)
    assert not held.x.any()
    assert inputs.x.all()


def test_extra_components_fade_by_numbers_and_tensors_alike():
    y = torch.randn(6, 4)
    assert torch.equal(fade_extra(y, 2, 0.3), fade_extra(y, 2, torch.tensor(0.3)))
    assert torch.equal(fade_extra(y, 2, None), y[:, :2])
    assert torch.equal(fade_extra(y[:, :2], 2, 0.3), y[:, :2])


@pytest.mark.parametrize("padded", [False, True])
def test_rows_fed_ahead_by_a_thread_are_the_same(padded, graph):
    """As from the host's memory to a GPU, but for the page-locked memory and the stream."""
    sources = [torch.randn(N, 5), torch.randn(N, 2, 3)]
    expected, fed = (
        list(way(EdgeBatches(graph, 64, 9, 3).epoch(padded), sources, torch.device("cpu")))
        for way in (feed, lambda batches, *rest: _ahead(iter(batches), *rest))
    )
    assert len(expected) == len(fed) == 9
    for (batch, parts), (other, copies) in zip(expected, fed, strict=True):
        assert torch.equal(batch.rows, other.rows)
        assert (batch.points is None) == (other.points is None)
        assert all(torch.equal(a, b) for a, b in zip(parts, copies, strict=True))


def test_a_source_that_is_named_twice_is_read_once():
    source = torch.randn(9, 2)
    ((_, (first, second)),) = feed([Batch(torch.tensor([1, 3]))], [source, source], torch.device("cpu"))
    assert first is second


def test_errors_of_the_feeding_thread_are_raised():
    def batches():
        yield Batch(torch.tensor([0]))
        raise OSError("gone")

    fed = _ahead(batches(), [torch.randn(3, 2)], torch.device("cpu"))
    next(fed)
    with pytest.raises(OSError, match="gone"):
        next(fed)


class Waiting(nn.Linear):
    """A network that asks for a number."""

    def forward(self, x):
        return super().forward(x) * float(x.sum() != torch.inf)


@no_gpu
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bfloat16", [False, True])
def test_graphs_train_as_plain_steps_do(name, bfloat16, graph, monkeypatch, close):
    numbers = settings(n_epochs=10, bfloat16=bfloat16, exaggeration=2.0, exaggeration_epochs=2)
    make = objectives(graph, device="cuda")[name]
    plain, parameters = trained(make(), numbers, None, monkeypatch, "cuda")
    monkeypatch.undo()
    recorded = []
    record = CudaGraphs.record
    monkeypatch.setattr(CudaGraphs, "record", lambda *a: recorded.append(record(*a)) or recorded[-1])
    replayed, same = trained(make(), numbers, device="cuda")
    assert recorded
    close(torch.tensor(replayed.loss_history), torch.tensor(plain.loss_history), 3e-2 if bfloat16 else 1e-3)
    close(same, parameters, 1e-1 if bfloat16 else 1e-2)


@no_gpu
@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd", "rmsprop"])
def test_no_step_on_a_gpu_waits_for_it(optimizer, graph):
    objective = objectives(graph, device="cuda")["umap"]()
    numbers = settings(n_epochs=2, optimizer=optimizer, learning_rate=1e-3, input_noise=0.1)
    waits = []
    step = Step.__call__

    def watched(self, *arguments):
        torch.cuda.set_sync_debug_mode("error")
        try:
            step(self, *arguments)
        except RuntimeError as error:
            waits.append(str(error))
            raise
        finally:
            torch.cuda.set_sync_debug_mode("default")

    with pytest.MonkeyPatch.context() as patch:
        objective._capacity(64)  # is found once
        patch.setattr(Step, "__call__", watched)
        trained(objective, numbers, device="cuda")
    assert not waits


@no_gpu
def test_a_network_that_waits_is_run_as_it_is(graph, caplog):
    objective = objectives(graph, device="cuda")["umap"]()
    encoder = Waiting(5, 2).cuda()
    with caplog.at_level(logging.INFO, "fastpdr"):
        train(encoder, torch.randn(N, 5).cuda(), objective, settings(), torch.Generator("cuda"), encoder)
    assert sum("CUDA graph" in record.message for record in caplog.records) == 1


@no_gpu
def test_rows_of_the_host_train_a_network_on_a_gpu(graph, close):
    rows = torch.randn(N, 5)
    curves = []
    for home in ("cpu", "cuda"):
        torch.manual_seed(0)
        encoder = build_encoder(InputScaling.fit(rows), 4, [32], "gelu").cuda()
        objective = PairObjective(graph.cuda(), UMAP, EdgeBatches(graph.to(home), 64, 6, 3))
        generator = torch.Generator(home).manual_seed(0)
        state = train(encoder, rows.to(home), objective, settings(n_epochs=8), generator, encoder)
        curves.append(torch.tensor(state.loss_history))
    close(*curves, 1e-3)


def test_a_recorder_forgets_recordings_of_other_phases():
    calls = []

    class Counted:
        def __call__(self, inputs, phase):
            calls.append((float(inputs.fade), int(inputs.batch.rows[0]), phase))

    graphs = Immediate()
    recorder = Recorder(Counted(), graphs, torch.device("cpu"))
    for phase in (Phase(2.0, False), Phase(1.0, False)):
        for number in range(10):
            recorder(Inputs(Batch(torch.tensor([number, 1])), torch.ones(2, 1), None, number / 10, 0), phase)
    assert graphs.recorded == 2
    assert [(round(10 * fade), row) for fade, row, _ in calls] == [(number, number) for number in range(10)] * 2
    assert [phase.exaggeration for *_, phase in calls] == [2.0] * 10 + [1.0] * 10
