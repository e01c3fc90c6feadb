"""What happens between epochs: early stopping, the progress bar, callbacks of the user."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import nn
from tqdm.auto import tqdm


@dataclass
class TrainingState:
    """What a callback sees after each epoch.

    Attributes
    ----------
    encoder : torch.nn.Module
        The network being trained, on its device; read it, do not change it. The built-in one reads scaled rows
        here, or the principal components of wide ones.
    n_epochs : int
        Epochs planned.
    transform : callable
        Places raw rows ``[m, d]`` as the network would now and returns ``[m, n_components]`` float32; the training
        goes on as if it had not been asked.
    epoch : int
        Epochs done.
    loss_history : list of float
        Mean loss of every epoch so far.
    learning_rate : float
        Of the last step.
    gradient_norm : float
        Euclidean norm of the encoder's gradient in the last step, before ``clip_grad_norm`` shortens it.
    settled : bool
        The objective no longer changes with time: exaggeration is over and extra components are gone. Early stopping
        compares losses only from there on.
    """

    encoder: nn.Module
    n_epochs: int
    transform: Callable[[ArrayLike], NDArray[np.float32]]
    epoch: int = 0
    loss_history: list[float] = field(default_factory=list)
    learning_rate: float = 0.0
    gradient_norm: float = 0.0
    settled: bool = False


@runtime_checkable
class Callback(Protocol):
    """An object with this method, or a plain function of the state; a true result stops the training.

    An object may have a method ``close`` as well, which is run once the training has ended, be it by an error. One that
    remembers what it saw has ``state_dict()``, which returns what JSON can hold, and ``load_state_dict(state)``: then a
    training that is resumed goes on as if it had not been interrupted.
    """

    def on_epoch_end(self, state: TrainingState) -> bool | None:
        """Run after each epoch."""


class EarlyStopping:
    """Stops when the loss has not fallen by more than ``min_delta`` for ``patience`` epochs."""

    def __init__(self, patience: int, min_delta: float) -> None:
        self.patience, self.min_delta = patience, min_delta
        self.best, self.waited = float("inf"), 0

    def on_epoch_end(self, state: TrainingState) -> bool:
        """Count the epochs without progress."""
        if not state.settled:
            return False
        if state.loss_history[-1] < self.best - self.min_delta:
            self.best, self.waited = state.loss_history[-1], 0
        else:
            self.waited += 1
        return self.waited >= self.patience

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"best": self.best, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.best, self.waited = state["best"], state["waited"]


class ProgressBar:
    """A tqdm bar over the epochs, with loss and time left; silent where stderr is no terminal."""

    def __init__(self, n_epochs: int, description: str) -> None:
        self.bar = tqdm(total=n_epochs, desc=description, unit="epoch", disable=None, dynamic_ncols=True)

    def on_epoch_end(self, state: TrainingState) -> None:
        """Advance to the epoch."""
        self.bar.set_postfix(loss=f"{state.loss_history[-1]:.4f}", refresh=False)
        self.bar.update(state.epoch - self.bar.n)

    def close(self) -> None:
        """Leave the bar as it stands."""
        self.bar.close()


def run_callbacks(callbacks: Sequence[Callback | Callable[[TrainingState], bool | None]], state: TrainingState) -> bool:
    """Run all of them; tell whether one asked to stop."""
    results = [c.on_epoch_end(state) if isinstance(c, Callback) else c(state) for c in callbacks]
    return any(results)


def close_callbacks(callbacks: Sequence[Callback | Callable[[TrainingState], bool | None]]) -> None:
    """Close those that have something to close, also where one of them fails."""
    with ExitStack() as closing:
        for callback in reversed(callbacks):
            if hasattr(callback, "close"):
                closing.callback(callback.close)
