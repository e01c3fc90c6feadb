"""Where and with what a figure was measured: processor, commit, memory."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
STATUS, FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")  # Linux alone has them


def machine() -> str:
    """The processor, the number of cores, and the GPU if PyTorch sees one: fits may run there."""
    import torch

    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    parts = [model or platform.processor() or platform.machine(), f"{os.cpu_count()} cores"]
    return ", ".join([*parts, torch.cuda.get_device_name()] if torch.cuda.is_available() else parts)


def commit() -> str:
    """The commit of the source, with a + where tracked files differ from it; results aside."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!bench/results")
        return git("rev-parse", "--short=10", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "no repository"


class PeakMemory:
    """How far resident memory rises above what it was at the start, in MB; None where the system does not tell."""

    def __init__(self) -> None:
        self.known = STATUS.exists() and FORGET.exists()
        if self.known:
            FORGET.write_text("5")  # the peak so far
            self.before = self._mb("VmRSS")

    def mb(self) -> int | None:
        return self._mb("VmHWM") - self.before if self.known else None

    def _mb(self, name: str) -> int:
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith(name))
        return int(line.split()[1]) // 1024
