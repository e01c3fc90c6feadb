"""Student-t KL, forward and backward, against eager PyTorch; the memory it takes."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from alternate import in_fresh_processes
from cases import MAP_SIZES, PAIR_SIZES, SPARSE_NEIGHBORS, SPARSE_ROWS, THREADS, batch_map, dense_map, sparse_map
from competitors import eager_student_t_kl, eager_student_t_kl_by_row

from fastpdr import ops, reference


def gradient(function, y, p, **settings):
    y.grad = None
    function(y, p, **settings).backward()
    return y.grad


def require_close(function, y, p, expected="global", **settings):
    """Against the reference in float64, with its normalization."""
    actual = gradient(function, y, p, **settings).double()
    double = y.detach().double().requires_grad_()
    expected = gradient(reference.student_t_kl, double, p.double(), normalization=expected)
    assert (actual - expected).norm() <= 1e-3 * expected.norm()  # Gram distances lose digits; ours keeps 1e-5


@pytest.mark.parametrize("symmetric", [True, False], ids=["symmetric", "asymmetric"])
@pytest.mark.parametrize("b", MAP_SIZES)
def test_dense_against_eager(b, symmetric, benchmark):
    """An asymmetric p costs us three logarithms a pair, not one."""
    y, p = dense_map(b)
    p = p if symmetric else 2 * p.triu()
    if b <= 1000:
        require_close(ops.student_t_kl, y, p)
        require_close(eager_student_t_kl, y, p)
    rounds = 1 if benchmark.disabled else 5 if b > 1000 else 31
    calls = 2 if b > 1000 else 16
    benchmark.extra_info.update(in_fresh_processes(dense_contest, [b, symmetric], rounds, calls, THREADS))
    benchmark.pedantic(lambda: gradient(ops.student_t_kl, y, p), rounds=rounds, warmup_rounds=5)


def dense_contest(b, symmetric):
    """Both gradients on a dense p."""
    y, p = dense_map(b)
    p = p if symmetric else 2 * p.triu()
    return lambda: gradient(ops.student_t_kl, y, p), lambda: gradient(eager_student_t_kl, y, p)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("b", PAIR_SIZES)
def test_rows_against_eager(b, benchmark):
    """Every row normalised on its own, p sparse as in batches of drawn edges; eager has it dense."""
    y, p, dense = batch_map(b)
    require_close(ops.student_t_kl, y, p, "row", normalization="row")
    require_close(eager_student_t_kl_by_row, y, dense, "row")
    rounds = 1 if benchmark.disabled else 9
    benchmark.extra_info.update(in_fresh_processes(rows_contest, [b], rounds, 4, THREADS))
    benchmark.pedantic(lambda: gradient(ops.student_t_kl, y, p, normalization="row"), rounds=rounds, warmup_rounds=5)


def rows_contest(b):
    """Both gradients by row, on a sparse and on a dense p."""
    y, p, dense = batch_map(b)
    return (
        lambda: gradient(ops.student_t_kl, y, p, normalization="row"),
        lambda: gradient(eager_student_t_kl_by_row, y, dense),
    )


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
