"""The book of a sweep: an optuna study in an SQLite file, from which a sweep goes on after whatever has stopped it.

One process writes it and holds a lock on the folder. A trial that was running when that process died is told apart
from one that failed: it does not count, and another is run in its place.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from fastpdr.cli.sweep.config import Sweep
from fastpdr.cli.sweep.space import label

STUDY, LOCK = "study.db", ".lock"
DEFINITION, VALUES, METRICS, MESSAGE, POINT, INTERRUPTED = (
    "definition", "values", "metrics", "message", "point", "interrupted"
)  # fmt: skip
STARTUP_TRIALS, FIRST_COMPARED_TENTH = 5, 5  # of pruning by the median: extra components fade in the first half
BUSY_SECONDS = 60  # that SQLite waits for a reader to finish


@dataclass(frozen=True)
class Record:
    """What is known of a trial that has ended."""

    number: int
    state: str  # complete, pruned, failed, interrupted
    values: dict[str, Any]
    metrics: dict[str, float]
    message: str = ""


@dataclass(frozen=True)
class Ticket:
    """A trial that runs."""

    trial: Any  # optuna's
    values: dict[str, Any]

    @property
    def number(self) -> int:
        """As it is counted from 0."""
        return self.trial.number


class Ledger:
    """The trials of a sweep; made by :func:`opened`."""

    def __init__(self, study: Any, sweep: Sweep) -> None:
        self.study, self.sweep = study, sweep

    def begin(self, values: dict[str, Any] | None = None) -> Ticket:
        """Begin a trial, with values from elsewhere or those that the search takes next."""
        if values is None and self.sweep.method == "grid":
            self._enqueue_point()
        trial = self.study.ask()
        if values is None:
            values = self.sweep.draw(trial)
        trial.set_user_attr(VALUES, values)
        return Ticket(trial, values)

    def report(self, ticket: Ticket, step: int, value: float) -> bool:
        """Note the metric on the way, and tell whether to give the trial up."""
        ticket.trial.report(value, step)
        return ticket.trial.should_prune()

    def complete(self, ticket: Ticket, metrics: dict[str, float]) -> None:
        """End a trial with its measures."""
        if math.isnan(metrics[self.sweep.metric]):
            self.fail(ticket, f"{self.sweep.metric} is not defined for the held-out rows")
            return
        ticket.trial.set_user_attr(
            METRICS, {name: None if value != value else value for name, value in metrics.items()}
        )
        self.study.tell(ticket.trial, metrics[self.sweep.metric])

    def prune(self, ticket: Ticket, message: str) -> None:
        """End a trial that was given up."""
        from optuna.trial import TrialState

        ticket.trial.set_user_attr(MESSAGE, message)
        self.study.tell(ticket.trial, state=TrialState.PRUNED)

    def fail(self, ticket: Ticket, message: str) -> None:
        """End a trial that cannot be."""
        from optuna.trial import TrialState

        ticket.trial.set_user_attr(MESSAGE, message)
        self.study.tell(ticket.trial, state=TrialState.FAIL)

    def interrupt_all(self) -> None:
        """End the trials that are running, of which nothing will be heard any more."""
        from optuna.trial import Trial, TrialState

        for frozen in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING, TrialState.WAITING)):
            trial = self.study.ask() if frozen.state is TrialState.WAITING else Trial(self.study, frozen._trial_id)
            trial.set_user_attr(INTERRUPTED, True)
            self.study.tell(trial, state=TrialState.FAIL)

    @property
    def records(self) -> list[Record]:
        """All trials that have ended."""
        from optuna.trial import TrialState

        names = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
        records = []
        for trial in self.study.get_trials(deepcopy=False, states=tuple(names)):
            attributes = trial.user_attrs
            state = "interrupted" if INTERRUPTED in attributes else names[trial.state]
            metrics = {k: math.nan if v is None else v for k, v in attributes.get(METRICS, {}).items()}
            values, message = attributes.get(VALUES, {}), attributes.get(MESSAGE, "")
            records.append(Record(trial.number, state, values, metrics, message))
        return records

    @property
    def counted(self) -> list[Record]:
        """Those that count: an interrupted one is run again."""
        return [record for record in self.records if record.state != "interrupted"]

    @property
    def ranked(self) -> list[Record]:
        """The complete ones, best first."""
        sign = -1 if self.sweep.maximize else 1
        complete = [record for record in self.records if record.state == "complete"]
        return sorted(complete, key=lambda record: sign * record.metrics[self.sweep.metric])

    def _enqueue_point(self) -> None:
        """Have the next trial take the first point of the grid that no other has."""
        taken = {
            trial.user_attrs.get(POINT)
            for trial in self.study.get_trials(deepcopy=False)
            if INTERRUPTED not in trial.user_attrs
        }
        point, values = next((i, values) for i, values in enumerate(self.sweep.grid()) if i not in taken)
        self.study.enqueue_trial({name: label(value) for name, value in values.items()}, user_attrs={POINT: point})


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other sweeps out of a folder, which exists.

    Raises
    ------
    ValueError
        One is at work there.
    """
    import filelock

    try:
        lock = filelock.FileLock(folder / LOCK).acquire(blocking=False)
    except filelock.Timeout:
        raise ValueError(f"{folder}: another fastpdr sweep is at work there") from None
    with lock:
        yield


@contextmanager
def opened(folder: Path, sweep: Sweep, definition: dict[str, Any]) -> Iterator[Ledger]:
    """Open the book of a sweep, or begin one.

    Parameters
    ----------
    folder : Path
        Where it is, or will be; exists.
    sweep : Sweep
        What is searched.
    definition : dict
        What must be the same as when the book was begun.

    Yields
    ------
    Ledger

    Raises
    ------
    ValueError
        It is of another sweep.
    OSError
        It cannot be written, because the disk is full for example.
    """
    import optuna

    optuna.logging.set_verbosity(logging.WARNING)
    # What its connections report is raised as well: after Ctrl-C in a query it would be a traceback on the terminal.
    logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)
    storage = None
    try:
        storage = optuna.storages.RDBStorage(
            f"sqlite:///{folder.absolute() / STUDY}", engine_kwargs={"connect_args": {"timeout": BUSY_SECONDS}}
        )
        study = optuna.create_study(storage=storage, study_name="sweep", direction=sweep.direction, load_if_exists=True)
        ledger = Ledger(study, sweep)
        _check(folder, study, definition)
        ledger.interrupt_all()
        seed = sweep.fixed["model"].get("random_state", 0) + len(study.get_trials(deepcopy=False))
        study.sampler = _sampler(optuna, sweep, seed)
        study.pruner = _pruner(optuna, sweep)
        yield ledger
    except optuna.exceptions.StorageInternalError as error:
        cause: Any = error.__cause__
        raise OSError(f"{folder / STUDY}: {getattr(cause, 'orig', cause) or error}") from error
    finally:
        if storage is not None:
            storage.remove_session()
            storage.engine.dispose()


def require() -> None:
    """Say what to install where it is missing."""
    try:
        import filelock  # noqa: F401
        import optuna  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"fastpdr sweep needs {error.name}: pip install 'fastpdr[sweep]'") from error


def _check(folder: Path, study: Any, definition: dict[str, Any]) -> None:
    current = json.loads(json.dumps(definition, default=str))
    known = study.user_attrs.get(DEFINITION)
    if known is None:
        study.set_user_attr(DEFINITION, current)
        return
    changed = [key for key in {**known, **current} if known.get(key) != current.get(key)]
    if changed:
        details = [f"{key}: {detail}" for key in changed for detail in _differences(known.get(key), current.get(key))]
        shown = "\n  ".join(islice(details, 5))
        raise ValueError(
            f"{folder} holds a sweep of something else; --overwrite replaces it, another output.model_name keeps it.\n"
            f"  {shown}"
        )


def _differences(before: Any, now: Any) -> list[str]:
    if not isinstance(before, dict) or not isinstance(now, dict):
        return [f"was {before}, is {now}"]
    keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    return [f"{key} was {before.get(key, 'not there')}, is {now.get(key, 'not there')}" for key in keys]


def _sampler(optuna: Any, sweep: Sweep, seed: int) -> Any:
    if sweep.method == "bayes":
        return optuna.samplers.TPESampler(seed=seed)
    return optuna.samplers.RandomSampler(seed=seed)


def _pruner(optuna: Any, sweep: Sweep) -> Any:
    stop = sweep.early_terminate
    if stop is not None:
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=stop.first, reduction_factor=stop.factor)
    if sweep.prunes:
        return optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS, n_warmup_steps=FIRST_COMPARED_TENTH)
    return optuna.pruners.NopPruner()
