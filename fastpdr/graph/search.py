"""Exact nearest neighbours: every row against all rows, by FAISS or PyTorch, on the CPU or a GPU.

Both take squared Euclidean distances from one matrix product (the Gram form), which loses the digits of rows that are
much closer to each other than to the origin. So it only chooses: the distances of the chosen are computed again from
differences, which makes those of duplicates exactly 0, and rows whose neighbours are too close for the choice to be
trusted are searched once more by differences alone. A row is taken out of its own neighbours by its index, never by its
place, which duplicates may change.

On a GPU the blocks are as large as its free memory allows, and products are in full float32.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from numbers import Integral
from typing import Any

import torch

from fastpdr._memory import free_device_memory
from fastpdr._precision import full_float32
from fastpdr.graph._rows import AnyRows, Rows

QUERIES_AT_ONCE = 4096
TORCH_ELEMENTS = 1 << 24  # of a block of distances
GATHERED_ELEMENTS = 1 << 22  # of rows that are gathered to be compared
GPU_ELEMENTS, GPU_SHARE = 1 << 28, 0.1  # of a block there, and of the free memory; the choice of the nearest needs more
GPU_FAISS_NEIGHBORS = 2048  # the most that FAISS chooses there
# The Gram form errs by some 1e-7 |x|²; squared distances above this share of |x|² are right to about 1%.
TRUSTED_SHARE = 1e-4

Found = tuple[torch.Tensor, torch.Tensor]  # indices [m, k] int64 and distances [m, k] float32, ascending
Progress = Callable[[str, int], Any]  # (label, total) -> a context manager whose update(count) is called


def has_faiss() -> bool:
    """Whether FAISS is installed; nothing is imported."""
    return find_spec("faiss") is not None


@cache
def gpu_faiss() -> bool:
    """Whether the FAISS that is installed searches on GPUs."""
    if not has_faiss():
        return False
    faiss = import_faiss()
    return hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0


def faiss_reads(device: torch.device) -> bool:
    """Whether FAISS can work on rows where they lie."""
    return device.type == "cpu" and has_faiss()


@contextmanager
def threads(count: int, faiss: bool) -> Iterator[None]:
    """Let PyTorch, and FAISS where it is used, take `count` threads, and put both back.

    FAISS is imported after PyTorch, whose OpenMP runtime it then shares; where it does not, its own count is set.
    """
    before = torch.get_num_threads()
    library = import_faiss() if faiss else None
    faiss_before = library.omp_get_max_threads() if library else 0
    try:
        torch.set_num_threads(count)
        if library:
            library.omp_set_num_threads(count)
        yield
    finally:
        if library:
            library.omp_set_num_threads(faiss_before)
        torch.set_num_threads(before)


def thread_count(function: str, n_jobs: object) -> int:
    """Threads to use: PyTorch's number for None, all processors for -1."""
    if n_jobs is None:
        return torch.get_num_threads()
    number = int(n_jobs) if isinstance(n_jobs, Integral) and not isinstance(n_jobs, bool) else 0
    if number >= 1:
        return number
    if number == -1:
        return os.cpu_count() or 1
    raise ValueError(f"{function}: n_jobs must be an integer >= 1, -1 or None, got {n_jobs!r}")


def import_faiss() -> Any:
    import faiss

    return faiss


def exact(rows: AnyRows, anchors: torch.Tensor, k: int, backend: str, progress: Progress) -> Found:
    """The k nearest other rows of `anchors` [m], from nothing but comparisons with all rows.

    Distances are squared Euclidean ones where the metric rests on these.
    """
    on_cpu = rows.device.type == "cpu"
    faiss = backend == "faiss" and (on_cpu or k < GPU_FAISS_NEIGHBORS)
    block = _torch_block if not faiss else _faiss_block if on_cpu else _gpu_faiss_block
    indices, distances = anchors.new_empty(len(anchors), k), torch.empty(len(anchors), k, device=rows.device)
    with progress("exact search", len(anchors)) as bar, full_float32():
        for begin in range(0, len(anchors), QUERIES_AT_ONCE):
            part = anchors[begin : begin + QUERIES_AT_ONCE]
            found = without_self(part, *block(rows, rows.take(part), k + 1))
            found = _made_precise(rows, part, found, k) if rows.squared else found
            indices[begin : begin + len(part)], distances[begin : begin + len(part)] = found
            bar.update(len(part))
    return indices, distances


def _faiss_block(rows: AnyRows, queries: torch.Tensor, k: int) -> Found:
    """The rows one part after another; a matrix is one part."""
    faiss = import_faiss()
    metric = {
        "manhattan": faiss.METRIC_L1,
        "chebyshev": faiss.METRIC_Linf,
        "braycurtis": faiss.METRIC_BrayCurtis,
    }.get(rows.metric, faiss.METRIC_L2)
    best = Best(k)
    for begin in range(0, rows.shape[0], rows.step):
        part = rows.block(begin, min(rows.shape[0], begin + rows.step)).numpy()
        distances, indices = faiss.knn(queries.numpy(), part, min(k, len(part)), metric=metric)
        best.add(torch.from_numpy(indices), torch.from_numpy(distances), begin)
    return best.found()


class Best:
    """The k nearest of parts of the rows, kept while the parts are searched one after another."""

    def __init__(self, k: int) -> None:
        self.k = k
        self.kept: Found | None = None

    def add(self, places: torch.Tensor, distances: torch.Tensor, begin: int) -> None:
        """Take the nearest of a part, ascending, whose first row is number ``begin``."""
        if self.kept is None:
            self.kept = (places + begin if begin else places), distances
            return
        numbers, every = torch.cat([self.kept[0], places + begin], 1), torch.cat([self.kept[1], distances], 1)
        distances, order = every.topk(min(self.k, every.shape[1]), largest=False)
        self.kept = numbers.gather(1, order), distances

    def found(self) -> Found:
        """What is nearest in all parts."""
        assert self.kept is not None
        return self.kept


@cache
def _gpu_resources() -> Any:
    return import_faiss().StandardGpuResources()


def _gpu_faiss_block(rows: AnyRows, queries: torch.Tensor, k: int) -> Found:
    import_module("faiss.contrib.torch_utils")  # which teaches it to take tensors
    distances, indices = import_faiss().knn_gpu(_gpu_resources(), queries, rows.block(0, rows.shape[0]), k)
    return indices, distances


def _torch_block(rows: AnyRows, queries: torch.Tensor, k: int) -> Found:
    """Blocks of rows one after another."""
    best = Best(k)
    step = max(k, _block_elements(queries.device) // len(queries))
    for begin in range(0, rows.shape[0], step):
        part = rows.block(begin, min(rows.shape[0], begin + step)).to(queries.dtype)
        nearest, places = _pairwise(rows, queries, part).topk(min(k, len(part)), largest=False)
        best.add(places, nearest, begin)
    return best.found()


def _block_elements(device: torch.device) -> int:
    """Distances at once: as many as the caches like, on a GPU as many as fit well."""
    if device.type != "cuda":
        return TORCH_ELEMENTS
    return int(min(GPU_ELEMENTS, max(TORCH_ELEMENTS, GPU_SHARE * free_device_memory(device) / 4)))


def _pairwise(rows: AnyRows, queries: torch.Tensor, part: torch.Tensor) -> torch.Tensor:
    if rows.squared:
        square = part.square().sum(1) + queries.square().sum(1, keepdim=True)
        return torch.addmm(square, queries, part.T, alpha=-2)
    return torch.cdist(queries, part, p=1.0 if rows.metric == "manhattan" else torch.inf)


def without_self(anchors: torch.Tensor, indices: torch.Tensor, distances: torch.Tensor) -> Found:
    """Take each row out of its k + 1 found, or the last where duplicates have crowded it out."""
    own = indices == anchors[:, None]
    own[:, -1] |= ~own.any(1)
    shape = len(indices), indices.shape[1] - 1
    return indices[~own].reshape(shape), distances[~own].reshape(shape)


def _made_precise(rows: AnyRows, anchors: torch.Tensor, found: Found, k: int) -> Found:
    indices, distances = ranked(found[0], squared_distances(rows, anchors, found[0]))
    farthest = distances[:, -1]
    doubtful = (farthest > 0) & (farthest < TRUSTED_SHARE * rows.take(anchors).square().sum(1))
    if doubtful.any():
        indices[doubtful], distances[doubtful] = _in_double(rows, anchors[doubtful], k)
    return indices, distances


def _in_double(rows: AnyRows, anchors: torch.Tensor, k: int) -> Found:
    """The exact search again in float64, a twentieth of the time that differences of all pairs would take."""
    parts = []
    for part in anchors.split(QUERIES_AT_ONCE):
        indices, _ = without_self(part, *_torch_block(rows, rows.take(part).double(), k + 1))
        parts.append(ranked(indices, squared_distances(rows, part, indices)))
    return torch.cat([indices for indices, _ in parts]), torch.cat([distances for _, distances in parts])


def squared_distances(rows: AnyRows, anchors: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """|x_i - x_j|² [m, k] of the rows named, from differences; inf where an index is -1."""
    missing = indices < 0
    indices = indices.clamp_min(0)
    if isinstance(rows, Rows) and faiss_reads(rows.device):
        # Reads the rows where they lie: ten times as fast as gathering them.
        found = _faiss_distances(rows.take(anchors), rows.matrix, indices)
    else:
        found = torch.empty(indices.shape, device=rows.device)
        step = max(1, GATHERED_ELEMENTS // (rows.shape[1] * indices.shape[1]))
        for begin in range(0, len(indices), step):
            part = indices[begin : begin + step]
            queries, others = rows.take(anchors[begin : begin + step]), rows.take(part.flatten())
            if faiss_reads(rows.device):
                own = torch.arange(part.numel()).view(part.shape)
                found[begin : begin + step] = _faiss_distances(queries, others, own)
            else:
                found[begin : begin + step] = (others.view(*part.shape, -1) - queries[:, None]).square().sum(2)
    return found.masked_fill_(missing, torch.inf)


def _faiss_distances(queries: torch.Tensor, matrix: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """|x_i - y_j|² [m, k] of queries [m, d] and the rows of a matrix named."""
    faiss, found = import_faiss(), torch.empty(indices.shape)
    queries, indices = queries.contiguous(), indices.contiguous()
    pointers = [faiss.swig_ptr(array.numpy()) for array in (found, queries, matrix, indices)]
    faiss.fvec_L2sqr_by_idx(*pointers, matrix.shape[1], len(indices), indices.shape[1])
    return found


def ranked(indices: torch.Tensor, distances: torch.Tensor, k: int | None = None) -> Found:
    """The nearest k (all) in ascending order; equal distances keep the order of their indices."""
    distances, order = distances.sort(dim=1, stable=True)
    return indices.gather(1, order)[:, :k], distances[:, :k]
