"""What the commands leave behind: folders, files written whole or not at all, aligned text."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Yield a path to write to; it takes the place of `path` when the block ends without an error."""
    # The suffix stays: writers choose their format by it.
    aside = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield aside
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def writable_folder(folder: Path) -> Iterator[None]:
    """Make the folder and prove that it can be written, before hours of work; after an error leave no empty one."""
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with written_aside(folder / ".probe") as probe:
            probe.touch()
        (folder / ".probe").unlink()
        yield
    except BaseException:
        if is_new:
            with suppress(OSError):
                folder.rmdir()
        raise


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write strict JSON: a float that is not a number becomes null."""
    with written_aside(path) as aside:
        aside.write_text(json.dumps(_without_nan(content), indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    return None if isinstance(value, float) and value != value else value


def versions() -> dict[str, str]:
    """Return the versions a result depends on."""
    import numpy
    import sklearn
    import torch

    import fastpdr

    return {
        "fastpdr": fastpdr.__version__,
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "scikit-learn": sklearn.__version__,
        "python": platform.python_version(),
    }


def aligned(rows: Sequence[Sequence[str]], *, numbers: bool = False) -> str:
    """Set rows of equal length in columns; the first to the left, the others too unless they are numbers."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(w) if numbers and i else cell.ljust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  " + "  ".join(cells).rstrip())
    return "\n".join(lines)
