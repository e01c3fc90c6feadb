"""Tolerances, once for all tests, and inputs that several of them use."""

from __future__ import annotations

import numpy as np
import pytest
import torch

# Of float32 results against the float64 reference, relative root mean square.
RELATIVE_RMS = 1e-5
# Of the reference against another float64 implementation of the same formula.
FLOAT64_RMS = 1e-9

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
