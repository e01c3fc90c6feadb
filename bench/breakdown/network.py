"""A training step against the network's own forward, backward and optimizer: the same network, the batch in hand.

In turn in one process: some steps of the training, some of the network alone, and again; medians. The first of each
turn is not counted: it finds the other's data in the caches.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .parts import EnoughError, PartOfFit, network_step

ROWS, COLUMNS, HIDDEN, BATCH = 5000, 784, (1000, 500, 250), 500
TURN = 5


class AgainstNetwork(PartOfFit):
    """Measures while it fits.

    Parameters
    ----------
    turns : int
        Of ``TURN`` steps each, after one that is not counted.

    Attributes
    ----------
    steps, network : list of float
        Seconds of each step that counts.
    """

    def __init__(self, turns: int) -> None:
        self.turns, self.turn, self.number = turns, 0, 0
        self.steps: list[float] = []
        self.network: list[float] = []
        self.begun, self.trained = 0.0, False
        self.once: Callable[[torch.Tensor], None] | None = None

    def between(self) -> None:
        now = time.perf_counter()
        if not self.trained:  # the first step is to come, or an epoch has ended
            self.begun = now
            return
        self.trained = False
        self._count(self.steps, now - self.begun)
        self.number += 1
        if self.number == TURN:
            self._network()
            self.turn, self.number = self.turn + 1, 0
        if self.turn > self.turns:
            raise EnoughError
        self.begun = time.perf_counter()

    def fetched(self) -> None:
        self.trained = True

    def _network(self) -> None:
        self.once = self.once or network_step(self.encoder, self.settings)
        for self.number in range(TURN):
            begin = time.perf_counter()
            self.once(self.x)
            self._count(self.network, time.perf_counter() - begin)

    def _count(self, seconds: list[float], value: float) -> None:
        if self.turn > 0 and self.number > 0:
            seconds.append(value)

    def medians(self) -> dict[str, float]:
        """Seconds of a step, and of the network's."""
        return {"step": statistics.median(self.steps), "network": statistics.median(self.network)}


def wide_rows() -> NDArray[np.float32]:
    """Rows ``[5000, 784]`` whose variance lies in all columns, so that the network reads all of them."""
    return np.random.default_rng(0).normal(size=(ROWS, COLUMNS)).astype(np.float32)


def against_network(cls: Any, X: NDArray[np.float32], precision: str, turns: int) -> AgainstNetwork:
    """Measure an estimator with the wide network at a batch of 500."""
    found = AgainstNetwork(turns)
    settings = {"hidden_dims": HIDDEN, "batch_size": BATCH, "n_epochs": 2 * (turns + 1) * TURN, "random_state": 0}
    found.fit(cls(precision=precision, device="cpu", **settings), X)
    return found
