"""Callbacks that people hang into a training: what they see of it, and the end of all that can be closed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastpdr import ParametricTSNE

X = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
SMALL = {"n_epochs": 3, "hidden_dims": (8,), "random_state": 0}


class Closing:
    """Remembers that it was closed, and may fail at it."""

    def __init__(self, error=None):
        self.error, self.closed = error, 0

    def on_epoch_end(self, state):
        pass

    def close(self):
        self.closed += 1
        if self.error is not None:
            raise self.error


def test_closed_once_the_training_has_ended():
    callbacks = [Closing(), lambda state: state.epoch == 2, Closing()]
    estimator = ParametricTSNE(callbacks=callbacks, **SMALL).fit(X)
    assert estimator.n_iter_ == 2
    assert [callbacks[0].closed, callbacks[2].closed] == [1, 1]


def test_closed_after_an_error():
    def fail(state):
        raise RuntimeError("stop")

    closing = Closing()
    with pytest.raises(RuntimeError, match="stop"):
        ParametricTSNE(callbacks=[closing, fail], **SMALL).fit(X)
    assert closing.closed == 1


def test_one_that_cannot_be_closed_leaves_none_open():
    callbacks = [Closing(), Closing(OSError("disk full")), Closing()]
    with pytest.raises(OSError, match="disk full"):
        ParametricTSNE(callbacks=callbacks, **SMALL).fit(X)
    assert [callback.closed for callback in callbacks] == [1, 1, 1]


@pytest.mark.parametrize("wide", [False, True])
def test_rows_can_be_placed_during_the_training(wide):
    """What a callback places lies where the trained map puts it, and placing changes no bit of that map."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(300, 4)) @ rng.normal(size=(4, 260)) if wide else rng.normal(3.0, 2.0, size=(60, 5))
    seen = []
    watched = ParametricTSNE(callbacks=[lambda state: seen.append(state.transform(rows[:7]))], **SMALL).fit(rows)
    assert len(seen) == 3
    assert not np.array_equal(seen[0], seen[1])
    np.testing.assert_allclose(seen[-1], watched.transform(rows[:7]), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(watched.embedding_, ParametricTSNE(**SMALL).fit(rows).embedding_)


def test_rows_placed_during_the_training_are_checked():
    def place(state):
        with pytest.raises(ValueError, match="5 features"):
            state.transform(X[:, :4])

    ParametricTSNE(callbacks=[place], **SMALL).fit(X)


def test_an_own_encoder_places_rows_during_the_training():
    seen = []
    encoder = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 2))
    callbacks = [lambda state: seen.append((state.transform(X), state.encoder.training))]
    estimator = ParametricTSNE(encoder=encoder, callbacks=callbacks, **SMALL).fit(X)
    assert all(training for _, training in seen)
    np.testing.assert_array_equal(seen[-1][0], estimator.transform(X))


@pytest.mark.parametrize("bound", [None, 1e-6, 1e6])
def test_the_norm_of_the_gradient_is_that_before_clipping(bound):
    norms = []
    ParametricTSNE(callbacks=[lambda s: norms.append(s.gradient_norm)], clip_grad_norm=bound, **SMALL).fit(X)
    free = []
    ParametricTSNE(callbacks=[lambda s: free.append(s.gradient_norm)], clip_grad_norm=None, **SMALL).fit(X)
    assert norms[0] == pytest.approx(free[0], rel=1e-4)  # later ones depend on the clipped steps
    assert all(norm > 1e-6 for norm in norms)
