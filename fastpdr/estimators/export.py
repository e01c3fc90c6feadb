"""A learnt map for other programs: as ONNX, and as PyTorch's own exported program.

The graph takes rows as they are in the data, float32: scalers and PCA are nodes of it, in float64 like the encoder's
own scaling, so that large offsets cost nothing. What is written is read again, run and compared with ``transform``
before it takes its place.
"""

from __future__ import annotations

import copy
import importlib
import io
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.validation import check_is_fitted
from torch import nn

from fastpdr._files import written_aside
from fastpdr._versions import versions
from fastpdr.estimators.base import ParametricEmbedding
from fastpdr.estimators.steps import split
from fastpdr.training import InputScaling

OPSET = 18
TOLERANCE = 1e-4  # of the map's scale
TRIAL_ROWS, FAR = 64, 1e3  # rows of the data's scale, and how many deviations away extreme ones are
LARGEST_FILE = 2**31 - 2**20  # protobuf's limit, less the graph
DESCRIPTION = "fastpdr.json"
NEEDED = ("onnx", "onnxruntime", "onnxscript")

Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def to_onnx(model: Any, path: str | os.PathLike[str]) -> None:
    """Write a map, with the steps before it, as an ONNX file, checked by onnxruntime.

    Opset 18; input ``X`` ``[rows, d]`` float32, output ``Z`` ``[rows, n_components]`` float32, for any number of rows.
    The metadata has ``method``, and as JSON ``preprocessing``, ``versions``, and ``feature_names`` where there are any.

    Parameters
    ----------
    model : estimator or sklearn.pipeline.Pipeline
        Fitted; steps before the map may be StandardScaler, MinMaxScaler and PCA.
    path : path-like
        The file, as ``map.onnx``; an older one is replaced once the new one has passed its check.

    Raises
    ------
    ModuleNotFoundError
        If onnx, onnxruntime or onnxscript is not installed.
    ValueError
        If the pipeline has other steps, or an own encoder does what ONNX has no form for.
    RuntimeError
        If the file's places differ from those of ``transform`` by more than 1e-4 of the map's scale, on random rows of
        the data's scale or on extreme ones.
    OSError
        If it cannot be written; an older file is left.
    """
    _require_packages()
    program = _traced(model, "to_onnx")
    if sum(tensor.nbytes for tensor in program.state_dict.values()) > LARGEST_FILE:
        raise ValueError("to_onnx: the weights take more than the 2 GiB that an ONNX file can have; export a .pt2")
    with _quiet(), _explained("to_onnx", "ONNX has no form for the model"):
        exported: Any = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=_shapes(),
            input_names=["X"],
            output_names=["Z"],
            external_data=False,
            verbose=False,
        )
    graph = exported.model
    graph.producer_name, graph.producer_version = "fastpdr", versions()["fastpdr"]
    # The exporter's own notes are of every node's lines of code, with the paths of this machine.
    graph.metadata_props.clear()
    for node in graph.graph:
        node.metadata_props.clear()
    graph.metadata_props.update({key: _words(value) for key, value in describe(model).items()})
    with _checked(model, path, "to_onnx", _onnx_runner) as aside:
        exported.save(aside, external_data=False)


def to_exported_program(model: Any, path: str | os.PathLike[str] | None = None) -> torch.export.ExportedProgram:
    """Return a map, with the steps before it, as a program that PyTorch runs without fastpdr; perhaps write it.

    ``program.module()(X)`` takes ``X`` ``[rows, d]`` float32 on the CPU and returns ``[rows, n_components]`` float32,
    for any number of rows.

    Parameters
    ----------
    model : estimator or sklearn.pipeline.Pipeline
        Fitted; steps before the map may be StandardScaler, MinMaxScaler and PCA.
    path : path-like, optional
        A file, as ``map.pt2``, for ``torch.export.load``; an older one is replaced once the new one has passed its
        check. What the metadata of :func:`to_onnx` has is in its extra file ``fastpdr.json``. Loading a .pt2 file
        unpickles parts of it: load those alone that you trust.

    Returns
    -------
    torch.export.ExportedProgram

    Raises
    ------
    ValueError
        If the pipeline has other steps, or an own encoder does what ``torch.export`` cannot follow.
    RuntimeError
        If the file's places differ from those of ``transform`` as :func:`to_onnx` says.
    OSError
        If it cannot be written; an older file is left.
    """
    program = _traced(model, "to_exported_program")
    if path is not None:
        extra = {DESCRIPTION: json.dumps(describe(model), indent=2)}
        # On a full disk PyTorch's own writer of files ends the process.
        content = io.BytesIO()
        torch.export.save(program, content, extra_files=extra)
        with _checked(model, path, "to_exported_program", _program_runner) as aside:
            aside.write_bytes(content.getvalue())
    return program


def describe(model: Any) -> dict[str, Any]:
    """What an exported file says of the model."""
    steps, _, estimator = split(model)
    known: dict[str, Any] = {
        "method": type(estimator).__name__,
        "preprocessing": [type(step).__name__ for _, step in steps],
        "versions": versions(),
    }
    if hasattr(model, "feature_names_in_"):
        known["feature_names"] = [str(name) for name in model.feature_names_in_]
    return known


class Step(nn.Module):
    """A scaler or a PCA: ``(x * factor + offset) @ axes``, clipped, in float64.

    Parameters
    ----------
    step : StandardScaler, MinMaxScaler or PCA
        Fitted.
    """

    factor: torch.Tensor
    offset: torch.Tensor
    axes: torch.Tensor | None

    def __init__(self, step: Any) -> None:
        super().__init__()
        factor, offset, axes = _affine(step)
        self.register_buffer("factor", torch.as_tensor(factor, dtype=torch.float64))
        self.register_buffer("offset", torch.as_tensor(offset, dtype=torch.float64))
        self.register_buffer("axes", None if axes is None else torch.as_tensor(axes, dtype=torch.float64))
        self.bounds = step.feature_range if isinstance(step, MinMaxScaler) and step.clip else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return rows ``[b, d]`` float64 as the step makes them."""
        x = x * self.factor + self.offset
        if self.axes is not None:
            x = x @ self.axes
        return x if self.bounds is None else x.clamp(*self.bounds)


class Whole(nn.Module):
    """Steps and encoder as one network, on the CPU.

    Parameters
    ----------
    steps : list
        Fitted transformers.
    estimator : ParametricEmbedding
        The fitted map.
    """

    def __init__(self, steps: list[Any], estimator: ParametricEmbedding) -> None:
        super().__init__()
        self.steps = nn.Sequential(*(Step(step) for step in steps))
        self.encoder = copy.deepcopy(estimator.encoder_).cpu().requires_grad_(False)
        self.exact = estimator.encoder is None  # whether the encoder takes float64: see `resolve.place`
        self.eval()

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        """Place rows ``[b, d]`` float32."""
        if len(self.steps):
            x = self.steps(X.double())
            X = x if self.exact else x.float()
        return self.encoder(X).float()


def _affine(step: Any) -> tuple[Any, Any, NDArray[Any] | None]:
    """Factor and offset of a step, and the axes of a PCA."""
    if isinstance(step, MinMaxScaler):
        return step.scale_, step.min_, None
    if isinstance(step, PCA):
        axes = step.components_.T.astype(np.float64)
        if step.whiten:
            deviation = np.sqrt(step.explained_variance_.astype(np.float64))
            axes = axes / np.maximum(deviation, np.finfo(deviation.dtype).eps)
        return 1.0, -step.mean_, axes
    factor = 1 / step.scale_ if step.with_std else np.ones(step.n_features_in_)
    return factor, -step.mean_ * factor if step.with_mean else 0.0, None


def _traced(model: Any, caller: str) -> torch.export.ExportedProgram:
    """The model as a graph, without notes of where its code lies."""
    steps, _, estimator = split(model, caller)
    check_is_fitted(model)
    whole = Whole([step for _, step in steps], estimator)
    X = torch.from_numpy(_trial_rows(model)[:3])
    with _quiet(), torch.no_grad(), _explained(caller, "torch.export cannot follow the encoder"):
        program = torch.export.export(whole, (X,), dynamic_shapes=_shapes())
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    return program


def _shapes() -> dict[str, Any]:
    return {"X": {0: torch.export.Dim("rows")}}


def _trial_rows(model: Any) -> NDArray[np.float32]:
    """Rows ``[m, d]`` to compare by, of the map's own scale and back to the data's: random, then extreme ones."""
    steps, _, estimator = split(model)
    noise = np.random.default_rng(0).normal(size=(TRIAL_ROWS, estimator.n_features_in_))
    rows = np.concatenate([noise, FAR * noise[: TRIAL_ROWS // 4], np.zeros((1, noise.shape[1]))])
    scaling = estimator.encoder_[0] if estimator.encoder is None else None
    if isinstance(scaling, InputScaling):
        rows = rows * scaling.scale.cpu().numpy() + scaling.mean.cpu().numpy()
    for _, step in reversed(steps):
        rows = step.inverse_transform(rows)
    with np.errstate(over="ignore"):
        rows = np.concatenate([rows, np.zeros_like(rows[:1])]).astype(np.float32)
    return np.nan_to_num(rows)  # what float32 cannot hold becomes its largest number


@contextmanager
def _checked(model: Any, path: str | os.PathLike[str], caller: str, runner: Callable[[Path], Run]) -> Iterator[Path]:
    """Yield a path to write to; what is written there takes its place if it does as the model does."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(target) as aside:
        yield aside
        with _quiet():
            difference = _difference(model, runner(aside))
        if not difference <= TOLERANCE:
            raise RuntimeError(
                f"{caller}: the exported map differs from transform by {difference:.1e} of the map's scale, which is "
                f"more than {TOLERANCE:.0e}; {target} is not written"
            )


def _difference(model: Any, run: Run) -> float:
    """The largest deviation from ``transform``, as a share of the map's scale; of one row and of many."""
    rows = _trial_rows(model)
    expected = model.transform(rows.astype(np.float64))
    Z = np.concatenate([run(rows[:1]), run(rows[1:])])
    deviation = np.where(np.isclose(Z, expected, rtol=0, atol=0, equal_nan=True), 0.0, np.abs(Z - expected))
    near = max(np.abs(expected[:TRIAL_ROWS]).max(), np.finfo(np.float32).tiny)
    # Extreme rows of an own encoder may lie at extreme places.
    far = max(near, np.abs(expected).max())
    return float(max(deviation[:TRIAL_ROWS].max() / near, deviation[TRIAL_ROWS:].max() / far))


def _onnx_runner(file: Path) -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(os.fspath(file), providers=["CPUExecutionProvider"])
    return lambda rows: session.run(None, {"X": rows})[0]


def _program_runner(file: Path) -> Run:
    module = torch.export.load(file).module()
    return lambda rows: module(torch.from_numpy(rows)).numpy()


def _words(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _require_packages() -> None:
    try:
        for name in NEEDED:
            importlib.import_module(name)
    except ModuleNotFoundError as error:
        message = f"to_onnx needs {', '.join(NEEDED[:-1])} and {NEEDED[-1]}: pip install 'fastpdr[onnx]'"
        raise ModuleNotFoundError(message) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep PyTorch's notes of its own insides, such as of packages that are not needed, from the user."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


@contextmanager
def _explained(caller: str, what: str) -> Iterator[None]:
    try:
        yield
    # PyTorch's exporters raise what they please.
    except Exception as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ValueError(f"{caller}: {what} ({reason})") from error
