"""What a fit will take is what it takes, and one that does not fit is refused before it starts."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from running import run

import fastpdr
from fastpdr import ParametricTSNE, ParametricUMAP
from fastpdr.estimators import planning, resolve

PHASES = planning.PHASES


def parts(plan):
    return {(part.name, part.where): part.size for part in plan.parts}


def test_the_peak_is_that_of_the_busiest_phase():
    plan = fastpdr.plan(100_000, 50, "umap", device="cpu", memory_limit="8GB")
    sums = [sum(part.size for part in plan.parts if phase in part.phases) for phase in PHASES]
    assert [plan.during(phase) for phase in PHASES] == sums
    assert plan.host == max(sums) <= plan.limit == 8e9
    assert plan.device == 0
    assert plan.device_limit is None
    assert plan.fits
    plan.require()


def test_sizes_of_graph_and_rows_are_those_of_their_numbers():
    n, d, k = 1_000_000, 40, 14
    sizes = parts(fastpdr.plan(n, d, "umap", device="cpu", memory_limit="100GB", in_memory=True))
    assert sizes["rows, scaled", "host"] == 4 * n * d
    assert sizes["neighbours", "host"] == 12 * n * k
    assert sizes["similarities", "host"] == 8 * 2 * n * k + 4 * n
    assert sizes["table to draw edges from", "host"] == 8 * 2 * n * k
    assert sizes["map", "host"] == 8 * n
    assert ("rows in floating point", "host") not in sizes  # the array itself
    stored = parts(fastpdr.plan(n, d, "umap", dtype="uint8", device="cpu", memory_limit="100GB"))
    assert stored["rows in floating point", "host"] == 4 * n * d


def test_rows_are_whole_while_the_memory_allows_it():
    sizes = {limit: fastpdr.plan(2_000_000, 500, dtype="uint8", memory_limit=limit) for limit in ("30GB", "5GB", "1GB")}
    assert [plan.rows for plan in sizes.values()] == ["whole", "by batch", "by batch"]
    assert [plan.fits for plan in sizes.values()] == [True, True, False]


@pytest.mark.parametrize(
    ("method", "search"),
    [("tsne", "exact"), ("mstsne", "exact"), ("umap", "exact"), ("largevis", "exact")],
)
def test_methods_by_name_or_as_estimators(method, search):
    plan = fastpdr.plan(5_000, 10, method)
    assert plan.search == search
    assert plan.method == planning.METHODS[method]
    assert fastpdr.plan(5_000, 10, getattr(fastpdr, plan.method)()).parts == plan.parts
    assert fastpdr.plan(10**6, 10, method).search == "inverted lists"


def test_what_is_not_needed_is_not_counted():
    small = fastpdr.plan(5_000, 10, ParametricTSNE(neighbor_noise=0))
    assert small.search == "none"
    assert not any(name in ("neighbours", "similarities") for name, _ in parts(small))
    graph = fastpdr.KNNGraph.from_precomputed([[1], [0]], [[1.0], [1.0]])
    given = fastpdr.plan(10**6, 10, ParametricUMAP(precomputed_knn=graph))
    assert given.search == "given"
    assert ("search index", "host") not in parts(given)


def test_an_own_encoder_is_counted():
    network = torch.nn.Sequential(torch.nn.Linear(10, 5000), torch.nn.Linear(5000, 2))
    plan = fastpdr.plan(5_000, 10, ParametricUMAP(encoder=network))
    assert parts(plan)["network and optimizer", "host"] == 16 * (10 * 5000 + 5000 + 5000 * 2 + 2)


def test_a_graphics_card_has_its_own_memory(monkeypatch):
    monkeypatch.setattr(planning, "resolve_device", lambda _: torch.device("cuda"))
    for free, home in ((2**34, "device"), (2**28, "host")):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _, free=free: (free, free))
        monkeypatch.setattr(planning, "free_device_memory", lambda _, free=free: free)
        plan = fastpdr.plan(500_000, 100, "umap", memory_limit="20GB")
        assert ("rows, scaled", home) in parts(plan)
        assert ("network and optimizer", "device") in parts(plan)
        assert plan.device > 0
        assert plan.device_limit == free
    assert resolve.home_of(1, torch.device("cpu")).type == "cpu"


def test_a_fit_beyond_the_limit_says_what_to_change_before_it_starts(rng):
    def fail(state):
        raise AssertionError("training began")

    X = rng.normal(size=(2000, 20)).astype(np.float32)
    model = ParametricUMAP(memory_limit="20MB", callbacks=[fail])
    with pytest.raises(MemoryError, match=r"ParametricUMAP: 2000 rows of 20 columns take .* only 20 MB may") as error:
        model.fit(X)
    for advice in ("n_neighbors", "sample of the rows", "float16 or uint8", "memory_limit"):
        assert advice in str(error.value)
    assert not hasattr(model, "encoder_")


def test_a_limit_makes_a_fit_read_its_rows_by_batch(rng, tmp_path, caplog):
    np.save(tmp_path / "rows.npy", rng.integers(0, 255, (6_000, 1000), dtype=np.uint8))
    settings = {"n_epochs": 1, "hidden_dims": (8,), "affinity": "batch", "neighbor_noise": 0, "batch_size": 64}
    with caplog.at_level("INFO", "fastpdr"):
        ParametricTSNE(**settings, memory_limit="230MB").fit(tmp_path / "rows.npy")
    assert "batches are made of it ahead of the training" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 5), "plan: n must be an integer >= 1, got 0"),
        ((5, 1.5), "plan: d must be an integer >= 1, got 1.5"),
        ((5, 5, "pca"), "plan: method must be an estimator or one of tsne, mstsne, umap, largevis, got 'pca'"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        fastpdr.plan(*arguments)


def test_bad_types_and_limits_are_named():
    for dtype in ("float7", "str", complex):
        with pytest.raises(ValueError, match="plan: dtype must be a type of real numbers"):
            fastpdr.plan(5, 5, dtype=dtype)
    with pytest.raises(
        ValueError, match="ParametricUMAP: memory_limit must be bytes > 0 or a size as '8GB', got 'much'"
    ):
        ParametricUMAP(memory_limit="much").fit(np.eye(20))


def test_the_command_prints_the_plan_and_ends_with_1_where_it_does_not_fit():
    text = run("plan", 1_000_000, 50, "--method", "umap", "--memory-limit", "8GB", "--device", "cpu")
    assert "ParametricUMAP: 1000000 rows of 50 columns, held whole; search of neighbours: inverted lists" in text
    assert text.endswith("It fits.")
    text = run("plan", 10**9, 500, "--dtype", "uint8", "--memory-limit", "64GB", code=1, error=False)
    assert text.endswith("It does not fit.")
    assert "--n-neighbors is for --method umap, not for tsne" in run("plan", 5, 5, "--n-neighbors", 5, code=2)
    assert "dtype must be" in run("plan", 5, 5, "--dtype", "word", code=2)


def test_the_peak_is_near_what_is_measured():
    """200,000 rows of 50 columns, with a given graph; measured is what the process takes beyond what it had before."""
    program = """
import re, threading, time, numpy as np, fastpdr
from fastpdr.estimators.planning import plan_of, as_dtype
rng, n, d, k = np.random.default_rng(0), 200_000, 50, 14
fastpdr.ParametricUMAP(n_epochs=1, hidden_dims=(8,)).fit(rng.normal(size=(100, 5)))  # imports what is imported late
X = rng.normal(size=(n, d)).astype(np.float32)
steps = rng.integers(1, 1000, n)[:, None] + 1000 * np.arange(k)
graph = fastpdr.KNNGraph.from_precomputed((np.arange(n)[:, None] + steps) % n, rng.random((n, k)))
model = fastpdr.ParametricUMAP(precomputed_knn=graph, max_time=2, device="cpu", random_state=0)

def memory():
    return int(re.search(r"RssAnon:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024

before, peak, done = memory(), 0, threading.Event()

def watch():
    global peak
    while not done.wait(0.005):
        peak = max(peak, memory() - before)

thread = threading.Thread(target=watch)
thread.start()
model.fit(X)
done.set()
thread.join()
plan = plan_of(model, n, d, as_dtype(X.dtype), True)
print(peak, plan.host - 12 * n * k)  # the graph was there before
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    measured, planned = (int(word) for word in found.stdout.split())
    assert measured / 2 < planned < 2 * measured
