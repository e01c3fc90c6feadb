"""What tells people how far a long work is: bars of progress, and a line of the log when a part of it is done."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm.auto import tqdm

LOG = logging.getLogger("fastpdr")
DELAY = 0.5  # seconds, before which no bar appears


class _NoBar:
    """What is told and shows nothing: one of tqdm's that is switched off takes a tenth of placing a few rows."""

    def __enter__(self) -> _NoBar:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def update(self, count: int) -> None:
        """Take note of nothing."""


def progress(label: str, total: int | None, *, shown: bool = True) -> Any:
    """Return a bar over rows, to be used in a with statement and told ``update(count)``.

    It goes when the work is done, and never comes where the work is short, where stderr is no terminal (a notebook has
    a bar of its own), or where ``shown`` is false.
    """
    if not shown:
        return _NoBar()
    return tqdm(total=total, desc=label, unit="row", disable=None, leave=False, delay=DELAY, dynamic_ncols=True)


@contextmanager
def phase(label: str) -> Iterator[None]:
    """Log how long a part of the work took; the record has ``phase``, ``wall_s`` and ``cpu_s`` (of all threads)."""
    start, processor = time.perf_counter(), time.process_time()
    yield
    took = {"phase": label, "wall_s": time.perf_counter() - start, "cpu_s": time.process_time() - processor}
    LOG.info("%s: %.2f s", label, took["wall_s"], extra=took)
