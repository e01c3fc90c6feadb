"""What UMAP and LargeVis share: one neighbour graph, labels, landmarks, training on further rows.

A method says how many neighbours it needs, how their distances become similarities, and which curve it fits.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from numbers import Real
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils._param_validation import Interval
from torch import nn

from fastpdr.estimators import presets
from fastpdr.estimators.base import Fit, ParametricEmbedding
from fastpdr.estimators.together import on_whole, whole_graph
from fastpdr.graph import KNNGraph, categorical_intersection
from fastpdr.training import TrainingState
from fastpdr.training.objectives import Curve, Objective, PairObjective
from fastpdr.training.ranks import current
from fastpdr.training.share import edge_batches
from fastpdr.training.terms import Landmarks

FEW_ROWS = 10_000


class NeighborEmbedding(ParametricEmbedding):
    """Base of :class:`fastpdr.ParametricUMAP` and :class:`fastpdr.ParametricLargeVis`."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **ParametricEmbedding._parameter_constraints,
        "metric": [str],
        "negative_sample_rate": [Interval(Real, 0, None, closed="left")],
        "target_weight": [Interval(Real, 0, 1, closed="both")],
        "landmark_loss_fn": [callable, None],
        "landmark_loss_weight": [Interval(Real, 0, None, closed="left")],
    }

    _presets = presets.PAIRS

    # What these methods leave as it is.
    early_exaggeration: float = 1.0
    early_exaggeration_epochs: int = 0

    metric: str
    negative_sample_rate: float
    target_weight: float
    landmark_loss_fn: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None
    landmark_loss_weight: float
    drift_: float | None

    def fit(self, X: ArrayLike, y: ArrayLike | None = None, landmark_positions: ArrayLike | None = None) -> Any:
        """Learn the map.

        Parameters
        ----------
        X : array-like, memory map, sparse matrix, tensor, data set, Shards or path, of shape (n, d)
            Rows of finite numbers of any numeric dtype, at least two; as for :meth:`fastpdr.ParametricTSNE.fit`, those
            that do not fit in memory as float32 are read batch by batch.
        y : array-like of shape (n,), optional
            What is known of the rows draws like ones together: labels, -1 where there is none.
        landmark_positions : array-like of shape (n, n_components), optional
            Where rows shall lie on the map; a row of NaN is free.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a parameter or an argument is not as documented; before any training.
        FloatingPointError
            If the loss stops being finite.
        MemoryError
            If the fit would take more memory than there is, or than ``memory_limit``; before any training.
        """
        return self._learn(X, y, landmark_positions)

    def partial_fit(self, X: ArrayLike, y: ArrayLike | None = None, landmark_positions: ArrayLike | None = None) -> Any:
        """Train the map that there is on further rows; the first call is :meth:`fit`.

        A map grows without moving where X holds rows that lie on it already and ``landmark_positions`` their places
        (``transform`` of the map so far), with NaN for the new rows. Only the rows of this call are trained on. How far
        the rows with positions have moved is ``drift_``. A loaded map is trained on like any other.

        Parameters
        ----------
        X, y, landmark_positions
            As for :meth:`fit`, with the columns of the first call.

        Returns
        -------
        self

        Raises
        ------
        ValueError, FloatingPointError
            As :meth:`fit`.
        """
        start = getattr(self, "encoder_", None)
        known = start is not None and landmark_positions is not None
        before = self.transform(X) if known else None
        self._learn(X, y, landmark_positions, start=start)
        if before is not None:
            held = np.isfinite(np.asarray(landmark_positions, dtype=np.float32)).all(1)
            moved = np.linalg.norm(self.embedding_[held] - before[held], axis=1)
            self.drift_ = float(moved.mean()) if held.any() else None
        return self

    def _keep(self, state: TrainingState, terms: Sequence[nn.Module], fit: Fit) -> None:
        super()._keep(state, terms, fit)
        self.drift_ = None

    def _make_objective(self, fit: Fit) -> Objective:
        neighbors, n, ranks = self._neighbors(fit), len(fit.rows), current()
        graph, moving = self._similarities(neighbors, fit), self._moving_rows(neighbors, n)
        del neighbors  # before there is a table of the edges
        if not ranks.largest(float(graph.values().max()) if graph.values().numel() else 0.0)[0] > 0:
            raise ValueError(
                f"{type(self).__name__}: no row has a neighbour with a weight, so there is nothing to learn"
            )
        self.graph_ = whole_graph(graph)
        graph = graph.to(fit.rows.device)
        batches = edge_batches(graph, self._batch_size(n), None, fit.seed, ranks)
        objective = PairObjective(graph.to(fit.device), self._curve(n), batches)
        objective.neighbors = moving
        return objective

    def _make_terms(self, fit: Fit) -> list[nn.Module]:
        if fit.landmarks is None:
            return []
        positions = np.asarray(fit.landmarks, dtype=np.float32)
        shape = (len(fit.X), self.n_components)
        if positions.shape != shape or np.isinf(positions).any():
            raise ValueError(
                f"{type(self).__name__}: landmark_positions must be finite or NaN, of shape {shape}, "
                f"got shape {positions.shape}{' with infinite values' if positions.shape == shape else ''}"
            )
        compare = self.landmark_loss_fn or mean_distance
        return [Landmarks(torch.from_numpy(positions).to(fit.device), compare, self.landmark_loss_weight)]

    def _compares_with_graph(self, n: int) -> bool:
        return True

    def _automatic_epochs(self, per_epoch: int, n: int) -> int:
        return max(1, round(self._level(n).steps / per_epoch))

    def _supervised(self, graph: torch.Tensor, y: Any) -> torch.Tensor:
        """The graph with edges between unlike labels weakened."""
        if y is None:
            return graph
        return on_whole(graph, partial(categorical_intersection, y=y, target_weight=self.target_weight))

    @abstractmethod
    def _similarities(self, neighbors: KNNGraph, fit: Fit) -> torch.Tensor:
        """Return the symmetric graph ``[n, n]`` sparse_csr whose edges attract."""

    @abstractmethod
    def _curve(self, n: int) -> Curve:
        """Return what pairs on the map of n rows are compared by."""


def mean_distance(y: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Mean Euclidean distance of the rows of two maps, smooth where it is 0."""
    return ((y - positions).square().sum(1) + 1e-6).sqrt().mean()


def require_targets(y: Any, n: int, name: str) -> NDArray[Any] | None:
    """One target for each of n rows, or None."""
    if y is None:
        return None
    values = np.asarray(y)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.shape != (n,):
        raise ValueError(f"{name}: y must have one value for each of the {n} rows of X, got shape {values.shape}")
    return values
