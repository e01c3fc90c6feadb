"""subgraph: the kernel against its reference and scipy."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import SIZES, no_gpu, on

from fastpdr import _native, ops, reference

native = pytest.mark.skipif("cpu" not in _native.KERNELS["subgraph"], reason="no compiled kernels")
BACKENDS = [
    pytest.param(ops.subgraph, id="ops"),
    pytest.param(on("cuda", ops.subgraph), id="cuda", marks=no_gpu),
    pytest.param(reference.subgraph, id="reference"),
]


def random_matrix(rng, n, k, dtype=np.float32):
    """A scipy csr [n, n] of about k entries a row, columns not sorted; one row is empty, one is full."""
    from scipy.sparse import csr_matrix

    rows, columns = rng.integers(0, n, n * k), rng.integers(0, n, n * k)
    full = n // 2
    keep = (rows != 0) & (rows != full)
    rows, columns = np.append(rows[keep], np.full(n, full)), np.append(columns[keep], np.arange(n))
    _, first = np.unique(rows * n + columns, return_index=True)
    rows, columns = rows[first], columns[first]
    order = np.lexsort((rng.random(len(rows)), rows))
    indptr = np.append(0, np.bincount(rows, minlength=n).cumsum())
    return csr_matrix((rng.random(len(rows)).astype(dtype), columns[order], indptr), (n, n))


def parts(matrix):
    return (
        torch.from_numpy(matrix.indptr).long(),
        torch.from_numpy(matrix.indices).long(),
        torch.from_numpy(matrix.data),
    )


def require_equal(actual, expected):
    """The bits of a sparse_csr tensor against a scipy matrix or another tensor."""
    if isinstance(expected, torch.Tensor):
        expected_parts = expected.crow_indices(), expected.col_indices(), expected.values()
    else:
        expected.sort_indices()
        expected_parts = parts(expected)
    actual_parts = actual.crow_indices(), actual.col_indices(), actual.values()
    assert actual.layout is torch.sparse_csr
    assert actual.shape == expected.shape
    for a, e in zip(actual_parts, expected_parts, strict=True):
        assert a.dtype == e.dtype
        assert torch.equal(a, e)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("subgraph", BACKENDS)
@pytest.mark.parametrize("b", SIZES)
def test_agrees_with_scipy(b, subgraph, dtype, rng):
    for n in (max(b, 2), 3000):
        matrix = random_matrix(rng, n, 20, dtype)
        rows = rng.permutation(n)[:b]
        result = subgraph(*parts(matrix), torch.from_numpy(rows))
        require_equal(result, matrix[rows][:, rows])
        torch.sparse_csr_tensor(
            result.crow_indices(), result.col_indices(), result.values(), (b, b), check_invariants=True
        )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("subgraph", BACKENDS)
def test_indices_of_32_bits_give_the_same(subgraph, dtype, rng):
    indptr, indices, values = parts(random_matrix(rng, 3000, 20, dtype))
    rows = torch.from_numpy(rng.permutation(3000)[:700])
    expected = subgraph(indptr, indices, values, rows)
    assert expected.col_indices().dtype == torch.int64
    require_equal(subgraph(indptr.int(), indices.int(), values, rows), expected)
    padded = subgraph(indptr.int(), indices.int(), values, rows, points=torch.tensor(700), capacity=expected._nnz())
    require_equal(padded, expected)


def test_all_rows_in_order_give_the_sorted_matrix(rng):
    matrix = random_matrix(rng, 5000, 12)
    require_equal(ops.subgraph(*parts(matrix), torch.arange(5000)), matrix)


@pytest.mark.parametrize("subgraph", BACKENDS)
def test_repeated_columns_are_kept_in_their_order(subgraph):
    indptr, indices = torch.tensor([0, 4, 4, 4]), torch.tensor([2, 0, 2, 0])
    result = subgraph(indptr, indices, torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([2, 0]))
    assert result.crow_indices().tolist() == [0, 0, 4]
    assert result.col_indices().tolist() == [0, 0, 1, 1]
    assert result.values().tolist() == [1.0, 3.0, 2.0, 4.0]


@pytest.mark.parametrize("step", [1, 64, 1000, 4096])
def test_rows_of_any_pattern_are_found(step):
    """Rows that a poor hash would heap together."""
    b = 500
    rows = torch.arange(b) * step
    indptr = torch.zeros(b * step + 1, dtype=torch.int64)
    indptr[rows + 1] = 1  # one entry in each of these rows, none elsewhere
    result = ops.subgraph(indptr.cumsum(0), rows.flip(0), torch.arange(b).float(), rows)
    assert torch.equal(result.col_indices(), torch.arange(b).flip(0))


@native
def test_threads_do_not_change_the_bits(rng):
    matrix = random_matrix(rng, 20_000, 30)
    rows = torch.from_numpy(rng.permutation(20_000)[:6001])
    before, results = torch.get_num_threads(), []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        results.append(ops.subgraph(*parts(matrix), rows))
    torch.set_num_threads(before)
    for result in results:
        require_equal(result, results[0])


@pytest.mark.parametrize("subgraph", BACKENDS)
def test_strided_and_expanded_inputs(subgraph, rng):
    matrix = random_matrix(rng, 300, 10)
    indptr, indices, values = parts(matrix)
    rows = torch.from_numpy(rng.permutation(300)[:50])
    strided = [torch.stack([part, part], dim=1)[:, 0] for part in (indptr, indices, values, rows)]
    require_equal(subgraph(*strided), subgraph(indptr, indices, values, rows))
    ones = subgraph(indptr, indices, torch.ones(1).expand(len(indices)), rows)
    assert (ones.values() == 1).all()


def test_not_differentiable_and_inputs_untouched(rng):
    indptr, indices, values = parts(random_matrix(rng, 100, 10))
    rows = torch.arange(40).flip(0)
    copies = [part.clone() for part in (indptr, indices, values, rows)]
    result = ops.subgraph(indptr, indices, values.requires_grad_(), rows)
    assert not result.requires_grad
    assert all(torch.equal(a.detach(), b) for a, b in zip((indptr, indices, values, rows), copies, strict=True))


@native
def test_result_owns_no_more_than_it_holds(rng):
    result = ops.subgraph(*parts(random_matrix(rng, 3000, 20)), torch.arange(64))
    assert result.values().untyped_storage().nbytes() == 4 * result.values().numel()


def test_no_warning_about_sparse_csr():
    program = (
        "import warnings; warnings.simplefilter('error'); import torch, fastpdr; i = torch.tensor; "
        "[fastpdr.ops.subgraph(i([0, 1, 1]), i([1]), i([1.0]), i([0, 1])) for _ in range(2)]; print('quiet')"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=os.environ)
    assert result.stdout.strip() == "quiet", result.stderr


INDPTR, INDICES, VALUES, ROWS = torch.tensor([0, 2, 3]), torch.tensor([0, 1, 0]), torch.ones(3), torch.tensor([1, 0])


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"indptr": [0, 2, 3]}, TypeError, r"indptr must be an int64 or int32 tensor \[n \+ 1\], got list"),
        ({"indptr": INDPTR.short()}, ValueError, r"indptr must be int64 or int32 \[n \+ 1\], got int16 \[3\]"),
        ({"indptr": INDPTR.int()}, ValueError, r"indices must be int32 \[nnz\], got int64 \[3\]"),
        ({"indptr": INDPTR[:0]}, ValueError, r"indptr must be \[n \+ 1\], got int64 \[0\]"),
        ({"indices": INDICES.double()}, ValueError, r"indices must be int64 \[nnz\], got float64 \[3\]"),
        ({"values": VALUES.half()}, ValueError, r"values must be float32 \(or float64\) \[nnz\], got float16 \[3\]"),
        ({"values": VALUES[:2]}, ValueError, r"values must be \[3\] like indices, got float32 \[2\]"),
        ({"rows": ROWS[None]}, ValueError, r"rows must be int64 \[b\], got int64 \[1, 2\]"),
        ({"rows": ROWS.to("meta")}, ValueError, r"rows must be on cpu like values, got int64 \[2\] on meta"),
        ({"rows": torch.tensor([0, 2])}, ValueError, r"rows must lie in \[0, n\)"),
        ({"rows": torch.tensor([-1, 0])}, ValueError, r"rows must lie in \[0, n\)"),
        ({"rows": torch.tensor([1, 0, 1])}, ValueError, "rows must be distinct"),
        ({"indices": torch.tensor([0, 2, 0])}, ValueError, r"indices must lie in \[0, n\)"),
        ({"indices": torch.tensor([0, -1, 0])}, ValueError, r"indices must lie in \[0, n\)"),
        ({"indptr": torch.tensor([0, 2, 4])}, ValueError, "indptr must rise from 0 to the number of entries"),
        ({"indptr": torch.tensor([-1, 2, 3])}, ValueError, "indptr must rise from 0 to the number of entries"),
        ({"indptr": torch.tensor([0, 2, 1])}, ValueError, "indptr must rise from 0 to the number of entries"),
    ],
)
@pytest.mark.parametrize("backend", ["ops", "reference"])
def test_bad_arguments_are_named(changed, error, message, backend, monkeypatch):
    if backend == "reference":
        monkeypatch.setattr(_native, "has_kernel", lambda *arguments, **settings: False)
    arguments = {"indptr": INDPTR, "indices": INDICES, "values": VALUES, "rows": ROWS, **changed}
    with pytest.raises(error, match="^subgraph: " + message):
        ops.subgraph(**arguments)


@native
def test_the_operator_itself_refuses_repeated_rows():
    with pytest.raises(RuntimeError, match="subgraph: rows must be distinct"):
        torch.ops.fastpdr.subgraph(INDPTR, INDICES, VALUES, torch.tensor([1, 1]))
