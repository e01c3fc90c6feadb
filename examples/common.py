"""What the examples share: their options, and real data where a folder of it is named."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

HERE = Path(__file__).parent


def parser(about: str, *, rows: int) -> argparse.ArgumentParser:
    """The options of every example; `rows` is how much of a real data set it takes by itself."""
    result = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument(
        "--data",
        type=Path,
        default=os.environ.get("FASTPDR_DATA"),
        help="an .npz file, or a folder of them (default: $FASTPDR_DATA); without it a small stand-in serves",
    )
    result.add_argument("--rows", type=int, default=rows, help=f"at most so many of its rows (default: {rows})")
    result.add_argument("--epochs", type=int, help="epochs of every training (default: the method's own number)")
    result.add_argument("--output", type=Path, default=HERE / "output", help="folder of what is written")
    return result


def load(options: argparse.Namespace, file: str) -> dict[str, np.ndarray] | None:
    """The arrays of a real data set, cut to random rows; None where no data was named."""
    if options.data is None:
        return None
    path = Path(options.data)
    path = path if path.is_file() else path / file
    if not path.is_file():
        raise SystemExit(f"{path} is not there: name a folder that holds it by --data, or unset FASTPDR_DATA")
    with np.load(path) as archive:
        arrays = dict(archive)
    n = len(arrays["X"])
    rows = np.random.default_rng(0).choice(n, min(n, options.rows), replace=False)
    return {name: array[rows] if len(array) == n else array for name, array in arrays.items()}


def digits_or(options: argparse.Namespace, file: str) -> tuple[np.ndarray, np.ndarray]:
    """Rows and labels of a real data set, or of scikit-learn's digits."""
    real = load(options, file)
    if real is None:
        X, y = load_digits(return_X_y=True)
        return X[: options.rows], y[: options.rows]
    return real["X"], real["label_names"][real["y"]] if "label_names" in real else real["y"]


def output_folder(options: argparse.Namespace, name: str) -> Path:
    """The folder that an example writes into."""
    folder = Path(options.output) / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder
