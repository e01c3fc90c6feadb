"""What the commands leave behind: folders filled whole or not at all, JSON, aligned text."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fastpdr._files import replace_folder, strict_json, written_aside
from fastpdr._versions import versions as versions  # of every result

ASIDE = ".aside-"  # folders of a command that was killed begin so


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
    with writable_folder(folder):
        aside = Path(tempfile.mkdtemp(prefix=ASIDE, dir=folder))
        try:
            yield aside
            written = list(aside.iterdir())
            for entry in written:
                (replace_folder if entry.is_dir() else os.replace)(entry, folder / entry.name)
            for name in set(own) - {entry.name for entry in written}:
                (folder / name).unlink(missing_ok=True)
        except OSError as error:
            if error.filename is not None:
                error.filename = str(error.filename).replace(str(aside), str(folder), 1)
            raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def refuse_used_folder(folder: Path, overwrite: bool, argument: str) -> None:
    """Raise before any work where its results could not be written at the end."""
    from fastpdr.estimators.saving import check_target

    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{argument} {folder} is not a folder")
    if folder.exists() and not overwrite and not all(entry.name.startswith(ASIDE) for entry in folder.iterdir()):
        raise ValueError(f"{argument} {folder} is not empty; --overwrite replaces what fastpdr wrote there")
    try:
        check_target(folder / "model", overwrite=overwrite)
    except FileExistsError as error:
        message = f"{argument} {folder} holds a model folder that fastpdr did not write; move it away first ({error})"
        raise ValueError(message) from error


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write strict JSON: a float that is not finite becomes null."""
    with written_aside(path) as aside:
        aside.write_text(strict_json(content), encoding="utf-8")


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
