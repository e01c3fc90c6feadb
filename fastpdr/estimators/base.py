"""What all estimators share: the scikit-learn contract, argument checks, the run of a training, transform, save.

A method adds its own parameters and says in ``_make_objective`` what a batch is compared with.
"""

from __future__ import annotations

import copy
import os
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils._param_validation import Hidden, Interval, StrOptions
from sklearn.utils.validation import check_is_fitted
from torch import nn

from fastpdr._memory import in_words, limited_to
from fastpdr._progress import LOG, phase
from fastpdr.data import Rows, TensorRows, in_one_piece, widened
from fastpdr.estimators.graphs import fitting_graph, given_graph
from fastpdr.estimators.inputs import require_finite, validated
from fastpdr.estimators.planning import plan_of, whole_bytes
from fastpdr.estimators.presets import NEIGHBORS, Level, Preset, level_of
from fastpdr.estimators.resolve import (
    draw_seed,
    explained_memory,
    first_rows,
    forked_generators,
    home_of,
    measure_noise,
    near_rows,
    place,
    prepared,
    principal_components,
    projection_of,
    reduced,
    require_width,
    resolve_device,
    use_bfloat16,
)
from fastpdr.estimators.resuming import open_checkpoints
from fastpdr.estimators.saving import save
from fastpdr.estimators.together import find_neighbors, own_neighbors, place_together, require_same
from fastpdr.graph import KNNGraph
from fastpdr.metrics import trustworthiness
from fastpdr.training import InputScaling, TrainingSettings, TrainingState, build_encoder, train
from fastpdr.training.callbacks import Callback, EarlyStopping, ProgressBar, close_callbacks
from fastpdr.training.checkpoints import Checkpoints
from fastpdr.training.encoder import ACTIVATIONS, Reduction
from fastpdr.training.loop import pretrain
from fastpdr.training.objectives import Objective
from fastpdr.training.ranks import current, watched
from fastpdr.training.rows import AsFloat32, Source

HIDDEN_DIMS = (256, 256, 256, 256, 128)
CHECKPOINT_EVERY = 60.0  # seconds
FULLY_SCORED_ROWS, SCORED_ROWS, DRAWN_ROWS = 10_000, 2_000, 20_000


@dataclass(frozen=True)
class Fit:
    """What the parts of one fit are made from."""

    X: Rows  # [n, d] as validated
    device: torch.device  # that trains
    raw: torch.Tensor | Rows  # X there, in floating point and in one piece, or as it stands
    scaling: InputScaling  # of the built-in encoder
    rows: Source  # [n, d] float32, scaled so
    inputs: Source  # [n, ...] float32, what the encoder to train reads: raw, the rows, or their components
    measured: Source  # [n, ...] float32, where distances are those of the rows: they, or their components
    y: Any  # what the user gave, or None
    landmarks: Any  # likewise
    resumed: bool  # whether the map that there is is trained on
    seed: int
    generator: torch.Generator  # where the rows are


class ParametricEmbedding(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Base of the estimators; see :class:`fastpdr.ParametricTSNE` for the parameters."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "hidden_dims": ["array-like"],
        "activation": [StrOptions(set(ACTIVATIONS))],
        "encoder": [nn.Module, None],
        "n_epochs": [Interval(Integral, 1, None, closed="left"), None],
        "batch_size": [Interval(Integral, 2, None, closed="left"), None],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "lr_schedule": [StrOptions({"cosine", "linear", "constant"})],
        "optimizer": [StrOptions({"adamw", "adam", "sgd", "rmsprop"})],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "early_exaggeration": [Interval(Real, 0, None, closed="neither")],
        "early_exaggeration_epochs": [Interval(Integral, 0, None, closed="left")],
        "early_stopping_patience": [Interval(Integral, 1, None, closed="left"), None],
        "early_stopping_min_delta": [Interval(Real, 0, None, closed="left")],
        "dof": [Interval(Real, 0, None, closed="neither")],
        "clip_grad_value": [Interval(Real, 0, None, closed="neither"), None],
        "clip_grad_norm": [Interval(Real, 0, None, closed="neither"), None],
        "extra_components": [Interval(Integral, 0, None, closed="left")],
        "input_noise": [Interval(Real, 0, None, closed="left"), StrOptions({"auto"})],
        "neighbor_noise": [Interval(Real, 0, None, closed="left"), StrOptions({"auto"})],
        "preset": [StrOptions({"fast", "best"})],
        "init": [StrOptions({"random", "pca"}), "array-like"],
        "precision": [StrOptions({"auto", "float32", "bfloat16"})],
        "device": [str, torch.device],
        "precomputed_knn": [KNNGraph, tuple, list, None],
        "n_jobs": [Integral, None],
        "random_state": ["random_state", Hidden(np.random.Generator)],
        "callbacks": [list, tuple, None],
        "memory_limit": [Interval(Integral, 1, None, closed="left"), str, None],
        "max_time": [Interval(Real, 0, None, closed="neither"), None],
        "checkpoint_dir": [str, os.PathLike, None],
        "checkpoint_every": [Interval(Real, 0, None, closed="left")],
        "resume": ["boolean", StrOptions({"auto"})],
        "verbose": ["verbose"],
    }

    _presets: ClassVar[Mapping[str, Preset]]

    n_components: int
    hidden_dims: Sequence[int]
    activation: str
    encoder: nn.Module | None
    n_epochs: int | None
    batch_size: int | None
    learning_rate: float
    lr_schedule: str
    optimizer: str
    weight_decay: float
    early_exaggeration: float
    early_exaggeration_epochs: int
    early_stopping_patience: int | None
    early_stopping_min_delta: float
    dof: float
    clip_grad_value: float | None
    clip_grad_norm: float | None
    extra_components: int
    input_noise: float | str
    neighbor_noise: float | str
    preset: str
    init: str | ArrayLike
    precision: str
    device: str | torch.device
    metric: str = "euclidean"  # a parameter of some
    precomputed_knn: Any
    n_jobs: int | None
    random_state: Any
    callbacks: Sequence[Callback | Callable[[TrainingState], bool | None]] | None
    # A subclass that has its own signature need not have these.
    memory_limit: int | str | None = None
    max_time: float | None = None
    checkpoint_dir: str | os.PathLike[str] | None = None
    checkpoint_every: float = CHECKPOINT_EVERY
    resume: bool | str = "auto"
    verbose: bool | int

    def _set_parameters(self, parameters: dict[str, Any]) -> None:
        """Store the arguments of ``__init__`` (its ``locals()``) under their own names, untouched."""
        self.__dict__.update({name: value for name, value in parameters.items() if name not in ("self", "__class__")})

    def fit(self, X: ArrayLike, y: Any = None) -> ParametricEmbedding:
        """Learn the map.

        Parameters
        ----------
        X : array-like, memory map, sparse matrix, tensor, data set, Shards or path, of shape (n, d)
            Rows of finite numbers of any numeric dtype, at least two. Scale the columns yourself where their units
            differ; one common factor and the mean are taken care of. Rows that do not fit in memory as float32 are
            read batch by batch: of a .npy file or a folder of such (by path, memory map or :class:`fastpdr.Shards`),
            a SciPy CSR matrix, an array of small numbers, a PyTorch tensor, or a data set of PyTorch with ``len()`` and
            ``__getitems__``, whose items are rows or tuples that begin with one.
        y : ignored

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a parameter or X is not as documented; before any training.
        FloatingPointError
            If the loss stops being finite.
        MemoryError
            If the fit would take more memory than there is, or than ``memory_limit``; before any training.
        OSError
            If a file cannot be read, or ``checkpoint_dir`` cannot be written to; FileNotFoundError if there is nothing
            to resume.
        """
        return self._learn(X)

    @watched
    def _learn(
        self, X: ArrayLike, y: Any = None, landmarks: Any = None, *, start: nn.Module | None = None
    ) -> ParametricEmbedding:
        """Run a fit; from the encoder `start`, if there is one."""
        begin = time.perf_counter()
        self._validate_params()
        data, name = validated(self, X, minimum=2, reset=start is None), type(self).__name__
        device, ranks = resolve_device(self.device), current()
        if data.device.type == "cuda" and data.device != torch.empty(0, device=device).device:
            data = TensorRows(data.block(0, len(data)).to(device))
        require_same(data, ranks, name)
        (n, d), wide = data.shape, widened(data.block(0, 0)).itemsize
        plan = plan_of(self, n, d, data.dtype, data.in_memory)
        plan.require()
        LOG.debug("%s: rows held %s, %s of memory at most", name, plan.rows, in_words(plan.host))
        checkpoints = open_checkpoints(self, data, y, landmarks, start, device, ranks)
        seed = draw_seed(self.random_state) if checkpoints is None or checkpoints.seed is None else checkpoints.seed
        seed = ranks.same(seed)
        if checkpoints is not None:
            checkpoints.seed = seed
        whole = plan.rows == "whole" and ranks.size == 1
        home = home_of(whole_bytes(-(-n // ranks.size), d, wide), device) if plan.rows == "whole" else data.device
        if home != device or plan.rows != "whole":
            LOG.info("%s: X stays where it is; batches are made of it ahead of the training", name)
        advice = "take a smaller batch_size, narrower hidden_dims or another encoder, or device='cpu'"
        with forked_generators(seed, device), explained_memory(name, data.shape, advice), limited_to(plan.limit):
            raw = in_one_piece(data).to(home) if whole else data
            scaling, rows, inputs, axes = self._read(raw, home, start)
            encoder = self._make_encoder(scaling, inputs, start, device)
            ranks.alike(encoder)
            fit = Fit(
                X=data,
                device=device,
                raw=raw,
                scaling=scaling,
                rows=rows,
                inputs=inputs,
                measured=inputs if self.encoder is None else rows,
                y=y,
                landmarks=landmarks,
                resumed=start is not None,
                seed=seed,
                generator=torch.Generator(home).manual_seed(seed),
            )
            hold = home if plan.rows == "whole" else None
            state, terms = self._teach(encoder, fit, axes, checkpoints, hold)
            if self.encoder is None:
                encoder[1].keep_outputs(self.n_components)
            if axes is not None:
                encoder[1].absorb_projection(axes.to(device))
        self.encoder_ = encoder.eval()
        self._keep(state, terms, fit)
        self._count("n_samples_seen_", len(data), fit.resumed)
        self._count("training_seconds_", time.perf_counter() - begin, fit.resumed)
        with phase(f"{name}: placing {len(data)} rows"):
            self.embedding_ = place_together(data, ranks, lambda part: self._place(part, self.encoder_))
        return self

    def fit_transform(self, X: ArrayLike, y: Any = None, **fit_params: Any) -> NDArray[np.float32]:
        """Learn the map and return that of X; the same numbers as ``transform(X)``.

        Parameters
        ----------
        X, y
            As for :meth:`fit`.
        **fit_params
            What the method's :meth:`fit` takes beside them.

        Returns
        -------
        ndarray of shape (n, n_components), float32
        """
        return self.fit(X, y, **fit_params).embedding_

    def transform(self, X: ArrayLike) -> NDArray[np.float32]:
        """Place rows on the map.

        Each row's place depends on that row alone: not on the others, their order or their number.

        Parameters
        ----------
        X : array-like, or anything else that :meth:`fit` takes, of shape (m, d)
            Rows with the columns of the training data; read in blocks, so that only the result is in memory as a whole.

        Returns
        -------
        ndarray of shape (m, n_components), float32
        """
        check_is_fitted(self)
        data = validated(self, X, finite=False)
        with phase(f"{type(self).__name__}: placing {len(data)} rows"):
            return self._place(data, self.encoder_)

    def score(self, X: ArrayLike, y: object = None) -> float:
        """How well the map keeps the neighbours of rows: their trustworthiness, for model selection on held-out rows.

        Parameters
        ----------
        X : array-like of shape (m, d)
            At least three rows; placed and judged among themselves, with 12 neighbours or as many as m allows.
            Beyond 10,000 rows 2,000 of them are judged; of files, sparse matrices and data sets of more than 20,000
            rows, so many are drawn first.
        y : ignored

        Returns
        -------
        float
            From 0 to 1, 1 is best (:func:`fastpdr.metrics.trustworthiness`).
        """
        check_is_fitted(self)
        data = validated(self, X, minimum=3, finite=False)
        if not data.in_memory and len(data) > DRAWN_ROWS:
            drawn = np.random.default_rng(0).choice(len(data), DRAWN_ROWS, replace=False)
            data = TensorRows(data.take(torch.from_numpy(np.sort(drawn))))
        sample = SCORED_ROWS if len(data) > FULLY_SCORED_ROWS else None
        judged = in_one_piece(data).cpu().numpy()
        return trustworthiness(
            judged, self._place(data, self.encoder_), n_neighbors=min(12, (len(data) - 1) // 2), sample=sample
        )

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Save the fitted map as a folder: ``config.json`` and ``encoder.safetensors``, no pickle, no training data.

        Parameters
        ----------
        path : path-like
            The folder; made if missing.
        overwrite : bool
            Replace a model that is already there.

        Raises
        ------
        FileExistsError
            If the folder holds something and ``overwrite`` is false, or something that is no model of ours.
        OSError
            If it cannot be written; what was there before is left.
        """
        save(self, path, overwrite=overwrite)

    def to_onnx(self, path: str | os.PathLike[str]) -> None:
        """Write the map as an ONNX file, checked by onnxruntime; see :func:`fastpdr.to_onnx`.

        Parameters
        ----------
        path : path-like
            The file, as ``map.onnx``; an older one is replaced once the new one has passed its check.

        Raises
        ------
        ModuleNotFoundError, ValueError, RuntimeError, OSError
            As :func:`fastpdr.to_onnx`.
        """
        from fastpdr.estimators.export import to_onnx

        to_onnx(self, path)

    def to_exported_program(self, path: str | os.PathLike[str] | None = None) -> torch.export.ExportedProgram:
        """Return the map as a program that PyTorch runs without fastpdr; see :func:`fastpdr.to_exported_program`.

        Parameters
        ----------
        path : path-like, optional
            A file to write it to as well, as ``map.pt2``.

        Returns
        -------
        torch.export.ExportedProgram

        Raises
        ------
        ValueError, RuntimeError, OSError
            As :func:`fastpdr.to_exported_program`.
        """
        from fastpdr.estimators.export import to_exported_program

        return to_exported_program(self, path)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        tags.input_tags.sparse = True
        return tags

    @property
    def _n_features_out(self) -> int:
        return self.n_components

    @abstractmethod
    def _make_objective(self, fit: Fit) -> Objective:
        """Say what a batch is compared with."""

    @abstractmethod
    def _compares_with_graph(self, n: int) -> bool:
        """Whether a map of n rows is compared with one graph of similarities, not with those of each batch."""

    @abstractmethod
    def _count_neighbors(self, n: int) -> int:
        """Return how many other rows of n the graph of neighbours needs for each; 0 where there is no graph."""

    def _neighbors(self, fit: Fit, among: torch.Tensor | None = None) -> KNNGraph:
        """The nearest other rows, as many as needed, found or given; found among the rows of X unless told others."""
        k, name = self._count_neighbors(len(fit.X)), type(self).__name__
        given = given_graph(self.precomputed_knn, self.metric, name)
        if given is not None:
            return own_neighbors(fitting_graph(given, len(fit.X), k, name))
        raw = fit.raw.tensor if isinstance(fit.raw, TensorRows) else fit.raw
        return find_neighbors(
            raw if among is None else among,
            k,
            metric=self.metric,
            n_jobs=self.n_jobs,
            random_state=fit.seed,
            verbose=bool(self.verbose),
        )

    def _make_terms(self, fit: Fit) -> list[nn.Module]:
        """Return further parts of the loss."""
        return []

    def _level(self, n: int) -> Level:
        """What the preset says for n rows."""
        return level_of(self._presets[self.preset], n)

    def _neighbor_noise(self, n: int) -> float:
        """Noise from neighbours in a training of n rows."""
        return self._level(n).neighbor_noise if self.neighbor_noise == "auto" else float(self.neighbor_noise)

    def _moving_rows(self, graph: KNNGraph | None, n: int) -> torch.Tensor | None:
        """The rows of the graph ``[n, k]`` by which the noise moves each row; None where there is no such noise."""
        return None if graph is None or self._neighbor_noise(n) == 0 else near_rows(graph, NEIGHBORS)

    @abstractmethod
    def _automatic_epochs(self, per_epoch: int, n: int) -> int:
        """Return how many epochs of so many batches the method trains n rows by itself."""

    def _keep(self, state: TrainingState, terms: Sequence[nn.Module], fit: Fit) -> None:
        """Store what a training leaves beside the encoder."""
        earlier = (self.loss_history_, self.n_iter_) if fit.resumed else ([], 0)
        self.loss_history_: list[float] = earlier[0] + state.loss_history
        self.n_iter_: int = earlier[1] + state.epoch

    def _count(self, name: str, value: float, resumed: bool) -> None:
        """Add to a sum over fits that go on; unknown in models of folders that do not hold it, it stays unknown."""
        earlier = getattr(self, name, None) if resumed else 0
        setattr(self, name, None if earlier is None else earlier + value)

    def _saved(self) -> ParametricEmbedding:
        """The estimator that a saved folder describes: one that ``load`` knows."""
        return self

    def _make_encoder(
        self, scaling: InputScaling, inputs: Source, start: nn.Module | None, device: torch.device
    ) -> Any:
        """The network to train, on the device, which without its scaling reads the inputs."""
        if start is not None:
            return copy.deepcopy(start).to(device)
        if self.encoder is None:
            widths = [int(width) for width in self.hidden_dims]
            if any(width < 1 for width in widths):
                raise ValueError(f"{type(self).__name__}: hidden_dims must be widths >= 1, got {self.hidden_dims!r}")
            n_outputs = self.n_components + self.extra_components
            return build_encoder(scaling, n_outputs, widths, self.activation, inputs.shape[1]).to(device)
        encoder = copy.deepcopy(self.encoder).to(device)
        require_width("encoder", encoder, first_rows(inputs, 2).to(device), self.n_components, type(self).__name__)
        return encoder

    def _make_settings(self, fit: Fit, objective: Objective, unit: float) -> TrainingSettings:
        """The loop's numbers; `unit` is what 1 in the scaled rows is in an own encoder's input."""
        n, automatic = len(fit.rows), self.input_noise == "auto"
        return TrainingSettings(
            n_components=self.n_components,
            n_epochs=self.n_epochs or self._automatic_epochs(objective.per_epoch, n),
            batch_size=self._batch_size(n),
            learning_rate=self.learning_rate,
            lr_schedule=self.lr_schedule,
            optimizer=self.optimizer,
            weight_decay=self.weight_decay,
            exaggeration=self.early_exaggeration,
            exaggeration_epochs=self.early_exaggeration_epochs,
            clip_grad_value=self.clip_grad_value,
            clip_grad_norm=self.clip_grad_norm,
            input_noise=unit * self._level(n).input_noise * measure_noise(fit.measured, fit.generator)
            if automatic
            else float(self.input_noise),
            neighbor_noise=self._neighbor_noise(n),
            bfloat16=use_bfloat16(self.precision, fit.device),
            max_time=self.max_time,
        )

    def _batch_size(self, n: int) -> int:
        """Rows of a batch."""
        return self.batch_size or self._level(n).batch_size

    def _initial_map(self, rows: Source) -> torch.Tensor | None:
        """What the encoder is taught before the training: nothing, principal components, or the user's map."""
        n, name = len(rows), type(self).__name__
        if isinstance(self.init, str):
            return None if self.init == "random" else principal_components(rows, self.n_components)
        target = torch.as_tensor(np.asarray(self.init, dtype=np.float32), device=rows.device)
        if target.shape != (n, self.n_components) or not bool(target.isfinite().all()):
            raise ValueError(
                f"{name}: init must be finite, of shape ({n}, {self.n_components}), got shape {tuple(target.shape)}"
            )
        return target

    def _read(
        self, raw: torch.Tensor | Rows, home: torch.device, start: nn.Module | None
    ) -> tuple[Any, Source, Source, torch.Tensor | None]:
        """What scales rows, the rows so scaled, what the encoder reads, and the axes where these are components."""
        if self.encoder is not None:
            own = InputScaling.fit(raw)
            return own, prepared(raw, own), prepared(raw, AsFloat32()), None
        scaling: Any = InputScaling.fit(raw) if start is None else start.get_submodule("0").to(home)
        rows = prepared(raw, scaling)
        axes = current().same(projection_of(rows) if start is None else None)
        return scaling, rows, rows if axes is None else reduced(rows, axes), axes

    def _teach(
        self,
        encoder: Any,
        fit: Fit,
        axes: torch.Tensor | None,
        checkpoints: Checkpoints | None,
        hold: torch.device | None,
    ) -> tuple[TrainingState, Sequence[nn.Module]]:
        """Train the encoder, which reads components of the rows where there are axes ``[d, components]`` of them."""
        own = self.encoder is not None
        network = encoder if own else encoder[1]
        whole_network = network if own else nn.Sequential(encoder[0], Reduction(axes).to(fit.device), network)
        objective, terms = self._make_objective(fit), self._make_terms(fit)
        settings = current().same(self._make_settings(fit, objective, float(fit.scaling.scale) if own else 1.0))
        target = None if fit.resumed else self._initial_map(fit.rows)
        if target is not None and (checkpoints is None or checkpoints.found is None):
            pretrain(network, fit.inputs, target, settings, fit.generator)
            current().alike(network)
        observer = self._observer(whole_network)
        return self._run(network, fit, objective, settings, observer, terms, checkpoints, hold), terms

    def _run(
        self,
        network: nn.Module,
        fit: Fit,
        objective: Objective,
        settings: TrainingSettings,
        transform: Callable[[ArrayLike], NDArray[np.float32]],
        terms: Sequence[nn.Module],
        checkpoints: Checkpoints | None,
        hold: torch.device | None,
    ) -> TrainingState:
        ranks = current()
        watches = ranks.rank == 0
        callbacks: list[Callback | Callable[[TrainingState], bool | None]] = list(self.callbacks or ()) * watches
        if self.early_stopping_patience is not None:
            callbacks.append(EarlyStopping(self.early_stopping_patience, self.early_stopping_min_delta))
        if self.verbose and watches:
            callbacks.insert(0, ProgressBar(settings.n_epochs, type(self).__name__))
        LOG.debug("%s", settings)
        name, length = type(self).__name__, f"at most {settings.n_epochs} epochs of {objective.per_epoch} steps"
        try:
            with phase(f"{name}: training on {fit.device}, {length}"):
                return train(
                    network,
                    fit.inputs,
                    objective,
                    settings,
                    fit.generator,
                    transform,
                    callbacks,
                    terms=terms,
                    checkpoints=checkpoints,
                    ranks=ranks,
                    hold=hold,
                )
        finally:
            close_callbacks(callbacks)

    def _observer(self, network: nn.Module) -> Callable[[ArrayLike], NDArray[np.float32]]:
        """What places rows with a network that is being trained, and lets it be trained on."""

        def transform(X: ArrayLike) -> NDArray[np.float32]:
            try:
                return self._place(validated(self, X, finite=False), network)
            finally:
                network.train()

        return transform

    def _place(self, X: Rows, network: nn.Module) -> NDArray[np.float32]:
        advice = "pass fewer rows at a time, or fit with device='cpu'"
        with explained_memory(type(self).__name__, X.shape, advice):
            return place(
                network,
                X,
                self.n_components,
                exact=self.encoder is None,
                verbose=bool(self.verbose),
                check=None if X.in_memory else partial(require_finite, self),
            )
