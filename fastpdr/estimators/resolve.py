"""What the parameters of the estimators stand for: seeds, devices, numbers that "auto" and None leave open."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fastpdr._precision import full_float32
from fastpdr._progress import progress
from fastpdr.data import Rows, widened
from fastpdr.graph import KNNGraph
from fastpdr.training.encoder import Reduction
from fastpdr.training.rows import AsFloat32, PreparedRows, Source, gathered

DEVICE_SHARE = 0.6  # of a GPU's free memory that rows may take; the rest is for the graph, the network and a batch
ROWS_AT_ONCE = 8192  # that a network is run on
PLACED_ELEMENTS = 2**24  # of rows from elsewhere than memory
AXES_ENTRIES = 2**25  # of the rows that principal axes are taken from
WIDE, PROJECTED_WIDTH, KEPT_VARIANCE = 200, 100, 0.85


def place(
    network: nn.Module,
    X: Rows,
    width: int,
    *,
    exact: bool = False,
    verbose: bool = False,
    check: Callable[[torch.Tensor], None] | None = None,
) -> NDArray[np.float32]:
    """Run a trained network over rows ``[m, ...]`` in blocks; ``exact`` hands float64 on instead of float32.

    A check sees every block first. Never in TF32 or bf16: a row's place shall depend on the row, not on the GPU.
    """
    parameter = next(network.parameters(), None)
    device = parameter.device if parameter is not None else torch.device("cpu")
    if any(module.training for module in network.modules()):  # to set what is set takes longer than to look
        network.eval()
    result = np.empty((len(X), width), dtype=np.float32)
    size = placed_at_once(X)
    bar = progress("placing", len(X), shown=verbose)
    with bar, torch.inference_mode(), torch.autocast(device.type, enabled=False), full_float32():
        for begin in range(0, len(X), size):
            stored = X.block(begin, min(len(X), begin + size))
            if check is not None:
                check(stored)
            part = stored.to(device)
            part = widened(part) if exact else part.float()
            result[begin : begin + size] = network(part)[:, :width].float().cpu().numpy()
            bar.update(len(part))
    return result


def placed_at_once(X: Rows) -> int:
    """Rows of a block that a network is run on."""
    return ROWS_AT_ONCE if X.in_memory else max(1, min(ROWS_AT_ONCE, PLACED_ELEMENTS // math.prod(X.shape[1:])))


def resolve_device(device: str | torch.device) -> torch.device:
    """The device by name; "auto" takes a GPU where there is one."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
        torch.empty(0, device=resolved)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device must be 'auto', 'cpu', 'cuda' or 'cuda:<i>', got {device!r} ({reason})") from None
    if resolved.type == "meta":
        raise ValueError("device must be one that computes, got 'meta'")
    return resolved


def home_of(bytes_needed: int, device: torch.device) -> torch.device:
    """Where rows are kept that take so many bytes in all: on the device, or the host where they do not fit there."""
    if device.type != "cuda" or bytes_needed <= DEVICE_SHARE * torch.cuda.mem_get_info(device)[0]:
        return device
    return torch.device("cpu")


@contextmanager
def explained_memory(name: str, shape: tuple[int, ...], advice: str) -> Iterator[None]:
    """Say what to change where memory runs out; PyTorch's own message says how much was asked for."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        asked = str(error).splitlines()[0]
        raise torch.OutOfMemoryError(f"{name}: no memory for X of shape {shape}: {advice}. ({asked})") from error


def draw_seed(random_state: Any) -> int:
    """One seed from scikit-learn's random_state; None takes the operating system's, never a global generator's."""
    if random_state is None:
        return secrets.randbits(31)
    if isinstance(random_state, Integral):
        return int(random_state)
    draw = random_state.integers if isinstance(random_state, np.random.Generator) else random_state.randint
    return int(draw(2**31 - 1))


@contextmanager
def forked_generators(seed: int, device: torch.device) -> Iterator[None]:
    """Seed PyTorch's generators for what has no generator argument (weights, dropout), and put them back."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def use_bfloat16(precision: str, device: torch.device) -> bool:
    """Whether the encoder multiplies in bf16: "auto" does so where the device has units for it."""
    if precision != "auto":
        return precision == "bfloat16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        questions = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # private: a torch may lack them
        return any(getattr(torch.cpu, name, bool)() for name in questions)
    return False


def prepared(raw: torch.Tensor | Rows, prepare: nn.Module) -> Source:
    """Rows as float32, made by a module of raw ones: at once of those in one piece, else as they are asked for."""
    if isinstance(raw, Rows):
        return PreparedRows(raw, prepare)
    if raw.dtype == torch.float32 and isinstance(prepare, AsFloat32):
        return raw
    result = torch.empty(raw.shape, device=raw.device)
    for begin in range(0, len(raw), ROWS_AT_ONCE):
        result[begin : begin + ROWS_AT_ONCE] = prepare(raw[begin : begin + ROWS_AT_ONCE])
    return result


def reduced(rows: Source, axes: torch.Tensor) -> Source:
    """``rows @ axes``."""
    if isinstance(rows, torch.Tensor):
        return rows @ axes
    return PreparedRows(rows.raw, nn.Sequential(rows.module, Reduction(axes)))


def first_rows(rows: Source, count: int) -> torch.Tensor:
    """The first rows, at most so many."""
    return gathered(rows, torch.arange(min(count, len(rows)), device=rows.device))


def measure_noise(rows: Source, generator: torch.Generator) -> float:
    """Deviation per coordinate that moves a row by the median distance to its nearest neighbour.

    Measured between up to 512 rows and up to 20,000 others; fewer of very wide ones that are not at hand.
    """
    n, d = rows.shape
    order = torch.randperm(n, generator=generator, device=rows.device)
    most = 20_000 if isinstance(rows, torch.Tensor) else min(20_000, max(2_000, AXES_ENTRIES // d))
    others = gathered(rows, order[:most])
    anchors = others[:512]
    square = others.square().sum(1)
    sqdist = torch.addmm(square[None, :], anchors, others.T, alpha=-2) + square[: len(anchors), None]
    sqdist.fill_diagonal_(torch.inf)
    nearest = sqdist.amin(1).clamp_min(0).sqrt()
    return float(nearest.median()) / math.sqrt(d)


def near_rows(graph: KNNGraph, count: int) -> torch.Tensor:
    """Up to ``count`` of the nearest rows ``[n, k]``; the row itself stands for one that is missing."""
    indices = torch.from_numpy(graph.indices[:, :count].copy())
    return torch.where(indices < 0, graph.first + torch.arange(len(indices))[:, None], indices)


def every_so_many(rows: Source, most: int) -> torch.Tensor:
    """At most so many of the rows, evenly spaced."""
    step = math.ceil(len(rows) / most)
    if isinstance(rows, torch.Tensor):
        return rows[::step]
    return rows.take(torch.arange(0, len(rows), step, device=rows.device))


def principal_axes(rows: Source, count: int) -> torch.Tensor:
    """First principal axes ``[d, q]`` of rows ``[n, d]``, orthonormal, q <= count as the shape of the rows allows.

    From up to 20,000 rows, fewer of very wide ones; randomised (Halko, Martinsson & Tropp 2011).
    """
    sample = every_so_many(rows, min(20_000, max(2_000, AXES_ENTRIES // rows.shape[1])))
    centred = sample - sample.mean(0)
    q = min(count, *centred.shape)
    _, _, v = torch.svd_lowrank(centred, q=min(q + 6, *centred.shape))
    return v[:, :q]


def principal_components(rows: Source, count: int) -> torch.Tensor:
    """First principal components ``[n, count]``, the largest with deviation 1; zeros where the data has no more."""
    axes = principal_axes(rows, count)
    if isinstance(rows, torch.Tensor):
        scores = (rows - rows.mean(0)) @ axes
    else:
        mean = torch.stack([block.double().sum(0) for _, _, block in rows.blocks()]).sum(0) / len(rows)
        scores = torch.cat([(block - mean.float()) @ axes for _, _, block in rows.blocks()])
    scores = scores / scores[:, 0].std().clamp_min(1e-12)
    return torch.nn.functional.pad(scores, (0, count - scores.shape[1]))


def projection_of(rows: Source) -> torch.Tensor | None:
    """Principal axes ``[d, 100]`` that stand in for wide rows ``[n, d]`` while a network is trained; None for others.

    A linear layer on the rows can be had from one on their components, for a third less arithmetic in the network;
    maps of unseen rows are as good or better. Rows whose variance lies elsewhere are left as they are.
    """
    if rows.shape[1] <= WIDE or len(rows) <= PROJECTED_WIDTH:
        return None
    axes = principal_axes(rows, PROJECTED_WIDTH)
    sample = every_so_many(rows, 2_000)
    sample = sample - sample.mean(0)
    kept = (sample @ axes).square().sum() / sample.square().sum()
    return axes if float(kept) >= KEPT_VARIANCE else None


def require_width(argument: str, network: nn.Module, rows: torch.Tensor, width: int, name: str) -> None:
    """Try an encoder or decoder on two rows: its output must be ``[2, width]``."""
    network.eval()
    try:
        with torch.inference_mode():
            y = network(rows)
    except Exception as error:
        raise ValueError(f"{name}: {argument} fails on rows of shape {tuple(rows.shape)}: {error}") from error
    shape = tuple(y.shape) if isinstance(y, torch.Tensor) else type(y).__name__
    if shape != (len(rows), width):
        meaning = "n_components" if argument == "encoder" else "n_features"
        raise ValueError(
            f"{name}: {argument} must map [b, {rows.shape[1]}] to [b, {meaning}={width}], "
            f"got {shape} from {len(rows)} rows"
        )


def perplexity_list(values: float | Sequence[float], n: int, name: str, argument: str) -> list[float]:
    """Perplexities as numbers within what n rows can reach."""
    levels = [float(value) for value in np.atleast_1d(np.asarray(values, dtype=float))]
    if not levels or not all(1.0 <= level < n for level in levels):
        raise ValueError(
            f"{name}: {argument} must be at least 1 and less than the number of rows, got {values!r} with n = {n} rows"
        )
    return levels
