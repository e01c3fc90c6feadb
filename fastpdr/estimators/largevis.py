"""Parametric LargeVis: t-SNE's similarities of the nearest neighbours, fitted edge by edge like UMAP's."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any, ClassVar

import torch
from numpy.typing import ArrayLike
from sklearn.utils._param_validation import Interval, StrOptions
from torch import nn

from fastpdr.estimators.base import CHECKPOINT_EVERY, HIDDEN_DIMS, Fit
from fastpdr.estimators.neighbors import NeighborEmbedding, require_targets
from fastpdr.estimators.resolve import perplexity_list
from fastpdr.graph import KNNGraph, perplexity_affinities
from fastpdr.training.callbacks import Callback, TrainingState
from fastpdr.training.objectives import Curve


class ParametricLargeVis(NeighborEmbedding):
    """Parametric LargeVis: a neural network learns the map from data to ``n_components`` dimensions.

    The similarities are t-SNE's, of a graph of nearest neighbours; rows that are alike attract each other on the map by
    ``log(1 / (1 + d²))``, others repel each other (Tang, Liu, Zhang & Mei 2016, Visualizing Large-scale and
    High-dimensional Data). Batches are made as in :class:`fastpdr.ParametricUMAP`.

    Parameters
    ----------
    n_components : int
        Dimensions of the map.
    perplexity : float or "auto"
        Effective number of neighbours of a row, at least 1; three times as many are sought. "auto" is 15, or a third of
        the other rows where these are fewer than 45.
    negative_sample_rate : float
        Pairs of random rows that repel for every edge that attracts. All pairs of a batch are used whatever its value;
        its product with ``gamma`` is the factor of the repulsion.
    gamma : float
        Weight of a pair that repels.
    target_weight : float
        From 0, where the data alone counts, to 1, where the labels ``y`` alone do.
    metric, precomputed_knn, landmark_loss_fn, landmark_loss_weight, n_epochs, batch_size, n_jobs, input_noise
        As in :class:`fastpdr.ParametricUMAP`.
    hidden_dims, activation, encoder, learning_rate, lr_schedule, optimizer, weight_decay
        As in :class:`fastpdr.ParametricTSNE`.
    early_stopping_patience, early_stopping_min_delta, clip_grad_value, clip_grad_norm, extra_components
        As in :class:`fastpdr.ParametricTSNE`.
    init, precision, device, random_state, callbacks, verbose
        As in :class:`fastpdr.ParametricTSNE`.
    memory_limit, max_time, checkpoint_dir, checkpoint_every, resume
        As in :class:`fastpdr.ParametricTSNE`.

    Attributes
    ----------
    graph_ : scipy.sparse.csr_matrix of shape (n, n)
        The similarities, with what ``y`` changes.
    encoder_, embedding_, loss_history_, n_iter_, n_features_in_, feature_names_in_, drift_
        As in :class:`fastpdr.ParametricUMAP`.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from fastpdr import ParametricLargeVis
    >>> X, y = load_digits(return_X_y=True)
    >>> ParametricLargeVis(random_state=0).fit_transform(X).shape
    (1797, 2)
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **NeighborEmbedding._parameter_constraints,
        "perplexity": [Interval(Real, 1, None, closed="left"), StrOptions({"auto"})],
        "gamma": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(
        self,
        n_components: int = 2,
        *,
        perplexity: float | str = "auto",
        metric: str = "euclidean",
        negative_sample_rate: float = 5,
        gamma: float = 7.0,
        precomputed_knn: Any = None,
        target_weight: float = 0.5,
        landmark_loss_fn: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
        landmark_loss_weight: float = 1.0,
        hidden_dims: Sequence[int] = HIDDEN_DIMS,
        activation: str = "gelu",
        encoder: nn.Module | None = None,
        n_epochs: int | None = None,
        batch_size: int | None = None,
        learning_rate: float = 1e-2,
        lr_schedule: str = "cosine",
        optimizer: str = "adamw",
        weight_decay: float = 0.1,
        early_stopping_patience: int | None = None,
        early_stopping_min_delta: float = 0.0,
        clip_grad_value: float | None = None,
        clip_grad_norm: float | None = 0.1,
        extra_components: int = 2,
        input_noise: float | str = "auto",
        neighbor_noise: float | str = "auto",
        preset: str = "fast",
        init: str | ArrayLike = "random",
        precision: str = "auto",
        device: str | torch.device = "auto",
        random_state: Any = None,
        n_jobs: int | None = None,
        callbacks: Sequence[Callback | Callable[[TrainingState], bool | None]] | None = None,
        memory_limit: int | str | None = None,
        max_time: float | None = None,
        checkpoint_dir: str | os.PathLike[str] | None = None,
        checkpoint_every: float = CHECKPOINT_EVERY,
        resume: bool | str = "auto",
        verbose: bool | int = False,
    ) -> None:
        self._set_parameters(locals())

    def _resolved_perplexity(self, n: int) -> float:
        if self.perplexity == "auto":
            return min(15.0, max(1.0, (n - 1) / 3))
        return perplexity_list(self.perplexity, n, type(self).__name__, "perplexity")[0]

    def _count_neighbors(self, n: int) -> int:
        return min(n - 1, math.ceil(3 * self._resolved_perplexity(n)))

    def _similarities(self, neighbors: KNNGraph, fit: Fit) -> torch.Tensor:
        y = require_targets(fit.y, len(fit.X), type(self).__name__)
        return self._supervised(perplexity_affinities(neighbors, self._resolved_perplexity(len(fit.X))), y)

    def _curve(self, n: int) -> Curve:
        return Curve(a=1.0, b=1.0, repulsion=float(self.negative_sample_rate * self.gamma), eps=0.1, clip=5.0)
