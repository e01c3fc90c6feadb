"""Fits one method to one real data set in a process of its own; prints one JSON line: time, memory, quality.

    python real_fit.py METHOD DATA PROTOCOL THREADS SEED

METHOD: ParametricUMAP, ParametricLargeVis, ParametricTSNE-knn, or umap-learn (fit, then transform; its compiler runs
first, on a few rows, and is timed apart). DATA: a file of $FASTPDR_DATA without ``.npz``. PROTOCOL:

    5k    5,000 random training rows, the next 15,000 to judge by, k = 7 (the split of Lai et al., Parametric Dimension
          Reduction by Preserving Local Structure); mu is the mean of trustworthiness, continuity and neighbourhood hit
    60k   60,000 and 10,000 rows; trustworthiness and neighbourhood preservation of 15, 10-NN accuracy
    all   every row; time, memory and whether all places are finite

Pixels are divided by 255, Letter is standardised by its training rows, the rest stays as it is.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from clock import timed

SPLITS = {"5k": (5_000, 15_000), "60k": (60_000, 10_000)}


def load(name: str, protocol: str) -> tuple[np.ndarray, ...]:
    """(training rows, their labels, rows to judge by, their labels)."""
    with np.load(Path(os.environ["FASTPDR_DATA"]) / f"{name}.npz") as archive:
        X, y = archive["X"], archive["y"] if "y" in archive else np.zeros(len(archive["X"]))
    if protocol == "all":
        return X, y, X[:2000], y[:2000]
    n, m = SPLITS[protocol]
    order = np.random.default_rng(0).permutation(len(X))
    X, y = X[order[: n + m]].astype(np.float32), y[order[: n + m]]
    X = X / 255 if X.max() > 100 else (X - X[:n].mean(0)) / X[:n].std(0)
    return X[:n], y[:n], X[n:], y[n:]


def status(name: str) -> int:
    """A line of /proc/self/status in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) // 1024


def estimator(method: str, data: str, seed: int, threads: int) -> Any:
    """The method with its defaults; cosine distances for word vectors."""
    metric = {"metric": "cosine"} if data.startswith("glove") else {}
    if method == "umap-learn":
        import umap

        umap.UMAP(n_jobs=threads).fit(np.random.default_rng(0).normal(size=(500, 20))).transform(np.zeros((20, 20)))
        return umap.UMAP(n_jobs=threads, **metric)
    import fastpdr

    if method == "ParametricTSNE-knn":
        return fastpdr.ParametricTSNE(affinity="knn", random_state=seed, verbose=True)
    return getattr(fastpdr, method)(random_state=seed, verbose=True, **metric)


def quality(protocol: str, train_map: Any, y_train: Any, test: Any, test_map: Any, y_test: Any) -> dict[str, float]:
    """What the protocol judges the unseen rows by."""
    from fastpdr import metrics

    if protocol == "all":
        return {"finite": bool(np.isfinite(train_map).all())}
    if protocol == "5k":
        scores = {
            "trustworthiness_7": metrics.trustworthiness(test, test_map, n_neighbors=7),
            "continuity_7": metrics.continuity(test, test_map, n_neighbors=7),
            "neighborhood_hit_7": metrics.neighborhood_hit(test_map, y_test, n_neighbors=7),
        }
        return {**scores, "mu": float(np.mean(list(scores.values())))}
    return {
        "trustworthiness_15": metrics.trustworthiness(test, test_map, n_neighbors=15),
        "neighborhood_preservation_15": metrics.neighborhood_preservation(test, test_map, n_neighbors=15),
        "knn10_accuracy": metrics.knn_accuracy(train_map, y_train, test_map, y_test, n_neighbors=10),
        "rnx_auc": metrics.rnx_auc(test, test_map, sample=2000),
    }


def main(method: str, data: str, protocol: str, threads: int, seed: int) -> dict[str, Any]:
    """Fit, place, judge."""
    import torch

    torch.set_num_threads(threads)
    train, y_train, test, y_test = load(data, protocol)
    model, preparing = timed(lambda: estimator(method, data, seed, threads))
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = status("VmRSS")
    _, fitting = timed(lambda: model.fit(train))
    peak = status("VmHWM") - before
    test_map, placing = timed(lambda: model.transform(test))
    return {
        **{f"fit_{unit}": seconds for unit, seconds in fitting.items()},
        "transform_wall_s": placing["wall_s"],
        "peak_beyond_data_mb": peak,
        "preparing_wall_s": preparing["wall_s"],
        "n_epochs": getattr(model, "n_iter_", None),
        **quality(protocol, model.embedding_, y_train, test, test_map, y_test),
    }


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    arguments = sys.argv[1:4]
    print(json.dumps(main(*arguments, int(sys.argv[4]), int(sys.argv[5]))))
