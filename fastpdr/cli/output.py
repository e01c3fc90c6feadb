"""What the commands leave behind: folders filled whole or not at all, JSON, aligned text."""

from __future__ import annotations

import json
import os
import platform
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fastpdr._files import written_aside


@contextmanager
def writable_folder(folder: Path) -> Iterator[None]:
    """Make the folder and prove that it can be written, before hours of work; after an error leave no empty one."""
    new = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with written_aside(folder / ".probe") as probe:
            probe.touch()
        (folder / ".probe").unlink()
        yield
    except BaseException:
        for made in new:
            with suppress(OSError):
                made.rmdir()
        raise


@contextmanager
def filled_folder(folder: Path, own: Collection[str]) -> Iterator[Path]:
    """Yield an empty folder to write into; its entries take their places in `folder` when the block ends without error.

    Entries of the names in `own` that were not written this time are removed: they would contradict the new ones.
    """
    from fastpdr.estimators.saving import replace_folder

    with writable_folder(folder):
        aside = Path(tempfile.mkdtemp(prefix=".aside-", dir=folder))
        try:
            yield aside
            written = list(aside.iterdir())
            for entry in written:
                (replace_folder if entry.is_dir() else os.replace)(entry, folder / entry.name)
            for name in set(own) - {entry.name for entry in written}:
                (folder / name).unlink(missing_ok=True)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def refuse_used_folder(folder: Path, overwrite: bool, argument: str) -> None:
    """Raise before any work where its results could not be written at the end."""
    from fastpdr.estimators.saving import check_target

    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{argument} {folder} is not a folder")
    if folder.exists() and any(folder.iterdir()) and not overwrite:
        raise ValueError(f"{argument} {folder} is not empty; --overwrite replaces what fastpdr wrote there")
    try:
        check_target(folder / "model", overwrite=overwrite)
    except FileExistsError as error:
        message = f"{argument} {folder} holds a model folder that fastpdr did not write; move it away first ({error})"
        raise ValueError(message) from error


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
