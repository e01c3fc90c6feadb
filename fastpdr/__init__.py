"""fastpdr: fast parametric dimension reduction."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("fastpdr")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

from fastpdr import ops, reference
from fastpdr._native import build_info

__all__ = ["__version__", "build_info", "ops", "reference"]
