"""coranking: kernel and reference against ranks counted one by one."""

from __future__ import annotations

import pytest
import torch
from conftest import DEVICES

from fastpdr import _native, ops, reference

native = pytest.mark.skipif("cpu" not in _native.KERNELS["coranking"], reason="no compiled kernels")
BACKENDS = [pytest.param(module.coranking, id=name) for name, module in (("ops", ops), ("reference", reference))]


def distances(generator, b, n, levels=None):
    """Of b anchors, the first of n rows, to all: inf to themselves; of a few levels where many shall be equal."""
    sqdist = torch.rand(b, n, generator=generator) * 10.0 ** torch.randint(-30, 30, (b, 1), generator=generator)
    if levels is not None:
        sqdist = torch.randint(levels, (b, n), generator=generator).float()
    anchors = torch.arange(min(b, n))
    sqdist[anchors, anchors] = torch.inf
    return sqdist


def ranks_one_by_one(sqdist):
    """1 + how many columns are nearer, or as near and of a lower number."""
    columns = torch.arange(sqdist.shape[1])
    nearer = sqdist[:, None, :] < sqdist[:, :, None]
    tied = (sqdist[:, None, :] == sqdist[:, :, None]) & (columns[None, :] < columns[:, None])
    return (nearer | tied).sum(2) + 1


def counted_one_by_one(x, z, k):
    of_x, of_z = ranks_one_by_one(x), ranks_one_by_one(z)
    worse = torch.maximum(of_x, of_z)
    counts = torch.stack([(worse == K).sum() for K in range(1, x.shape[1] + 1)]) if x.shape[1] else torch.zeros(0)
    return counts, (of_x[of_z <= k] - k).clamp_min(0).sum(), (of_z[of_x <= k] - k).clamp_min(0).sum()


def require_same(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == torch.int64
        assert ours.shape == theirs.shape
        assert torch.equal(ours.cpu(), theirs.long())


@pytest.mark.parametrize("function", BACKENDS)
@pytest.mark.parametrize("levels", [None, 1, 4])
@pytest.mark.parametrize(("b", "n", "k"), [(1, 1, 0), (1, 2, 1), (7, 7, 2), (5, 33, 10), (40, 130, 15), (3, 300, 400)])
def test_sums_are_those_of_ranks_counted_one_by_one(function, b, n, k, levels, generator):
    x, z = distances(generator, b, n, levels), distances(generator, b, n)
    require_same(function(x, z, k), counted_one_by_one(x, z, k))
    require_same(function(z, x, k), counted_one_by_one(z, x, k))


@pytest.mark.parametrize("device", DEVICES)
def test_many_rows_like_the_reference(device, generator):
    x, z = distances(generator, 50, 5000), distances(generator, 50, 5000, levels=50)
    found = ops.coranking(x.to(device), z.to(device), 20)
    require_same(found, reference.coranking(x, z, 20))
    require_same(found, reference.coranking(x.double(), z.double(), 20))
    assert int(found[0].sum()) == 50 * 5000


@pytest.mark.parametrize("function", BACKENDS)
@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0)])
def test_nothing_gives_zeros(function, shape):
    counts, intruding, torn = function(torch.zeros(shape), torch.zeros(shape), 3)
    assert counts.tolist() == [0] * shape[1]
    assert (int(intruding), int(torn)) == (0, 0)


@pytest.mark.parametrize("function", BACKENDS)
def test_zeros_of_either_sign_the_smallest_and_the_largest_numbers_are_in_order(function):
    x = torch.tensor([[torch.inf, 3.4e38, 0.0, 1e-45, -0.0, 1e-38]])
    z = torch.tensor([[torch.inf, 5.0, 1.0, 3.0, 2.0, 4.0]])
    assert function(x, z, 2)[0].tolist() == [1] * 6


@pytest.mark.parametrize("function", BACKENDS)
def test_identical_spaces_agree_at_every_number(function, generator):
    x = distances(generator, 20, 50)
    counts, intruding, torn = function(x, x, 5)
    assert counts.tolist() == [20] * 50
    assert (int(intruding), int(torn)) == (0, 0)


def test_strides_and_expansion_do_not_matter(generator):
    x, z = distances(generator, 30, 40), distances(generator, 30, 40)
    require_same(ops.coranking(x.T.contiguous().T, z, 4), reference.coranking(x, z, 4))
    require_same(ops.coranking(x[:1].expand(9, -1), z[:9], 4), reference.coranking(x[:1].repeat(9, 1), z[:9], 4))


@native
def test_threads_do_not_matter(generator):
    x, z = distances(generator, 64, 1000), distances(generator, 64, 1000, levels=9)
    before, results = torch.get_num_threads(), []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        results.append(ops.coranking(x, z, 10))
    torch.set_num_threads(before)
    for result in results:
        require_same(result, results[0])


@native
@pytest.mark.parametrize("b", [0, 1, 9])
def test_opcheck(b, generator):
    x = distances(generator, b, 20)
    torch.library.opcheck(torch.ops.fastpdr.coranking.default, (x, x.T.contiguous().T, 3))


@native
def test_direct_calls_are_checked():
    op, good = torch.ops.fastpdr.coranking, torch.zeros(2, 3)
    for x, z in ((good, good[:1]), (good, good[:, :2]), (good, good.double()), (good[0], good)):
        with pytest.raises(RuntimeError, match="coranking: sqdist_"):
            op(x, z, 1)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([[1.0]], torch.zeros(1, 1), 1), TypeError, "sqdist_x must be a float32 or float64 tensor"),
        ((torch.zeros(2), torch.zeros(2), 1), ValueError, r"sqdist_x must be float32 .* \[b, n\], got float32 \[2\]"),
        ((torch.zeros(2, 3), torch.zeros(2, 3).int(), 1), ValueError, "sqdist_z must be float32"),
        ((torch.zeros(2, 3), torch.zeros(3, 2), 1), ValueError, r"must be float32 \[2, 3\] .* got float32 \[3, 2\]"),
        ((torch.zeros(2, 3), torch.zeros(2, 3).double(), 1), ValueError, "like sqdist_x, got float64"),
        ((torch.zeros(2, 3), torch.zeros(2, 3), 1.5), TypeError, "k must be an integer"),
        ((torch.zeros(2, 3), torch.zeros(2, 3), -1), ValueError, "k must be an integer in"),
    ],
)
def test_bad_input_is_named(arguments, error, message):
    with pytest.raises(error, match="coranking: .*" + message.replace("coranking: ", "")):
        ops.coranking(*arguments)
