"""One run: import, warm up on a few random rows, fit, place, judge; each timed on its own.

Seconds of the processor are those of all threads of this process. What is compiled at the first call, by numba or by
the libraries below PyTorch, is paid in the warm-up and reported as ``jit_cpu_s``: a first run in a fresh process costs
imports, that and the fit.
"""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

WARM_UP_ROWS = 500


def settle_threads(threads: int) -> None:
    """Bind all libraries to so many threads that sleep while they wait; before any of them is imported."""
    for library in ("OMP", "OPENBLAS", "MKL", "NUMBA", "TF_INTRAOP", "TF_INTEROP"):
        name = f"{library}_NUM_THREADS" if not library.startswith("TF") else f"TF_NUM_{library[3:]}_THREADS"
        os.environ[name] = str(threads)
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def run(method: str, name: str, protocol: str, seed: int, threads: int, changed: dict[str, Any]) -> dict[str, Any]:
    """Fit one method to one set and judge it.

    Parameters
    ----------
    method, name, protocol : str
        Keys of ``methods.METHODS``, ``sets.SOURCES`` and ``judge.MEASURES``.
    seed : int
        Of the method.
    threads : int
    changed : dict
        Parameters that differ from the method's defaults.

    Returns
    -------
    dict
        A row of the table.
    """
    from ..clock import timed
    from . import methods, sets

    chosen, importing = timed(lambda: methods.imported(method))
    import numpy as np
    import torch

    from .judge import judge

    data = sets.load(name, protocol)
    torch.set_num_threads(threads)
    few = np.random.default_rng(0).normal(size=(WARM_UP_ROWS, data.X.shape[1])).astype(np.float32)

    def warm_up() -> None:
        _, place = chosen.fit(few, seed, threads, **{**changed, **chosen.warm_up})
        place(few)

    _, compiling = timed(warm_up)
    (Z, place), fitting = timed(lambda: chosen.fit(data.X, seed, threads, **changed))
    Z_test, placing = timed(lambda: place(data.X_test))
    return {
        "set": name,
        "method": method,
        "changed": " ".join(f"{key}={value}" for key, value in sorted(changed.items())) or "defaults",
        "threads": threads,
        "machine": machine(),
        "seed": seed,
        "fit_cpu_s": round(fitting["cpu_s"], 2),
        "fit_wall_s": round(fitting["wall_s"], 2),
        "place_cpu_s": round(placing["cpu_s"], 2),
        "place_wall_s": round(placing["wall_s"], 2),
        "jit_cpu_s": round(compiling["cpu_s"], 2),
        "import_cpu_s": round(importing["cpu_s"], 2),
        **judge(protocol, data, Z, Z_test),
        "n_train": len(data.X),
        "n_test": len(data.X_test),
        "torch": torch.__version__,
        "commit": commit(),
    }


def machine() -> str:
    """The processor and the number of its cores that there are."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return f"{model or platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def commit() -> str:
    """The commit of the source, with a + where the source differs from it; results aside."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parents[2]), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!bench/results")
    return git("rev-parse", "--short=10", "HEAD") + ("+" if changed else "")
