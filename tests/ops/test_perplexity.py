"""perplexity_search: the kernel against its reference, the reference against scikit-learn and openTSNE."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from conftest import DEVICES, FLOAT64_RMS, SIZES, on, peer

from fastpdr import _native, ops, reference

SCALES = [2.0, 4.0, 8.0, 16.0, 32.0, 64.0]
native = pytest.mark.skipif("cpu" not in _native.KERNELS["perplexity_search"], reason="no compiled kernels")


def squared_distances(generator, n, k, d=10, dtype=torch.float32):
    """Squared distances [n, k] of points of N(0, I) in d dimensions."""
    return 2 * torch.randn(n, k, d, generator=generator, dtype=dtype).square().sum(-1)


def batch_distances(x):
    """Dense squared distances of the rows of x, inf on the diagonal."""
    sqdist = torch.cdist(x.double(), x.double()).square().to(x.dtype)
    return sqdist.fill_diagonal_(torch.inf)


def entropies(sqdist, beta):
    """H of every row and scale in float64 nats, [n, h]."""
    d = sqdist.double()
    d = d - d.amin(1, keepdim=True)
    x = beta.double()[:, :, None] * d[:, None, :]
    x = torch.where(d[:, None, :] == torch.inf, torch.inf, x)
    p = torch.softmax(-x, dim=-1)
    return -torch.special.xlogy(p, p).sum(-1)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("k", SIZES)
@pytest.mark.parametrize("n", [0, 1, 7, 16, 33])
def test_kernel_agrees_with_reference(n, k, device, generator, close):
    sqdist = squared_distances(generator, n, k)
    levels = [level for level in SCALES if level < k] or [1.0]
    p, beta = on(device, ops.perplexity_search)(sqdist, levels)
    expected, _ = reference.perplexity_search(sqdist.double(), levels, tol=1e-11)
    assert p.dtype == beta.dtype == torch.float32
    assert beta.shape == (n, len(levels))
    close(p, expected)


@pytest.mark.parametrize("perplexity", [1.5, 5.0, 30.0, 85.0, 89.9])
def test_entropy_is_within_tolerance(perplexity, generator):
    sqdist = squared_distances(generator, 200, 90)
    _, beta = ops.perplexity_search(sqdist, perplexity)
    error = (entropies(sqdist, beta) - math.log(perplexity)).abs().max()
    assert error <= 1.2e-5  # the tolerance, and the rounding of the float32 beta


def test_tol_is_honoured(generator):
    sqdist = squared_distances(generator, 50, 90)
    for tol, bound in ((1e-1, 1.01e-1), (3e-6, 5e-6)):
        _, beta = ops.perplexity_search(sqdist, 20.0, tol=tol)
        assert (entropies(sqdist, beta) - math.log(20.0)).abs().max() <= bound


def test_reference_agrees_with_scikit_learn(generator, close):
    from sklearn.manifold._utils import _binary_search_perplexity

    sqdist = squared_distances(generator, 100, 90)
    expected = _binary_search_perplexity(sqdist.numpy(), 30.0, 0)
    p, _ = reference.perplexity_search(sqdist.double(), 30.0)
    close(p, torch.from_numpy(np.asarray(expected)), 3e-5)  # both stop at 1e-5 nats


def test_reference_agrees_with_opentsne_multiscale(rng, close):
    affinity = peer("openTSNE.affinity")
    X = rng.normal(size=(300, 5))
    levels = [5.0, 20.0]
    theirs = affinity.Multiscale(X, perplexities=levels, method="exact", symmetrize=False, n_jobs=1)
    ours = torch.zeros(300, 300, dtype=torch.float64)
    distances = batch_distances(torch.from_numpy(X))
    k = 60  # openTSNE takes three neighbours per unit of the largest perplexity
    nearest, columns = distances.topk(k, largest=False)
    p, _ = reference.perplexity_search(nearest, levels)
    ours.scatter_(1, columns, p)
    theirs = torch.from_numpy(theirs.P.toarray())
    close(ours, theirs / theirs.sum(1, keepdim=True), 1e-4)


@pytest.mark.parametrize("d", [784, 5000])
def test_high_dimensional_rows_are_finite(d, generator, close):
    """Rows on which a search without the shift by the minimum gives NaN throughout."""
    sqdist = batch_distances(torch.randn(200, d, generator=generator))
    p, _ = ops.perplexity_search(sqdist, [2.0, 30.0, 100.0])
    assert p.isfinite().all()
    close(p.sum(1), torch.ones(200))
    close(p, reference.perplexity_search(sqdist.double(), [2.0, 30.0, 100.0], tol=1e-11)[0])


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1.0, 1e12, 1e30])
def test_scale_of_distances_does_not_matter(scale, generator, close):
    sqdist = squared_distances(generator, 20, 50)
    p, beta = ops.perplexity_search(sqdist * scale, 10.0)
    expected, expected_beta = ops.perplexity_search(sqdist, 10.0)
    close(p, expected, 3e-5)
    close(beta.double() * scale, expected_beta, 1e-4)


def test_distances_of_all_scales_in_one_row(close):
    sqdist = torch.tensor([[0.0, 1e-30, 1e-20, 1e-10, 1.0, 1e10, 1e20, 1e30]])
    p, _ = ops.perplexity_search(sqdist, 3.0)
    expected, _ = reference.perplexity_search(sqdist.double(), 3.0)
    assert p.isfinite().all()
    close(p, expected, 1e-4)


def test_far_outlier_leaves_the_rest(generator, close):
    sqdist = squared_distances(generator, 8, 40)
    far = torch.cat([sqdist, torch.full((8, 1), 1e30)], dim=1)
    p, _ = ops.perplexity_search(far, 10.0)
    close(p[:, :-1], ops.perplexity_search(sqdist, 10.0)[0], 3e-5)
    assert (p[:, -1] == 0).all()


def test_excluded_entries_get_exactly_zero(generator, close):
    sqdist = squared_distances(generator, 10, 64)
    padded = torch.cat([sqdist, torch.full((10, 7), torch.inf)], dim=1)
    p, beta = ops.perplexity_search(padded, [5.0, 20.0])
    assert (p[:, 64:] == 0).all()
    expected, expected_beta = ops.perplexity_search(sqdist, [5.0, 20.0])
    close(p[:, :64], expected, 1e-6)
    close(beta, expected_beta, 1e-6)


BACKENDS = [pytest.param(ops.perplexity_search, id="ops"), pytest.param(reference.perplexity_search, id="reference")]


@pytest.mark.parametrize("search", BACKENDS)
def test_equal_distances_give_uniform_rows(search, close):
    sqdist = torch.full((3, 10), 4.0)
    for perplexity in (3.0, 10.0, 20.0):
        p, beta = search(sqdist, perplexity)
        close(p, torch.full((3, 10), 0.1))
        assert beta.isfinite().all()


@pytest.mark.parametrize("search", BACKENDS)
def test_unreachable_perplexity_gives_uniform_row_and_beta_zero(search, generator, close):
    sqdist = squared_distances(generator, 4, 12)
    sqdist[:, -2:] = torch.inf
    for perplexity in (10.0, 11.0, 1e6):
        p, beta = search(sqdist, perplexity)
        close(p[:, :10], torch.full((4, 10), 0.1))
        assert (p[:, 10:] == 0).all()
        assert (beta == 0).all()


@pytest.mark.parametrize("search", BACKENDS)
def test_ties_at_the_minimum(search, close):
    """Fewer effective neighbours than tied entries cannot be had: the tied ones share the row."""
    sqdist = torch.tensor([[0.0, 0.0, 0.0, 0.0, 5.0, 9.0]])
    p, beta = search(sqdist, 2.0)
    close(p, torch.tensor([[0.25, 0.25, 0.25, 0.25, 0.0, 0.0]]))
    assert beta.item() == torch.finfo(torch.float32).max
    p, _ = search(sqdist, 4.5)
    assert p[0, 4] > p[0, 5] > 0


@pytest.mark.parametrize("search", BACKENDS)
def test_duplicates_are_neighbours_at_distance_zero(search, close):
    sqdist = torch.tensor([[0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]])
    p, beta = search(sqdist, 4.0)
    assert p.isfinite().all()
    assert beta.isfinite().all()
    assert p[0, 0] == p[0, 1] > p[0, 2]


@pytest.mark.parametrize("search", BACKENDS)
def test_rows_with_one_or_no_finite_entry(search):
    sqdist = torch.tensor([[torch.inf, 3.0, torch.inf], [torch.inf] * 3])
    p, beta = search(sqdist, 2.0)
    assert p.tolist() == [[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    assert beta.tolist() == [[0.0], [0.0]]


@pytest.mark.parametrize("search", BACKENDS)
def test_perplexity_one_is_the_nearest_neighbour(search, generator):
    sqdist = squared_distances(generator, 6, 20)
    p, _ = search(sqdist, 1.0)
    assert torch.equal(p.argmax(1), sqdist.argmin(1))
    assert (p.amax(1) > 0.9999).all()


@pytest.mark.parametrize("search", BACKENDS)
def test_nan_row_is_nan_and_leaves_the_others(search, generator, close):
    sqdist = squared_distances(generator, 20, 40)
    clean, _ = search(sqdist, 8.0)
    sqdist[3, 7], sqdist[11, 0] = torch.nan, -torch.inf
    p, beta = search(sqdist, 8.0)
    bad = torch.zeros(20, dtype=torch.bool).index_fill_(0, torch.tensor([3, 11]), True)
    assert p[bad].isnan().all()
    assert beta[bad].isnan().all()
    close(p[~bad], clean[~bad], 1e-6)


@pytest.mark.parametrize("search", BACKENDS)
def test_several_perplexities_are_averaged_in_any_order(search, generator, close):
    sqdist = squared_distances(generator, 9, 100)
    p, beta = search(sqdist, [30.0, 3.0, 10.0])
    single = [search(sqdist, level) for level in (30.0, 3.0, 10.0)]
    close(p, sum(q for q, _ in single) / 3, 3e-5)
    close(beta, torch.cat([b for _, b in single], dim=1), 1e-3)


@pytest.mark.parametrize("levels", [(30.0, 30.0), (30.0, 29.99999), (30.001, 30.0, 5.0), (5.0, 30.0, 30.0)])
def test_perplexities_that_are_nearly_equal(levels, generator, close):
    sqdist = torch.randn(200, 90, 10, generator=generator).square().sum(2)
    close(ops.perplexity_search(sqdist, levels)[0], reference.perplexity_search(sqdist.double(), levels)[0])


def test_reference_in_float64_is_exact(generator):
    sqdist = squared_distances(generator, 30, 90, dtype=torch.float64)
    _, beta = reference.perplexity_search(sqdist, 30.0, tol=1e-12)
    assert (entropies(sqdist, beta) - math.log(30.0)).abs().max() < FLOAT64_RMS


def test_float64_runs_the_reference(generator):
    sqdist = squared_distances(generator, 5, 40, dtype=torch.float64)
    p, beta = ops.perplexity_search(sqdist, 8.0)
    assert p.dtype == beta.dtype == torch.float64
    assert torch.equal(p, reference.perplexity_search(sqdist, 8.0)[0])


@native
def test_threads_do_not_change_the_bits(generator):
    sqdist = squared_distances(generator, 1000, 90)
    before, results = torch.get_num_threads(), []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        results.append(ops.perplexity_search(sqdist, [5.0, 30.0]))
    torch.set_num_threads(before)
    assert all(torch.equal(p, results[0][0]) and torch.equal(b, results[0][1]) for p, b in results)


def test_strided_and_expanded_inputs(generator, close):
    sqdist = squared_distances(generator, 40, 60)
    strided = sqdist.T.contiguous().T
    sliced = torch.stack([sqdist, sqdist], dim=2)[:, :, 0]
    expected, _ = ops.perplexity_search(sqdist, 7.0)
    close(ops.perplexity_search(strided, 7.0)[0], expected, 1e-6)
    close(ops.perplexity_search(sliced, 7.0)[0], expected, 1e-6)
    close(ops.perplexity_search(sqdist[:1].expand(5, 60), 7.0)[0], expected[:1].expand(5, 60), 1e-6)


def test_not_differentiable_and_input_untouched(generator):
    sqdist = squared_distances(generator, 5, 40).requires_grad_()
    copy = sqdist.detach().clone()
    p, beta = ops.perplexity_search(sqdist, 7.0)
    assert not p.requires_grad
    assert not beta.requires_grad
    assert torch.equal(sqdist.detach(), copy)


@native
def test_opcheck(generator):
    torch.library.opcheck(
        torch.ops.fastpdr.perplexity_search.default, (squared_distances(generator, 9, 31), [2.0, 8.0], 1e-5)
    )


@native
def test_compiles_without_a_graph_break(generator):
    compiled = torch.compile(lambda d: ops.perplexity_search(d, [2.0, 8.0])[0], fullgraph=True)
    sqdist = squared_distances(generator, 40, 60)
    assert torch.equal(compiled(sqdist), ops.perplexity_search(sqdist, [2.0, 8.0])[0])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([[1.0]], 2.0), TypeError, r"sqdist must be a float32 or float64 tensor \[n, k\], got list"),
        ((torch.ones(3), 2.0), ValueError, r"sqdist must be float32 \(or float64\) \[n, k\], got float32 \[3\]"),
        ((torch.ones(3, 4, dtype=torch.int64), 2.0), ValueError, r"got int64 \[3, 4\]"),
        ((torch.ones(3, 4, dtype=torch.float16), 2.0), ValueError, r"got float16 \[3, 4\]"),
        ((torch.ones(3, 4), 0.5), ValueError, "perplexities must be >= 1, got 0.5"),
        ((torch.ones(3, 4), float("nan")), ValueError, "perplexities must be >= 1, got nan"),
        ((torch.ones(3, 4), []), ValueError, "perplexities must name at least one"),
        ((torch.ones(3, 4), "a"), ValueError, "perplexities must be >= 1, got 'a'"),
    ],
)
def test_bad_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        ops.perplexity_search(*arguments)


def test_bad_tol_is_named():
    with pytest.raises(ValueError, match="perplexity_search: tol must be > 0, got 0"):
        ops.perplexity_search(torch.ones(2, 3), 2.0, tol=0)
