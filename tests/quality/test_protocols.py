"""Splits of the data sets, and the figures that a protocol judges by, against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.manifold import trustworthiness
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from bench.quality import sets
from bench.quality.judge import judge


@pytest.fixture(scope="module")
def data():
    return sets.load("digits", "published")


@pytest.fixture(scope="module")
def maps(data):
    pca = PCA(2).fit(data.X)
    return pca.transform(data.X), pca.transform(data.X_test)


def neighbors(rows, k):
    """Of each row, itself left out."""
    return NearestNeighbors(n_neighbors=k).fit(rows).kneighbors(return_distance=False)


def sorted_rows(X):
    return X[np.lexsort(X.T)]


def test_split_is_the_same_each_time_and_uses_every_row_once(data):
    again = sets.load("digits", "published")
    X, y = load_digits(return_X_y=True)
    assert (len(data.X), len(data.X_test)) == sets.SOURCES["digits"].splits["published"]
    np.testing.assert_array_equal(data.X, again.X)
    np.testing.assert_array_equal(data.y_test, again.y_test)
    both = np.column_stack([np.concatenate([data.X, data.X_test]), np.concatenate([data.y, data.y_test])])
    np.testing.assert_array_equal(sorted_rows(both), sorted_rows(np.column_stack([X.astype(np.float32) / 16, y])))


def test_files_are_cut_scaled_and_their_labels_counted_from_0(tmp_path, monkeypatch, rng):
    monkeypatch.setenv("FASTPDR_DATA", str(tmp_path))
    X = np.arange(20_000 * 2, dtype=np.float64).reshape(-1, 2)
    np.savez(tmp_path / "letter_20k.npz", X=X, y=np.repeat(["b", "a"], 10_000))
    split = sets.load("letter", "published")
    assert (split.X.shape, split.X_test.shape, split.X.dtype) == ((5000, 2), (15_000, 2), np.float32)
    np.testing.assert_allclose([split.X.mean(), split.X.std()], [0, 1], atol=1e-4)
    order = rng.permutation(20_000)
    np.testing.assert_array_equal(split.y, order[:5000] < 10_000)
    np.testing.assert_array_equal(split.y_test, order[5000:] < 10_000)
    spread = X[order[:5000]].std(axis=0)
    np.testing.assert_allclose(split.X_test, (X[order[5000:]] - X[order[:5000]].mean(axis=0)) / spread, atol=1e-4)


def test_word_vectors_have_length_1_and_no_labels(tmp_path, monkeypatch, rng):
    monkeypatch.setenv("FASTPDR_DATA", str(tmp_path))
    monkeypatch.setitem(sets.SOURCES["glove"].splits, "scale", (30, 10))
    X = rng.normal(size=(50, 3)).astype(np.float16)
    X[7] = 0
    np.savez(tmp_path / "glove_341k.npz", X=X)
    split = sets.load("glove", "scale")
    assert split.y is split.y_test is None
    assert (len(split.X), len(split.X_test)) == (30, 10)
    lengths = np.linalg.norm(np.concatenate([split.X, split.X_test]), axis=1)
    np.testing.assert_allclose(lengths[lengths > 0], 1, rtol=1e-6)


def test_missing_sets_and_splits_are_named(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="published protocol is for digits, mnist.*, not for glove"):
        sets.load("glove", "published")
    monkeypatch.delenv("FASTPDR_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match=r"FASTPDR_DATA must name the folder.*mnist_70k\.npz"):
        sets.load("mnist", "published")
    monkeypatch.setenv("FASTPDR_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"there is no .*mnist_70k\.npz"):
        sets.load("mnist", "published")


def test_published_figures(data, maps):
    figures = judge("published", data, *maps)
    for part, X, Z, y in (("train", data.X, maps[0], data.y), ("test", data.X_test, maps[1], data.y_test)):
        trust = trustworthiness(X, Z, n_neighbors=7)
        continuity = trustworthiness(Z, X, n_neighbors=7)
        hit = (y[neighbors(Z, 7)] == y[:, None]).mean()
        hit_self = (y[np.column_stack([np.arange(len(Z)), neighbors(Z, 6)])] == y[:, None]).mean()
        expected = {
            "mu": (trust + continuity + hit) / 3,
            "trust7": trust,
            "cont7": continuity,
            "nh7": hit,
            "mu_self": (trust + continuity + hit_self) / 3,
            "nh7_self": hit_self,
        }
        assert {key: figures[f"{part}_{key}"] for key in expected} == pytest.approx(expected, abs=1e-4)  # distances tie
    assert figures["gap_mu"] == figures["train_mu"] - figures["test_mu"]


def test_scale_figures(data, maps):
    figures = judge("scale", data, *maps)
    for part, X, Z, y in (("train", data.X, maps[0], data.y), ("test", data.X_test, maps[1], data.y_test)):
        shared = [len(set(a) & set(b)) for a, b in zip(neighbors(X, 15), neighbors(Z, 15), strict=True)]
        votes = [np.bincount(labels).argmax() for labels in y[neighbors(Z, 10)]]
        expected = {
            "np15": np.mean(shared) / 15,
            "trust15": trustworthiness(X, Z, n_neighbors=15),
            "knn10": np.mean(votes == y),
        }
        assert {key: figures[f"{part}_{key}"] for key in expected} == pytest.approx(expected, abs=1e-3)  # distances tie
        assert 0 < figures[f"{part}_rnx_auc"] < 1
    transfer = KNeighborsClassifier(10).fit(maps[0], data.y).score(maps[1], data.y_test)
    assert figures["transfer_knn10"] == pytest.approx(transfer)


def test_sets_without_labels_have_no_accuracy(data, maps):
    figures = judge("scale", sets.Split(data.X, None, data.X_test, None), *maps)
    nothing = {key for key, value in figures.items() if value is None}
    assert nothing == {"train_knn10", "test_knn10", "transfer_knn10"}
    with pytest.raises(ValueError, match="needs labels"):
        judge("published", sets.Split(data.X, None, data.X_test, None), *maps)


def test_places_that_are_not_finite_are_counted(data, maps):
    broken = maps[1].copy()
    broken[3:5] = np.nan
    with pytest.raises(FloatingPointError, match="2 of the 450 places of test rows"):
        judge("scale", data, maps[0], broken)
