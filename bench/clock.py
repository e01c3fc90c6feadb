"""Seconds of one call: wall, and the processor's in all threads."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def timed(function: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """(Result, {"cpu_s", "wall_s"})."""
    cpu, wall = time.process_time(), time.perf_counter()
    result = function()
    return result, {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}
