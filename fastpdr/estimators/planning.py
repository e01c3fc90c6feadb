"""How much memory a fit takes, known before it starts: its parts, which of them are there at once, and the peak.

All formulas stand in :class:`_Parts`. They count what grows with the rows, the neighbours and the batch; the process
itself (Python, PyTorch, FAISS: some 400 MB) is there already. Rows that are given in memory are the caller's.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import log2, sqrt
from typing import Any

import numpy as np
import torch

from fastpdr._memory import as_bytes, free_device_memory, free_host_memory, in_words
from fastpdr._methods import METHODS
from fastpdr.data import BLOCK_ELEMENTS, widened
from fastpdr.estimators import presets
from fastpdr.estimators.resolve import AXES_ENTRIES, PROJECTED_WIDTH, ROWS_AT_ONCE, WIDE, home_of, resolve_device
from fastpdr.graph import inverted
from fastpdr.graph._rows import HELD_SHARE, LARGE_BYTES
from fastpdr.training.encoder import BLOCK_ELEMENTS as SCALED_ELEMENTS
from fastpdr.training.encoder import ROWS_AT_ONCE as SCALED_ROWS
from fastpdr.training.noise import POOL_SIZE

FREE_SHARE = 0.9  # of the free memory that is taken where no limit is given
SEARCH, SIMILARITIES, TRAINING, PLACING = PHASES = ("search", "similarities", "training", "placing")
# Bytes of a neighbour (index and distance), of an edge of the similarities, and of its place in the table for draws.
NEIGHBOR_BYTES, EDGE_BYTES, ALIAS_BYTES = 8 + 4, 4 + 4, 8
KEPT_BYTES = 2**25  # of small things that a process keeps
FOUND_BYTES = 4 + 4  # of a neighbour while it is searched for


@dataclass(frozen=True)
class Part:
    """Memory that one thing takes.

    Attributes
    ----------
    name : str
        What it is.
    size : int
        Bytes.
    where : {"host", "device"}
        The host's memory, or a graphics card's.
    phases : tuple of str
        When it is there: "search", "similarities", "training", "placing".
    """

    name: str
    size: int
    where: str = "host"
    phases: tuple[str, ...] = PHASES


@dataclass(frozen=True, repr=False)
class Plan:
    """The memory of one fit; printed as a table. Made by :func:`fastpdr.plan`.

    Attributes
    ----------
    n, d : int
        Rows and columns.
    method : str
        Name of the estimator.
    rows : {"whole", "by batch"}
        Whether all rows are held as float32, or made of the stored ones batch by batch.
    search : {"exact", "inverted lists", "given", "none"}
        How the neighbours are found.
    parts : tuple of Part
        What takes memory.
    limit : int
        Bytes of the host's memory that the fit may take.
    device_limit : int or None
        Bytes that the graphics card has free; None where the training is on the CPU.
    """

    n: int
    d: int
    method: str
    rows: str
    search: str
    parts: tuple[Part, ...]
    limit: int
    device_limit: int | None = None

    def during(self, phase: str, where: str = "host") -> int:
        """Bytes that are taken in a phase.

        Parameters
        ----------
        phase : {"search", "similarities", "training", "placing"}
        where : {"host", "device"}

        Returns
        -------
        int
        """
        return sum(part.size for part in self.parts if part.where == where and phase in part.phases)

    @property
    def host(self) -> int:
        """Peak of the host's memory, in bytes."""
        return max(self.during(phase) for phase in PHASES)

    @property
    def device(self) -> int:
        """Peak of the graphics card's memory, in bytes; 0 on the CPU."""
        return max(self.during(phase, "device") for phase in PHASES)

    @property
    def fits(self) -> bool:
        """Whether there is as much memory."""
        return self.host <= self.limit and (self.device_limit is None or self.device <= self.device_limit)

    def require(self) -> None:
        """Do nothing where the plan fits.

        Raises
        ------
        MemoryError
            Where it does not; with the largest parts, and what to change.
        """
        if self.fits:
            return
        short = "host" if self.host > self.limit else "device"
        needed, limit = (self.host, self.limit) if short == "host" else (self.device, self.device_limit)
        busiest = max(PHASES, key=lambda phase: self.during(phase, short))
        there = [part for part in self.parts if part.where == short and busiest in part.phases]
        largest = sorted(there, key=lambda part: -part.size)[:3]
        named = ", ".join(f"{part.name} {in_words(part.size)}" for part in largest)
        raise MemoryError(
            f"{self.method}: {self.n} rows of {self.d} columns take {in_words(needed)} of the {short}'s memory "
            f"({named}), but only {in_words(limit or 0)} may be taken. "
            "Take fewer neighbours (n_neighbors, perplexity), "
            "learn from a sample of the rows and transform the others, keep rows as float16 or uint8 in .npy files, or "
            + ("raise memory_limit" if short == "host" else "train with device='cpu' or a smaller batch_size")
        )

    def __repr__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"{self.method}: {self.n} rows of {self.d} columns, held {self.rows}; search of neighbours: {self.search}"
        width = max(len(part.name) for part in self.parts)
        for part in self.parts:
            when = "all the time" if part.phases == PHASES else ", ".join(part.phases)
            yield f"  {part.name:<{width}}  {in_words(part.size):>8}  {part.where:<6}  {when}"
        yield f"  {'peak':<{width}}  {in_words(self.host):>8}  host    of {in_words(self.limit)}"
        if self.device_limit is not None:
            yield f"  {'peak':<{width}}  {in_words(self.device):>8}  device  of {in_words(self.device_limit)}"
        yield "It fits." if self.fits else "It does not fit."


def plan(
    n: int, d: int, method: Any = "umap", *, dtype: Any = "float32", in_memory: bool = False, **parameters: Any
) -> Plan:
    """How much memory a fit would take, beside the rows that are given and the process itself.

    Parameters
    ----------
    n, d : int
        Rows and columns.
    method : {"tsne", "mstsne", "umap", "largevis"} or estimator
        Which map, or an estimator with its parameters.
    dtype : str, numpy.dtype or torch.dtype
        Of the rows as they are stored.
    in_memory : bool
        Whether they are in memory already, as those of an array; else they are in files.
    **parameters
        Of the estimator, such as ``n_neighbors``, ``batch_size``, ``device`` and ``memory_limit``.

    Returns
    -------
    Plan

    Raises
    ------
    TypeError, ValueError
        If an argument is not as documented.

    Examples
    --------
    >>> import fastpdr
    >>> plan = fastpdr.plan(1_000_000, 50, "umap", memory_limit="8GB", device="cpu")
    >>> plan.fits, plan.rows, plan.search
    (True, 'whole', 'inverted lists')
    """
    for name, value in (("n", n), ("d", d)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(f"plan: {name} must be an integer >= 1, got {value!r}")
    if isinstance(method, str):
        if method not in METHODS:
            raise ValueError(f"plan: method must be an estimator or one of {', '.join(METHODS)}, got {method!r}")
        import fastpdr

        estimator = getattr(fastpdr, METHODS[method])(**parameters)
    else:
        from sklearn.base import clone

        estimator = clone(method).set_params(**parameters)
    estimator._validate_params()
    return plan_of(estimator, int(n), int(d), as_dtype(dtype), in_memory)


def as_dtype(dtype: Any) -> torch.dtype:
    """A type of real numbers by any of its names."""
    if isinstance(dtype, torch.dtype):
        return dtype
    try:
        found = torch.from_numpy(np.empty(0, np.dtype(dtype))).dtype
    except TypeError as error:
        raise ValueError(f"plan: dtype must be a type of real numbers, got {dtype!r}") from error
    if found.is_complex:
        raise ValueError(f"plan: dtype must be a type of real numbers, got {dtype!r}")
    return found


def plan_of(estimator: Any, n: int, d: int, dtype: torch.dtype, in_memory: bool) -> Plan:
    """The plan of a fit of rows ``[n, d]``, whole where the memory allows it."""
    device = resolve_device(estimator.device)
    given = estimator.memory_limit
    name = type(estimator).__name__
    limit = int(FREE_SHARE * free_host_memory()) if given is None else as_bytes(name, given)
    device_limit = free_device_memory(device) if device.type == "cuda" else None
    for whole in (True, False):
        parts = _Parts(estimator, n, d, dtype, in_memory, device, whole, limit)
        rows = "whole" if whole else "by batch"
        result = Plan(n, d, name, rows, parts.search, tuple(parts.all()), limit, device_limit)
        if result.host <= limit:
            break
    return result


class _Parts:
    """The parts of a fit and their sizes."""

    def __init__(
        self,
        estimator: Any,
        n: int,
        d: int,
        dtype: torch.dtype,
        in_memory: bool,
        device: torch.device,
        whole: bool,
        limit: int,
    ) -> None:
        self.dtype, self.limit = dtype, limit
        self.estimator, self.n, self.d, self.whole, self.cuda = estimator, n, d, whole, device.type == "cuda"
        self.own = estimator.encoder is not None
        self.wide = widened(torch.empty(0, dtype=dtype)).itemsize  # bytes of a number as it is validated
        self.exact = dtype in (torch.float32, torch.float64)
        self.in_memory = in_memory
        on_device = self.cuda and whole and home_of(whole_bytes(n, d, self.wide), device) == device
        self.home = "device" if on_device else "host"
        self.width = PROJECTED_WIDTH if not self.own and d > WIDE and n > PROJECTED_WIDTH else d
        with warnings.catch_warnings():  # of n_neighbors beyond the rows, which the fit has as well
            warnings.simplefilter("ignore")
            self.k = estimator._count_neighbors(n)
        self.batch = min(n, estimator._batch_size(n))
        self.given = estimator.precomputed_knn is not None
        self.search = self._search()

    def all(self) -> Iterator[Part]:
        """Every part that takes something."""
        parts = (*self._of_rows(), *self._of_neighbors(), *self._of_similarities(), *self._of_training())
        return (part for part in parts if part.size > 0)

    def _search(self) -> str:
        if self.k == 0:
            return "none"
        if self.given:
            return "given"
        metric, operations = self.estimator.metric, self.n**2 * (self.d + inverted.OPERATIONS_PER_PAIR)
        many = metric in ("euclidean", "l2", "cosine") and operations > inverted.EXACT_OPERATIONS
        return "inverted lists" if many and self.home == "host" else "exact"

    def _of_rows(self) -> Iterator[Part]:
        n, d = self.n, self.d
        # Blocks in float64 and what is computed of them; the process keeps such memory when it is free again.
        block = min(n, SCALED_ROWS) * d if self.whole else min(n * d, SCALED_ELEMENTS)
        yield Part("blocks of rows", 2 * 8 * block + KEPT_BYTES)
        if self.width < d:
            sample = 2 * 4 * d * min(n, 20_000, max(2_000, AXES_ENTRIES // d))
            yield Part("sample of rows", sample, self.home, (TRAINING,))
        if not self.whole:
            return
        if not (self.in_memory and self.exact and self.home == "host"):
            yield Part("rows in floating point", n * d * self.wide, self.home)
        yield Part("rows, scaled", 4 * n * d, self.home)
        if self.own and self.wide == 8:
            yield Part("rows for the encoder", 4 * n * d, self.home)
        if self.width < d:
            yield Part("principal components", 4 * n * self.width, self.home)

    def _of_neighbors(self) -> Iterator[Part]:
        n, d, k = self.n, self.d, self.k
        if k == 0:
            return
        if not self.given:
            yield Part("rows to search in", self._searched(), self.home, (SEARCH,))
            block = 28 * min(n * d, BLOCK_ELEMENTS)
            if self.search == "inverted lists":
                index, learning = self._index()
                yield Part("search index", index, "host", (SEARCH,))
                block = max(block, learning)
            yield Part("blocks to search in", block, self.home, (SEARCH,))
            yield Part("neighbours on the way", FOUND_BYTES * n * k, self.home, (SEARCH,))
        yield Part("neighbours", NEIGHBOR_BYTES * n * k, "host", (SEARCH, SIMILARITIES))

    def _searched(self) -> int:
        """A float32 matrix where it is small; else rows as they are stored, those of a file too where they fit."""
        n, d = self.n, self.d
        cosine = self.estimator.metric == "cosine"
        matrix = 4 * n * (d + cosine)
        size = 4 if self.whole else self.dtype.itemsize
        if self.whole and size == self.wide and not cosine:
            return 0
        if matrix > self.limit * HELD_SHARE or (size < 4 and matrix > LARGE_BYTES):
            stored = 0 if self.whole or self.in_memory else size * n * d
            return stored if stored <= self.limit * HELD_SHARE else 0
        return matrix

    def _index(self) -> tuple[int, int]:
        """FAISS's lists (codes or rows, a number of 8 bytes for each), and what they are made from at a time."""
        n, d = self.n, self.d
        lists = 2 ** round(log2(2 * sqrt(n)))
        coded = d > inverted.UNCODED_DIMENSIONS
        kept = min(d, inverted.CODED_DIMENSIONS)
        entry = (kept / 2 if coded else 4 * d) + 8
        learning, adding = min(n, max(20_000, 64 * lists)), min(n, 16 * inverted.ROWS_AT_ONCE)
        return int(1.5 * n * entry), 4 * d * max(2 * learning, adding)

    def _of_similarities(self) -> Iterator[Part]:
        n, edges = self.n, self._edges()
        if edges:
            size = EDGE_BYTES * edges + 4 * n
            yield Part("similarities", size, "host", (SIMILARITIES, TRAINING, PLACING))
            yield Part("similarities on the way", 2 * EDGE_BYTES * n * self.k, "host", (SIMILARITIES,))
            if self.cuda:
                yield Part("similarities", size, "device", (TRAINING,))
            yield Part("table to draw edges from", ALIAS_BYTES * edges, self.home, (TRAINING,))
        if self.k and self.estimator._neighbor_noise(n) > 0:
            near = 8 * n * min(self.k, presets.NEIGHBORS)
            yield Part("nearest rows, for noise", 2 * near, "host", (TRAINING,))

    def _edges(self) -> int:
        """Entries of the symmetric graph, at most: both directions of all neighbours."""
        return min(2 * self.n * self.k, self.n * (self.n - 1)) if self.estimator._compares_with_graph(self.n) else 0

    def _of_training(self) -> Iterator[Part]:
        where, estimator, d, b = "device" if self.cuda else "host", self.estimator, self.d, self.batch
        c = estimator.n_components + (0 if self.own else estimator.extra_components)
        if self.own:
            weights = sum(p.numel() for p in estimator.encoder.parameters())
            widths = [self.width]
        else:
            widths = [self.width, *(int(width) for width in estimator.hidden_dims), c]
            weights = sum(a * b + 3 * b for a, b in pairwise(widths))
        # Weights, their gradient and two sums of the optimizer; a layer's output, its norm, activation and gradients.
        yield Part("network and optimizer", 4 * 4 * weights, where, (TRAINING, PLACING))
        pairs = b * b if self._edges() == 0 else 16 * b
        near = self.estimator._neighbor_noise(self.n) > 0 and self.k > 0
        moved = presets.NEIGHBORS * self.width if near else 0
        batch = 4 * b * (8 * sum(widths) + 2 * d + moved) + 6 * 4 * pairs
        yield Part("batches", batch, where, (TRAINING, PLACING))
        noise = 4 * max(POOL_SIZE, 2 * b * (self.width + presets.NEIGHBORS))
        yield Part("noise", noise, where, (TRAINING, PLACING))
        block = min(self.n, ROWS_AT_ONCE) * (12 * d + 4 * 3 * max(widths))
        yield Part("blocks to place", block, where, (PLACING,))
        yield Part("map", 4 * self.n * estimator.n_components, "host", (PLACING,))


def whole_bytes(n: int, d: int, wide: int) -> int:
    """Of rows as validated, scaled, and perhaps as components."""
    return n * d * (wide + 2 * 4)
