"""The least time of each part: bytes over the rate of a copy, arithmetic over the rate of matrix products.

Both rates are measured where the fit is. The rate of a copy depends on where the bytes lie, so it is that of a copy
within as many bytes as the part works on: a batch in the caches, or rows of a matrix in memory. Products are timed on
the very shapes and in the precision of the network. Floors are of the arithmetic as docs/kernels.md counts it; work
that could be left out altogether is no part of them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import nn

from fastpdr.estimators.resolve import ROWS_AT_ONCE
from fastpdr.training.objectives import BatchTSNE, NeighborTSNE, Objective

from .parts import PartOfFit

FLOAT, LINE, ROUNDS = 4, 64, 7  # bytes of a number and of a line of the cache; the best of so many is taken
LEAST_BYTES, MOST_BYTES, PEAK_SIZE = 2**20, 2**29, 2048
# Multiplications for a pair of points, a division counted as six (docs/kernels.md): the map has two columns.
DENSE_KL, SPARSE_KL, UMAP_PAIR, LARGEVIS_PAIR = 26, 38, 52, 42
FIRST_SCALE, FURTHER_SCALE, EVALUATION = 3.3, 2.7, 10  # evaluations of a row, multiplications for each of its entries
SCALING_READS, NORM_AND_GELU, THEIR_GRADIENTS = 5, 4, 7  # times that the numbers pass

Floors = dict[str, float | None]


def best(function: Callable[[], Any]) -> float:
    """Seconds of the fastest of some calls, each of which is repeated until it takes a millisecond."""
    begin = time.perf_counter()
    function()
    repeats = max(1, math.ceil(1e-3 / (time.perf_counter() - begin)))
    took = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        for _ in range(repeats):
            function()
        took.append((time.perf_counter() - begin) / repeats)
    return min(took)


@cache
def _copied(size: int) -> float:
    source = torch.ones(size // 2 // FLOAT)
    target = torch.empty_like(source)
    return size / best(lambda: target.copy_(source))


def bytes_a_second(within: float) -> float:
    """Read and written by a copy whose source and target have so many bytes together."""
    return _copied(min(MOST_BYTES, max(LEAST_BYTES, 2 ** math.ceil(math.log2(within)))))


def passing(size: float, within: float | None = None) -> float:
    """Seconds for so many bytes, within as many or more."""
    return size / bytes_a_second(size if within is None else within)


@cache
def product(m: int, k: int, n: int, dtype: torch.dtype, layout: str) -> float:
    """Seconds of ``[m, k] @ [k, n]``, either side as it lies ("n") or transposed ("t")."""
    left = torch.ones(m, k, dtype=dtype) if layout[0] == "n" else torch.ones(k, m, dtype=dtype).t()
    right = torch.ones(k, n, dtype=dtype) if layout[1] == "n" else torch.ones(n, k, dtype=dtype).t()
    return best(lambda: torch.mm(left, right))


def peak(dtype: torch.dtype = torch.float32) -> float:
    """Operations a second of a large product, two for a multiplication and its addition."""
    return 2 * PEAK_SIZE**3 / product(PEAK_SIZE, PEAK_SIZE, PEAK_SIZE, dtype, "nn")


def multiplying(count: float) -> float:
    """Seconds of so many multiplications in float32 that fill the vector units."""
    return 2 * count / peak()


def layers(network: nn.Module) -> list[tuple[int, int]]:
    """(Columns read, columns written) of the linear layers, in order."""
    found = (module for module in network.modules() if isinstance(module, nn.Linear))
    return [(layer.in_features, layer.out_features) for layer in found]


def forward(widths: list[tuple[int, int]], b: int, dtype: torch.dtype) -> float:
    """Seconds of a network's layers on b rows: products, and LayerNorm and activation, which read and write float32."""
    products = sum(product(b, k, n, dtype, "nt") for k, n in widths)
    return products + sum(passing(NORM_AND_GELU * FLOAT * b * n, 2 * FLOAT * b * n) for _, n in widths[:-1])


def backward(widths: list[tuple[int, int]], b: int, dtype: torch.dtype) -> float:
    """Seconds of the gradients: two products a layer, one in the first; LayerNorm, activation and bias."""
    weights = sum(product(n, b, k, dtype, "tn") for k, n in widths)
    rows = sum(product(b, n, k, dtype, "nn") for k, n in widths[1:])
    return weights + rows + sum(passing(THEIR_GRADIENTS * FLOAT * b * n, 3 * FLOAT * b * n) for _, n in widths[:-1])


def operations(widths: list[tuple[int, int]], b: int) -> tuple[int, int]:
    """Of the products of forward and of backward."""
    each = [2 * b * k * n for k, n in widths]
    return sum(each), 2 * sum(each) - each[0]


def of_step(fit: PartOfFit, b: int) -> Floors:
    """Seconds of the parts of a step on b rows; None where there is nothing to count.

    Parameters
    ----------
    fit : PartOfFit
        That has run.
    b : int
        Rows of a batch.
    """
    widths, objective, d = layers(fit.encoder), fit.objective, fit.inputs.shape[1]
    dtype = torch.bfloat16 if fit.settings.bfloat16 else torch.float32
    parameters = FLOAT * sum(parameter.numel() for parameter in fit.encoder.parameters())
    held = FLOAT * len(fit.inputs) * d
    separate = objective.data is not None and objective.data is not fit.inputs
    near = 0 if fit.settings.neighbor_noise == 0 or objective.neighbors is None else objective.neighbors.shape[1] + 2
    moved = FLOAT * b * d * (3 * (fit.settings.input_noise > 0) + near)
    return {
        "draw": _draw(objective, b),
        "gather": passing(2 * FLOAT * b * d * (1 + separate), held),
        "noise": passing(moved, held) if moved else None,
        "similarities": _similarities(fit, b),
        "encoder forward": forward(widths, b, dtype),
        "loss": _loss(objective, b),
        "backward": backward(widths, b, dtype),
        "clip": passing(3 * parameters, parameters),
        "optimizer": passing(7 * parameters, 4 * parameters),
    }


def _draw(objective: Objective, b: int) -> float:
    """An order that is read and written, or lines of the table, of the columns and of the rows' beginnings."""
    edges = getattr(objective.batches, "edges", None)
    if edges is None:
        return passing(16 * b)
    return passing(3 * LINE * edges, 16 * len(objective.graph[1]))


def _similarities(fit: PartOfFit, b: int) -> float:
    """Distances, evaluations and the sum with the transpose; or the columns of the rows in the graph."""
    objective = fit.objective
    if isinstance(objective, BatchTSNE):
        evaluations = FIRST_SCALE + FURTHER_SCALE * (len(objective.perplexities_of(b)) - 1)
        distances = product(b, objective.data.shape[1], b, torch.float32, "nt") / 2  # each pair once
        return distances + multiplying(evaluations * EVALUATION * b * b) + passing(3 * FLOAT * b * b)
    entries = int(objective.graph[0].diff()[fit.batch.rows].sum())
    return passing(objective.graph[1].itemsize * entries, objective.graph[1].nbytes)


def _loss(objective: Objective, b: int) -> float:
    """The unordered pairs."""
    if isinstance(objective, BatchTSNE):
        each = DENSE_KL
    elif isinstance(objective, NeighborTSNE):
        each = SPARSE_KL if objective.normalization == "row" else DENSE_KL
    else:
        each = LARGEVIS_PAIR if objective.settings["b"] == 1.0 else UMAP_PAIR
    return multiplying(each * b * (b - 1) / 2)


def of_phases(fit: PartOfFit, n: int, d: int, k: int) -> Floors:
    """Seconds of the phases before and after the training of rows ``[n, d]``, of which k neighbours are sought."""
    rows, width = FLOAT * n * d, fit.inputs.shape[1]
    scaling = passing(SCALING_READS * rows, rows)
    if width < d:
        scaling += passing(rows + FLOAT * n * width, rows) + 2 * n * d * width / peak()
    graph = fit.objective.graph
    widths = [(d, layers(fit.encoder)[0][1]), *layers(fit.encoder)[1:]]
    return {
        "validate": passing(rows, rows),
        "scale": scaling,
        "neighbours": 2 * n * n * d / peak() if k else None,
        "affinities": passing(n * k * 12 + graph[1].nbytes + graph[2].nbytes) if graph else None,
        "map": n / ROWS_AT_ONCE * forward(widths, ROWS_AT_ONCE, torch.float32),
    }
