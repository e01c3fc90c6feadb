"""Seconds by part, where a part that runs within another takes its time away from it.

What is measured knows nothing of it: functions are replaced from outside, and put back.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any
from unittest import mock

Replacement = tuple[Any, str, Callable[..., Any]]  # owner, name, new from old
CALIBRATED_CALLS = 20_000


class Stopwatch:
    """At every moment the innermost of the parts that run is the one whose time passes.

    Other threads than the one that made it are not looked at: where somebody waits for them, the part that waits has
    the time.

    Attributes
    ----------
    seconds : dict of str to float
        The own time of each part.
    calls : int
        Times that a part has begun.
    """

    def __init__(self) -> None:
        self._open: list[str] = []
        self._thread = threading.get_ident()
        self.clear()

    def clear(self) -> None:
        """Forget what was measured; parts that run go on."""
        self.seconds: dict[str, float] = defaultdict(float)
        self.calls = 0
        self._last = time.perf_counter()

    def lap(self) -> dict[str, float]:
        """Seconds up to now of all parts, those that still run included."""
        self._pass()
        return dict(self.seconds)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Run what stands within as this part."""
        if threading.get_ident() != self._thread:
            yield
            return
        self._pass()
        self._open.append(name)
        self.calls += 1
        try:
            yield
        finally:
            self._pass()
            self._open.pop()

    def called(self, name: str) -> Callable[..., Any]:
        """What makes of a function one whose calls are this part."""

        def watched(function: Callable[..., Any]) -> Callable[..., Any]:
            @wraps(function)
            def call(*arguments: Any, **settings: Any) -> Any:
                with self.part(name):
                    return function(*arguments, **settings)

            return call

        return watched

    def iterated(self, name: str) -> Callable[..., Any]:
        """What makes of a generator function one whose generators work as this part, and rest as none."""

        def watched(function: Callable[..., Any]) -> Callable[..., Any]:
            @wraps(function)
            def generate(*arguments: Any, **settings: Any) -> Iterator[Any]:
                inner, end = iter(function(*arguments, **settings)), object()
                while True:
                    with self.part(name):
                        value = next(inner, end)
                    if value is end:
                        return
                    yield value

            return generate

        return watched

    def _pass(self) -> None:
        now = time.perf_counter()
        if self._open:
            self.seconds[self._open[-1]] += now - self._last
        self._last = now


@contextmanager
def replaced(replacements: list[Replacement]) -> Iterator[None]:
    """Replace attributes of classes and modules by what is made of them, for the time within."""
    with ExitStack() as stack:
        for owner, name, change in replacements:
            old = vars(owner)[name]
            new = classmethod(change(old.__func__)) if isinstance(old, classmethod) else change(old)
            stack.enter_context(mock.patch.object(owner, name, new))
        yield


def seconds_per_call() -> float:
    """What one watched call takes more than the call alone."""
    watched = Stopwatch().called("nothing")(int)
    took = []
    for function in (watched, int):
        begin = time.perf_counter()
        for _ in range(CALIBRATED_CALLS):
            function()
        took.append(time.perf_counter() - begin)
    return max(0.0, took[0] - took[1]) / CALIBRATED_CALLS
