"""student_t_kl: the kernel against its reference, the reference against scikit-learn and finite differences."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import DEVICES, FLOAT64_RMS, SIZES, on

from fastpdr import _native, ops, reference

native = pytest.mark.skipif("cpu" not in _native.KERNELS["student_t_kl"], reason="no compiled kernels")
pytestmark = pytest.mark.filterwarnings("ignore:Sparse CSR tensor support:UserWarning")

SETTINGS = [(1.0, 1.0), (1.0, 4.0), (0.5, 1.0), (2.0, 1.0), (2.0, 12.0)]  # dof, exaggeration


def similarities(generator, b, density=0.3, symmetric=True):
    """Sparse-looking dense p [b, b]; the diagonal is filled, to show that it is ignored."""
    p = torch.rand(b, b, generator=generator) * (torch.rand(b, b, generator=generator) < density)
    p = p + p.T if symmetric else p
    if b > 1:
        p[0, 1] = p[1, 0] = 0.7
    return p


def layouts(p):
    yield "dense", p
    yield "csr", p.to_sparse_csr()


def loss_and_gradient(function, y, p, **settings):
    y = y.detach().clone().requires_grad_()
    loss = function(y, p, **settings)
    loss.backward()
    return loss.detach(), y.grad


by_both = pytest.mark.parametrize("normalization", ["global", "row"])


@by_both
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("b", SIZES)
def test_kernel_agrees_with_reference_for_all_sizes(b, symmetric, device, normalization, generator, close):
    y, p = torch.randn(b, 2, generator=generator), similarities(generator, b, symmetric=symmetric)
    form = {"normalization": normalization}
    expected, expected_gradient = loss_and_gradient(reference.student_t_kl, y.double(), p.double(), **form)
    for name, layout in layouts(p):
        loss, gradient = loss_and_gradient(on(device, ops.student_t_kl), y, layout, **form)
        assert loss.dtype == gradient.dtype == torch.float32, name
        if b == 2 and normalization == "row":  # each point has all its mass on the other
            assert abs(loss) < 1e-6
        else:
            close(loss, expected)
        if b > 2:  # two points: the gradient is 0 whatever their distance
            close(gradient, expected_gradient)
        else:
            assert gradient.abs().max().item() < 1e-6 if b else True


@by_both
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("dof", "exaggeration"), SETTINGS)
@pytest.mark.parametrize("c", [1, 2, 3, 4, 5, 64, 65])
def test_kernel_agrees_with_reference_for_all_widths(c, dof, exaggeration, device, normalization, generator, close):
    y, p = torch.randn(83, c, generator=generator), similarities(generator, 83)
    settings = {"dof": dof, "exaggeration": exaggeration, "normalization": normalization}
    expected, expected_gradient = loss_and_gradient(reference.student_t_kl, y.double(), p.double(), **settings)
    for _, layout in layouts(p):
        loss, gradient = loss_and_gradient(on(device, ops.student_t_kl), y, layout, **settings)
        close(loss, expected)
        close(gradient, expected_gradient)


def test_reference_agrees_with_scikit_learn(rng, close):
    from scipy.spatial.distance import squareform
    from sklearn.manifold._t_sne import _kl_divergence

    b = 60
    y = rng.normal(size=(b, 2))
    p = rng.random((b, b))
    p = p + p.T
    np.fill_diagonal(p, 0)
    p /= p.sum()
    for dof in (1, 2):
        expected, gradient = _kl_divergence(y.ravel(), squareform(p), dof, b, 2)
        loss, ours = loss_and_gradient(reference.student_t_kl, torch.from_numpy(y), torch.from_numpy(p), dof=dof)
        close(loss, torch.tensor(expected), FLOAT64_RMS)
        if dof == 1:  # for other dof scikit-learn's gradient has another constant
            close(ours.ravel(), torch.from_numpy(gradient), FLOAT64_RMS)


def test_row_form_is_the_mean_of_the_rows_divergences(generator, close):
    """By SciPy: every row's divergence between p and w, both normalised, weighted by the row's mass."""
    from scipy.special import rel_entr

    y, p = torch.randn(40, 2, generator=generator).double(), similarities(generator, 40, symmetric=False).double()
    p[3] = 0
    off = p.clone().fill_diagonal_(0)
    w = (1 / (1 + torch.cdist(y, y).square())).fill_diagonal_(0)
    mass = off.sum(1)
    rows = rel_entr((off / mass.clamp_min(1e-300)[:, None]).numpy(), (w / w.sum(1, keepdim=True)).numpy()).sum(1)
    expected = (torch.from_numpy(rows) * mass).sum() / mass.sum()
    close(reference.student_t_kl(y, p, normalization="row"), expected, FLOAT64_RMS)


@by_both
@pytest.mark.parametrize(("dof", "exaggeration"), SETTINGS)
def test_gradcheck_of_the_reference(dof, exaggeration, normalization, generator):
    y = torch.randn(6, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    p = similarities(generator, 6, symmetric=False).double()
    settings = {"dof": dof, "exaggeration": exaggeration, "normalization": normalization}
    assert torch.autograd.gradcheck(lambda y: reference.student_t_kl(y, p, **settings), y, atol=1e-7)


@native
def test_gradient_agrees_with_finite_differences_of_the_reference(generator, close):
    y, p = torch.randn(20, 2, generator=generator), similarities(generator, 20)
    _, gradient = loss_and_gradient(ops.student_t_kl, y, p)
    step, numeric = 1e-5, torch.zeros(20, 2, dtype=torch.float64)
    for i in range(20):
        for a in range(2):
            moved = y.double().repeat(2, 1, 1)
            moved[0, i, a] += step
            moved[1, i, a] -= step
            high, low = (reference.student_t_kl(m, p.double()) for m in moved)
            numeric[i, a] = (high - low) / (2 * step)
    close(gradient, numeric)


def test_exaggeration_multiplies_the_attraction_alone(generator, close):
    """Scaling p does nothing (it is normalised); exaggeration adds (e - 1) times the attractive term."""
    y, p = torch.randn(40, 2, generator=generator), similarities(generator, 40)
    one, gradient = loss_and_gradient(ops.student_t_kl, y, p)
    scaled, _ = loss_and_gradient(ops.student_t_kl, y, 4 * p)
    four, exaggerated = loss_and_gradient(ops.student_t_kl, y, p, exaggeration=4.0)
    close(scaled, one, 1e-6)
    w = (1 / (1 + torch.cdist(y, y).square())).fill_diagonal_(1.0)
    off = p.clone().fill_diagonal_(0)
    close(four - one, -3 * (off / off.sum() * w.log()).sum(), 1e-5)
    assert (exaggerated - gradient).norm() > 0.1 * gradient.norm()


@by_both
def test_coincident_points(normalization, generator, close):
    y = torch.randn(30, 2, generator=generator)
    y[5], y[6:10] = y[4], 0.0
    p = similarities(generator, 30)
    form = {"normalization": normalization}
    loss, gradient = loss_and_gradient(ops.student_t_kl, y, p, **form)
    assert gradient.isfinite().all()
    close(loss, reference.student_t_kl(y.double(), p.double(), **form))
    loss, gradient = loss_and_gradient(ops.student_t_kl, torch.zeros(30, 2), p, **form)
    assert loss.isfinite()
    assert (gradient == 0).all()


@by_both
@pytest.mark.parametrize("distance", [1e3, 1e6])
def test_points_far_apart(distance, normalization, generator, close):
    y, p = distance * torch.randn(51, 2, generator=generator), similarities(generator, 51)
    form = {"normalization": normalization}
    expected, expected_gradient = loss_and_gradient(reference.student_t_kl, y.double(), p.double(), **form)
    for _, layout in layouts(p):
        loss, gradient = loss_and_gradient(ops.student_t_kl, y, layout, **form)
        close(loss, expected)
        close(gradient, expected_gradient)


def test_two_points_far_apart(close):
    y = torch.tensor([[0.0, 0.0], [1e6, 0.0]])
    loss, gradient = loss_and_gradient(ops.student_t_kl, y, torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    assert abs(loss.item()) < 1e-5  # P and Q are both one half
    assert gradient.abs().max() < 1e-9


def test_fewer_than_two_points():
    for b in (0, 1):
        loss, gradient = loss_and_gradient(ops.student_t_kl, torch.ones(b, 2), torch.ones(b, b))
        assert loss.item() == 0.0
        assert gradient.shape == (b, 2)
        assert (gradient == 0).all()


def test_no_mass_leaves_the_repulsion(generator, close):
    y = torch.randn(20, 2, generator=generator)
    for _, p in layouts(torch.eye(20)):
        loss, gradient = loss_and_gradient(ops.student_t_kl, y, p)
        w = (1 / (1 + torch.cdist(y, y).square())).fill_diagonal_(0.0)
        close(loss, w.sum().log())
        assert (gradient * y).sum() < 0  # outwards


def test_backward_scales_with_the_incoming_gradient(generator, close):
    y = torch.randn(20, 2, generator=generator, requires_grad=True)
    p = similarities(generator, 20)
    (one,) = torch.autograd.grad(ops.student_t_kl(y, p), y)
    (three,) = torch.autograd.grad(3 * ops.student_t_kl(y, p), y)
    (expanded,) = torch.autograd.grad(ops.student_t_kl(y, p).expand(4).sum(), y)
    close(three, 3 * one, 1e-6)
    close(expanded, 4 * one, 1e-6)


def test_without_gradients(generator):
    y, p = torch.randn(20, 2, generator=generator, requires_grad=True), similarities(generator, 20)
    with torch.no_grad():
        assert not ops.student_t_kl(y, p).requires_grad
    assert not ops.student_t_kl(y.detach(), p).requires_grad
    assert ops.student_t_kl(y, p.requires_grad_()).requires_grad


def test_strided_and_expanded_inputs(generator, close):
    y, p = torch.randn(40, 2, generator=generator), similarities(generator, 40, symmetric=False)
    expected = ops.student_t_kl(y, p)
    close(ops.student_t_kl(y.T.contiguous().T, p.T.contiguous().T), expected, 1e-6)
    padded = torch.zeros(40, 7)
    padded[:, 2:4] = y
    close(ops.student_t_kl(padded[:, 2:4], torch.stack([p, p], dim=2)[..., 1]), expected, 1e-6)
    ones = torch.ones(1, 1).expand(40, 40)
    close(ops.student_t_kl(y, ones), ops.student_t_kl(y, ones.contiguous()), 1e-6)


def test_no_mass_leaves_nothing_by_row(generator):
    y = torch.randn(20, 2, generator=generator)
    for _, p in layouts(torch.eye(20)):
        loss, gradient = loss_and_gradient(ops.student_t_kl, y, p, normalization="row")
        assert loss == 0
        assert (gradient == 0).all()


@native
@by_both
@pytest.mark.parametrize("symmetric", [True, False])
def test_threads_do_not_change_the_bits(symmetric, normalization, generator):
    y, p = torch.randn(700, 2, generator=generator), similarities(generator, 700, symmetric=symmetric)
    before = torch.get_num_threads()
    for _, layout in layouts(p):
        results = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(loss_and_gradient(ops.student_t_kl, y, layout, normalization=normalization))
        torch.set_num_threads(before)
        assert all(torch.equal(a, results[0][0]) and torch.equal(g, results[0][1]) for a, g in results)


PEAK = """
import re, torch
from fastpdr import ops
def status(name):
    return int(re.search(name + r":\\s+(\\d+) kB", open("/proc/self/status").read()).group(1))
def call(b):
    p = torch.sparse_csr_tensor(torch.arange(b + 1), (torch.arange(b) + 1) % b, torch.ones(b), (b, b))
    y = torch.randn(b, 2, requires_grad=True)
    open("/proc/self/clear_refs", "w").write("5")
    before = status("VmRSS")
    ops.student_t_kl(y, p).backward()
    return status("VmHWM") - before
call(300)
print(call(20_000))
"""


@native
@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="needs Linux's /proc")
def test_memory_is_linear_in_b():
    """No [b, b] temporary, which would be 1.6 GB: the peak of a call is some 600 bytes a point."""
    result = subprocess.run([sys.executable, "-W", "ignore", "-c", PEAK], capture_output=True, text=True, check=True)
    assert 2_000 < int(result.stdout) < 40_000  # kB; the lower bound shows that the measurement works


def test_csr_with_int32_indices(generator, close):
    y, p = torch.randn(30, 2, generator=generator), similarities(generator, 30)
    csr = p.to_sparse_csr()
    small = torch.sparse_csr_tensor(csr.crow_indices().int(), csr.col_indices().int(), csr.values(), (30, 30))
    close(ops.student_t_kl(y, small), ops.student_t_kl(y, p), 1e-6)


@native
def test_csr_indices_out_of_range_are_refused():
    y = torch.randn(3, 2)
    indptr, values = torch.tensor([0, 1, 2, 3]), torch.ones(3)
    op = torch.ops.fastpdr.student_t_kl_csr.default
    for indices in ([0, 1, 3], [0, -1, 2]):
        with pytest.raises(RuntimeError, match="indices must lie in"):
            op(y, indptr, torch.tensor(indices), values, 1.0, 1.0, False)
    with pytest.raises(RuntimeError, match="indptr must rise"):
        op(y, torch.tensor([0, 5, 2, 3]), torch.tensor([0, 1, 2]), values, 1.0, 1.0, True)


@native
def test_opcheck(generator):
    y, p = torch.randn(20, 2, generator=generator), similarities(generator, 20)
    csr = p.to_sparse_csr()
    parts = (csr.crow_indices().clone(), csr.col_indices().clone(), csr.values().clone())
    for by_row in (False, True):
        torch.library.opcheck(torch.ops.fastpdr.student_t_kl.default, (y, p, 1.0, 1.0, by_row))
        torch.library.opcheck(torch.ops.fastpdr.student_t_kl_csr.default, (y, *parts, 1.0, 1.0, by_row))


@native
def test_compiles_without_a_graph_break(generator):
    y, p = torch.randn(40, 2, generator=generator), similarities(generator, 40)
    compiled = torch.compile(lambda y, p: ops.student_t_kl(2.0 * y, p).sum(), fullgraph=True)
    expected, expected_gradient = loss_and_gradient(lambda y, p: ops.student_t_kl(2.0 * y, p), y, p)
    loss, gradient = loss_and_gradient(compiled, y, p)
    assert torch.equal(loss, expected)
    assert torch.equal(gradient, expected_gradient)


def good():
    return {"y": torch.ones(3, 2), "p": torch.ones(3, 3)}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"y": [[1.0]]}, TypeError, r"y must be a float32 or float64 tensor \[b, c\], got list"),
        ({"y": torch.ones(3)}, ValueError, r"y must be float32 \(or float64\) \[b, c\], got float32 \[3\]"),
        ({"y": torch.ones(3, 2, dtype=torch.bfloat16)}, ValueError, r"got bfloat16 \[3, 2\]"),
        ({"y": torch.ones(3, 0)}, ValueError, "y must have at least one column"),
        ({"p": torch.ones(3, 4)}, ValueError, r"p must be float32 \[3, 3\] on cpu like y, got float32 \[3, 4\]"),
        ({"p": torch.ones(3, 3).double()}, ValueError, r"like y, got float64 \[3, 3\]"),
        ({"p": torch.ones(3, 3, dtype=torch.int32)}, ValueError, r"got int32 \[3, 3\]"),
        ({"p": torch.ones(3, 3).to_sparse_coo()}, ValueError, "p must be dense or sparse_csr, got .* sparse_coo"),
        ({"p": torch.ones(3, 3, device="meta")}, ValueError, "on cpu like y, got .* on meta"),
        ({"dof": 0}, ValueError, "dof must be > 0, got 0"),
        ({"dof": float("inf")}, ValueError, "dof must be > 0, got inf"),
        ({"exaggeration": -1}, ValueError, "exaggeration must be > 0, got -1"),
        ({"normalization": "column"}, ValueError, "normalization must be 'global' or 'row', got 'column'"),
    ],
)
def test_bad_arguments_are_named(change, error, message):
    with pytest.raises(error, match=f"student_t_kl: .*{message}"):
        ops.student_t_kl(**{**good(), **change})


@by_both
@pytest.mark.parametrize("place", ["y", "p"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_shows_in_the_loss(value, place, normalization, generator):
    y, p = torch.randn(40, 2, generator=generator), similarities(generator, 40)
    (y if place == "y" else p)[3, 1] = value
    for function in (ops.student_t_kl, reference.student_t_kl):
        for name, layout in layouts(p):
            loss, _ = loss_and_gradient(function, y, layout, normalization=normalization)
            assert not loss.isfinite(), name
