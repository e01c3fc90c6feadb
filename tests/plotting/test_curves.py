"""Loss and R_NX diagrams."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure
from sklearn.pipeline import make_pipeline

import fastpdr
from fastpdr import metrics, plotting

X = np.random.default_rng(0).normal(size=(60, 5))


def curves(ax):
    return [line.get_xydata() for line in ax.lines]


def texts(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


@pytest.fixture(scope="module")
def estimator():
    return fastpdr.ParametricTSNE(n_epochs=3, hidden_dims=[4], perplexity=5).fit(X)


def test_loss_by_epoch():
    ax = plotting.loss([3.0, 2.0, 1.5], title="Loss")
    np.testing.assert_array_equal(curves(ax)[0], [[1, 3], [2, 2], [3, 1.5]])
    assert ax.get_title() == "Loss"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("epoch", "loss")
    assert ax.get_legend() is None


def test_losses_of_what_was_fitted(estimator):
    ax = plotting.loss({"one": estimator, "_two": make_pipeline(estimator), "$3$": [1, 2]})
    np.testing.assert_array_equal(curves(ax)[0][:, 1], estimator.loss_history_)
    np.testing.assert_array_equal(curves(ax)[1], curves(ax)[0])
    assert texts(ax) == ["one", "_two", "$3$"]
    assert len({line.get_color() for line in ax.lines}) == 3


def test_a_single_epoch_can_be_seen():
    assert plotting.loss([1.0]).lines[0].get_marker() == "."


def test_rnx_with_its_area():
    Z = X[:, :2]
    curve = metrics.rnx_curve(X, Z)
    ax = plotting.rnx({"first": curve, "second": curve / 2})
    assert ax.get_xscale() == "log"
    np.testing.assert_array_equal(curves(ax)[0], np.column_stack([np.arange(1, 59), curve]))
    area = metrics.rnx_auc(X, Z)
    assert texts(ax) == [f"first, AUC {area:.3f}", f"second, AUC {area / 2:.3f}"]
    assert texts(plotting.rnx(curve)) == [f"AUC {area:.3f}"]
    low, high = ax.get_ylim()
    assert low <= curve.min()
    assert high == 1


def test_curves_worse_than_chance_are_in_the_frame():
    assert plotting.rnx([-0.5, 0.1]).get_ylim()[0] < -0.5


@pytest.mark.parametrize("draw", [plotting.loss, plotting.rnx])
def test_draws_into_given_axes(draw):
    left, right = Figure().subplots(1, 2)
    assert draw([1.0, 0.5], ax=right) is right
    assert not left.lines


@pytest.mark.parametrize(
    ("draw", "function", "argument"), [(plotting.loss, "loss", "histories"), (plotting.rnx, "rnx", "curves")]
)
def test_what_is_no_curve(draw, function, argument):
    for wrong in ([], [[1.0]], ["a"], 3.0):
        with pytest.raises(ValueError, match=rf"{function}: {argument} must be numbers \[k\], k >= 1, got"):
            draw(wrong)
        with pytest.raises(ValueError, match=rf"{function}: {argument} of bad must be numbers \[k\]"):
            draw({"good": [1.0], "bad": wrong})
    with pytest.raises(ValueError, match=f"{function}: {argument} must hold at least one curve, got none"):
        draw({})


def test_an_estimator_that_is_not_fitted():
    with pytest.raises(ValueError, match="loss: histories must be numbers"):
        plotting.loss(fastpdr.ParametricTSNE())
