"""parametric_dr's TSNE_NN, LARGEVIS_NN and UMAP_NN by their own names: change the import, keep the script.

Their signatures over :class:`fastpdr.ParametricTSNE`, :class:`fastpdr.ParametricLargeVis` and
:class:`fastpdr.ParametricUMAP`, whose training they do. All three place new rows by ``fit_val``, on the map of the
training rows. docs/coming-from.md says what differs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import NotFittedError
from sklearn.utils._param_validation import Interval, validate_parameter_constraints
from torch import nn

from fastpdr import estimators

__all__ = ["LARGEVIS_NN", "TSNE_NN", "UMAP_NN"]

CONSTRAINTS = {
    "device": [str, torch.device],
    "n_epochs": [Interval(Integral, 1, None, closed="left")],
    "num_layers": [Interval(Integral, 0, None, closed="left")],
    "hidden_dim": [Interval(Integral, 1, None, closed="left")],
    "n_components": [Interval(Integral, 1, None, closed="left")],
    "verbose": ["verbose"],
    "batch_size": [Interval(Integral, 2, None, closed="left")],
    "neg_rate": [Interval(Real, 0, None, closed="left")],
    "gamma": [Interval(Real, 0, None, closed="left")],
}


class _Adapter(ABC):
    """Has one of our estimators do the work, and answers by the other package's names."""

    device: str | torch.device
    n_epochs: int
    num_layers: int
    hidden_dim: int
    n_components: int
    verbose: bool
    batch_size: int

    def _set_parameters(self, parameters: dict[str, Any]) -> None:
        """Check and store the arguments of ``__init__`` (its ``locals()``)."""
        given = {name: value for name, value in parameters.items() if name != "self"}
        validate_parameter_constraints(CONSTRAINTS, given, caller_name=type(self).__name__)
        self.__dict__.update(given)

    def fit(self, data: ArrayLike) -> NDArray[np.float32]:
        """Learn the map of rows ``[n, d]`` and return it, ``[n, n_components]``.

        ``estimator_`` is the trained estimator of ours, with ``save`` and all the rest.
        """
        self.estimator_ = self._translated().fit(data)
        return self._shown(self.estimator_.embedding_)

    def fit_val(self, data: ArrayLike) -> NDArray[np.float32]:
        """Place rows ``[m, d]`` on the map of the training rows, ``[m, n_components]``; nothing is fitted."""
        if not hasattr(self, "estimator_"):
            raise NotFittedError(f"{type(self).__name__}: fit must come before fit_val")
        return self._shown(self.estimator_.transform(data))

    @property
    def encoder(self) -> nn.Module:
        """The trained network, raw rows in, map out."""
        return self.estimator_.encoder_

    @property
    def epoch_losses(self) -> list[float]:
        """Mean loss of every epoch."""
        return self.estimator_.loss_history_

    def _shown(self, places: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return places on the map in the coordinates of the other package."""
        return places

    @abstractmethod
    def _translated(self) -> Any:
        """Return our estimator."""

    def _shared(self) -> dict[str, Any]:
        """What all methods translate alike."""
        return {
            "n_components": self.n_components,
            "hidden_dims": (512, *[self.hidden_dim] * (1 + self.num_layers)),
            "activation": "leaky_relu",
            "n_epochs": self.n_epochs,
            "batch_size": self.batch_size,
            "device": self.device,
            # Their scripts seed PyTorch's global generator, from which weights are drawn there.
            "random_state": int(torch.randint(2**31 - 1, ())),
            "verbose": self.verbose,
        }


class TSNE_NN(_Adapter):  # noqa: N801 their name
    """:class:`fastpdr.ParametricTSNE` on the similarities of one neighbour graph, as parametric_dr's TSNE_NN.

    Parameters
    ----------
    device : str or torch.device
        Where to train; "auto" takes a GPU where there is one.
    n_epochs : int
        Passes over all rows.
    num_layers, hidden_dim : int
        The network is 512, hidden_dim, and num_layers more of hidden_dim.
    n_components : int
        Dimensions of the map.
    verbose : bool
        Show a progress bar.
    batch_size : int
        Largest number of rows of a batch.

    Attributes
    ----------
    perplexity : float
        15; may be set before :meth:`fit`.
    encoder : torch.nn.Module
        The trained network, raw rows in, map out before it is scaled to 0 .. 1.
    epoch_losses : list of float
        Mean loss of every epoch.
    estimator_ : fastpdr.ParametricTSNE
        What was trained.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from fastpdr.compat.parametric_dr import TSNE_NN
    >>> X, y = load_digits(return_X_y=True)
    >>> tsne = TSNE_NN("cpu", n_epochs=5, verbose=False)
    >>> tsne.fit(X[:1500]).shape, tsne.fit_val(X[1500:]).shape
    ((1500, 2), (297, 2))
    """

    perplexity: float = 15

    def __init__(
        self,
        device: str | torch.device,
        n_epochs: int,
        *,  # their versions disagree about the order of the rest
        num_layers: int = 3,
        hidden_dim: int = 256,
        n_components: int = 2,
        verbose: bool = True,
        batch_size: int = 256,
    ) -> None:
        self._set_parameters(locals())

    def _translated(self) -> estimators.ParametricTSNE:
        return estimators.ParametricTSNE(affinity="knn", perplexity=self.perplexity, **self._shared())

    def _shown(self, places: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scale so that the map of the training rows lies between 0 and 1; other rows by the same numbers."""
        low, high = self.estimator_.embedding_.min(), self.estimator_.embedding_.max()
        return (places - low) / (high - low if high > low else 1)


class LARGEVIS_NN(_Adapter):  # noqa: N801 their name
    """:class:`fastpdr.ParametricLargeVis` with the parameters of parametric_dr's LARGEVIS_NN.

    Parameters
    ----------
    device, n_epochs, num_layers, hidden_dim, n_components, verbose
        As for :class:`TSNE_NN`; an epoch draws every edge in proportion to its weight.
    batch_size : int
        Ends of edges drawn for a step.
    neg_rate : float
        Pairs that repel for every edge that attracts: a factor of the repulsion, since all pairs of a batch do.
    gamma : float
        Weight of a pair that repels.

    Attributes
    ----------
    perplexity, encoder, epoch_losses, estimator_
        As of :class:`TSNE_NN`.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from fastpdr.compat.parametric_dr import LARGEVIS_NN
    >>> X, y = load_digits(return_X_y=True)
    >>> LARGEVIS_NN("cpu", n_epochs=1, verbose=False).fit(X[:500]).shape
    (500, 2)
    """

    perplexity: float = 15
    neg_rate: float
    gamma: float

    def __init__(
        self,
        device: str | torch.device,
        n_epochs: int,
        num_layers: int = 3,
        hidden_dim: int = 256,
        n_components: int = 2,
        verbose: bool = True,
        batch_size: int = 256,
        neg_rate: float = 5,
        gamma: float = 7,
    ) -> None:
        self._set_parameters(locals())

    def _translated(self) -> estimators.ParametricLargeVis:
        return estimators.ParametricLargeVis(
            perplexity=self.perplexity, negative_sample_rate=self.neg_rate, gamma=self.gamma, **self._shared()
        )


class UMAP_NN(_Adapter):  # noqa: N801 their name
    """:class:`fastpdr.ParametricUMAP` with the parameters of parametric_dr's UMAP_NN.

    Parameters
    ----------
    device, n_epochs, num_layers, hidden_dim, n_components, verbose, batch_size, neg_rate
        As for :class:`LARGEVIS_NN`.

    Attributes
    ----------
    encoder, epoch_losses, estimator_
        As of :class:`TSNE_NN`.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from fastpdr.compat.parametric_dr import UMAP_NN
    >>> X, y = load_digits(return_X_y=True)
    >>> UMAP_NN("cpu", n_epochs=2, verbose=False).fit(X[:500]).shape
    (500, 2)
    """

    neg_rate: float

    def __init__(
        self,
        device: str | torch.device,
        n_epochs: int,
        num_layers: int = 3,
        hidden_dim: int = 256,
        n_components: int = 2,
        verbose: bool = True,
        batch_size: int = 4096,
        neg_rate: float = 5,
    ) -> None:
        self._set_parameters(locals())

    def _translated(self) -> estimators.ParametricUMAP:
        return estimators.ParametricUMAP(negative_sample_rate=self.neg_rate, **self._shared())
