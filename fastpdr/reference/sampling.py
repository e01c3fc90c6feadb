"""Alias table and its draws, in int64 tensors.

The table is Walker's, built by a sweep in closed form: light entries (below the mean weight) and heavy ones stand in
index order, and prefix sums of what the ones lack and the others have to give say who takes from whom. Weights are
whole units of their mean / 2^32, so that all sums are exact; threshold and alias of an entry share one number. The
generator is Philox4x32-10 (Salmon et al. 2011); PyTorch has no unsigned arithmetic of 64 bits, so products are taken
in halves of 16 bits.
"""

from __future__ import annotations

import torch

_ONE = 2**32  # the mean weight in units
_ALIAS_BITS = 31  # of an entry, below its threshold
_WORD, _HALF = 2**32 - 1, 2**16 - 1
_SUM_BLOCK = 1024  # weights summed before their sum is added to the total


def alias_table(weights: torch.Tensor) -> torch.Tensor:
    """See :func:`fastpdr.ops.alias_table`."""
    units = _units(weights.double())  # [e], sum e 2^32
    aliases = torch.arange(len(units), device=units.device)
    light, heavy = (units < _ONE).nonzero()[:, 0], (units >= _ONE).nonzero()[:, 0]
    lacking = torch.cumsum(_ONE - units[light], 0)
    lacking = torch.cat([lacking.new_zeros(1), lacking])  # [lights + 1], of all lights before
    excess = torch.cumsum(units[heavy] - _ONE, 0)  # [heavies], of this heavy one and all before

    giver = torch.searchsorted(excess, lacking[:-1], right=True)  # the first with anything left
    aliases[light] = heavy[giver]
    taken = lacking[torch.searchsorted(lacking, excess)]  # when it has no more than the mean left
    left = _ONE + excess - taken
    following = torch.cat([heavy[1:], heavy[-1:]])
    aliases[heavy] = torch.where(left < _ONE, following, heavy)
    units[heavy] = left
    # An entry that keeps all of its share is its own alias, so that the threshold 2^32, of 33 bits, is not needed.
    return (units.clamp_max(_ONE - 1) << _ALIAS_BITS) | aliases


def _units(weights: torch.Tensor) -> torch.Tensor:
    """Whole units of every weight, with sum e 2^32; the operations and their order are those of the kernel."""
    e = len(weights)
    relative = weights / weights.max()  # so that no sum overflows
    blocks = torch.nn.functional.pad(relative, (0, -e % _SUM_BLOCK)).view(-1, _SUM_BLOCK)
    total = float(blocks.cumsum(1)[:, -1].cumsum(0)[-1])  # a cumulative sum is taken in order, sum() is not
    # Too small by what the total can be wrong, so that rounding down leaves units over.
    total *= 1.0 + 2.0 * (_SUM_BLOCK + e // _SUM_BLOCK + 4) / 2.0**53
    units = (relative * (float(e) * _ONE / total)).long()
    positive = relative > 0
    share, rest = divmod(e * _ONE - int(units.sum()), int(positive.sum()))
    return units + positive * (share + (positive.cumsum(0) <= rest).long())


def sample_edges(table: torch.Tensor, n_edges: int, *, seed: int, step: int) -> torch.Tensor:
    """See :func:`fastpdr.ops.sample_edges`."""
    draw = torch.arange(n_edges, device=table.device)
    counter = (draw & _WORD, draw >> 32, torch.full_like(draw, step & _WORD), torch.full_like(draw, step >> 32))
    words = philox(counter, (seed & _WORD, seed >> 32))
    index = _scale(words[1], words[0], len(table))
    entry = table[index]
    return torch.where(words[2] < entry >> _ALIAS_BITS, index, entry & (2**_ALIAS_BITS - 1))


def philox(counter: tuple[torch.Tensor, ...], key: tuple[int, int]) -> tuple[torch.Tensor, ...]:
    """Philox4x32-10: four words of 32 bits, in int64 tensors, from a counter of four words and a key of two."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        even_high, even_low = _multiply(c0, 0xD2511F53)
        odd_high, odd_low = _multiply(c2, 0xCD9E8D57)
        c0, c1, c2, c3 = odd_high ^ c1 ^ k0, odd_low, even_high ^ c3 ^ k1, even_low
        k0, k1 = (k0 + 0x9E3779B9) & _WORD, (k1 + 0xBB67AE85) & _WORD
    return c0, c1, c2, c3


def _multiply(a: torch.Tensor, b: int) -> tuple[torch.Tensor, torch.Tensor]:
    """High and low word of the product of two words."""
    low, high = a * (b & _HALF), a * (b >> 16)  # 48 bits each
    middle = (low >> 16) + high
    return middle >> 16, ((middle & _HALF) << 16) | (low & _HALF)


def _scale(high: torch.Tensor, low: torch.Tensor, e: int) -> torch.Tensor:
    """``floor((2^32 high + low) e / 2^64)``."""
    low_low, low_high = _multiply(low, e & _WORD), _multiply(low, e >> 32)
    high_low, high_high = _multiply(high, e & _WORD), _multiply(high, e >> 32)
    carry = (low_low[0] + low_high[1] + high_low[1]) >> 32
    return (high_high[0] << 32) + high_high[1] + low_high[0] + high_low[0] + carry
