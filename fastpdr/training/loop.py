"""The loop: batch -> encoder -> op -> optimizer.

The objective draws the batches of every epoch anew. Nothing is read back from the device within an epoch, except
where landmarks ask whether a batch has any.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from fastpdr.training.batches import RandomBatches
from fastpdr.training.callbacks import Callback, TrainingState, run_callbacks
from fastpdr.training.objectives import Objective

WARM_UP_STEPS = 50
ANNEALED_SHARE = 0.5  # of all steps, while extra components fade away
PRETRAINING_STEPS = 100
FINAL_RATE = 1e-5  # of the schedules, relative to the learning rate
NOISE_POOL = 2**22  # numbers drawn once


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
    inputs: torch.Tensor,
    objective: Objective,
    settings: TrainingSettings,
    generator: torch.Generator,
    callbacks: Sequence[Callback | Callable[[TrainingState], bool | None]] = (),
    terms: Sequence[nn.Module] = (),
) -> TrainingState:
    """Train the encoder in place.

    Parameters
    ----------
    encoder : torch.nn.Module
        ``[b, d] -> [b, c]`` with c >= n_components; further outputs fade away during the first half.
    inputs : torch.Tensor
        ``[n, ...]`` float32, what the encoder reads.
    objective, settings
        What is minimised, and how.
    generator : torch.Generator
        Draws the noise; on the device of ``inputs``.
    callbacks
        Run after each epoch; a true result stops.
    terms
        Further parts of the loss (:mod:`fastpdr.training.terms`); their parameters are trained too.

    Returns
    -------
    TrainingState
        With the loss of every epoch.

    Raises
    ------
    FloatingPointError
        If the loss of an epoch is not finite.
    """
    steps = settings.n_epochs * objective.per_epoch
    networks = [encoder, *(term for term in terms if any(True for _ in term.parameters()))]
    optimizer = make_optimizer(networks, settings, inputs.device)
    scheduler = make_scheduler(optimizer, settings, steps)
    noise = Noise(settings.input_noise, generator)
    state = TrainingState(encoder, settings.n_epochs)
    for network in networks:
        network.train()
    for epoch in range(settings.n_epochs):
        exaggeration = settings.exaggeration if epoch < settings.exaggeration_epochs else 1.0
        total, encoded = torch.zeros((), dtype=torch.float64, device=inputs.device), 0
        for number, rows in enumerate(objective.epoch()):
            fade = extra_weight((epoch * objective.per_epoch + number) / steps)
            similarities = objective.similarities(rows)
            x = inputs[rows]
            with autocast(inputs.device, settings.bfloat16):
                y = encoder(noise.add(x))
            y = y.float()
            loss = objective.loss(fade_extra(y, settings.n_components, fade), similarities, exaggeration)
            for term in terms:
                loss = loss + term(rows, x, y[:, : settings.n_components])
            update(networks, loss, optimizer, settings)
            total += loss.detach().double() * len(rows)
            encoded += len(rows)
            state.learning_rate = float(scheduler.get_last_lr()[0])
            scheduler.step()
        state.epoch = epoch + 1
        state.settled = exaggeration == 1.0 and state.epoch >= settings.n_epochs * ANNEALED_SHARE
        state.loss_history.append(float(total) / encoded)
        require_finite(state)
        if run_callbacks(callbacks, state):
            break
    for network in networks:
        network.eval()
    return state


def pretrain(
    encoder: nn.Module,
    inputs: torch.Tensor,
    target: torch.Tensor,
    settings: TrainingSettings,
    generator: torch.Generator,
) -> None:
    """Teach the encoder a given map ``[n, n_components]``, about 100 steps of least squares."""
    batches = RandomBatches(len(inputs), settings.batch_size, generator)
    optimizer = torch.optim.Adam(encoder.parameters(), 1e-3)
    encoder.train()
    for _ in range(math.ceil(PRETRAINING_STEPS / batches.per_epoch)):
        for rows in batches.epoch():
            y = encoder(inputs[rows])[:, : settings.n_components]
            update([encoder], nn.functional.mse_loss(y, target[rows]), optimizer, settings)


def extra_weight(progress: float) -> float:
    """Weight of the extra components: falls linearly from 1 to 0 over the first share of the training."""
    return max(0.0, 1.0 - progress / ANNEALED_SHARE)


def fade_extra(y: torch.Tensor, n_components: int, weight: float) -> torch.Tensor:
    """Scale the outputs beyond the first n_components, and drop them once their weight is 0."""
    if weight == 0.0 or y.shape[1] == n_components:
        return y[:, :n_components]
    return torch.cat([y[:, :n_components], weight * y[:, n_components:]], dim=1)


class Noise:
    """Gaussian noise on the input: each step takes another stretch of one pool, since drawing is a tenth of a step."""

    def __init__(self, deviation: float, generator: torch.Generator) -> None:
        self.deviation, self.generator = deviation, generator
        self.offsets = random.Random(generator.initial_seed())
        self.pool = torch.empty(0)

    def add(self, x: torch.Tensor) -> torch.Tensor:
        """Return x with noise."""
        if self.deviation == 0.0:
            return x
        if x.numel() > len(self.pool) // 2:
            self.pool = torch.empty(max(NOISE_POOL, 2 * x.numel()), device=x.device)
            self.pool.normal_(0.0, self.deviation, generator=self.generator)
        offset = self.offsets.randrange(len(self.pool) - x.numel() + 1)
        return x + self.pool[offset : offset + x.numel()].view(x.shape)


def autocast(device: torch.device, bfloat16: bool) -> AbstractContextManager[object]:
    """bf16 matrix products in the encoder, or nothing."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if bfloat16 else nullcontext()


def update(
    networks: Sequence[nn.Module], loss: torch.Tensor, optimizer: torch.optim.Optimizer, settings: TrainingSettings
) -> None:
    """One step of the optimizer; each network's gradient is clipped on its own."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    for network in networks:
        if settings.clip_grad_value is not None:
            nn.utils.clip_grad_value_(network.parameters(), settings.clip_grad_value)
        if settings.clip_grad_norm is not None:
            nn.utils.clip_grad_norm_(network.parameters(), settings.clip_grad_norm)
    optimizer.step()


def make_optimizer(
    networks: Sequence[nn.Module], settings: TrainingSettings, device: torch.device
) -> torch.optim.Optimizer:
    """The optimizer by name, fused where PyTorch has it so."""
    parameters = [parameter for network in networks for parameter in network.parameters()]
    rate, decay = settings.learning_rate, settings.weight_decay
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
