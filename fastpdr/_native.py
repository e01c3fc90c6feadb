"""Is there a compiled module, and for which devices?

The environment variable ``FASTPDR_BACKEND`` forces a choice: ``native`` makes a missing module an error,
``reference`` ignores a compiled one. Without it each op uses its kernel where there is one.
"""

from __future__ import annotations

import importlib
import logging
import os
import platform
import re
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, requires, version
from types import ModuleType
from typing import Any

import torch

OPS = (
    "alias_table",
    "coranking",
    "fuzzy_weights",
    "layer_norm_gelu",
    "layer_norm_gelu_backward",
    "pair_loss",
    "perplexity_search",
    "sample_edges",
    "student_t_kl",
    "student_t_kl_csr",
    "subgraph",
    "symmetrize",
)
EXTRAS_OF_DEVELOPERS = ("test", "bench", "lint", "docs", "dev")
_DISPATCH_KEYS = {"cpu": "CPU", "cuda": "CUDA"}

_logger = logging.getLogger("fastpdr")


def _load(backend: str) -> tuple[ModuleType | None, str]:
    """Import the compiled module; returns it with the reason where it is missing."""
    if backend not in ("auto", "native", "reference"):
        raise ImportError(f"FASTPDR_BACKEND must be 'native' or 'reference', got {backend!r}")
    if backend == "reference":
        return None, "FASTPDR_BACKEND=reference"
    try:
        return importlib.import_module("fastpdr._C"), ""
    except ImportError as error:
        if backend == "native":
            raise ImportError(
                f"FASTPDR_BACKEND=native, but the compiled module cannot be loaded ({error}). "
                "Install with a C++ compiler, or unset FASTPDR_BACKEND."
            ) from error
        _logger.info("no compiled kernels (%s): the plain PyTorch reference serves", error)
        return None, str(error)


BACKEND = os.environ.get("FASTPDR_BACKEND", "auto")
_module, _missing = _load(BACKEND)

#: op -> device types that have a kernel
KERNELS: dict[str, frozenset[str]] = {
    op: frozenset(
        device
        for device, key in _DISPATCH_KEYS.items()
        if _module is not None and torch._C._dispatch_has_kernel_for_dispatch_key(f"fastpdr::{op}", key)
    )
    for op in OPS
}


def overload(op: str) -> Any:
    """Return the operator ``torch.ops.fastpdr.<op>.default``, or None where nothing is compiled."""
    return getattr(torch.ops.fastpdr, op).default if _module is not None else None


def has_kernel(op: str, *tensors: torch.Tensor, dtypes: tuple[torch.dtype, ...] = (torch.float32,)) -> bool:
    """Tell whether ``op`` has a kernel for these tensors: of these dtypes, on a device that was compiled for."""
    devices = KERNELS[op]
    for tensor in tensors:
        if tensor.dtype not in dtypes or tensor.device.type not in devices:
            if BACKEND == "native":
                found = f"{tensor.dtype} on {tensor.device}"
                raise RuntimeError(f"FASTPDR_BACKEND=native, but {op} has no kernel for {found}")
            return False
    return True


def build_info() -> dict[str, Any]:
    """Say what is compiled and what is used.

    Returns
    -------
    dict
        ``version`` of fastpdr, ``native`` (is there a compiled module), ``backend`` (what ``FASTPDR_BACKEND`` asks
        for), ``kernels`` (op -> devices with a kernel; all else runs the reference), ``compiler``,
        ``simd_compiled``, ``simd_used`` (instruction sets), ``openmp`` (version date, 0 = none),
        ``cuda_architectures`` (``sm_..`` for code, ``compute_..`` for PTX; empty = no CUDA kernels), ``torch``,
        ``threads`` (that PyTorch and the kernels use), ``devices`` (name -> what it is), ``packages`` (the versions of
        all that is installed of what fastpdr can use); ``reason`` where nothing is compiled.

    Examples
    --------
    >>> import fastpdr
    >>> info = fastpdr.build_info()
    >>> info["version"] == fastpdr.__version__, sorted(info["kernels"])[:2]
    (True, ['alias_table', 'coranking'])
    """
    from fastpdr import __version__

    info: dict[str, Any] = {"version": __version__, "native": _module is not None, "backend": BACKEND}
    info["kernels"] = {op: sorted(devices) for op, devices in KERNELS.items()}
    if _module is not None:
        compiled = _module.build_info()
        info["compiler"] = compiled["compiler"]
        info["simd_compiled"] = compiled["simd_compiled"].split(",")
        info["simd_used"] = compiled["simd_used"]
        info["openmp"] = compiled["openmp"]
        info["cuda_architectures"] = [a for a in compiled["cuda_architectures"].split(",") if a]
    else:
        info["reason"] = _missing
    info["torch"] = torch.__version__
    info["threads"] = torch.get_num_threads()
    info["devices"] = _devices()
    info["packages"] = _packages()
    return info


def _devices() -> dict[str, str]:
    devices = {"cpu": f"{platform.machine()}, {os.cpu_count()} processors"}
    for i in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(i)
        devices[f"cuda:{i}"] = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    return devices


def _packages() -> dict[str, str]:
    """Versions of the packages that fastpdr requires or an extra for its users names, of those that are there."""
    packages = {}
    # A source tree that was never installed requires nothing.
    with suppress(PackageNotFoundError):
        for requirement in requires("fastpdr") or ():
            name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
            extra = re.search(r"extra == [\"']([^\"']+)", requirement)
            if name not in ("fastpdr", "torch") and (extra is None or extra[1] not in EXTRAS_OF_DEVELOPERS):
                with suppress(PackageNotFoundError):
                    packages[name] = version(name)
    return dict(sorted(packages.items()))
