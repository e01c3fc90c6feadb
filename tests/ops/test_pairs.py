"""pair_loss: the kernel against its reference, the reference against umap-learn's own terms and finite differences."""

from __future__ import annotations

import pytest
import torch
from conftest import DEVICES, FLOAT64_RMS, SIZES, on

from fastpdr import _native, ops, reference
from fastpdr.ops._autograd import FusedLoss

native = pytest.mark.skipif("cpu" not in _native.KERNELS["pair_loss"], reason="no compiled kernels")
pytestmark = pytest.mark.filterwarnings("ignore:Sparse (CSR tensor support|invariant checks):UserWarning")

UMAP = {"a": 1.577, "b": 0.8951, "repulsion": 5.0, "eps": 1e-3, "clip": 4.0}
LARGEVIS = {"a": 1.0, "b": 1.0, "repulsion": 35.0, "eps": 0.1, "clip": 5.0}
KERAS = {**UMAP, "eps": 0.0, "clip": 0.0, "kernel": "keras"}
CURVES = [
    pytest.param(curve, id=name)
    for name, curve in {
        "umap": UMAP,
        "largevis": LARGEVIS,
        "keras": KERAS,
        "keras_unit_power": {**KERAS, "b": 1.0},
        "unclipped": {**UMAP, "clip": 0.0},
        "steep": {**UMAP, "a": 0.05, "b": 2.5},
        "flat": {**UMAP, "a": 3.0, "b": 0.3},
        "no_repulsion": {**UMAP, "repulsion": 0.0},
    }.items()
]


def targets(generator, b, density=0.2, symmetric=True):
    """Weights [b, b] with a filled diagonal, to show that it is ignored."""
    v = torch.rand(b, b, generator=generator) * (torch.rand(b, b, generator=generator) < density)
    v = v + v.T if symmetric else v
    if b > 1:
        v[0, 1] = v[1, 0] = 0.7
    return v.to_sparse_csr()


def loss_and_gradient(function, y, v, **curve):
    y = y.detach().clone().requires_grad_()
    loss = function(y, v, **curve)
    loss.backward()
    return loss.detach(), y.grad


def require_agreement(y, v, close, device="cpu", **curve):
    expected, expected_gradient = loss_and_gradient(reference.pair_loss, y.double(), v.double(), **curve)
    loss, gradient = loss_and_gradient(on(device, ops.pair_loss), y, v, **curve)
    assert loss.dtype == gradient.dtype == torch.float32
    close(loss, expected)
    close(gradient, expected_gradient)


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("b", SIZES)
def test_kernel_agrees_with_reference_for_all_sizes(b, device, curve, generator, close):
    y = 2 * torch.randn(b, 2, generator=generator)
    require_agreement(y, targets(generator, b), close, device, **curve)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("curve", CURVES[:3])
@pytest.mark.parametrize("c", [1, 2, 3, 4, 5, 64, 65])
def test_kernel_agrees_with_reference_for_all_widths(c, curve, device, generator, close):
    y = torch.randn(83, c, generator=generator)
    require_agreement(y, targets(generator, 83, symmetric=False), close, device, **curve)


def test_reference_is_the_formula(generator, close):
    """Attraction and repulsion written out over all ordered pairs; LargeVis's 1 / (1 + d²)."""
    y, v = torch.randn(30, 2, generator=generator).double(), targets(generator, 30, symmetric=False).double()
    d = torch.cdist(y, y)
    off = ~torch.eye(30, dtype=torch.bool)
    weights = v.to_dense() * off / (v.to_dense() * off).sum()
    for a, b in ((1.577, 0.8951), (1.0, 1.0)):
        q = 1 / (1 + a * d ** (2 * b))
        for kernel, curve in (("umap", q), ("keras", q / (1 + q))):
            expected = -(weights[off] * curve[off].log()).sum() - 5.0 * (1 - curve[off]).log().mean()
            loss = reference.pair_loss(y, v, a=a, b=b, repulsion=5.0, eps=0.0, clip=0.0, kernel=kernel)
            close(loss, expected, FLOAT64_RMS)


def test_gradient_of_a_pair_is_that_of_umap_learn(close):
    """Its grad_coeff of the layout loop, for one positive and one negative pair (eps and clip as there)."""
    y = torch.tensor([[0.0, 0.0], [0.6, 0.8]], dtype=torch.float64)
    one = torch.tensor([[0.0, 1.0], [0.0, 0.0]]).double().to_sparse_csr()
    a, b, d2 = 1.577, 0.8951, 1.0
    _, pull = loss_and_gradient(reference.pair_loss, y, one, a=a, b=b, repulsion=0.0)
    attraction = -2 * a * b * d2 ** (b - 1) / (a * d2**b + 1)
    close(-pull[0], attraction * (y[0] - y[1]), FLOAT64_RMS)
    _, both = loss_and_gradient(reference.pair_loss, y, one, a=a, b=b, repulsion=1.0)
    repulsion = 2 * b / ((0.001 + d2) * (a * d2**b + 1))
    # umap-learn adds 0.001 to the first d² alone; here both have it.
    close(-(both - pull)[0], repulsion * (y[0] - y[1]), 1e-3)


@pytest.mark.parametrize("curve", [c for c in CURVES if c.id not in ("umap", "largevis", "steep", "flat")])
def test_gradcheck_of_the_reference(curve, generator):
    y = torch.randn(6, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    v = targets(generator, 6, symmetric=False).double()
    curve = {**curve, "clip": 0.0}
    assert torch.autograd.gradcheck(lambda y: reference.pair_loss(y, v, **curve), y, atol=1e-7)


def test_clip_bounds_a_pairs_gradient():
    y = torch.tensor([[0.0, 0.0], [1e-2, 0.0]])
    none = torch.zeros(2, 2).to_sparse_csr()
    _, free = loss_and_gradient(ops.pair_loss, y, none, **{**UMAP, "repulsion": 1.0, "clip": 0.0})
    _, clipped = loss_and_gradient(ops.pair_loss, y, none, **{**UMAP, "repulsion": 1.0, "clip": 4.0})
    assert free.norm(dim=1).max() > 8
    torch.testing.assert_close(clipped.norm(dim=1), torch.tensor([4.0, 4.0]))
    assert clipped[1, 0] < 0 < clipped[0, 0]  # descent drives them apart


@pytest.mark.parametrize("curve", CURVES[:3])
def test_coincident_points(curve, generator, close):
    y = torch.randn(30, 2, generator=generator)
    y[5], y[6:10] = y[4], 0.0
    v = targets(generator, 30, density=0.6)
    loss, gradient = loss_and_gradient(ops.pair_loss, y, v, **{**curve, "eps": 0.0})
    assert loss.isfinite()
    assert gradient.isfinite().all()
    require_agreement(y, v, close, **curve)
    loss, gradient = loss_and_gradient(ops.pair_loss, torch.zeros(30, 2), v, **curve)
    assert loss.isfinite()
    assert gradient.abs().max() < 1e-20


@pytest.mark.parametrize("distance", [1e2, 1e4, 1e6])
@pytest.mark.parametrize("curve", CURVES[:3])
def test_points_far_apart(curve, distance, generator, close):
    y, v = distance * torch.randn(51, 2, generator=generator), targets(generator, 51)
    require_agreement(y, v, close, **curve)


def test_fewer_than_two_points_and_no_mass(generator, close):
    for b in (0, 1):
        loss, gradient = loss_and_gradient(ops.pair_loss, torch.ones(b, 2), targets(generator, b), **UMAP)
        assert loss == 0
        assert gradient.shape == (b, 2)
        assert (gradient == 0).all()
    y = torch.randn(20, 2, generator=generator)
    _, gradient = loss_and_gradient(ops.pair_loss, y, torch.eye(20).to_sparse_csr(), **UMAP)
    assert (gradient * y).sum() < 0  # outwards
    require_agreement(y, torch.eye(20).to_sparse_csr(), close, **UMAP)


def test_backward_scales_with_the_incoming_gradient(generator, close):
    y, v = torch.randn(20, 2, generator=generator, requires_grad=True), targets(generator, 20)
    (one,) = torch.autograd.grad(ops.pair_loss(y, v, **UMAP), y)
    (three,) = torch.autograd.grad(3 * ops.pair_loss(y, v, **UMAP), y)
    close(three, 3 * one, 1e-6)
    with torch.no_grad():
        assert not ops.pair_loss(y, v, **UMAP).requires_grad


def test_strided_inputs_and_int32_indices(generator, close):
    y, v = torch.randn(40, 2, generator=generator), targets(generator, 40)
    expected = ops.pair_loss(y, v, **UMAP)
    padded = torch.zeros(40, 7)
    padded[:, 2:4] = y
    close(ops.pair_loss(padded[:, 2:4], v, **UMAP), expected, 1e-6)
    small = torch.sparse_csr_tensor(v.crow_indices().int(), v.col_indices().int(), v.values(), (40, 40))
    close(ops.pair_loss(y.T.contiguous().T, small, **UMAP), expected, 1e-6)


@native
@pytest.mark.parametrize("curve", CURVES[:3])
def test_threads_do_not_change_the_bits(curve, generator):
    y, v = torch.randn(700, 2, generator=generator), targets(generator, 700)
    before = torch.get_num_threads()
    results = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        results.append(loss_and_gradient(ops.pair_loss, y, v, **curve))
    torch.set_num_threads(before)
    assert all(torch.equal(a, results[0][0]) and torch.equal(g, results[0][1]) for a, g in results)


@native
def test_compiles_without_a_graph_break(generator):
    """By its parts: PyTorch compiles no function of a sparse tensor."""
    y, v = torch.randn(40, 2, generator=generator), targets(generator, 40)
    kernel = torch.ops.fastpdr.pair_loss.default
    parts = (v.crow_indices().clone(), v.col_indices().clone(), v.values().clone())
    settings = (*UMAP.values(), False)

    def loss(y, indptr, indices, values):
        return FusedLoss.apply(kernel, 2.0 * y, indptr, indices, values, *settings)

    expected = loss_and_gradient(lambda y, v: ops.pair_loss(2.0 * y, v, **UMAP), y, v)
    y = y.requires_grad_()
    result = torch.compile(loss, fullgraph=True)(y, *parts)
    result.backward()
    assert torch.equal(result.detach(), expected[0])
    assert torch.equal(y.grad, expected[1])


@native
def test_opcheck(generator):
    y, v = torch.randn(20, 2, generator=generator), targets(generator, 20)
    parts = (v.crow_indices().clone(), v.col_indices().clone(), v.values().clone())
    torch.library.opcheck(torch.ops.fastpdr.pair_loss.default, (y, *parts, 1.5, 0.9, 5.0, 1e-3, 4.0, False))
    with pytest.raises(RuntimeError, match="indices must lie in"):
        torch.ops.fastpdr.pair_loss.default(y, parts[0], parts[1] + 20, parts[2], 1.5, 0.9, 5.0, 1e-3, 4.0, True)


def good():
    return {"y": torch.ones(3, 2), "targets": torch.ones(3, 3).to_sparse_csr(), **UMAP}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"y": [[1.0]]}, TypeError, r"y must be a float32 or float64 tensor \[b, c\], got list"),
        ({"y": torch.ones(3, 0)}, ValueError, "y must have at least one column"),
        ({"targets": torch.ones(3, 3)}, ValueError, r"targets must be sparse_csr, got float32 \[3, 3\] on cpu"),
        ({"targets": torch.ones(4, 4).to_sparse_csr()}, ValueError, r"targets must be float32 \[3, 3\] .* like y"),
        ({"targets": torch.ones(3, 3).double().to_sparse_csr()}, ValueError, "like y, got float64"),
        ({"a": 0}, ValueError, "a must be > 0, got 0"),
        ({"b": -1.0}, ValueError, "b must be > 0, got -1.0"),
        ({"repulsion": -1}, ValueError, "repulsion must be >= 0, got -1"),
        ({"eps": float("nan")}, ValueError, "eps must be >= 0, got nan"),
        ({"clip": "four"}, ValueError, "clip must be >= 0, got 'four'"),
        ({"kernel": "cosh"}, ValueError, "kernel must be 'umap' or 'keras', got 'cosh'"),
    ],
)
def test_bad_arguments_are_named(change, error, message):
    with pytest.raises(error, match=f"pair_loss: .*{message}"):
        ops.pair_loss(**{**good(), **change})


@pytest.mark.parametrize("place", ["y", "targets"])
def test_nan_shows_in_the_loss(place, generator):
    y, v = torch.randn(40, 2, generator=generator), targets(generator, 40)
    (y if place == "y" else v.values()[None])[0, 1] = torch.nan
    for function in (ops.pair_loss, reference.pair_loss):
        loss, _ = loss_and_gradient(function, y, v, **UMAP)
        assert loss.isnan()
