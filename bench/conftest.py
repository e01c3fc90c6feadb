"""How benchmarks are measured: threads fixed, results checked first, ours and the competitor in turn, medians."""

from __future__ import annotations

import statistics
import time

import pytest
import torch
from cases import THREADS

import fastpdr


@pytest.fixture(autouse=True)
def fixed_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    yield
    torch.set_num_threads(before)


def pytest_benchmark_update_machine_info(config, machine_info):
    machine_info["fastpdr"] = fastpdr.build_info()
    machine_info["torch"] = torch.__version__
    machine_info["threads"] = THREADS


@pytest.fixture
def versus(benchmark):
    """Time ``ours`` against ``theirs`` in turn; the medians and their ratio go into the JSON's extra_info.

    Before each timed call come a few that are not: either is measured with the caches and threads as its own calls
    leave them, as in a training loop, and not as the other's leave them.
    """

    def measure(ours, theirs, name: str, rounds: int) -> None:
        rounds = 1 if benchmark.disabled else rounds
        seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
        for _ in range(rounds):
            for key, function in (("ours", ours), ("theirs", theirs)):
                for _ in range(1 if rounds < 20 else 3):
                    function()
                begin = time.perf_counter()
                function()
                seconds[key].append(time.perf_counter() - begin)
        medians = {key: statistics.median(values) for key, values in seconds.items()}
        benchmark.extra_info.update(
            competitor=name,
            competitor_median_s=medians["theirs"],
            ours_median_s=medians["ours"],
            ratio=medians["theirs"] / medians["ours"],
            rounds=rounds,
        )
        benchmark.pedantic(ours, rounds=rounds, warmup_rounds=1)

    return measure
