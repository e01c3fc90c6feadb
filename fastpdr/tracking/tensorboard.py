"""Events for TensorBoard, by PyTorch's own writer."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastpdr.tracking.base import MAP, Rows, Tracker, first_new, pixels

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class TensorBoard(Tracker):
    """Writes for TensorBoard (``pip install 'fastpdr[tensorboard]'``); ``tensorboard --logdir LOGDIR`` shows it.

    Parameters
    ----------
    logdir : path-like
        A folder; made if missing. Every training gets a folder of its own in it: run-1, run-2, ...
    held_out : array-like [m, d] or tuple of it and labels [m], optional
        Rows that are not trained on, as they would be given to ``transform``, m >= 3, and their labels, if they have
        some. Up to 1,000 of them are judged, up to 10,000 drawn; the same ones every time.
    metrics_every : int, optional
        After the first, every so many, and the last planned epoch they are judged by
        :func:`fastpdr.metrics.evaluate`; None does not judge them.
    map_every : int, optional
        So often their map is drawn, coloured by their labels; needs matplotlib.

    Raises
    ------
    ImportError
        A package is missing.
    ValueError
        An argument is not as documented.

    Examples
    --------
    >>> from fastpdr import ParametricUMAP
    >>> from fastpdr.tracking import TensorBoard
    >>> umap = ParametricUMAP(callbacks=[TensorBoard("runs")])  # doctest: +SKIP
    """

    def __init__(
        self,
        logdir: str | os.PathLike[str],
        *,
        held_out: Rows | None = None,
        metrics_every: int | None = 10,
        map_every: int | None = None,
    ) -> None:
        _import_summary_writer()
        super().__init__(held_out, metrics_every, map_every)
        self.logdir = logdir

    def _begin(self) -> Any:
        folders = (Path(self.logdir) / f"run-{number}" for number in itertools.count(1))
        return _import_summary_writer()(os.fspath(first_new(folders, _make_folder)))

    def _write(self, log: Any, epoch: int, scalars: dict[str, float], axes: Axes | None) -> None:
        for name, value in scalars.items():
            log.add_scalar(name, value, epoch)
        if axes is not None:
            log.add_image(MAP, pixels(axes), epoch, dataformats="HWC")
        log.flush()

    def _end(self, log: Any, failed: bool) -> None:
        log.close()


def _make_folder(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


def _import_summary_writer() -> Any:
    """PyTorch's writer of events, which needs a package that is not required."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ImportError("TensorBoard: tensorboard is missing: pip install 'fastpdr[tensorboard]'") from error
    return SummaryWriter
