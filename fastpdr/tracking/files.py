"""Files with one line an epoch, as comma-separated values or JSON, and pictures beside them."""

from __future__ import annotations

import csv
import itertools
import json
import math
import os
from abc import abstractmethod
from pathlib import Path
from typing import IO, TYPE_CHECKING

from fastpdr import plotting
from fastpdr.tracking.base import Rows, Tracker, first_new

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class _File(Tracker):
    """A file with one line an epoch, and pictures beside it."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        held_out: Rows | None = None,
        metrics_every: int | None = 10,
        map_every: int | None = None,
    ) -> None:
        if Path(path).is_dir():
            raise ValueError(f"{type(self).__name__}: path must be a file, got the folder {path}")
        super().__init__(held_out, metrics_every, map_every)
        self.path = path

    def _begin(self) -> IO[str]:
        path = Path(self.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        later = (path.with_name(f"{path.stem}-{number}{path.suffix}") for number in itertools.count(2))
        return first_new(itertools.chain([path], later), _make_file)

    def _write(self, log: IO[str], epoch: int, scalars: dict[str, float], axes: Axes | None) -> None:
        self._write_line(log, {"epoch": epoch, **scalars})
        log.flush()
        if axes is not None:
            path = Path(log.name)
            plotting.save(axes, path.with_name(f"{path.stem}-epoch-{epoch:04}.png"))

    def _end(self, log: IO[str], failed: bool) -> None:
        log.close()

    @abstractmethod
    def _write_line(self, log: IO[str], values: dict[str, float]) -> None:
        """Write the line of an epoch."""


class CSVLog(_File):
    """Writes a line of comma-separated values after each epoch, the names above them.

    Every training writes a file of its own: ``path``, and where that exists path-2, path-3, ... Nothing is appended to
    or replaced, so that trainings that run at once, or ended in the middle of a line, leave each other alone. Cells of
    held-out measures are empty in epochs in which nothing is judged.

    Parameters
    ----------
    path : path-like
        A file; its folder is made if missing. Pictures stand beside it: log-epoch-0010.png for log.csv.
    held_out, metrics_every, map_every
        As for :class:`TensorBoard`.

    Raises
    ------
    ImportError, ValueError
        As :class:`TensorBoard`.

    Examples
    --------
    >>> from fastpdr import ParametricUMAP
    >>> from fastpdr.tracking import CSVLog
    >>> umap = ParametricUMAP(callbacks=[CSVLog("runs/log.csv")])
    """

    def _write_line(self, log: IO[str], values: dict[str, float]) -> None:
        lines = csv.writer(log, lineterminator="\n")
        if log.tell() == 0:
            # All columns there are: if rows are judged, then after the first epoch too.
            self._columns = list(values)
            lines.writerow(self._columns)
        lines.writerow([values.get(name, "") for name in self._columns])


class JSONLines(_File):
    """Writes a line of JSON after each epoch: ``{"epoch": 1, "loss": 2.5, ...}``; what is no number is null.

    Files, parameters and errors are those of :class:`CSVLog`.

    Examples
    --------
    >>> from fastpdr import ParametricUMAP
    >>> from fastpdr.tracking import JSONLines
    >>> umap = ParametricUMAP(callbacks=[JSONLines("runs/log.jsonl")])
    """

    def _write_line(self, log: IO[str], values: dict[str, float]) -> None:
        log.write(json.dumps({name: value if math.isfinite(value) else None for name, value in values.items()}) + "\n")


def _make_file(path: Path) -> IO[str]:
    return open(path, "x", encoding="utf-8", newline="")
