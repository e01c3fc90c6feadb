"""The inputs of all benchmarks, declared once, with fixed seeds; real data from $FASTPDR_DATA where it is set."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

THREADS = 2
KNN_ROWS, KNN_NEIGHBORS, KNN_PERPLEXITY = 20_000, 90, 30.0
BATCH_ROWS = 500
BATCH_SCALES = [2.0**h for h in range(1, 9)]  # round(log2(500 / 2)) = 8
MAP_SIZES = [500, 1000, 5000]
PAIR_SIZES, PAIRS_OF_A_ROW = [512, 1024, 2048], 4  # batches of drawn edges
SPARSE_ROWS, SPARSE_NEIGHBORS = 5000, 90
LAYER_ROWS, LAYER_WIDTH = [512, 2048], 256  # batches in a hidden layer of the network that is built in
EDGES, EDGES_OF_BATCH = 1_300_000, 512
BLOB_ROWS, BLOB_COLUMNS, BLOBS = 10_000, 50, 10
GRAPH_ROWS, GRAPH_NEIGHBORS, GRAPH_BATCH = 60_000, 14, 1024  # UMAP's default: 15 neighbours with the point itself


def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Standardised digits, a quarter held out: (train, train labels, test, test labels)."""
    X, y = load_digits(return_X_y=True)
    train, test, y_train, y_test = train_test_split(X, y, test_size=0.25, random_state=0)
    scaler = StandardScaler().fit(train)
    return scaler.transform(train), y_train, scaler.transform(test), y_test


def neighbor_distances() -> torch.Tensor:
    """Sorted squared distances [20,000, 90] of points of N(0, I) in 10 dimensions to their nearest neighbours."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(KNN_ROWS, 10, generator=generator)
    blocks = [torch.cdist(part, x).topk(KNN_NEIGHBORS + 1, largest=False).values[:, 1:] for part in x.split(2000)]
    return torch.cat(blocks).square()


def batch_distances() -> torch.Tensor:
    """Squared distances [500, 500] of standardised digits, inf on the diagonal."""
    x = torch.from_numpy(digits()[0][:BATCH_ROWS])
    return torch.cdist(x, x).square().float().fill_diagonal_(torch.inf)


def dense_map(b: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A map [b, 2] that asks for gradients, and a symmetric p [b, b] of perplexity 30."""
    from fastpdr import ops

    generator = torch.Generator().manual_seed(0)
    x = torch.randn(b, 20, generator=generator)
    p, _ = ops.perplexity_search(torch.cdist(x, x).square().fill_diagonal_(torch.inf), 30.0)
    p = p + p.T
    y = torch.randn(b, 2, generator=generator).mul_(3).requires_grad_()
    return y, p / p.sum()


def sparse_map(b: int, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A map [b, 2] and a sparse_csr p with k entries in every row."""
    generator = torch.Generator().manual_seed(0)
    columns = torch.rand(b, b, generator=generator).topk(k).indices.sort(1).values
    values = torch.rand(b * k, generator=generator)
    p = torch.sparse_csr_tensor(torch.arange(b + 1) * k, columns.ravel(), values / values.sum(), (b, b))
    return torch.randn(b, 2, generator=generator).mul_(3).requires_grad_(), p


def batch_map(b: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A map [b, 2] and the weights of a batch of drawn edges, symmetric, about 4 in a row: sparse_csr, and dense."""
    generator = torch.Generator().manual_seed(0)
    edges = torch.randint(b, (2, b * PAIRS_OF_A_ROW // 2), generator=generator)
    dense = torch.zeros(b, b)
    dense[edges[0], edges[1]] = 0.1 + 0.9 * torch.rand(edges.shape[1], generator=generator)
    dense = torch.maximum(dense, dense.T).fill_diagonal_(0)
    y = torch.randn(b, 2, generator=generator).mul_(3).requires_grad_()
    return y, dense.to_sparse_csr(), dense


def hidden_layer(n: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows [n, 256] of a hidden layer, weight and bias, that ask for gradients, and the gradient that comes in."""
    generator = torch.Generator().manual_seed(0)
    x, grad = (torch.randn(n, LAYER_WIDTH, generator=generator).to(dtype) for _ in range(2))
    weight, bias = (0.1 * torch.randn(LAYER_WIDTH, generator=generator) + mean for mean in (1.0, 0.0))
    return x.requires_grad_(), weight.requires_grad_(), bias.requires_grad_(), grad


def edge_weights() -> torch.Tensor:
    """Weights [1.3 million] of edges, as uneven as memberships: between 0 and 1, most of them small."""
    return torch.rand(EDGES, generator=torch.Generator().manual_seed(0)) ** 3


def neighbor_graph(n: int = GRAPH_ROWS) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices [n, 14] and ascending distances [n, 14] of a graph as local as that of neighbours, its rows shuffled."""
    generator = torch.Generator().manual_seed(0)
    nearest = torch.rand(n, 60, generator=generator).topk(GRAPH_NEIGHBORS).indices - 30
    nearest += nearest >= 0  # others than the row itself
    place = torch.randperm(n, generator=generator)
    indices = place[(place.argsort()[:, None] + nearest) % n]
    distances = torch.randn(n, GRAPH_NEIGHBORS, 10, generator=generator).square().sum(2).sqrt().sort(1).values
    return indices, distances


def symmetric_graph(n: int = GRAPH_ROWS) -> torch.Tensor:
    """The fuzzy union [n, n] of that graph, sparse_csr, some 22 entries in a row."""
    from fastpdr import ops

    indices, distances = neighbor_graph(n)
    return ops.symmetrize(indices, ops.fuzzy_weights(distances)[0], product_factor=-1.0)


def real_rows(name: str) -> np.ndarray:
    """A data set of the folder $FASTPDR_DATA; without it the benchmark is skipped."""
    folder = os.environ.get("FASTPDR_DATA")
    path = Path(folder or ".") / f"{name}.npz"
    if not folder or not path.exists():
        pytest.skip(f"set FASTPDR_DATA to a folder that holds {name}.npz, whose array X has the rows")
    return np.load(path)["X"]


def blobs(n: int = BLOB_ROWS) -> tuple[np.ndarray, torch.Tensor]:
    """Gaussian blobs [n, 50] float32, and their fuzzy set [n, n] of 14 neighbours, sparse_csr."""
    from sklearn.datasets import make_blobs

    from fastpdr.graph import KNNGraph, fuzzy_set

    X = make_blobs(n, BLOB_COLUMNS, centers=BLOBS, random_state=0)[0].astype(np.float32)
    return X, fuzzy_set(KNNGraph.build(X, GRAPH_NEIGHBORS, random_state=0))


def as_scipy(graph: torch.Tensor) -> Any:
    """A sparse_csr tensor as scipy's matrix."""
    from scipy.sparse import csr_matrix

    parts = graph.values(), graph.col_indices(), graph.crow_indices()
    return csr_matrix(tuple(part.numpy() for part in parts), tuple(graph.shape))
