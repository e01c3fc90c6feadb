"""evaluate against the single measures, its defaults for many rows, and its errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastpdr import metrics
from fastpdr.metrics import _evaluate, _ranks

STRUCTURE = ["trustworthiness", "continuity", "neighborhood_preservation", "rnx_auc"]
NAMES = np.array(["ant", "bee", "cat", "dog"])
LABELS = ["neighborhood_hit", "knn_accuracy", "silhouette"]


def make_data(n, d=20, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 4, size=n)
    X = rng.normal(size=(n, d)) + y[:, None]
    return X.astype(dtype), X[:, :2].astype(dtype), y


def expected_scores(X, Z, y, **sampling):
    scores = {name: getattr(metrics, name)(X, Z, **sampling) for name in STRUCTURE}
    scores["neighborhood_hit"] = metrics.neighborhood_hit(Z, y, **sampling)
    scores["silhouette"] = metrics.silhouette(Z, y, **sampling)
    return scores


@pytest.mark.parametrize("n", [31, 129, 700])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equals_the_single_measures(n, dtype):
    X, Z, y = make_data(n, dtype=dtype)
    scores = metrics.evaluate(X, Z, y)
    assert list(scores) == STRUCTURE + LABELS
    assert all(type(value) is float for value in scores.values())
    assert scores.pop("knn_accuracy") == metrics.knn_accuracy(Z, y)
    assert scores == pytest.approx(expected_scores(X, Z, y), abs=1e-12)


def test_equals_the_single_measures_with_ties():
    X, _, _ = make_data(200, d=4)
    X = np.round(X)
    scores = metrics.evaluate(X, X[:, :2])
    for name in STRUCTURE:
        assert scores[name] == pytest.approx(getattr(metrics, name)(X, X[:, :2]), abs=1e-12)


def test_sample_scores_the_same_rows_in_every_measure():
    X, Z, y = make_data(300)
    sampling = {"sample": 50, "random_state": 7}
    scores = metrics.evaluate(X, Z, y, **sampling)
    del scores["knn_accuracy"]
    assert scores == pytest.approx(expected_scores(X, Z, y, **sampling), abs=1e-12)


@pytest.mark.parametrize("sampling", [{}, {"sample": 50, "random_state": 7}])
def test_the_curve_comes_with_the_scores(sampling):
    X, Z, y = make_data(300)
    scores, curve = metrics.evaluate_with_curve(X, Z, y, **sampling)
    assert scores == metrics.evaluate(X, Z, y, **sampling)
    np.testing.assert_allclose(curve, metrics.rnx_curve(X, Z, **sampling), rtol=1e-12)


def test_neighbors_are_passed_on():
    X, Z, y = make_data(100)
    scores = metrics.evaluate(X, Z, NAMES[y], n_neighbors=5, label_neighbors=3)
    assert scores["trustworthiness"] == metrics.trustworthiness(X, Z, n_neighbors=5)
    assert scores["knn_accuracy"] == metrics.knn_accuracy(Z, y, n_neighbors=3)


def test_without_labels():
    X, Z, _ = make_data(50)
    assert list(metrics.evaluate(X, Z)) == STRUCTURE


def test_the_data_is_ordered_once(monkeypatch):
    X, Z, y = make_data(120)
    ordered = []
    sqdist = _ranks.Points.sqdist

    def counting(self, rows):
        ordered.append((self.values.shape[1], len(rows)))
        return sqdist(self, rows)

    monkeypatch.setattr(_ranks.Points, "sqdist", counting)
    metrics.evaluate(X, Z, y)
    assert ordered == [(20, 120), (2, 120)]


def test_many_rows_are_sampled_by_default(monkeypatch):
    X, Z, y = make_data(400)
    monkeypatch.setattr(_evaluate, "FULL_ROWS", 300)
    monkeypatch.setattr(_evaluate, "STRUCTURE_ANCHORS", 60)
    monkeypatch.setattr(_evaluate, "SILHOUETTE_ROWS", 90)
    scores = metrics.evaluate(X, Z, y, random_state=2)
    for name in STRUCTURE:
        single = getattr(metrics, name)(X, Z, sample=60, random_state=2)
        assert scores[name] == pytest.approx(single, abs=1e-12)
    assert scores["neighborhood_hit"] == metrics.neighborhood_hit(Z, y)
    assert scores["knn_accuracy"] == metrics.knn_accuracy(Z, y)
    assert scores["silhouette"] == metrics.silhouette(Z, y, sample=90, random_state=2)
    assert metrics.evaluate(X, Z, sample=400) == pytest.approx(
        {name: getattr(metrics, name)(X, Z) for name in STRUCTURE}, abs=1e-12
    )


def test_global_generators_are_left_alone():
    X, Z, y = make_data(100)
    numpy_before, torch_before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    assert metrics.evaluate(X, Z, y, sample=30) == metrics.evaluate(X, Z, y, sample=30)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_before)


@pytest.mark.parametrize("labels", [np.zeros(50), np.arange(50)])
def test_silhouette_is_nan_where_it_is_not_defined(labels):
    X, Z, _ = make_data(50)
    scores = metrics.evaluate(X, Z, labels)
    assert np.isnan(scores.pop("silhouette"))
    assert np.isfinite(list(scores.values())).all()


def test_errors():
    X, Z, y = make_data(100)
    with pytest.raises(ValueError, match=r"^evaluate: X and Z must have the same number of rows"):
        metrics.evaluate(X, Z[:50])
    with pytest.raises(ValueError, match=r"^evaluate: n_neighbors must be < n/2 = 50, got 60"):
        metrics.evaluate(X, Z, n_neighbors=60)
    with pytest.raises(ValueError, match=r"^evaluate: label_neighbors must be .* n - 1 = 99, got 0"):
        metrics.evaluate(X, Z, y, label_neighbors=0)
    with pytest.raises(ValueError, match=r"^evaluate: sample must be .* n = 100, got 101"):
        metrics.evaluate(X, Z, y, sample=101)
    with pytest.raises(ValueError, match=r"^evaluate: y must have one label for each of the 100"):
        metrics.evaluate(X, Z, y[:3])
    with pytest.raises(ValueError, match=r"^evaluate: Z must be finite"):
        metrics.evaluate(X, Z * np.nan, y)
