"""The network that is learnt: a fixed scaling of the input, then Linear-LayerNorm-activation blocks and a linear head.

LayerNorm after each linear layer lets the large learning rate work that the defaults use, and leaves the output of a
row independent of the other rows of its batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import nn

from fastpdr import _native, ops
from fastpdr.data import Rows

ROWS_AT_ONCE = 65_536
ROWS_OF_A_PRODUCT = 32  # in bf16 on the CPU their number is a multiple of it
BLOCK_ELEMENTS = 1 << 21  # of rows that are not in one piece

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "gelu": nn.GELU,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "silu": nn.SiLU,
    "elu": nn.ELU,
    "tanh": nn.Tanh,
}


def _parts(x: torch.Tensor | Rows) -> Iterator[torch.Tensor]:
    if isinstance(x, torch.Tensor):
        return iter(x.split(ROWS_AT_ONCE))
    return (block for _, _, block in x.blocks(BLOCK_ELEMENTS))


class InputScaling(nn.Module):
    """Subtracts a mean per column and divides by one number for all, in float64, so that large offsets cost nothing.

    Parameters
    ----------
    mean : torch.Tensor
        ``[d]`` float64.
    scale : torch.Tensor
        ``[]`` float64, > 0.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, mean: torch.Tensor, scale: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)

    @classmethod
    def fit(cls, x: torch.Tensor | Rows) -> InputScaling:
        """Mean of the columns of x ``[n, d]`` and root mean square of all centred entries.

        Rows are read twice, in blocks.

        Raises
        ------
        ValueError
            If all rows are the same, or so large that their squares overflow.
        """
        n = len(x)
        first = next(_parts(x))[:1]
        if not any(bool((part != first).any()) for part in _parts(x)):
            raise ValueError(f"all {n} rows of X are the same: there is nothing to learn from them")
        mean = sum(part.double().sum(0) for part in _parts(x)) / n
        square = sum((part.double() - mean).square().mean(1).sum() for part in _parts(x)) / n
        scale = torch.as_tensor(square).sqrt()
        if not bool(scale.isfinite()):
            raise ValueError("the values of X are so large that their squares overflow: divide them by a number first")
        return cls(torch.as_tensor(mean), torch.where(scale > 0, scale, 1.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return x scaled, float32."""
        return ((x - self.mean) / self.scale).float()


class OutputScaling(nn.Module):
    """The way back: ``x * scale + mean``, float32."""

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, mean: torch.Tensor, scale: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return x ``[b, d]`` in the units of the data."""
        return (x * self.scale + self.mean).float()


class Block(nn.Sequential):
    """Linear, LayerNorm, activation; the last two in one kernel where gradients are wanted and there is one."""

    def __init__(self, before: int, after: int, activation: str) -> None:
        super().__init__(nn.Linear(before, after), nn.LayerNorm(after), ACTIVATIONS[activation]())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map rows ``[b, before]`` to ``[b, after]``."""
        linear, norm, activation = self
        wanted = self.training and torch.is_grad_enabled() and x.device.type in _native.KERNELS["layer_norm_gelu"]
        if wanted and isinstance(norm, nn.LayerNorm) and isinstance(activation, nn.GELU):
            return ops.layer_norm_gelu(linear(x), norm.weight, norm.bias, eps=norm.eps)
        return super().forward(x)


class MLP(nn.Module):
    """Multilayer perceptron with LayerNorm before every activation.

    Parameters
    ----------
    n_features, n_outputs : int
        Widths of input and output.
    hidden_dims : sequence of int
        Widths of the hidden layers; none gives a linear map.
    activation : str
        A key of ``ACTIVATIONS``.
    """

    def __init__(self, n_features: int, n_outputs: int, hidden_dims: Sequence[int], activation: str) -> None:
        super().__init__()
        widths = [n_features, *hidden_dims]
        self.hidden = nn.Sequential(*(Block(before, after, activation) for before, after in pairwise(widths)))
        self.head = nn.Linear(widths[-1], n_outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map rows ``[b, n_features]`` to ``[b, n_outputs]``."""
        if not (self.training and x.device.type == "cpu" and torch.is_autocast_enabled("cpu")):
            return self.head(self.hidden(x))
        # oneDNN prepares a product anew for every number of rows that it has not met, and drawn batches have many.
        b = len(x)
        return self.head(self.hidden(nn.functional.pad(x, (0, 0, 0, -b % ROWS_OF_A_PRODUCT))))[:b]

    @torch.no_grad()
    def keep_outputs(self, count: int) -> None:
        """Drop all outputs but the first ``count``."""
        head = nn.Linear(self.head.in_features, count, device=self.head.weight.device)
        head.weight.copy_(self.head.weight[:count])
        head.bias.copy_(self.head.bias[:count])
        self.head = head

    @torch.no_grad()
    def absorb_projection(self, axes: torch.Tensor) -> None:
        """Read rows ``[b, d]`` where ``rows @ axes`` was read before, axes ``[d, n_features]``."""
        first = next(module for module in self.modules() if isinstance(module, nn.Linear))
        first.weight = nn.Parameter(first.weight @ axes.T)
        first.in_features = len(axes)


class Reduction(nn.Module):
    """From rows to what an MLP reads: ``rows @ axes``, or the rows where there are no axes."""

    axes: torch.Tensor | None

    def __init__(self, axes: torch.Tensor | None) -> None:
        super().__init__()
        self.register_buffer("axes", axes, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map rows ``[b, d]`` to ``[b, n_features]``."""
        return x if self.axes is None else x @ self.axes


def build_decoder(scaling: InputScaling, n_inputs: int, hidden_dims: Sequence[int], activation: str) -> nn.Sequential:
    """Return the encoder's mirror image, ``Sequential(MLP, scaling back)``, from a map to raw rows."""
    mirror = MLP(n_inputs, scaling.mean.numel(), [*reversed(hidden_dims)], activation)
    return nn.Sequential(mirror, OutputScaling(scaling.mean, scaling.scale))


def build_encoder(
    scaling: InputScaling, n_outputs: int, hidden_dims: Sequence[int], activation: str, n_features: int | None = None
) -> nn.Sequential:
    """Return ``Sequential(scaling, MLP)``, with PyTorch's default weights from the current generator.

    An MLP of other ``n_features`` than the scaling's is one that will :meth:`MLP.absorb_projection`.
    """
    return nn.Sequential(scaling, MLP(n_features or scaling.mean.numel(), n_outputs, hidden_dims, activation))
