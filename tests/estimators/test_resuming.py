"""Trainings that are interrupted, killed or short of time: they go on to the same bits, or say why not."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import fastpdr
from fastpdr import MultiscaleParametricTSNE, ParametricLargeVis, ParametricTSNE, ParametricUMAP
from fastpdr.estimators import TrustworthinessStopping
from fastpdr.metrics import trustworthiness
from fastpdr.training import loop
from fastpdr.training.checkpoints import FILES, read
from fastpdr.training.step import Step

ROOT = Path(__file__).parents[2]
SMALL = {"n_epochs": 4, "batch_size": 64, "hidden_dims": (16,), "random_state": 0}
KILLS = 10


class StoppedError(Exception):
    """Raised in the middle of a training."""


class Forgetful(nn.Module):
    """An own encoder with what draws global random numbers, and running statistics."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 2))

    def forward(self, x):
        return self.layers(x)


@pytest.fixture(scope="module")
def X():
    return np.random.default_rng(0).normal(size=(200, 6)).astype(np.float32)


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def run_until(monkeypatch, step, act):
    """Let the step of this number (from 1) of the next training act instead of training."""
    call, count = Step.__call__, [0]

    def counted(self, *inputs):
        count[0] += 1
        if count[0] == step:
            act()
        call(self, *inputs)

    monkeypatch.setattr(Step, "__call__", counted)


def stop():
    raise StoppedError


def interrupted(make, folder, step, monkeypatch, fit):
    """Leave the checkpoints of a training that was interrupted in a step."""
    with monkeypatch.context() as patch:
        run_until(patch, step, stop)
        with pytest.raises(StoppedError):
            fit(make(checkpoint_dir=folder, checkpoint_every=0))


def assert_same(model, other):
    np.testing.assert_array_equal(model.embedding_, other.embedding_)
    assert model.loss_history_ == other.loss_history_
    assert model.n_iter_ == other.n_iter_
    for name in ("encoder_", "decoder_"):
        if getattr(other, name, None) is not None:
            state = getattr(model, name).state_dict()
            for key, value in getattr(other, name).state_dict().items():
                assert torch.equal(state[key], value), (name, key)


# The same bits --------------------------------------------------------------------------------------------------------

CASES = [
    (ParametricTSNE, {}),
    (ParametricTSNE, {"optimizer": "sgd", "learning_rate": 0.1, "init": "pca"}),
    (ParametricTSNE, {"optimizer": "rmsprop", "neighbor_noise": 0.5, "early_exaggeration_epochs": 2}),
    (ParametricTSNE, {"encoder": Forgetful(), "clip_grad_norm": None}),
    (MultiscaleParametricTSNE, {"optimizer": "adam", "affinity": "knn"}),
    (ParametricLargeVis, {}),
    (ParametricUMAP, {}),
    (ParametricUMAP, {"parametric_reconstruction": True, "global_correlation_loss_weight": 0.1}),
]


@pytest.mark.parametrize("step", [2, 7, 9])  # before, within, and right after an epoch
@pytest.mark.parametrize(("cls", "settings"), CASES)
def test_an_interrupted_training_ends_as_an_undisturbed_one(cls, settings, step, X, tmp_path, monkeypatch, one_thread):
    def make(**more):
        return cls(**{**SMALL, **settings, **more})

    def fit(model):
        return model.fit(X)

    interrupted(make, tmp_path, step, monkeypatch, fit)
    assert {read(path).facts["number"] for path in tmp_path.glob(FILES)} <= {step - 2, step - 1}
    begun = []
    resumed = fit(make(checkpoint_dir=tmp_path, callbacks=[lambda state: begun.append(state.epoch)]))
    assert begun[-1] == 4
    assert_same(resumed, fit(make()))


def test_wide_data_early_stopping_and_callbacks_that_remember(tmp_path, monkeypatch, one_thread):
    rng = np.random.default_rng(0)
    wide = (rng.normal(size=(150, 4)) @ rng.normal(size=(4, 260))).astype(np.float32)

    def make(**more):
        watch = TrustworthinessStopping(wide[:40], patience=4, min_delta=0.5)
        settings = {**SMALL, "n_epochs": 12, "early_stopping_patience": 5, "early_stopping_min_delta": 9.0}
        return ParametricTSNE(**settings, callbacks=[watch], **more)

    def fit(model):
        return model.fit(wide)

    interrupted(make, tmp_path, 26, monkeypatch, fit)
    resumed, undisturbed = fit(make(checkpoint_dir=tmp_path)), fit(make())
    assert undisturbed.n_iter_ == 10
    assert_same(resumed, undisturbed)
    assert resumed.callbacks[0].history_ == undisturbed.callbacks[0].history_


def test_training_on_is_resumed_as_well(X, tmp_path, monkeypatch, one_thread):
    places = np.full((200, 2), np.nan)
    places[::3] = 1.0
    first = ParametricUMAP(**SMALL).fit(X[:100])
    first.save(tmp_path / "model")

    def make(**more):
        return fastpdr.load(tmp_path / "model").set_params(**more)

    def fit(model):
        return model.partial_fit(X, landmark_positions=places)

    interrupted(make, tmp_path / "checkpoints", 6, monkeypatch, fit)
    undisturbed = fit(make())
    assert_same(fit(make(checkpoint_dir=tmp_path / "checkpoints")), undisturbed)
    assert_same(fit(first), undisturbed)


def test_without_a_seed_the_checkpoints_is_taken(X, tmp_path, monkeypatch, one_thread):
    def make(**more):
        return ParametricUMAP(**{**SMALL, "random_state": None, **more})

    interrupted(make, tmp_path, 6, monkeypatch, lambda model: model.fit(X))
    seed = read(next(tmp_path.glob(FILES))).facts["seed"]
    resumed = make(checkpoint_dir=tmp_path).fit(X)
    np.testing.assert_array_equal(resumed.embedding_, make(random_state=seed).fit_transform(X))


def test_a_finished_training_is_not_repeated(X, tmp_path, monkeypatch):
    settings = {**SMALL, "checkpoint_dir": tmp_path}
    first = ParametricUMAP(**settings).fit(X)
    assert [read(path).facts["ended"] for path in tmp_path.glob(FILES)] == [True]
    with monkeypatch.context() as patch:
        run_until(patch, 1, stop)
        assert_same(ParametricUMAP(**settings).fit(X), first)
        with pytest.raises(StoppedError):
            ParametricUMAP(**settings, resume=False).fit(X)
    assert ParametricUMAP(**{**settings, "n_epochs": 2}).fit(X).n_iter_ == 2  # takes its place
    assert ParametricUMAP(**{**settings, "n_epochs": 2}).fit(X[:150]).n_iter_ == 2


def test_a_saved_map_does_not_know_the_folder(X, tmp_path):
    model = ParametricUMAP(**SMALL, checkpoint_dir=str(tmp_path / "checkpoints")).fit(X)
    model.save(tmp_path / "model")
    assert fastpdr.load(tmp_path / "model").checkpoint_dir is None


# Killed ---------------------------------------------------------------------------------------------------------------

# Imports once; for every line of its input it forks a process that trains in a folder, and kills it after some seconds.
TRAINER = """
import os, signal, sys, time
import numpy as np, torch
import faiss, scipy.optimize, torch._dynamo
import fastpdr.estimators
from fastpdr import ParametricUMAP
torch.set_num_threads(1)
X = np.random.default_rng(0).normal(size=(150, 8)).astype(np.float32)
def train(folder, result):
    umap = ParametricUMAP(
        n_epochs=8, batch_size=128, hidden_dims=(16,), random_state=0, checkpoint_dir=folder, checkpoint_every=0
    )
    Z = umap.fit_transform(X)
    weights = torch.cat([p.detach().reshape(-1) for p in umap.encoder_.parameters()]).numpy()
    with open(result, "wb") as file:
        np.savez(file, Z=Z, loss=umap.loss_history_, weights=weights)
for line in sys.stdin:
    folder, result, delay = line.split()
    begun, process = time.monotonic(), os.fork()
    if process == 0:
        train(folder, result)
        os._exit(0)
    if delay != "never":
        time.sleep(float(delay))
        os.kill(process, signal.SIGKILL)  # or what is left of it, since nobody has waited for it
    print(os.waitpid(process, 0)[1], time.monotonic() - begun, flush=True)
"""


def test_killed_at_ten_random_moments_the_map_is_that_of_an_undisturbed_training(tmp_path):
    """SIGKILL to a real process, wherever it is; begun anew as often as it ends before it has been killed ten times."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-c", TRAINER]
    moments, kills, finished, resumed = random.Random(0), 0, 0, 0
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as server:

        def run(folder, result, delay="never"):
            server.stdin.write(f"{tmp_path / folder} {tmp_path / result} {delay}\n")
            server.stdin.flush()
            code, seconds = server.stdout.readline().split()
            return int(code), float(seconds)

        code, duration = run("undisturbed", "expected.npz")
        assert code == 0
        while kills < KILLS or finished == 0:
            folder, result = f"killed{finished}", f"result{finished}.npz"
            resumed += any((tmp_path / folder).glob(FILES))
            code, _ = run(folder, result, moments.uniform(0, 0.5 * duration) if kills < KILLS else "never")
            assert code in (0, signal.SIGKILL)
            kills += code == signal.SIGKILL
            finished += code == 0
        server.stdin.close()
    assert resumed >= 3
    expected = np.load(tmp_path / "expected.npz")
    for number in range(finished):
        result = np.load(tmp_path / f"result{number}.npz")
        for name in ("Z", "loss", "weights"):
            np.testing.assert_array_equal(result[name], expected[name], err_msg=name)


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_ends_a_fit_after_a_checkpoint(number, error, X, tmp_path, monkeypatch, one_thread):
    with monkeypatch.context() as patch:
        run_until(patch, 6, lambda: os.kill(os.getpid(), number))
        with pytest.raises(error):
            ParametricUMAP(**SMALL, checkpoint_dir=tmp_path).fit(X)
    assert [read(path).facts["number"] for path in tmp_path.glob(FILES)] == [6]
    assert_same(ParametricUMAP(**SMALL, checkpoint_dir=tmp_path, resume=True).fit(X), ParametricUMAP(**SMALL).fit(X))


# What does not fit ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "change", "message"),
    [
        ({"learning_rate": 0.02}, None, r"other settings \(learning_rate was 0.01, is 0.02\)"),
        ({"random_state": 1}, None, r"other settings \(random_state was 0, is 1\)"),
        ({"encoder": Forgetful()}, None, r"other settings \(encoder was None, is '"),
        ({}, lambda X: X + 1, r"other data \(X\)"),
        ({}, lambda X: X[:-1], r"other data \(X\)"),
    ],
)
def test_an_unfinished_training_of_another_kind_is_not_overwritten(settings, change, message, X, tmp_path, monkeypatch):
    interrupted(lambda **more: ParametricUMAP(**SMALL, **more), tmp_path, 6, monkeypatch, lambda model: model.fit(X))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    data = X if change is None else change(X)
    with pytest.raises(ValueError, match="ParametricUMAP: the training in checkpoint_dir .* had " + message):
        ParametricUMAP(**{**SMALL, **settings}, checkpoint_dir=tmp_path).fit(data)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    with pytest.raises(ValueError, match=r"other settings \(class was 'ParametricUMAP'"):
        ParametricTSNE(**SMALL, checkpoint_dir=tmp_path).fit(X)
    with pytest.raises(ValueError, match=r"other data \(y\)"):
        ParametricUMAP(**SMALL, checkpoint_dir=tmp_path).fit(X, np.zeros(200, dtype=int))


def test_a_torn_checkpoint_costs_some_steps_alone(X, tmp_path, monkeypatch, one_thread):
    interrupted(lambda **more: ParametricUMAP(**SMALL, **more), tmp_path, 6, monkeypatch, lambda model: model.fit(X))
    _, newest = sorted(tmp_path.iterdir())
    newest.write_bytes(newest.read_bytes()[:-7])
    with pytest.warns(UserWarning, match="an older checkpoint is used"):
        resumed = ParametricUMAP(**SMALL, checkpoint_dir=tmp_path).fit(X)
    assert_same(resumed, ParametricUMAP(**SMALL).fit(X))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"checkpoint_every": -1}, "'checkpoint_every' parameter"),
        ({"checkpoint_dir": 3}, "'checkpoint_dir' parameter"),
        ({"resume": "always"}, "'resume' parameter"),
        ({"max_time": 0}, "'max_time' parameter"),
    ],
)
def test_bad_parameters_are_named(settings, message, X):
    with pytest.raises(ValueError, match=message):
        ParametricUMAP(**{**SMALL, **settings}).fit(X)


# Time -----------------------------------------------------------------------------------------------------------------


class Clock:
    """Every look at it takes a tenth of a second."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        self.now += 0.1
        return self.now


def test_a_training_ends_in_time_with_its_schedules_run_out(X, monkeypatch):
    monkeypatch.setattr(loop, "time", Clock())
    seen = []
    settings = {**SMALL, "n_epochs": 100, "max_time": 2.0}
    model = ParametricTSNE(**settings, callbacks=[lambda state: seen.append((state.learning_rate, state.settled))])
    model.fit(X)
    assert model.n_iter_ == len(model.loss_history_) == 5  # 20 steps, 4 in an epoch
    assert seen[0][0] > seen[-1][0]
    assert seen[-1][0] < 0.02 * model.learning_rate
    assert [settled for _, settled in seen] == [False, False, True, True, True]
    assert model.embedding_.shape == (200, 2)


def test_time_before_an_interruption_counts(X, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "time", Clock())

    def make(**more):
        return ParametricTSNE(**{**SMALL, "n_epochs": 100, "max_time": 2.0, **more})

    interrupted(make, tmp_path, 11, monkeypatch, lambda model: model.fit(X))
    steps = []
    with monkeypatch.context() as patch:
        call = Step.__call__
        patch.setattr(Step, "__call__", lambda self, *inputs: steps.append(1) or call(self, *inputs))
        make(checkpoint_dir=tmp_path).fit(X)
    assert len(steps) == 10


def test_a_generous_limit_changes_no_number_of_epochs(X):
    assert ParametricTSNE(**SMALL, max_time=1e6).fit(X).n_iter_ == 4


# Stopping, and drift --------------------------------------------------------------------------------------------------


def test_stops_when_held_out_rows_are_placed_no_better(digits):
    train, _, test, _ = digits
    stopping = TrustworthinessStopping(test[:150], patience=3, min_delta=0.0005)
    settings = {"n_epochs": 300, "hidden_dims": (64,), "random_state": 0}
    model = ParametricUMAP(**settings, lr_schedule="constant", callbacks=[stopping]).fit(train)
    epochs, scores = zip(*stopping.history_, strict=True)
    assert epochs[0] == 150
    assert model.n_iter_ == epochs[-1] < 300
    assert scores[-1] == pytest.approx(trustworthiness(test[:150], model.transform(test[:150])), abs=1e-6)
    assert max(scores[-3:]) <= max(scores[:-3]) + 0.0005
    (callback,) = ParametricUMAP(**SMALL, callbacks=[stopping]).fit(train[:200]).callbacks
    assert [epoch for epoch, _ in callback.history_] == [2, 3, 4]  # of the last training alone


def test_looks_may_be_rare(X):
    stopping = TrustworthinessStopping(X[:60], every=3)
    ParametricTSNE(**{**SMALL, "n_epochs": 12}, callbacks=[stopping]).fit(X)
    assert [epoch for epoch, _ in stopping.history_] == [6, 9, 12]


@pytest.mark.parametrize("settings", [{"patience": 0}, {"every": 0}])
def test_bad_stopping_is_named(settings, X):
    (name,) = settings
    with pytest.raises(ValueError, match=f"TrustworthinessStopping: {name} must be at least 1, got 0"):
        TrustworthinessStopping(X, **settings)


@pytest.mark.parametrize("cls", [ParametricUMAP, ParametricLargeVis])
def test_drift_is_how_far_known_rows_have_moved(cls, X, tmp_path):
    first = cls(**SMALL).fit(X)
    assert first.drift_ is None
    first.save(tmp_path / "model")
    before = first.transform(X)
    places = np.full((200, 2), np.nan, dtype=np.float32)
    places[:50] = before[:50]
    loaded = fastpdr.load(tmp_path / "model").set_params(landmark_loss_weight=10.0)
    loaded.partial_fit(X, landmark_positions=places)
    moved = np.linalg.norm(loaded.transform(X[:50]) - before[:50], axis=1).mean()
    assert loaded.drift_ == pytest.approx(moved, rel=1e-5)
    assert loaded.n_iter_ == 8
    free = fastpdr.load(tmp_path / "model").partial_fit(X)
    assert free.drift_ is None
    assert loaded.drift_ < np.linalg.norm(free.embedding_[:50] - before[:50], axis=1).mean()
    unknown = fastpdr.load(tmp_path / "model").partial_fit(X, landmark_positions=np.full((200, 2), np.nan))
    assert unknown.drift_ is None
