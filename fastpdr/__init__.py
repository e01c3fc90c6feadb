"""fastpdr: fast parametric dimension reduction."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("fastpdr")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

from fastpdr import metrics, ops, reference
from fastpdr._native import build_info
from fastpdr.estimators import MultiscaleParametricTSNE, ParametricTSNE, load

__all__ = [
    "MultiscaleParametricTSNE",
    "ParametricTSNE",
    "__version__",
    "build_info",
    "load",
    "metrics",
    "ops",
    "reference",
]
