"""Ours and a competitor in turn in a fresh process, whose heap no other benchmark has touched.

How fast eager PyTorch's temporaries are depends on what the heap did before: ``default_malloc`` is a fresh process as
it comes, where glibc hands memory back and eager pays for fresh pages; ``kept_pages`` forbids that, which is eager at
its best.
"""

from __future__ import annotations

import importlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

KEPT_PAGES = {"MALLOC_TRIM_THRESHOLD_": "4000000000", "MALLOC_MMAP_THRESHOLD_": "4000000000"}
HEAPS: dict[str, dict[str, str]] = {"default_malloc": {}, "kept_pages": KEPT_PAGES}


def in_fresh_processes(contest: Callable[..., Any], arguments: list[Any], rounds: int, calls: int, threads: int) -> Any:
    """Medians in seconds by heap, and their ratio.

    Parameters
    ----------
    contest : function of a bench module
        Of ``arguments``, which JSON can hold; returns the two functions without arguments, ours and the competitor's.
    rounds : int
        Times that each is measured.
    calls : int
        Calls in a row, of which the last is measured: either with the caches as its own calls leave them.
        ``ours_first`` is the first call after the competitor, whose traffic has emptied them.
    threads : int
    """
    what = json.dumps([contest.__module__.rpartition(".")[2], contest.__name__, arguments, rounds, calls, threads])
    results = {}
    for heap, settings in HEAPS.items():
        path = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))
        environment = {**os.environ, **settings, "PYTHONPATH": path}
        command = [sys.executable, "-W", "ignore", __file__, what]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
        results[heap] = json.loads(done.stdout)
    return results


def alternate(ours: Callable[[], Any], theirs: Callable[[], Any], rounds: int, calls: int) -> dict[str, float]:
    """Medians of both, measured in turn."""
    times: dict[str, list[float]] = {"ours": [], "eager": [], "ours_first": []}
    for _ in range(rounds):
        for name, function in (("ours", ours), ("eager", theirs)):
            seconds = [seconds_of(function) for _ in range(calls)]
            times[name].append(seconds[-1])
            if name == "ours":
                times["ours_first"].append(seconds[0])
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {**medians, "ratio": medians["eager"] / medians["ours"]}


def seconds_of(function: Callable[[], Any]) -> float:
    """Wall time of one call."""
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def main(what: str) -> None:
    """Run one process's part and print the result as JSON."""
    module, name, arguments, rounds, calls, threads = json.loads(what)
    import torch

    torch.set_num_threads(threads)
    ours, theirs = getattr(importlib.import_module(module), name)(*arguments)
    print(json.dumps(alternate(ours, theirs, rounds, calls)))


if __name__ == "__main__":
    main(sys.argv[1])
