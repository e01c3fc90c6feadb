"""Nearest neighbours as a value: built once, kept, cut to fewer columns, saved, used by every method.

Small inputs are compared pair by pair; where that takes long, FAISS's lists find candidates (``inverted.py``) and the
recall that was measured stands in the graph. A graph from elsewhere is checked and brought into the same form: the row
itself is never among its neighbours, distances ascend, what is missing is index -1 at distance inf.
"""

from __future__ import annotations

import json
import logging
import operator
import os
import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from fastpdr import ops
from fastpdr._files import written_aside
from fastpdr._progress import LOG, phase, progress
from fastpdr.data import as_tensor
from fastpdr.graph import inverted
from fastpdr.graph._rows import AnyRows, Rows, known_metric, prepare, true_distances
from fastpdr.graph.search import (
    Found,
    Progress,
    exact,
    faiss_reads,
    gpu_faiss,
    has_faiss,
    squared_distances,
    thread_count,
    threads,
)

if TYPE_CHECKING:
    from fastpdr.graph.sharded import Exchange

BACKENDS = ("auto", "faiss", "torch")
FORMAT = "fastpdr.KNNGraph 1"


@dataclass(frozen=True, eq=False, repr=False)
class KNNGraph:
    """The k nearest other rows of each of n rows.

    Made by :meth:`build`, :meth:`from_precomputed` or :meth:`load`; the arrays are read-only.

    Attributes
    ----------
    indices : ndarray of shape (n, k), int64
        Never the row itself, none twice in a row; -1 where a row has fewer neighbours (only in precomputed graphs).
    distances : ndarray of shape (n, k), float32
        Ascending: true distances (no squares), inf for index -1.
    metric : str
        What the distances are.
    settings : mapping
        How the graph was made: backend, index, and where the search was approximate its numbers and the recall measured
        on 300 rows.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from fastpdr import KNNGraph, ParametricUMAP
    >>> X = load_iris().data
    >>> graph = KNNGraph.build(X, 45)
    >>> graph.indices.shape, graph.recall()
    ((150, 45), 1.0)
    >>> for min_dist in (0.1, 0.5):
    ...     umap = ParametricUMAP(min_dist=min_dist, precomputed_knn=graph, random_state=0).fit(X)
    """

    indices: NDArray[np.int64]
    distances: NDArray[np.float32]
    metric: str = "euclidean"
    settings: Mapping[str, Any] = field(default_factory=dict)
    _data: Any = None  # the X of build, for recall

    def __post_init__(self) -> None:
        for array in (self.indices, self.distances):
            array.flags.writeable = False
        object.__setattr__(self, "settings", MappingProxyType(dict(self.settings)))

    def __repr__(self) -> str:
        made = ", ".join(f"{name}={value!r}" for name, value in self.settings.items())
        return f"KNNGraph(n={self.n}, k={self.k}, metric={self.metric!r}{', ' if made else ''}{made})"

    def __reduce__(self) -> tuple[Any, ...]:  # a mapping proxy cannot be pickled, and the data need not be
        return _restore, (np.array(self.indices), np.array(self.distances), self.metric, dict(self.settings))

    @property
    def n(self) -> int:
        """Rows."""
        return self.indices.shape[0]

    @property
    def k(self) -> int:
        """Neighbours of each row."""
        return self.indices.shape[1]

    @property
    def first(self) -> int:
        """The row that the arrays begin with: 0, but where several processes have each a part of the rows."""
        return 0

    def total(self, value: float) -> float:
        """The sum of what was counted in these rows, over all rows."""
        return value

    def largest(self, value: float) -> float:
        """The maximum of what was found in these rows, over all rows."""
        return value

    def symmetrized(self, values: torch.Tensor, sum_factor: float, product_factor: float = 0.0) -> torch.Tensor:
        """:func:`fastpdr.ops.symmetrize` of the neighbours and values ``[n, k]`` of theirs."""
        return ops.symmetrize(as_tensor(self.indices), values, sum_factor=sum_factor, product_factor=product_factor)

    @property
    def backend(self) -> str:
        """Who searched: "faiss", "torch" or "precomputed"."""
        return self.settings.get("backend", "precomputed")

    @classmethod
    def build(
        cls,
        X: Any,
        n_neighbors: int,
        *,
        metric: str = "euclidean",
        backend: str = "auto",
        n_jobs: int | None = None,
        random_state: Any = None,
        verbose: bool = False,
    ) -> KNNGraph:
        """Find the nearest neighbours of every row among the others.

        Parameters
        ----------
        X : array-like, scipy sparse matrix, torch.Tensor, map-style data set, Shards or path of shape (n, d)
            Finite real numbers of any dtype; files are read in blocks, sparse rows are made dense in blocks. The search
            holds one float32 matrix [n, d]: X itself where it is one and not far from the origin. Rows of fewer bytes
            (float16, uint8) of which that matrix would have more than 128 MiB are held as they are stored instead, and
            what is more than half of the memory that is available is read from its file whenever it is compared.
        n_neighbors : int
            k, from 1 to n - 1. The row itself does not count: UMAP's ``n_neighbors=15`` is 14 here.
        metric : str
            "euclidean" ("l2"), "cosine" (1 - cos; a row of zeros is at distance 1 from all but its like), "manhattan"
            ("l1", "cityblock"), "chebyshev" ("linf"), "braycurtis" (FAISS only).
        backend : {"auto", "faiss", "torch"}
            "auto" takes FAISS, or PyTorch where that is not installed, or where X is on a GPU and FAISS is built for
            the CPU alone. X is searched where it lies. PyTorch's search is exact, as is any on a GPU, and
            so is FAISS's of small inputs and of all metrics but Euclidean and cosine. Else lists are searched for at
            least 95% of the true neighbours where that is faster; ``settings["recall"]`` is what was measured.
        n_jobs : int, optional
            Threads; PyTorch's number by default, all processors with -1.
        random_state : int, Generator or RandomState, optional
            Of the approximate search: the same seed finds the same neighbours.
        verbose : bool
            Show progress, on a terminal, and index and recall of an approximate search. The logger "fastpdr" gets the
            latter two in any case, and how long the search took.

        Returns
        -------
        KNNGraph
            It keeps a reference to X, for :meth:`recall`.

        Raises
        ------
        ValueError
            If an argument is not as documented.
        ImportError
            If backend is "faiss" and that is not installed.
        """
        (indices, distances), metric, settings = searched(
            "KNNGraph.build",
            X,
            n_neighbors,
            metric=metric,
            backend=backend,
            n_jobs=n_jobs,
            random_state=random_state,
            verbose=verbose,
        )
        graph = cls(indices, distances, metric, settings, X)
        _say(f"{graph!r}", verbose and "recall" in graph.settings)
        return graph

    @classmethod
    def from_precomputed(cls, indices: ArrayLike, distances: ArrayLike, *, metric: str = "euclidean") -> KNNGraph:
        """Take a graph that something else has found.

        Parameters
        ----------
        indices : array-like of shape (n, k), integers
            Rows from 0 to n - 1, or -1 for a neighbour that is missing. Where rows are among their own neighbours, in
            whatever place, they are taken out, and rows that are not lose their last neighbour, so that all keep k - 1.
        distances : array-like of shape (n, k)
            Not negative, in any order; inf marks a missing neighbour as well.
        metric : str
            What the distances are: any name, which only :meth:`recall` needs to know.

        Returns
        -------
        KNNGraph

        Raises
        ------
        ValueError
            If shapes or dtypes are wrong, indices out of range or repeated in a row, distances negative or NaN.

        Examples
        --------
        >>> from fastpdr import KNNGraph
        >>> KNNGraph.from_precomputed([[0, 1], [1, 2], [2, 1]], [[0.0, 1.0], [0.0, 2.0], [0.0, 2.0]])
        KNNGraph(n=3, k=1, metric='euclidean', backend='precomputed')
        """
        function = "KNNGraph.from_precomputed"
        if not isinstance(metric, str):
            raise ValueError(f"{function}: metric must be a name, got {metric!r}")
        arrays = _checked_arrays(function, indices, distances)
        return cls(*_others_in_order(function, *arrays), metric, {"backend": "precomputed"})

    def take(self, k: int) -> KNNGraph:
        """The graph of the nearest k neighbours.

        Parameters
        ----------
        k : int
            From 1 to :attr:`k`.

        Returns
        -------
        KNNGraph
        """
        k = _integer("KNNGraph.take", "k", k, 1, self.k, "the graph's k")
        return KNNGraph(
            self.indices[:, :k].copy(), self.distances[:, :k].copy(), self.metric, self.settings, self._data
        )

    def recall(self, X: Any = None, *, sample: int = 1000, random_state: Any = 0) -> float:
        """Share of the true nearest neighbours that the graph has, by exact search.

        A neighbour counts that is as near as the true k-th: which of several at one distance is found does not matter.

        Parameters
        ----------
        X : array-like of shape (n, d), optional
            The rows that the graph is of; not needed after :meth:`build`, to whose X it keeps a reference.
        sample : int
            Rows to search for, drawn without replacement; all where there are fewer.
        random_state : int, Generator or RandomState
            Of the draw.

        Returns
        -------
        float
            From 0 to 1.
        """
        function = "KNNGraph.recall"
        X = self._data if X is None else X
        if X is None:
            raise ValueError(f"{function}: X must be given for a graph that was loaded or precomputed, got None")
        rows = prepare(function, X, known_metric(function, self.metric))
        n = rows.shape[0]
        if n != self.n:
            raise ValueError(f"{function}: X must have the graph's {self.n} rows, got {n}")
        size = _integer(function, "sample", sample, 1, sys.maxsize, "sys.maxsize")
        anchors = np.sort(np.random.default_rng(_seed(function, random_state)).choice(n, min(n, size), replace=False))
        backend = _chosen_backend(function, "auto", rows.metric, X)
        with threads(torch.get_num_threads(), faiss_reads(rows.device)):
            places = torch.from_numpy(anchors).to(rows.device)
            _, truth = exact(rows, places, self.k, backend, _progress(False))
            found = self._distances_in(rows, places)
        return inverted.recall_of(found, truth)

    def _distances_in(self, rows: AnyRows, anchors: torch.Tensor) -> torch.Tensor:
        """What the search compares, for the neighbours named: the graph's own distances may come from elsewhere."""
        places = anchors.cpu()
        if rows.squared:
            return squared_distances(rows, anchors, as_tensor(self.indices)[places].to(anchors.device))
        return as_tensor(self.distances)[places].to(anchors.device) / rows.unit

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the graph as a NumPy ``.npz`` archive under exactly this name; X is not part of it.

        Parameters
        ----------
        path : path-like
            The file; replaced where it exists, and only once the new one is complete.

        Raises
        ------
        OSError
            If it cannot be written; what was there before is left.
        """
        about = json.dumps({"format": FORMAT, "metric": self.metric, "settings": dict(self.settings)})
        with written_aside(Path(path)) as aside, open(aside, "wb") as file:
            np.savez(file, indices=self.indices, distances=self.distances, about=np.array(about))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> KNNGraph:
        """Read what :meth:`save` wrote; nothing in the file is executed.

        Parameters
        ----------
        path : path-like

        Returns
        -------
        KNNGraph

        Raises
        ------
        ValueError
            If the file is something else.
        """
        function = "KNNGraph.load"
        try:
            with np.load(path, allow_pickle=False) as archive:
                about = json.loads(str(archive["about"]))
                indices, distances = archive["indices"], archive["distances"]
            known = about["format"] == FORMAT
        except OSError:
            raise
        except Exception as error:  # NumPy and zipfile raise many kinds for a foreign file
            reason = f"{type(error).__name__}: {error}"
            raise ValueError(
                f"{function}: path must be a graph that KNNGraph.save wrote, got {path} ({reason})"
            ) from None
        if not known:
            raise ValueError(f"{function}: path must be a graph of the format {FORMAT!r}, got {about['format']!r}")
        checked = _others_in_order(function, *_checked_arrays(function, indices, distances))
        return cls(*checked, about["metric"], about["settings"])


def searched(
    function: str,
    X: Any,
    n_neighbors: int,
    *,
    metric: str = "euclidean",
    backend: str = "auto",
    n_jobs: int | None = None,
    random_state: Any = None,
    verbose: bool = False,
    exchange: Exchange | None = None,
) -> tuple[tuple[NDArray[np.int64], NDArray[np.float32]], str, dict[str, Any]]:
    """The indices and distances, the metric by its first name, and the settings that :meth:`KNNGraph.build` keeps.

    Where several processes search together, each gets those of the rows of its shard.
    """
    metric = known_metric(function, metric)
    backend = _chosen_backend(function, backend, metric, X)
    count = thread_count(function, n_jobs)
    seed = _seed(function, random_state)
    with phase(f"{function}: X read"):
        rows = prepare(function, X, metric)
    n, d = rows.shape
    k = _neighbors(function, n_neighbors, n)
    moved = backend == "faiss" and rows.device.type != "cpu" and not (gpu_faiss() and rows.squared)
    if moved and isinstance(rows, Rows):
        rows = Rows(rows.matrix.cpu(), rows.metric, rows.unit)
    with phase(f"{k} neighbours of {n} rows of {d} columns"), threads(count, faiss_reads(rows.device)):
        found, settings = _search(rows, k, backend, seed, _progress(verbose), exchange)
    unit = rows.unit
    del rows  # before the result takes its last form
    return _arrays(found, metric, unit), metric, {"backend": backend, **settings}


def _restore(*parts: Any) -> KNNGraph:
    return KNNGraph(*parts)


def _search(
    rows: AnyRows, k: int, backend: str, seed: int, progress: Progress, exchange: Exchange | None
) -> tuple[Found, dict[str, Any]]:
    rows = rows.held()
    if backend == "faiss" and rows.device.type == "cpu" and inverted.worthwhile(rows):
        approximate = inverted.approximate(rows, k, seed, progress, exchange)
        if approximate is not None:
            return approximate
        LOG.info(
            "KNNGraph.build: lists would not reach a recall of %s in less time than exact search",
            inverted.TARGET_RECALL,
        )
    n = rows.shape[0]
    anchors = torch.arange(*((0, n) if exchange is None else exchange.shard(n)), device=rows.device)
    return exact(rows, anchors, k, backend, progress), {"index": "exact"}


def _arrays(found: Found, metric: str, unit: float) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    indices, distances = found
    return indices.cpu().long().numpy(), true_distances(distances, metric, unit).cpu().numpy()


def _chosen_backend(function: str, backend: str, metric: str, X: Any) -> str:
    if backend not in BACKENDS:
        raise ValueError(f"{function}: backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    on_gpu = isinstance(X, torch.Tensor) and X.device.type != "cpu"
    if backend == "faiss" and not has_faiss():
        raise ImportError(f"{function}: backend='faiss' needs faiss-cpu: pip install faiss-cpu")
    if backend == "auto":
        reads = gpu_faiss() and metric in ("euclidean", "cosine") if on_gpu else has_faiss()
        backend = "faiss" if reads or (has_faiss() and metric == "braycurtis") else "torch"
        if not on_gpu and backend == "torch":
            LOG.info("%s: FAISS is not installed, PyTorch compares all pairs of rows", function)
    if backend == "torch" and metric == "braycurtis":
        raise ValueError(f"{function}: metric must be one that PyTorch searches where FAISS does not, got 'braycurtis'")
    return backend


def _neighbors(function: str, value: object, n: int) -> int:
    if n < 2:
        raise ValueError(f"{function}: X must have at least 2 rows, got {n}")
    return _integer(function, "n_neighbors", value, 1, n - 1, f"rows - 1, of {n} rows,")


def _integer(function: str, name: str, value: object, low: int, high: int, limit: str) -> int:
    """`value` as an int in [low, high]; `limit` is how the message writes `high`."""
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or not low <= number <= high:
        raise ValueError(f"{function}: {name} must be an integer from {low} to {limit} = {high}, got {value!r}")
    return number


def _seed(function: str, random_state: Any) -> int:
    """One seed; None takes the operating system's, never a global generator's."""
    if random_state is None:
        return secrets.randbits(31)
    if hasattr(random_state, "integers"):
        return int(random_state.integers(2**31 - 1))
    if hasattr(random_state, "randint"):
        return int(random_state.randint(2**31 - 1))
    return _integer(function, "random_state", random_state, 0, 2**32 - 1, "2**32 - 1")


def _progress(verbose: bool) -> Progress:
    return lambda label, total: progress(label, total, shown=verbose)


def _say(message: str, verbose: bool) -> None:
    LOG.info(message)
    if verbose and not LOG.isEnabledFor(logging.INFO):
        print(message, file=sys.stderr)


def _checked_arrays(
    function: str, indices: ArrayLike, distances: ArrayLike
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Copies of the two as int64 and float32, with -1 and inf in the same places."""
    numbers, lengths = _as_array(indices), _as_array(distances)
    for name, array, kinds, what in (("indices", numbers, "iu", "integers"), ("distances", lengths, "fiu", "numbers")):
        if array.ndim != 2 or 0 in array.shape or array.dtype.kind not in kinds:
            got = f"{array.dtype} {list(array.shape)}"
            raise ValueError(f"{function}: {name} must be {what} [n, k], got {got}")
    if numbers.shape != lengths.shape:
        raise ValueError(
            f"{function}: distances must have the shape of indices, {list(numbers.shape)}, got {list(lengths.shape)}"
        )
    n = len(numbers)
    if numbers.min() < -1 or numbers.max() >= n:
        raise ValueError(
            f"{function}: indices must be rows from 0 to n - 1 = {n - 1}, or -1 for none, "
            f"got {numbers.min()} to {numbers.max()}"
        )
    if not (lengths >= 0).all():
        raise ValueError(f"{function}: distances must be >= 0, got {lengths[~(lengths >= 0)][0]}")
    missing = (numbers < 0) | (lengths == np.inf)
    return np.where(missing, -1, numbers).astype(np.int64), np.where(missing, np.inf, lengths).astype(np.float32)


def _as_array(value: Any) -> NDArray[Any]:
    return value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)


def _others_in_order(
    function: str, indices: NDArray[np.int64], distances: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Sort rows by distance, check for repetitions, take out the rows themselves."""
    order = np.argsort(distances, axis=1, kind="stable")
    indices, distances = np.take_along_axis(indices, order, 1), np.take_along_axis(distances, order, 1)
    named = np.sort(indices, axis=1)
    repeated = ((named[:, 1:] == named[:, :-1]) & (named[:, 1:] >= 0)).any(1)
    if repeated.any():
        row = int(repeated.argmax())
        raise ValueError(f"{function}: indices must not repeat within a row, got {indices[row].tolist()} in row {row}")
    own = indices == np.arange(len(indices))[:, None]
    if not own.any():
        return indices, distances
    if indices.shape[1] == 1:
        raise ValueError(f"{function}: indices must name a neighbour besides the row itself, got k = 1")
    own[:, -1] |= ~own.any(1)
    shape = len(indices), indices.shape[1] - 1
    return indices[~own].reshape(shape), distances[~own].reshape(shape)
