"""fastpdr sweep: many trainings with parameters from a search space, judged on held-out rows; the best one is kept.

The folder of a sweep holds all of it: the study, from which the same command goes on, the graphs of neighbours that the
trials share, a table of the trials, the best model and its config.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
from pathlib import Path

import click
import numpy as np

from fastpdr.cli import data, learning, output, train
from fastpdr.cli.sweep import config, ledger, results, workers
from fastpdr.cli.sweep.config import Sweep
from fastpdr.cli.sweep.hub import Hub
from fastpdr.cli.sweep.ledger import Ledger
from fastpdr.cli.sweep.referee import Referee
from fastpdr.cli.sweep.sections import NEED_LABELS
from fastpdr.cli.sweep.trial import Bench

INTERRUPTED = 130  # the exit code of Ctrl-C


def run(
    path: Path,
    *,
    count: int | None = None,
    jobs: int = 1,
    engine: str = "optuna",
    seed: int | None = None,
    folder: Path | None = None,
    overwrite: bool = False,
    smoke_test: bool = False,
) -> None:
    """Search.

    Parameters
    ----------
    path : Path
        The file of the sweep.
    count : int, optional
        Trials in all, those of earlier calls among them; in place of the file's own.
    jobs : int
        Trials at a time, each in a process of its own.
    engine : {"optuna", "wandb"}
        Who searches. "wandb" without a connection (``WANDB_MODE=offline``) writes runs for W&B and searches by optuna.
    seed : int, optional
        Of the maps, the held-out rows and the search, in place of the file's.
    folder : Path, optional
        To write to, in place of the file's.
    overwrite : bool
        Begin anew where there is a sweep.
    smoke_test : bool
        Run one tiny trial in place of all, in a folder that is removed unless one is named.

    Raises
    ------
    ValueError
        The file, the data or an option is wrong, or the folder holds something else.
    RuntimeError
        Every trial failed.
    OSError
        Something cannot be written.
    ImportError
        A package is missing.
    click.exceptions.Exit
        Interrupted; what was finished is kept.
    """
    ledger.require()
    sweep = config.load(path, seed=seed, folder=folder)
    if smoke_test:
        _smoke_test(sweep, keep=folder is not None)
        return
    total = _total(sweep, count)
    hub = Hub(sweep, sweep.folder) if engine == "wandb" else None
    if hub is not None and hub.online and jobs > 1:
        raise ValueError("--jobs: W&B hands out one trial at a time; several run with WANDB_MODE=offline, or by optuna")
    _search(sweep, _read(sweep), total, jobs=jobs, hub=hub, overwrite=overwrite)


def _total(sweep: Sweep, count: int | None) -> int:
    wanted = count or sweep.count
    if sweep.method == "grid":
        return min(wanted or sweep.grid_size, sweep.grid_size)
    if wanted is None:
        raise ValueError("how many trials? --count says it, or run_cap in the file")
    return wanted


def _read(sweep: Sweep) -> data.Table:
    """Read the data and refuse what no trial could use."""
    first = sweep.config_of(config.first_values(sweep))
    table = train.read(first.data)
    data.require_finite(table)
    learning.held_out_rows(table, first.data.held_out, first.model.random_state)
    if sweep.metric in NEED_LABELS and learning.classes_of(table) is None:
        raise ValueError(f"metric.name: {sweep.metric} needs labels that are classes, which the data has not")
    return table


def _search(
    sweep: Sweep,
    table: data.Table,
    total: int,
    *,
    jobs: int = 1,
    hub: Hub | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> None:
    folder = sweep.folder
    results.refuse_foreign(folder)
    with output.writable_folder(folder), ledger.locked(folder):
        if overwrite:
            results.remove_own(folder)
        results.remove_asides(folder)
        definition = sweep.definition | {"rows": _fingerprint(table)}
        with ledger.opened(folder, sweep, definition) as book:
            bench = Bench(table, sweep, folder / results.GRAPHS, every_epoch=hub is not None and hub.online)
            referee = Referee(sweep, book, bench, total)
            interrupted = False
            try:
                _run_trials(referee, jobs, hub)
            except KeyboardInterrupt:
                interrupted = True
            finally:
                referee.close()
                results.remove_asides(folder)
            _conclude(sweep, book, total, interrupted=interrupted, quiet=quiet)


def _run_trials(referee: Referee, jobs: int, hub: Hub | None) -> None:
    if referee.left == 0:
        return
    if hub is not None and hub.online:
        hub.search(referee)
    elif jobs == 1:
        workers.run_here(referee.bench, referee, hub)
    else:
        workers.run_in_processes(referee.bench, referee, min(jobs, referee.left), hub)


def _conclude(sweep: Sweep, book: Ledger, total: int, *, interrupted: bool, quiet: bool) -> None:
    """Write the table, say what came out, and end as it did."""
    records, ranked = book.counted, book.ranked
    results.write_trials(sweep.folder, sweep, book.records)
    if not quiet:
        results.say(sweep.folder, sweep, records, ranked)
    if interrupted:
        kept = f"the best of them is in {sweep.folder}" if ranked else "no model is there yet"
        click.echo(
            f"\nInterrupted: {len(records)} of {total} trials are done, {kept}; the same command goes on", err=True
        )
        raise click.exceptions.Exit(INTERRUPTED)
    if not records:
        raise RuntimeError("no trial was run: W&B has handed out none, or its runs could not begin")
    if not ranked:
        raise RuntimeError(f"no trial of {len(records)} was completed; the last one: {records[-1].message}")


def _fingerprint(table: data.Table) -> str:
    """Tell data apart: what was found on other rows says nothing about these."""
    digest = hashlib.sha256(repr((table.X.shape, table.X.dtype.str)).encode())
    digest.update(np.ascontiguousarray(table.X).data)
    return digest.hexdigest()


def _smoke_test(sweep: Sweep, *, keep: bool) -> None:
    """Run one trial from the file's own sections on a few rows, and load what it leaves."""
    import fastpdr

    size = sweep.smoke_test
    if not size.enabled:
        raise ValueError("modes.smoke_test.enabled is false")
    start = time.perf_counter()
    folder = sweep.folder if keep else Path(tempfile.mkdtemp(prefix="fastpdr-sweep-"))
    try:
        tiny = config.tiny(sweep, folder)
        table = _read(tiny)
        rows = np.random.default_rng(0).permutation(len(table.X))[: size.sample_size]
        table = table.take(rows)
        _search(tiny, table, 1, quiet=not keep)
        Z = fastpdr.load(folder / results.BEST / "model").transform(table.rows)
        if len(Z) != len(rows) or not np.isfinite(Z).all():
            raise RuntimeError(f"smoke test: the model places {len(rows)} rows at {Z.shape} numbers, not all finite")
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
    seconds = time.perf_counter() - start
    click.echo(f"\nSmoke test passed: {len(rows)} rows, {size.iterations} epochs, in {seconds:.1f} s")
