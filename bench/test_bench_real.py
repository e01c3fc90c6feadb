"""Whole fits of real data sets with default parameters, each in a process of its own: time, memory, unseen rows.

Needs $FASTPDR_DATA. One thread on 5,000 rows, two on 60,000 and more.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
from cases import THREADS, real_rows

SCRIPT = Path(__file__).with_name("real_fit.py")
OURS = ["ParametricUMAP", "ParametricLargeVis", "ParametricTSNE-knn"]


def run(method: str, data: str, protocol: str, threads: int, seed: int) -> dict[str, float]:
    command = [sys.executable, str(SCRIPT), method, data, protocol, str(threads), str(seed)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def record(benchmark, method: str, data: str, protocol: str, threads: int, seeds: int) -> None:
    if benchmark.disabled:
        pytest.skip("minutes of training: not part of a smoke run")
    real_rows(data)  # skips without the data
    runs = [run(method, data, protocol, threads, seed) for seed in range(seeds)]
    numbers = [key for key, value in runs[0].items() if isinstance(value, float)]
    medians = {key: statistics.median(run[key] for run in runs) for key in numbers}
    benchmark.extra_info.update(protocol=protocol, threads=threads, median=medians, runs=runs)
    benchmark.pedantic(lambda: None, rounds=1)


@pytest.mark.parametrize("data", ["mnist_70k", "fashion_mnist_70k", "letter_20k"])
@pytest.mark.parametrize("method", OURS)
def test_5000_rows(method, data, benchmark):
    record(benchmark, method, data, "5k", 1, 3)


@pytest.mark.parametrize("data", ["mnist_70k", "fashion_mnist_70k"])
@pytest.mark.parametrize("method", ["ParametricUMAP", "umap-learn"])
def test_60000_rows(method, data, benchmark):
    record(benchmark, method, data, "60k", THREADS, 1)


@pytest.mark.parametrize("data", ["census_kdd_299k", "glove_341k"])
@pytest.mark.parametrize("method", ["ParametricUMAP", "ParametricLargeVis"])
def test_more_rows(method, data, benchmark):
    record(benchmark, method, data, "all", THREADS, 1)
