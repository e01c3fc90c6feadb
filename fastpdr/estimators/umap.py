"""Parametric UMAP: the fuzzy neighbour graph of the data, fitted by a network; with labels, landmarks and a decoder."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_array, check_is_fitted
from torch import nn

from fastpdr.data import TensorRows
from fastpdr.estimators.base import CHECKPOINT_EVERY, HIDDEN_DIMS, Fit
from fastpdr.estimators.neighbors import FEW_ROWS, NeighborEmbedding, require_targets
from fastpdr.estimators.resolve import place, prepared, require_width
from fastpdr.estimators.together import on_whole
from fastpdr.graph import KNNGraph, continuous_intersection, fuzzy_set
from fastpdr.training import TrainingState, build_decoder
from fastpdr.training.callbacks import Callback
from fastpdr.training.encoder import OutputScaling
from fastpdr.training.objectives import Curve, curve_of
from fastpdr.training.rows import AsFloat32
from fastpdr.training.terms import GlobalCorrelation, Reconstruction

CONTINUOUS = ("euclidean", "l2")
SAMPLE_WEIGHT = {"few": 4.0, "more": 12.0}  # of a sample that repels


class ParametricUMAP(NeighborEmbedding):
    """Parametric UMAP: a neural network learns the map from data to ``n_components`` dimensions.

    The fuzzy set of the nearest neighbours is UMAP's own (McInnes, Healy & Melville 2018); the map is a network's
    (Sainburg, McInnes & Gentner 2021, Parametric UMAP Embeddings for Representation and Semisupervised Learning). Edges
    drawn by their weights choose the rows of a batch, each row is encoded once; all edges of the fuzzy set among these
    rows attract, all pairs of the batch repel. New rows are placed by :meth:`transform` at once.

    Parameters
    ----------
    n_neighbors : int
        Neighbours that count for a row, itself included, as in umap-learn: 15 are 14 other rows. Where there are not
        so many rows, all are taken, with a warning.
    n_components : int
        Dimensions of the map.
    metric : str
        Of the neighbours: "euclidean", "cosine", or another that :meth:`fastpdr.KNNGraph.build` knows.
    min_dist : float
        Distance on the map below which near rows are not drawn closer together, at most ``spread``.
    spread : float
        Scale of the map.
    a, b : float, optional
        Of the curve ``1 / (1 + a d^(2b))`` of similarities on the map. None: fitted to ``min_dist`` and ``spread``.
    negative_sample_rate : float
        Strength of the repulsion: pairs of random rows that repel for every edge that attracts. All pairs of a batch
        are used whatever its value; the factor alone changes. One of umap-learn's samples counts as 4 here, from
        10,000 rows on as 12, which places unseen rows best: batches of drawn edges hold more close pairs than the
        data does, and what attracts one row moves its like as well.
    repulsion_strength : float
        Further factor of the repulsion.
    local_connectivity : float
        Neighbours that every row is taken to be fully connected with.
    set_op_mix_ratio : float
        From 0, the fuzzy intersection of the two directions of an edge, to 1, their union.
    kernel : {"umap", "keras"}
        "umap" is the curve above. "keras" is half of it or less, ``1 / (2 + a d^(2b))``: umap-learn's ParametricUMAP
        applies a logistic function to the logarithm of the similarity, and so trains this curve. It attracts more
        weakly at short distance, and its maps of new rows keep less of the order of neighbours.
    precomputed_knn : KNNGraph or tuple, optional
        The neighbours, found before: a :class:`fastpdr.KNNGraph`, or umap-learn's ``(indices, distances[, index])``
        with or without the rows themselves; as many neighbours as needed, or more.
    target_metric : {"categorical", "euclidean", "l2"}
        Whether ``y`` holds labels, -1 where there is none, or numbers on a scale.
    target_n_neighbors : int
        Neighbours in ``y``, for numbers on a scale; -1 takes ``n_neighbors``.
    target_weight : float
        From 0, where the data alone counts, to 1, where ``y`` alone does.
    landmark_loss_fn : callable, optional
        Of (map, positions), both ``[l, n_components]``, to a scalar. None: the mean Euclidean distance.
    landmark_loss_weight : float
        Factor of the landmarks' loss.
    decoder : torch.nn.Module, optional
        Own network ``[b, n_components] -> [b, d]``, back to raw rows; copied, the trained copy is ``decoder_``.
    parametric_reconstruction : bool
        Train a decoder for :meth:`inverse_transform`: the own one, or the mirror image of the built-in encoder.
    parametric_reconstruction_loss_fcn : callable, optional
        Of (reconstruction, rows), both ``[b, d]``, to a scalar. None: the mean squared error.
    parametric_reconstruction_loss_weight : float
        Factor of the reconstruction's loss.
    autoencoder_loss : bool
        Let the encoder learn from the reconstruction too.
    global_correlation_loss_weight : float
        Factor of a term that keeps distances on the map correlated with those of the data.
    n_epochs : int, optional
        In an epoch every edge is drawn in proportion to its weight: ``weight / largest weight`` times on average.
        (umap-learn lists an edge once for each direction: its epoch is two of these.) Any number trains the whole
        network; None is at least one, by ``preset``.
    batch_size : int, optional
        Ends of edges drawn for a step; the distinct rows among them are encoded.
    n_jobs : int, optional
        Threads of the search for neighbours; None takes PyTorch's number, -1 all.
    hidden_dims, activation, encoder, learning_rate, lr_schedule, optimizer, weight_decay
        As in :class:`fastpdr.ParametricTSNE`.
    early_stopping_patience, early_stopping_min_delta, clip_grad_value, clip_grad_norm, extra_components
        As in :class:`fastpdr.ParametricTSNE`.
    input_noise, neighbor_noise, preset, init, precision, device, random_state, callbacks, verbose
        As in :class:`fastpdr.ParametricTSNE`.
    memory_limit, max_time, checkpoint_dir, checkpoint_every, resume
        As in :class:`fastpdr.ParametricTSNE`.

    Attributes
    ----------
    encoder_ : torch.nn.Module
        The trained network, raw rows in, map out.
    decoder_ : torch.nn.Module
        The trained decoder, map in, raw rows out; with ``parametric_reconstruction`` or a ``decoder``.
    embedding_ : ndarray of shape (n, n_components)
        The map of the training rows, float32.
    graph_ : scipy.sparse.csr_matrix of shape (n, n)
        The fuzzy set, with what ``y`` adds.
    loss_history_ : list of float
        Mean loss of the batches, one per epoch.
    n_iter_ : int
        Epochs done.
    n_samples_seen_ : int
        Rows learnt from, of all calls of ``partial_fit`` together; None where an older saved model does not say.
    training_seconds_ : float
        How long that took; None likewise.
    drift_ : float or None
        How far the last :meth:`partial_fit` moved the rows that were given with landmark positions: the mean distance
        between their places on the map before and now, in units of the map. None where there was no such map or row.
    n_features_in_, feature_names_in_
        As in scikit-learn.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from fastpdr import ParametricUMAP
    >>> X, y = load_digits(return_X_y=True)
    >>> umap = ParametricUMAP(random_state=0).fit(X[:1500])
    >>> umap.transform(X[1500:]).shape
    (297, 2)
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **NeighborEmbedding._parameter_constraints,
        "n_neighbors": [Interval(Integral, 2, None, closed="left")],
        "min_dist": [Interval(Real, 0, None, closed="left")],
        "spread": [Interval(Real, 0, None, closed="neither")],
        "a": [Interval(Real, 0, None, closed="neither"), None],
        "b": [Interval(Real, 0, None, closed="neither"), None],
        "repulsion_strength": [Interval(Real, 0, None, closed="left")],
        "local_connectivity": [Interval(Real, 0, None, closed="left")],
        "set_op_mix_ratio": [Interval(Real, 0, 1, closed="both")],
        "kernel": [StrOptions({"umap", "keras"})],
        "target_metric": [StrOptions({"categorical", *CONTINUOUS})],
        "target_n_neighbors": [Integral],
        "decoder": [nn.Module, None],
        "parametric_reconstruction": ["boolean"],
        "parametric_reconstruction_loss_fcn": [callable, None],
        "parametric_reconstruction_loss_weight": [Interval(Real, 0, None, closed="left")],
        "autoencoder_loss": ["boolean"],
        "global_correlation_loss_weight": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(
        self,
        n_neighbors: int = 15,
        n_components: int = 2,
        *,
        metric: str = "euclidean",
        min_dist: float = 0.1,
        spread: float = 1.0,
        a: float | None = None,
        b: float | None = None,
        negative_sample_rate: float = 5,
        repulsion_strength: float = 1.0,
        local_connectivity: float = 1.0,
        set_op_mix_ratio: float = 1.0,
        kernel: str = "umap",
        precomputed_knn: Any = None,
        target_metric: str = "categorical",
        target_n_neighbors: int = -1,
        target_weight: float = 0.5,
        landmark_loss_fn: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
        landmark_loss_weight: float = 1.0,
        hidden_dims: Sequence[int] = HIDDEN_DIMS,
        activation: str = "gelu",
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        parametric_reconstruction: bool = False,
        parametric_reconstruction_loss_fcn: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
        parametric_reconstruction_loss_weight: float = 1.0,
        autoencoder_loss: bool = False,
        global_correlation_loss_weight: float = 0.0,
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

    def inverse_transform(self, Z: ArrayLike) -> NDArray[np.float32]:
        """Rows that would lie at places on the map, by the decoder.

        Parameters
        ----------
        Z : array-like of shape (m, n_components)
            Places on the map.

        Returns
        -------
        ndarray of shape (m, d), float32

        Raises
        ------
        AttributeError
            If no decoder was trained.
        ValueError
            If Z has other columns than the map.
        """
        check_is_fitted(self)
        decoder = getattr(self, "decoder_", None)
        if decoder is None:
            raise AttributeError(
                f"{type(self).__name__}: inverse_transform needs a decoder: fit with parametric_reconstruction=True"
            )
        places = check_array(Z, dtype=np.float32, input_name="Z")
        if places.shape[1] != self.n_components:
            raise ValueError(
                f"{type(self).__name__}: Z must have the {self.n_components} columns of the map, got {places.shape[1]}"
            )
        return place(decoder, TensorRows(torch.from_numpy(places)), self.n_features_in_, verbose=bool(self.verbose))

    def _count_neighbors(self, n: int) -> int:
        if self.n_neighbors > n:
            warnings.warn(
                f"n_neighbors={self.n_neighbors} is more than there are rows: all {n} are taken", stacklevel=2
            )
        return min(int(self.n_neighbors), n) - 1

    def _similarities(self, neighbors: KNNGraph, fit: Fit) -> torch.Tensor:
        y = require_targets(fit.y, len(fit.X), type(self).__name__)
        graph = fuzzy_set(neighbors, self.set_op_mix_ratio, self.local_connectivity)
        if y is None or self.target_metric == "categorical":
            return self._supervised(graph, y)
        wanted = self.target_n_neighbors if self.target_n_neighbors > 1 else self.n_neighbors
        count = min(int(wanted), len(y))
        change = partial(continuous_intersection, y=y, target_weight=self.target_weight, n_neighbors=count)
        return on_whole(graph, change)

    def _curve(self, n: int) -> Curve:
        a, b = self.a, self.b
        if a is None or b is None:
            if self.min_dist > self.spread:
                raise ValueError(
                    f"{type(self).__name__}: min_dist must be at most spread, got {self.min_dist} > {self.spread}"
                )
            a, b = curve_of(float(self.min_dist), float(self.spread))
        self._a, self._b = float(a), float(b)
        weight = SAMPLE_WEIGHT["few" if n < FEW_ROWS else "more"]
        repulsion = float(weight * self.negative_sample_rate * self.repulsion_strength)
        return Curve(self._a, self._b, repulsion, eps=1e-3, clip=4.0, kernel=self.kernel)

    def _make_terms(self, fit: Fit) -> list[nn.Module]:
        terms = super()._make_terms(fit)
        if self.global_correlation_loss_weight > 0:
            terms.append(GlobalCorrelation(self.global_correlation_loss_weight))
        if self.decoder is not None or self.parametric_reconstruction:
            terms.append(self._make_reconstruction(fit))
        return terms

    def _make_reconstruction(self, fit: Fit) -> Reconstruction:
        """The decoder in training: to scaled rows by the built-in one, to raw rows by an own one."""
        built_in, d = self.decoder is None, fit.X.shape[1]
        start = getattr(self, "decoder_", None) if fit.resumed else self.decoder
        if start is None:
            start = build_decoder(fit.scaling, self.n_components, self.hidden_dims, self.activation)
        decoder = copy.deepcopy(start).to(fit.device)
        require_width("decoder", decoder, torch.zeros(2, self.n_components, device=fit.device), d, type(self).__name__)
        return Reconstruction(
            decoder[0] if built_in else decoder,
            fit.rows if built_in else prepared(fit.raw, AsFloat32()),
            self.parametric_reconstruction_loss_fcn or nn.functional.mse_loss,
            self.parametric_reconstruction_loss_weight,
            self.autoencoder_loss,
        )

    def _keep(self, state: TrainingState, terms: Sequence[nn.Module], fit: Fit) -> None:
        super()._keep(state, terms, fit)
        self.decoder_: nn.Module | None = None
        for term in terms:
            if isinstance(term, Reconstruction):
                scaling = OutputScaling(fit.scaling.mean, fit.scaling.scale)
                decoder = term.decoder if self.decoder is not None else nn.Sequential(term.decoder, scaling)
                self.decoder_ = decoder.eval()
