"""One method on one set in a process of its own: a watched fit and its floors, as a record for JSON."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

from fastpdr._methods import METHODS

from ..clock import timed
from ..quality.machine import ROOT, commit, machine
from ..quality.run import THREADS, RunError

# What a set is here -> set and protocol of bench.quality, and whether the rows to judge by are trained on as well.
SETS = {
    "digits": ("digits", "published", False),
    "mnist-5k": ("mnist", "published", False),
    "mnist-60k": ("mnist", "scale", False),
    "glove": ("glove", "scale", True),
}
TITLES = {"tsne": "t-SNE", "mstsne": "multiscale t-SNE", "umap": "UMAP", "largevis": "LargeVis"}
IMPORTS, TURNS = 3, 8
IMPORTING = """
import time
begin = time.perf_counter()
import torch
between = time.perf_counter()
import fastpdr
print(between - begin, time.perf_counter() - between)
"""


def fit(method: str, name: str, threads: int, steps: int) -> dict[str, Any]:
    """Fit in this process on the CPU, all but the training in full.

    Parameters
    ----------
    method, name : str
        Short name of an estimator, and a key of ``SETS``.
    threads : int
        Of PyTorch.
    steps : int
        That are measured.

    Returns
    -------
    dict
        Seconds and floors of the phases, milliseconds and floors of the parts of a step, rates, and what they are of.
    """
    import torch

    import fastpdr

    from . import floors
    from .parts import NAMES, REST, WatchedFit
    from .stopwatch import seconds_per_call

    torch.set_num_threads(threads)
    X, loading = timed(lambda: _rows(name))
    estimator, watched = getattr(fastpdr, METHODS[method])(random_state=0, device="cpu"), WatchedFit(steps)
    with watched.phases.part("other"):
        watched.fit(estimator, X)
    taken = watched.phases.lap()
    (n, d), b, count = X.shape, round(watched.rows / watched.measured), watched.measured
    training = watched.settings.n_epochs * watched.objective.per_epoch
    least = floors.of_step(watched, b)
    of_phases = {
        **floors.of_phases(watched, n, d, estimator._count_neighbors(n)),
        "training": training * sum(value for value in least.values() if value is not None),
    }
    step_s = watched.wall / count
    seconds = {"load": loading["wall_s"], **taken, "training": training * step_s}
    order = ("load", "validate", "scale", "neighbours", "affinities", "training", "map", "other")
    widths, dtype = floors.layers(watched.encoder), torch.bfloat16 if watched.settings.bfloat16 else torch.float32
    products = [floors.product(b, k, m, dtype, "nt") for k, m in widths]
    return {
        "method": method,
        "set": name,
        "n": n,
        "d": d,
        "columns": watched.inputs.shape[1],
        "rows_of_a_batch": b,
        "parameters": sum(p.numel() for p in watched.encoder.parameters()),
        "precision": "bfloat16" if watched.settings.bfloat16 else "float32",
        "steps": training,
        "measured_steps": count,
        "phases": {key: _cell(seconds[key], of_phases.get(key), "s", 1) for key in order if key in seconds},
        "step": {
            key: _cell(watched.parts[key] / count, least.get(key), "ms", 1000)
            for key in (*NAMES, REST)
            if key in watched.parts
        },
        "step_ms": round(1000 * step_s, 4),
        "network_ms": round(1000 * watched.network_s, 4),
        "stopwatch_ms": round(1000 * seconds_per_call() * watched.calls / count, 4),
        "rates": {
            "memory_gb_s": round(floors.bytes_a_second(floors.MOST_BYTES) / 1e9, 1),
            "float32_gflop_s": round(floors.peak() / 1e9),
            "bfloat16_gflop_s": round(floors.peak(torch.bfloat16) / 1e9),
            "network_gflop_s": round(floors.operations(widths, b)[0] / sum(products) / 1e9),
        },
    }


def _rows(name: str) -> Any:
    import numpy as np

    from ..quality import sets

    source, protocol, whole = SETS[name]
    data = sets.load(source, protocol)
    return np.concatenate([data.X, data.X_test]) if whole else data.X


def _cell(seconds: float, floor: float | None, unit: str, factor: int) -> dict[str, float | None]:
    return {unit: round(factor * seconds, 4), "floor": None if floor is None else float(f"{factor * floor:.3g}")}


def against(method: str, precision: str, threads: int) -> dict[str, Any]:
    """A step against the network alone, by medians in milliseconds, in this process."""
    import torch

    import fastpdr

    from .network import BATCH, HIDDEN, against_network, wide_rows

    torch.set_num_threads(threads)
    found = against_network(getattr(fastpdr, METHODS[method]), wide_rows(), precision, TURNS).medians()
    return {
        "method": method,
        "precision": precision,
        "hidden_dims": HIDDEN,
        "batch_size": BATCH,
        **{f"{key}_ms": round(1000 * value, 4) for key, value in found.items()},
        "ratio": round(found["step"] / found["network"], 4),
    }


def imports(threads: int) -> dict[str, float]:
    """Seconds to import PyTorch, and then fastpdr, in a fresh process; medians."""
    each = []
    for _ in range(IMPORTS):
        done = subprocess.run(
            [sys.executable, "-c", IMPORTING], env=_environment(threads), stdout=subprocess.PIPE, text=True, check=True
        )
        each.append([float(word) for word in done.stdout.split()])
    both = zip(*each, strict=True)
    return {
        name: round(statistics.median(values), 3)
        for name, values in zip(("import torch", "import fastpdr"), both, strict=True)
    }


def circumstances(threads: int) -> dict[str, Any]:
    """What all figures of a file depend on."""
    import torch

    return {"machine": machine(), "threads": threads, "torch": torch.__version__, "commit": commit()}


def in_fresh_process(what: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Do :func:`fit` or :func:`against` where nothing is imported and the heap is new.

    Raises
    ------
    RunError
        With what happened there in one line.
    """
    with tempfile.TemporaryDirectory() as folder:
        outcome = Path(folder) / "outcome.json"
        command = [sys.executable, "-m", "bench.breakdown.measure", what, json.dumps(arguments), str(outcome)]
        ended = subprocess.run(command, env=_environment(arguments["threads"]))
        if ended.returncode or not outcome.exists():
            raise RunError(f"the process ended with exit code {ended.returncode}")
        return json.loads(outcome.read_text())


def _environment(threads: int) -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    variables = {**dict.fromkeys(THREADS, str(threads)), "PYTHONPATH": path}
    return {**os.environ, **variables}


def main(what: str, arguments: str, outcome: str) -> None:
    """Measure, and leave the record in a file."""
    warnings.filterwarnings("ignore")
    record = {"fit": fit, "against": against}[what](**json.loads(arguments))
    Path(outcome).write_text(json.dumps(record))


if __name__ == "__main__":
    main(*sys.argv[1:])
