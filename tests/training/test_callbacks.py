"""Callbacks that people hang into a training: TensorBoard's scalars, and the end of all that can be closed."""

from __future__ import annotations

import copy
import pickle
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.base import clone

from fastpdr import ParametricTSNE, ParametricUMAP
from fastpdr.training.callbacks import TensorBoard

X = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
SMALL = {"n_epochs": 3, "hidden_dims": (8,), "random_state": 0}


class Writer:
    """Stands for PyTorch's SummaryWriter and remembers what it is told."""

    made: list[Writer] = []  # noqa: RUF012 emptied by the fixture

    def __init__(self, logdir):
        self.logdir, self.scalars, self.flushed, self.closed = logdir, [], 0, False
        Writer.made.append(self)

    def add_scalar(self, *scalar):
        self.scalars.append(scalar)

    def flush(self):
        self.flushed += 1

    def close(self):
        self.closed = True


@pytest.fixture
def writers(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Writer))
    monkeypatch.setattr(Writer, "made", [])
    return Writer.made


def test_scalars_of_every_epoch(writers, tmp_path):
    rates = []
    callbacks = [TensorBoard(tmp_path), lambda state: rates.append(state.learning_rate)]
    estimator = ParametricTSNE(callbacks=callbacks, **SMALL).fit(X)
    (writer,) = writers
    assert writer.logdir == str(tmp_path)
    assert [scalar for scalar in writer.scalars if scalar[0] == "loss"] == [
        ("loss", loss, epoch) for epoch, loss in enumerate(estimator.loss_history_, start=1)
    ]
    assert [scalar for scalar in writer.scalars if scalar[0] == "learning_rate"] == [
        ("learning_rate", rate, epoch) for epoch, rate in enumerate(rates, start=1)
    ]
    assert writer.flushed == 3
    assert writer.closed


def test_every_training_has_a_file_of_its_own_that_ends_with_it(writers, tmp_path):
    estimator = ParametricUMAP(callbacks=[TensorBoard(tmp_path), lambda state: state.epoch == 2], **SMALL).fit(X)
    estimator.partial_fit(X)
    assert [len(writer.scalars) for writer in writers] == [4, 4]
    assert all(writer.closed for writer in writers)


def test_closed_after_an_error(writers, tmp_path):
    def fail(state):
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        ParametricTSNE(callbacks=[TensorBoard(tmp_path), fail], **SMALL).fit(X)
    assert writers[0].closed


def test_can_be_copied(writers, tmp_path):
    estimator = ParametricTSNE(callbacks=[TensorBoard(tmp_path)], **SMALL).fit(X)
    assert clone(estimator).fit(X).loss_history_ == estimator.loss_history_
    assert copy.deepcopy(estimator).fit(X).loss_history_ == estimator.loss_history_
    assert pickle.loads(pickle.dumps(estimator)).fit(X).loss_history_ == estimator.loss_history_


def test_without_tensorboard(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ImportError, match="TensorBoard: the package is not installed: pip install tensorboard"):
        TensorBoard(tmp_path)


def test_tensorboard_itself_reads_the_events(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    estimator = ParametricTSNE(callbacks=[TensorBoard(tmp_path / "run")], **SMALL).fit(X)
    events = accumulator.EventAccumulator(str(tmp_path / "run")).Reload()
    losses = [(event.step, event.value) for event in events.Scalars("loss")]
    np.testing.assert_allclose(losses, list(enumerate(estimator.loss_history_, start=1)), rtol=1e-6)
    assert len(events.Scalars("learning_rate")) == 3


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
