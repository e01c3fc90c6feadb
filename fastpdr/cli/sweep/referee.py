"""Begins the trials of a sweep, notes what they say, and keeps the best model as soon as there is one."""

from __future__ import annotations

import shutil
from typing import Any

from tqdm import tqdm

from fastpdr.cli.sweep import results
from fastpdr.cli.sweep.config import Sweep
from fastpdr.cli.sweep.ledger import Ledger, Record, Ticket
from fastpdr.cli.sweep.trial import Bench, Broken, Failed, Finished, Message, Pruned, Report, Saved


class Referee:
    """The one who writes.

    Parameters
    ----------
    sweep : Sweep
        What is searched.
    book : Ledger
        The trials so far.
    bench : Bench
        What trials work with.
    total : int
        Trials in all.
    """

    def __init__(self, sweep: Sweep, book: Ledger, bench: Bench, total: int) -> None:
        self.sweep, self.book, self.bench = sweep, book, bench
        done = len(book.counted)
        self.left = max(0, total - done)
        self.bar = tqdm(total=total, initial=min(done, total), desc="sweep", unit="trial", disable=None)

    def next_trial(self, values: dict[str, Any] | None = None) -> Ticket | None:
        """Begin the next trial that can be, with values from elsewhere if they are given."""
        while self.left > 0 and not self.reached:
            self.left -= 1
            ticket = self.book.begin(values)
            try:
                self.bench.share_graph(ticket.values)
            except OSError:
                raise
            except Exception as error:  # it can be as bad here as in the training
                self.answer(ticket, Failed(str(error)))
                if values is not None:
                    return None
            else:
                return ticket
        return None

    def answer(self, ticket: Ticket, message: Message) -> Any:
        """Note what a trial says, and answer.

        Raises
        ------
        OSError
            Something cannot be written.
        """
        folder = self.sweep.folder
        if isinstance(message, Report):
            return self.book.report(ticket, message.step, message.value)
        if isinstance(message, Broken):
            raise OSError(message.message)
        aside = folder / f"{results.ASIDE}{ticket.number}"
        if isinstance(message, Finished):
            if self.sweep.save_model and self._is_better(message.metrics):
                return aside
            self.book.complete(ticket, message.metrics)
        elif isinstance(message, Saved):
            if self._is_better(message.metrics):
                results.install_best(folder, aside)
            else:  # another one was, in the meantime
                shutil.rmtree(aside)
            self.book.complete(ticket, message.metrics)
        elif isinstance(message, Pruned):
            self.book.prune(ticket, message.message)
        else:
            self.book.fail(ticket, message.message)
        self._show(ticket.number)
        return None

    def close(self) -> None:
        """Leave the bar as it stands, and no trial running."""
        self.bar.close()
        self.book.interrupt_all()

    @property
    def reached(self) -> bool:
        """Whether the metric is as good as was asked for."""
        best, target = self._best(), self.sweep.target
        if best is None or target is None:
            return False
        value = best.metrics[self.sweep.metric]
        return value >= target if self.sweep.maximize else value <= target

    def _best(self) -> Record | None:
        return next(iter(self.book.ranked), None)

    def _is_better(self, metrics: dict[str, float]) -> bool:
        best, value = self._best(), metrics[self.sweep.metric]
        if best is None or value != value:
            return value == value
        before = best.metrics[self.sweep.metric]
        return value > before if self.sweep.maximize else value < before

    def _show(self, number: int) -> None:
        """Bring the table, the config of the best and the terminal up to date."""
        records, best = self.book.records, self._best()
        results.write_trials(self.sweep.folder, self.sweep, records)
        if best is not None and best.number == number:
            results.write_best_config(self.sweep.folder, self.sweep, best)
        record = next(record for record in records if record.number == number)
        tqdm.write(results.line(self.sweep, record, best))
        self.bar.update()
