"""One run in a process of its own: import, warm up, fit, place, judge; each timed apart.

Seconds of the processor are those of all threads. Everything that the method does with the rows is in ``fit_cpu_s``,
the search for neighbours too. What is compiled at a first call, by numba or by the libraries below PyTorch, is paid by
a warm-up on random rows (``jit_cpu_s``): a first fit in a fresh process costs imports, that and the fit.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

from ..clock import timed
from . import methods
from .machine import ROOT, PeakMemory, commit, machine

WARM_UP_ROWS = 1000
THREADS = [f"{library}_NUM_THREADS" for library in ("OMP", "OPENBLAS", "MKL", "NUMBA")]
THREADS += ["TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"]


class InputError(ValueError):
    """The method refused its parameters."""


class RunError(Exception):
    """A run came to no result."""


def run(method: str, name: str, protocol: str, seed: int, threads: int, changed: dict[str, Any]) -> dict[str, Any]:
    """Fit one method to one set and judge it, in this process.

    Parameters
    ----------
    method, name, protocol : str
        Keys of ``methods.METHODS``, ``sets.SOURCES`` and ``table.COLUMNS``.
    seed : int
        Of the method.
    threads : int
        Of PyTorch; :func:`in_fresh_process` binds the other libraries.
    changed : dict
        Parameters that differ from the method's defaults.

    Returns
    -------
    dict
        A row of the table: key, seconds, figures, and where they are from.

    Raises
    ------
    methods.NotInstalledError, InputError, FloatingPointError
    """
    chosen, importing = timed(lambda: methods.imported(method))
    import numpy as np
    import torch

    from . import sets
    from .judge import judge

    torch.set_num_threads(threads)
    data = sets.load(name, protocol)
    few = np.random.default_rng(0).normal(size=(WARM_UP_ROWS, data.X.shape[1])).astype(np.float32)

    def warm_up() -> None:
        _, place = chosen.fit(few, seed, threads, **{**changed, **chosen.warm_up})
        place(few)

    try:
        _, compiling = timed(warm_up)
    except (TypeError, ValueError) as error:
        raise InputError(str(error)) from error
    memory = PeakMemory()
    (Z, place), fitting = timed(lambda: chosen.fit(data.X, seed, threads, **changed))
    peak = memory.mb()
    Z_test, placing = timed(lambda: place(data.X_test))
    figures = judge(protocol, data, Z, Z_test)
    return {
        "set": name,
        "method": method,
        "changed": written(changed),
        "threads": threads,
        "machine": machine(),
        "seed": seed,
        "fit_cpu_s": round(fitting["cpu_s"], 2),
        "fit_wall_s": round(fitting["wall_s"], 2),
        "place_cpu_s": round(placing["cpu_s"], 2),
        "place_wall_s": round(placing["wall_s"], 2),
        "jit_cpu_s": round(compiling["cpu_s"], 2),
        "import_cpu_s": round(importing["cpu_s"], 2),
        "peak_mb": peak,
        **{key: None if value is None else round(float(value), 5) for key, value in figures.items()},
        "n_train": len(data.X),
        "n_test": len(data.X_test),
        "version": chosen.version(),
        "torch": torch.__version__,
        "commit": commit(),
    }


def written(changed: dict[str, Any]) -> str:
    """Parameters as one writes them after ``--param``, in order of their names."""

    def text(value: Any) -> str:
        return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))

    return " ".join(f"{key}={text(value)}" for key, value in sorted(changed.items())) or "defaults"


def in_fresh_process(arguments: dict[str, Any], debug: bool = False) -> dict[str, Any]:
    """Do :func:`run` where nothing is imported or compiled yet and all libraries are bound to ``threads``.

    Parameters
    ----------
    arguments : dict
        Those of :func:`run`.
    debug : bool
        Let the process print the traceback of an error.

    Returns
    -------
    dict
        The row.

    Raises
    ------
    methods.NotInstalledError, InputError, RunError
        With what happened there in one line.
    """
    variables = dict.fromkeys(THREADS, str(arguments["threads"]))
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    # A thread that spins while it waits would be counted as work.
    environment = {"OMP_WAIT_POLICY": "passive", **os.environ, **variables, "PYTHONPATH": path}
    with tempfile.TemporaryDirectory() as folder:
        outcome = Path(folder) / "outcome.json"
        command = [sys.executable, "-m", "bench.quality.run", json.dumps(arguments), str(outcome)]
        ended = subprocess.run([*command, "debug"] if debug else command, env=environment)
        if not outcome.exists():
            raise RunError(f"the process ended with exit code {ended.returncode}")
        kind, content = json.loads(outcome.read_text())
    errors: dict[str, type[Exception]] = {"skipped": methods.NotInstalledError, "refused": InputError}
    if kind != "row":
        raise errors.get(kind, RunError)(content)
    return content


def main(arguments: str, outcome: str, *debug: str) -> None:
    """Run, and leave in a file what came of it: (kind, row or message)."""
    warnings.filterwarnings("ignore")
    result: tuple[str, Any]
    try:
        result = "row", run(**json.loads(arguments))
    except methods.NotInstalledError as error:
        result = "skipped", str(error)
    except InputError as error:
        result = "refused", str(error)
    except Exception as error:
        if debug:
            raise
        result = "failed", f"{type(error).__name__}: {error}"
    Path(outcome).write_text(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
