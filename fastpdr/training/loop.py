"""The loop: rows -> encoder -> op -> optimizer.

Each epoch draws the batches anew and uses every row once. Nothing is read back from the device within an epoch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from fastpdr.training.callbacks import Callback, TrainingState, run_callbacks
from fastpdr.training.objectives import BatchTSNE

WARM_UP_STEPS = 50
ANNEALED_SHARE = 0.5  # of all steps, while extra components fade away
PRETRAINING_STEPS = 100
FINAL_RATE = 1e-5  # of the schedules, relative to the learning rate


@dataclass(frozen=True)
class TrainingSettings:
    """Numbers of the loop; the estimators document them."""

    n_components: int
    n_epochs: int
    batch_size: int
    learning_rate: float
    lr_schedule: str  # "cosine", "linear", "constant"
    optimizer: str  # "adamw", "adam", "sgd", "rmsprop"
    weight_decay: float
    exaggeration: float
    exaggeration_epochs: int
    clip_grad_value: float | None
    clip_grad_norm: float | None
    input_noise: float  # standard deviation
    bfloat16: bool


def train(
    encoder: nn.Module,
    rows: torch.Tensor,
    inputs: torch.Tensor,
    objective: BatchTSNE,
    settings: TrainingSettings,
    generator: torch.Generator,
    callbacks: Sequence[Callback | Callable[[TrainingState], bool | None]] = (),
) -> TrainingState:
    """Train the encoder in place.

    Parameters
    ----------
    encoder : torch.nn.Module
        ``[b, d] -> [b, c]`` with c >= n_components; further outputs fade away during the first half.
    rows : torch.Tensor
        ``[n, d]`` float32, what similarities are measured on.
    inputs : torch.Tensor
        ``[n, ...]`` float32, what the encoder reads (rows itself, or the raw data of an own encoder).
    objective, settings
        What is minimised, and how.
    generator : torch.Generator
        Draws batches and noise; on the device of ``rows``.
    callbacks
        Run after each epoch; a true result stops.

    Returns
    -------
    TrainingState
        With the loss of every epoch.

    Raises
    ------
    FloatingPointError
        If the loss of an epoch is not finite.
    """
    batches = math.ceil(len(rows) / settings.batch_size)
    steps = settings.n_epochs * batches
    optimizer = make_optimizer(encoder, settings, rows.device)
    scheduler = make_scheduler(optimizer, settings, steps)
    state = TrainingState(encoder, settings.n_epochs)
    encoder.train()
    for epoch in range(settings.n_epochs):
        exaggeration = settings.exaggeration if epoch < settings.exaggeration_epochs else 1.0
        total = torch.zeros((), dtype=torch.float64, device=rows.device)
        for number, batch in enumerate(draw_batches(len(rows), batches, generator)):
            fade = extra_weight((epoch * batches + number) / steps)
            p = objective.similarities(rows[batch])
            x = add_noise(inputs[batch], settings.input_noise, generator)
            with autocast(rows.device, settings.bfloat16):
                y = encoder(x)
            loss = objective.loss(fade_extra(y.float(), settings.n_components, fade), p, exaggeration)
            update(encoder, loss, optimizer, settings)
            total += loss.detach().double() * len(batch)
            state.learning_rate = float(scheduler.get_last_lr()[0])
            scheduler.step()
        state.epoch = epoch + 1
        state.settled = exaggeration == 1.0 and state.epoch >= settings.n_epochs * ANNEALED_SHARE
        state.loss_history.append(float(total) / len(rows))
        require_finite(state)
        if run_callbacks(callbacks, state):
            break
    encoder.eval()
    return state


def pretrain(
    encoder: nn.Module,
    inputs: torch.Tensor,
    target: torch.Tensor,
    settings: TrainingSettings,
    generator: torch.Generator,
) -> None:
    """Teach the encoder a given map ``[n, n_components]``, about 100 steps of least squares."""
    batches = math.ceil(len(inputs) / settings.batch_size)
    optimizer = torch.optim.Adam(encoder.parameters(), 1e-3)
    encoder.train()
    for _ in range(math.ceil(PRETRAINING_STEPS / batches)):
        for batch in draw_batches(len(inputs), batches, generator):
            y = encoder(inputs[batch])[:, : settings.n_components]
            update(encoder, nn.functional.mse_loss(y, target[batch]), optimizer, settings)


def draw_batches(n: int, batches: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Cut a random order of the n rows into batches of equal size (give or take one): no row is left out."""
    order = torch.randperm(n, generator=generator, device=generator.device)
    return iter(order.tensor_split(batches))


def extra_weight(progress: float) -> float:
    """Weight of the extra components: falls linearly from 1 to 0 over the first share of the training."""
    return max(0.0, 1.0 - progress / ANNEALED_SHARE)


def fade_extra(y: torch.Tensor, n_components: int, weight: float) -> torch.Tensor:
    """Scale the outputs beyond the first n_components, and drop them once their weight is 0."""
    if weight == 0.0 or y.shape[1] == n_components:
        return y[:, :n_components]
    return torch.cat([y[:, :n_components], weight * y[:, n_components:]], dim=1)


def add_noise(x: torch.Tensor, deviation: float, generator: torch.Generator) -> torch.Tensor:
    """Gaussian noise on the input, a new draw for every step."""
    if deviation == 0.0:
        return x
    noise = torch.empty_like(x).normal_(0.0, deviation, generator=generator)
    return noise.add_(x)


def autocast(device: torch.device, bfloat16: bool) -> AbstractContextManager[object]:
    """bf16 matrix products in the encoder, or nothing."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if bfloat16 else nullcontext()


def update(
    encoder: nn.Module, loss: torch.Tensor, optimizer: torch.optim.Optimizer, settings: TrainingSettings
) -> None:
    """One step of the optimizer."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    if settings.clip_grad_value is not None:
        nn.utils.clip_grad_value_(encoder.parameters(), settings.clip_grad_value)
    if settings.clip_grad_norm is not None:
        nn.utils.clip_grad_norm_(encoder.parameters(), settings.clip_grad_norm)
    optimizer.step()


def make_optimizer(encoder: nn.Module, settings: TrainingSettings, device: torch.device) -> torch.optim.Optimizer:
    """The optimizer by name, fused where PyTorch has it so."""
    parameters, rate, decay = encoder.parameters(), settings.learning_rate, settings.weight_decay
    fused = device.type in ("cpu", "cuda")
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(parameters, rate, betas=(0.9, 0.99), weight_decay=decay, fused=fused)
    if settings.optimizer == "adam":
        return torch.optim.Adam(parameters, rate, betas=(0.9, 0.99), weight_decay=decay, fused=fused)
    if settings.optimizer == "rmsprop":
        return torch.optim.RMSprop(parameters, rate, weight_decay=decay)
    return torch.optim.SGD(parameters, rate, momentum=0.9, weight_decay=decay, fused=fused)


def make_scheduler(
    optimizer: torch.optim.Optimizer, settings: TrainingSettings, steps: int
) -> torch.optim.lr_scheduler.LambdaLR:
    """Linear warm-up, then the schedule by name, per step."""
    warm_up = min(WARM_UP_STEPS, steps // 10)

    def factor(step: int) -> float:
        if step < warm_up:
            return (step + 1) / warm_up
        progress = (step - warm_up) / max(1, steps - warm_up)
        if settings.lr_schedule == "cosine":
            return FINAL_RATE + (1 - FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
        if settings.lr_schedule == "linear":
            return max(FINAL_RATE, 1 - progress)
        return 1.0

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def require_finite(state: TrainingState) -> None:
    """Stop at once where the loss is lost."""
    loss = state.loss_history[-1]
    if not math.isfinite(loss):
        raise FloatingPointError(
            f"the loss became {loss} in epoch {state.epoch}: lower learning_rate (the last was "
            f"{state.learning_rate:.2g}), set clip_grad_norm, or use precision='float32'"
        )
