"""Write README.md's tables from the results that are committed: ``python -m bench.readme [--write]``.

Of benchmarks (``make bench``) a line is what was measured in turn in one process; of ``bench/quality`` the median of
the seeds, in one thread. What has no results yet has no line.
"""

from __future__ import annotations

import json
import statistics
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import click

from . import gpu_page, pages
from .quality.table import read

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench/results"
FILES = (
    "cpu-2-threads.json",
    "graph-cpu-2-threads.json",
    "judge-and-place-cpu-2-threads.json",
)  # a benchmark in two of them is that of the last
TIMES = "\N{MULTIPLICATION SIGN}"


class Contest(NamedTuple):
    """A line of the table of speed: what is done, the benchmark, and against whom."""

    title: str
    benchmark: str
    competitor: str


SPEED = [
    Contest("perplexities of 20,000 rows, 90 neighbours each", "test_neighbors_against_scikit_learn", "scikit-learn"),
    Contest("the same", "test_neighbors_against_opentsne", "openTSNE, 2 threads"),
    Contest("loss of t-SNE and its gradient, 1,000 rows", "test_dense_against_eager[1000-symmetric]", "eager PyTorch"),
    Contest("loss of UMAP and its gradient, 1,024 rows", "test_against_eager[1024-umap]", "eager PyTorch"),
    Contest("UMAP's fuzzy set, 60,000 rows", "test_fuzzy_set_against_umap", "umap-learn, compiled"),
    Contest(
        "trustworthiness, continuity and R_NX of 10,000 rows",
        "test_all_rows_against_scikit_learn",
        "scikit-learn's trustworthiness alone",
    ),
]

SETS = {"mnist": "MNIST", "fashion": "Fashion-MNIST", "letter": "Letter"}
QUALITY = {  # (method, changed) of the protocol "published": how the table calls it
    ("tsne", "preset=best"): '`ParametricTSNE(preset="best")`',
    ("umap", "preset=best"): '`ParametricUMAP(preset="best")`',
    ("tsne", "defaults"): "`ParametricTSNE()`",
    ("umap", "defaults"): "`ParametricUMAP()`",
    ("opentsne", "defaults"): "openTSNE, then `transform` (not parametric)",
    ("umap-learn", "defaults"): "umap-learn, then `transform` (not parametric)",
    ("pacmap", "defaults"): "PaCMAP, then `transform` (not parametric)",
    ("parametric-umap", "defaults"): "umap-learn's `ParametricUMAP`",
    ("contrastive-ne", "defaults"): "contrastive-ne, parametric",
}


def speed(results: Path = RESULTS) -> str:
    """The table of speed; empty where there are no benchmarks."""
    found: dict[str, Any] = {}
    for name in FILES:
        if (results / name).exists():
            content = json.loads((results / name).read_text(encoding="utf-8"))
            found |= {each["name"]: each["extra_info"] for each in content["benchmarks"]}
    lines = [
        [contest.title, f"**{_ratio(found[contest.benchmark]):.0f}{TIMES}** {contest.competitor}"]
        for contest in SPEED
        if contest.benchmark in found
    ]
    return pages.markdown(["on 2 threads", "faster than"], lines) if lines else ""


def _ratio(info: dict[str, Any]) -> float:
    return float(info.get("default_malloc", info)["ratio"])


def quality(results: Path = RESULTS) -> str:
    """The table of quality; empty where there are no runs."""
    rows = [row for row in read(results / "quality" / "published.csv") if row["threads"] == "1" and row["set"] in SETS]

    def key(row: dict[str, str]) -> tuple[str, str, str]:
        return row["method"], row["changed"], row["set"]

    runs = {place: list(group) for place, group in groupby(sorted(rows, key=key), key)}
    lines = []
    for (method, changed), title in QUALITY.items():
        cells = [_cell(runs.get((method, changed, name), [])) for name in SETS]
        if any(cells):
            lines.append([title, *cells])
    return pages.markdown(["mu of rows never seen, CPU s", *SETS.values()], lines) if lines else ""


def _cell(runs: list[dict[str, str]]) -> str:
    if not runs:
        return ""
    mu, seconds = (statistics.median(float(run[name]) for run in runs) for name in ("test_mu", "fit_cpu_s"))
    return f"{mu:.3f} in {seconds:.0f} s".replace("0.", ".", 1)


def text() -> str:
    """All tables."""
    return "\n\n".join(filter(None, [speed(), quality(), gpu_page.summary()]))


@click.command()
@click.option("--write", is_flag=True, help="Put the tables into README.md instead of printing them.")
def main(write: bool) -> None:
    """Show README.md's tables."""
    if write:
        pages.put(text(), ROOT / "README.md")
        click.echo("wrote README.md")
    else:
        click.echo(text())


if __name__ == "__main__":
    main(prog_name="python -m bench.readme")
