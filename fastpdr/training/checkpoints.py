"""Checkpoints of a training: each one safetensors file, whose header holds as JSON what is no tensor; no pickle.

A file is written aside, flushed to the disk and renamed, and carries a checksum; the last two are kept. What is not in
it is a function of the data, the settings and the seed (``seeds.py``), and made again from these.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
import time
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import nn

from fastpdr._files import written_aside
from fastpdr.data import Rows, widened
from fastpdr.training.callbacks import Callback, TrainingState
from fastpdr.training.ranks import Ranks
from fastpdr.training.signals import Signals
from fastpdr.training.step import Step

LOG = logging.getLogger("fastpdr")
FORMAT_VERSION = 1
KEPT = 2
FILES, ASIDE = "step-*.safetensors", ".step-*"
HEADER = "fastpdr-checkpoint"


@dataclass(frozen=True)
class Checkpoint:
    """A file, read."""

    path: Path
    tensors: dict[str, torch.Tensor]
    facts: dict[str, Any]


@dataclass
class Training:
    """All that changes while a map is learnt, and is not a function of the number of the step."""

    networks: Sequence[nn.Module]
    optimizer: torch.optim.Optimizer
    step: Step
    state: TrainingState
    callbacks: Sequence[Callback | Callable[[TrainingState], bool | None]]
    device: torch.device
    ranks: Ranks = field(default_factory=Ranks)
    number: int = 0  # steps done
    seconds: float = 0.0  # that they took
    ended: bool = False

    def tensors(self) -> dict[str, torch.Tensor]:
        """Weights, the optimizer's state, sums of the epoch, the global generators of dropout and the like."""
        kept: dict[str, torch.Tensor] = {}
        for i, network in enumerate(self.networks):
            kept |= {f"network.{i}.{key}": value for key, value in network.state_dict().items()}
        for i, slots in self.optimizer.state_dict()["state"].items():
            kept |= {f"optimizer.{i}.{key}": value for key, value in slots.items() if value is not None}
        kept |= {f"step.{name}": getattr(self.step, name) for name in ("total", "encoded", "norm")}
        states = {"random.cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            states["random.cuda"] = torch.cuda.get_rng_state(self.device)
        for name, own in states.items():
            for rank, random in enumerate(self.ranks.gather(own, "checkpoints")):
                kept[name if rank == 0 else f"{name}.{rank}"] = random
        # Weights may share memory, which the file format refuses.
        return {key: value.detach().cpu().clone(memory_format=torch.contiguous_format) for key, value in kept.items()}

    def facts(self) -> dict[str, Any]:
        """Numbers."""
        state = self.state
        return {
            "number": self.number,
            "seconds": self.seconds,
            "ended": self.ended,
            "state": {name: getattr(state, name) for name in NUMBERS},
            "callbacks": [[type(callback).__name__, callback.state_dict()] for callback in self._remembering()],
        }

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint."""
        tensors, facts = checkpoint.tensors, checkpoint.facts
        for i, network in enumerate(self.networks):
            network.load_state_dict(_below(tensors, f"network.{i}."))
        slots: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in _below(tensors, "optimizer.").items():
            slot, name = key.split(".", 1)
            slots.setdefault(int(slot), {})[name] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": slots})
        for name, value in _below(tensors, "step.").items():
            getattr(self.step, name).copy_(value)
        suffix = "" if self.ranks.rank == 0 else f".{self.ranks.rank}"
        torch.set_rng_state(tensors[f"random.cpu{suffix}"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(tensors[f"random.cuda{suffix}"], self.device)
        self.number, self.seconds, self.ended = facts["number"], facts["seconds"], facts["ended"]
        for name in NUMBERS:
            setattr(self.state, name, facts["state"][name])
        for callback, (kind, state) in zip(self._remembering(), facts["callbacks"], strict=False):
            if type(callback).__name__ == kind:
                callback.load_state_dict(state)

    def _remembering(self) -> list[Any]:
        return [callback for callback in self.callbacks if hasattr(callback, "state_dict")]


NUMBERS = ("epoch", "loss_history", "learning_rate", "gradient_norm", "settled")


class Checkpoints:
    """The folder in which a training leaves checkpoints, and the one that it goes on from.

    Parameters
    ----------
    name : str
        Of the estimator, for messages.
    folder : path-like
        Made if missing.
    every : float
        Seconds between two checkpoints.
    resume : bool or "auto"
        Whether to go on from what is there: always, never, or where there is something.
    data, settings : dict
        What must be the same for a training to go on: hashes, and numbers and words. A finished training on
        something else is replaced, an unfinished one is not.
    ranks : Ranks, optional
        Processes of the training, of which rank 0 reads and writes.

    Attributes
    ----------
    found : Checkpoint or None
        What to go on from.
    seed : int or None
        Of the training that is gone on with; to be set for another.

    Raises
    ------
    FileNotFoundError
        If ``resume`` is True and there is no checkpoint.
    ValueError
        If what is there belongs to something else, is damaged, or comes from a newer version.
    OSError
        If the folder cannot be written to.
    """

    def __init__(
        self,
        name: str,
        folder: str | os.PathLike[str],
        every: float,
        resume: bool | str,
        data: dict[str, Any],
        settings: dict[str, Any],
        ranks: Ranks | None = None,
    ) -> None:
        self.name, self.folder, self.every, self.ranks = name, Path(folder), every, ranks or Ranks()
        several = {} if self.ranks.size == 1 else {"number of ranks": self.ranks.size}
        self.identity = {"data": data, "settings": settings | several}
        self.graph: str | None = None
        self.signals = Signals()
        if self.ranks.rank == 0:
            self._require_writable()
        self.found = self.ranks.same(self._find(resume) if self.ranks.rank == 0 else None)
        self.seed: int | None = self.found.facts["seed"] if self.found else None
        self.written = [self.found.path] if self.found else []
        self.last = time.monotonic()

    def _require_writable(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            reason = error.strerror or str(error)
            raise type(error)(f"{self.name}: checkpoint_dir {self.folder} cannot be written to: {reason}") from error

    def _find(self, resume: bool | str) -> Checkpoint | None:
        """The newest whole checkpoint, if it is to be gone on from."""
        if resume is False:
            return None
        found = self._newest_whole()
        if found is None:
            if resume is True:
                raise FileNotFoundError(f"{self.name}: checkpoint_dir {self.folder} holds no checkpoint to resume")
            return None
        difference = self._difference(found.facts["identity"])
        if not difference:
            return found
        if found.facts["ended"] and resume == "auto":
            LOG.info("%s: the finished training in %s is replaced: it had %s", self.name, self.folder, difference)
            return None
        raise ValueError(
            f"{self.name}: the training in checkpoint_dir {self.folder} had {difference}; "
            "take another folder, or resume=False to start anew"
        )

    def _newest_whole(self) -> Checkpoint | None:
        paths = sorted(self.folder.glob(FILES), reverse=True)
        errors = []
        for path in paths:
            try:
                found = read(path)
            except ValueError as error:
                errors.append(str(error))
                continue
            for message in errors:
                warnings.warn(f"{self.name}: {message}; an older checkpoint is used", stacklevel=2)
            return found
        if errors:
            raise ValueError(f"{self.name}: no checkpoint is whole: {'; '.join(errors)}; resume=False starts anew")
        return None

    def _difference(self, theirs: dict[str, Any]) -> str:
        """What was otherwise in another training; nothing if all is the same."""
        different = {}
        for part, mine in self.identity.items():
            names = [key for key in {**theirs[part], **mine} if theirs[part].get(key) != mine.get(key)]
            different[part] = [(name, theirs[part].get(name), mine.get(name)) for name in names]
        if different["data"]:
            return f"other data ({', '.join(name for name, _, _ in different['data'])})"
        changes = [f"{name} was {before!r}, is {now!r}" for name, before, now in different["settings"]]
        return f"other settings ({'; '.join(changes)})" if changes else ""

    def begin(self, training: Training, graph: str) -> None:
        """Go on from the checkpoint that was found; the hash tells if the graph was made anew as it was."""
        self.graph = graph = combined(self.ranks, graph)
        if self.found is not None:
            if self.found.facts["graph"] != graph:
                warnings.warn(
                    f"{self.name}: the neighbour graph is not bit for bit that of the checkpoint (another machine, "
                    "version or number of threads?), and so the map will not be that of an undisturbed training",
                    stacklevel=2,
                )
            training.restore(self.found)
            LOG.info("%s: resumed after %d steps from %s", self.name, training.number, self.found.path)
        self.last = time.monotonic()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """While open, signals end the training after the next step, with a checkpoint."""
        with self.signals.noted():
            yield
        self.signals.end()

    @property
    def due(self) -> bool:
        """Whether it is time for a checkpoint."""
        return self.signals.pending is not None or time.monotonic() - self.last >= self.every

    def keep(self, training: Training) -> None:
        """Write a checkpoint; end if a signal asked to.

        Where it cannot be written, there is a warning, the earlier ones stay, and the training goes on.
        """
        path = self.folder / f"step-{training.number:012d}.safetensors"
        facts = {**training.facts(), "identity": self.identity, "seed": self.seed, "graph": self.graph}
        tensors = training.tensors()
        try:
            if self.ranks.rank == 0:
                write(path, tensors, facts)
                self.written = [*(earlier for earlier in self.written if earlier != path), path][-KEPT:]
                self._tidy()
        except OSError as error:
            warnings.warn(f"{self.name}: no checkpoint after step {training.number}: {error}", stacklevel=2)
        self.last = time.monotonic()
        if self.signals.pending is not None:
            if self.ranks.rank == 0:
                LOG.warning(
                    "%s: stopped by %s after step %d; %s",
                    self.name,
                    self.signals.pending.name,
                    training.number,
                    f"the same training goes on from {self.written[-1]}" if self.written else "there is no checkpoint",
                )
            self.signals.end()

    def _tidy(self) -> None:
        for path in (*self.folder.glob(FILES), *self.folder.glob(ASIDE)):
            if path not in self.written:
                path.unlink(missing_ok=True)


def write(path: Path, tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> None:
    """Write a checkpoint aside, flush it to the disk, rename it."""
    text = json.dumps({"format_version": FORMAT_VERSION, **facts})
    content = to_bytes(tensors, {HEADER: text, "crc32": str(checksum(tensors, text))})
    with written_aside(path) as aside, aside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def read(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises
    ------
    ValueError
        If the file is damaged, was not written by fastpdr, or comes from a newer version.
    """
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 no mapping
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is damaged ({error})") from error
    if HEADER not in header:
        raise ValueError(f"{path} is no checkpoint of fastpdr")
    if header.get("crc32") != str(checksum(tensors, header[HEADER])):
        raise ValueError(f"{path} is damaged (its checksum differs)")
    facts = json.loads(header[HEADER])
    if facts["format_version"] > FORMAT_VERSION:
        raise ValueError(f"{path} was written by a newer fastpdr: upgrade this one")
    return Checkpoint(path, tensors, facts)


def checksum(tensors: dict[str, torch.Tensor], text: str) -> int:
    """CRC-32 of the text and of the tensors in the order of their names."""
    total = zlib.crc32(text.encode())
    for name in sorted(tensors):
        total = zlib.crc32(as_bytes(tensors[name]), total)
    return total


def digest(*arrays: torch.Tensor | NDArray[Any] | Rows) -> str:
    """A hash of arrays, their shapes and types; rows are as an array of them in floating point."""
    total = hashlib.sha256()
    for array in arrays:
        if isinstance(array, Rows):
            dtype = str(widened(array.block(0, 0)).dtype).removeprefix("torch.")
            total.update(f"{dtype}{array.shape}".encode())
            for _, _, block in array.blocks():
                total.update(as_bytes(widened(block)))
            continue
        total.update(f"{array.dtype}{tuple(array.shape)}".encode())
        total.update(as_bytes(array))
    return total.hexdigest()


def combined(ranks: Ranks, mark: str) -> str:
    """One hash of those of all ranks; that of one process is its own."""
    marks = ranks.gather(torch.tensor(list(mark.encode()), dtype=torch.uint8), "start", [len(mark)] * ranks.size)
    return mark if len(marks) == 1 else digest(*marks)


def as_bytes(array: torch.Tensor | NDArray[Any]) -> memoryview:
    """The memory of an array, copied only where it lies on a device or not in one piece; objects as text."""
    if isinstance(array, torch.Tensor):
        array = array.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    elif array.dtype.hasobject:
        array = np.asarray([repr(value) for value in array.flat])
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _below(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
