"""How much memory there is: what the machine, the control groups of the process, or a graphics card have free.

A container's limit stands in its control group (version 2: memory.max, version 1: memory.limit_in_bytes) and in those
above it; pages of files that are held there can be given back, and count as free, as they do in Linux's MemAvailable.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from numbers import Integral
from pathlib import Path
from typing import Any

import torch

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}
_limit: ContextVar[int] = ContextVar("_limit", default=sys.maxsize)
V2 = ("memory.max", "memory.current", "inactive_file")
V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def as_bytes(function: str, value: Any) -> int:
    """A size as a number of bytes, or in words such as "8GB", "500 MB" or "2GiB".

    Raises
    ------
    ValueError
        If it is neither, or not positive.
    """
    found = (
        re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?i?)b?\s*", value, re.IGNORECASE) if isinstance(value, str) else None
    )
    size = 0
    if found is not None and found[2].upper() in UNITS:
        size = round(float(found[1]) * UNITS[found[2].upper()])
    elif isinstance(value, Integral) and not isinstance(value, bool):
        size = int(value)
    if size <= 0:
        raise ValueError(f"{function}: memory_limit must be bytes > 0 or a size as '8GB', got {value!r}")
    return size


def in_words(size: float) -> str:
    """Bytes in the unit that suits them, such as "1.50 GB"."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


@contextmanager
def limited_to(size: int) -> Iterator[None]:
    """Let :func:`free_host_memory` find no more than so many bytes: a limit that somebody else has set."""
    token = _limit.set(size)
    try:
        yield
    finally:
        _limit.reset(token)


def free_host_memory(root: Path = Path("/")) -> int:
    """Bytes that this process can still take; `root` is where the system's files are."""
    free = min(_available(root), _limit.get())
    for folder, names in _control_groups(root):
        limit, used = (_number(folder / name) for name in names[:2])
        if limit is not None and used is not None:
            free = min(free, max(0, limit - used + _statistic(folder / "memory.stat", names[2])))
    return free


def free_device_memory(device: torch.device) -> int:
    """Bytes that a graphics card has free, those included that PyTorch holds and does not use."""
    free = torch.cuda.mem_get_info(device)[0]
    return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))


def _available(root: Path) -> int:
    """Of the whole machine."""
    try:
        found = re.search(r"^MemAvailable:\s*(\d+) kB", (root / "proc/meminfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    if found is not None:
        return 1024 * int(found[1])
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _control_groups(root: Path) -> Iterator[tuple[Path, tuple[str, str, str]]]:
    """The folders of the process's control groups and of all above them, with the names of what stands there."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top, names = (root / "sys/fs/cgroup/memory", V1) if controllers else (root / "sys/fs/cgroup", V2)
        folder = top / path.strip("/")
        yield from ((part, names) for part in (folder, *folder.parents) if part == top or top in part.parents)


def _number(file: Path) -> int | None:
    """What stands in a file; none where that is no number, as "max", or there is no such file."""
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _statistic(file: Path, name: str) -> int:
    try:
        found = re.search(rf"^{name} (\d+)$", file.read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) if found else 0
