"""Seconds of one call, wall and the processor's in all threads; what the package logs meanwhile."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


def timed(function: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """(Result, {"cpu_s", "wall_s"})."""
    cpu, wall = time.process_time(), time.perf_counter()
    result = function()
    return result, {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}


class _Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@contextmanager
def logged() -> Iterator[list[logging.LogRecord]]:
    """What the package logs, as it comes; records of phases have ``phase``, ``wall_s`` and ``cpu_s``."""
    kept, log = _Kept(), logging.getLogger("fastpdr")
    before = log.level
    log.addHandler(kept)
    log.setLevel(logging.INFO)
    try:
        yield kept.records
    finally:
        log.removeHandler(kept)
        log.setLevel(before)
