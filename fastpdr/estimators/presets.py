"""What None and "auto" stand for: how long, in what batches and with how much noise a preset trains so many rows.

docs/quality.md has the measurements. Up to some 10,000 rows what is left to win is the gap between rows that were
trained on and others, and noise closes half of it; beyond, the network has more to learn than there is time for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

NEIGHBORS = 10  # of a row, for noise from neighbours


class Level(NamedTuple):
    """A preset for up to so many rows."""

    rows: float
    steps: int  # of a training by itself
    batch_size: int
    input_noise: float  # share of the distance to the nearest neighbour
    neighbor_noise: float  # in units of the differences between neighbours


Preset = Sequence[Level]

TSNE: Mapping[str, Preset] = {
    "fast": (
        Level(2_000, 320, 512, 0.6, 0.2),
        Level(10_000, 630, 512, 0.6, 0.2),
        Level(math.inf, 700, 2048, 0.6, 0.0),
    ),
    "best": (Level(10_000, 2000, 1024, 0.6, 0.7), Level(math.inf, 3000, 2048, 0.6, 0.1)),
}
PAIRS: Mapping[str, Preset] = {
    "fast": (
        Level(2_000, 320, 512, 0.5, 0.1),
        Level(10_000, 680, 512, 0.5, 0.1),
        Level(30_000, 1250, 1024, 0.5, 0.0),
        Level(math.inf, 850, 2048, 0.5, 0.0),
    ),
    "best": (
        Level(10_000, 2500, 1024, 0.6, 0.7),
        Level(math.inf, 3500, 2048, 0.5, 0.1),
    ),
}


def level_of(preset: Preset, n: int) -> Level:
    """The level for n rows."""
    return next(level for level in preset if n < level.rows)
