"""What all estimators share: the scikit-learn contract, argument checks, the run of a training, transform, save.

A method adds its own parameters and says in ``_make_objective`` what a batch is compared with.
"""

from __future__ import annotations

import copy
import math
import os
import secrets
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils._param_validation import Hidden, Interval, StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import nn

from fastpdr.estimators.saving import save
from fastpdr.metrics import trustworthiness
from fastpdr.training import InputScaling, TrainingSettings, TrainingState, build_encoder, train
from fastpdr.training.callbacks import Callback, EarlyStopping, ProgressBar
from fastpdr.training.encoder import ACTIVATIONS
from fastpdr.training.loop import pretrain
from fastpdr.training.objectives import BatchTSNE

ROWS_AT_ONCE = 8192  # of transform
FULLY_SCORED_ROWS, SCORED_ROWS = 10_000, 2_000


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
        "init": [StrOptions({"random", "pca"}), "array-like"],
        "precision": [StrOptions({"auto", "float32", "bfloat16"})],
        "device": [str, torch.device],
        "random_state": ["random_state", Hidden(np.random.Generator)],
        "callbacks": [list, tuple, None],
        "verbose": ["verbose"],
    }

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
    init: str | ArrayLike
    precision: str
    device: str | torch.device
    random_state: Any
    callbacks: Sequence[Callback | Callable[[TrainingState], bool | None]] | None
    verbose: bool | int

    def _set_parameters(self, parameters: dict[str, Any]) -> None:
        """Store the arguments of ``__init__`` (its ``locals()``) under their own names, untouched."""
        self.__dict__.update({name: value for name, value in parameters.items() if name not in ("self", "__class__")})

    def fit(self, X: ArrayLike, y: object = None) -> ParametricEmbedding:
        """Learn the map.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Rows of finite numbers of any numeric dtype, at least two. Scale the columns yourself where their units
            differ; one common factor and the mean are taken care of.
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
        """
        self._validate_params()
        data = self._validated(X, ensure_min_samples=2)
        objective = self._make_objective(len(data))
        device = resolve_device(self.device)
        seed = draw_seed(self.random_state)
        with forked_generators(seed, device):
            generator = torch.Generator(device).manual_seed(seed)
            raw = as_tensor(data).to(device)
            scaling = InputScaling.fit(raw)
            rows = scaling(raw)
            encoder, inputs = self._make_encoder(scaling, raw, rows)
            network = encoder[1] if self.encoder is None else encoder
            settings = self._make_settings(rows, 1.0 if self.encoder is None else float(scaling.scale), generator)
            target = self._initial_map(rows)
            if target is not None:
                pretrain(network, inputs, target, settings, generator)
            state = self._run(network, rows, inputs, objective, settings, generator)
            if self.encoder is None:
                encoder[1].keep_outputs(self.n_components)
        self.encoder_ = encoder.eval()
        self.loss_history_ = state.loss_history
        self.kl_divergence_ = state.loss_history[-1]
        self.n_iter_ = state.epoch
        self.embedding_ = self._place(data)
        return self

    def fit_transform(self, X: ArrayLike, y: object = None, **fit_params: object) -> NDArray[np.float32]:
        """Learn the map and return that of X; the same numbers as ``transform(X)``.

        Parameters
        ----------
        X : array-like of shape (n, d)
            As for :meth:`fit`.
        y : ignored

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
        X : array-like of shape (m, d)
            Rows with the columns of the training data.

        Returns
        -------
        ndarray of shape (m, n_components), float32
        """
        check_is_fitted(self)
        return self._place(self._validated(X, reset=False))

    def score(self, X: ArrayLike, y: object = None) -> float:
        """How well the map keeps the neighbours of rows: their trustworthiness, for model selection on held-out rows.

        Parameters
        ----------
        X : array-like of shape (m, d)
            At least three rows; placed and judged among themselves, with 12 neighbours or as many as m allows.
            Beyond 10,000 rows 2,000 of them are judged.
        y : ignored

        Returns
        -------
        float
            From 0 to 1, 1 is best (:func:`fastpdr.metrics.trustworthiness`).
        """
        check_is_fitted(self)
        data = self._validated(X, reset=False, ensure_min_samples=3)
        sample = SCORED_ROWS if len(data) > FULLY_SCORED_ROWS else None
        return trustworthiness(data, self._place(data), n_neighbors=min(12, (len(data) - 1) // 2), sample=sample)

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
        check_is_fitted(self)
        save(self, path, overwrite=overwrite)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    @property
    def _n_features_out(self) -> int:
        return self.n_components

    def _make_objective(self, n: int) -> BatchTSNE:
        raise NotImplementedError

    def _validated(self, X: ArrayLike, **checks: Any) -> NDArray[Any]:
        """X as finite float32 or float64 in rows one after another, checked as scikit-learn does."""
        return np.ascontiguousarray(validate_data(self, X, dtype=_dtypes(X), **checks))

    def _make_encoder(self, scaling: InputScaling, raw: torch.Tensor, rows: torch.Tensor) -> tuple[Any, torch.Tensor]:
        """The network to train, on the device, with the tensor it reads: scaled rows, or an own encoder's raw data."""
        if self.encoder is None:
            widths = [int(width) for width in self.hidden_dims]
            if any(width < 1 for width in widths):
                raise ValueError(f"{type(self).__name__}: hidden_dims must be widths >= 1, got {self.hidden_dims!r}")
            built_in = build_encoder(scaling, self.n_components + self.extra_components, widths, self.activation)
            return built_in.to(rows.device), rows
        encoder, inputs = copy.deepcopy(self.encoder).to(rows.device), raw.float()
        require_width(encoder, inputs[:2], self.n_components, type(self).__name__)
        return encoder, inputs

    def _make_settings(self, rows: torch.Tensor, unit: float, generator: torch.Generator) -> TrainingSettings:
        """The loop's numbers; `unit` is what 1 in the scaled rows is in the encoder's input."""
        batch_size = self.batch_size or automatic_batch_size(len(rows))
        noise = unit * measure_noise(rows, generator) if self.input_noise == "auto" else float(self.input_noise)
        return TrainingSettings(
            n_components=self.n_components,
            n_epochs=self.n_epochs or automatic_epochs(len(rows), batch_size),
            batch_size=batch_size,
            learning_rate=self.learning_rate,
            lr_schedule=self.lr_schedule,
            optimizer=self.optimizer,
            weight_decay=self.weight_decay,
            exaggeration=self.early_exaggeration,
            exaggeration_epochs=self.early_exaggeration_epochs,
            clip_grad_value=self.clip_grad_value,
            clip_grad_norm=self.clip_grad_norm,
            input_noise=noise,
            bfloat16=use_bfloat16(self.precision, rows.device),
        )

    def _initial_map(self, rows: torch.Tensor) -> torch.Tensor | None:
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

    def _run(
        self,
        network: nn.Module,
        rows: torch.Tensor,
        inputs: torch.Tensor,
        objective: BatchTSNE,
        settings: TrainingSettings,
        generator: torch.Generator,
    ) -> TrainingState:
        callbacks: list[Callback | Callable[[TrainingState], bool | None]] = list(self.callbacks or ())
        if self.early_stopping_patience is not None:
            callbacks.append(EarlyStopping(self.early_stopping_patience, self.early_stopping_min_delta))
        if not self.verbose:
            return train(network, rows, inputs, objective, settings, generator, callbacks)
        bar = ProgressBar(settings.n_epochs, type(self).__name__)
        try:
            return train(network, rows, inputs, objective, settings, generator, [bar, *callbacks])
        finally:
            bar.close()

    def _place(self, X: NDArray[Any]) -> NDArray[np.float32]:
        parameter = next(self.encoder_.parameters(), None)
        device = parameter.device if parameter is not None else torch.device("cpu")
        self.encoder_.eval()
        result = np.empty((len(X), self.n_components), dtype=np.float32)
        with torch.inference_mode(), torch.autocast(device.type, enabled=False):
            for begin in range(0, len(X), ROWS_AT_ONCE):
                part = as_tensor(X[begin : begin + ROWS_AT_ONCE]).to(device)
                part = part if self.encoder is None else part.float()
                result[begin : begin + ROWS_AT_ONCE] = self.encoder_(part).float().cpu().numpy()
        return result


def _dtypes(X: object) -> list[type]:
    """float32 and float64 stay; small types become float32, which holds them exactly, others float64."""
    dtype = getattr(X, "dtype", None)
    small = isinstance(dtype, np.dtype) and dtype.itemsize <= 2
    return [np.float32, np.float64] if small else [np.float64, np.float32]


def as_tensor(array: NDArray[Any]) -> torch.Tensor:
    """The array's own memory as a tensor, which nobody writes to: PyTorch's warning about read-only data is moot."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


def automatic_batch_size(n: int) -> int:
    """Rows per batch: 512, and 1024 from 10,000 rows on, where a small batch holds too few of a row's neighbours."""
    return 512 if n < 10_000 else 1024


def automatic_epochs(n: int, batch_size: int) -> int:
    """Epochs that make about 400 steps, at least 20."""
    return max(20, math.ceil(400 / math.ceil(n / batch_size)))


def resolve_device(device: str | torch.device) -> torch.device:
    """The device by name; "auto" takes a GPU where there is one."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
        torch.empty(0, device=resolved)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device must be 'auto', 'cpu', 'cuda' or 'cuda:<i>', got {device!r} ({reason})") from None
    if resolved.type == "meta":
        raise ValueError("device must be one that computes, got 'meta'")
    return resolved


def draw_seed(random_state: Any) -> int:
    """One seed from scikit-learn's random_state; None takes the operating system's, never a global generator's."""
    if random_state is None:
        return secrets.randbits(31)
    if isinstance(random_state, Integral):
        return int(random_state)
    draw = random_state.integers if isinstance(random_state, np.random.Generator) else random_state.randint
    return int(draw(2**31 - 1))


@contextmanager
def forked_generators(seed: int, device: torch.device) -> Iterator[None]:
    """Seed PyTorch's generators for what has no generator argument (weights, dropout), and put them back."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def use_bfloat16(precision: str, device: torch.device) -> bool:
    """Whether the encoder multiplies in bf16: "auto" does so where the device has units for it."""
    if precision != "auto":
        return precision == "bfloat16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        questions = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # private: a torch may lack them
        return any(getattr(torch.cpu, name, bool)() for name in questions)
    return False


def measure_noise(rows: torch.Tensor, generator: torch.Generator, share: float = 0.75) -> float:
    """Deviation per coordinate that moves a row by a share of the median distance to its nearest neighbour.

    Measured between up to 512 rows and up to 20,000 others.
    """
    n, d = rows.shape
    order = torch.randperm(n, generator=generator, device=rows.device)
    others = rows[order[:20_000]]
    anchors = others[:512]
    square = others.square().sum(1)
    sqdist = torch.addmm(square[None, :], anchors, others.T, alpha=-2) + square[: len(anchors), None]
    sqdist.fill_diagonal_(torch.inf)
    nearest = sqdist.amin(1).clamp_min(0).sqrt()
    return share * float(nearest.median()) / math.sqrt(d)


def principal_components(rows: torch.Tensor, count: int) -> torch.Tensor:
    """First principal components ``[n, count]``, the largest with deviation 1; zeros where the data has no more."""
    centred = rows - rows.mean(0)
    q = min(count, *centred.shape)
    _, _, v = torch.svd_lowrank(centred, q=min(q + 6, *centred.shape))
    scores = centred @ v[:, :q]
    scores = scores / scores[:, 0].std().clamp_min(1e-12)
    return torch.nn.functional.pad(scores, (0, count - q))


def require_width(encoder: nn.Module, rows: torch.Tensor, n_components: int, name: str) -> None:
    """Try the encoder on two rows: its output must be ``[2, n_components]``."""
    encoder.eval()
    try:
        with torch.inference_mode():
            y = encoder(rows)
    except Exception as error:
        raise ValueError(f"{name}: encoder fails on rows of shape {tuple(rows.shape)}: {error}") from error
    shape = tuple(y.shape) if isinstance(y, torch.Tensor) else type(y).__name__
    if shape != (len(rows), n_components):
        raise ValueError(
            f"{name}: encoder must map [b, {rows.shape[1]}] to [b, n_components={n_components}], "
            f"got {shape} from {len(rows)} rows"
        )


def perplexity_list(values: float | Sequence[float], n: int, name: str, argument: str) -> list[float]:
    """Perplexities as numbers within what n rows can reach."""
    levels = [float(value) for value in np.atleast_1d(np.asarray(values, dtype=float))]
    if not levels or not all(1.0 <= level < n for level in levels):
        raise ValueError(
            f"{name}: {argument} must be at least 1 and less than the number of rows, got {values!r} with n = {n} rows"
        )
    return levels
