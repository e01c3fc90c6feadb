"""What the ops and a training step take on a GPU, beside its limits; one JSON file.

    python bench/gpu.py [--device cuda] [--small] [--seconds 200] [--roofline FILE] [--json FILE]

Times are medians between CUDA events (of a clock on the CPU, with ``--device cpu --small``, which shows that the script
works and nothing else). Every op is compared with the CPU's first. With the rates that ``bench/roofline.cu`` measures,
each op's floor stands beside its time. Parts that the seconds do not suffice for are left out and named.
``bench/gpu.sh`` runs this among the rest.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from competitors import eager_layer_norm_gelu, eager_pair_loss, eager_student_t_kl
from torch import nn

import fastpdr
from fastpdr import ops
from fastpdr._precision import full_float32
from fastpdr._sparse import csr_tensor
from fastpdr.training.batches import EdgeBatches
from fastpdr.training.encoder import MLP
from fastpdr.training.feed import feed
from fastpdr.training.objectives import Curve, PairObjective
from fastpdr.training.optimizers import make_optimizer
from fastpdr.training.step import CudaGraphs, Inputs, Noise, Phase, Recorder, Step, descend

CURVE = {"a": 1.577, "b": 0.8951, "repulsion": 5.0, "eps": 1e-3}
DEFAULT_WIDTHS, WIDE = (256, 256, 256, 256, 128), (1024, 512, 256, 128)
LARGE_BATCH = 5000  # beyond which eager PyTorch's matrices of all pairs are left out
TOLERANCE = 1e-4  # of a gradient against the CPU's
# Of an ordered pair, in the inner loop for maps of two columns: instructions, and those of the special-function unit
# among them; counted in what nvcc 13.0 makes for sm_90 (cuobjdump --dump-sass).
INSTRUCTIONS = {
    "student_t": (9.5, 1.0),
    "student_t by row": (17.0, 2.0),
    "pair_loss umap": (17.6, 2.75),
    "pair_loss largevis": (14.5, 1.25),
}


class Bench:
    """Times functions on a device and keeps what was found."""

    def __init__(self, device: str, small: bool, rates: dict[str, float]) -> None:
        self.device, self.small, self.rates, self.found = torch.device(device), small, rates, {}

    def size(self, full: int, small: int) -> int:
        return small if self.small else full

    def milliseconds(self, function: Callable[[], Any], rounds: int = 20) -> float:
        """Median of single calls, after three that do not count."""
        rounds = 2 if self.small else rounds
        for _ in range(1 if self.small else 3):
            function()
        if self.device.type != "cuda":
            times = []
            for _ in range(rounds):
                begin = time.perf_counter()
                function()
                times.append(1e3 * (time.perf_counter() - begin))
            return statistics.median(times)
        events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(rounds)]
        for begin, end in events:
            begin.record()
            function()
            end.record()
        torch.cuda.synchronize()
        return statistics.median(begin.elapsed_time(end) for begin, end in events)

    def floor(self, instructions: float = 0.0, special: float = 0.0, bytes_moved: float = 0.0) -> float | None:
        """Milliseconds in which the GPU can do so much at best; None where its rates are not known."""
        if not self.rates:
            return None
        # A multiply-add is an instruction of a lane; all others are issued no faster.
        seconds = (
            instructions / self.rates["float32_multiply_adds_per_second"],
            special / self.rates["exp2_per_second"],
            bytes_moved / self.rates["copy_bytes_per_second"],
        )
        return 1e3 * max(seconds)

    def normal(self, *shape: int, seed: int = 0) -> torch.Tensor:
        return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(self.device)

    def note(self, name: str, **values: Any) -> None:
        """Keep and print."""
        if values.get("floor_milliseconds"):
            values["times_the_floor"] = values["milliseconds"] / values["floor_milliseconds"]
        self.found[name] = values
        numbers = {key: value for key, value in values.items() if isinstance(value, float | int)}
        print(f"{name}: " + ", ".join(f"{key} {value:.4g}" for key, value in numbers.items()), flush=True)


def products(bench: Bench) -> None:
    """Rates of float32 and bf16 products, which the network is bound by."""
    n = bench.size(8192, 128)
    a = bench.normal(n, n)
    with full_float32():
        single = bench.milliseconds(lambda: a @ a)
    half = a.bfloat16()
    double = bench.milliseconds(lambda: half @ half)
    for name, took in (("float32 product", single), ("bf16 product", double)):
        bench.note(name, milliseconds=took, teraflops=2 * n**3 / took / 1e9)


def ring(b: int, k: int, device: torch.device) -> torch.Tensor:
    """A symmetric sparse matrix [b, b]: every row and its k nearest places in an order that is random in memory."""
    place = torch.randperm(b, generator=torch.Generator().manual_seed(1))
    steps = torch.cat([torch.arange(1, k // 2 + 1), -torch.arange(1, k // 2 + 1)])
    columns = place[(place.argsort()[:, None] + steps) % b].sort(1).values
    values = torch.full((b * 2 * (k // 2),), 1.0 / (b * k))
    parts = torch.arange(b + 1) * 2 * (k // 2), columns.ravel(), values
    return csr_tensor(*(part.to(device) for part in parts), b)


def gradient(loss: Callable[..., torch.Tensor], y: torch.Tensor, *arguments: Any, **settings: Any) -> torch.Tensor:
    y = y.detach().requires_grad_()
    loss(y, *arguments, **settings).backward()
    assert y.grad is not None
    return y.grad


def require_cpu(
    bench: Bench, name: str, loss: Callable[..., Any], y: torch.Tensor, *rest: Any, **settings: Any
) -> None:
    """The gradient must be the CPU's."""
    actual = gradient(loss, y, *rest, **settings).cpu()
    expected = gradient(loss, y.cpu(), *(part.cpu() for part in rest), **settings)
    error = float((actual - expected).norm() / expected.norm())
    if not error <= TOLERANCE:
        raise AssertionError(f"{name}: relative error {error:.2e} against the CPU")


def losses(bench: Bench) -> None:
    """Forward and backward: exact over all pairs, and beside eager PyTorch where that has the memory; replayed."""
    for b in (bench.size(512, 100), bench.size(4096, 300), bench.size(100_000, 500)):
        y, p = 3 * bench.normal(b, 2), ring(b, 14, bench.device)
        pair = {**CURVE, "clip": 4.0}
        cases = {
            "student_t": (ops.student_t_kl, {}, eager_student_t_kl, {}),
            "student_t by row": (ops.student_t_kl, {"normalization": "row"}, None, {}),
            "pair_loss umap": (ops.pair_loss, pair, eager_pair_loss, CURVE),
            "pair_loss largevis": (ops.pair_loss, {**pair, "a": 1.0, "b": 1.0, "clip": 5.0}, None, {}),
        }
        for name, (loss, settings, eager, eager_settings) in cases.items():
            if b <= LARGE_BATCH:
                require_cpu(bench, name, loss, y, p, **settings)
            took = bench.milliseconds(recorded(bench, partial(gradient, loss, y, p, **settings)))
            theirs = None
            if eager is not None and b <= LARGE_BATCH:
                theirs = bench.milliseconds(
                    recorded(bench, partial(gradient, eager, y, p.to_dense(), **eager_settings))
                )
            bench.note(
                f"{name}, b = {b}",
                milliseconds=took,
                pairs_per_second=1e3 * b * b / took,
                floor_milliseconds=bench.floor(*(count * b * b for count in INSTRUCTIONS[name])),
                eager_milliseconds=theirs,
                eager_over_ours=theirs and theirs / took,
            )


def dense_loss(bench: Bench) -> None:
    """A batch with similarities of its own."""
    for b in (bench.size(512, 64), bench.size(4096, 128)):
        y, p = 3 * bench.normal(b, 2), bench.normal(b, b).abs().fill_diagonal_(0)
        p = (p + p.T) / (p + p.T).sum()
        require_cpu(bench, "student_t dense", ops.student_t_kl, y, p)
        took = bench.milliseconds(recorded(bench, partial(gradient, ops.student_t_kl, y, p)))
        theirs = bench.milliseconds(recorded(bench, partial(gradient, eager_student_t_kl, y, p)))
        bench.note(
            f"student_t dense, b = {b}", milliseconds=took, eager_milliseconds=theirs, eager_over_ours=theirs / took
        )


def rows(bench: Bench) -> None:
    """What is done once for a graph, and what for every batch."""
    n, k = bench.size(1_000_000, 2000), 90
    sqdist = bench.normal(n, k).square().sort(1).values
    for levels in ([30.0], [2.0**h for h in range(1, 7)]):
        took = bench.milliseconds(partial(ops.perplexity_search, sqdist, levels), 5)
        bench.note(
            f"perplexity_search {n} x {k}, {len(levels)} of them",
            milliseconds=took,
            floor_milliseconds=bench.floor(bytes_moved=8 * n * k),
        )
    near = sqdist[:, :14].contiguous()
    took = bench.milliseconds(lambda: ops.fuzzy_weights(near), 5)
    bench.note(f"fuzzy_weights {n} x 14", milliseconds=took, floor_milliseconds=bench.floor(bytes_moved=8 * n * 14))
    graph = ring(n, 14, bench.device)
    parts = graph.crow_indices(), graph.col_indices(), graph.values()
    b = min(n, 4096)
    batch = torch.randperm(n, generator=torch.Generator().manual_seed(0))[:b].to(bench.device)
    number = torch.full((), b, device=bench.device)
    took = bench.milliseconds(lambda: ops.subgraph(*parts, batch, points=number, capacity=14 * b))
    bench.note(f"subgraph of {b} rows of {n}", milliseconds=took)
    table = ops.alias_table(graph.values())
    for draws in (2**14, bench.size(2**26, 2**16)):
        took = bench.milliseconds(partial(ops.sample_edges, table, draws, seed=0, step=0))
        # A draw reads a sector of 32 bytes at random and writes 8.
        bench.note(
            f"sample_edges, {draws} of {len(table)}",
            milliseconds=took,
            edges_per_second=1e3 * draws / took,
            floor_milliseconds=bench.floor(bytes_moved=40 * draws),
        )


def layers(bench: Bench) -> None:
    """LayerNorm and GELU of a hidden layer, forward and backward, beside PyTorch's modules under autocast."""
    b, d = bench.size(4096, 64), bench.size(1024, 32)
    for dtype in (torch.bfloat16, torch.float32):
        norm = nn.LayerNorm(d, device=bench.device)
        x, grad = bench.normal(b, d).to(dtype).requires_grad_(), bench.normal(b, d, seed=1).to(dtype)
        leaves = (x, norm.weight, norm.bias)
        ours, modules = partial(ops.layer_norm_gelu, *leaves), partial(under_autocast, *leaves)
        took, theirs = (
            bench.milliseconds(recorded(bench, partial(there_and_back, run, leaves, grad))) for run in (ours, modules)
        )
        # Forward: one read, two writes; backward: three reads twice, one write.
        bench.note(
            f"layer_norm_gelu {b} x {d}, {dtype}",
            milliseconds=took,
            modules_milliseconds=theirs,
            modules_over_ours=theirs / took,
            floor_milliseconds=bench.floor(bytes_moved=10 * x.numel() * x.element_size()),
        )


def under_autocast(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """PyTorch's modules, as training in bf16 runs them where x is in bf16."""
    with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=x.dtype is torch.bfloat16):
        return eager_layer_norm_gelu(x, weight, bias).to(x.dtype)


def there_and_back(run: Callable[[], torch.Tensor], leaves: Sequence[torch.Tensor], grad: torch.Tensor) -> None:
    torch.autograd.grad(run(), leaves, grad)


def recorded(bench: Bench, work: Callable[[], Any]) -> Callable[[], Any]:
    """The work in a CUDA graph, so that the host's share of small launches does not count."""
    if bench.device.type != "cuda":
        return work
    graphs = CudaGraphs(bench.device)
    for _ in range(3):
        graphs.warm_up(work)
    try:
        return graphs.record(work)
    except RuntimeError as error:
        print(f"not recorded, but run as it is: {str(error).splitlines()[0]}")
        return work


def profiled(work: Callable[[], Any], steps: int) -> dict[str, Any]:
    """What the host asked of the GPU in so many steps, for each of them, and the kernels that took longest."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
        work()
    calls, kernels = Counter(), Counter()
    for event in found.key_averages():
        if event.key.startswith(("cuda", "cuLaunch")):
            calls[event.key] += event.count
        elif str(event.device_type).endswith("CUDA"):
            kernels[event.key.removeprefix("void ")[:110]] += event.self_device_time_total
    waits = sum(count for name, count in calls.items() if "Synchronize" in name)
    return {
        "calls_per_step": {name: count / steps for name, count in calls.most_common()},
        "waits": waits,
        "kernel_microseconds_per_step": {name: total / steps for name, total in kernels.most_common(25)},
    }


class Trained:
    """A network of some widths in training on Gaussian rows and a ring of neighbours, as the loop trains it."""

    def __init__(self, bench: Bench, x: torch.Tensor, graph: torch.Tensor, b: int, widths: Any, bfloat16: bool) -> None:
        self.on_gpu, self.x = bench.device.type == "cuda", x
        torch.manual_seed(0)
        self.network = MLP(x.shape[1], 2, widths, "gelu").to(bench.device)
        self.optimizer = make_optimizer("adamw", [self.network], 1e-3, 0.1, bench.device)
        curve = Curve(**CURVE, clip=4.0)
        self.objective = PairObjective(graph, curve, EdgeBatches(graph, b, bench.size(200, 5), 0))
        self.objective.fixed = True
        self.noise = Noise(0.1, torch.Generator(bench.device).manual_seed(0), bench.device, b)
        self.step = Step([self.network], self.objective, [], 2, self.optimizer, self.noise, None, None, bfloat16)
        self.run: Any = Recorder(self.step, CudaGraphs(bench.device), bench.device) if self.on_gpu else self.step

    def epoch(self, run: Any) -> None:
        """What the loop does in an epoch, without the schedule of the learning rate."""
        for number, (batch, (part,)) in enumerate(feed(self.objective.epoch(), [self.x], self.x.device)):
            run(Inputs(batch, part, None, 1.0, self.noise.draw(part, number)), Phase(1.0, True))


def step(bench: Bench) -> None:
    """A training step of the whole loop beside the network's own forward, backward and optimizer, both in a graph."""
    n, d, b = bench.size(70_000, 1000), 784, bench.size(4096, 128)
    x, graph = bench.normal(n, d), ring(n, 14, bench.device)
    nets = {"small": (32,)} if bench.small else {"default": DEFAULT_WIDTHS, "wide": WIDE}
    for (name, widths), bfloat16 in product(nets.items(), (True, False)):
        what = f"{name} network, B = {b}, {'bf16' if bfloat16 else 'float32'}"
        training = Trained(bench, x, graph, b, widths, bfloat16)
        per_epoch = training.objective.per_epoch
        took = bench.milliseconds(partial(training.epoch, training.run), 3) / per_epoch
        assert bool(training.step.total.isfinite()), "the loss is not finite"
        unrecorded = bench.milliseconds(partial(training.epoch, training.step), 2) / per_epoch
        other = Trained(bench, x, graph, b, widths, bfloat16)
        alone = recorded(bench, partial(network_step, other.network, other.optimizer, x[:b].clone(), bfloat16))
        network_took = bench.milliseconds(alone, 50)
        bench.note(
            f"step, {what}",
            milliseconds=took,
            in_a_graph=training.on_gpu and not training.run.refused,
            without_a_graph_milliseconds=unrecorded,
            network_alone_milliseconds=network_took,
            ours_over_network=took / network_took,
            rows_per_second=1e3 * b / took,
        )
        if training.on_gpu:
            bench.note(f"profile, {what}", **profiled(partial(training.epoch, training.run), per_epoch))
    eager_step(bench, x, b)


def network_step(network: nn.Module, optimizer: torch.optim.Optimizer, batch: torch.Tensor, bfloat16: bool) -> None:
    """The network's forward and backward pass under a loss that costs nothing, and the optimizer."""
    with torch.autocast(batch.device.type, dtype=torch.bfloat16, enabled=bfloat16):
        y = network(batch)
    descend([[*network.parameters()]], y.float().square().mean(), optimizer, None, None)


def eager_step(bench: Bench, x: torch.Tensor, b: int) -> None:
    """Plain eager training on batches of 256 rows, as the packages of today do it."""
    size = min(256, len(x))
    torch.manual_seed(0)
    network = MLP(x.shape[1], 2, (32,) if bench.small else DEFAULT_WIDTHS, "gelu").to(bench.device)
    optimizer = torch.optim.Adam(network.parameters())

    def one() -> None:
        part = x[torch.randint(len(x), (size,), device=bench.device)]
        p = torch.softmax(-torch.cdist(part, part).square() / 2, 1)
        loss = eager_student_t_kl(network(part), p / p.sum())
        descend([[*network.parameters()]], loss, optimizer, None, None)

    took = bench.milliseconds(one, 50)
    bench.note(f"eager step, B = {size}", milliseconds=took, rows_per_second=1e3 * size / took)


PARTS = (products, losses, dense_loss, rows, layers, step)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--seconds", type=float, default=200.0)
    parser.add_argument("--roofline", type=Path, help="what bench/roofline.cu printed")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print("bench/gpu.py needs a GPU that PyTorch sees; --device cpu --small tries the script itself")
        return 2
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    rates = json.loads(arguments.roofline.read_text()) if arguments.roofline else {}
    bench, failures, begin = Bench(arguments.device, arguments.small, rates), {}, time.perf_counter()
    machine = {
        "roofline": rates,
        "device": torch.cuda.get_device_name() if arguments.device == "cuda" else "cpu",
        "cuda": torch.version.cuda,
        "small": arguments.small,
        "build": fastpdr.build_info(),
    }
    for part in PARTS:
        if time.perf_counter() - begin > arguments.seconds:
            failures[part.__name__] = "left out: no time"
        else:
            try:
                part(bench)
            except Exception as error:
                failures[part.__name__] = f"{type(error).__name__}: {error}"
        if part.__name__ in failures:
            print(f"{part.__name__}: {failures[part.__name__]}")
        if arguments.json:  # after each part, so that what was found is kept
            arguments.json.parent.mkdir(parents=True, exist_ok=True)
            record = {"machine": machine, "results": bench.found, "failures": failures}
            arguments.json.write_text(json.dumps(record, indent=1) + "\n")
    return 1 if any(not reason.startswith("left out") for reason in failures.values()) else 0


if __name__ == "__main__":
    raise SystemExit(main())
