"""umap-learn's ParametricUMAP by its own names: change the import, keep the script.

Takes the whole signature of ``umap.parametric_umap.ParametricUMAP`` 0.5.12, umap-learn's defaults included. A fit
translates it into :class:`fastpdr.ParametricUMAP`, trains one, and takes over what that has learnt. What steers
umap-learn's internals alone is ignored and logged; what cannot be done (densMAP, other output metrics, Keras) is a
ValueError that names the parameter.
"""

from __future__ import annotations

import inspect
import logging
import math
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted
from torch import nn

from fastpdr import estimators
from fastpdr.estimators.base import Fit
from fastpdr.estimators.graphs import given_graph
from fastpdr.estimators.resolve import draw_seed
from fastpdr.graph import KNNGraph
from fastpdr.graph._rows import known_metric
from fastpdr.training import TrainingSettings
from fastpdr.training.objectives import Objective

__all__ = ["ParametricUMAP", "load_ParametricUMAP"]

LOG = logging.getLogger("fastpdr")
NAME = "ParametricUMAP"
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

# The same in both packages.
SHARED = (
    *("n_neighbors", "n_components", "metric", "min_dist", "spread", "a", "b", "negative_sample_rate"),
    *("repulsion_strength", "local_connectivity", "set_op_mix_ratio", "target_metric", "target_n_neighbors"),
    *("target_weight", "landmark_loss_weight", "parametric_reconstruction", "parametric_reconstruction_loss_weight"),
    *("autoencoder_loss", "global_correlation_loss_weight", "n_epochs", "batch_size", "random_state", "n_jobs"),
    "verbose",
)
# umap-learn's parametric version uses no learning rate either: it belongs to the other one's descent.
WITHOUT_EFFECT = (
    *("learning_rate", "low_memory", "angular_rp_forest", "transform_queue_size", "transform_seed", "transform_mode"),
    *("force_approximation_algorithm", "tqdm_kwds", "output_metric_kwds", "dens_lambda", "dens_frac"),
    *("dens_var_shift", "reconstruction_validation", "loss_report_frequency"),
)
IMPOSSIBLE = {
    "densmap": "False: densMAP is not there",
    "output_dens": "False: densMAP is not there",
    "metric_kwds": "empty: the metrics take no arguments",
    "target_metric_kwds": "empty: the metrics take no arguments",
    "keras_fit_kwargs": "empty: there is no Keras here; callbacks, early stopping and optimizers are parameters of "
    "fastpdr.ParametricUMAP",
}
INITS = ("spectral", "tswspectral", "random", "pca")


class ParametricUMAP(estimators.ParametricUMAP):
    """:class:`fastpdr.ParametricUMAP` with the parameters and methods of umap-learn's ParametricUMAP.

    Parameters mean what they mean in umap-learn, with these exceptions. Everything else that
    :class:`fastpdr.ParametricUMAP` can do keeps its default here.

    Parameters
    ----------
    batch_size : int, optional
        Rows of a step, by their number if None; in umap-learn edges.
    dims : tuple, optional
        Shape of a row for an own encoder, as (28, 28, 1); X may have it as well, or be flat.
    encoder, decoder : torch.nn.Module, optional
        Networks of PyTorch on float32 rows, ``[b, *dims]`` if ``dims`` has several. They are copied.
    parametric_reconstruction_loss_fcn : callable, optional
        Of torch tensors (rows, reconstruction); of centred and scaled rows without an own decoder. None: the mean
        squared error, so that ``inverse_transform`` gives rows and not logits.
    landmark_loss_fn : callable, optional
        Of torch tensors (positions, map).
    keras_fit_kwargs
        Nothing but None or an empty dict.
    n_training_epochs : int
        Repeats the training: factor of the number of epochs.
    n_epochs : int, optional
        As in :class:`fastpdr.ParametricUMAP`.
    metric : str
        "precomputed", or one that :meth:`fastpdr.KNNGraph.build` knows.
    init : {"spectral", "tswspectral", "random", "pca"} or ndarray of shape (n, n_components)
        Places that the network is taught before the training: principal components or given ones; the other three
        leave the weights as they are drawn (umap-learn's parametric version does so for all).
    disconnection_distance : float, optional
        Edges of at least this length are cut.
    precomputed_knn : tuple or fastpdr.KNNGraph
        ``(indices, distances[, index])``; ignored with a warning where it does not fit the data, as in umap-learn.
    learning_rate, low_memory, angular_rp_forest, transform_queue_size, transform_seed, transform_mode
        Ignored; the logger "fastpdr" is told.
    force_approximation_algorithm, tqdm_kwds, output_metric_kwds, dens_lambda, dens_frac, dens_var_shift
        Ignored; the logger "fastpdr" is told.
    reconstruction_validation, loss_report_frequency
        Ignored; the logger "fastpdr" is told.
    densmap, output_dens, metric_kwds, target_metric_kwds, output_metric
        Must be as by default.

    Notes
    -----
    ``fit`` on a fitted estimator trains the same map on if there are landmarks (``landmark_positions``, or rows of
    :meth:`add_landmarks`); without, it begins anew, as scikit-learn has it.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from fastpdr.compat.umap import ParametricUMAP
    >>> X, y = load_digits(return_X_y=True)
    >>> ParametricUMAP(n_training_epochs=2, random_state=0).fit_transform(X).shape
    (1797, 2)
    """

    prev_epoch_X: NDArray[Any] | None = None  # noqa: N815 umap-learn's name for the rows of add_landmarks

    def __init__(
        self,
        batch_size: int | None = None,
        dims: Sequence[int] | None = None,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        parametric_reconstruction: bool = False,
        parametric_reconstruction_loss_fcn: Loss | None = None,
        parametric_reconstruction_loss_weight: float = 1.0,
        autoencoder_loss: bool = False,
        reconstruction_validation: Any = None,
        global_correlation_loss_weight: float = 0,
        landmark_loss_fn: Loss | None = None,
        landmark_loss_weight: float = 1.0,
        keras_fit_kwargs: Mapping[str, Any] | None = None,
        *,
        n_neighbors: int = 15,
        n_components: int = 2,
        metric: str = "euclidean",
        metric_kwds: Mapping[str, Any] | None = None,
        output_metric: str = "euclidean",
        output_metric_kwds: Mapping[str, Any] | None = None,
        n_epochs: int | None = None,
        learning_rate: float = 1.0,
        init: str | ArrayLike = "spectral",
        min_dist: float = 0.1,
        spread: float = 1.0,
        low_memory: bool = True,
        n_jobs: int = -1,
        set_op_mix_ratio: float = 1.0,
        local_connectivity: float = 1.0,
        repulsion_strength: float = 1.0,
        negative_sample_rate: float = 5,
        transform_queue_size: float = 4.0,
        a: float | None = None,
        b: float | None = None,
        random_state: Any = None,
        angular_rp_forest: bool = False,
        target_n_neighbors: int = -1,
        target_metric: str = "categorical",
        target_metric_kwds: Mapping[str, Any] | None = None,
        target_weight: float = 0.5,
        transform_seed: int = 42,
        transform_mode: str = "embedding",
        force_approximation_algorithm: bool = False,
        verbose: bool = False,
        tqdm_kwds: Mapping[str, Any] | None = None,
        unique: bool = False,
        densmap: bool = False,
        dens_lambda: float = 2.0,
        dens_frac: float = 0.3,
        dens_var_shift: float = 0.1,
        output_dens: bool = False,
        disconnection_distance: float | None = None,
        precomputed_knn: Any = (None, None, None),
        n_training_epochs: int = 1,
        loss_report_frequency: int = 10,
    ) -> None:
        self._set_parameters(locals())

    def fit(  # type: ignore[override]
        self,
        X: ArrayLike,
        y: ArrayLike | None = None,
        precomputed_distances: ArrayLike | None = None,
        landmark_positions: ArrayLike | None = None,
    ) -> ParametricUMAP:
        """Learn the map, or train it on with landmarks.

        Parameters
        ----------
        X : array-like of shape (n, d) or (n, *dims)
            Rows of finite numbers.
        y : array-like of shape (n,), optional
            Labels, -1 where there is none, or numbers for a continuous ``target_metric``.
        precomputed_distances : array-like of shape (n, n), optional
            With ``metric="precomputed"``.
        landmark_positions : array-like of shape (n, n_components), optional
            Where rows shall lie on the map; a row of NaN is free. None: the rows of :meth:`add_landmarks`, if any,
            are appended to X and held where the map has them now.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a parameter or an argument is not as documented, or cannot be done here.
        """
        self._require_possible()
        rows = _flat(X)
        if landmark_positions is None and self.prev_epoch_X is not None:
            rows, y, landmark_positions = self._with_landmarks(rows, y, self.prev_epoch_X)
        start = self if landmark_positions is not None and hasattr(self, "encoder_") else None
        return self._train(rows, y, precomputed_distances, landmark_positions, start)

    def fit_transform(  # type: ignore[override]
        self,
        X: ArrayLike,
        y: ArrayLike | None = None,
        precomputed_distances: ArrayLike | None = None,
        landmark_positions: ArrayLike | None = None,
    ) -> NDArray[np.float32]:
        """Learn the map and return that of X, followed by the rows of :meth:`add_landmarks`, if any.

        Parameters
        ----------
        X, y, precomputed_distances, landmark_positions
            As for :meth:`fit`.

        Returns
        -------
        ndarray of shape (n, n_components), float32
        """
        return self.fit(X, y, precomputed_distances, landmark_positions).embedding_

    def partial_fit(
        self, X: ArrayLike, y: ArrayLike | None = None, landmark_positions: ArrayLike | None = None
    ) -> ParametricUMAP:
        """Train the map that there is on further rows; see :meth:`fastpdr.ParametricUMAP.partial_fit`.

        Parameters
        ----------
        X, y, landmark_positions
            As for :meth:`fit`.

        Returns
        -------
        self
        """
        self._require_possible()
        return self._train(_flat(X), y, None, landmark_positions, self if hasattr(self, "encoder_") else None)

    def transform(self, X: ArrayLike, batch_size: int | None = None) -> NDArray[np.float32]:
        """Place rows on the map.

        Parameters
        ----------
        X : array-like of shape (m, d) or (m, *dims)
            Rows with the columns of the training data.
        batch_size : ignored

        Returns
        -------
        ndarray of shape (m, n_components), float32
        """
        return super().transform(_flat(X))

    def inverse_transform(self, X: ArrayLike) -> NDArray[np.float32]:
        """Rows that would lie at places on the map, by the decoder.

        Parameters
        ----------
        X : array-like of shape (m, n_components)
            Places on the map.

        Returns
        -------
        ndarray of shape (m, d) or (m, *dims), float32

        Raises
        ------
        AttributeError
            If no decoder was trained.
        """
        rows = super().inverse_transform(X)
        return rows if self.dims is None else rows.reshape(-1, *self.dims)

    def score(self, X: ArrayLike, y: object = None) -> float:
        """See :meth:`fastpdr.ParametricTSNE.score`; X may have the shape ``dims``."""
        return super().score(_flat(X))

    def add_landmarks(
        self,
        X: ArrayLike,
        sample_pct: float = 0.01,
        sample_mode: str = "uniform",
        landmark_loss_weight: float = 0.01,
        idx: ArrayLike | None = None,
        reset_optimizer: bool = True,
    ) -> None:
        """Keep rows of earlier data: the following fits train on them too and hold them where they lie.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Rows that lie on the map.
        sample_pct : float
            Share of the rows to keep, drawn at random; at least one.
        sample_mode : {"uniform", "predetermined"}
            Draw rows, or take those of ``idx``.
        landmark_loss_weight : float
            Becomes the parameter of this name.
        idx : array-like of int, optional
            Rows to take.
        reset_optimizer : ignored
            Every fit has an optimizer of its own.
        """
        check_is_fitted(self)
        rows = np.asarray(_flat(X))
        self.prev_epoch_idx = self._choose(len(rows), sample_pct, sample_mode, idx)
        self.prev_epoch_X = rows[self.prev_epoch_idx]
        self.landmark_loss_weight = landmark_loss_weight

    def remove_landmarks(self) -> None:
        """Forget the rows of :meth:`add_landmarks`."""
        self.prev_epoch_X = None

    def save(  # type: ignore[override]
        self, save_location: str | os.PathLike[str], verbose: bool = True, exclude_raw_data: bool = False
    ) -> None:
        """Save the map as a folder that :func:`load_ParametricUMAP` and :func:`fastpdr.load` read.

        Parameters
        ----------
        save_location : path-like
            The folder; made if missing, an older model in it is replaced.
        verbose : bool
            Tell the logger "fastpdr".
        exclude_raw_data : ignored
            Training data is never saved.
        """
        super().save(save_location, overwrite=True)
        if verbose:
            LOG.info("%s: saved to %s", NAME, save_location)

    def to_ONNX(self, save_location: str | os.PathLike[str]) -> None:  # noqa: N802 umap-learn's name
        """Write the map as an ONNX file; see :func:`fastpdr.to_onnx`.

        Parameters
        ----------
        save_location : path-like
            The file. Its input is rows ``[rows, d]``, flat where they have several ``dims``.
        """
        self.to_onnx(save_location)

    @property
    def _history(self) -> dict[str, list[float]]:
        """The losses under the name that umap-learn's documentation draws them by."""
        return {"loss": self.loss_history_}

    def _saved(self) -> estimators.ParametricUMAP:
        return self._inner(self)

    def _require_possible(self) -> None:
        for name, wanted in IMPOSSIBLE.items():
            if getattr(self, name):
                raise ValueError(f"{NAME}: {name} must be {wanted}, got {getattr(self, name)!r}")
        if self.output_metric not in ("euclidean", "l2"):
            raise ValueError(f"{NAME}: output_metric must be 'euclidean', got {self.output_metric!r}")
        for name in ("encoder", "decoder"):
            network = getattr(self, name)
            if network is not None and not isinstance(network, nn.Module):
                kind = f"{type(network).__module__}.{type(network).__qualname__}"
                raise ValueError(f"{NAME}: {name} must be a torch.nn.Module or None, got {kind}")
        for name in ("landmark_loss_fn", "parametric_reconstruction_loss_fcn"):
            kind = _module_of(getattr(self, name))
            if kind.split(".")[0] in ("keras", "tensorflow"):
                raise ValueError(f"{NAME}: {name} must be a function of torch tensors, got one of {kind}")
        self._require_metric()
        if isinstance(self.init, str) and self.init not in INITS:
            raise ValueError(f"{NAME}: init must be an array or one of {', '.join(INITS)}, got {self.init!r}")
        epochs = self.n_training_epochs
        if not isinstance(epochs, int | np.integer) or epochs < 1:
            raise ValueError(f"{NAME}: n_training_epochs must be an integer >= 1, got {epochs!r}")

    def _require_metric(self) -> None:
        if callable(self.metric):
            raise ValueError(f"{NAME}: metric must be a name, got a function")
        if self.metric == "precomputed" and self.unique:
            raise ValueError(f"{NAME}: unique must be False with metric='precomputed', got True")
        if self.metric != "precomputed" and not _is_given(self.precomputed_knn):
            known_metric(NAME, self.metric)
        longest = self.disconnection_distance
        if longest is not None and not (isinstance(longest, int | float | np.number) and longest > 0):
            raise ValueError(f"{NAME}: disconnection_distance must be None or a number > 0, got {longest!r}")

    def _train(self, X: Any, y: Any, distances: Any, landmarks: Any, start: ParametricUMAP | None) -> ParametricUMAP:
        self._log_without_effect()
        kept = np.sort(np.unique(np.asarray(X), axis=0, return_index=True)[1]) if self.unique else None
        rows, targets, positions = (_take(part, kept) for part in (X, y, landmarks))
        inner = self._inner(start)
        inner.precomputed_knn = self._graph(np.asarray(rows), distances)
        (inner.fit if start is None else inner.partial_fit)(rows, targets, positions)
        self._adopt(inner)
        if kept is not None:
            self.embedding_ = super().transform(X)
        return self

    def _log_without_effect(self) -> None:
        defaults = inspect.signature(ParametricUMAP).parameters
        given = [name for name in WITHOUT_EFFECT if _differs(getattr(self, name), defaults[name].default)]
        if given:
            LOG.info("%s: without effect here: %s", NAME, ", ".join(given))

    def _inner(self, start: ParametricUMAP | None) -> _Training:
        """The estimator that does the work; with what `start` has learnt."""
        shaped, flat = len(self.dims or ()) > 1, nn.Flatten(1)
        encoder, decoder = self.encoder, self.decoder if self.parametric_reconstruction else None
        if shaped and encoder is not None:
            encoder = nn.Sequential(nn.Unflatten(1, tuple(self.dims)), encoder)
        if shaped and decoder is not None:
            decoder = nn.Sequential(decoder, flat)
        inner = _Training(
            **{name: getattr(self, name) for name in SHARED},
            init=self.init if not isinstance(self.init, str) or self.init == "pca" else "random",
            landmark_loss_fn=_turned(self.landmark_loss_fn),
            parametric_reconstruction_loss_fcn=_turned(self.parametric_reconstruction_loss_fcn),
            encoder=encoder,
            decoder=decoder,
        )
        inner.repeats = int(self.n_training_epochs)
        if start is not None:
            inner.__dict__.update(_learnt(start))
        return inner

    def _adopt(self, trained: estimators.ParametricUMAP) -> None:
        self.__dict__.update(_learnt(trained))

    def _graph(self, X: NDArray[Any], distances: Any) -> KNNGraph | None:
        """The neighbours where the training is not to find them itself: given, from distances, or with edges cut."""
        n, wanted = len(X), min(int(self.n_neighbors), len(X)) - 1
        graph = given_graph(self.precomputed_knn, str(self.metric), NAME)
        if graph is not None and (graph.n != n or graph.k < wanted):
            warnings.warn(
                f"{NAME}: precomputed_knn is of {graph.n} rows and {graph.k} neighbours, not of {n} rows and at least "
                f"{wanted}: ignored",
                stacklevel=4,
            )
            graph = None
        if graph is None and self.metric == "precomputed":
            graph = _nearest(distances, n, wanted)
        if self.disconnection_distance is None:
            return graph
        if graph is None:
            seed = draw_seed(self.random_state)
            graph = KNNGraph.build(X, wanted, metric=self.metric, n_jobs=self.n_jobs, random_state=seed)
        return _cut(graph.take(wanted), float(self.disconnection_distance))

    def _with_landmarks(self, X: Any, y: Any, earlier: NDArray[Any]) -> tuple[NDArray[Any], Any, NDArray[Any]]:
        rows = np.asarray(X)
        free = np.full((len(rows), self.n_components), np.nan, dtype=np.float32)
        held = super().transform(earlier)
        if y is not None:
            if self.target_metric != "categorical" or np.asarray(y).dtype.kind not in "biuf":
                raise ValueError(f"{NAME}: y must be None or numbers for classes where there are landmarks, got others")
            y = np.concatenate([np.asarray(y).ravel(), np.full(len(held), -1)])
        return np.concatenate([rows, earlier]), y, np.concatenate([free, held])

    def _choose(self, n: int, share: float, mode: str, idx: Any) -> NDArray[np.intp]:
        if mode == "predetermined" and idx is not None:
            return np.asarray(idx)
        if mode != "uniform" or not 0 < share <= 1:
            raise ValueError(
                f"{NAME}: sample_mode must be 'uniform' with sample_pct in (0, 1], or 'predetermined' with idx, "
                f"got {mode!r}, {share!r}, idx={idx!r}"
            )
        return np.random.default_rng(draw_seed(self.random_state)).choice(n, max(1, int(n * share)), replace=False)


class _Training(estimators.ParametricUMAP):
    """The estimator of a translated fit."""

    repeats = 1

    def _make_settings(self, fit: Fit, objective: Objective, unit: float) -> TrainingSettings:
        settings = super()._make_settings(fit, objective, unit)
        return replace(settings, n_epochs=self.repeats * settings.n_epochs)

    def _make_terms(self, fit: Fit) -> list[nn.Module]:
        terms: list[Any] = super()._make_terms(fit)
        for term in terms:
            # umap-learn takes the mean over an edge and its negative samples: its loss is so many times smaller.
            term.weight *= 1 + self.negative_sample_rate
        return terms


# Messages and saved folders speak of the class that users know.
_Training.__name__ = _Training.__qualname__ = NAME


def load_ParametricUMAP(  # noqa: N802 umap-learn's name
    save_location: str | os.PathLike[str],
    verbose: bool = True,
    *,
    encoder: nn.Module | None = None,
    decoder: nn.Module | None = None,
    dims: Sequence[int] | None = None,
) -> ParametricUMAP:
    """Load what :meth:`ParametricUMAP.save` wrote, or :meth:`fastpdr.ParametricUMAP.save`; no pickle.

    Parameters
    ----------
    save_location : path-like
        The folder.
    verbose : bool
        Tell the logger "fastpdr".
    encoder, decoder, dims
        For a map that was trained with own networks: networks of the same architecture, and their ``dims``.

    Returns
    -------
    ParametricUMAP
        ``transform`` gives the same numbers. Training data and ``embedding_`` are not part of the folder.
    """
    reconstructs = decoder is not None
    blank = ParametricUMAP(dims=dims, encoder=encoder, decoder=decoder, parametric_reconstruction=reconstructs)
    networks = blank._inner(None)
    saved = estimators.load(save_location, encoder=networks.encoder, decoder=networks.decoder)
    if not isinstance(saved, estimators.ParametricUMAP):
        raise ValueError(f"load_ParametricUMAP: {save_location} holds a {type(saved).__name__}")
    umap = ParametricUMAP(dims=dims, encoder=encoder, decoder=decoder)
    umap.set_params(**{name: getattr(saved, name) for name in SHARED})
    umap._adopt(saved)
    if verbose:
        LOG.info("load_ParametricUMAP: loaded from %s", save_location)
    return umap


def _learnt(estimator: Any) -> dict[str, Any]:
    """The attributes that a fit leaves."""
    public = {name: value for name, value in vars(estimator).items() if name.endswith("_") and name[0] != "_"}
    return public | {name: value for name, value in vars(estimator).items() if name in ("_a", "_b")}


def _flat(X: Any) -> Any:
    """Rows of several dimensions as flat ones; anything else as it is."""
    return np.reshape(X, (len(X), -1)) if len(getattr(X, "shape", ())) > 2 else X


def _take(part: Any, kept: NDArray[np.intp] | None) -> Any:
    return part if part is None or kept is None else np.asarray(part)[kept]


def _turned(loss: Loss | None) -> Loss | None:
    """Keras has the truth first, PyTorch the prediction."""
    return None if loss is None else lambda prediction, truth: loss(truth, prediction)


def _module_of(function: Any) -> str:
    return getattr(function, "__module__", None) or type(function).__module__


def _is_given(knn: Any) -> bool:
    return isinstance(knn, KNNGraph) or (knn is not None and len(knn) > 0 and knn[0] is not None)


def _differs(value: Any, default: Any) -> bool:
    """Whether a parameter was given; arrays were, and empty arguments were not."""
    if isinstance(value, np.ndarray):
        return True
    return value != default and not (default is None and isinstance(value, dict) and not value)


def _nearest(distances: Any, n: int, k: int) -> KNNGraph:
    """The k nearest other rows by a matrix of distances."""
    if distances is None:
        raise ValueError(f"{NAME}: precomputed_distances must be given with metric='precomputed', got None")
    if hasattr(distances, "tocsr"):
        raise ValueError(f"{NAME}: precomputed_distances must be a dense array, got a sparse one")
    square = torch.from_numpy(np.array(distances, dtype=np.float64))
    if square.shape != (n, n):
        raise ValueError(f"{NAME}: precomputed_distances must be of shape {(n, n)}, got {tuple(square.shape)}")
    nearest = square.fill_diagonal_(math.inf).topk(k, largest=False)
    return KNNGraph.from_precomputed(nearest.indices, nearest.values, metric="precomputed")


def _cut(graph: KNNGraph, longest: float) -> KNNGraph:
    far = graph.distances >= longest
    indices, distances = np.where(far, -1, graph.indices), np.where(far, np.inf, graph.distances)
    return KNNGraph.from_precomputed(indices, distances, metric=graph.metric)
