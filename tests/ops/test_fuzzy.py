"""fuzzy_weights: the kernel against its reference, both against umap-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from conftest import DEVICES, SIZES, no_gpu, on

from fastpdr import _native, ops, reference

native = pytest.mark.skipif("cpu" not in _native.KERNELS["fuzzy_weights"], reason="no compiled kernels")
BACKENDS = [
    pytest.param(ops.fuzzy_weights, id="ops"),
    pytest.param(on("cuda", ops.fuzzy_weights), id="cuda", marks=no_gpu),
    pytest.param(reference.fuzzy_weights, id="reference"),
]


def distances(generator, n, k, d=8, dtype=torch.float32):
    """Ascending distances [n, k] between points of N(0, I) in d dimensions."""
    if k == 0:
        return torch.empty(n, 0, dtype=dtype)
    return (2 * torch.randn(n, k, d, generator=generator, dtype=dtype).square().sum(-1)).sqrt().sort(1).values


def with_ties(generator, n, k):
    """Rows with duplicates of the point, of its nearest neighbour, and with nothing else."""
    dist = distances(generator, n, k)
    dist[:10, : k // 4] = 0.0
    dist[10:15] = 0.0
    dist[15:20] = 2.5
    dist[20:30, : k // 3] = dist[20:30, k // 3 - 1 : k // 3]
    return dist.sort(1).values


def umap_weights(dist, local_connectivity):
    """umap-learn's weights, rho and sigma, with the point itself put before its neighbours."""
    umap = pytest.importorskip("umap.umap_", reason="umap-learn is not installed (extra 'test')")
    n, k = dist.shape
    whole = np.concatenate([np.zeros((n, 1), np.float32), dist.numpy()], axis=1)
    itself = np.arange(n)[:, None]
    indices = np.concatenate([itself, n + 1 + np.zeros((n, k), int)], axis=1).astype(np.int32)  # any other row
    sigma, rho = umap.smooth_knn_dist(whole, float(k + 1), local_connectivity=float(local_connectivity))
    weights = umap.compute_membership_strengths(indices, whole, sigma, rho)[2]
    return tuple(torch.from_numpy(part) for part in (weights.reshape(n, k + 1)[:, 1:].copy(), rho, sigma))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("local_connectivity", [0.0, 0.5, 1.0, 1.5, 3.0])
@pytest.mark.parametrize("k", SIZES)
@pytest.mark.parametrize("n", [0, 1, 7, 16, 33])
def test_kernel_agrees_with_reference(n, k, local_connectivity, device, generator, close):
    dist = distances(generator, n, k)
    weights, rho, sigma = on(device, ops.fuzzy_weights)(dist, local_connectivity=local_connectivity)
    expected = reference.fuzzy_weights(dist.double(), local_connectivity=local_connectivity)
    assert weights.dtype == rho.dtype == sigma.dtype == torch.float32
    assert weights.shape == (n, k)
    assert rho.shape == sigma.shape == (n,)
    floored = k in (2, 7) and local_connectivity > 1  # a sum of rounded differences, divided by the smallest sigma
    close(weights, expected[0], 1e-3 if floored else 1e-5)
    close(rho, expected[1])
    if k != 1:  # a lone neighbour beyond rho has no sigma
        close(sigma, expected[2], 1e-3 if floored else 1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("local_connectivity", [0.5, 1.0, 1.5, 2.0])
@pytest.mark.parametrize("k", [2, 4, 14, 29, 49])
def test_agrees_with_umap(k, local_connectivity, backend, generator):
    dist = with_ties(generator, 500, k)
    theirs = umap_weights(dist, local_connectivity)
    weights, rho, sigma = backend(dist, local_connectivity=local_connectivity)
    assert (weights - theirs[0]).abs().max() <= 1e-4
    assert (rho - theirs[1]).abs().max() <= 1e-4
    if k == 14 and local_connectivity == 1.0:  # elsewhere targets that sigma hardly moves, or not at all
        assert ((sigma - theirs[2]) / theirs[2]).abs().max() <= 1e-4


@pytest.mark.parametrize("backend", BACKENDS)
def test_lone_neighbour_is_umaps(backend):
    dist = torch.tensor([[3.0], [0.5], [0.0], [4000.0]])
    weights, rho, sigma = backend(dist)
    theirs = umap_weights(dist, 1.0)
    assert torch.equal(weights, theirs[0])
    assert torch.equal(rho, theirs[1])
    assert torch.allclose(sigma, theirs[2], rtol=1e-5)
    weights, _, sigma = backend(dist, local_connectivity=0.5)
    assert (weights > 0.9999).all()
    assert sigma.isfinite().all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("k", [2, 5, 14, 50, 200])
def test_sum_is_the_target(k, backend, generator):
    weights, rho, _ = backend(distances(generator, 300, k))
    assert (weights.double().sum(1) - math.log2(k + 1)).abs().max() <= 1e-6 * k
    assert (weights[:, 0] == 1).all()
    assert (weights.diff(dim=1) <= 0).all()
    assert (rho > 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_missing_neighbours_count_for_nothing(backend, generator, close):
    dist = distances(generator, 40, 14)
    padded = torch.cat([dist, torch.full((40, 9), torch.inf)], dim=1)
    weights, rho, sigma = backend(padded)
    expected = backend(dist)
    assert (weights[:, 14:] == 0).all()
    close(weights[:, :14], expected[0], 1e-6)
    close(rho, expected[1], 1e-7)
    close(sigma, expected[2], 1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_without_neighbours(backend, close):
    weights, rho, sigma = backend(torch.tensor([[torch.inf] * 3, [1.0, 2.0, 3.0], [0.0, 0.0, 0.0]]))
    assert (weights[0] == 0).all()
    assert (weights[2] == 1).all()
    assert rho.tolist() == [0.0, 1.0, 0.0]
    close(sigma[[0, 2]], torch.full((2,), 1e-3 * 6 / 9))  # one point, four and four


@pytest.mark.parametrize("backend", BACKENDS)
def test_all_points_in_one_place(backend):
    weights, rho, sigma = backend(torch.zeros(20, 14))
    assert (weights == 1).all()
    assert (rho == 0).all()
    assert (sigma == 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_nan_row_is_nan_and_leaves_the_others(backend, generator, close):
    dist = distances(generator, 40, 14)
    dist[5] = 0.0  # takes the mean of all valid rows
    clean = backend(torch.cat([dist[:3], dist[4:11], dist[12:]]))
    dist[3, 7], dist[11, 0] = torch.nan, -torch.inf
    results = backend(dist)
    bad = torch.zeros(40, dtype=torch.bool).index_fill_(0, torch.tensor([3, 11]), True)
    for result, expected in zip(results, clean, strict=True):
        assert result[bad].isnan().all()
        close(result[~bad], expected, 1e-6)


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12, 1e30])
def test_scale_of_distances_does_not_matter(scale, generator, close):
    dist = distances(generator, 60, 14)
    weights, rho, sigma = ops.fuzzy_weights(dist * scale)
    expected = ops.fuzzy_weights(dist)
    close(weights, expected[0])
    close(rho.double() / scale, expected[1])
    close(sigma.double() / scale, expected[2])


def test_distances_of_all_scales_in_one_row(close):
    dist = torch.tensor([[1e-30, 1e-20, 1e-10, 1e-5, 1.0, 1e5, 1e10, 1e20], [1, 1 + 1e-6, 1 + 2e-6, 2, 3, 4, 5, 1e30]])
    weights, rho, sigma = ops.fuzzy_weights(dist)
    expected = reference.fuzzy_weights(dist.double())
    for result, exact in zip((weights, rho, sigma), expected, strict=True):
        assert result.isfinite().all()
        close(result, exact, 1e-4)


def test_far_outlier_sets_the_least_sigma(generator, close):
    """As in UMAP, a share of the mean distance: all others are then within it."""
    dist = torch.cat([distances(generator, 20, 13), torch.full((20, 1), 1e30)], dim=1)
    weights, rho, sigma = ops.fuzzy_weights(dist)
    close(sigma, torch.full((20,), 1e27 / 15))
    assert torch.equal(rho, dist[:, 0])
    assert weights[:, :13].min() > 0.9999
    assert (weights[:, 13] == 0).all()


def test_float64_runs_the_reference(generator):
    dist = distances(generator, 9, 14, dtype=torch.float64)
    results, expected = ops.fuzzy_weights(dist), reference.fuzzy_weights(dist)
    assert all(torch.equal(result, exact) for result, exact in zip(results, expected, strict=True))
    assert results[0].dtype == torch.float64
    assert (results[0].sum(1) - math.log2(15)).abs().max() < 1e-12


@native
@pytest.mark.parametrize("local_connectivity", [0.0, 1.0])
def test_threads_do_not_change_the_bits(local_connectivity, generator):
    dist = with_ties(generator, 3000, 14)
    before, results = torch.get_num_threads(), []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        results.append(ops.fuzzy_weights(dist, local_connectivity=local_connectivity))
    torch.set_num_threads(before)
    for result in results:
        assert all(torch.equal(a, b) for a, b in zip(result, results[0], strict=True))


def test_strided_and_expanded_inputs(generator):
    dist = distances(generator, 40, 14)
    expected = ops.fuzzy_weights(dist)
    for same in (dist.T.contiguous().T, torch.stack([dist, dist], dim=2)[:, :, 0]):
        assert all(torch.equal(a, b) for a, b in zip(ops.fuzzy_weights(same), expected, strict=True))
    expanded = ops.fuzzy_weights(dist[:1].expand(5, 14))
    assert all(torch.equal(a, b[:1].expand_as(a)) for a, b in zip(expanded, expected, strict=True))


def test_not_differentiable_and_input_untouched(generator):
    dist = distances(generator, 5, 14).requires_grad_()
    copy = dist.detach().clone()
    assert not any(part.requires_grad for part in ops.fuzzy_weights(dist))
    assert torch.equal(dist.detach(), copy)


@native
def test_opcheck(generator):
    torch.library.opcheck(torch.ops.fastpdr.fuzzy_weights.default, (distances(generator, 9, 14), 1.0))


@pytest.mark.parametrize(
    ("dist", "settings", "error", "message"),
    [
        ([[1.0]], {}, TypeError, r"dist must be a float32 or float64 tensor \[n, k\], got list"),
        (torch.ones(3), {}, ValueError, r"dist must be float32 \(or float64\) \[n, k\], got float32 \[3\]"),
        (torch.ones(3, 4, dtype=torch.int64), {}, ValueError, r"got int64 \[3, 4\]"),
        (torch.ones(3, 4), {"local_connectivity": -1}, ValueError, "local_connectivity must be >= 0, got -1"),
        (torch.ones(3, 4), {"local_connectivity": math.nan}, ValueError, "local_connectivity must be >= 0, got nan"),
    ],
)
def test_bad_arguments_are_named(dist, settings, error, message):
    with pytest.raises(error, match="fuzzy_weights: .*" + message):
        ops.fuzzy_weights(dist, **settings)
