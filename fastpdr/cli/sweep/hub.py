"""Weights & Biases: a run for every trial, and W&B's own search where there is a connection.

Without one (``WANDB_MODE=offline``) optuna searches, and ``wandb sync`` sends the runs later; all that is logged is the
same.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastpdr.cli.sweep.config import Sweep
from fastpdr.cli.sweep.referee import Referee
from fastpdr.cli.sweep.results import TRACKED
from fastpdr.cli.sweep.trial import Ask, Bench, Failed, Finished, Message, Pruned, Report
from fastpdr.tracking import WeightsAndBiases

SWEEP_ID = "wandb_sweep"  # of the study: where W&B's search goes on
PROJECT = "fastpdr-sweep"


@dataclass
class Hub:
    """Where runs go.

    Raises
    ------
    ImportError
        wandb is not installed.
    RuntimeError
        There is no login.
    """

    sweep: Sweep
    folder: Path
    online: bool = field(init=False)

    def __post_init__(self) -> None:
        # The variable first: settings are read once in a process.
        mode = os.environ.get("WANDB_MODE") or _wandb().setup().settings.mode
        self.online = mode in ("online", "run", "shared")
        if self.online:
            with _explained():
                _wandb().login()

    def run(self, bench: Bench, number: int, values: dict[str, Any], ask: Ask) -> None:
        """Run a trial as a run of its own."""
        of_sweep = self.sweep.wandb
        run = _wandb().init(
            entity=of_sweep.get("entity"),
            project=of_sweep.get("project", PROJECT),
            group=of_sweep.get("name", self.folder.name),
            name=f"trial-{number}",
            config=values,
            reinit="create_new",
            **self._files(),
        )
        follow(run, bench, values, ask)

    def search(self, referee: Referee) -> None:
        """Let W&B say which trials are run, until there are enough.

        Raises
        ------
        RuntimeError
            There is no connection.
        """
        wandb, study = _wandb(), referee.book.study
        place = {"entity": self.sweep.wandb.get("entity"), "project": self.sweep.wandb.get("project", PROJECT)}
        definition = {key: value for key, value in self.sweep.wandb.items() if key not in place}
        with _explained():
            identity = study.user_attrs.get(SWEEP_ID) or wandb.sweep(definition, **place)
            study.set_user_attr(SWEEP_ID, identity)
            with _interrupts():
                wandb.agent(identity, lambda: self._run_given(referee), **place, count=referee.left)

    def _run_given(self, referee: Referee) -> None:
        """Run the trial that W&B's agent has made a run for."""
        run = _wandb().init(**self._files())
        ticket = referee.next_trial(given_values(self.sweep, dict(run.config)))
        if ticket is None:  # it cannot be, or there are enough
            run.finish(exit_code=1)
            return

        def ask(message: Message) -> Any:
            # W&B's early termination throws a bare Exception into the thread of a trial.
            stopped = isinstance(message, Failed) and message.message == Exception.__name__
            return referee.answer(ticket, Pruned("stopped by W&B") if stopped else message)

        follow(run, referee.bench, ticket.values, ask)

    def _files(self) -> dict[str, Any]:
        folder = self.folder / TRACKED
        folder.mkdir(parents=True, exist_ok=True)
        return {"dir": folder.parent, "settings": _wandb().Settings(silent=True, console="off")}


def follow(run: Any, bench: Bench, values: dict[str, Any], ask: Ask) -> None:
    """Run a trial and log it: loss and rates of every epoch, the metric on the way, all measures at the end."""
    code = 0

    def log(message: Message) -> Any:
        nonlocal code
        if isinstance(message, Report):
            run.log({bench.sweep.metric: message.value})
        elif isinstance(message, Finished):
            run.log(message.metrics)
        elif isinstance(message, Pruned | Failed):
            code = int(isinstance(message, Failed))
            run.summary["message"] = message.message
        return ask(message)

    try:
        bench.run(values, log, [WeightsAndBiases(run=run)])
    except BaseException:
        code = 1
        raise
    finally:
        run.finish(exit_code=code)


def given_values(sweep: Sweep, config: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a trial from what W&B has drawn, in which nested parameters are nested."""
    values: dict[str, Any] = {}
    for name in sweep.space:
        if not sweep.applies(name, values):
            continue
        value: Any = config
        for part in [name] if name in config else name.split("."):
            value = value[part]
        values[name] = value
    return values


@contextmanager
def _interrupts() -> Iterator[None]:
    """Raise KeyboardInterrupt at the end if there was one: W&B's agent ends by it as if all were done."""
    noted = False

    def note(number: int, frame: Any) -> None:
        nonlocal noted
        noted = True
        signal.default_int_handler(number, frame)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if noted:
        raise KeyboardInterrupt


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except _wandb().Error as error:
        raise RuntimeError(f"--engine wandb: {error} Without a connection: WANDB_MODE=offline") from error


def _wandb() -> Any:
    try:
        import wandb
    except ImportError as error:
        raise ImportError("--engine wandb needs wandb: pip install 'fastpdr[wandb]'") from error
    return wandb
