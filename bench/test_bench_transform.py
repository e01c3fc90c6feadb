"""New rows: against the network alone, one at a time, and how long it takes from a fresh process to a first map."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

import numpy as np
import pytest
import torch

from fastpdr import ParametricTSNE

FIRST_MAP = """
import json, time
begin = time.perf_counter()
import torch
torch_there = time.perf_counter()
import fastpdr
fastpdr_there = time.perf_counter()
from sklearn.datasets import load_digits
X = load_digits().data
digits_there = time.perf_counter()
fastpdr.ParametricTSNE(random_state=0, n_epochs={epochs}).fit(X)
ends = [torch_there, fastpdr_there, digits_there, time.perf_counter()]
print(json.dumps([end - start for start, end in zip([begin, *ends], ends)]))
"""
PARTS = ("import_torch_s", "import_fastpdr_s", "load_digits_s", "fit_s")


@pytest.fixture(scope="module")
def model():
    return ParametricTSNE(n_epochs=1, random_state=0).fit(wide(5_000))


def wide(n: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, 784)).astype(np.float32)


@pytest.mark.parametrize("n", [1, 450, 10_000])
def test_against_the_network(n, model, versus):
    """Checks, scaling and conversion beside the products."""
    rows = wide(n)
    tensor, encoder = torch.from_numpy(rows), model.encoder_.eval()

    @torch.no_grad()
    def network() -> np.ndarray:
        return encoder(tensor).numpy()

    np.testing.assert_allclose(model.transform(rows), network(), rtol=1e-4, atol=1e-4)
    versus(lambda: model.transform(rows), network, "the encoder's forward pass", rounds=31)


def test_first_map(benchmark):
    """Of digits, in a fresh process, imports and all."""
    program = FIRST_MAP.format(epochs=1 if benchmark.disabled else None)
    runs = []
    for _ in range(1 if benchmark.disabled else 5):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True
        )
        runs.append(json.loads(done.stdout))
    medians = {name: statistics.median(values) for name, values in zip(PARTS, zip(*runs, strict=True), strict=True)}
    benchmark.extra_info.update(medians, in_all_s=statistics.median(map(sum, runs)))
    benchmark.pedantic(lambda: None, rounds=1)
