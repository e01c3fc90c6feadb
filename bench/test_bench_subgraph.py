"""The similarities inside a batch against scipy's indexing, which takes longer the larger the matrix is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cases import GRAPH_BATCH, GRAPH_ROWS, symmetric_graph
from competitors import scipy_subgraph
from scipy.sparse import csr_matrix

from fastpdr import ops


@pytest.mark.parametrize("n", [GRAPH_ROWS, 1_000_000])
def test_batch_against_scipy(n, versus, benchmark):
    """Other rows in every call, as in training, and indices of 32 bits for scipy, as it makes them itself."""
    if benchmark.disabled:
        n = min(n, GRAPH_ROWS)
    graph = symmetric_graph(n)
    parts = graph.crow_indices(), graph.col_indices(), graph.values()
    matrix = csr_matrix((parts[2].numpy(), parts[1].numpy().astype(np.int32), parts[0].numpy().astype(np.int32)))
    rng = np.random.default_rng(0)
    batches = [rng.choice(n, GRAPH_BATCH, replace=False) for _ in range(64)]
    tensors = [torch.from_numpy(rows) for rows in batches]
    calls = {"ours": 0, "theirs": 0}

    def following(key: str) -> int:
        calls[key] += 1
        return calls[key] % len(batches)

    result, expected = ops.subgraph(*parts, tensors[0]), scipy_subgraph(matrix, batches[0])
    assert np.array_equal(result.to_dense().numpy(), expected.toarray())
    versus(
        lambda: ops.subgraph(*parts, tensors[following("ours")]),
        lambda: scipy_subgraph(matrix, batches[following("theirs")]),
        "scipy csr[rows][:, rows] (1 thread: it has no more)",
        31,
    )


def test_cost_of_the_call(benchmark):
    """A batch of one row: checks, dispatch and the making of a sparse tensor."""
    graph = symmetric_graph(1000)
    parts = graph.crow_indices(), graph.col_indices(), graph.values()
    rows = torch.tensor([17])
    benchmark(lambda: ops.subgraph(*parts, rows))
