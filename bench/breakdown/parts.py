"""A fit of which some steps alone are trained: which functions of the package are which part, and when to stop.

Half of the steps that are measured have the extra components of the map and half have not, as in a whole training.
Steps before are warm-up. What a whole training takes is the mean of a step, times the steps of the preset.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from fastpdr.estimators import base
from fastpdr.estimators.base import ParametricEmbedding
from fastpdr.estimators.neighbors import NeighborEmbedding
from fastpdr.estimators.tsne import TSNE
from fastpdr.training import InputScaling, TrainingState, loop, step
from fastpdr.training.encoder import MLP
from fastpdr.training.noise import Noise
from fastpdr.training.objectives import BatchTSNE, NeighborTSNE, Objective, PairObjective
from fastpdr.training.share import Share

from .stopwatch import Replacement, Stopwatch, replaced

WARM_UP = 10
PHASES = (
    (base, "validated", "validate"),
    (InputScaling, "fit", "scale"),
    (base, "prepared", "scale"),
    (base, "projection_of", "scale"),
    (base, "reduced", "scale"),
    (base, "measure_noise", "scale"),
    (ParametricEmbedding, "_neighbors", "neighbours"),
    (TSNE, "_make_objective", "affinities"),
    (NeighborEmbedding, "_make_objective", "affinities"),
    (base, "place_together", "map"),
)
STEP = (
    (Noise, "draw", "noise"),
    (Noise, "add", "noise"),
    (Share, "similarities", "similarities"),
    (MLP, "forward", "encoder forward"),
    (step, "fade_extra", "loss"),
    (BatchTSNE, "loss", "loss"),
    (NeighborTSNE, "loss", "loss"),
    (PairObjective, "loss", "loss"),
    (torch.Tensor, "backward", "backward"),
    (nn.utils, "clip_grad_value_", "clip"),
    (step, "shorten", "clip"),
)
NAMES = ("draw", "gather", "noise", "similarities", "encoder forward", "loss", "backward", "clip", "optimizer")
REST = "bookkeeping"  # of the loop: all that is no other part


class EnoughError(Exception):
    """As many steps were trained as are wanted."""


class PartOfFit:
    """Fits, but ends the training when :meth:`between` says so; the map is made by the network as it is then.

    Attributes
    ----------
    encoder, inputs, objective, settings
        What the training was given; the network is the one that is trained.
    batch, x
        The rows of the last batch, and what the network read of them.
    """

    encoder: nn.Module
    inputs: Any
    objective: Objective
    settings: loop.TrainingSettings
    batch: Any
    x: torch.Tensor

    def fit(self, estimator: Any, X: Any) -> Any:
        """Fit the estimator to rows ``[n, d]``."""
        with replaced([(base, "train", self._training), *self._replacements()]):
            return estimator.fit(X)

    def between(self) -> None:
        """Called before each batch is drawn; EnoughError ends the training."""

    def fetched(self) -> None:
        """Called when the batch is there."""

    def _replacements(self) -> list[Replacement]:
        return [(Share, "feed", self._feed)]

    def _training(self, train: Callable[..., TrainingState]) -> Callable[..., TrainingState]:
        def part(*arguments: Any, **named: Any) -> TrainingState:
            self.encoder, self.inputs, self.objective, self.settings, _, transform, *_ = arguments
            try:
                state = train(*arguments, **named)
            except EnoughError:
                state = TrainingState(self.encoder, self.settings.n_epochs, transform)
            self.encoder = copy.deepcopy(self.encoder)  # the fit goes on to change its first layer and its last
            return state

        return part

    def _feed(self, feed: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
        def fed(*arguments: Any) -> Iterator[Any]:
            inner = feed(*arguments)
            while True:
                self.between()
                each = next(inner, None)
                if each is None:
                    return
                self.batch, self.x = each[0], each[1][0]
                self.fetched()
                yield each

        return fed


class WatchedFit(PartOfFit):
    """Times the phases of a fit, the parts of its steps, and then steps of the network alone.

    Parameters
    ----------
    steps : int
        To measure, after ``WARM_UP`` others; fewer where the training is over before.

    Attributes
    ----------
    phases : Stopwatch
        Of the fit.
    parts : dict of str to float
        Seconds of each part of all measured steps, ``REST`` included.
    wall : float
        Seconds of the loop for these steps, by a clock of its own.
    measured, rows, calls : int
        Steps that were measured, rows of their batches, and calls that were watched.
    network_s : float
        Mean seconds of a step of the network alone, on the last batch.
    """

    def __init__(self, steps: int) -> None:
        self.steps, self.done = steps, 0
        self.phases, self.within = Stopwatch(), Stopwatch()
        self.parts: dict[str, float] = {}
        self.begun: float | None = None
        self.wall, self.network_s, self.measured, self.rows, self.calls = 0.0, 0.0, 0, 0, 0

    def between(self) -> None:
        if self.done == WARM_UP and self.begun is None:
            self.within.clear()
            self.rows, self.begun = 0, time.perf_counter()
        if self.done == WARM_UP + self.steps:
            raise EnoughError

    def fetched(self) -> None:
        self.done += 1
        self.rows += len(self.batch.rows)

    def _replacements(self) -> list[Replacement]:
        within = self.within
        return [
            *((owner, name, self.phases.called(part)) for owner, name, part in PHASES),
            *((owner, name, within.called(part)) for owner, name, part in STEP),
            (Objective, "epoch", within.iterated("draw")),
            (Share, "feed", within.iterated("gather")),
            *super()._replacements(),
            (loop, "make_optimizer", self._optimizer),
            (loop, "schedule_place", self._place),
        ]

    def _training(self, train: Callable[..., TrainingState]) -> Callable[..., TrainingState]:
        def timed(*arguments: Any, **named: Any) -> TrainingState:
            with self.within.part(REST):
                try:
                    return train(*arguments, **named)
                finally:
                    self._end()

        part = super()._training(timed)

        def watched(*arguments: Any, **named: Any) -> TrainingState:
            state = part(*arguments, **named)
            self.network_s = self._network_alone()
            return state

        return self.phases.called("training")(watched)

    def _end(self) -> None:
        now = time.perf_counter()
        self.parts, self.calls = self.within.lap(), self.within.calls
        self.wall = now - (now if self.begun is None else self.begun)
        self.measured = max(0, self.done - WARM_UP)

    def _network_alone(self) -> float:
        once = network_step(self.encoder, self.settings)
        for _ in range(WARM_UP):
            once(self.x)
        begin = time.perf_counter()
        for _ in range(self.steps):
            once(self.x)
        return (time.perf_counter() - begin) / self.steps

    def _optimizer(self, make: Callable[..., Any]) -> Callable[..., Any]:
        def made(*arguments: Any) -> Any:
            optimizer = make(*arguments)
            for name in ("step", "zero_grad"):
                setattr(optimizer, name, self.within.called("optimizer")(getattr(optimizer, name)))
            return optimizer

        return made

    def _place(self, place: Callable[..., float]) -> Callable[..., float]:
        def later(training: Any, steps: int, max_time: float | None) -> float:
            first_half = self.done <= WARM_UP + self.steps // 2
            return max(place(training, steps, max_time), 0 if first_half else math.ceil(steps * loop.ANNEALED_SHARE))

        return later


def network_step(encoder: nn.Module, settings: loop.TrainingSettings) -> Callable[[torch.Tensor], None]:
    """What no step can do without: forward, backward of the mean output, and the optimizer, of a copy of a network."""
    network = copy.deepcopy(encoder).train()
    device = next(network.parameters()).device
    optimizer = loop.make_optimizer(
        settings.optimizer, [network], settings.learning_rate, settings.weight_decay, device
    )

    def once(x: torch.Tensor) -> None:
        with step.autocast(device, settings.bfloat16):
            y = network(x)
        optimizer.zero_grad(set_to_none=True)
        y.float().mean().backward()
        optimizer.step()

    return once
