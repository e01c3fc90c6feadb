"""Label measures against scikit-learn and against loops written here."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from sklearn.metrics import silhouette_score
from sklearn.neighbors import KNeighborsClassifier

from fastpdr import metrics

NAMES = np.array(["ant", "bee", "cat", "dog"])


def make_map(n, seed=0, classes=4):
    """A map of overlapping classes."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, size=n)
    return y[:, None] * [1.0, -0.5] + rng.normal(size=(n, 2)), y


def reference_neighbors(Z, i, k):
    distance = ((Z - Z[i]) ** 2).sum(1)
    distance[i] = np.inf
    return np.argsort(distance)[:k]


@pytest.mark.parametrize(("n", "k"), [(7, 6), (31, 1), (129, 7), (500, 20)])
@pytest.mark.parametrize("c", [1, 2, 20])
def test_hit_and_leave_one_out_equal_a_loop(n, k, c):
    Z, y = make_map(n)
    Z = np.random.default_rng(5).normal(size=(n, c)) + Z[:, :1]
    found = [y[reference_neighbors(Z, i, k)] for i in range(n)]
    hit = np.mean([np.mean(labels == own) for labels, own in zip(found, y, strict=True)])
    assert metrics.neighborhood_hit(Z, y, n_neighbors=k) == pytest.approx(hit, abs=1e-12)
    votes = [max(Counter(labels.tolist()).items(), key=lambda item: (item[1], -item[0]))[0] for labels in found]
    accuracy = np.mean(np.array(votes) == y)
    assert metrics.knn_accuracy(Z, y, n_neighbors=k) == pytest.approx(accuracy, abs=1e-12)


@pytest.mark.parametrize("k", [1, 2, 6])
def test_leave_one_out_equals_refitted_sklearn(k):
    Z, y = make_map(60)
    right = [
        KNeighborsClassifier(k).fit(np.delete(Z, i, 0), np.delete(y, i)).predict(Z[i : i + 1])[0] == y[i]
        for i in range(60)
    ]
    assert metrics.knn_accuracy(Z, y, n_neighbors=k) == pytest.approx(np.mean(right), abs=1e-12)


@pytest.mark.parametrize("k", [1, 4, 7, 300])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_test_accuracy_equals_sklearn(k, dtype):
    Z, y = make_map(300)
    Z_test, y_test = make_map(200, seed=1)
    Z, Z_test = Z.astype(dtype), Z_test.astype(dtype)
    expected = KNeighborsClassifier(k).fit(Z, y).score(Z_test, y_test)
    assert metrics.knn_accuracy(Z, y, Z_test, y_test, n_neighbors=k) == expected
    assert metrics.knn_accuracy(Z, NAMES[y], Z_test, NAMES[y_test], n_neighbors=k) == expected


def test_a_class_unknown_to_the_training_rows_is_missed():
    Z, y = make_map(50, classes=2)
    assert metrics.knn_accuracy(Z, y, Z, y + 2) == 0


@pytest.mark.parametrize("n", [7, 129, 1000])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_silhouette_equals_sklearn(n, dtype):
    Z, y = make_map(n, classes=3)
    expected = silhouette_score(Z, y)
    assert metrics.silhouette(Z.astype(dtype), y) == pytest.approx(expected, abs=1e-6)
    assert metrics.silhouette(Z, NAMES[y]) == pytest.approx(expected, abs=1e-12)


def test_labels_of_any_kind():
    pandas = pytest.importorskip("pandas")
    Z, y = make_map(80)
    kinds = [
        y.astype(np.uint8),
        y.astype(float) / 3,
        NAMES[y],
        NAMES[y].astype(object),
        NAMES[y].tolist(),
        tuple(y.tolist()),
        y[:, None],
        pandas.Series(NAMES[y]),
        pandas.Series(NAMES[y], dtype="category"),
        pandas.DataFrame({"y": y}),
    ]
    for measure in (metrics.neighborhood_hit, metrics.knn_accuracy, metrics.silhouette):
        expected = measure(Z, y)
        for labels in kinds:
            assert measure(Z, labels) == expected


def test_pure_and_mixed_neighbourhoods():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], 50)
    apart = rng.normal(size=(100, 2)) + 1000 * y[:, None]
    assert metrics.neighborhood_hit(apart, y) == 1
    assert metrics.knn_accuracy(apart, y) == 1
    assert metrics.silhouette(apart, y) > 0.99
    mixed = rng.normal(size=(2000, 2)), rng.integers(0, 4, size=2000)
    assert metrics.neighborhood_hit(*mixed) == pytest.approx(0.25, abs=0.03)
    assert abs(metrics.silhouette(*mixed)) < 0.05


def test_duplicates_never_count_a_point_as_its_own_neighbour():
    Z = np.zeros((50, 2))
    y = np.arange(50)
    assert metrics.neighborhood_hit(Z, y) == 0
    assert metrics.knn_accuracy(Z, y) == 0
    Z, y = make_map(40)
    Z, y = np.repeat(Z, 10, axis=0), np.repeat(y, 10)
    assert metrics.neighborhood_hit(Z, y, n_neighbors=7) == 1
    assert metrics.knn_accuracy(Z, y, n_neighbors=9) == 1


def test_equal_votes_go_to_the_smallest_class():
    Z = np.array([[0.0], [1.0], [-1.1]])
    assert metrics.knn_accuracy(Z, [0, 2, 0], n_neighbors=2) == pytest.approx(2 / 3)
    assert metrics.knn_accuracy(Z, [2, 2, 0], n_neighbors=2) == pytest.approx(0)


@pytest.mark.parametrize("measure", [metrics.neighborhood_hit, metrics.silhouette])
@pytest.mark.parametrize("change", [lambda A: A + 1e6, lambda A: A * 1e-12, lambda A: A * 1e12])
def test_offset_and_scale_do_not_matter(measure, change):
    Z, y = make_map(300)
    assert measure(change(Z), y) == pytest.approx(measure(Z, y), abs=1e-6)


@pytest.mark.parametrize("measure", [metrics.neighborhood_hit, metrics.silhouette])
def test_sampling(measure):
    Z, y = make_map(1500)
    full = measure(Z, y)
    assert measure(Z, y, sample=1500) == pytest.approx(full, abs=1e-12)
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    values = [measure(Z, y, sample=300, random_state=seed) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002
    assert values[0] == values[1] != values[2]
    np.testing.assert_allclose(values, full, atol=0.06)


Z, y = make_map(100)
NAN = Z.copy()
NAN[1, 1] = np.nan
GAP = NAMES[y].astype(object)
GAP[[3, 4]] = None


@pytest.mark.parametrize("measure", [metrics.neighborhood_hit, metrics.knn_accuracy, metrics.silhouette])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((Z[:, 0], y), r"Z must be 2-D \[n, columns\] \(one column is \[n, 1\]\), got shape"),
        ((NAN, y), "Z must be finite"),
        ((Z, y[:99]), "y must have one label for each of the 100 rows of Z, got 99"),
        ((Z, None), r"y must be labels \[n\], got None"),
        ((Z, Z), r"y must be labels \[n\], got shape \[100, 2\]"),
        ((Z, GAP), "y must have a label in every row, got 2 missing"),
        ((Z, np.where(y == 0, np.nan, y)), "y must have a label in every row"),
        ((Z, [float("nan"), *NAMES[y][1:]]), "y must have a label in every row, got 1 missing"),
        ((Z, np.array([1, "a"] * 50, dtype=object)), "y must hold labels of one kind"),
    ],
)
def test_errors_of_the_arrays(measure, arguments, message):
    with pytest.raises(ValueError, match=f"^{measure.__name__}: {message}"):
        measure(*arguments)


def test_missing_pandas_labels():
    pandas = pytest.importorskip("pandas")
    labels = pandas.Series(NAMES[y], dtype="string")
    labels[7] = pandas.NA
    with pytest.raises(ValueError, match="y must have a label in every row, got 1 missing"):
        metrics.neighborhood_hit(Z, labels)


@pytest.mark.parametrize("measure", [metrics.neighborhood_hit, metrics.knn_accuracy])
@pytest.mark.parametrize("k", [0, 100, 1.5])
def test_errors_of_neighbors(measure, k):
    message = f"^{measure.__name__}: n_neighbors must be an integer from 1 to n - 1 = 99, got {k}"
    with pytest.raises(ValueError, match=message):
        measure(Z, y, n_neighbors=k)


@pytest.mark.parametrize("measure", [metrics.neighborhood_hit, metrics.silhouette])
@pytest.mark.parametrize("sample", [0, 101])
def test_errors_of_sample(measure, sample):
    with pytest.raises(ValueError, match=f"{measure.__name__}: sample must be .* n = 100, got"):
        measure(Z, y, sample=sample)


@pytest.mark.parametrize(("labels", "sample"), [(np.zeros(100), None), (np.arange(100), None), (y, 1)])
def test_errors_of_silhouette(labels, sample):
    with pytest.raises(ValueError, match=r"silhouette: y must have from 2 to .* classes .* got"):
        metrics.silhouette(Z, labels, sample=sample)


def test_errors_of_the_test_map():
    with pytest.raises(ValueError, match="Z_test must be given along with y_test, got None"):
        metrics.knn_accuracy(Z, y, y_test=y)
    with pytest.raises(ValueError, match=r"y_test must be labels \[n\], got None"):
        metrics.knn_accuracy(Z, y, Z)
    with pytest.raises(ValueError, match="Z_test must have as many columns as Z = 2, got 1"):
        metrics.knn_accuracy(Z, y, Z[:, :1], y)
    with pytest.raises(ValueError, match="one label for each of the 50 rows of Z_test, got 100"):
        metrics.knn_accuracy(Z, y, Z[:50], y)
    with pytest.raises(ValueError, match="n_neighbors must be an integer from 1 to n = 100, got"):
        metrics.knn_accuracy(Z, y, Z, y, n_neighbors=101)
