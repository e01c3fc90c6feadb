"""What the loop reads where its rows are not held as float32 in one piece: made of raw rows, batch by batch.

A batch is gathered as it is stored, so that a copy to a GPU moves a byte for a uint8, and becomes what the network
takes on the device that trains. The numbers are those of a whole matrix made in the same way.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import nn

from fastpdr.data import Rows, widened

PIECE_ELEMENTS = 1 << 21


class PreparedRows(Rows):
    """Raw rows, and what makes float32 rows ``[n, ...]`` of them.

    Parameters
    ----------
    raw : Rows
        ``[n, ...]`` as stored.
    prepare : torch.nn.Module
        From raw rows, widened to float32 or float64, to float32; without parameters, each row by itself.
    """

    dtype = torch.float32

    def __init__(self, raw: Rows, prepare: nn.Module) -> None:
        # A copy: the network that is trained may have the module too, and move it to another device.
        self.raw, self.device, self.module = raw, raw.device, copy.deepcopy(prepare).to(raw.device)
        self._moved = {self.device: self.module}
        self.piece = max(1, PIECE_ELEMENTS // math.prod(raw.shape[1:]))
        self.shape = (len(raw), *self.finish(raw.block(0, 1)).shape[1:])

    @property
    def in_memory(self) -> bool:
        """Whether all raw rows, dense, are in memory anyway."""
        return self.raw.in_memory

    def block(self, begin: int, end: int) -> torch.Tensor:
        """Rows begin .. end - 1, prepared."""
        return self.finish(self.raw.block(begin, end))

    def take(self, rows: torch.Tensor) -> torch.Tensor:
        """The rows of these numbers, prepared; of many, some at a time: float64 on the way takes more memory."""
        if len(rows) <= self.piece:
            return self.finish(self.gather(rows))
        result = torch.empty(len(rows), *self.shape[1:], device=self.device)
        for begin in range(0, len(rows), self.piece):
            result[begin : begin + self.piece] = self.finish(self.gather(rows[begin : begin + self.piece]))
        return result

    def gather(self, rows: torch.Tensor) -> torch.Tensor:
        """The raw rows of these numbers, ``[b, ...]``."""
        return self.raw.take(rows)

    @torch.no_grad()
    def finish(self, raw: torch.Tensor) -> torch.Tensor:
        """Prepare gathered rows, wherever they have been moved."""
        if raw.device not in self._moved:
            self._moved[raw.device] = copy.deepcopy(self.module).to(raw.device)
        result: torch.Tensor = self._moved[raw.device](widened(raw))
        return result


class AsFloat32(nn.Module):
    """What an own encoder reads: the rows."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return x, float32."""
        return x.float()


Source = torch.Tensor | PreparedRows  # of rows for the loop


def gathered(source: Source, rows: torch.Tensor) -> torch.Tensor:
    """The rows of these numbers ``[b]``, where the source keeps its rows."""
    rows = rows.to(source.device)
    return source.index_select(0, rows) if isinstance(source, torch.Tensor) else source.take(rows)


class NearRows(PreparedRows):
    """For each of n rows its k neighbours, ``[n, k, ...]``.

    Parameters
    ----------
    source : torch.Tensor or PreparedRows
        ``[n, ...]`` float32.
    neighbors : torch.Tensor
        ``[n, k]`` int64, where the source keeps its rows.
    """

    def __init__(self, source: Source, neighbors: torch.Tensor) -> None:
        self.source, self.neighbors, self.device = source, neighbors, source.device
        self.shape = (*neighbors.shape, *source.shape[1:])
        self.piece = max(1, PIECE_ELEMENTS // math.prod(self.shape[1:]))

    @property
    def in_memory(self) -> bool:
        """Whether the source is."""
        return isinstance(self.source, torch.Tensor) or self.source.in_memory

    def gather(self, rows: torch.Tensor) -> torch.Tensor:
        """The raw neighbours of the rows of these numbers, ``[b, k, ...]``."""
        near = self.neighbors[rows]
        source, numbers = self.source, near.flatten()
        raw = source.index_select(0, numbers) if isinstance(source, torch.Tensor) else source.gather(numbers)
        return raw.view(*near.shape, *raw.shape[1:])

    def finish(self, raw: torch.Tensor) -> torch.Tensor:
        """Prepare gathered neighbours."""
        if isinstance(self.source, torch.Tensor):
            return raw
        rows = self.source.finish(raw.flatten(0, 1))
        return rows.view(*raw.shape[:2], *rows.shape[1:])
