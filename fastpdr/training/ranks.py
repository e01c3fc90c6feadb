"""Several processes of one training: the one place that knows torch.distributed.

Data-parallel training with the sum of all ranks' gradients (Li et al. 2020, PyTorch Distributed), and a gather of the
map that gradients pass through. One process is a group of one, whose operations do nothing, so that what is written for
several reads the same for one. Groups of its own leave those of the user alone: one for training, one for the draws of
batches, which a thread may make ahead. Bytes are counted as a rank receives them, padding and all; those of a sum as in
a ring, 2 (R - 1) / R of its size.
"""

from __future__ import annotations

import atexit
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import timedelta
from functools import wraps
from itertools import count
from typing import Any, ParamSpec, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.autograd.function import once_differentiable

TIMEOUT = 600.0  # seconds
LAUNCHED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")

T = TypeVar("T")
P = ParamSpec("P")


class RankError(RuntimeError):
    """Another rank has failed, whose error the message is."""


class Ranks:
    """One process alone.

    Attributes
    ----------
    rank, size : int
        Which process of how many.
    received : Counter
        Bytes that came from other ranks, by what they were for.
    """

    rank, size = 0, 1

    def __init__(self) -> None:
        self.received: Counter[str] = Counter()

    def bounds(self, n: int) -> list[int]:
        """Where each rank's rows of n begin, and n: contiguous shards of equal size, give or take one."""
        return [n * rank // self.size for rank in range(self.size + 1)]

    def shard(self, n: int) -> tuple[int, int]:
        """Where the rows of this rank begin and end."""
        bounds = self.bounds(n)
        return bounds[self.rank], bounds[self.rank + 1]

    def gather(
        self, part: torch.Tensor, purpose: str, lengths: Sequence[int] | None = None, *, drawing: bool = False
    ) -> list[torch.Tensor]:
        """Return every rank's part ``[m, ...]``, in order of ranks; where the m are known to all, nothing asks them."""
        return [part]

    def collect(self, part: torch.Tensor, purpose: str) -> list[torch.Tensor] | None:
        """Return every rank's part to rank 0, None to the others."""
        return [part]

    def exchange(self, parts: Sequence[torch.Tensor], purpose: str) -> list[torch.Tensor]:
        """Send a part to each rank; return what each has sent to this one."""
        return list(parts)

    def join(self, part: torch.Tensor, lengths: Sequence[int], purpose: str) -> torch.Tensor:
        """The parts ``[m, c]`` of all ranks one after another; gradients come back to the own part."""
        return part

    def total(self, *values: float) -> list[float]:
        """Sums over the ranks."""
        return list(values)

    def largest(self, *values: float) -> list[float]:
        """Maxima over the ranks."""
        return list(values)

    def same(self, value: T) -> T:
        """What rank 0 has, on every rank."""
        return value

    def alike(self, network: nn.Module) -> None:
        """Give a network rank 0's parameters and buffers."""

    def parallel(self, network: nn.Module) -> nn.Module:
        """A network whose gradient is the sum of all ranks'."""
        return network

    @contextmanager
    def watched(self) -> Iterator[None]:
        """While open, an error of one rank becomes that of all."""
        yield


class ProcessRanks(Ranks):
    """Processes of torch.distributed.

    Parameters
    ----------
    timeout : float
        Seconds that a rank waits for the others before it gives up.
    """

    def __init__(self, timeout: float) -> None:
        super().__init__()
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        backend, limit = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timedelta(seconds=timeout)
        self.group, self.drawing = (dist.new_group(timeout=limit, backend=backend) for _ in range(2))
        self.store, self.failed = dist.distributed_c10d._get_default_store(), f"fastpdr/failed/{next(_groups)}"

    def gather(
        self, part: torch.Tensor, purpose: str, lengths: Sequence[int] | None = None, *, drawing: bool = False
    ) -> list[torch.Tensor]:
        lengths = self._lengths(part, purpose, drawing) if lengths is None else lengths
        longest = max(lengths)
        parts = [part.new_empty(longest, *part.shape[1:]) for _ in lengths]
        dist.all_gather(parts, self._padded(part, longest), group=self.drawing if drawing else self.group)
        self.received[purpose] += (self.size - 1) * parts[0].nbytes
        return [whole[:length] for whole, length in zip(parts, lengths, strict=True)]

    def collect(self, part: torch.Tensor, purpose: str) -> list[torch.Tensor] | None:
        lengths = self._lengths(part, purpose)
        longest = max(lengths)
        parts = [part.new_empty(longest, *part.shape[1:]) for _ in lengths] if self.rank == 0 else None
        dist.gather(self._padded(part, longest), parts, group=self.group, group_dst=0)
        if parts is None:
            return None
        self.received[purpose] += (self.size - 1) * parts[0].nbytes
        return [whole[:length] for whole, length in zip(parts, lengths, strict=True)]

    def exchange(self, parts: Sequence[torch.Tensor], purpose: str) -> list[torch.Tensor]:
        sent = torch.tensor([len(part) for part in parts], device=parts[0].device)
        counts = torch.empty_like(sent)
        dist.all_to_all_single(counts, sent, group=self.group)
        incoming, outgoing = counts.tolist(), sent.tolist()
        result = parts[0].new_empty(sum(incoming), *parts[0].shape[1:])
        dist.all_to_all_single(result, torch.cat(list(parts)), incoming, outgoing, group=self.group)
        self.received[purpose] += (len(result) - incoming[self.rank]) * result[:1].nbytes
        return list(result.split(incoming))

    def join(self, part: torch.Tensor, lengths: Sequence[int], purpose: str) -> torch.Tensor:
        return _Join.apply(part, self, lengths, purpose)

    def total(self, *values: float) -> list[float]:
        return self._reduced(values, dist.ReduceOp.SUM)

    def largest(self, *values: float) -> list[float]:
        return self._reduced(values, dist.ReduceOp.MAX)

    def same(self, value: T) -> T:
        values = [value]
        dist.broadcast_object_list(values, group=self.group, group_src=0, device=torch.device("cpu"))
        return values[0]

    def alike(self, network: nn.Module) -> None:
        for value in (*network.parameters(), *network.buffers()):
            dist.broadcast(value.detach(), group=self.group, group_src=0)

    def parallel(self, network: nn.Module) -> nn.Module:
        parallel = nn.parallel.DistributedDataParallel(network, process_group=self.group)
        parallel.register_comm_hook(self, lambda ranks, bucket: _sum(ranks, bucket))  # annotations as text are refused
        return parallel

    @contextmanager
    def watched(self) -> Iterator[None]:
        try:
            yield
        except RankError:
            raise
        except BaseException as error:
            if isinstance(error, SystemExit) and not error.code:
                raise
            mine = f"rank {self.rank} failed: {type(error).__name__}: {error}"
            first = mine
            with suppress(dist.DistError):  # the store ends with the launcher
                first = self.store.compare_set(self.failed, "", mine).decode()
            if first == mine or not isinstance(error, RuntimeError):  # as broken connections are
                raise
            raise RankError(first) from error

    def _lengths(self, part: torch.Tensor, purpose: str, drawing: bool = False) -> list[int]:
        own = torch.tensor([len(part)], device=part.device)
        every = self.gather(own, purpose, [1] * self.size, drawing=drawing)
        return [int(length) for length in torch.cat(every).tolist()]

    def _padded(self, part: torch.Tensor, length: int) -> torch.Tensor:
        if len(part) == length:
            return part.contiguous()
        padded = part.new_zeros(length, *part.shape[1:])
        padded[: len(part)] = part
        return padded

    def _reduced(self, values: Sequence[float], operation: Any) -> list[float]:
        numbers = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(numbers, operation, group=self.group)
        return numbers.tolist()


class _Join(torch.autograd.Function):
    """All ranks compute the same loss from the same map, so each has the whole gradient and takes its own part."""

    @staticmethod
    def forward(
        ctx: Any, part: torch.Tensor, ranks: ProcessRanks, lengths: Sequence[int], purpose: str
    ) -> torch.Tensor:
        ctx.begin, ctx.length = sum(lengths[: ranks.rank]), len(part)
        return torch.cat(ranks.gather(part, purpose, lengths))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return grad[ctx.begin : ctx.begin + ctx.length], None, None, None


def _sum(ranks: ProcessRanks, bucket: Any) -> Any:
    """Sum a bucket of gradients, where DistributedDataParallel would take the mean."""
    gradient = bucket.buffer()
    ranks.received["gradient"] += 2 * (ranks.size - 1) * gradient.nbytes // ranks.size
    work = dist.all_reduce(gradient, group=ranks.group, async_op=True)
    return work.get_future().then(lambda future: future.value()[0])


_groups = count()  # those that were made, on all ranks the same
_current: ContextVar[Ranks | None] = ContextVar("fastpdr_ranks", default=None)


def current() -> Ranks:
    """The ranks that a fit uses here: those of :func:`distributed`, or this process alone."""
    return _current.get() or Ranks()


def launched() -> bool:
    """Whether this process was started by torchrun, or another launcher that says what it does."""
    return all(name in os.environ for name in LAUNCHED)


@contextmanager
def distributed(*, timeout: float = TIMEOUT) -> Iterator[Ranks]:
    """Let every fit inside use all processes that torchrun has started (``docs/scaling.md``).

    Every process runs the same program on the same data. Each then holds a shard of the rows and their neighbours, and
    all learn one map; ``encoder_`` and ``embedding_`` are the same on all of them afterwards. Fits outside use their
    own process alone. Where nothing has started several processes, a fit inside does as well.

    Parameters
    ----------
    timeout : float
        Seconds, > 0, that a process waits for the others, such as for a callback of rank 0, before it gives up.

    Yields
    ------
    Ranks
        ``rank`` and ``size`` say which process of how many this is: rank 0 should be the one that writes.

    Raises
    ------
    ValueError
        If ``timeout`` is not positive.
    RankError
        Where another process has failed; the message is its error.

    Examples
    --------
    >>> import fastpdr
    >>> from sklearn.datasets import load_digits
    >>> with fastpdr.distributed() as ranks:
    ...     tsne = fastpdr.ParametricTSNE(n_epochs=1, random_state=0).fit(load_digits().data)
    >>> ranks.rank, ranks.size
    (0, 1)
    """
    if not timeout > 0:
        raise ValueError(f"distributed: timeout must be > 0 seconds, got {timeout!r}")
    if not launched() and not (dist.is_available() and dist.is_initialized()):
        yield Ranks()
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
    if not dist.is_initialized():  # and kept: it cannot be made twice with one launcher
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
        atexit.register(dist.destroy_process_group)
    ranks = ProcessRanks(timeout)
    token = _current.set(ranks)
    try:
        with ranks.watched():
            yield ranks
    finally:
        _current.reset(token)


def watched(function: Callable[P, T]) -> Callable[P, T]:
    """Make an error of one rank in the function that of all."""

    @wraps(function)
    def call(*arguments: P.args, **settings: P.kwargs) -> T:
        with current().watched():
            return function(*arguments, **settings)

    return call
