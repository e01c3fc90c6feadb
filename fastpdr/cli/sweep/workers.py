"""Where trials run: in this process, or several at a time in others; this one alone writes.

Other processes are started afresh (spawn), as CUDA and OpenMP want it, each with its share of the threads. One that
dies takes its trial with it, no more.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from typing import Any, Protocol

import torch

from fastpdr.cli.sweep.ledger import Ticket
from fastpdr.cli.sweep.trial import Ask, Bench, Failed, Finished, Message, Report

THREAD_SETTINGS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Referee(Protocol):
    """Whoever begins trials and hears what comes of them."""

    def next_trial(self) -> Ticket | None:
        """Begin the next trial, if there is one."""

    def answer(self, ticket: Ticket, message: Message) -> Any:
        """Note what a trial says, and answer."""


class Tracking(Protocol):
    """Whoever else looks at trials."""

    def run(self, bench: Bench, number: int, values: dict[str, Any], ask: Ask) -> None:
        """Run a trial on a bench, and look at it."""


def run_here(bench: Bench, referee: Referee, tracking: Tracking | None) -> None:
    """Run one trial after another."""
    while (ticket := referee.next_trial()) is not None:
        _run(bench, ticket.number, ticket.values, _asker(referee, ticket), tracking)


def run_in_processes(bench: Bench, referee: Referee, jobs: int, tracking: Tracking | None) -> None:
    """Run so many trials at a time, each in a process of its own."""
    threads = max(1, torch.get_num_threads() // jobs)
    workers: dict[Any, Any] = {}  # a process by the connection to it
    running: dict[Any, Ticket] = {}

    def hand_out(connection: Any) -> None:
        ticket = referee.next_trial()
        if ticket is not None:
            running[connection] = ticket
            _send(connection, (ticket.number, ticket.values))

    def start() -> Any:
        connection, process = _start(bench, threads, tracking)
        workers[connection] = process
        return connection

    try:
        for _ in range(jobs):
            hand_out(start())
        while running:
            ready: list[Any] = wait(list(running))
            for connection in ready:
                ticket = running[connection]
                try:
                    message = connection.recv()
                except (EOFError, OSError):
                    workers[connection].join()
                    message = Failed(f"its process died with code {workers[connection].exitcode}")
                answer = referee.answer(ticket, message)
                if isinstance(message, Report) or (isinstance(message, Finished) and answer is not None):
                    _send(connection, answer)
                    continue
                del running[connection]
                if workers[connection].is_alive():
                    _send(connection, answer)
                    hand_out(connection)
                else:
                    hand_out(start())
    finally:
        for process in workers.values():
            process.terminate()
        for process in workers.values():
            process.join()


def _run(bench: Bench, number: int, values: dict[str, Any], ask: Ask, tracking: Tracking | None) -> None:
    if tracking is None:
        bench.run(values, ask)
    else:
        tracking.run(bench, number, values, ask)


def _asker(referee: Referee, ticket: Ticket) -> Ask:
    return lambda message: referee.answer(ticket, message)


def _send(connection: Any, content: Any) -> None:
    with suppress(OSError):  # it has died, as the next look at it will tell
        connection.send(content)


def _start(bench: Bench, threads: int, tracking: Tracking | None) -> tuple[Any, Any]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, bench, threads, tracking), daemon=True)
    with _environment(dict.fromkeys(THREAD_SETTINGS, str(threads))):
        process.start()
    theirs.close()  # so that its end is seen here
    return ours, process


@contextmanager
def _environment(settings: dict[str, str]) -> Iterator[None]:
    """Set variables that libraries read when they are loaded."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _serve(connection: Any, bench: Bench, threads: int, tracking: Tracking | None) -> None:
    """Run what is handed out, in a process of its own, until nobody is there any more."""
    from fastpdr.cli import show_warning

    # Ctrl-C reaches all processes of a terminal; the one that hands out decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.showwarning = show_warning  # type: ignore[assignment]
    torch.set_num_threads(threads)

    def ask(message: Message) -> Any:
        connection.send(message)
        return connection.recv()

    with suppress(EOFError, OSError):
        while True:
            number, values = connection.recv()
            _run(bench, number, values, ask, tracking)
