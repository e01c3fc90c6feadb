"""Student-t KL, forward and backward, against eager PyTorch; the memory it takes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cases import MAP_SIZES, SPARSE_NEIGHBORS, SPARSE_ROWS, THREADS, dense_map, sparse_map
from competitors import eager_student_t_kl

from fastpdr import ops, reference


def gradient(function, y, p):
    y.grad = None
    function(y, p).backward()
    return y.grad


def require_close(function, y, p):
    actual = gradient(function, y, p).double()
    double = y.detach().double().requires_grad_()
    expected = gradient(reference.student_t_kl, double, p.double())
    assert (actual - expected).norm() <= 1e-3 * expected.norm()  # Gram distances lose digits; ours keeps 1e-5


@pytest.mark.parametrize("symmetric", [True, False], ids=["symmetric", "asymmetric"])
@pytest.mark.parametrize("b", MAP_SIZES)
def test_dense_against_eager(b, symmetric, benchmark):
    """In processes of their own: how fast eager's temporaries are depends on what the heap did before.

    ``default_malloc`` is a fresh process as it comes, where glibc hands memory back and eager pays for fresh pages;
    ``kept_pages`` forbids that, which is eager at its best. An asymmetric p costs us three logarithms a pair, not one.
    """
    y, p = dense_map(b)
    p = p if symmetric else 2 * p.triu()
    if b <= 1000:
        require_close(ops.student_t_kl, y, p)
        require_close(eager_student_t_kl, y, p)
    rounds = 1 if benchmark.disabled else 5 if b > 1000 else 31
    kept = {"MALLOC_TRIM_THRESHOLD_": "4000000000", "MALLOC_MMAP_THRESHOLD_": "4000000000"}
    for name, settings in (("default_malloc", {}), ("kept_pages", kept)):
        benchmark.extra_info[name] = alternate_in_fresh_process(b, symmetric, rounds, settings)
    benchmark.pedantic(lambda: gradient(ops.student_t_kl, y, p), rounds=rounds, warmup_rounds=5)


ALTERNATE = """
import json, statistics, sys, time
b, symmetric, rounds, threads = map(int, sys.argv[1:])
import torch
torch.set_num_threads(threads)
from cases import dense_map
from competitors import eager_student_t_kl
from fastpdr import ops
y, p = dense_map(b)
p = p if symmetric else 2 * p.triu()
def seconds(function):
    begin = time.perf_counter()
    y.grad = None
    function(y, p).backward()
    return time.perf_counter() - begin
times = {"ours": [], "eager": [], "ours_first": []}
for _ in range(rounds):
    for name, function in (("ours", ops.student_t_kl), ("eager", eager_student_t_kl)):
        calls = [seconds(function) for _ in range(2 if b > 1000 else 16)]
        times[name].append(calls[-1])
        if name == "ours":
            times["ours_first"].append(calls[0])
medians = {name: statistics.median(values) for name, values in times.items()}
print(json.dumps({**medians, "ratio": medians["eager"] / medians["ours"]}))
"""


def alternate_in_fresh_process(b, symmetric, rounds, settings) -> dict[str, float]:
    """Medians in seconds of ours and eager in turn, each after untimed calls of its own, and their ratio.

    ``ours_first`` is the first call after eager, whose traffic has emptied the caches.
    """
    folder = str(Path(__file__).parent)
    command = [sys.executable, "-c", ALTERNATE, *map(str, (b, int(symmetric), rounds, THREADS))]
    environment = {**os.environ, **settings, "PYTHONPATH": folder}
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_sparse_against_eager_on_the_dense_p(versus):
    y, p = sparse_map(SPARSE_ROWS, SPARSE_NEIGHBORS)
    dense = p.to_dense()
    versus(
        lambda: gradient(ops.student_t_kl, y, p),
        lambda: gradient(eager_student_t_kl, y, dense),
        "eager PyTorch (2 threads)",
        9,
    )


@pytest.mark.parametrize("b", MAP_SIZES)
def test_floor_of_reading_p(b, benchmark):
    """One sum over p by PyTorch: the bytes that any dense kernel has to read."""
    _, p = dense_map(b)
    benchmark(p.sum)


MEMORY = """
import re, sys, torch
from fastpdr import ops
def status(name):
    return 1024 * int(re.search(name + r":\\s+(\\d+) kB", open("/proc/self/status").read()).group(1))
def call(b):
    p = torch.sparse_csr_tensor(torch.arange(b + 1), (torch.arange(b) + 1) % b, torch.ones(b), (b, b))
    y = torch.randn(b, 2, requires_grad=True)
    open("/proc/self/clear_refs", "w").write("5")  # forget the peak so far
    before = status("VmRSS")
    ops.student_t_kl(y, p).backward()
    return status("VmHWM") - before
call(300)
print(call(int(sys.argv[1])))
"""


def test_memory_beyond_the_arguments(benchmark):
    """Resident peak added by a call, in processes of their own: linear in b, where one [b, b] would be 40 GB."""
    extra = {}
    for b in (300,) if benchmark.disabled else (25_000, 50_000, 100_000):
        command = [sys.executable, "-W", "ignore", "-c", MEMORY, str(b)]
        extra[b] = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    benchmark.extra_info.update(extra_bytes=extra, bytes_per_point={b: size / b for b, size in extra.items()})
    y, p = torch.randn(300, 2), torch.ones(300, 300)
    benchmark(lambda: ops.student_t_kl(y, p))
