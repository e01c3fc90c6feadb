"""Neighbour graphs that the trials of a sweep share: searched for once, wide enough for all, kept beside the study."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from fastpdr.graph import KNNGraph

LOG = logging.getLogger("fastpdr")


@dataclass(frozen=True)
class Needed:
    """A graph that a trial asks for; those of one key are of the same rows and the same metric."""

    key: str
    metric: str
    k: int
    widest: int  # that any trial of the sweep asks for
    n_jobs: int | None
    seed: int


class Graphs:
    """The graphs of a sweep in a folder; one process searches, others load."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._latest: tuple[str, KNNGraph] | None = None

    def of(self, needed: Needed, rows: Any) -> KNNGraph:
        """Return a graph, from memory, from its file, or by a search among the rows ``[n, d]`` it is of."""
        graph = self._known(needed.key)
        if graph is None or graph.k < needed.k:
            graph = self._build(needed, rows)
        self._latest = needed.key, graph
        return graph

    def _known(self, key: str) -> KNNGraph | None:
        if self._latest is not None and self._latest[0] == key:
            return self._latest[1]
        path = self._path(key)
        if not path.exists():
            return None
        graph = KNNGraph.load(path)
        LOG.info("sweep: %s neighbours of each of %s rows are those in %s", graph.k, graph.n, path)
        return graph

    def _build(self, needed: Needed, rows: Any) -> KNNGraph:
        start = time.perf_counter()
        graph = KNNGraph.build(
            rows, needed.widest, metric=needed.metric, n_jobs=needed.n_jobs, random_state=needed.seed
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self._path(needed.key)
        graph.save(path)
        seconds = time.perf_counter() - start
        tqdm.write(f"{graph.k} neighbours of each of {graph.n} rows, found once for all trials in {seconds:.1f} s")
        return graph

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.npz"
