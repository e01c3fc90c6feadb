"""One step: encoder -> op -> optimizer, run as it is, or recorded in a CUDA graph and replayed.

A graph repeats what it has recorded with the addresses and numbers of then. So all that changes from step to step lies
in tensors that stay where they are, and everything else is a reason for another recording: the number of rows, the
exaggeration, and whether extra components are gone.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple, Protocol

import torch
from torch import nn

from fastpdr.training.batches import Batch
from fastpdr.training.noise import Noise
from fastpdr.training.objectives import Objective
from fastpdr.training.ranks import Ranks
from fastpdr.training.share import Share

LOG = logging.getLogger("fastpdr")
WARM_UP_RUNS = 3  # steps before a recording, in which libraries and the optimizer make what they keep

Number = float | torch.Tensor


class Inputs(NamedTuple):
    """What a step is given."""

    batch: Batch
    x: torch.Tensor  # [b, ...], the batch's rows of the input
    data: torch.Tensor | None  # [b, ...], of the objective's data
    fade: Number  # weight of the extra components
    noise: int | torch.Tensor  # where in the pool the noise begins
    near: torch.Tensor | None = None  # [b, k, ...], the rows' neighbours, where the noise needs them brought


class Phase(NamedTuple):
    """What stays the same for many steps."""

    exaggeration: float
    dropped: bool  # whether extra components are gone


class Step:
    """Runs steps and sums up their losses on the device.

    Parameters
    ----------
    networks : sequence of torch.nn.Module
        What is trained; each network's gradient is clipped on its own. The first is the encoder.
    objective : Objective
        What is minimised.
    terms : sequence of torch.nn.Module
        Further parts of the loss.
    n_components : int
        Of the map; further outputs fade away.
    optimizer : torch.optim.Optimizer
        Of the networks' parameters.
    noise : Noise
        On the input.
    clip_grad_value, clip_grad_norm : float or None
        Bounds of the gradient.
    bfloat16 : bool
        Whether the encoder multiplies in bf16.
    share : Share, optional
        This process's part of every batch; by default all of it.
    encoder : torch.nn.Module, optional
        What runs the first network, where that is not done by itself.
    """

    def __init__(
        self,
        networks: Sequence[nn.Module],
        objective: Objective,
        terms: Sequence[nn.Module],
        n_components: int,
        optimizer: torch.optim.Optimizer,
        noise: Noise,
        clip_grad_value: float | None,
        clip_grad_norm: float | None,
        bfloat16: bool,
        share: Share | None = None,
        encoder: nn.Module | None = None,
    ) -> None:
        self.objective, self.terms = objective, terms
        self.share, self.encoder = share or Share(Ranks()), encoder or networks[0]
        self.n_components, self.optimizer, self.noise = n_components, optimizer, noise
        self.clip_grad_value, self.clip_grad_norm = clip_grad_value, clip_grad_norm
        device = noise.device
        self.precision = autocast(device, bfloat16)
        self.parameters = [[*network.parameters()] for network in networks]
        self.total = torch.zeros((), dtype=torch.float64, device=device)  # of loss times rows
        self.encoded = torch.zeros((), dtype=torch.int64, device=device)  # rows that count
        self.norm = torch.zeros((), device=device)  # of the encoder's last gradient, where it is clipped

    def __call__(self, inputs: Inputs, phase: Phase) -> None:
        """Train on one batch."""
        own, x, data, fade, noise, near = inputs
        batch, similarities = self.share.joined(own), self.share.similarities(self.objective, own, data)
        with self.precision:
            y = self.encoder(self.noise.add(x, own.rows, noise, near))
        y = self.share.map(y.float())
        faded = fade_extra(y, self.n_components, None if phase.dropped else fade)
        loss = self.objective.loss(faded, similarities, phase.exaggeration, batch.points)
        for term in self.terms:
            loss = loss + term(batch.rows, x, y[:, : self.n_components])
        norms = descend(self.parameters, loss, self.optimizer, self.clip_grad_value, self.clip_grad_norm)
        if norms:
            self.norm.copy_(norms[0])
        points = len(batch.rows) if batch.points is None else batch.points
        self.total += loss.detach().double() * points
        self.encoded += points

    def mean_loss(self) -> float:
        """The mean over the rows since the last call; waits for the device."""
        mean = float(self.total / self.encoded)
        self.total.zero_()
        self.encoded.zero_()
        return mean

    def gradient_norm(self) -> float:
        """The norm of the encoder's last gradient, before it was clipped to a norm; waits for the device."""
        if self.clip_grad_norm is not None:
            return float(self.norm)
        gradients = [p.grad for p in self.parameters[0] if p.grad is not None]
        return float(nn.utils.get_total_norm(gradients))


def descend(
    networks: Sequence[Sequence[nn.Parameter]],
    loss: torch.Tensor,
    optimizer: torch.optim.Optimizer,
    clip_value: float | None,
    clip_norm: float | None,
) -> list[torch.Tensor]:
    """One step of the optimizer on the parameters of networks; each network's gradient is clipped on its own.

    Returns the norms that were clipped, as they were before.
    """
    for parameters in networks:
        for parameter in parameters:  # optimizer.zero_grad takes four times as long about it
            parameter.grad = None
    loss.backward()
    norms = []
    for parameters in networks:
        if clip_value is not None:
            nn.utils.clip_grad_value_(parameters, clip_value)
        if clip_norm is not None:
            norms.append(shorten(parameters, clip_norm))
    optimizer.step()
    return norms


def shorten(parameters: Sequence[nn.Parameter], bound: float) -> torch.Tensor:
    """Scale the gradients of parameters to a joint norm of the bound where it is larger; return it as it was."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients or gradients[0].device.type != "cpu":
        return nn.utils.clip_grad_norm_(parameters, bound)
    # The same without what it takes to sort tensors by device, half of the time on the CPU; nothing waits there.
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(gradient) for gradient in gradients]))
    factor = bound / (float(norm) + 1e-6)
    if not factor >= 1.0:  # also where it is not a number
        for gradient in gradients:
            gradient.mul_(factor)
    return norm


def fade_extra(y: torch.Tensor, n_components: int, weight: Number | None) -> torch.Tensor:
    """Scale the outputs beyond the first n_components, or drop them where there is no weight."""
    if weight is None or y.shape[1] == n_components:
        return y[:, :n_components]
    weights = y.new_ones(y.shape[1])
    weights[n_components:] = weight
    return y * weights  # one op backward too, where joined parts are four


def autocast(device: torch.device, bfloat16: bool) -> AbstractContextManager[object]:
    """bf16 matrix products in the encoder, or nothing."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if bfloat16 else nullcontext()


class Graphs(Protocol):
    """How work is recorded; :class:`CudaGraphs`, or a stand-in of the tests."""

    def warm_up(self, work: Callable[[], None]) -> None:
        """Run the work where it will be recorded."""

    def waits(self, work: Callable[[], None]) -> str | None:
        """Run the work and return what in it waited for the device, if anything did."""

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Return what repeats the work, which is not run now."""


class Recorder:
    """Runs a step by replaying a recording of it, once there is one for the batch's shape.

    The steps before a recording are steps of the training as well. What cannot be recorded runs as it is, after one
    line in the log.

    Parameters
    ----------
    step : Step
        Whose inputs have shapes that do not depend on what is drawn.
    graphs : Graphs
        Records.
    device : torch.device
        Of the tensors that hold what changes.
    """

    def __init__(self, step: Step, graphs: Graphs, device: torch.device) -> None:
        self.step, self.graphs, self.device = step, graphs, device
        self.phase: Phase | None = None
        self.runs: dict[int, int] = {}  # rows of a batch -> steps so far
        self.recordings: dict[int, tuple[Inputs, Callable[[], None]]] = {}
        self.refused = False

    def __call__(self, inputs: Inputs, phase: Phase) -> None:
        """Train on one batch."""
        if phase != self.phase:
            self.recordings.clear()
            self.runs.clear()
            self.phase = phase
        b = len(inputs.batch.rows)
        if self.refused:
            self.step(inputs, phase)
        elif b in self.recordings:
            fill(self.recordings[b][0], inputs)
            self.recordings[b][1]()
        else:
            self._without(inputs, phase, b)

    def _without(self, inputs: Inputs, phase: Phase, b: int) -> None:
        """A step for which there is no recording yet."""
        held = hold(inputs, self.device)
        runs = self.runs[b] = self.runs.get(b, 0) + 1
        if runs < WARM_UP_RUNS:
            self.graphs.warm_up(lambda: self.step(held, phase))
        elif runs == WARM_UP_RUNS:
            waited = self.graphs.waits(lambda: self.step(held, phase))
            if waited:
                self._refuse(f"it waits for the device ({waited})")
        else:
            try:
                replay = self.graphs.record(lambda: self.step(held, phase))
            except RuntimeError as error:
                self._refuse(str(error).splitlines()[0])
                self.step(inputs, phase)
                return
            self.recordings[b] = held, replay
            replay()

    def _refuse(self, reason: str) -> None:
        self.refused = True
        self.recordings.clear()
        LOG.info("the training step is not recorded in a CUDA graph, but run as it is: %s", reason)


def hold(inputs: Inputs, device: torch.device) -> Inputs:
    """A copy of the inputs in tensors of its own, numbers as well."""
    batch, x, data, fade, noise, near = inputs
    return Inputs(
        Batch(batch.rows.clone(), None if batch.points is None else batch.points.clone()),
        x.clone(),
        None if data is None else data.clone(),
        torch.full((), float(fade), device=device),
        torch.full((), int(noise), dtype=torch.int64, device=device),
        None if near is None else near.clone(),
    )


def fill(held: Inputs, inputs: Inputs) -> None:
    """Write other inputs of the same shapes into the tensors of :func:`hold`."""
    targets = (*held.batch, held.x, held.data, held.near)
    for target, source in zip(targets, (*inputs.batch, inputs.x, inputs.data, inputs.near), strict=True):
        if target is not None and source is not None:
            target.copy_(source)
    for number, value in ((held.fade, inputs.fade), (held.noise, inputs.noise)):
        number.fill_(value)  # type: ignore[union-attr]


class CudaGraphs:
    """Records on a stream of its own, where warm-up runs as well."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.stream = device, torch.cuda.Stream(device)

    def warm_up(self, work: Callable[[], None]) -> None:
        """Run the work on the stream, in order with that of the current one."""
        current = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            work()
        current.wait_stream(self.stream)

    def waits(self, work: Callable[[], None]) -> str | None:
        """Run the work and return PyTorch's first warning of a wait, if there is one."""
        before = torch.cuda.get_sync_debug_mode()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                self.warm_up(work)
            finally:
                torch.cuda.set_sync_debug_mode(before)
        messages = [str(warning.message).splitlines()[0] for warning in caught]
        # Not the notice, given once a process, that the mode "does not yet detect all synchronizing operations".
        return next((message for message in messages if "called a synchronizing" in message), None)

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record the work in a graph."""
        graph, current = torch.cuda.CUDAGraph(), torch.cuda.current_stream(self.device)
        self.stream.wait_stream(current)
        try:
            # Other threads may go on, such as the one that feeds rows from the host.
            with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
                work()
        finally:
            torch.cuda.set_stream(current)  # which a failed recording leaves changed
        return graph.replay
