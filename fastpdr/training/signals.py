"""SIGTERM and Ctrl-C during a training: noted, so that it can end between two steps, with a checkpoint."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Signals:
    """What was asked for while :meth:`noted` was open.

    Attributes
    ----------
    pending : signal.Signals or None
        The signal that came.
    """

    def __init__(self) -> None:
        self.pending: signal.Signals | None = None
        self._before: dict[int, Any] = {}

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note signals in place of ending at once; a second one acts as ever, and what is ignored stays so.

        Nothing is noted elsewhere than in the main thread, to which Python gives signals.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        self._before = {number: found for number, found in handlers.items() if found not in (None, signal.SIG_IGN)}
        for number in self._before:
            signal.signal(number, self._note)
        try:
            yield
        finally:
            for number, handler in self._before.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: Any) -> None:
        self.pending = signal.Signals(number)
        signal.signal(number, self._before[number])

    def end(self) -> None:
        """End as the signal would have: KeyboardInterrupt, or SystemExit with code 143; nothing if none came."""
        if self.pending == signal.SIGINT:
            raise KeyboardInterrupt
        if self.pending is not None:
            raise SystemExit(128 + self.pending)
