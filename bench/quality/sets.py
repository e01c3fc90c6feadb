"""The data sets and how each protocol splits them.

Rows are permuted once, with ``numpy.random.default_rng(0)``; the first ones train, the next ones are judged. The seed
of a run is the method's alone. Nothing of the rows to judge is used to scale the data.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Split:
    """Training rows and rows to judge by; labels are numbers from 0, or None."""

    X: NDArray[np.float32]  # [n, d]
    y: NDArray[np.int64] | None  # [n]
    X_test: NDArray[np.float32]  # [m, d]
    y_test: NDArray[np.int64] | None  # [m]


def _as_they_are(X: NDArray, n: int) -> NDArray:
    return X


def _divided(most: int) -> Callable[[NDArray, int], NDArray]:
    """Shades from 0 to `most` become 0 to 1."""
    return lambda X, n: X / np.float32(most)


def _standardized(X: NDArray, n: int) -> NDArray:
    spread = X[:n].std(axis=0)
    return (X - X[:n].mean(axis=0)) / np.where(spread > 0, spread, 1)


def _unit_rows(X: NDArray, n: int) -> NDArray:
    """The nearest rows of length 1 are those by cosine, for every method and for the judge."""
    length = np.linalg.norm(X, axis=1, keepdims=True)
    return X / np.where(length > 0, length, 1)


@dataclass(frozen=True)
class Source:
    """A data set.

    Parameters
    ----------
    file : str or None
        In $FASTPDR_DATA, without ``.npz``; None ships with scikit-learn.
    scale : function of all rows and the number of those that train
    splits : dict
        (Rows that train, rows to judge by) for each protocol.
    """

    file: str | None
    scale: Callable[[NDArray, int], NDArray]
    splits: dict[str, tuple[int, int]]


PUBLISHED, SCALE = (5_000, 15_000), (60_000, 10_000)
SOURCES = {
    "digits": Source(None, _divided(16), {"published": (1347, 450), "scale": (1347, 450)}),
    "mnist": Source("mnist_70k", _divided(255), {"published": PUBLISHED, "scale": SCALE}),
    "fashion": Source("fashion_mnist_70k", _divided(255), {"published": PUBLISHED, "scale": SCALE}),
    "letter": Source("letter_20k", _standardized, {"published": PUBLISHED}),
    "pbmc": Source("pbmc68k_reduced_700", _as_they_are, {"published": (500, 200), "scale": (500, 200)}),
    "glove": Source("glove_341k", _unit_rows, {"scale": (321_479, 20_000)}),
    "census": Source("census_kdd_299k", _as_they_are, {"scale": (279_285, 20_000)}),
}


def require(name: str, protocol: str) -> Path | None:
    """Where a set is; None for one that ships with scikit-learn.

    Raises
    ------
    ValueError
        The protocol has no split of the set.
    FileNotFoundError
        The set is not there.
    """
    source = SOURCES[name]
    if protocol not in source.splits:
        named = ", ".join(key for key, other in SOURCES.items() if protocol in other.splits)
        raise ValueError(f"the {protocol} protocol is for {named}, not for {name}")
    if source.file is None:
        return None
    help = f"{name} needs {source.file}.npz, and bench/quality/README.md says where it is from"
    folder = os.environ.get("FASTPDR_DATA")
    if not folder:
        raise FileNotFoundError(f"FASTPDR_DATA must name the folder of the data sets: {help}")
    path = Path(folder) / f"{source.file}.npz"
    if not path.exists():
        raise FileNotFoundError(f"there is no {path}: {help}")
    return path


def load(name: str, protocol: str) -> Split:
    """Read, permute, cut and scale a set.

    Parameters
    ----------
    name : str
        A key of ``SOURCES``.
    protocol : {"published", "scale"}

    Raises
    ------
    ValueError, FileNotFoundError
        As :func:`require`.
    """
    X, y = _read(require(name, protocol))
    n, m = SOURCES[name].splits[protocol]
    order = np.random.default_rng(0).permutation(len(X))[: n + m]
    X = SOURCES[name].scale(X[order].astype(np.float32), n)
    if y is None:
        return Split(X[:n], None, X[n:], None)
    codes = np.unique(y, return_inverse=True)[1][order]
    return Split(X[:n], codes[:n], X[n:], codes[n:])


def _read(path: Path | None) -> tuple[NDArray, NDArray | None]:
    if path is None:
        from sklearn.datasets import load_digits

        return load_digits(return_X_y=True)
    with np.load(path) as archive:
        return archive["X"], archive.get("y")
