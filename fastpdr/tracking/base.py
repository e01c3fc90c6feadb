"""What all trackers share: names, the rows that are not trained on, and when these are judged and drawn.

Nothing here draws a random number that a training could miss: a map is the same bit for bit with and without trackers.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import suppress
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import _safe_indexing

from fastpdr import plotting
from fastpdr.metrics import evaluate
from fastpdr.metrics._checks import as_labels, as_matrix
from fastpdr.training import TrainingState

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SCALARS = ("loss", "learning_rate", "gradient_norm")
HELD_OUT = "held_out/"
MAP = HELD_OUT + "map"
# Of the held-out rows: 1,000 are judged in 0.2 s, and more points than 10,000 do not make a better picture.
FEWEST_ROWS, JUDGED_ROWS, DRAWN_ROWS = 3, 1_000, 10_000
NEIGHBORS, LABEL_NEIGHBORS = 12, 7

Rows: TypeAlias = ArrayLike | tuple[ArrayLike, ArrayLike | None]  # [m, d], perhaps with labels [m]
T = TypeVar("T")


class HeldOut:
    """Rows that are not trained on, or a sample of them, in an order of no meaning."""

    def __init__(self, tracker: str, given: Rows) -> None:
        self.tracker = tracker  # whose errors these are
        if isinstance(given, tuple) and len(given) != 2:
            raise ValueError(f"{tracker}: held_out must be rows or (rows, labels), got a tuple of {len(given)}")
        X, y = given if isinstance(given, tuple) else (given, None)
        numbers = as_matrix(tracker, "held_out", X)
        n = len(numbers)
        if n < FEWEST_ROWS:
            raise ValueError(f"{tracker}: held_out must have at least {FEWEST_ROWS} rows, got {n}")
        labels = None if y is None else as_labels(tracker, "held_out's labels", y, "held_out", n)
        rows = np.random.default_rng(0).permutation(n)[:DRAWN_ROWS]
        # A data frame stays one: the estimator knows its columns by their names.
        self.X = _safe_indexing(X if hasattr(X, "columns") else numbers, rows)
        self.y = None if labels is None else labels[rows]

    def scores(self, Z: NDArray[np.float32]) -> dict[str, float]:
        """Measures of the map ``[n, c]`` of the rows."""
        Z = Z[:JUDGED_ROWS]
        n = len(Z)
        classes = None if self.y is None or plotting.is_continuous(self.y) else self.y[:n]
        neighbors, label_neighbors = min(NEIGHBORS, (n - 1) // 2), min(LABEL_NEIGHBORS, n - 1)
        X = np.asarray(_safe_indexing(self.X, np.arange(n)))
        scores = evaluate(X, Z, classes, n_neighbors=neighbors, label_neighbors=label_neighbors)
        return {HELD_OUT + name: score for name, score in scores.items()}

    def draw(self, Z: NDArray[np.float32], title: str) -> Axes:
        """Draw the map ``[n, c]`` of the rows, the first two components of more."""
        if Z.shape[1] < 2:
            raise ValueError(f"{self.tracker}: map_every needs a map of two components, got n_components=1")
        return plotting.map(Z[:, :2], self.y, title=title)


class Tracker(ABC):
    """What all trackers share: names, and when held-out rows are judged and drawn."""

    def __init__(self, held_out: Rows | None, metrics_every: int | None, map_every: int | None) -> None:
        name = type(self).__name__
        for argument, value in (("metrics_every", metrics_every), ("map_every", map_every)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, Integral) or value < 1):
                raise ValueError(f"{name}: {argument} must be a number of epochs >= 1 or None, got {value!r}")
        if map_every is not None:
            if held_out is None:
                raise ValueError(f"{name}: map_every={map_every} needs held_out, the rows to draw")
            plotting.require_matplotlib()
        self.metrics_every, self.map_every = metrics_every, map_every
        self._held_out = None if held_out is None else HeldOut(name, held_out)
        self._log: Any = None  # of the training that runs
        self._handled: BaseException | None = None  # already when it began

    def on_epoch_end(self, state: TrainingState) -> None:
        """Write what is due after this epoch."""
        values = (state.loss_history[-1], state.learning_rate, state.gradient_norm)
        scalars = dict(zip(SCALARS, values, strict=True))
        axes = None
        judged, drawn = _is_due(self.metrics_every, state), _is_due(self.map_every, state)
        if self._held_out is not None and (judged or drawn):
            Z = state.transform(self._held_out.X)
            scalars |= self._held_out.scores(Z) if judged else {}
            axes = self._held_out.draw(Z, f"epoch {state.epoch}") if drawn else None
        if self._log is None:
            self._log, self._handled = self._begin(), sys.exc_info()[1]
        self._write(self._log, state.epoch, scalars, axes)

    def close(self) -> None:
        """End what this training has begun."""
        if self._log is None:
            return
        failed = sys.exc_info()[1] is not self._handled
        log, self._log, self._handled = self._log, None, None
        self._end(log, failed)

    def __getstate__(self) -> dict[str, Any]:
        """A copy, in another process too, writes trainings of its own."""
        return self.__dict__ | {"_log": None, "_handled": None}

    @abstractmethod
    def _begin(self) -> Any:
        """Return what is written to."""

    @abstractmethod
    def _write(self, log: Any, epoch: int, scalars: dict[str, float], axes: Axes | None) -> None:
        """Write one epoch so that it is there even if the next one never ends."""

    @abstractmethod
    def _end(self, log: Any, failed: bool) -> None:
        """Close it, after an error too."""


def _is_due(every: int | None, state: TrainingState) -> bool:
    return every is not None and (state.epoch in (1, state.n_epochs) or state.epoch % every == 0)


def first_new(paths: Iterator[Path], make: Callable[[Path], T]) -> T:
    """Make the first of endless paths that does not exist; no other process can have the same one."""
    while True:
        with suppress(FileExistsError):
            return make(next(paths))


def pixels(axes: Axes) -> NDArray[np.uint8]:
    """The figure as a picture ``[height, width, 3]``."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(axes.figure)  # type: ignore[arg-type]
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]
