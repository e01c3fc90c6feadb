"""How time and memory grow with the number of rows: one fit a size, from a float16 file of rows that is read in blocks.

    python -m bench.scale run --rows 10000 100000 1000000 5000000 [--method umap] [--epochs 1|full]
                              [--memory-limit 4GB]
    python -m bench.scale plot

The rows are those of GloVe (341,479 words, $FASTPDR_DATA/glove_341k.npz), drawn with replacement, with noise of 0.3
times each column's spread; where that file is missing, a mixture of 1,000 Gaussians, which the record says. A file is
written once for each size, block by block, and kept. Every fit has a process of its own. Its phases are those that the
package logs; a thread looks at the process's memory 50 times a second, anonymous pages and pages of files apart.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from bench.clock import logged, timed
from bench.quality.machine import ROOT, STATUS, commit, machine

OUTPUT = ROOT / "bench" / "results" / "scale"
METHODS = {"umap": "ParametricUMAP", "largevis": "ParametricLargeVis", "tsne": "ParametricTSNE"}
COLUMNS, NOISE, MIXTURE = 100, 0.3, 1000
ROWS_AT_ONCE = 1 << 16
JUDGED_ROWS, RANKED_ROWS = 1000, 20_000  # anchors of trustworthiness; rows that these rank
LOOKS_A_SECOND = 50
# What a phase's label holds -> its name here. What an estimator logs of itself is read, trained or placed.
PHASES = {
    "X read": "read",
    "neighbours of": "neighbours",
    "fuzzy set": "similarities",
    "similarities by": "similarities",
    "table of edges": "alias",
    ": training": "training",
    ": placing": "placing",
}
PARTS = tuple(dict.fromkeys(PHASES.values()))


def rows_of(n: int, folder: Path) -> tuple[Path, str]:
    """The file of n rows ``[n, 100]`` float16, written where it is not there yet, and what the rows are."""
    centres, spread, words = _centres()
    path = folder / f"{words.split()[0]}-{n}.npy"
    if path.exists():
        return path, words
    folder.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".part")
    rows, rng = open_memmap(aside, mode="w+", dtype=np.float16, shape=(n, COLUMNS)), np.random.default_rng(0)
    for begin in range(0, n, ROWS_AT_ONCE):
        m = min(ROWS_AT_ONCE, n - begin)
        noise = rng.standard_normal((m, COLUMNS), dtype=np.float32) * spread
        rows[begin : begin + m] = centres[rng.integers(len(centres), size=m)] + noise
    rows.flush()
    aside.replace(path)
    return path, words


def _centres() -> tuple[NDArray[Any], NDArray[Any], str]:
    """Rows to draw from [m, 100], the spread of the noise [100], and words for both."""
    file = Path(os.environ.get("FASTPDR_DATA", "")) / "glove_341k.npz"
    if os.environ.get("FASTPDR_DATA") and file.exists():
        rows = np.load(file)["X"]
        return rows, (NOISE * rows.std(axis=0, dtype=np.float32)).astype(np.float32), "glove rows with noise"
    rng = np.random.default_rng(1)
    return rng.standard_normal((MIXTURE, COLUMNS)), np.full(COLUMNS, NOISE, np.float32), "mixture of Gaussians"


class Memory:
    """The most memory that the process has had since the start, in MB, by kind; none where the system does not tell."""

    KINDS = ("RssAnon", "RssFile", "both")

    def __init__(self) -> None:
        self.most = dict.fromkeys(self.KINDS, 0)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def figures(self) -> dict[str, int]:
        """The peaks: of the system's own count since the process began, and of what was seen."""
        if not STATUS.exists():
            return {}
        seen = {"peak_anon_mb": "RssAnon", "peak_file_mb": "RssFile", "peak_seen_mb": "both"}
        return {"peak_mb": self._now()["VmHWM"] // 1024, **{key: self.most[kind] // 1024 for key, kind in seen.items()}}

    def _watch(self) -> None:
        while STATUS.exists() and not self._ended.wait(1 / LOOKS_A_SECOND):
            now = self._now()
            now["both"] = now["RssAnon"] + now["RssFile"]
            for kind in self.KINDS:
                self.most[kind] = max(self.most[kind], now[kind])

    @staticmethod
    def _now() -> dict[str, int]:
        lines = (line.partition(":") for line in STATUS.read_text().splitlines())
        return {name: int(size.split()[0]) for name, _, size in lines if name in ("VmHWM", "RssAnon", "RssFile")}


def phases_of(records: Iterable[logging.LogRecord]) -> dict[str, dict[str, float]]:
    """The seconds of the phases that were logged, by the names of ``PHASES``; other records are left."""
    seconds: dict[str, dict[str, float]] = {}
    for record in records:
        name = next((name for words, name in PHASES.items() if words in getattr(record, "phase", "")), None)
        if name is not None:
            part = seconds.setdefault(name, {"wall_s": 0.0, "cpu_s": 0.0})
            for clock in part:
                part[clock] += getattr(record, clock)
    return seconds


def measured(path: str, words: str, method: str, epochs: str, threads: int, memory_limit: str | None) -> dict[str, Any]:
    """Fit in this process and say what it took.

    Parameters
    ----------
    path, words : str
        The file of rows, and what they are.
    method : str
        A key of ``METHODS``.
    epochs : str
        A number, or "full" for the method's own.
    threads : int
        Of PyTorch.
    memory_limit : str, optional
        Of the estimator.

    Returns
    -------
    dict
        The record, for JSON.
    """
    import torch

    import fastpdr

    torch.set_num_threads(threads)
    X = np.load(path, mmap_mode="r")
    settings: dict[str, Any] = {"random_state": 0, "memory_limit": memory_limit}
    settings |= {} if epochs == "full" else {"n_epochs": int(epochs)}
    facts: dict[str, Any] = {}
    _watch_graphs(facts)
    with logged() as records, Memory() as memory:
        model, took = timed(lambda: getattr(fastpdr, METHODS[method])(**settings).fit(X))
        peaks = memory.figures()
    phases = phases_of(records)
    named = {key: sum(part[key] for part in phases.values()) for key in took}
    rest = {key: max(0.0, took[key] - named[key]) for key in took}
    return {
        "rows": words,
        "n": len(X),
        "d": X.shape[1],
        "k": facts.get("k"),
        "method": method,
        "epochs": len(model.loss_history_),
        "memory_limit": memory_limit,
        "machine": machine(),
        "threads": threads,
        "torch": torch.__version__,
        "commit": commit(),
        "fit": _rounded(took),
        "phases": {name: _rounded(phases[name]) for name in PARTS if name in phases} | {"rest": _rounded(rest)},
        **peaks,
        "file_mb": os.path.getsize(path) // 2**20,
        "graph_bytes": _bytes(model, facts),
        "recall": facts.get("recall"),
        "trustworthiness": round(_trustworthiness(X, model.embedding_), 4),
    }


def _watch_graphs(facts: dict[str, Any]) -> None:
    """Note of the graph of neighbours that a fit builds what the model, which does not keep it, cannot say."""
    from fastpdr import KNNGraph

    build = KNNGraph.build.__func__  # type: ignore[attr-defined]

    def noted(kind: type, *arguments: Any, **settings: Any) -> Any:
        graph = build(kind, *arguments, **settings)
        recall = graph.settings.get("recall", 1.0)  # the exact search measures none
        facts.update(k=graph.k, recall=recall, neighbours=graph.indices.nbytes + graph.distances.nbytes)
        return graph

    KNNGraph.build = classmethod(noted)  # type: ignore[assignment]


def _bytes(model: Any, facts: dict[str, Any]) -> dict[str, int]:
    """Of the neighbours; of the symmetric graph, of which the training holds a table beside indices and weights."""
    found = {"neighbours": facts["neighbours"]} if facts else {}
    edges = getattr(model, "graph_", None)
    if edges is not None:
        found |= {
            "indptr": edges.indptr.nbytes,
            "edges": edges.indices.nbytes + edges.data.nbytes,
            "table": 8 * edges.nnz,
        }
    return found


def _trustworthiness(X: NDArray[Any], Z: NDArray[Any]) -> float:
    """Among a random part of the rows, which may be too many to be ranked."""
    from fastpdr import metrics

    part = np.sort(np.random.default_rng(0).choice(len(X), min(len(X), RANKED_ROWS), replace=False))
    sample = min(len(part), JUDGED_ROWS)
    return metrics.trustworthiness(np.asarray(X[part], np.float32), Z[part], n_neighbors=15, sample=sample)


def _rounded(seconds: dict[str, float]) -> dict[str, float]:
    return {key: round(value, 3) for key, value in seconds.items()}


def run(sizes: list[int], folder: Path, output: Path, settings: dict[str, Any]) -> list[Path]:
    """Fit each size in a process of its own, with settings of :func:`measured`; return the files of the records."""
    output.mkdir(parents=True, exist_ok=True)
    variables = {"OMP_WAIT_POLICY": "passive", **os.environ, "OMP_NUM_THREADS": str(settings["threads"])}
    variables["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    written = []
    for n in sizes:
        path, words = rows_of(n, folder)
        record = output / f"{settings['method']}-{n}-{settings['epochs']}.json"
        arguments = {"path": str(path), "words": words, **settings}
        begin = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "bench.scale", "one", json.dumps(arguments), str(record)], env=variables, check=True
        )
        print(f"{n:,} rows: {time.perf_counter() - begin:.0f} s, {record}")
        written.append(record)
    return written


def records(output: Path) -> list[dict[str, Any]]:
    """All records, by method and epochs and then by size."""
    found = [json.loads(path.read_text()) for path in sorted(output.glob("*-*-*.json"))]
    return sorted(found, key=lambda record: (record["method"], record["epochs"], record["n"]))


def table(found: list[dict[str, Any]]) -> str:
    """The records in markdown."""
    lines = [
        "| method | rows | epochs | fit, min | " + " | ".join(f"{part}, CPU s" for part in PARTS) + " | rest, CPU s | "
        "peak, MB | anonymous, MB | file, MB | entries of the graph | bytes an entry | recall | trustworthiness |",
        "|" + "---|" * (len(PARTS) + 12),
    ]
    for record in found:
        parts = [f"{record['phases'].get(part, {}).get('cpu_s', 0.0):.1f}" for part in (*PARTS, "rest")]
        size = record["graph_bytes"]
        entries = size["table"] // 8 if "table" in size else 0
        each = f"{(size['edges'] + size['table']) / entries:.0f}" if entries else ""
        cells = [
            record["method"],
            f"{record['n']:,}",
            str(record["epochs"]),
            f"{record['fit']['wall_s'] / 60:.2f}",
            *parts,
            *(f"{record[key]:,}" if key in record else "" for key in ("peak_mb", "peak_anon_mb", "file_mb")),
            f"{entries:,}",
            each,
            "" if record["recall"] is None else f"{record['recall']:.3f}",
            f"{record['trustworthiness']:.3f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def plot(output: Path) -> None:
    """Draw time and memory over the number of rows into growth.png, and write the table growth.md."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    found = records(output)
    if not found:
        raise SystemExit(f"bench.scale: {output} must hold records, got none; make them by: python -m bench.scale run")
    figure, (times, memory) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    for method, epochs in dict.fromkeys((record["method"], record["epochs"]) for record in found):
        chosen = [record for record in found if (record["method"], record["epochs"]) == (method, epochs)]
        n = np.array([record["n"] for record in chosen], float)
        seconds = np.array([record["fit"]["cpu_s"] for record in chosen])
        line = times.loglog(n, seconds, "o-", label=f"{method}, epochs: {epochs}")[0]
        growth = n * np.log(n)
        times.loglog(n, growth * seconds[-1] / growth[-1], ":", color=line.get_color(), label="n log n")
        if all("peak_mb" in record for record in chosen):
            memory.loglog(n, [record["peak_mb"] for record in chosen], "o-", label=f"{method}, epochs: {epochs}, peak")
        bytes_of_graph = np.array([sum(record["graph_bytes"].values()) for record in chosen])
        memory.loglog(n, bytes_of_graph / 2**20, "s--", label="graph: neighbours, edges, table")
    memory.loglog(n, [record["file_mb"] or math.nan for record in chosen], "^:", label="rows on disk")
    times.set(xlabel="rows", ylabel="processor seconds of the fit")
    memory.set(xlabel="rows", ylabel="resident memory, MB")
    for axes in (times, memory):
        axes.grid(alpha=0.3, which="both")
        axes.legend(frameon=False)
    figure.savefig(output / "growth.png", dpi=130)
    plt.close(figure)
    (output / "growth.md").write_text(table(found))


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run", help="fit each size and write a record of each")
    running.add_argument("--rows", type=int, nargs="+", required=True, metavar="N", help="sizes")
    running.add_argument("--method", choices=sorted(METHODS), default="umap")
    running.add_argument("--epochs", default="full", help='a number, or "full" for the method\'s own (default)')
    running.add_argument(
        "--threads", type=int, default=os.cpu_count() or 1, help="of PyTorch (default: all processors)"
    )
    running.add_argument("--memory-limit", help="of the estimator, as 4GB; rows that do not fit are read by batch")
    running.add_argument(
        "--folder", type=Path, default=Path(tempfile.gettempdir()) / "fastpdr-scale", help="of the rows"
    )
    plotting = commands.add_parser("plot", help="draw all records, and write them as a table")
    for command in (running, plotting):
        command.add_argument("--output", type=Path, default=OUTPUT, help="folder of the records")
    one = commands.add_parser("one")  # what run starts
    one.add_argument("settings")
    one.add_argument("record", type=Path)
    given = parser.parse_args(arguments)
    if given.command == "run":
        if given.epochs != "full" and not given.epochs.isdigit():
            parser.error(f'--epochs must be a number or "full", got {given.epochs}')
        settings = {name: getattr(given, name) for name in ("method", "epochs", "threads", "memory_limit")}
        run(given.rows, given.folder, given.output, settings)
    elif given.command == "plot":
        plot(given.output)
    else:
        given.record.write_text(json.dumps(measured(**json.loads(given.settings)), indent=1) + "\n")


if __name__ == "__main__":
    main()
