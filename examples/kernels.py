"""The kernels alone, without estimators: t-SNE and UMAP by hand, arrays of NumPy in and out, torch.compile.

Takes 20 seconds on scikit-learn's digits, half of it for torch.compile; with --data a minute on 5,000 rows of MNIST
(mnist_70k.npz). Writes map.png. In C++ the same functions need neither torch nor Python: tests/cpp/consumer.
"""

from __future__ import annotations

import common
import numpy as np
import torch
from matplotlib.figure import Figure

import fastpdr
from fastpdr import graph, ops

parser = common.parser(__doc__, rows=5_000)
parser.add_argument("--compiler", default="inductor", help="backend of torch.compile (default: inductor)")
options = parser.parse_args()
folder = common.output_folder(options, "kernels")

X, y = common.digits_or(options, "mnist_70k.npz")
X = np.ascontiguousarray(X, dtype=np.float32)
n = len(X)

# Arrays of NumPy go in without a copy, .numpy() brings results back.
neighbors = graph.KNNGraph.build(X, 90)
sqdist = torch.from_numpy(neighbors.distances**2)  # [n, 90]
p, beta = ops.perplexity_search(sqdist, [5, 30])  # both perplexities from one read; a row of p is their mean
effective = np.exp(-np.sum(p.numpy() * np.log(np.maximum(p.numpy(), 1e-30)), axis=1))
print(f"effective neighbours of a row: {np.median(effective):.1f}")

# t-SNE without a network: the places themselves are what is trained. P is sparse, no [n, n] array is made.
P = ops.symmetrize(torch.from_numpy(neighbors.indices.copy()), p, sum_factor=0.5 / n)  # a graph is read-only
start = torch.randn(n, 2, generator=torch.Generator().manual_seed(0))
tsne = (1e-2 * start).requires_grad_()
divergence = torch.compile(
    lambda places, factor: ops.student_t_kl(places, P, exaggeration=factor), backend=options.compiler
)
descent = torch.optim.Adam([tsne], lr=5.0)
for step in range(300):
    loss = divergence(tsne, 12.0 if step < 100 else 1.0)
    descent.zero_grad()
    loss.backward()
    descent.step()
reached = ops.student_t_kl(tsne.detach(), P).item()
print(
    f"t-SNE: divergence {reached:.3f}, trustworthiness {fastpdr.metrics.trustworthiness(X, tsne.detach().numpy()):.3f}"
)

# The reference says the same in plain PyTorch and float64; it is what runs where nothing is compiled.
exact = fastpdr.reference.student_t_kl(tsne.detach().double(), P.double())
print(f"kernel and reference differ by {abs(reached - exact.item()) / exact.item():.1e}")

# UMAP in batches of drawn edges: the fuzzy set, edges by their weights, what it says of their ends, the loss.
fuzzy = graph.fuzzy_set(neighbors.take(14))
table = ops.alias_table(fuzzy.values())
heads = torch.repeat_interleave(torch.arange(n), fuzzy.crow_indices().diff())  # [e], row of each edge
umap = start.clone().requires_grad_()
descent = torch.optim.Adam([umap], lr=0.2)
for step in range(400):
    edges = ops.sample_edges(table, n // 2, seed=0, step=step)
    rows = torch.cat([heads[edges], fuzzy.col_indices()[edges]]).unique()
    part = ops.subgraph(fuzzy.crow_indices(), fuzzy.col_indices(), fuzzy.values(), rows)
    loss = ops.pair_loss(umap[rows], part, a=1.577, b=0.895, repulsion=5.0)
    descent.zero_grad()
    loss.backward()
    descent.step()
print(f"UMAP: loss {loss:.3f}, trustworthiness {fastpdr.metrics.trustworthiness(X, umap.detach().numpy()):.3f}")

axes = Figure(figsize=(13, 6), layout="constrained").subplots(1, 2)
fastpdr.plotting.map(tsne.detach().numpy(), y, ax=axes[0], title="t-SNE by student_t_kl", legend=False)
fastpdr.plotting.map(umap.detach().numpy(), y, ax=axes[1], title="UMAP by pair_loss")
fastpdr.plotting.save(axes[0].figure, folder / "map.png")
print(f"written: {folder}")
