"""A callback that stops a training when the map of rows never seen gets no better."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike

from fastpdr.metrics import trustworthiness
from fastpdr.training import TrainingState


class TrustworthinessStopping:
    """Stops when the trustworthiness of held-out rows has not risen by more than ``min_delta`` for ``patience`` looks.

    Looks begin once the objective no longer changes with time (``TrainingState.settled``), at half of the epochs. The
    map is that of the last epoch, not of the best one.

    Parameters
    ----------
    X : array-like of shape (m, d)
        Rows that the training does not see, at least three; judged among themselves, which takes time and memory of the
        order of m².
    patience : int
        Looks without progress, at least 1.
    min_delta : float
        What counts as progress.
    every : int
        Epochs between two looks, at least 1.
    n_neighbors : int
        Neighbours that count, fewer than m / 2.

    Attributes
    ----------
    history_ : list of (int, float)
        Epoch and trustworthiness of every look in the last training.

    Raises
    ------
    ValueError
        If ``patience`` or ``every`` is less than 1, or a parameter does not fit X; that of X during the training.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from fastpdr import ParametricUMAP
    >>> from fastpdr.estimators import TrustworthinessStopping
    >>> X, y = load_digits(return_X_y=True)
    >>> umap = ParametricUMAP(n_epochs=500, callbacks=[TrustworthinessStopping(X[1500:])])
    >>> umap.fit(X[:1500])  # doctest: +SKIP
    """

    def __init__(
        self, X: ArrayLike, *, patience: int = 5, min_delta: float = 0.001, every: int = 1, n_neighbors: int = 12
    ) -> None:
        for name, value in (("patience", patience), ("every", every)):
            if value < 1:
                raise ValueError(f"TrustworthinessStopping: {name} must be at least 1, got {value}")
        self.X, self.patience, self.min_delta = X, patience, min_delta
        self.every, self.n_neighbors = every, n_neighbors
        self.history_: list[tuple[int, float]] = []

    def on_epoch_end(self, state: TrainingState) -> bool:
        """Judge the map of the held-out rows."""
        if state.epoch == 1:
            self.history_ = []
        if not state.settled or state.epoch % self.every:
            return False
        score = trustworthiness(self.X, state.transform(self.X), n_neighbors=self.n_neighbors)
        self.history_.append((state.epoch, score))
        return self._waited() >= self.patience

    def _waited(self) -> int:
        """Looks since the last progress."""
        best, waited = -float("inf"), 0
        for _, score in self.history_:
            best, waited = (score, 0) if score > best + self.min_delta else (best, waited + 1)
        return waited

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"history": self.history_}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.history_ = [(epoch, score) for epoch, score in state["history"]]
