"""Approximate nearest neighbours of very many rows, Euclidean or cosine, at a measured recall.

Three steps. FAISS's inverted lists hold 4-bit codes of the rows in at most 96 rotated principal components, and name a
few times k candidates for each row. The candidates are ranked by their distances in the full space, from differences,
so that what is found is exact and only finding is not. At last every row looks at its neighbours' neighbours, as
LargeVis does (Tang et al. 2016, section 3.1), which costs little and finds most of what a search missed near a list's
border. Rows are taken list by list, so that what one reads the next finds in the cache.

How many lists are searched is not guessed: 200 rows are compared with the exact search, and lists, then candidates, are
added until the recall of these passes the target. Another 300 measure the result. Data in which that would take a large
part of all lists, such as rows whose many components all matter, go to the exact search instead.

Why this, for 15 neighbours on 2 threads. In one run (bench/test_bench_knn.py) 70,000 Fashion-MNIST rows with 784
columns took 2.8 s, a fifteenth of the exact search's time (recall 0.974), 341,479 GloVe rows with 100 columns, cosine,
29 s, an eighth (0.962). pynndescent, once compiled, took 3.1 s for Fashion-MNIST (0.988) and 14 s for GloVe (0.762).
What was tried before, with codes of 128 components in the rows' own order, 9 s and 35 s: flat lists of all columns,
19 and 101 s; no random rotation, which lets one code length serve every component, and a recall of 0.88 before the last
step where it was 0.96; codes of residuals, which found as much in ten times the time; gathering cells and multiplying
matrices, which lost to codes on GloVe (0.85 in 71 s).
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from threadpoolctl import threadpool_limits

from fastpdr._sparse import index_dtype
from fastpdr.graph._rows import AnyRows
from fastpdr.graph.search import Found, Progress, exact, import_faiss, ranked, squared_distances, threads

if TYPE_CHECKING:
    from fastpdr.graph.sharded import Exchange

TARGET_RECALL = 0.95
SEARCHED_RECALL = 0.93  # before the look at neighbours' neighbours, which adds 0.01 to 0.1
SAMPLE_ROWS, JUDGE_ROWS = 200, 300
# Below, the exact search takes a few seconds: comparisons n² times their cost, which has a part per pair.
EXACT_OPERATIONS, OPERATIONS_PER_PAIR = 5e11, 50
CODED_DIMENSIONS, UNCODED_DIMENSIONS = 96, 24
FIRST_PROBES, CANDIDATES_PER_NEIGHBOR, MAX_CANDIDATES_PER_NEIGHBOR = 4, 3, 12
MOST_EXPLORATIONS, EXPLORED_NEIGHBORS = 3, 10
# Training on more finds a hundredth more before the neighbours' neighbours, and takes three times as long.
CLUSTERING_ROUNDS, ROWS_PER_LIST, ROWS_PER_COLUMN = 5, 40, 10
LARGEST_SHARE = 0.2  # of the lists; to search more takes as long as to compare all rows
ROWS_AT_ONCE = 1024  # FAISS's memory for 4096 is 100 MB more


@dataclass
class Search:
    """An index with the numbers that trade time for recall."""

    index: Any
    name: str
    lists: int
    probes: int
    candidates: int

    def settings(self) -> dict[str, Any]:
        """As the graph keeps them."""
        return {"index": self.name, "probes": self.probes, "candidates": self.candidates}


def worthwhile(rows: AnyRows) -> bool:
    """Whether exact search would take so long that lists pay."""
    n, d = rows.shape
    return rows.squared and n > 1000 and n * n * (d + OPERATIONS_PER_PAIR) > EXACT_OPERATIONS


def approximate(
    rows: AnyRows, k: int, seed: int, progress: Progress, exchange: Exchange | None = None
) -> tuple[Found, dict[str, Any]] | None:
    """About 95% of the k nearest others of every row, or more, and how they were found; None where lists do not help.

    Distances are squared; indices are int32 where these are enough. Rows for which lists hold fewer than k others are
    searched exactly. Beside the rows, an order of them and the result there are codes or a copy of the indices. Of
    several processes each makes the same index and searches for the rows of its shard.
    """
    n = rows.shape[0]
    rng = np.random.default_rng(seed)
    drawn = torch.from_numpy(rng.choice(n, SAMPLE_ROWS + JUDGE_ROWS, replace=False))
    sample, judges = drawn.split([SAMPLE_ROWS, JUDGE_ROWS])
    truth = exact(rows, drawn, k, "faiss", progress)[1]
    # Codes cannot tell the neighbours apart where a few columns are far larger than the rest; whole rows can.
    for coded in (True, False):
        search = _build(rows, k, coded, rng, progress)
        if _tune(search, rows, sample, truth[:SAMPLE_ROWS], k):
            break
    else:
        return None
    begin, end = (0, n) if exchange is None else exchange.shard(n)
    judged = (judges >= begin) & (judges < end)
    order = _by_list(search.index, begin, end)
    found = _search_all(search, rows, begin, order, k, progress)
    settings = search.settings()
    del search
    _give_back()
    recall = 0.0
    for _ in range(MOST_EXPLORATIONS):
        if recall < TARGET_RECALL:
            _explore(rows, begin, order, found, k, progress, exchange)
            own = recall_of(found[1][judges[judged] - begin], truth[SAMPLE_ROWS:][judged]) if judged.any() else 0.0
            hits = own * int(judged.sum())
            recall = (hits if exchange is None else exchange.total(hits)[0]) / len(judges)
    _complete(rows, begin, found, k, progress)
    return found, {**settings, "recall": round(recall, 4)}


def recall_of(distances: torch.Tensor, truth: torch.Tensor) -> float:
    """Share of neighbours found that are as near as the true k: ties, as among duplicates, are all right."""
    return float((distances <= truth[:, -1:] * (1 + 1e-5)).double().mean())


def _build(rows: AnyRows, k: int, coded: bool, rng: np.random.Generator, progress: Progress) -> Search:
    faiss = import_faiss()
    n, d = rows.shape
    lists = 2 ** round(math.log2(math.sqrt(n)))
    kept = min(d, CODED_DIMENSIONS)
    codes = coded and d > UNCODED_DIMENSIONS
    name = f"PCAR{kept},IVF{lists},PQ{kept}x4fs" if codes else f"IVF{lists},Flat"
    index = faiss.index_factory(d, name)
    lists_of = faiss.downcast_index(faiss.extract_index_ivf(index))
    lists_of.cp.seed = int(rng.integers(2**31 - 1))
    lists_of.cp.min_points_per_centroid = 1  # or it writes a warning
    lists_of.cp.niter = CLUSTERING_ROUNDS
    training = rng.choice(n, min(n, max(20_000, ROWS_PER_LIST * lists)), replace=False)
    trained = rows.take(torch.from_numpy(training)).numpy()
    # One thread, whose bits are those of any other number and of every rank. The hundred small k-means gain little by
    # more, each being many parallel regions, and spin for minutes where another process has the processors.
    with threads(1, True), threadpool_limits(1, user_api="blas"):
        if codes:
            lists_of.pq.cp.niter = CLUSTERING_ROUNDS
            _learn_rotation(faiss.downcast_VectorTransform(index.chain.at(0)), trained, rng)
        index.train(trained)
    with progress("index", n) as bar:
        for begin in range(0, n, step := min(rows.step, 16 * ROWS_AT_ONCE)):
            index.add(rows.block(begin, min(n, begin + step)).numpy())
            bar.update(min(step, n - begin))
    _give_back()
    return Search(index, name, lists, min(FIRST_PROBES, lists), CANDIDATES_PER_NEIGHBOR * k + 1)


def _learn_rotation(transform: Any, rows: NDArray[np.float32], rng: np.random.Generator) -> None:
    """Give FAISS's transform the randomly rotated principal components of rows [m, d].

    FAISS itself would take four times as long to find them, .4 s for 784 columns.
    """
    faiss, (d, kept) = import_faiss(), (transform.d_in, transform.d_out)
    with np.errstate(invalid="ignore"):  # rows that are all alike have shares of no variance
        principal = PCA(kept, random_state=int(rng.integers(2**31 - 1))).fit(rows[: max(kept, ROWS_PER_COLUMN * d)])
    turned = np.linalg.qr(rng.standard_normal((kept, kept)))[0] @ principal.components_
    faiss.copy_array_to_vector(turned.astype(np.float32).ravel(), transform.A)
    faiss.copy_array_to_vector(-(turned @ principal.mean_).astype(np.float32), transform.b)
    transform.have_bias = transform.is_trained = True


def _give_back() -> None:
    """Let the system have what was freed: lists grow piece by piece, and glibc keeps 80 bytes a row of holes."""
    with suppress(AttributeError, OSError, TypeError):  # another C library has no such function
        ctypes.CDLL(None).malloc_trim(0)


def _tune(search: Search, rows: AnyRows, sample: torch.Tensor, truth: torch.Tensor, k: int) -> bool:
    """Probe more lists, or rank more candidates where lists help no more, until the sample's recall is enough."""
    recall, most = 0.0, MAX_CANDIDATES_PER_NEIGHBOR * k
    while True:
        before, recall = recall, recall_of(_nearest(search, rows, sample, k)[1], truth)
        if recall >= SEARCHED_RECALL:
            return True
        if recall - before < 0.01 and search.candidates < most:
            search.candidates = min(most, 2 * search.candidates)
        elif search.probes < LARGEST_SHARE * search.lists:
            search.probes = search.probes * 3 // 2
        else:
            return False


def _nearest(search: Search, rows: AnyRows, anchors: torch.Tensor, k: int) -> Found:
    """The nearest k among an index's candidates; -1 and inf where these are fewer."""
    faiss = import_faiss()
    faiss.extract_index_ivf(search.index).nprobe = search.probes
    _, candidates = search.index.search(rows.take(anchors).numpy(), search.candidates)
    return _rank(rows, anchors, torch.from_numpy(candidates), k)


def _rank(rows: AnyRows, anchors: torch.Tensor, candidates: torch.Tensor, k: int) -> Found:
    """The nearest k of candidates [m, c] that may repeat, be -1 or be the row itself."""
    candidates = torch.from_numpy(np.sort(candidates.numpy(), axis=1))  # a tenth of the time of PyTorch's
    useless = candidates == anchors[:, None]
    useless[:, 1:] |= candidates[:, 1:] == candidates[:, :-1]
    candidates = candidates.masked_fill(useless, -1)
    nearest, places = squared_distances(rows, anchors, candidates).topk(k, largest=False)
    indices, distances = ranked(candidates.gather(1, places), nearest)
    return indices.masked_fill(distances == torch.inf, -1), distances


def _by_list(index: Any, begin: int, end: int) -> torch.Tensor:
    """The rows begin .. end - 1 list by list, so that rows whose candidates are the same come one after another.

    What one reads, the next then finds in the cache: half of the time that ranking would take in the rows' own order.
    """
    faiss = import_faiss()
    lists = faiss.extract_index_ivf(index).invlists
    dtype = index_dtype(index.ntotal, 0)
    parts = []
    for number in range(lists.nlist):
        members = torch.from_numpy(faiss.rev_swig_ptr(lists.get_ids(number), lists.list_size(number)).copy())
        parts.append(members[(members >= begin) & (members < end)].to(dtype))
    return torch.cat(parts)


def _search_all(search: Search, rows: AnyRows, begin: int, order: torch.Tensor, k: int, progress: Progress) -> Found:
    found = torch.empty(len(order), k, dtype=order.dtype), torch.empty(len(order), k)
    label = f"{search.name}, {search.probes} lists"
    _in_blocks(found, begin, order, label, progress, lambda part: _nearest(search, rows, part, k))
    return found


def _explore(
    rows: AnyRows,
    begin: int,
    order: torch.Tensor,
    found: Found,
    k: int,
    progress: Progress,
    exchange: Exchange | None,
) -> None:
    """Look at the neighbours of neighbours, of all rows as they were before."""
    indices = found[0]
    near = indices[:, :EXPLORED_NEIGHBORS].clone()
    nearer = near if exchange is None else torch.cat(exchange.gather(near, "neighbours"))

    def explore(anchors: torch.Tensor) -> Found:
        first = near[anchors - begin].long()
        second = nearer[first.clamp_min(0)].long().masked_fill((first < 0)[:, :, None], -1)
        return _rank(rows, anchors, torch.cat([indices[anchors - begin].long(), second.flatten(1)], 1), k)

    _in_blocks(found, begin, order, "neighbours of neighbours", progress, explore)


def _complete(rows: AnyRows, begin: int, found: Found, k: int, progress: Progress) -> None:
    """Search rows exactly that have fewer than k others."""
    short = (found[0][:, -1] < 0).nonzero()[:, 0]
    if len(short):
        indices, distances = exact(rows, begin + short, k, "faiss", progress)
        found[0][short], found[1][short] = indices.to(found[0].dtype), distances


def _in_blocks(
    found: Found,
    begin: int,
    order: torch.Tensor,
    label: str,
    progress: Progress,
    search: Callable[[torch.Tensor], Found],
) -> None:
    """Put what is found for the rows, block after block in this order, into their places, of which row begin's is 0."""
    with progress(label, len(order)) as bar:
        for part in order.split(ROWS_AT_ONCE):
            anchors = part.long()
            indices, distances = search(anchors)
            found[0][anchors - begin], found[1][anchors - begin] = indices.to(order.dtype), distances
            bar.update(len(anchors))
