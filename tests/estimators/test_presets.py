"""What a preset leaves to the user, and what it decides."""

from __future__ import annotations

import numpy as np
import pytest

from fastpdr import MultiscaleParametricTSNE, ParametricLargeVis, ParametricTSNE, ParametricUMAP
from fastpdr.estimators import presets

ESTIMATORS = (ParametricTSNE, MultiscaleParametricTSNE, ParametricLargeVis, ParametricUMAP)
X = np.random.default_rng(0).normal(size=(80, 6)).astype(np.float32)
SMALL = {"n_epochs": 2, "hidden_dims": (8,), "random_state": 0}


@pytest.mark.parametrize("table", [presets.TSNE, presets.PAIRS])
@pytest.mark.parametrize("n", [2, 9_999, 10_000, 29_999, 30_000, 10**9])
def test_every_size_has_a_level_and_the_best_takes_longer(table, n):
    fast, best = (presets.level_of(table[name], n) for name in ("fast", "best"))
    assert fast.steps * fast.batch_size < best.steps * best.batch_size


@pytest.mark.parametrize("cls", ESTIMATORS)
def test_the_preset_says_how_long(cls, monkeypatch):
    short = {name: (presets.Level(np.inf, 40 * (1 + i), 40, 0.5, 0.5),) for i, name in enumerate(("fast", "best"))}
    monkeypatch.setattr(cls, "_presets", short)
    small = {"hidden_dims": (8,), "random_state": 0}
    fast, best = (cls(preset=preset, **small).fit(X) for preset in ("fast", "best"))
    assert cls(**small).preset == "fast"
    assert best.n_iter_ == pytest.approx(2 * fast.n_iter_, abs=1)
    assert cls(preset="best", n_epochs=3, **small).fit(X).n_iter_ == 3


@pytest.mark.parametrize("cls", ESTIMATORS)
def test_noise_from_neighbours_takes_part_and_can_be_left_out(cls):
    automatic = cls(**SMALL).fit(X).embedding_
    level = presets.level_of(cls._presets["fast"], len(X))
    given = cls(neighbor_noise=level.neighbor_noise, **SMALL).fit(X).embedding_
    without = cls(neighbor_noise=0, **SMALL).fit(X).embedding_
    np.testing.assert_array_equal(automatic, given)
    assert not np.array_equal(automatic, without)


def test_an_affinity_of_the_batch_looks_for_neighbours_only_where_noise_needs_them(monkeypatch):
    searches = []
    build = ParametricTSNE._neighbors

    def counted(self, fit, among):
        assert among is fit.measured
        searches.append(build(self, fit, among))
        return searches[-1]

    monkeypatch.setattr(ParametricTSNE, "_neighbors", counted)
    ParametricTSNE(neighbor_noise=0, **SMALL).fit(X)
    assert searches == []
    ParametricTSNE(neighbor_noise=0.3, **SMALL).fit(X)
    assert [graph.k for graph in searches] == [presets.NEIGHBORS]


@pytest.mark.parametrize("cls", [ParametricTSNE, MultiscaleParametricTSNE])
def test_beyond_some_rows_similarities_come_from_a_graph(cls):
    automatic, batch, knn = (cls(affinity=affinity) for affinity in ("auto", "batch", "knn"))
    assert [e._affinity(10_000) for e in (automatic, batch, knn)] == ["batch", "batch", "knn"]
    assert [e._affinity(10_001) for e in (automatic, batch, knn)] == ["knn", "batch", "knn"]


@pytest.mark.parametrize("n", [2, 3, 4])
def test_two_rows_have_no_neighbours_to_combine(n):
    for cls in ESTIMATORS:
        assert np.isfinite(cls(neighbor_noise=1.0, **SMALL).fit(X[:n]).embedding_).all()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [({"preset": "slow"}, "preset"), ({"neighbor_noise": -1.0}, "neighbor_noise"), ({"neighbor_noise": "x"}, "neigh")],
)
def test_what_is_no_preset_is_refused(parameters, message):
    with pytest.raises(ValueError, match=message):
        ParametricTSNE(**parameters).fit(X)
