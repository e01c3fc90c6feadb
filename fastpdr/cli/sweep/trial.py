"""One trial of a sweep: from values to a trained map and its measures on held-out rows.

A trial tells the sweep what happens and waits for answers (whether to go on, where to save), so that it runs in this
process or in another in the same way.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import _safe_indexing

from fastpdr.cli import config as configs
from fastpdr.cli import data, fit, learning, tracked, train
from fastpdr.cli.sweep.config import Sweep, target_of
from fastpdr.cli.sweep.graphs import Graphs, Needed
from fastpdr.cli.sweep.sections import EPOCHS, METRICS
from fastpdr.training import TrainingState

LOG = logging.getLogger("fastpdr")

JUDGED_ROWS = 1_000  # held-out rows that are looked at while a trial is trained
TENTHS = 10
WIDENING = (
    "n_neighbors",
    "perplexity",
    "perplexities",
    "affinity",
    "neighbor_noise",
    "preset",
)  # more of it, more neighbours


@dataclass(frozen=True)
class Report:
    """The metric after a step; the answer is whether the sweep gives the trial up."""

    step: int
    value: float


@dataclass(frozen=True)
class Finished:
    """The measures; the answer is the folder to save the model in, or nothing."""

    metrics: dict[str, float]


@dataclass(frozen=True)
class Saved:
    """The model lies in that folder."""

    metrics: dict[str, float]


@dataclass(frozen=True)
class Pruned:
    """It was given up."""

    message: str


@dataclass(frozen=True)
class Failed:
    """It cannot be trained."""

    message: str


@dataclass(frozen=True)
class Broken:
    """The model cannot be saved, which others will not be either."""

    message: str


Message = Report | Finished | Saved | Pruned | Failed | Broken
Ask = Callable[[Message], Any]


class _GivenUpError(Exception):
    """Leaves a training."""


@dataclass(frozen=True)
class Rows:
    """Rows as a map sees them: after the scaler and the PCA."""

    trained: Any  # [n, d]
    unseen: NDArray[np.bool_]  # [n + held out], which rows of the table are held out
    measure: NDArray  # [n + held out, d], scaled as the file says outside of the search: one measure for all trials


@dataclass
class Bench:
    """What all trials work with.

    Attributes
    ----------
    table : Table
        All rows.
    sweep : Sweep
        What is searched.
    folder : Path
        Where the graphs are.
    every_epoch : bool
        Whether the metric is reported after every epoch, not only when trials are compared.
    """

    table: data.Table
    sweep: Sweep
    folder: Path
    every_epoch: bool = False
    _graphs: Graphs = field(init=False)
    _rows: tuple[str, Rows] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._graphs = Graphs(self.folder)

    def __getstate__(self) -> dict[str, Any]:
        """What other processes get: they make and load the rest themselves."""
        return self.__dict__ | {"_graphs": Graphs(self.folder), "_rows": None}

    def share_graph(self, values: dict[str, Any]) -> None:
        """Have the neighbours ready that a trial needs.

        Raises
        ------
        ValueError
            The trial cannot be.
        OSError
            They cannot be saved.
        """
        config = self.sweep.config_of(values)
        needed = self._needed(config, values)
        if needed is not None:
            self._graphs.of(needed, self._prepared(config).trained)

    def run(self, values: dict[str, Any], ask: Ask, trackers: Sequence[Any] = ()) -> None:
        """Train and judge a trial, under the eyes of trackers; what comes of it is told."""
        try:
            config = self.sweep.config_of(values)
            learnt, metrics = self._trained(config, values, ask, trackers)
        except _GivenUpError as reason:
            ask(Pruned(str(reason)))
            return
        except Exception as error:  # whatever it is, other trials may do better
            LOG.debug("a trial failed", exc_info=True)
            ask(Failed(str(error) or type(error).__name__))
            return
        target = ask(Finished(metrics))
        if target is None:
            return
        try:
            save(learnt, config, target)
        except OSError as error:
            ask(Broken(f"{error.strerror or error}: {error.filename or target}"))
            return
        ask(Saved(metrics))

    def _trained(
        self, config: configs.Config, values: dict[str, Any], ask: Ask, trackers: Sequence[Any]
    ) -> tuple[learning.Learnt, dict[str, float]]:
        model = train.make_model(config)
        estimator = learning.estimator_of(model)
        rows, needed = self._prepared(config), self._needed(config, values)
        graph = None if needed is None else self._graphs.of(needed, rows.trained)
        judge = Judge(self, rows, ask)
        estimator.set_params(precomputed_knn=graph, verbose=False)
        make_trackers = tracked.trackers_of(config)
        learnt = learning.learn(
            self.table,
            model,
            held_out=config.data.held_out,
            judged=False,
            trackers=lambda held_out: [judge.of(held_out), *trackers, *make_trackers(held_out)],
        )
        # What is saved is the model, without the rows of others.
        estimator.set_params(precomputed_knn=None, verbose=config.model.verbose)
        learnt = replace(learnt, seconds=learnt.seconds - judge.seconds)
        assert learnt.held_out is not None
        classes = learning.classes_of(self.table)
        judgement = learning.measure_held_out(rows.measure, learnt.Z, classes, learnt.held_out.rows)
        metrics = judgement.scores | {name: learnt.facts[name] for name in (*METRICS, EPOCHS) if name in learnt.facts}
        return learnt, metrics | judgement.scores

    def _prepared(self, config: configs.Config) -> Rows:
        """Rows after the steps before the map, which depend on the seed by what is held out."""
        key = _key(config)
        if self._rows is None or self._rows[0] != key:
            model = train.make_model(config)
            unseen = self._held_out(config)
            trained, X = self.table.take(~unseen).rows, self.table.X
            if learning.estimator_of(model) is not model:
                trained = model[:-1].fit_transform(trained)
            scaler = train.make_scaler(self.sweep.fixed["preprocessing"].get("scaler", configs.Preprocessing().scaler))
            measure = X if scaler is None else scaler.fit(X[~unseen]).transform(X)
            self._rows = key, Rows(trained, unseen, measure)
        return self._rows[1]

    def _held_out(self, config: configs.Config) -> NDArray[np.bool_]:
        return learning.held_out_rows(self.table, config.data.held_out, config.model.random_state)

    def _needed(self, config: configs.Config, values: dict[str, Any]) -> Needed | None:
        estimator = configs.make_estimator(config)
        n = int((~self._held_out(config)).sum())
        k = _count_neighbors(estimator, n)
        if not k:
            return None
        metric, seed = estimator.metric, config.model.random_state
        return Needed(f"{_key(config)}-{metric}", metric, k, self._widest(values, metric, n, k), estimator.n_jobs, seed)

    def _widest(self, values: dict[str, Any], metric: str, n: int, k: int) -> int:
        """The most neighbours that any trial asks for by this metric."""
        names = [name for name in self.sweep.space if target_of(name)[1] in ("method", *WIDENING)]
        for drawn in product(*(_widening(self.sweep.space[name].extremes()) for name in names)):
            others = {name: value for name, value in values.items() if name not in names}
            for name, value in zip(names, drawn, strict=True):
                if self.sweep.applies(name, others):
                    others[name] = value
            try:
                others = {name: value for name, value in others.items() if self.sweep.applies(name, others)}
                estimator = configs.make_estimator(self.sweep.config_of(others))
                if estimator.metric == metric:
                    k = max(k, _count_neighbors(estimator, n))
            except ValueError:  # no such trial
                continue
        return k


class Judge:
    """A callback that reports the metric on held-out rows where trials are compared."""

    def __init__(self, bench: Bench, rows: Rows, ask: Ask) -> None:
        self.bench, self.ask = bench, ask
        self.seconds = 0.0
        held_out = np.flatnonzero(rows.unseen)
        self._sample = np.random.default_rng(0).permutation(len(held_out))[:JUDGED_ROWS]
        places = held_out[self._sample]
        classes = learning.classes_of(bench.table)
        self._measure = rows.measure[places]
        self._classes = None if classes is None else classes[places]
        self._rows: Any = None

    def of(self, held_out: tracked.HeldOut) -> Judge:
        """Take the held-out rows as the map reads them."""
        assert held_out is not None
        self._rows = _safe_indexing(held_out[0], self._sample)
        return self

    def on_epoch_end(self, state: TrainingState) -> None:
        """Report, and leave the training if that is the answer."""
        step = self._step(state)
        if step is None:
            return
        start = time.perf_counter()
        value = self._value(state)
        self.seconds += time.perf_counter() - start
        if self.ask(Report(step, value)):
            raise _GivenUpError(
                f"after {state.epoch} of {state.n_epochs} epochs, {self.bench.sweep.metric} {value:.4f}"
            )

    def _step(self, state: TrainingState) -> int | None:
        """The step to report: an epoch for hyperband, else a tenth of the training, so that unlike lengths compare."""
        sweep = self.bench.sweep
        if state.epoch >= state.n_epochs or sweep.metric == "training_time_seconds":
            return None
        if sweep.early_terminate is not None:
            due = self.bench.every_epoch or state.epoch in sweep.early_terminate.bands(state.n_epochs)
            return state.epoch if due else None
        tenth, before = (TENTHS * epoch // state.n_epochs for epoch in (state.epoch, state.epoch - 1))
        return tenth if (sweep.prunes or self.bench.every_epoch) and tenth > before else None

    def _value(self, state: TrainingState) -> float:
        metric = self.bench.sweep.metric
        if metric == "final_loss":
            return state.loss_history[-1]
        Z = state.transform(self._rows)
        return learning.measure(self._measure, Z, self._classes).scores[metric]


def save(learnt: learning.Learnt, config: configs.Config, folder: Path) -> None:
    """Write a model as fastpdr train does, into an empty folder."""
    folder.mkdir(parents=True)
    fit.write(learning.judge(learnt), folder, ".npy", folder=folder, config=configs.dump(config))


def _key(config: configs.Config) -> str:
    preprocessing = config.preprocessing
    pca = "" if preprocessing.pca is None else f"-pca{preprocessing.pca}"
    return f"seed{config.model.random_state}-{preprocessing.scaler or 'none'}{pca}"


def _widening(values: list[Any]) -> list[Any]:
    """Leave out numbers, and lists of numbers, beside which there are larger ones."""
    numbers = [value for value in values if isinstance(value, int | float)]
    lists = [value for value in values if isinstance(value, list)]
    others = [value for value in values if not isinstance(value, int | float | list)]
    return [*others, *([max(numbers)] if numbers else []), *([max(lists, key=max)] if lists else [])]


def _count_neighbors(estimator: Any, n: int) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the training itself says what is out of range
        return estimator._count_neighbors(n)
