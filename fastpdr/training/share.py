"""What a rank does of a batch that all ranks train on together.

Rows 0..n are cut into as many contiguous shards as there are ranks. A rank encodes those rows of a batch that are its
own, and gives their map and their similarities to the others; then all of them compute the loss of the joined batch,
which is exactly that of one process, and each takes the gradient of its own rows. So batches ascend: the rows of a rank
follow each other. One process does the same with batches as they are.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import torch
from torch import nn

from fastpdr._sparse import csr_tensor
from fastpdr.training.batches import Batch, EdgeBatches
from fastpdr.training.feed import Fed, feed
from fastpdr.training.objectives.base import Objective
from fastpdr.training.ranks import Ranks
from fastpdr.training.rows import PreparedRows, Source, gathered
from fastpdr.training.seeds import EDGES, RANDOM, derived_seed
from fastpdr.training.terms import Landmarks


class Share:
    """All of every batch: there is one process."""

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks

    def held(self, source: Source) -> Source:
        """Those rows of a source ``[n, ...]`` that are needed here, in whose order a batch's rows are counted."""
        return source

    def neighbors(self, near: torch.Tensor) -> torch.Tensor:
        """Neighbours of the own rows, as places among the rows that are held."""
        return near

    def feed(self, batches: Iterable[Batch], sources: Sequence[Source], device: torch.device) -> Iterator[Fed]:
        """Yield the own rows of each batch, and the sources' rows of them."""
        return feed(batches, sources, device)

    def joined(self, own: Batch) -> Batch:
        """The whole batch that the own one is part of, by numbers of rows."""
        return own

    def encoder(self, network: nn.Module, held: Source) -> nn.Module:
        """What encodes the own rows of a batch."""
        return network

    def similarities(self, objective: Objective, own: Batch, data: torch.Tensor | None) -> torch.Tensor:
        """Those of the joined batch."""
        return objective.similarities(own, data)

    def map(self, y: torch.Tensor) -> torch.Tensor:
        """The map of the joined batch, of that of the own rows."""
        return y


class RankShare(Share):
    """The part of one of several ranks.

    Parameters
    ----------
    ranks : Ranks
        Of this process.
    n : int
        Rows in all.
    near : torch.Tensor or None
        ``[m, k]`` int64, neighbours of the own rows that noise needs: those of other ranks are held as well.
    seed : int
        Of what a network draws by itself, such as dropout: on each rank other numbers.
    hold : torch.device, optional
        Where rows that are made as they are asked for are held as a matrix; None leaves them so.
    """

    def __init__(
        self, ranks: Ranks, n: int, near: torch.Tensor | None, seed: int, hold: torch.device | None = None
    ) -> None:
        super().__init__(ranks)
        self.hold = hold
        self.seed = derived_seed(seed, RANDOM, ranks.rank)
        self.bounds = torch.tensor(ranks.bounds(n))
        self.begin, self.end = ranks.shard(n)
        halo = torch.empty(0, dtype=torch.int64) if near is None else near.cpu().unique()
        self.halo = halo[(halo < self.begin) | (halo >= self.end)]
        self.ahead: deque[tuple[Batch, list[int]]] = deque()
        self.lengths: list[int] = []  # rows of each rank in the batch of this step
        self.batch = Batch(self.halo)

    def held(self, source: Source) -> Source:
        rows = torch.cat([torch.arange(self.begin, self.end), self.halo])
        if isinstance(source, torch.Tensor):
            return gathered(source, rows)
        if self.hold is None:
            return HeldRows(source, rows)
        return gathered(source, rows).to(self.hold)

    def neighbors(self, near: torch.Tensor) -> torch.Tensor:
        own = (near >= self.begin) & (near < self.end)
        beyond = self.end - self.begin + torch.searchsorted(self.halo.to(near.device), near)
        return torch.where(own, near - self.begin, beyond)

    def feed(self, batches: Iterable[Batch], sources: Sequence[Source], device: torch.device) -> Iterator[Fed]:
        for own, parts in feed(map(self._own, batches), sources, device):
            batch, self.lengths = self.ahead.popleft()
            self.batch = Batch(batch.rows.to(device))
            yield own, parts

    def _own(self, batch: Batch) -> Batch:
        rows = batch.rows.sort().values
        places = torch.searchsorted(rows, self.bounds.to(rows.device)).tolist()
        self.ahead.append((Batch(rows), [end - begin for begin, end in pairwise(places)]))
        return Batch(rows[places[self.ranks.rank] : places[self.ranks.rank + 1]] - self.begin)

    def joined(self, own: Batch) -> Batch:
        return self.batch

    def encoder(self, network: nn.Module, held: Source) -> nn.Module:
        example = gathered(held, torch.zeros(1, dtype=torch.int64))
        example = example.to(next((value.device for value in network.parameters()), example.device))
        encoder = _Encoder(self.ranks, network, example)
        torch.manual_seed(self.seed)
        return encoder

    def similarities(self, objective: Objective, own: Batch, data: torch.Tensor | None) -> torch.Tensor:
        if data is not None:
            data = torch.cat(self.ranks.gather(data, "rows", self.lengths))
            return objective.similarities(self.batch, data)
        return self._stacked(objective.similarities(self.batch, None))

    def _stacked(self, part: torch.Tensor) -> torch.Tensor:
        """The rows of all ranks of a sparse ``[b, b]``, of which each has filled its own."""
        begin = sum(self.lengths[: self.ranks.rank])
        degrees = part.crow_indices().diff()[begin : begin + self.lengths[self.ranks.rank]]
        degrees = torch.cat(self.ranks.gather(degrees.int(), "similarities", self.lengths))
        ends = degrees.long().cumsum(0)
        last = torch.tensor(self.lengths, device=ends.device).cumsum(0) - 1
        until = torch.where(last < 0, 0, ends[last.clamp_min(0)]).tolist()
        counts = [stop - start for start, stop in pairwise([0, *until])]
        columns = torch.cat(self.ranks.gather(part.col_indices().int(), "similarities", counts))
        values = torch.cat(self.ranks.gather(part.values(), "similarities", counts))
        indptr = torch.cat([ends.new_zeros(1), ends])
        return csr_tensor(indptr, columns.to(part.col_indices().dtype), values, len(ends))

    def map(self, y: torch.Tensor) -> torch.Tensor:
        return self.ranks.join(y, self.lengths, "map")


class HeldRows(PreparedRows):
    """Some of the rows of a source, in an order of their own.

    Parameters
    ----------
    source : PreparedRows
        ``[n, ...]``.
    rows : torch.Tensor
        ``[m]`` int64, which of them.
    """

    def __init__(self, source: PreparedRows, rows: torch.Tensor) -> None:
        self.source, self.rows, self.device = source, rows.to(source.device), source.device
        self.shape, self.piece = (len(rows), *source.shape[1:]), source.piece

    @property
    def in_memory(self) -> bool:
        """Whether the source is."""
        return self.source.in_memory

    def block(self, begin: int, end: int) -> torch.Tensor:
        """Rows begin .. end - 1."""
        return self.take(torch.arange(begin, end, device=self.device))

    def gather(self, rows: torch.Tensor) -> torch.Tensor:
        """The raw rows of these numbers."""
        return self.source.gather(self.rows[rows])

    def finish(self, raw: torch.Tensor) -> torch.Tensor:
        """Prepare gathered rows."""
        return self.source.finish(raw)


class _Encoder(nn.Module):
    """Runs a network whose gradients are summed over the ranks; also where a rank has no row of a batch.

    Then one row goes through it that counts for nothing, as not every network takes an empty batch.
    """

    def __init__(self, ranks: Ranks, network: nn.Module, example: torch.Tensor) -> None:
        super().__init__()
        self.example, self.ranks = example[:1], ranks
        self.network = ranks.parallel(network)
        self._prepare(network)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map rows ``[b, ...]``, perhaps none."""
        return self.network(x if len(x) else self.example)[: len(x)]

    def _prepare(self, network: nn.Module) -> None:
        """Run it once in vain: the order in which gradients are summed is settled, for resumed trainings too."""
        before = self.ranks.received["gradient"]
        with torch.random.fork_rng(devices=[self.example.device] if self.example.is_cuda else []):
            (0.0 * self.network(self.example)).sum().backward()
        self.ranks.received["start"] += self.ranks.received["gradient"] - before
        self.ranks.received["gradient"] = before
        unused = [name for name, value in network.named_parameters() if value.requires_grad and value.grad is None]
        if unused:
            raise ValueError(
                f"several ranks: every parameter of encoder must take part in its output, but {unused[0]} does not: "
                "set its requires_grad to False"
            )
        network.zero_grad(set_to_none=True)


class RankEdges(EdgeBatches):
    """Draws the edges of a batch on all ranks, on each in proportion to the weight of its own.

    Parameters
    ----------
    graph : torch.Tensor
        ``[n, n]`` sparse_csr, of whose rows this rank has its own; the others are empty.
    batch_size, per_epoch, seed
        As for :class:`EdgeBatches`, of all ranks together.
    ranks : Ranks
        Of this process.

    Raises
    ------
    ValueError
        If the rows of a rank have no edges.
    """

    def __init__(self, graph: torch.Tensor, batch_size: int, per_epoch: int | None, seed: int, ranks: Ranks) -> None:
        weights = graph.values()
        weight = float(weights.double().sum())
        (heaviest,) = ranks.largest(float(weights.max()) if len(weights) else 0.0)
        every = ranks.gather(torch.tensor([weight], dtype=torch.float64), "start", [1] * ranks.size)
        shares = torch.cat(every).tolist()
        if min(shares) <= 0:
            raise ValueError(f"several ranks: the rows of rank {shares.index(min(shares))} have no edges: take fewer")
        edges = apportioned(max(1, batch_size // 2), shares)
        visits = sum(shares) / heaviest / 2
        every_epoch = per_epoch or max(1, math.ceil(visits / sum(edges)))
        super().__init__(graph, 2 * edges[ranks.rank], every_epoch, derived_seed(seed, EDGES, ranks.rank))
        self.ranks, self.room, self.largest = ranks, 2 * max(edges), 2 * sum(edges)

    def epoch(self, padded: bool = False) -> Iterator[Batch]:
        """Yield the batches up to the end of an epoch, their distinct rows ascending, the same on all ranks."""
        for own in super().epoch():
            rows = own.rows.new_full((self.room,), -1)
            rows[: len(own.rows)] = own.rows
            parts = self.ranks.gather(rows, "draws", [self.room] * self.ranks.size, drawing=True)
            every = torch.cat(parts).unique()
            yield Batch(every[1:] if int(every[0]) < 0 else every)


def edge_batches(graph: torch.Tensor, batch_size: int, per_epoch: int | None, seed: int, ranks: Ranks) -> EdgeBatches:
    """What draws edges: of a whole graph in one process, of the own rows in several."""
    if ranks.size == 1:
        return EdgeBatches(graph, batch_size, per_epoch, seed)
    return RankEdges(graph, batch_size, per_epoch, seed, ranks)


def apportioned(count: int, shares: Sequence[float]) -> list[int]:
    """Cut a count in proportion to shares: rounded down, the rest to the largest remainders; at least 1 for each."""
    exact = [count * share / sum(shares) for share in shares]
    parts = [int(part) for part in exact]
    by_remainder = sorted(range(len(parts)), key=lambda place: parts[place] - exact[place])
    for place in by_remainder[: count - sum(parts)]:
        parts[place] += 1
    return [max(1, part) for part in parts]


def share_of(
    ranks: Ranks,
    n: int,
    near: torch.Tensor | None,
    seed: int,
    networks: Sequence[nn.Module],
    terms: Sequence[nn.Module],
    hold: torch.device | None = None,
) -> Share:
    """The part that the own process has of a training on n rows.

    Raises
    ------
    ValueError
        If there are several ranks, and what is trained cannot be cut among them.
    """
    if ranks.size == 1:
        return Share(ranks)
    name = "several ranks"
    if n < 2 * ranks.size:
        raise ValueError(f"{name}: X must have at least 2 rows for each of the {ranks.size} ranks, got {n}")
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in networks[0].modules()):
        raise ValueError(f"{name}: encoder must not have BatchNorm, whose statistics would be of one rank's rows alone")
    for term in terms:
        if not isinstance(term, Landmarks):
            raise ValueError(
                f"{name}: decoders and global_correlation_loss_weight need the input of a whole batch, which no rank "
                "has: fit them in one process"
            )
    return RankShare(ranks, n, near, seed, hold)
