"""Where the rows of a batch come from: memory of the device that trains, or the host's or a file where they do not fit.

From there, a thread gathers the next batch while the device works on the present one: for a GPU into page-locked
memory, whose copy it starts on a stream of its own. There are two such buffers, one filled while the other is copied.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from fastpdr.training.batches import Batch
from fastpdr.training.rows import Source, gathered

Parts = list[torch.Tensor]
Fed = tuple[Batch, Parts]


def feed(batches: Iterable[Batch], sources: Sequence[Source], device: torch.device) -> Iterator[Fed]:
    """Yield each batch with its rows of every source ``[n, ...]``, all on the device."""
    if all(source.device == device and _held(source) for source in sources):
        for batch in batches:
            parts: dict[int, torch.Tensor] = {}  # a source that is named twice is read once
            for source in sources:
                if id(source) not in parts:
                    parts[id(source)] = gathered(source, batch.rows)
            yield batch, [parts[id(source)] for source in sources]
        return
    yield from _ahead(iter(batches), sources, device)


def _held(source: Source) -> bool:
    return isinstance(source, torch.Tensor) or source.in_memory


def _ahead(batches: Iterator[Batch], sources: Sequence[Source], device: torch.device) -> Iterator[Fed]:
    stream = torch.cuda.Stream(device) if device.type == "cuda" else None
    buffers = [_Buffer(sources, device, stream), _Buffer(sources, device, stream)]
    with ThreadPoolExecutor(1, thread_name_prefix="fastpdr-feed") as worker:
        following = worker.submit(buffers[0].load, batches)
        while (fed := following.result()) is not None:
            buffers.reverse()
            following = worker.submit(buffers[0].load, batches)
            if stream is not None:
                _hand_over(buffers[1], fed, torch.cuda.current_stream(device))
            yield fed


def _hand_over(buffer: _Buffer, fed: Fed, stream: torch.cuda.Stream) -> None:
    """Let the stream that trains wait for the copy; the copies' memory is free again when its work is done."""
    stream.wait_event(buffer.copied)
    batch, parts = fed
    for tensor in (*batch, *parts):
        if tensor is not None:
            tensor.record_stream(stream)


def _finish(source: Source, part: torch.Tensor) -> torch.Tensor:
    return part if isinstance(source, torch.Tensor) else source.finish(part)


class _Buffer:
    """Page-locked memory for the parts of one batch."""

    def __init__(self, sources: Sequence[Source], device: torch.device, stream: torch.cuda.Stream | None) -> None:
        self.sources = {id(source): source for source in sources}  # one that is named twice is read once
        self.order = [id(source) for source in sources]
        self.device, self.stream = device, stream
        self.memory: dict[Any, torch.Tensor] = {}
        self.copied: Any = torch.cuda.Event() if stream is not None else None

    def load(self, batches: Iterator[Batch]) -> Fed | None:
        """Gather the next batch and start its copy to the device; None after the last."""
        batch = next(batches, None)
        if batch is None:
            return None
        if self.copied is not None:
            self.copied.synchronize()  # the thread's wait, until the last copy has read the buffer
        staged = {name: self._gather(name, source, batch.rows) for name, source in self.sources.items()}
        if self.stream is None:
            return batch, self._finished(staged)
        rows = self._room("rows", batch.rows)
        rows.copy_(batch.rows)
        with torch.cuda.stream(self.stream):
            points = None if batch.points is None else torch.full((), int(batch.points), device=self.device)
            moved = Batch(rows.to(self.device, non_blocking=True), points)
            parts = self._finished({name: part.to(self.device, non_blocking=True) for name, part in staged.items()})
            self.copied.record(self.stream)
        return moved, parts

    def _gather(self, name: int, source: Source, rows: torch.Tensor) -> torch.Tensor:
        if isinstance(source, torch.Tensor):
            room = None if self.stream is None else self._room(name, source, len(rows))
            return torch.index_select(source, 0, rows, out=room)
        raw = source.gather(rows)
        return raw if self.stream is None else self._room(name, raw).copy_(raw)

    def _finished(self, parts: dict[int, torch.Tensor]) -> Parts:
        finished = {name: _finish(self.sources[name], part) for name, part in parts.items()}
        return [finished[name] for name in self.order]

    def _room(self, name: Any, like: torch.Tensor, size: int | None = None) -> torch.Tensor:
        """As many rows of memory under this name; made anew where there are too few."""
        size = len(like) if size is None else size
        memory = self.memory.get(name)
        if memory is None or len(memory) < size:
            memory = torch.empty((size, *like.shape[1:]), dtype=like.dtype, pin_memory=self.stream is not None)
            self.memory[name] = memory
        return memory[:size]
