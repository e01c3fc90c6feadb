"""How benchmarks are measured: threads fixed, results checked first, ours and the competitor in turn, medians."""

from __future__ import annotations

import statistics

import pytest
import torch
from alternate import seconds_of
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

    Before each timed call come untimed ones: either is measured with the caches as its own calls leave them, as in a
    training loop, and not as the other's leave them. Eager PyTorch streams some 100 MB through the caches at b = 1000,
    after which a last-level cache takes about ten calls to hold a 4 MB p again; the first of them is recorded as well.
    """

    def measure(ours, theirs, name: str, rounds: int) -> None:
        rounds = 1 if benchmark.disabled else rounds
        seconds: dict[str, list[float]] = {"ours": [], "theirs": [], "ours_first": []}
        for _ in range(rounds):
            for key, function in (("ours", ours), ("theirs", theirs)):
                times = [seconds_of(function) for _ in range(2 if rounds < 20 else 16)]
                seconds[key].append(times[-1])
                if key == "ours":
                    seconds["ours_first"].append(times[0])
        medians = {key: statistics.median(values) for key, values in seconds.items()}
        benchmark.extra_info.update(
            competitor=name,
            competitor_median_s=medians["theirs"],
            ours_median_s=medians["ours"],
            ours_first_after_competitor_s=medians["ours_first"],
            ratio=medians["theirs"] / medians["ours"],
            rounds=rounds,
        )
        benchmark.pedantic(ours, rounds=rounds, warmup_rounds=5)

    return measure
