"""The loop: the objective draws the batches of every epoch anew, a feed brings their rows, a step trains on each.

What is drawn for a step is a function of the seed and its number, so that a training goes on from a checkpoint
(``checkpoints.py``) at any step as if it had not been interrupted.

On a GPU nothing is read back within an epoch, and steps are replayed from CUDA graphs (``step.py``), except where the
loss has further terms or several processes train together, whose batches have sizes of their own. What several
processes (``ranks.py``, ``share.py``) do next depends on rank 0's clock and callbacks, and on signals to any.
"""

from __future__ import annotations

import logging
import math
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn

from fastpdr import _native
from fastpdr.training.batches import Batch, RandomBatches
from fastpdr.training.callbacks import Callback, TrainingState, run_callbacks
from fastpdr.training.checkpoints import Checkpoints, Training, digest
from fastpdr.training.feed import feed
from fastpdr.training.noise import Noise, Surroundings
from fastpdr.training.objectives import Objective
from fastpdr.training.optimizers import make_optimizer, set_rate
from fastpdr.training.ranks import Ranks
from fastpdr.training.rows import NearRows, Source
from fastpdr.training.share import Share, share_of
from fastpdr.training.step import CudaGraphs, Graphs, Inputs, Phase, Recorder, Step, descend

LOG = logging.getLogger("fastpdr")

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
    neighbor_noise: float  # in units of the differences between neighbours
    bfloat16: bool
    max_time: float | None = None  # seconds


def train(
    encoder: nn.Module,
    inputs: Source,
    objective: Objective,
    settings: TrainingSettings,
    generator: torch.Generator,
    transform: Callable[[ArrayLike], NDArray[np.float32]],
    callbacks: Sequence[Callback | Callable[[TrainingState], bool | None]] = (),
    terms: Sequence[nn.Module] = (),
    checkpoints: Checkpoints | None = None,
    ranks: Ranks | None = None,
    hold: torch.device | None = None,
) -> TrainingState:
    """Train the encoder in place.

    Parameters
    ----------
    encoder : torch.nn.Module
        ``[b, d] -> [b, c]`` with c >= n_components; further outputs fade away during the first half.
    inputs : torch.Tensor or PreparedRows
        ``[n, ...]`` float32, what the encoder reads; on its device, or the host or a file where they do not fit there.
    objective, settings
        What is minimised, and how.
    generator : torch.Generator
        Whose seed the noise depends on.
    transform
        Places raw rows with the encoder as it is, for callbacks.
    callbacks
        Run after each epoch, on rank 0; a true result stops.
    terms
        Further parts of the loss (:mod:`fastpdr.training.terms`); their parameters are trained too.
    checkpoints
        Where the training is kept, and perhaps goes on from.
    ranks
        Processes that train together, each with the same arguments; but a graph, and neighbours, of the rows of its
        shard alone. By default this process alone.
    hold
        Where one of several ranks holds the rows of its shard; None reads them batch by batch.

    Returns
    -------
    TrainingState
        With the loss of every epoch.

    Raises
    ------
    FloatingPointError
        If the loss of an epoch is not finite.
    ValueError
        If several ranks cannot train this together.
    KeyboardInterrupt, SystemExit
        After a checkpoint, if there are such and Ctrl-C or SIGTERM came.
    """
    device = device_of(encoder, inputs)
    networks = [encoder, *(term for term in terms if any(True for _ in term.parameters()))]
    optimizer = make_optimizer(settings.optimizer, networks, settings.learning_rate, settings.weight_decay, device)
    ranks = ranks or Ranks()
    moved_by = objective.neighbors if settings.neighbor_noise > 0 else None
    share = share_of(ranks, len(inputs), moved_by, generator.initial_seed(), networks, terms, hold)
    held = share.held(inputs)
    near = surroundings(held, objective, settings, device, share)
    step = Step(
        networks,
        objective,
        terms,
        settings.n_components,
        optimizer,
        Noise(settings.input_noise, generator, device, objective.batches.largest, near),
        settings.clip_grad_value,
        settings.clip_grad_norm,
        settings.bfloat16,
        share,
        share.encoder(encoder, held),
    )
    graphs = make_graphs(device, terms, ranks)
    objective.fixed = graphs is not None
    run = step if graphs is None else Recorder(step, graphs, device)
    state = TrainingState(encoder, settings.n_epochs, transform)
    training = Training(networks, optimizer, step, state, callbacks, device, ranks)
    if checkpoints is not None:
        checkpoints.begin(training, digest(*objective.graph, *([] if near is None else [near.neighbors])))
    objective.batches.step = training.number
    epoch = Epoch(training, objective, settings, run, sources_of(inputs, held, objective, near, share), checkpoints)
    for network in networks:
        network.train()
    with nullcontext() if checkpoints is None else checkpoints.watching():
        while not training.ended:
            epoch()
    for network in networks:
        network.eval()
    return state


class Epoch:
    """Trains for an epoch, or what is left of one, each time that it is called.

    Parameters
    ----------
    training : Training
        What changes.
    objective, settings, checkpoints
        As for :func:`train`.
    run : Step or Recorder
        Trains on a batch.
    sources : dict of str to Source
        Whose rows a batch brings: ``"x"``, and perhaps ``"data"`` and ``"near"``.
    """

    def __init__(
        self,
        training: Training,
        objective: Objective,
        settings: TrainingSettings,
        run: Step | Recorder,
        sources: dict[str, Source],
        checkpoints: Checkpoints | None,
    ) -> None:
        self.training, self.objective, self.settings, self.run = training, objective, settings, run
        self.sources, self.checkpoints = sources, checkpoints
        self.steps = settings.n_epochs * objective.per_epoch
        self.rate_factor = make_schedule(settings, self.steps)
        self.begun = time.monotonic() - training.seconds

    def __call__(self) -> None:
        """Train until the epoch ends, or the time."""
        training, settings, checkpoints = self.training, self.settings, self.checkpoints
        exaggeration = settings.exaggeration if training.state.epoch < settings.exaggeration_epochs else 1.0
        sources = [*self.sources.values()]
        for batch, brought in training.step.share.feed(self.objective.epoch(), sources, training.device):
            self._step(batch, dict(zip(self.sources, brought, strict=True)), exaggeration)
            due = agree(training, settings, checkpoints)
            if settings.max_time is not None and training.seconds >= settings.max_time:
                break
            if checkpoints is not None and due and training.number % self.objective.per_epoch:
                checkpoints.keep(training)
        self._end(exaggeration)

    def _step(self, batch: Batch, parts: dict[str, torch.Tensor], exaggeration: float) -> None:
        training, x, place = self.training, parts["x"], self._place()
        training.state.learning_rate = self.settings.learning_rate * self.rate_factor(place)
        set_rate(training.optimizer, training.state.learning_rate)
        fade = extra_weight(place / self.steps)
        begin = training.step.noise.draw(x, training.number * training.ranks.size + training.ranks.rank)
        inputs = Inputs(batch, x, parts.get("data"), fade, begin, parts.get("near"))
        self.run(inputs, Phase(exaggeration, fade == 0.0))
        training.number += 1
        training.seconds = time.monotonic() - self.begun

    def _end(self, exaggeration: float) -> None:
        """Say how it went, and whether there is another."""
        training, state, ranks, checkpoints = self.training, self.training.state, self.training.ranks, self.checkpoints
        place = self._place()
        state.epoch += 1
        state.settled = exaggeration == 1.0 and extra_weight(place / self.steps) == 0.0
        loss, state.gradient_norm = ranks.same((training.step.mean_loss(), training.step.gradient_norm()))
        state.loss_history.append(loss)
        LOG.debug("epoch %d: loss %.6g, rate %.3g", state.epoch, loss, state.learning_rate)
        require_finite(state)
        stopped = ranks.same(ranks.rank == 0 and run_callbacks(training.callbacks, state))
        training.ended = stopped or place >= self.steps
        if checkpoints is not None and (agree(training, self.settings, checkpoints) or training.ended):
            checkpoints.keep(training)

    def _place(self) -> float:
        return schedule_place(self.training, self.steps, self.settings.max_time)


def sources_of(
    inputs: Source, held: Source, objective: Objective, near: Surroundings | None, share: Share
) -> dict[str, Source]:
    """Whose rows every batch brings, by name; ``held`` are the rows of the inputs that are here."""
    sources = {"x": held}
    if objective.data is not None:
        sources["data"] = held if objective.data is inputs else share.held(objective.data)
    if near is not None and near.inputs is None:
        sources["near"] = NearRows(held, near.neighbors)
    return sources


def agree(training: Training, settings: TrainingSettings, checkpoints: Checkpoints | None) -> bool:
    """Whether a checkpoint is due; its signal and rank 0's clock are those of all ranks from now on."""
    ranks, due = training.ranks, checkpoints is not None and checkpoints.due
    if ranks.size == 1 or (checkpoints is None and settings.max_time is None):
        return due
    pending = 0 if checkpoints is None else int(checkpoints.signals.pending or 0)
    seconds = training.seconds if ranks.rank == 0 else 0.0
    training.seconds, anywhere, number = ranks.largest(seconds, float(due), float(pending))
    if checkpoints is not None and number:
        checkpoints.signals.pending = signal.Signals(int(number))
    return anywhere > 0


def surroundings(
    inputs: Source, objective: Objective, settings: TrainingSettings, device: torch.device, share: Share
) -> Surroundings | None:
    """What noise from neighbours needs, where there is to be such; inputs that are not on the device are fed."""
    near = objective.neighbors
    if settings.neighbor_noise == 0.0 or near is None or near.shape[1] < 2:
        return None
    near = share.neighbors(near)
    if isinstance(inputs, torch.Tensor) and inputs.device == device:
        return Surroundings(inputs, near.to(device), settings.neighbor_noise)
    return Surroundings(None, near.to(inputs.device), settings.neighbor_noise)


def pretrain(
    encoder: nn.Module,
    inputs: Source,
    target: torch.Tensor,
    settings: TrainingSettings,
    generator: torch.Generator,
) -> None:
    """Teach the encoder a given map ``[n, n_components]``, about 100 steps of least squares."""
    batches = RandomBatches(len(inputs), settings.batch_size, generator)
    optimizer = torch.optim.Adam(encoder.parameters(), 1e-3)
    parameters = [*encoder.parameters()]
    encoder.train()
    for _ in range(math.ceil(PRETRAINING_STEPS / batches.per_epoch)):
        for _, (x, wanted) in feed(batches.epoch(), [inputs, target], device_of(encoder, inputs)):
            loss = nn.functional.mse_loss(encoder(x)[:, : settings.n_components], wanted)
            descend([parameters], loss, optimizer, settings.clip_grad_value, settings.clip_grad_norm)


def device_of(encoder: nn.Module, inputs: Source) -> torch.device:
    """Where the encoder is, which need not be where its inputs are kept."""
    return next((parameter.device for parameter in encoder.parameters()), inputs.device)


def make_graphs(device: torch.device, terms: Sequence[nn.Module], ranks: Ranks | None = None) -> Graphs | None:
    """What records steps, where that can be: on a GPU with compiled kernels."""
    if device.type != "cuda":
        return None
    reason = ""
    if terms:
        reason = "further terms of the loss see batches without padding, of sizes that the host waits for"
    elif ranks is not None and ranks.size > 1:
        reason = "several processes share batches without padding, of sizes that the host waits for"
    elif not all("cuda" in _native.KERNELS[op] for op in ("pair_loss", "student_t_kl", "subgraph", "sample_edges")):
        reason = "there are no compiled kernels for CUDA"
    if reason:
        LOG.info("the training step is not recorded in a CUDA graph, but run as it is: %s", reason)
        return None
    return CudaGraphs(device)


def schedule_place(training: Training, steps: int, max_time: float | None) -> float:
    """How far the schedules are, in steps: as many as were done, or the share of the time where that is further."""
    return training.number if max_time is None else max(training.number, steps * min(1.0, training.seconds / max_time))


def extra_weight(progress: float) -> float:
    """Weight of the extra components: falls linearly from 1 to 0 over the first share of the training."""
    return max(0.0, 1.0 - progress / ANNEALED_SHARE)


def make_schedule(settings: TrainingSettings, steps: int) -> Callable[[float], float]:
    """Share of the learning rate at a step: linear warm-up, then the schedule by name."""
    warm_up = min(WARM_UP_STEPS, steps // 10)

    def factor(step: float) -> float:
        if step < warm_up:
            return (step + 1) / warm_up
        progress = (step - warm_up) / max(1, steps - warm_up)
        if settings.lr_schedule == "cosine":
            return FINAL_RATE + (1 - FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
        if settings.lr_schedule == "linear":
            return max(FINAL_RATE, 1 - progress)
        return 1.0

    return factor


def require_finite(state: TrainingState) -> None:
    """Stop at once where the loss is lost."""
    loss = state.loss_history[-1]
    if not math.isfinite(loss):
        raise FloatingPointError(
            f"the loss became {loss} in epoch {state.epoch}: lower learning_rate (the last was "
            f"{state.learning_rate:.2g}), set clip_grad_norm, or use precision='float32'"
        )
