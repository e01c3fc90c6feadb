"""Drawing edges by their weights: argument checks, the choice of native or reference."""

from __future__ import annotations

import math

import torch

from fastpdr import _native, reference
from fastpdr.ops._arguments import describe, require_count, require_floats, require_indices

_TABLE = _native.overload("alias_table")
_SAMPLE = _native.overload("sample_edges")
_MAX_ENTRIES = 2**31  # beyond, sums of 2^-32 of the mean weight do not fit in 63 bits, nor aliases in 31
_WEIGHTS = (torch.float32, torch.float64)

if _TABLE is not None:

    @torch.library.register_fake("fastpdr::alias_table")
    def _(weights: torch.Tensor) -> torch.Tensor:
        return weights.new_empty(weights.shape[0], dtype=torch.int64)

    @torch.library.register_fake("fastpdr::sample_edges")
    def _(table: torch.Tensor, n_edges: int, seed: int, step: int) -> torch.Tensor:
        return table.new_empty(n_edges)


def alias_table(weights: torch.Tensor) -> torch.Tensor:
    """Build the table from which :func:`sample_edges` draws in constant time.

    Parameters
    ----------
    weights : torch.Tensor
        ``[e]`` float32 or float64, 1 <= e < 2^31, finite, >= 0, not all 0.

    Returns
    -------
    torch.Tensor
        ``[e]`` int64, 8 bytes an entry: ``threshold * 2^31 + alias``. The threshold, in [0, 2^32), is the share of the
        entry that is its own; the alias is the entry that has the rest, or the entry itself where there is none. The
        probability of every entry is its weight / sum to within 2^-31 / e; a weight of 0 is never drawn. Native and
        reference give the same integers. The kernel takes no memory but the table.

    Raises
    ------
    TypeError, ValueError
        If the weights have the wrong type, dtype, shape or range.

    References
    ----------
    Walker (1977), An efficient method for generating discrete random variables with general distributions, ACM TOMS 3.
    Hübschle-Schneider & Sanders (2022), Parallel weighted random sampling, ACM TOMS 48 (the sweep).

    Examples
    --------
    >>> import torch
    >>> from fastpdr import ops
    >>> ops.alias_table(torch.tensor([1.0, 0.0, 3.0])).shape
    torch.Size([3])
    """
    require_floats("alias_table", "weights", weights, "[e]")
    if not 1 <= len(weights) < _MAX_ENTRIES:
        raise ValueError(f"alias_table: weights must have 1 <= e < 2^31 entries, got {len(weights)}")
    weights = weights.detach()
    low, high = (float(bound) for bound in torch.aminmax(weights))
    if not (low >= 0 and 0 < high < math.inf):
        raise ValueError(f"alias_table: weights must be finite, >= 0 and not all 0, got values from {low} to {high}")
    if _native.has_kernel("alias_table", weights, dtypes=_WEIGHTS):
        return _TABLE(weights)
    return reference.alias_table(weights)


def sample_edges(table: torch.Tensor, n_edges: int, *, seed: int, step: int) -> torch.Tensor:
    """Draw entries by their weights, independently and with replacement.

    Draw t depends on table, ``seed``, ``step`` and t alone: not on ``n_edges``, the device or the number of threads,
    and not on whether the kernel or the reference draws. The generator is Philox4x32-10 with the key ``seed`` and the
    counter (t, step), so that every (seed, step) has a stream of its own and nothing is kept between calls.

    Parameters
    ----------
    table : torch.Tensor
        ``[e]`` int64, from :func:`alias_table`.
    n_edges : int
        How many to draw, >= 0.
    seed, step : int
        In [0, 2^63).

    Returns
    -------
    torch.Tensor
        ``[n_edges]`` int64, each in [0, e).

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, dtype, shape or range.

    References
    ----------
    Salmon, Moraes, Dror & Shaw (2011), Parallel random numbers: as easy as 1, 2, 3, SC'11.

    Examples
    --------
    >>> import torch
    >>> from fastpdr import ops
    >>> table = ops.alias_table(torch.tensor([1.0, 0.0, 3.0]))
    >>> ops.sample_edges(table, 10, seed=0, step=0)
    tensor([2, 2, 0, 2, 2, 0, 2, 0, 2, 2])
    """
    require_indices("sample_edges", "table", table, "[e]")
    if len(table) == 0:
        raise ValueError(f"sample_edges: table must be [e] with e >= 1, got {describe(table)}")
    n_edges = require_count("sample_edges", "n_edges", n_edges)
    seed, step = require_count("sample_edges", "seed", seed), require_count("sample_edges", "step", step)
    if _native.has_kernel("sample_edges", table, dtypes=(torch.int64,)):
        return _SAMPLE(table, n_edges, seed, step)
    return reference.sample_edges(table, n_edges, seed=seed, step=step)
