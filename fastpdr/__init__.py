"""fastpdr: fast parametric dimension reduction.

A neural network learns the map from data to a few dimensions, so that new points are placed at once. Estimators and
metrics are imported when first used: ``import fastpdr`` costs little more than PyTorch's own import.
"""

from __future__ import annotations

import logging
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

try:
    __version__ = version("fastpdr")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

from fastpdr import ops, reference
from fastpdr._native import build_info
from fastpdr.data import Shards

logging.getLogger("fastpdr").addHandler(logging.NullHandler())

if TYPE_CHECKING:
    from fastpdr import graph, metrics, plotting, report, tracking
    from fastpdr.estimators import (
        MultiscaleParametricTSNE,
        ParametricLargeVis,
        ParametricTSNE,
        ParametricUMAP,
        load,
        load_label_encoder,
        plan,
        save,
        to_exported_program,
        to_onnx,
    )
    from fastpdr.graph import KNNGraph
    from fastpdr.training.ranks import distributed

__all__ = [
    "KNNGraph",
    "MultiscaleParametricTSNE",
    "ParametricLargeVis",
    "ParametricTSNE",
    "ParametricUMAP",
    "Shards",
    "__version__",
    "build_info",
    "distributed",
    "graph",
    "load",
    "load_label_encoder",
    "metrics",
    "ops",
    "plan",
    "plotting",
    "reference",
    "report",
    "save",
    "to_exported_program",
    "to_onnx",
    "tracking",
]

_MODULES = ("graph", "metrics", "plotting", "report", "tracking")


def __getattr__(name: str) -> Any:
    """Import what FAISS, scikit-learn or matplotlib stand behind at its first use."""
    if name in _MODULES:
        return import_module(f"fastpdr.{name}")
    if name == "KNNGraph":
        return import_module("fastpdr.graph").KNNGraph
    if name == "distributed":
        return import_module("fastpdr.training.ranks").distributed
    if name in __all__:
        return getattr(import_module("fastpdr.estimators"), name)
    raise AttributeError(f"module 'fastpdr' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
