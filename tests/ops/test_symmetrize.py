"""symmetrize: the kernel against its reference, both against scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from conftest import FLOAT64_RMS, SIZES, no_gpu, on, peer

from fastpdr import _native, ops, reference

native = pytest.mark.skipif("cpu" not in _native.KERNELS["symmetrize"], reason="no compiled kernels")
BACKENDS = [
    pytest.param(ops.symmetrize, id="ops"),
    pytest.param(on("cuda", ops.symmetrize), id="cuda", marks=no_gpu),
    pytest.param(reference.symmetrize, id="reference"),
]
FACTORS = [(1.0, 0.0), (0.5, 0.0), (1.0, -1.0), (0.25, 0.5), (0.0, 1.0)]  # sum, product


def neighbors(rng, n, k, dtype=np.float32):
    """Distinct other rows [n, k] and weights; row 0 is everybody's neighbour, some have none."""
    indices = np.empty((n, k), np.int64)
    for i in range(n):
        others = rng.permutation(n - 1)[:k]
        indices[i] = others + (others >= i)
        if k and i and 0 not in indices[i]:
            indices[i, rng.integers(k)] = 0
    values = rng.uniform(0.01, 1.0, (n, k)).astype(dtype)
    missing = rng.random((n, k)) < 0.05
    indices[missing & (rng.random((n, k)) < 0.5)] = -1
    values[missing & (indices >= 0)] = 0.0
    return torch.from_numpy(indices), torch.from_numpy(values)


def scipy_matrix(indices, values, sum_factor, product_factor):
    from scipy.sparse import csr_matrix

    n, k = indices.shape
    indices, values = indices.numpy(), values.double().numpy()
    rows, real = np.repeat(np.arange(n)[:, None], k, axis=1), indices >= 0
    A = csr_matrix((values[real], (rows[real], indices[real])), (n, n))
    result = sum_factor * (A + A.T) + product_factor * A.multiply(A.T)
    result = csr_matrix(result)
    result.eliminate_zeros()
    result.sort_indices()
    return result


def equal(a, b):
    return (
        torch.equal(a.crow_indices(), b.crow_indices())
        and torch.equal(a.col_indices(), b.col_indices())
        and torch.equal(a.values(), b.values())
    )


@pytest.mark.parametrize("symmetrize", BACKENDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("sum_factor", "product_factor"), FACTORS)
@pytest.mark.parametrize(("n", "k"), [(n, k) for n in SIZES for k in (0, 1, 7, 16, 129) if k < n or k == 0])
def test_agrees_with_scipy(n, k, sum_factor, product_factor, dtype, symmetrize, rng, close):
    indices, values = neighbors(rng, n, k, dtype)
    result = symmetrize(indices, values, sum_factor=sum_factor, product_factor=product_factor)
    assert result.layout is torch.sparse_csr
    assert result.shape == (n, n)
    assert result.dtype == values.dtype
    assert result.crow_indices().dtype == result.col_indices().dtype == torch.int32
    if n == 0:
        return
    expected = scipy_matrix(indices, values, sum_factor, product_factor)
    assert np.array_equal(result.crow_indices(), expected.indptr)
    assert np.array_equal(result.col_indices(), expected.indices)
    close(result.values(), expected.data, 1e-7 if dtype is np.float32 else FLOAT64_RMS)


@pytest.mark.parametrize("symmetrize", BACKENDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("sum_factor", "product_factor"), FACTORS)
def test_is_symmetric_to_the_last_bit(sum_factor, product_factor, dtype, symmetrize, rng):
    result = symmetrize(*neighbors(rng, 400, 14, dtype), sum_factor=sum_factor, product_factor=product_factor)
    dense = result.to_dense()
    assert torch.equal(dense, dense.T)
    assert (result.values() != 0).all()


@pytest.mark.parametrize("symmetrize", BACKENDS)
def test_fuzzy_union_is_umaps(symmetrize, rng, close):
    peer("umap")
    umap_ = peer("umap.umap_")
    X = rng.normal(size=(300, 5)).astype(np.float32)
    x = torch.from_numpy(X).double()
    distances, indices = torch.cdist(x, x).fill_diagonal_(0.0).sort(1)
    distances, indices = distances[:, :15].float(), indices[:, :15]
    weights, _, _ = ops.fuzzy_weights(distances[:, 1:])
    for ratio in (1.0, 0.4):
        theirs = umap_.fuzzy_simplicial_set(
            X, 15, np.random.RandomState(0), "euclidean",
            knn_indices=indices.numpy(), knn_dists=distances.numpy(), set_op_mix_ratio=ratio,
        )[0]  # fmt: skip
        ours = symmetrize(indices[:, 1:], weights, sum_factor=ratio, product_factor=1 - 2 * ratio)
        close(ours.to_dense(), torch.from_numpy(theirs.toarray()), 1e-4)


@pytest.mark.parametrize("symmetrize", BACKENDS)
def test_entries_that_cancel_are_left_out(symmetrize):
    indices, values = torch.tensor([[1], [0], [0]]), torch.tensor([[2.0], [2.0], [3.0]])
    result = symmetrize(indices, values, sum_factor=1.0, product_factor=-1.0)  # 2 + 2 - 2 * 2
    assert result.crow_indices().tolist() == [0, 1, 1, 2]
    assert result.col_indices().tolist() == [2, 0]
    assert result.values().tolist() == [3.0, 3.0]


@pytest.mark.parametrize("symmetrize", BACKENDS)
def test_what_is_no_neighbour_is_not_looked_at(symmetrize):
    """Rows that are filled up with themselves or with repetitions, at value 0."""
    indices = torch.tensor([[0, 1, 1], [-1, -1, 2], [2, 2, -1]])
    values = torch.tensor([[0.0, 0.5, 0.0], [9.0, 9.0, 0.25], [0.0, 0.0, 9.0]])
    result = symmetrize(indices, values)
    assert torch.equal(result.to_dense(), torch.tensor([[0.0, 0.5, 0.0], [0.5, 0.0, 0.25], [0.0, 0.25, 0.0]]))


@native
def test_kernel_agrees_with_reference_on_many_rows(rng):
    """More rows than one piece of work has, in the transposition too."""
    n, k = 20_000, 6
    indices = (torch.arange(n)[:, None] + torch.from_numpy(rng.integers(1, 3000, (n, k)).cumsum(1))) % n
    values = torch.from_numpy(rng.random((n, k)))
    ours, exact = ops.symmetrize(indices, values), reference.symmetrize(indices, values)
    assert equal(ours, exact)  # a sum of two has one rounding


@native
def test_threads_do_not_change_the_bits(rng):
    n, k = 20_000, 6
    indices = (torch.arange(n)[:, None] + torch.from_numpy(rng.integers(1, 3000, (n, k)).cumsum(1))) % n
    values = torch.from_numpy(rng.random((n, k)).astype(np.float32))
    before, results = torch.get_num_threads(), []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        results.append(ops.symmetrize(indices, values, sum_factor=1.0, product_factor=-1.0))
    torch.set_num_threads(before)
    assert all(equal(result, results[0]) for result in results)


@pytest.mark.parametrize("symmetrize", BACKENDS)
def test_strided_and_expanded_inputs(symmetrize, rng):
    indices, values = neighbors(rng, 60, 9)
    expected = symmetrize(indices, values)
    assert equal(symmetrize(indices.T.contiguous().T, torch.stack([values, values], dim=2)[:, :, 0]), expected)
    ones = symmetrize(indices, torch.ones(1, 1).expand(60, 9), product_factor=-1.0)
    assert (ones.values() == 1).all()


def test_not_differentiable_and_inputs_untouched(rng):
    indices, values = neighbors(rng, 60, 9)
    copies = indices.clone(), values.clone()
    assert not ops.symmetrize(indices, values.requires_grad_()).requires_grad
    assert torch.equal(indices, copies[0])
    assert torch.equal(values.detach(), copies[1])


INDICES, VALUES = torch.tensor([[1, 2], [0, 2], [0, 1]]), torch.ones(3, 2)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"indices": [[1]]}, TypeError, r"indices must be an int64 tensor \[n, k\], got list"),
        ({"indices": INDICES.int()}, ValueError, r"indices must be int64 \[n, k\], got int32 \[3, 2\]"),
        ({"indices": INDICES[0]}, ValueError, r"indices must be int64 \[n, k\], got int64 \[2\]"),
        (
            {"values": VALUES.half()},
            ValueError,
            r"values must be float32 \(or float64\) \[n, k\], got float16 \[3, 2\]",
        ),
        ({"values": VALUES[:, :1]}, ValueError, r"values must be \[3, 2\] on cpu like indices, got float32 \[3, 1\]"),
        ({"values": VALUES.to("meta")}, ValueError, r"values must be \[3, 2\] on cpu like indices, got .* on meta"),
        ({"indices": torch.tensor([[1, 2], [0, 3], [0, 1]])}, ValueError, r"indices must lie in \[-1, n\)"),
        ({"indices": torch.tensor([[1, 2], [0, -2], [0, 1]])}, ValueError, r"indices must lie in \[-1, n\)"),
        ({"indices": torch.tensor([[1, 2], [0, 1], [0, 1]])}, ValueError, "indices must not name the row itself"),
        ({"indices": torch.tensor([[1, 2], [0, 2], [1, 1]])}, ValueError, "indices must be distinct within a row"),
        ({"sum_factor": math.nan}, ValueError, "sum_factor must be > -inf, got nan"),
        ({"product_factor": "a"}, ValueError, "product_factor must be > -inf, got 'a'"),
    ],
)
@pytest.mark.parametrize("backend", ["ops", "reference"])
def test_bad_arguments_are_named(changed, error, message, backend, monkeypatch):
    if backend == "reference":
        monkeypatch.setattr(_native, "has_kernel", lambda *arguments, **settings: False)
    arguments = {"indices": INDICES, "values": VALUES, **changed}
    with pytest.raises(error, match="^symmetrize: " + message):
        ops.symmetrize(**arguments)
