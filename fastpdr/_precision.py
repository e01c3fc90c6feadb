"""Matrix products in full float32, whatever the process allows elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

_backends: Any = torch.backends
_SWITCHES = (
    _backends.cuda.matmul,
    _backends.cudnn.conv,
    _backends.cudnn.rnn,
    _backends.mkldnn.matmul,
    _backends.mkldnn.conv,
    _backends.mkldnn.rnn,
)


@contextmanager
def full_float32() -> Iterator[None]:
    """Multiply float32 matrices in float32, not in TF32 or bf16, and put PyTorch's switches back afterwards.

    cuDNN's convolutions are in TF32 unless told otherwise; matrix products where somebody asked for it. The switches
    are the process's: other threads see them for as long.
    """
    before = [(switch, switch.fp32_precision) for switch in _SWITCHES]
    changed = [(switch, precision) for switch, precision in before if precision in ("tf32", "bf16")]
    try:
        for switch, _ in changed:
            switch.fp32_precision = "ieee"
        yield
    finally:
        for switch, precision in changed:
            switch.fp32_precision = precision
