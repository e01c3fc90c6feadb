"""Random numbers as a function of a seed and a place: a training can go on anywhere without having drawn all before."""

from __future__ import annotations

import numpy as np

ORDER, POOL, OFFSET, EDGES, RANDOM = range(5)  # rows of an epoch, noise, a step in it, a rank's edges, its dropout


def derived_seed(seed: int, stream: int, number: int = 0) -> int:
    """A seed in [0, 2^63) for the number-th draw of a stream, independent of all others."""
    (word,) = np.random.SeedSequence((seed, stream, number)).generate_state(1, np.uint64)
    return int(word) >> 1
