"""A table learnt: which rows are held out, the map of all rows, and measures of those trained on and those not."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastpdr._progress import phase
from fastpdr.cli import data, output, tracked
from fastpdr.cli.tracked import estimator_of
from fastpdr.data import Rows, in_one_piece

if TYPE_CHECKING:
    from fastpdr.graph import KNNGraph

EVALUATED_NEIGHBORS, LABEL_NEIGHBORS = 12, 7
FEWEST_ROWS = 3  # that can be judged
JUDGED_ROWS = 20_000  # of those that are not in memory


@dataclass(frozen=True)
class Judgement:
    """Measures of a map against the data as it was scaled; nothing where it was not judged."""

    scores: dict[str, float]
    rnx: NDArray | None = None  # [n - 2]


@dataclass(frozen=True)
class HeldOut:
    """The rows that the training has not seen."""

    rows: NDArray[np.bool_]  # [n], which they are
    seconds: float  # to place them
    judgement: Judgement  # of them among themselves, but for knn_accuracy, in which the training rows vote


@dataclass(frozen=True)
class Learnt:
    """A table and what was made of it."""

    table: data.Table
    model: Any  # an estimator, or a pipeline that ends with one
    Z: NDArray  # [n, c], of all rows
    seconds: float
    judgement: Judgement  # of the rows that were trained on
    held_out: HeldOut | None = None

    @property
    def estimator(self) -> Any:
        """The map itself, without the steps before it."""
        return estimator_of(self.model)

    @property
    def scores(self) -> dict[str, float]:
        """Of the rows that were trained on."""
        return self.judgement.scores

    @property
    def held_out_facts(self) -> dict[str, Any]:
        """The scores of the held-out rows, their number and the time that they took; nothing where there are none."""
        if self.held_out is None:
            return {}
        return self.held_out.judgement.scores | {
            "transform_time_seconds": self.held_out.seconds,
            "n_samples": int(self.held_out.rows.sum()),
        }

    @property
    def figures(self) -> dict[str, Any]:
        """The scores, the loss and the time; of held-out rows too."""
        own = {"training_time_seconds": self.seconds, "final_loss": float(self.estimator.loss_history_[-1])}
        return self.scores | own | ({"held_out": self.held_out_facts} if self.held_out else {})

    @property
    def facts(self) -> dict[str, Any]:
        """The figures, and how they came about."""
        return self.figures | {
            "n_epochs": int(self.estimator.n_iter_),
            "n_samples": self.table.X.shape[0] - self.held_out_facts.get("n_samples", 0),
            "n_features": self.table.X.shape[1],
            "n_components": self.Z.shape[1],
            "method": type(self.estimator).__name__,
            "label_column": self.table.label_column,
            "versions": output.versions(),
        }


def learn(
    table: data.Table,
    model: Any,
    *,
    held_out: float | None = None,
    judged: bool = True,
    trackers: tracked.MakeTrackers | None = None,
) -> Learnt:
    """Train, place the rows that were held out, and judge the map of both.

    The measure is the data as it was scaled; before PCA, which is part of what is judged.

    Parameters
    ----------
    table : Table
        The rows [n, d] and perhaps labels.
    model : fastpdr estimator or sklearn.pipeline.Pipeline
        Not yet fitted.
    held_out : float, optional
        Share of the rows that neither the map nor a step before it sees; drawn by the seed of the model.
    judged : bool
        Whether to judge.
    trackers : callable, optional
        Of :func:`fastpdr.cli.tracked.trackers_of`; they look at the training, and at the held-out rows.

    Raises
    ------
    ValueError
        Too few rows, or data or parameters that the estimator refuses.
    FloatingPointError
        The training diverged.
    """
    n = len(table.X)
    if n < FEWEST_ROWS:
        raise ValueError(f"the data must have at least {FEWEST_ROWS} rows, got {n}")
    data.require_finite(table)
    unseen = None if held_out is None else held_out_rows(table, held_out, estimator_of(model).random_state)
    trained, placed = (table, None) if unseen is None else (table.take(~unseen), table.take(unseen))
    seen_by_trackers = None if placed is None else _at_hand(placed)
    fit_transform = partial(tracked.fit_transform, model, make_trackers=trackers, held_out=seen_by_trackers)
    Z, seconds = _timed(fit_transform, trained.rows)
    learnt = Learnt(table, model, Z, seconds, Judgement({}))
    if unseen is not None and placed is not None:
        Z_placed, placing = _timed(model.transform, placed.rows)
        whole = np.empty((n, Z.shape[1]), Z.dtype)
        whole[~unseen], whole[unseen] = Z, Z_placed
        learnt = replace(learnt, Z=whole, held_out=HeldOut(unseen, placing, Judgement({})))
    return judge(learnt) if judged else learnt


@phase("judging the map")
def judge(learnt: Learnt) -> Learnt:
    """Measure the map of the rows that were trained on, and that of those held out; as :func:`learn` does."""
    if isinstance(learnt.table.X, Rows):
        return _judge_some(learnt)
    X, held_out = scaled_by(learnt.model, learnt.table), learnt.held_out
    verbose = bool(learnt.estimator.verbose)
    # Whether labels are classes is said of all of them, not of those that a part happens to have.
    classes = classes_of(learnt.table)
    if held_out is None:
        return replace(learnt, judgement=measure(X, learnt.Z, classes, verbose))
    trained = ~held_out.rows
    of_trained = measure(X[trained], learnt.Z[trained], None if classes is None else classes[trained], verbose)
    of_placed = measure_held_out(X, learnt.Z, classes, held_out.rows, verbose)
    return replace(learnt, judgement=of_trained, held_out=replace(held_out, judgement=of_placed))


def _judge_some(learnt: Learnt) -> Learnt:
    """As :func:`judge`, of up to 20,000 rows that were trained on, and as many that were not, each among themselves."""
    unseen = np.zeros(len(learnt.Z), dtype=bool) if learnt.held_out is None else learnt.held_out.rows
    parts = [drawn(np.flatnonzero(kind)) for kind in (~unseen, unseen)]
    chosen = np.sort(np.concatenate(parts))
    table = _in_memory(learnt.table.take(chosen))
    held_out = None if learnt.held_out is None else replace(learnt.held_out, rows=unseen[chosen])
    part = judge(replace(learnt, table=table, Z=learnt.Z[chosen], held_out=held_out))
    if learnt.held_out is None or part.held_out is None:
        return replace(learnt, judgement=part.judgement)
    held_out = replace(learnt.held_out, judgement=part.held_out.judgement)
    return replace(learnt, judgement=part.judgement, held_out=held_out)


def drawn(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """At most 20,000 of the numbers, always the same, in their order."""
    if len(numbers) <= JUDGED_ROWS:
        return numbers
    return np.sort(np.random.default_rng(0).choice(numbers, JUDGED_ROWS, replace=False))


def _at_hand(table: data.Table) -> tuple[Any, NDArray | None]:
    """Rows for trackers, which judge them in memory, and their labels."""
    if isinstance(table.X, Rows):
        table = _in_memory(table.take(drawn(np.arange(len(table.X)))))
    return table.rows, table.labels


def _in_memory(table: data.Table) -> data.Table:
    """The table with its rows, those of a file so far, as an array."""
    return replace(table, X=in_one_piece(table.X).numpy())


def held_out_rows(table: data.Table, share: float, seed: int) -> NDArray[np.bool_]:
    """Draw the rows that are held out, as large a share of each class where every class has rows enough.

    Parameters
    ----------
    table : Table
        n rows and perhaps labels.
    share : float
        Between 0 and 1; the number of rows is rounded up.
    seed : int
        The same seed draws the same rows.

    Returns
    -------
    ndarray of bool [n]
        Which rows are held out.

    Raises
    ------
    ValueError
        Fewer than three rows would be held out, or left for the training.
    """
    from sklearn.model_selection import train_test_split

    n = len(table.X)
    held_out = math.ceil(share * n)
    if min(held_out, n - held_out) < FEWEST_ROWS:
        raise ValueError(
            f"held_out {share:g} of {n} rows holds out {held_out} and leaves {n - held_out} for the training; "
            f"both must be at least {FEWEST_ROWS}"
        )
    classes = classes_of(table)
    if classes is not None:
        sizes = np.unique(classes, return_counts=True)[1]
        if sizes.min() < 2 or len(sizes) > min(held_out, n - held_out):
            classes = None
    _, drawn = train_test_split(np.arange(n), test_size=held_out, random_state=seed, stratify=classes)
    rows = np.zeros(n, dtype=bool)
    rows[drawn] = True
    return rows


def classes_of(table: data.Table) -> NDArray | None:
    """Return the labels if they are classes: there is no vote among values on a scale."""
    from fastpdr.plotting import is_continuous

    return None if table.labels is None or is_continuous(table.labels) else table.labels


def _timed(work: Any, rows: Any) -> tuple[NDArray, float]:
    start = time.perf_counter()
    result = work(rows)
    return result, time.perf_counter() - start


def require_fewer(neighbors: int | None, table: data.Table) -> None:
    """Refuse more neighbours than there are other rows, before any work."""
    if neighbors is not None and neighbors >= len(table.X):
        raise ValueError(f"neighbors must be fewer than the {len(table.X)} rows, got {neighbors}")


def neighbors_of(learnt: Learnt, k: int | None) -> KNNGraph | None:
    """Return the k nearest other rows of each, by the metric of the map."""
    if k is None:
        return None
    from fastpdr import KNNGraph

    estimator = learnt.estimator
    return KNNGraph.build(
        scaled_by(learnt.model, learnt.table),
        k,
        metric=getattr(estimator, "metric", "euclidean"),
        random_state=estimator.random_state,
        verbose=bool(estimator.verbose),
    )


def scaled_by(model: Any, table: data.Table) -> NDArray:
    """Return the rows as the first step of a model has scaled them."""
    scaler = getattr(model, "named_steps", {}).get("scaler")
    return table.X if scaler is None else scaler.transform(table.rows)


def measure(X: NDArray, Z: NDArray, classes: NDArray | None, verbose: bool = False) -> Judgement:
    """Measure a map of rows, with as many neighbours as everywhere here, or as there are."""
    from fastpdr.metrics import evaluate_with_curve

    n = len(Z)
    neighbors = max(1, min(EVALUATED_NEIGHBORS, (n - 1) // 2))
    label_neighbors = min(LABEL_NEIGHBORS, n - 1)
    sizes = {"n_neighbors": neighbors, "label_neighbors": label_neighbors}
    return Judgement(*evaluate_with_curve(X, Z, classes, **sizes, verbose=verbose))


def measure_held_out(
    X: NDArray, Z: NDArray, classes: NDArray | None, unseen: NDArray[np.bool_], verbose: bool = False
) -> Judgement:
    """Measure the map of the held-out rows; how well the others tell their classes is part of it."""
    from fastpdr.metrics import knn_accuracy

    known = None if classes is None else classes[unseen]
    judgement = measure(X[unseen], Z[unseen], known, verbose)
    if classes is not None:
        votes = min(LABEL_NEIGHBORS, int((~unseen).sum()))
        accuracy = knn_accuracy(Z[~unseen], classes[~unseen], Z[unseen], known, n_neighbors=votes)
        judgement.scores["knn_accuracy"] = accuracy
    return judgement
