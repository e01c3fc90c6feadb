"""Tolerances, once for all tests, and inputs that several of them use."""

from __future__ import annotations

import signal

import numpy as np
import pytest
import torch

# A shell's background job ignores Ctrl-C, and so would the processes that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Of float32 results against the float64 reference, relative root mean square.
RELATIVE_RMS = 1e-5
# Of the reference against another float64 implementation of the same formula.
FLOAT64_RMS = 1e-9

no_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
DEVICES = ["cpu", pytest.param("cuda", marks=no_gpu)]

# Sizes around vector widths, tiles and blocks.
SIZES = [0, 1, 2, 7, 15, 16, 17, 31, 32, 33, 129, 1000]


def relative_rms(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Root mean square of the difference, relative to that of the expected values (absolute where these are 0)."""
    actual, expected = torch.as_tensor(actual).double(), torch.as_tensor(expected).double()
    assert actual.shape == expected.shape
    if actual.numel() == 0:
        return 0.0
    scale = expected.square().mean().sqrt()
    return float((actual - expected).square().mean().sqrt() / (scale if scale > 0 else 1.0))


def on(device: str, op):
    """``op`` on another device: its tensors are moved there, its results back; gradients follow."""

    def moved(value):
        return value.to(device) if isinstance(value, torch.Tensor) else value

    def call(*arguments, **settings):
        result = op(*map(moved, arguments), **{name: moved(value) for name, value in settings.items()})
        return result.cpu() if isinstance(result, torch.Tensor) else tuple(part.cpu() for part in result)

    return op if device == "cpu" else call


def peer(module: str):
    """A module of another package that results are compared with; without it the test is skipped."""
    return pytest.importorskip(module, reason=f"{module} is not installed (extra 'test')")


@pytest.fixture
def close():
    """Assert that two results agree to a relative RMS (of float32 against float64 unless told)."""

    def check(actual, expected, tolerance: float = RELATIVE_RMS) -> None:
        error = relative_rms(actual, expected)
        assert error <= tolerance, f"relative RMS {error:.2e} > {tolerance:.0e}"

    return check


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def digits():
    """Standardised digits, a quarter held out: (train, train labels, test, test labels)."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
    from sklearn.preprocessing import StandardScaler

    X, y = load_digits(return_X_y=True)
    train, test, y_train, y_test = train_test_split(X, y, test_size=0.25, random_state=0)
    scaler = StandardScaler().fit(train)
    return scaler.transform(train), y_train, scaler.transform(test), y_test


@pytest.fixture
def one_epoch(monkeypatch):
    """Trainings whose length is left to the method take one epoch: enough for examples in documents."""
    from fastpdr.estimators.neighbors import NeighborEmbedding
    from fastpdr.estimators.tsne import TSNE

    for base in (TSNE, NeighborEmbedding):
        monkeypatch.setattr(base, "_automatic_epochs", lambda self, per_epoch, n: 1)
