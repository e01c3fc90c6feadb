"""Write the tables of docs/gpu.md from what a GPU left in bench/results: ``python -m bench.gpu_page [--write]``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from . import pages

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench/results/h200"
SETS = {
    "mnist": "MNIST, 60,000 rows of 784",
    "fashion": "Fashion-MNIST, 60,000 rows of 784",
    "glove": "GloVe, 321,479 rows of 100",
    "blobs": "blobs, 1,000,000 rows of 50",
}
METHODS = {"fastpdr-umap": "`ParametricUMAP()`", "fastpdr-tsne": "`ParametricTSNE()`"}
SHORT = {"fastpdr-umap": "UMAP", "fastpdr-tsne": "t-SNE"}
NEIGHBORS, TRAINING = " neighbours of ", ": training on "  # in the names of phases

Found = dict[str, Any]


def read(name: str, results: Path = RESULTS) -> Found:
    """A file of the results; empty where it is missing."""
    path = results / name
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def fits(results: Path = RESULTS) -> str:
    """Seconds of whole fits and of their longest phases, and what the maps of rows never seen are worth."""
    found, lines = read("fits.json", results).get("fits", {}), []
    for name, title in SETS.items():
        for method, called in SHORT.items():
            fit = found.get(f"{name} {method}", {})
            if "seconds" not in fit:
                continue
            took = [
                sum(seconds for phase, seconds in fit["phases"].items() if part in phase)
                for part in (NEIGHBORS, TRAINING)
            ]
            test = [fit.get("test", {}).get(figure) for figure in ("trust15", "knn10")]
            lines.append(
                [
                    title,
                    called,
                    f"**{fit['seconds']:.1f}**",
                    *(f"{seconds:.2f}" for seconds in took),
                    f"{fit['peak_gpu_megabytes'] / 1e3:.1f}",
                    *("" if figure is None else f"{figure:.3f}" for figure in test),
                ]
            )
    head = ["rows that train", "", "fit, s", "neighbours", "training", "GB", "trustworthiness", "10-NN"]
    return pages.markdown(head, lines) if lines else ""


def summary(results: Path = RESULTS) -> str:
    """A line a set: seconds of the whole fit by each method."""
    found, lines = read("fits.json", results).get("fits", {}), []
    for name, title in SETS.items():
        taken = [found.get(f"{name} {method}", {}).get("seconds") for method in METHODS]
        if any(taken):
            lines.append([title, *(f"{seconds:.1f} s" if seconds else "" for seconds in taken)])
    head = ["a whole fit on one NVIDIA H200", *METHODS.values()]
    return pages.markdown(head, lines) if lines else ""


def kernels(results: Path = RESULTS) -> str:
    """Milliseconds of the ops, how often their floor that is, and how often eager PyTorch's time is theirs."""
    lines = []
    for name, op in read("gpu.json", results).get("results", {}).items():
        if "milliseconds" not in op or name.startswith(("step", "eager")) or "product" in name:
            continue
        beside = op.get("eager_over_ours", op.get("modules_over_ours"))
        floor = op.get("times_the_floor")
        lines.append(
            [
                name.replace("_", r"\_"),
                f"{op['milliseconds']:.3g}",
                f"{floor:.2f}" if floor is not None and floor < 10 else "",
                f"{beside:.1f}" if beside is not None else "",
            ]
        )
    return pages.markdown(["op", "ms", "times its floor", "eager PyTorch's time over ours"], lines) if lines else ""


def steps(results: Path = RESULTS) -> str:
    """A training step in a CUDA graph, without one, and the network alone."""
    lines = []
    for name, step in read("gpu.json", results).get("results", {}).items():
        if name.startswith("step, "):
            lines.append(
                [
                    name.removeprefix("step, "),
                    f"{step['milliseconds']:.2f}",
                    f"{step['without_a_graph_milliseconds']:.2f}",
                    f"{step['network_alone_milliseconds']:.2f}",
                    f"{step['ours_over_network']:.2f}",
                    f"{step['rows_per_second'] / 1e6:.1f}",
                ]
            )
    head = ["", "step, ms", "without a graph, ms", "network alone, ms", "step over network", "million rows a second"]
    return pages.markdown(head, lines) if lines else ""


def text() -> str:
    """All tables."""
    return "\n\n".join(filter(None, [fits(), steps(), kernels()]))


@click.command()
@click.option("--write", is_flag=True, help="Put the tables into docs/gpu.md instead of printing them.")
def main(write: bool) -> None:
    """Show the tables of docs/gpu.md."""
    if write:
        pages.put(text(), ROOT / "docs/gpu.md")
        click.echo("wrote docs/gpu.md")
    else:
        click.echo(text())


if __name__ == "__main__":
    main(prog_name="python -m bench.gpu_page")
