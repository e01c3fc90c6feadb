"""What people use today, written plainly, each the fair form of its kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch


def scikit_learn_search(sqdist: np.ndarray, perplexity: float) -> np.ndarray:
    """scikit-learn's search, serial, float32 in and float32 out."""
    from sklearn.manifold._utils import _binary_search_perplexity

    return np.asarray(_binary_search_perplexity(sqdist, perplexity, 0))


def opentsne_search(distances: np.ndarray, perplexity: float, threads: int) -> np.ndarray:
    """OpenTSNE's parallel search; takes distances, not their squares."""
    from openTSNE import _tsne

    return np.asarray(_tsne.compute_gaussian_perplexity(distances, np.array([perplexity]), num_threads=threads))


def make_numba_bisection() -> Any:
    """The multiscale search as today's parametric packages do it: compiled bisection, row by row, scale by scale.

    Bisection of beta from 1, at most 50 tries, 1e-5 nats. The shift by the minimum is added to theirs, without which
    rows of wide data are NaN.
    """
    import numba

    @numba.njit
    def bisect_row(sqdist, log_perplexity):
        shifted = sqdist - sqdist.min()
        beta, low, high = 1.0, -np.inf, np.inf
        weights = np.exp(-shifted * beta)
        for _ in range(50):
            weights = np.exp(-shifted * beta)
            total = weights.sum()
            entropy = np.log(total) + beta * (shifted * weights).sum() / total
            weights = weights / total
            error = entropy - log_perplexity
            if abs(error) <= 1e-5:
                break
            if error > 0:
                low = beta
                beta = beta * 2 if high == np.inf else (beta + high) / 2
            else:
                high = beta
                beta = beta / 2 if low == -np.inf else (beta + low) / 2
        return weights

    def search(sqdist: np.ndarray, perplexities: Sequence[float]) -> np.ndarray:
        n = len(sqdist)
        p = np.zeros((n, n))
        others = ~np.eye(n, dtype=bool)
        for perplexity in perplexities:
            for i in range(n):
                p[i, others[i]] += bisect_row(sqdist[i, others[i]], np.log(perplexity))
        return p / len(perplexities)

    return search


def eager_student_t_kl(y: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
    """The loss in the usual PyTorch: Gram distances, 1 / (1 + d), log, gradient by autograd. p sums to 1."""
    w = 1 / (1 + gram_distances(y))
    w = w * (1 - torch.eye(len(y), dtype=y.dtype, device=y.device))
    q = (w / w.sum()).clamp_min(1e-15)
    return (p * torch.log((p + 1e-15) / q)).sum()


def eager_student_t_kl_by_row(y: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
    """The same with a sum for every row, weighted by the row's mass; p dense."""
    p = p / p.sum()
    mass = p.sum(1, keepdim=True).clamp_min(1e-15)
    w = 1 / (1 + gram_distances(y))
    w = w * (1 - torch.eye(len(y), dtype=y.dtype, device=y.device))
    q = (w / w.sum(1, keepdim=True)).clamp_min(1e-15)
    return (p * torch.log((p / mass + 1e-15) / q)).sum()


def gram_distances(y: torch.Tensor) -> torch.Tensor:
    """Squared distances [b, b] by one matrix product."""
    square = y.square().sum(1)
    return (square[:, None] + square[None, :] - 2 * y @ y.T).clamp_min(0)


def eager_pair_loss(
    y: torch.Tensor, targets: torch.Tensor, *, a: float, b: float, repulsion: float, eps: float
) -> torch.Tensor:
    """UMAP's and LargeVis's loss over all pairs in the usual PyTorch, gradient by autograd; targets dense.

    The diagonal is set to 1 before the power, whose slope at 0 is infinite for b < 1.
    """
    count = len(y)
    same = torch.eye(count, dtype=torch.bool, device=y.device)
    sqdist = gram_distances(y).masked_fill(same, 1.0).clamp_min(1e-12)
    attraction = (targets * torch.log1p(a * sqdist**b)).sum() / targets.sum()
    q = 1 / (1 + a * (sqdist + eps) ** b)
    return attraction - repulsion * torch.log1p(-q.masked_fill(same, 0.0)).sum() / (count * (count - 1))


def eager_layer_norm_gelu(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """LayerNorm and GELU one after the other; bfloat16 rows with a float32 weight are what autocast has on the CPU."""
    return torch.nn.functional.gelu(torch.nn.functional.layer_norm(x, weight.shape, weight, bias))


def numpy_draws(generator: np.random.Generator, p: np.ndarray, n_edges: int, batches: int) -> np.ndarray:
    """Edges of several batches by numpy's choice, which sums the probabilities anew for each; p sums to 1."""
    return np.stack([generator.choice(len(p), size=n_edges, p=p) for _ in range(batches)])


def scipy_subgraph(matrix: Any, rows: np.ndarray) -> Any:
    """The entries of a scipy csr matrix among some rows."""
    return matrix[rows][:, rows]


def umap_memberships(indices: np.ndarray, distances: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """umap-learn's compiled search and weights; its rows begin with the point itself: [n, k + 1], int32 and float32."""
    from umap.umap_ import compute_membership_strengths, smooth_knn_dist

    sigma, rho = smooth_knn_dist(distances, float(distances.shape[1]))
    weights = compute_membership_strengths(indices, distances, sigma, rho)[2]
    return weights.reshape(distances.shape)[:, 1:], rho, sigma


def scipy_fuzzy_union(indices: np.ndarray, values: np.ndarray) -> Any:
    """UMAP's union in scipy: A + A^T - A o A^T, csr; made from [n, k]."""
    from scipy.sparse import csr_matrix

    n, k = indices.shape
    A = csr_matrix((values.ravel(), indices.ravel(), np.arange(n + 1) * k), (n, n))
    transposed = A.T.tocsr()
    return A + transposed - A.multiply(transposed)


def pynndescent_graph(x: np.ndarray, k: int, metric: str, threads: int) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest others by pynndescent, with its defaults; a row usually finds itself first."""
    from pynndescent import NNDescent

    return NNDescent(x, metric=metric, n_neighbors=k + 1, n_jobs=threads, random_state=0).neighbor_graph


def umap_fuzzy_set(indices: np.ndarray, distances: np.ndarray) -> Any:
    """UMAP-learn's fuzzy simplicial set of given neighbours, the row itself among them."""
    from umap.umap_ import fuzzy_simplicial_set

    nothing = np.empty((len(indices), 1))  # only its number of rows is read
    seed = np.random.RandomState(0)
    return fuzzy_simplicial_set(nothing, indices.shape[1], seed, "euclidean", {}, indices, distances)[0]


def opentsne_affinities(indices: np.ndarray, distances: np.ndarray, perplexity: float, threads: int) -> Any:
    """OpenTSNE's joint probabilities of given neighbours; takes float64."""
    from openTSNE.affinity import joint_probabilities_nn

    return joint_probabilities_nn(indices, distances, [perplexity], n_jobs=threads)


class UmapLayout:
    """umap-learn's compiled descent on the places themselves, one epoch at a call.

    Parameters
    ----------
    graph : scipy sparse matrix
        The fuzzy set [n, n].
    a, b : float
        Of the curve.
    n_epochs : int
        Of the schedule: edges below the largest weight / n_epochs are never visited.
    parallel : bool
        numba's threads, or one.
    """

    def __init__(self, graph: Any, a: float, b: float, n_epochs: int = 200, parallel: bool = False) -> None:
        from umap.layouts import _get_optimize_layout_euclidean_single_epoch_fn
        from umap.umap_ import make_epochs_per_sample

        edges = graph.tocoo()
        kept = edges.data >= edges.data.max() / n_epochs
        self.head, self.tail = edges.row[kept].astype(np.int32), edges.col[kept].astype(np.int32)
        self.every = make_epochs_per_sample(edges.data[kept], n_epochs)
        self.next_sample = self.every.copy()
        self.next_negative = self.every / 5
        rng = np.random.default_rng(0)
        self.places = rng.uniform(-10, 10, (graph.shape[0], 2)).astype(np.float32)
        self.generators = rng.integers(2**31 - 1, size=(graph.shape[0], 3))
        self.a, self.b, self.number = a, b, 1
        self.descend = _get_optimize_layout_euclidean_single_epoch_fn(parallel)

    def due(self) -> int:
        """Positive pairs of the next epoch, each with five negative ones."""
        return int((self.next_sample <= self.number).sum())

    def epoch(self) -> None:
        """Visit all edges that are due."""
        none = np.zeros(1, dtype=np.float32)
        self.descend(
            *(self.places, self.places, self.head, self.tail, len(self.places), self.every, self.a, self.b),
            *(self.generators, 1.0, 2, True, 1.0, self.every / 5, self.next_negative, self.next_sample, self.number),
            *(False, none, none, 0, 0, 0, 0, none, none, 0),  # of densMAP
        )
        self.number += 1


class PerEdgeUMAP:
    """The published per-edge way to train an encoder for UMAP: a Python loop collects the pairs of every epoch.

    An edge is due every ``largest weight / weight`` epochs, and brings one positive pair and about five negative ones
    with random rows. All pairs of an epoch are shuffled and cut into batches of 5 x 4096; both ends of each pair are
    encoded. The loss is a sum over the batch; what a coincident pair's infinite slope would make of the gradient is
    clamped at the distance.

    Parameters
    ----------
    n_epochs : int
        Edges below the largest weight / n_epochs are never visited.
    seed : int
    """

    batch_pairs, negatives, rate = 4096 * 5, 5, 1e-3

    def __init__(self, n_epochs: int, seed: int = 0) -> None:
        self.n_epochs, self.seed = n_epochs, seed
        self.positive_pairs = 0

    def fit(self, X: torch.Tensor, graph: Any, a: float, b: float) -> torch.Tensor:
        """Train on rows [n, d] and their fuzzy set, a scipy matrix; returns the map [n, 2]."""
        torch.manual_seed(self.seed)
        rng = np.random.default_rng(self.seed)
        edges = graph.tocoo()
        kept = edges.data >= edges.data.max() / self.n_epochs
        self.head, self.tail = edges.row[kept], edges.col[kept]
        self.every = edges.data.max() / edges.data[kept]
        self.next_sample, self.next_negative = self.every.copy(), self.every / self.negatives
        encoder = self.make_encoder(X.shape[1])
        optimizer = torch.optim.RMSprop(encoder.parameters(), self.rate)
        for epoch in range(1, self.n_epochs + 1):
            pairs = self.collect(epoch, len(X), rng)
            for begin in range(0, len(pairs), self.batch_pairs):
                self.step(encoder, optimizer, X, pairs[begin : begin + self.batch_pairs], a, b)
            optimizer.param_groups[0]["lr"] = self.rate * (1 - epoch / self.n_epochs)
        with torch.no_grad():
            return encoder(X)

    def make_encoder(self, d: int) -> torch.nn.Sequential:
        """Widths 512, 256, and three times the same layer of 256, as published."""
        tied = [torch.nn.Linear(256, 256), torch.nn.LeakyReLU()] * 3
        first = [torch.nn.Linear(d, 512), torch.nn.LeakyReLU(), torch.nn.Linear(512, 256), torch.nn.LeakyReLU()]
        return torch.nn.Sequential(*first, *tied, torch.nn.Linear(256, 2))

    def collect(self, epoch: int, n: int, rng: np.random.Generator) -> torch.Tensor:
        """The epoch's pairs [m, 3], shuffled: two rows, and 1 where they attract."""
        pairs = []
        for edge in range(len(self.head)):
            if self.next_sample[edge] > epoch:
                continue
            i = self.head[edge]
            pairs.append((i, self.tail[edge], 1))
            self.positive_pairs += 1
            count = int((epoch - self.next_negative[edge]) * self.negatives / self.every[edge])
            for j in rng.integers(n, size=count):
                pairs.append((i, j, 0))
            self.next_sample[edge] += self.every[edge]
            self.next_negative[edge] += count * self.every[edge] / self.negatives
        return torch.from_numpy(rng.permutation(np.array(pairs, dtype=np.int64).reshape(-1, 3)))

    def step(
        self,
        encoder: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        X: torch.Tensor,
        pairs: torch.Tensor,
        a: float,
        b: float,
    ) -> None:
        """One update of the encoder."""
        i, j, attracts = pairs.unbind(1)
        sqdist = (encoder(X[i]) - encoder(X[j])).square().sum(1)
        sqdist.register_hook(lambda grad: grad.clamp(-1e14, 1e14))
        w = (1 / (1 + a * sqdist**b)).clamp(0, 1)
        loss = -torch.where(attracts == 1, torch.log(w + 1e-12), torch.log(1 - w + 1e-12)).sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_value_(encoder.parameters(), 4)
        optimizer.step()
