"""Parametric t-SNE with one perplexity, and with many."""

from __future__ import annotations

import math
import os
from abc import abstractmethod
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any, ClassVar

import torch
from numpy.typing import ArrayLike
from sklearn.utils._param_validation import Interval, StrOptions
from torch import nn

from fastpdr.estimators import presets
from fastpdr.estimators.base import CHECKPOINT_EVERY, HIDDEN_DIMS, Fit, ParametricEmbedding
from fastpdr.estimators.resolve import perplexity_list
from fastpdr.graph import perplexity_affinities
from fastpdr.training.batches import EdgeBatches, RandomBatches
from fastpdr.training.callbacks import Callback, TrainingState
from fastpdr.training.objectives import BatchTSNE, NeighborTSNE, Objective
from fastpdr.training.ranks import current
from fastpdr.training.share import edge_batches

FEWEST_EPOCHS = 20  # of a training by itself
RANDOM_ROWS = 10_000  # up to which random batches hold enough of P
LARGEST_SCALE = 64.0  # of a multiscale P: three times as many neighbours are sought


class TSNE(ParametricEmbedding):
    """Base of the two t-SNE estimators; each says which perplexities it takes."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **ParametricEmbedding._parameter_constraints,
        "affinity": [StrOptions({"auto", "batch", "knn"})],
    }

    _presets = presets.TSNE

    affinity: str

    @property
    def kl_divergence_(self) -> float:
        """The mean divergence of the last epoch's batches."""
        return self.loss_history_[-1]

    @abstractmethod
    def _levels(self, n: int) -> list[float] | None:
        """Return the perplexities for n rows, counted in the whole data set; None takes all scales of the batch."""

    def _automatic_epochs(self, per_epoch: int, n: int) -> int:
        return max(FEWEST_EPOCHS, math.ceil(self._level(n).steps / per_epoch))

    def _affinity(self, n: int) -> str:
        """Which similarities n rows are compared by."""
        return ("batch" if n <= RANDOM_ROWS else "knn") if self.affinity == "auto" else self.affinity

    def _make_objective(self, fit: Fit) -> Objective:
        n, by_batch = len(fit.rows), self._affinity(len(fit.rows)) == "batch"
        graph = None
        if self._count_neighbors(n) > 0:
            # For noise alone the rows' principal components do, of which there are fewer.
            graph = self._neighbors(fit, fit.measured if by_batch and isinstance(fit.measured, torch.Tensor) else None)
        elif self.precomputed_knn is not None:
            raise ValueError(
                f"{type(self).__name__}: precomputed_knn needs affinity='knn' or neighbor_noise: similarities of the "
                f"batch use no graph of neighbours"
            )
        objective = self._by_batch(fit, n) if by_batch else self._by_graph(fit, n, graph)
        objective.neighbors = self._moving_rows(graph, n)
        return objective

    def _by_batch(self, fit: Fit, n: int) -> Objective:
        batches = RandomBatches(n, self._batch_size(n), fit.generator)
        return BatchTSNE(fit.measured, self._levels(n), self.dof, batches)

    def _by_graph(self, fit: Fit, n: int, graph: Any) -> Objective:
        p = perplexity_affinities(graph, self._levels(n) or neighbor_scales(n)).to(fit.rows.device)
        batch_size = self._batch_size(n)
        batches: RandomBatches | EdgeBatches = RandomBatches(n, batch_size, fit.generator)
        if n > RANDOM_ROWS:
            batches = edge_batches(p, batch_size, math.ceil(n / batch_size), fit.seed, current())
        return NeighborTSNE(p.to(fit.device), self.dof, batches)

    def _compares_with_graph(self, n: int) -> bool:
        return self._affinity(n) == "knn"

    def _count_neighbors(self, n: int) -> int:
        if self._affinity(n) == "batch":
            return min(n - 1, presets.NEIGHBORS) if self._neighbor_noise(n) > 0 else 0
        return min(n - 1, math.ceil(3 * max(self._levels(n) or neighbor_scales(n))))


def neighbor_scales(n: int) -> list[float]:
    """Powers of two up to 64 whose threefold n rows can give as neighbours; [1] where there is none."""
    most = min(LARGEST_SCALE, (n - 1) / 3)
    return [2.0**h for h in range(1, 1 + int(math.log2(most)))] if most >= 2 else [1.0]


class ParametricTSNE(TSNE):
    """Parametric t-SNE: a neural network learns the map from data to ``n_components`` dimensions.

    Batches are drawn anew in every epoch over all rows; each is calibrated to its own similarities and compared with
    its map (van der Maaten 2009, Learning a Parametric Embedding by Preserving Local Structure). New rows are placed
    by :meth:`transform` at once.

    Parameters
    ----------
    n_components : int
        Dimensions of the map.
    perplexity : float or "auto"
        Effective number of neighbours of a row in the whole data set, at least 1 and less than its rows. "auto" is 30,
        or 15 with ``affinity="knn"``, but at most a third of the other rows. A batch of b out of n rows holds a share
        b / n of the neighbours: its own perplexity is that share of this one, but at least 2.
    affinity : {"auto", "batch", "knn"}
        "batch": similarities calibrated anew within every batch. "knn": those of one neighbour graph of the whole data
        set, three times the perplexity wide, of which a batch gets what is among its rows. "auto" is "batch" up to
        10,000 rows. Beyond, random rows are hardly ever neighbours: with "knn" a batch is made of edges drawn by their
        similarity there, an epoch has as many batches as otherwise, and every row is normalised on its own.
    hidden_dims : sequence of int
        Widths of the hidden layers (Linear, LayerNorm, activation); 256, 256, 256, 256 and 128 by default.
    activation : {"gelu", "relu", "leaky_relu", "silu", "elu", "tanh"}
        Nonlinearity of the hidden layers.
    encoder : torch.nn.Module, optional
        Own network ``[b, d] -> [b, n_components]`` on raw float32 rows in place of the built-in one. It is copied:
        the trained copy is ``encoder_``.
    n_epochs : int, optional
        Passes over all rows, at least 20 by ``preset``.
    batch_size : int, optional
        Largest number of rows of a batch; an epoch is cut into batches of equal size.
    learning_rate : float
        Peak rate of the optimizer, after a warm-up of 50 steps.
    lr_schedule : {"cosine", "linear", "constant"}
        How the rate falls after the warm-up, per step.
    optimizer : {"adamw", "adam", "sgd", "rmsprop"}
        By name.
    weight_decay : float
        Of the optimizer.
    early_exaggeration : float
        Factor of the attraction (and of it alone) during the first ``early_exaggeration_epochs``. Off by default: with
        this network it lowers the quality of the map.
    early_exaggeration_epochs : int
        See ``early_exaggeration``.
    early_stopping_patience : int, optional
        Stop after so many epochs without a loss lower by ``early_stopping_min_delta``; counted once exaggeration and
        extra components are over. None: never.
    early_stopping_min_delta : float
        See ``early_stopping_patience``.
    dof : float
        Degrees of freedom of the Student distribution of the map; below 1 its tails are heavier.
    clip_grad_value, clip_grad_norm : float, optional
        Bound on each element of the gradient, and on its norm.
    extra_components : int
        Additional outputs of the built-in network that fade away over the first half of the training, so that clusters
        can pass each other on their way. They are gone in the result.
    input_noise : float or "auto"
        Standard deviation of the Gaussian noise added to the network's input at every step, in units of the root mean
        square of the centred data (of the raw data with an own encoder). "auto": a share of the median distance to the
        nearest neighbour, divided by √d.
    neighbor_noise : float or "auto"
        Noise along the data: at every step a row is moved by a random combination of its 10 nearest neighbours whose
        weights sum to 0; 1 moves it about as far as two of them lie apart. It brings the map of new rows nearer to
        that of the training rows. "auto": none from 10,000 rows on.
    preset : {"fast", "best"}
        What ``n_epochs=None``, ``batch_size=None`` and "auto" stand for: seconds, or some five times as long for a
        better map of new rows. What is given beside it is taken as given.
    init : {"random", "pca"} or array-like of shape (n, n_components)
        What the network is taught before the training: nothing, the principal components, or a given map.
    precision : {"auto", "float32", "bfloat16"}
        Of the network's matrix products in training; "auto" is bfloat16 where the device has units for it. Map, loss
        and transform are always float32.
    device : str or torch.device
        "auto" takes a GPU where there is one.
    random_state : int, RandomState, Generator or None
        The same number gives the same map on the same machine, bit for bit on the CPU. No global generator is used
        or changed.
    precomputed_knn : KNNGraph or tuple, optional
        The neighbours by Euclidean distance, found before: a :class:`fastpdr.KNNGraph`, or umap-learn's ``(indices,
        distances[, index])``; as many as needed, or more. Similarities of the batch do without, but ``neighbor_noise``
        takes its neighbours from it; where neither needs it, it is refused.
    n_jobs : int, optional
        Threads of the search for neighbours; None takes PyTorch's number, -1 all.
    callbacks : list, optional
        Functions of a :class:`fastpdr.training.TrainingState`, or objects with ``on_epoch_end``; called after each
        epoch. A true result stops the training. :mod:`fastpdr.tracking` has some.
    memory_limit : int or str, optional
        Bytes of the host's memory that a fit may take beside the rows that it is given, or a size as "8GB". Where rows
        do not fit as float32, they are read batch by batch; where that does not fit either, fit says so before it
        starts (:func:`fastpdr.plan`). None: nine tenths of what the machine, or the container, has free.
    max_time : float, optional
        Seconds that the training may take, after the search for neighbours. Where its epochs take longer, the
        schedules of the learning rate and of the extra components are shortened to end in time; the map then depends
        on the speed of the machine. The time before an interruption counts.
    checkpoint_dir : path-like, optional
        Folder in which the training leaves checkpoints, and from which an interrupted one is resumed
        (``docs/checkpoints.md``). Ctrl-C and SIGTERM then end after a checkpoint.
    checkpoint_every : float
        Seconds between two checkpoints, between any two steps.
    resume : bool or "auto"
        Whether to go on from the checkpoint in ``checkpoint_dir``. "auto" does where there is one: a finished training
        of the same data and parameters is not repeated, one of others is replaced, while an unfinished one of others
        is an error. True demands one, False starts anew.
    verbose : bool or int
        Show a progress bar.

    Attributes
    ----------
    encoder_ : torch.nn.Module
        The trained network, raw rows in, map out.
    embedding_ : ndarray of shape (n, n_components)
        The map of the training rows, float32.
    loss_history_ : list of float
        Mean Kullback-Leibler divergence of the batches (nats), one per epoch. Extra components lower it at first.
    kl_divergence_ : float
        The last of them.
    n_iter_ : int
        Epochs done.
    n_samples_seen_ : int
        Rows learnt from; None where an older saved model does not say.
    training_seconds_ : float
        How long that took; None likewise.
    n_features_in_, feature_names_in_
        As in scikit-learn.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from fastpdr import ParametricTSNE
    >>> X, y = load_digits(return_X_y=True)
    >>> tsne = ParametricTSNE(random_state=0).fit(X[:1500])
    >>> tsne.transform(X[1500:]).shape
    (297, 2)
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **TSNE._parameter_constraints,
        "perplexity": [Interval(Real, 1, None, closed="left"), StrOptions({"auto"})],
    }

    def __init__(
        self,
        n_components: int = 2,
        *,
        perplexity: float | str = "auto",
        affinity: str = "auto",
        hidden_dims: Sequence[int] = HIDDEN_DIMS,
        activation: str = "gelu",
        encoder: nn.Module | None = None,
        n_epochs: int | None = None,
        batch_size: int | None = None,
        learning_rate: float = 1e-2,
        lr_schedule: str = "cosine",
        optimizer: str = "adamw",
        weight_decay: float = 0.1,
        early_exaggeration: float = 1.0,
        early_exaggeration_epochs: int = 0,
        early_stopping_patience: int | None = None,
        early_stopping_min_delta: float = 0.0,
        dof: float = 1.0,
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
        precomputed_knn: Any = None,
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

    def _levels(self, n: int) -> list[float]:
        automatic = 30.0 if self._affinity(n) == "batch" else 15.0
        perplexity = min(automatic, max(1.0, (n - 1) / 3)) if self.perplexity == "auto" else self.perplexity
        return perplexity_list(perplexity, n, type(self).__name__, "perplexity")


class MultiscaleParametricTSNE(TSNE):
    """Multiscale parametric t-SNE: similarities averaged over many perplexities, none of which has to be chosen.

    Keeps the structure at all scales, from the nearest neighbours to half of a batch (Crecchi, de Bodt, Verleysen, Lee
    & Bacciu 2020, Perplexity-free Parametric t-SNE; Lee, Peluffo-Ordóñez & Verleysen 2015). In comparison with
    :class:`fastpdr.ParametricTSNE` it does better over all neighbourhood sizes together (R_NX AUC) and worse at the
    smallest. All other parameters, attributes and methods are those of :class:`fastpdr.ParametricTSNE`.

    Parameters
    ----------
    perplexities : sequence of float, optional
        Counted in the whole data set and scaled to the batch, as a single perplexity is. None takes 2, 4, 8, ...
        up to half of the batch, in the batch; with ``affinity="knn"`` up to 64, from one graph.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from fastpdr import MultiscaleParametricTSNE
    >>> X, y = load_digits(return_X_y=True)
    >>> MultiscaleParametricTSNE(random_state=0).fit_transform(X).shape
    (1797, 2)
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **TSNE._parameter_constraints,
        "perplexities": ["array-like", None],
    }

    def __init__(
        self,
        n_components: int = 2,
        *,
        perplexities: Sequence[float] | None = None,
        affinity: str = "auto",
        hidden_dims: Sequence[int] = HIDDEN_DIMS,
        activation: str = "gelu",
        encoder: nn.Module | None = None,
        n_epochs: int | None = None,
        batch_size: int | None = None,
        learning_rate: float = 1e-2,
        lr_schedule: str = "cosine",
        optimizer: str = "adamw",
        weight_decay: float = 0.1,
        early_exaggeration: float = 1.0,
        early_exaggeration_epochs: int = 0,
        early_stopping_patience: int | None = None,
        early_stopping_min_delta: float = 0.0,
        dof: float = 1.0,
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
        precomputed_knn: Any = None,
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

    def _levels(self, n: int) -> list[float] | None:
        if self.perplexities is None:
            return None
        return perplexity_list(self.perplexities, n, type(self).__name__, "perplexities")
