"""Files and folders written whole or not at all: beside their place first, then renamed, closed to others by the umask.

What was there before stays if anything fails on the way: a full disk, an interrupted process.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

NOT_WRITTEN = "cannot be written ("


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Yield a path to write to; it takes the place of `path` when the block ends without an error.

    Raises
    ------
    OSError
        With the name of the file: some writers say neither what failed nor where.
    """
    # The suffix stays: writers choose their format by it.
    aside = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield aside
        os.replace(aside, path)
    except OSError as error:
        if error.filename not in (None, str(aside)):
            raise  # of another file
        reason = str(error.strerror or error).removeprefix(NOT_WRITTEN).removesuffix(")")
        raise OSError(error.errno, f"{NOT_WRITTEN}{reason})", str(path)) from error
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def folder_aside(target: Path) -> Iterator[Path]:
    """Yield an empty folder to fill; it takes the place of `target` when the block ends without an error."""
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        yield aside
        open_to_others(aside)
        replace_folder(aside, target)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def open_to_others(folder: Path) -> None:
    """Give a folder and its files the permissions of new ones: temporary folders and some writers' files are closed."""
    mask = os.umask(0)  # which can only be read by setting it
    os.umask(mask)
    folder.chmod(0o777 & ~mask)
    for file in folder.iterdir():
        file.chmod(0o666 & ~mask)


def replace_folder(source: Path, target: Path) -> None:
    """Rename a folder over an existing one, which is put back if that fails."""
    if not target.exists():
        source.rename(target)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}-old-", dir=target.parent)) / target.name
    target.rename(old)
    try:
        source.rename(target)
    except BaseException:
        old.rename(target)
        raise
    finally:
        shutil.rmtree(old.parent, ignore_errors=True)


def strict_json(content: Mapping[str, Any]) -> str:
    """Return JSON that every reader takes: a float that is not finite becomes null."""
    return json.dumps(_finite(content), indent=2, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Write an array as .npy, or raise OSError.

    numpy.save writes to files of the system behind Python's back, and does not notice where the end of a small array
    finds no space.
    """
    with open(path, "wb") as file:
        np.lib.format.write_array(SimpleNamespace(write=file.write), np.asarray(array), allow_pickle=False)
