"""Structure measures against scikit-learn and against a plain NumPy co-ranking written here.

The reference sorts every row completely in float64; data are drawn so that no distances tie unless
a test is about ties.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn import manifold

from fastpdr import metrics
from fastpdr.metrics import _ranks

TOLERANCE = 1e-6
MEASURES = [
    metrics.trustworthiness,
    metrics.continuity,
    metrics.neighborhood_preservation,
    metrics.rnx_auc,
]


def make_pair(n, d=20, c=2, dtype=np.float64, seed=0):
    """Data, and a map that keeps part of their structure."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d))
    Z = X[:, :c] + 0.3 * rng.normal(size=(n, c))
    return X.astype(dtype), Z.astype(dtype)


def reference_ranks(A):
    """Rank of every column [n, n] by a full sort per row, equal distances by row number."""
    A = np.asarray(A, np.float64)
    n = len(A)
    ranks = np.empty((n, n), np.int64)
    for i in range(n):
        distance = ((A - A[i]) ** 2).sum(1)
        distance[i] = np.inf
        ranks[i, np.argsort(distance, kind="stable")] = np.arange(1, n + 1)
    return ranks


def reference_rank_score(judge, other, k):
    n = len(judge)
    excess = np.maximum(judge - k, 0)[other <= k].sum()
    return 1 - 2 / (n * k * (2 * n - 3 * k - 1)) * excess


def reference_overlap(x, z, k):
    return ((x <= k) & (z <= k)).sum() / (len(x) * k)


def reference_curve(x, z, k_max):
    n = len(x)
    overlap = np.array([reference_overlap(x, z, k) for k in range(1, k_max + 1)])
    K = np.arange(1, k_max + 1)
    return ((n - 1) * overlap - K) / (n - 1 - K)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("n", "k"),
    [(7, 1), (7, 3), (31, 5), (31, 15), (32, 12), (33, 12), (129, 12), (129, 64), (1000, 12)],
)
@pytest.mark.parametrize("d", [3, 40])
def test_trustworthiness_equals_sklearn(n, k, d, dtype):
    X, Z = make_pair(n, d=d, dtype=dtype)
    expected = manifold.trustworthiness(X, Z, n_neighbors=k)
    assert metrics.trustworthiness(X, Z, n_neighbors=k) == pytest.approx(expected, abs=TOLERANCE)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("n", "k"), [(7, 2), (31, 7), (129, 12), (500, 30)])
def test_continuity_and_preservation_equal_a_full_sort(n, k, dtype):
    X, Z = make_pair(n, dtype=dtype)
    x, z = reference_ranks(X), reference_ranks(Z)
    continuity = metrics.continuity(X, Z, n_neighbors=k)
    assert continuity == pytest.approx(reference_rank_score(z, x, k), abs=TOLERANCE)
    assert continuity == pytest.approx(metrics.trustworthiness(Z, X, n_neighbors=k), abs=TOLERANCE)
    preservation = metrics.neighborhood_preservation(X, Z, n_neighbors=k)
    assert preservation == pytest.approx(reference_overlap(x, z, k), abs=TOLERANCE)


@pytest.mark.parametrize("n", [3, 7, 31, 129, 300])
def test_rnx_equals_a_full_sort(n):
    X, Z = make_pair(n)
    expected = reference_curve(reference_ranks(X), reference_ranks(Z), n - 2)
    curve = metrics.rnx_curve(X, Z)
    assert curve.shape == (n - 2,)
    assert curve.dtype == np.float64
    np.testing.assert_allclose(curve, expected, atol=TOLERANCE)
    weights = 1 / np.arange(1, n - 1)
    auc = (expected * weights).sum() / weights.sum()
    assert metrics.rnx_auc(X, Z) == pytest.approx(auc, abs=TOLERANCE)


def test_a_shorter_curve_is_the_beginning_of_the_full_one():
    X, Z = make_pair(200)
    np.testing.assert_array_equal(metrics.rnx_curve(X, Z, k_max=30), metrics.rnx_curve(X, Z)[:30])


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("d", [2, 30])
def test_an_isometric_map_scores_one(measure, d):
    X, _ = make_pair(150, d=d)
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(d, d)))[0]
    assert measure(X, 5 * X @ rotation - 3) == pytest.approx(1, abs=1e-12)


def test_a_random_map_scores_as_chance():
    rng = np.random.default_rng(0)
    X, Z = rng.normal(size=(1000, 10)), rng.normal(size=(1000, 2))
    assert abs(metrics.rnx_auc(X, Z)) < 0.02
    assert metrics.trustworthiness(X, Z) == pytest.approx(0.5, abs=0.03)
    assert metrics.neighborhood_preservation(X, Z) == pytest.approx(12 / 999, abs=0.005)


def test_a_map_of_one_column():
    X, Z = make_pair(100, c=1)
    expected = manifold.trustworthiness(X, Z, n_neighbors=12)
    assert metrics.trustworthiness(X, Z) == pytest.approx(expected, abs=TOLERANCE)


@pytest.mark.parametrize("measure", MEASURES)
def test_sample_of_all_rows_is_the_full_value(measure):
    X, Z = make_pair(200)
    assert measure(X, Z, sample=200) == measure(X, Z)


@pytest.mark.parametrize("measure", MEASURES)
def test_samples_average_to_the_full_value(measure):
    X, Z = make_pair(600)
    full = measure(X, Z)
    samples = [measure(X, Z, sample=100, random_state=seed) for seed in range(30)]
    assert np.std(samples) > 0
    assert abs(np.mean(samples) - full) < 4 * np.std(samples) / np.sqrt(len(samples))


@pytest.mark.parametrize("measure", MEASURES)
def test_sampling_is_seeded_and_leaves_global_generators_alone(measure):
    X, Z = make_pair(200)
    numpy_before, torch_before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    first = measure(X, Z, sample=20, random_state=3)
    assert first == measure(X, Z, sample=20, random_state=3)
    assert first == measure(X, Z, sample=20, random_state=np.random.default_rng(3))
    assert first != measure(X, Z, sample=20, random_state=4)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_before)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("d", [3, 30])
@pytest.mark.parametrize("change", [lambda A: A + 1e6, lambda A: A * 1e-12, lambda A: A * 1e12])
def test_offset_and_scale_do_not_matter(measure, d, change):
    X, Z = make_pair(300, d=d)
    assert measure(change(X), change(Z)) == pytest.approx(measure(X, Z), abs=TOLERANCE)


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_scale_of_float32_does_not_matter(scale):
    X, Z = make_pair(300, dtype=np.float32)
    scaled = metrics.trustworthiness(X * np.float32(scale), Z * np.float32(scale))
    assert scaled == pytest.approx(metrics.trustworthiness(X, Z), abs=1e-5)


@pytest.mark.parametrize("d", [3, 30])
def test_a_far_outlier_does_not_spoil_the_rest(d):
    X, Z = make_pair(400, d=d, dtype=np.float32)
    X[17] = 1e6
    Z[17] = -1e6
    x, z = reference_ranks(X), reference_ranks(Z)
    trust = metrics.trustworthiness(X, Z)
    assert trust == pytest.approx(reference_rank_score(x, z, 12), abs=1e-5)
    # All rows are about equally far from the outlier: its own order is lost, 1 row in 400.
    np.testing.assert_allclose(metrics.rnx_curve(X, Z), reference_curve(x, z, 398), atol=1e-3)


def test_tight_groups_far_apart_are_resolved_in_float32():
    X, Z = make_pair(300, d=30, dtype=np.float32)
    X[::2] += 1000
    assert _ranks.Points(X).values.dtype == np.float64
    expected = manifold.trustworthiness(X.astype(np.float64), Z, n_neighbors=12)
    assert metrics.trustworthiness(X, Z) == pytest.approx(expected, abs=1e-5)


def test_work_is_float32_where_that_is_enough():
    X, _ = make_pair(300, d=30)
    assert _ranks.Points(X).values.dtype == np.float64
    assert _ranks.Points(X.astype(np.float32)).values.dtype == np.float32
    assert _ranks.Points((X * 10).astype(np.int32)).values.dtype == np.float32


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("dtype", [np.float16, np.int8, np.int64, np.uint8, bool])
def test_other_dtypes(measure, dtype):
    X, Z = make_pair(100)
    X, Z = (np.abs(10 * A).astype(dtype) for A in (X, Z))
    expected = measure(X.astype(np.float64), Z.astype(np.float64))
    tied = 0.05  # Distances that tie in exact arithmetic need not tie after rounding.
    assert measure(X, Z) == pytest.approx(expected, abs=tied)


def test_lists_frames_and_strided_arrays():
    pandas = pytest.importorskip("pandas")
    X, Z = make_pair(60)
    expected = metrics.trustworthiness(X, Z)
    assert metrics.trustworthiness(X.tolist(), Z.tolist()) == expected
    assert metrics.trustworthiness(pandas.DataFrame(X), pandas.DataFrame(Z)) == expected
    wide = np.repeat(X, 2, axis=1)[:, ::2]
    assert metrics.trustworthiness(np.asfortranarray(wide), Z[::-1][::-1]) == expected


@pytest.mark.parametrize("measure", MEASURES)
def test_arguments_are_not_changed(measure):
    X, Z = make_pair(60)
    before = X.copy(), Z.copy()
    X.setflags(write=False)
    Z.setflags(write=False)
    measure(X, Z)
    np.testing.assert_array_equal(X, before[0])
    np.testing.assert_array_equal(Z, before[1])


@pytest.mark.parametrize("d", [3, 30])
def test_duplicates_give_values_in_range(d):
    X, Z = make_pair(40, d=d)
    X, Z = np.repeat(X, 5, axis=0), np.repeat(Z, 5, axis=0)
    for measure in MEASURES[:3]:
        assert 0 <= measure(X, Z) <= 1
    assert np.isfinite(metrics.rnx_curve(X, Z)).all()


@pytest.mark.parametrize("measure", MEASURES)
def test_collapsed_spaces(measure):
    X, _ = make_pair(50)
    assert measure(X * 0, X * 0) == 1
    assert np.isfinite(measure(X, np.zeros((50, 2))))
    assert measure(X, np.zeros((50, 2))) <= 1


def test_ties_rank_by_row_in_both_spaces():
    X = np.random.default_rng(0).integers(0, 3, size=(80, 3)).astype(np.float64)
    Z = X[:, :2]
    x, z = reference_ranks(X), reference_ranks(Z)
    for k in (3, 12):
        trust = metrics.trustworthiness(X, Z, n_neighbors=k)
        assert trust == pytest.approx(reference_rank_score(x, z, k), abs=TOLERANCE)
    np.testing.assert_allclose(metrics.rnx_curve(X, Z), reference_curve(x, z, 78), atol=TOLERANCE)


def test_blocks_stay_within_the_byte_budget():
    for n in (1000, 60_000, 1_000_000):
        assert _ranks.block_rows(n) * n * _ranks.BYTES_PER_ENTRY <= _ranks.BLOCK_BYTES
    # The promise of 2 GB for 60,000 x 784: float32 input, its framed copy, a float64 copy where
    # float32 is not enough, and the blocks.  That leaves 0.7 GB for the libraries.
    assert 60_000 * 784 * (4 + 4 + 8) + _ranks.BLOCK_BYTES < 1.3e9
    assert _ranks.block_rows(10**9) == 1


def test_the_cut_into_blocks_does_not_matter(monkeypatch):
    X, Z = make_pair(101, d=4)
    whole = [measure(X, Z) for measure in MEASURES]
    monkeypatch.setattr(_ranks, "BLOCK_BYTES", 7 * 101 * _ranks.BYTES_PER_ENTRY)
    assert [len(rows) for rows in _ranks.row_blocks(np.arange(101), 101)] == [7] * 14 + [3]
    assert [measure(X, Z) for measure in MEASURES] == whole


def test_four_thousand_rows_exactly():
    X, Z = make_pair(4000, d=50, dtype=np.float32)
    trust = metrics.trustworthiness(X, Z)
    sampled = metrics.trustworthiness(X, Z, sample=1000)
    assert trust == pytest.approx(sampled, abs=0.02)
    curve = metrics.rnx_curve(X, Z, k_max=12)
    others = 3999
    preservation = (curve[11] * (others - 12) + 12) / others
    assert metrics.neighborhood_preservation(X, Z) == pytest.approx(preservation, abs=1e-12)


def test_a_callers_autocast_does_not_reach_the_ranks():
    X, Z = make_pair(300, d=30, dtype=np.float32)
    expected = metrics.trustworthiness(X, Z)
    with torch.autocast("cpu"):
        assert metrics.trustworthiness(X, Z) == expected


X, Z = make_pair(100)
BAD_VALUE = X.copy()
BAD_VALUE[5, 5] = np.nan
INFINITE = Z.copy()
INFINITE[0, 0] = -np.inf


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((X, Z[:99]), "X and Z must have the same number of rows, got 100 and 99"),
        ((X, Z[:, 0]), r"Z must be 2-D \[n, columns\] \(one column is \[n, 1\]\), got shape \[100"),
        ((X[None], Z), r"X must be 2-D \[n, columns\], got shape \[1, 100, 20\]"),
        ((X, None), r"Z must be 2-D \[n, columns\], got shape \[\]"),
        ((X[:0], Z[:0]), r"X must have rows and columns, got shape \[0, 20\]"),
        ((X[:, :0], Z), r"X must have rows and columns, got shape \[100, 0\]"),
        ((BAD_VALUE, Z), "X must be finite .* got values from nan to nan"),
        ((X, INFINITE), "Z must be finite .* got values from -inf to"),
        ((X * 1e305, Z), "X must be finite and within"),
        ((X + 1j, Z), "X must hold real numbers, got dtype complex128"),
        ((X.astype(str), Z), "X must hold real numbers, got dtype <U"),
        ((X.astype(object) + 1j, Z), "X must hold real numbers, got"),
    ],
)
def test_errors_of_the_arrays(measure, arguments, message):
    with pytest.raises(ValueError, match=f"^{measure.__name__}: {message}"):
        measure(*arguments)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("sample", [0, -1, 101, 2.5, "all"])
def test_errors_of_sample(measure, sample):
    expected = f"^{measure.__name__}: sample must be an integer from 1 to n = 100, got {sample!r}"
    with pytest.raises(ValueError, match=expected):
        measure(X, Z, sample=sample)


@pytest.mark.parametrize("measure", MEASURES[:2])
@pytest.mark.parametrize(
    ("n", "k", "message"),
    [
        (100, 60, "must be < n/2 = 50, got 60"),
        (100, 50, "must be < n/2 = 50, got 50"),
        (31, 16, r"must be < n/2 = 15\.5, got 16"),
        (100, 0, "must be an integer >= 1, got 0"),
        (100, 2.0, r"must be an integer >= 1, got 2\.0"),
    ],
)
def test_errors_of_rank_neighbors(measure, n, k, message):
    with pytest.raises(ValueError, match=f"^{measure.__name__}: n_neighbors {message}"):
        measure(X[:n], Z[:n], n_neighbors=k)


def test_errors_of_other_numbers():
    message = "neighborhood_preservation: n_neighbors must be an integer from 1 to n - 1 = 99, got"
    for k in (0, 100, None):
        with pytest.raises(ValueError, match=message):
            metrics.neighborhood_preservation(X, Z, n_neighbors=k)
    for measure in (metrics.rnx_curve, metrics.rnx_auc):
        message = f"^{measure.__name__}: k_max must be an integer from 1 to n - 2 = 98, got 99"
        with pytest.raises(ValueError, match=message):
            measure(X, Z, k_max=99)
        with pytest.raises(ValueError, match="X must have at least 3 rows, got 2"):
            measure(X[:2], Z[:2])
