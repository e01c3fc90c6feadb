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
    square = y.square().sum(1)
    sqdist = (square[:, None] + square[None, :] - 2 * y @ y.T).clamp_min(0)
    w = 1 / (1 + sqdist)
    w = w * (1 - torch.eye(len(y), dtype=y.dtype))
    q = (w / w.sum()).clamp_min(1e-15)
    return (p * torch.log((p + 1e-15) / q)).sum()


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
