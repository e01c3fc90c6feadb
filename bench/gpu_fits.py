"""Whole fits on a GPU: time of every phase, memory, the same bits from the same seed, and TorchDR beside.

    python bench/gpu_fits.py run [--set mnist] ... [--seconds 200] --output FOLDER
    python bench/gpu_fits.py judge FOLDER

``run`` needs the GPU, and ``$FASTPDR_DATA`` for all sets but ``blobs``; it writes ``fits.json`` and the maps. ``judge``
adds the figures of ``bench/quality`` to it, on any machine. What the seconds do not suffice for is left out and named.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray

import fastpdr
from bench.clock import logged
from bench.quality import sets
from bench.quality.judge import scale
from fastpdr import ParametricTSNE, ParametricUMAP
from fastpdr.metrics import knn_accuracy

BLOBS = (1_000_000, 50)  # rows and columns of the set that is made, not read
JUDGED = 10_000  # rows of it to judge by
PAIRWISE = 100_000  # rows whose distances to each other TorchDR holds at once, without another package
SETS = ("mnist", "fashion", "glove", "blobs")
OURS = {"umap": ParametricUMAP, "tsne": ParametricTSNE}
PEERS = ("umap", "largevis")
Record = dict[str, Any]


def load(name: str) -> sets.Split:
    """The split of ``bench/quality``; blobs are drawn."""
    if name != "blobs":
        return sets.load(name, "scale")
    from sklearn.datasets import make_blobs

    n, d = BLOBS
    X, y = make_blobs(n + JUDGED, d, centers=100, cluster_std=4.0, random_state=0)
    X = X.astype(np.float32)
    return sets.Split(X[:n], y[:n], X[n:], y[n:])


def measured(work: Callable[[], Any]) -> tuple[Any, Record]:
    """The result of work, its seconds in all and by phase, and the most memory that it took on the GPU."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    with logged() as records:
        begin = time.perf_counter()
        result = work()
        torch.cuda.synchronize()
        took = time.perf_counter() - begin
    phases: dict[str, float] = {}
    for record in records:
        if hasattr(record, "phase"):
            phases[record.phase] = phases.get(record.phase, 0.0) + record.wall_s
    return result, {
        "seconds": took,
        "phases": phases,
        "said": [record.getMessage() for record in records if not hasattr(record, "phase")],
        "peak_gpu_megabytes": torch.cuda.max_memory_allocated() / 1e6,
    }


def ours(method: str, data: sets.Split, twice: bool) -> tuple[Record, dict[str, NDArray]]:
    """A fit with default parameters, and the test rows placed."""
    model = OURS[method](device="cuda", random_state=0)
    Z, record = measured(lambda: model.fit_transform(data.X))
    Z_test, placed = measured(lambda: model.transform(data.X_test))
    record |= {"placing_seconds": placed["seconds"], "epochs": model.n_iter_}
    if twice:
        again, second = measured(lambda: OURS[method](device="cuda", random_state=0).fit_transform(data.X))
        record |= {"same_bits_again": bool(np.array_equal(Z, again)), "seconds_again": second["seconds"]}
    return record, {"train": Z, "test": Z_test}


def torchdr(method: str, data: sets.Split) -> tuple[Record, dict[str, NDArray]]:
    """The peer, which places no new rows."""
    import torchdr

    peer = {"umap": torchdr.UMAP, "largevis": torchdr.LargeVis}[method]
    X = torch.from_numpy(data.X)
    Z, record = measured(lambda: peer(device="cuda", backend=None, random_state=0).fit_transform(X))
    return record | {"version": torchdr.__version__}, {"train": Z.detach().cpu().numpy()}


@click.group()
def main() -> None:
    """Whole fits on a GPU."""


@main.command()
@click.option("--set", "names", type=click.Choice(SETS), multiple=True, default=SETS, show_default=True)
@click.option("--seconds", type=float, default=200.0, show_default=True, help="After which nothing new is begun.")
@click.option("--output", type=click.Path(path_type=Path, file_okay=False), required=True)
def run(names: tuple[str, ...], seconds: float, output: Path) -> None:
    """Fit, and keep times and maps."""
    output.mkdir(parents=True, exist_ok=True)
    begin, found, device = time.perf_counter(), {}, torch.cuda.get_device_name()
    measured(lambda: ParametricUMAP(device="cuda", n_epochs=1).fit(np.random.default_rng(0).random((500, 8))))
    for name in names:
        data = load(name)
        jobs: dict[str, Callable[[], Any]] = {
            f"fastpdr-{method}": partial(ours, method, data, name == "mnist") for method in OURS
        }
        if len(data.X) <= PAIRWISE:
            jobs |= {f"torchdr-{method}": partial(torchdr, method, data) for method in PEERS}
        for method, job in jobs.items():
            key = f"{name} {method}"
            if time.perf_counter() - begin > seconds:
                found[key] = {"left_out": "no time"}
            else:
                try:
                    found[key], maps = job()
                    np.savez(output / f"{name}-{method}.npz", **maps)
                except Exception as error:
                    found[key] = {"failed": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
            print(key, json.dumps(found[key]), flush=True)
            write(output, {"device": device, "build": fastpdr.build_info(), "fits": found})


@main.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False, exists=True))
def judge(folder: Path) -> None:
    """Add what the maps are worth."""
    record = json.loads((folder / "fits.json").read_text())
    for name in SETS:
        files = sorted(folder.glob(f"{name}-*.npz"))
        data = load(name) if files else None
        for file in files:
            fit = record["fits"][f"{name} {file.stem.removeprefix(f'{name}-')}"]
            with np.load(file) as maps:
                Z, Z_test = maps["train"], maps.get("test")
            fit["train"] = scale(data.X, Z, data.y)
            if Z_test is not None:
                fit["test"] = scale(data.X_test, Z_test, data.y_test)
                if data.y is not None:
                    fit["transfer_knn10"] = knn_accuracy(Z, data.y, Z_test, data.y_test, n_neighbors=10)
            print(file.stem, json.dumps({part: fit.get(part) for part in ("train", "test", "transfer_knn10")}))
    write(folder, record)


def write(folder: Path, record: Record) -> None:
    (folder / "fits.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
