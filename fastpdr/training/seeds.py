"""Random numbers as a function of a seed and a place: a training can go on anywhere without having drawn all before."""

from __future__ import annotations

import numpy as np

ORDER, POOL, OFFSET, EDGES, RANDOM = range(5)  # rows of an epoch, noise, a step in it, a rank's edges, its dropout


def derived_seed(seed: int, stream: int, number: int = 0) -> int:
    """A seed in [0, 2^63) for the number-th draw of a stream, independent of all others."""
    return derived_seeds(seed, stream, number, 1)[0]


def derived_seeds(seed: int, stream: int, number: int, count: int) -> list[int]:
    """As many seeds at once, of which the first is :func:`derived_seed`."""
    words = np.random.SeedSequence((seed, stream, number)).generate_state(count, np.uint64)
    return (words >> np.uint64(1)).tolist()
