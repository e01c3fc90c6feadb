"""msp_tsne's ParametricTSNE and MultiscaleParametricTSNE by their own names: change the import, keep the script.

Their signatures, defaults included, over :class:`fastpdr.ParametricTSNE` and :class:`fastpdr.MultiscaleParametricTSNE`,
whose network, batches, schedule and search for perplexities they train with. docs/coming-from.md says what differs.
"""

from __future__ import annotations

import math
import os
import warnings
from abc import abstractmethod
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import _num_samples, check_is_fitted
from torch import nn

from fastpdr import estimators
from fastpdr.tracking import TensorBoard

__all__ = ["MultiscaleParametricTSNE", "ParametricTSNE"]


class _Adapter(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Translates parameters, has one of our estimators do the work, and answers by the other package's names."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "n_iter": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 2, None, closed="left"), None],
        "early_exaggeration_epochs": [Interval(Integral, 0, None, closed="left")],
        "early_exaggeration_value": [Interval(Real, 0, None, closed="neither")],
        "early_stopping_epochs": [Interval(Real, 1, None, closed="both")],
        "early_stopping_min_improvement": [Interval(Real, 0, None, closed="left")],
        "alpha": [Interval(Real, 0, None, closed="neither")],
        "nl1": [Interval(Integral, 1, None, closed="left")],
        "nl2": [Interval(Integral, 1, None, closed="left")],
        "nl3": [Interval(Integral, 1, None, closed="left")],
        "logdir": [str, os.PathLike, None],
        "verbose": ["verbose"],
        "device": [str, torch.device],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "random_state": ["random_state"],
    }

    n_components: int
    n_iter: int
    batch_size: int | None
    early_exaggeration_epochs: int
    early_exaggeration_value: float
    early_stopping_epochs: float
    early_stopping_min_improvement: float
    alpha: float
    nl1: int
    nl2: int
    nl3: int
    logdir: str | os.PathLike[str] | None
    verbose: int
    device: str | torch.device
    lr: float
    random_state: Any

    def _set_parameters(self, parameters: dict[str, Any]) -> None:
        """Store the arguments of ``__init__`` (its ``locals()``) under their own names, untouched."""
        self.__dict__.update({name: value for name, value in parameters.items() if name not in ("self", "__class__")})

    def fit(self, X: ArrayLike, y: object = None) -> Any:
        """Learn the map of rows ``[n, d]``; y is ignored. ``estimator_`` is the trained estimator of ours."""
        self._validate_params()
        self.estimator_ = self._translated(_num_samples(X)).fit(X)
        return self

    def fit_transform(self, X: ArrayLike, y: object = None, **fit_params: Any) -> NDArray[np.float32]:
        """Learn the map and return that of X, ``[n, n_components]`` float32."""
        return self.fit(X, y, **fit_params).estimator_.embedding_

    def transform(self, X: ArrayLike) -> NDArray[np.float32]:
        """Place rows ``[m, d]`` on the map, ``[m, n_components]`` float32."""
        check_is_fitted(self)
        return self.estimator_.transform(X)

    def score(self, X: ArrayLike, y: object = None) -> float:
        """Trustworthiness of rows ``[m, d]``, for model selection; see :meth:`fastpdr.ParametricTSNE.score`."""
        check_is_fitted(self)
        return self.estimator_.score(X)

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Save the map as a folder that :func:`fastpdr.load` reads; see :meth:`fastpdr.ParametricTSNE.save`."""
        check_is_fitted(self)
        self.estimator_.save(path, overwrite=overwrite)

    @property
    def model(self) -> nn.Module | None:
        """The trained network, raw rows in, map out; None before a fit."""
        return self.estimator_.encoder_ if hasattr(self, "estimator_") else None

    _model = model

    @property
    def loss_history(self) -> list[float]:
        """Mean divergence of the batches, one per epoch of the last fit."""
        return self.estimator_.loss_history_

    @property
    def _final_loss(self) -> float:
        return self.loss_history[-1]

    @property
    def n_features_in_(self) -> int:
        """Columns of the training rows."""
        return self.estimator_.n_features_in_

    @property
    def feature_names_in_(self) -> NDArray[Any]:
        """Their names, where they had some."""
        return self.estimator_.feature_names_in_

    @property
    def _n_features_out(self) -> int:
        return self.n_components

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        tags.input_tags.sparse = True
        return tags

    @abstractmethod
    def _translated(self, n: int) -> Any:
        """Return our estimator, for n rows."""

    def _shared(self, n: int) -> dict[str, Any]:
        """What both methods translate alike."""
        patience = self.early_stopping_epochs
        return {
            "n_components": self.n_components,
            "hidden_dims": (self.nl1, self.nl2, self.nl3),
            "n_epochs": self.n_iter,
            "batch_size": self.batch_size or max(2, n),
            "learning_rate": self.lr,
            "early_exaggeration": self.early_exaggeration_value,
            "early_exaggeration_epochs": self.early_exaggeration_epochs,
            "early_stopping_patience": None if patience == np.inf else math.ceil(patience),
            "early_stopping_min_delta": self.early_stopping_min_improvement,
            "dof": self.alpha,
            "callbacks": None if self.logdir is None else [TensorBoard(self.logdir)],
            "device": self.device,
            # Their scripts seed PyTorch's global generator, from which weights are drawn there.
            "random_state": int(torch.randint(2**31 - 1, ())) if self.random_state is None else self.random_state,
            "verbose": self.verbose,
        }


class ParametricTSNE(_Adapter):
    """:class:`fastpdr.ParametricTSNE` with the parameters of msp_tsne's ParametricTSNE.

    Parameters
    ----------
    n_components : int
        Dimensions of the map.
    perplexity : float
        Effective number of neighbours of a row among those of its batch, as there; at most half of the batch, which a
        larger one is lowered to with a warning, and at least 2 where there are several batches.
    n_iter : int
        Epochs.
    batch_size : int, optional
        Largest number of rows of a batch; None takes all rows at once.
    early_exaggeration_epochs, early_exaggeration_value
        Epochs at the start that multiply the attraction, and it alone, by a factor.
    early_stopping_epochs : float
        Epochs without progress that end the training; infinite: never. They count from the middle of the training on,
        when the loss is comparable from epoch to epoch.
    early_stopping_min_improvement : float
        How much lower the loss must be to be progress.
    alpha : float
        Degrees of freedom of the Student distribution of the map.
    nl1, nl2, nl3 : int
        Widths of the three hidden layers.
    logdir : path-like, optional
        Folder for TensorBoard, which has to be installed: every fit is a run of its own there
        (:class:`fastpdr.tracking.TensorBoard`).
    verbose : int
        Show a progress bar.
    device : str or torch.device
        "auto" takes a GPU where there is one.
    lr : float
        Peak learning rate.
    random_state : int, RandomState or None
        Not in msp_tsne. None draws a seed from PyTorch's global generator, so that ``torch.manual_seed`` repeats a map.

    Attributes
    ----------
    estimator_ : fastpdr.ParametricTSNE
        What was trained.
    loss_history : list of float
        Mean loss of every epoch.
    model : torch.nn.Module
        The trained network.
    n_features_in_, feature_names_in_
        As in scikit-learn.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from fastpdr.compat.msp_tsne import ParametricTSNE
    >>> X, y = load_digits(return_X_y=True)
    >>> ParametricTSNE(n_iter=5, nl1=64, random_state=0).fit(X).transform(X[:10]).shape
    (10, 2)
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **_Adapter._parameter_constraints,
        "perplexity": [Interval(Real, 1, None, closed="left")],
    }

    def __init__(
        self,
        n_components: int = 2,
        perplexity: float = 30.0,
        n_iter: int = 1000,
        batch_size: int | None = 500,
        early_exaggeration_epochs: int = 50,
        early_exaggeration_value: float = 4.0,
        early_stopping_epochs: float = np.inf,
        early_stopping_min_improvement: float = 1e-2,
        alpha: float = 1,
        nl1: int = 1000,
        nl2: int = 500,
        nl3: int = 250,
        logdir: str | os.PathLike[str] | None = None,
        verbose: int = 0,
        device: str | torch.device = "auto",
        lr: float = 1e-3,
        random_state: Any = None,
    ) -> None:
        self._set_parameters(locals())

    def _translated(self, n: int) -> estimators.ParametricTSNE:
        return estimators.ParametricTSNE(perplexity=self._in_the_data(n), **self._shared(n))

    def _in_the_data(self, n: int) -> float:
        """The perplexity that is ours in batches: we count neighbours in the whole data set."""
        per_epoch = max(1, math.ceil(n / (self.batch_size or n)))
        largest = max(1.0, (n / per_epoch - 1) / 2)
        if self.perplexity > largest:
            warnings.warn(
                f"ParametricTSNE: perplexity={self.perplexity} is more than half of a batch: {largest:g} is taken",
                stacklevel=4,
            )
        return per_epoch * min(float(self.perplexity), largest)


class MultiscaleParametricTSNE(_Adapter):
    """:class:`fastpdr.MultiscaleParametricTSNE` with the parameters of msp_tsne's MultiscaleParametricTSNE.

    Parameters, attributes and methods are those of :class:`ParametricTSNE` here, without ``perplexity``; ``alpha`` and
    ``lr`` have effect, and ``device`` and ``random_state`` are there as well.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from fastpdr.compat.msp_tsne import MultiscaleParametricTSNE
    >>> X, y = load_digits(return_X_y=True)
    >>> make_pipeline(StandardScaler(), MultiscaleParametricTSNE(n_iter=5, random_state=0)).fit_transform(X).shape
    (1797, 2)
    """

    def __init__(
        self,
        n_components: int = 2,
        n_iter: int = 1000,
        batch_size: int | None = 500,
        early_exaggeration_epochs: int = 50,
        early_exaggeration_value: float = 4.0,
        early_stopping_epochs: float = np.inf,
        early_stopping_min_improvement: float = 1e-2,
        alpha: float = 1,
        lr: float = 1e-3,
        nl1: int = 1000,
        nl2: int = 500,
        nl3: int = 250,
        logdir: str | os.PathLike[str] | None = None,
        verbose: int = 0,
        device: str | torch.device = "auto",
        random_state: Any = None,
    ) -> None:
        self._set_parameters(locals())

    def _translated(self, n: int) -> estimators.MultiscaleParametricTSNE:
        return estimators.MultiscaleParametricTSNE(**self._shared(n))
