"""Similarities of nearest neighbours, symmetric and sparse: t-SNE's of one or several perplexities, UMAP's fuzzy set.

Both are one pass of a kernel over the rows of the graph and one symmetrisation: what t-SNE and UMAP optimise differs,
their input does not. The perplexities are all sought in one call, so that the multiscale P costs little more than that
of one scale (van der Maaten & Hinton 2008; Lee et al. 2015; McInnes et al. 2018).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch

from fastpdr import ops
from fastpdr._progress import phase
from fastpdr.data import as_tensor
from fastpdr.graph.knn import KNNGraph

ROWS_AT_ONCE = 1 << 16
NEIGHBORS_PER_PERPLEXITY = 3  # beyond, a Gaussian of the perplexity has next to no mass: the convention of t-SNE


@phase("similarities by perplexity")
def perplexity_affinities(graph: KNNGraph, perplexities: float | Sequence[float]) -> torch.Tensor:
    """t-SNE's joint probabilities, of one perplexity or averaged over several.

    ``P = (p + pᵀ) / 2n``, where row i of p has the given perplexity among the neighbours of row i.

    Parameters
    ----------
    graph : KNNGraph
        At least 3 neighbours for every unit of the largest perplexity, or all n - 1 other rows. Neighbours that are
        missing have no part; a row without any has none in P.
    perplexities : float or sequence of float
        H values >= 1. With several, p is their mean: the global multiscale P.

    Returns
    -------
    torch.Tensor
        ``sparse_csr`` ``[n, n]`` float32, symmetric, of sum 1.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or range, or the graph has too few neighbours.

    References
    ----------
    van der Maaten & Hinton (2008), Visualizing Data using t-SNE, JMLR 9. Lee, Peluffo-Ordóñez & Verleysen (2015),
    Multi-scale similarities in stochastic neighbour embedding, Neurocomputing 169.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from fastpdr import KNNGraph, graph
    >>> P = graph.perplexity_affinities(KNNGraph.build(load_iris().data, 90), [5, 30])
    >>> P.shape, round(P.values().sum().item(), 4)
    (torch.Size([150, 150]), 1.0)
    """
    _require_graph("perplexity_affinities", graph)
    _require_neighbors(graph, perplexities)
    indices, distances = as_tensor(graph.indices), as_tensor(graph.distances)
    p, exponent = torch.empty_like(distances), _exponent(graph)
    # No row needs another, and so no copy of all distances.
    for begin in range(0, len(p), ROWS_AT_ONCE):
        part = slice(begin, begin + ROWS_AT_ONCE)
        p[part], _ = ops.perplexity_search((distances[part] / 2.0**exponent).square(), perplexities)
    lonely = int(graph.total(float((indices[:, 0] < 0).sum())))  # what is missing stands last
    return graph.symmetrized(p, 0.5 / max(1, graph.n - lonely))


@phase("fuzzy set of neighbours")
def fuzzy_set(graph: KNNGraph, set_op_mix_ratio: float = 1.0, local_connectivity: float = 1.0) -> torch.Tensor:
    """UMAP's fuzzy simplicial set.

    Parameters
    ----------
    graph : KNNGraph
        UMAP counts the point itself: its ``n_neighbors=15`` is a graph of 14 neighbours.
    set_op_mix_ratio : float
        From 0, the fuzzy intersection of the two directions, to 1, their union.
    local_connectivity : float
        Neighbours that are fully connected, >= 0.

    Returns
    -------
    torch.Tensor
        ``sparse_csr`` ``[n, n]`` float32, symmetric, entries in (0, 1].

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or range.

    References
    ----------
    McInnes, Healy & Melville (2018), UMAP: Uniform Manifold Approximation and Projection for Dimension Reduction,
    section 3.1.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from fastpdr import KNNGraph, graph
    >>> fuzzy = graph.fuzzy_set(KNNGraph.build(load_iris().data, 14))
    >>> fuzzy.shape, fuzzy.values().max().item()
    (torch.Size([150, 150]), 1.0)
    """
    _require_graph("fuzzy_set", graph)
    ratio = set_op_mix_ratio
    if isinstance(ratio, bool) or not isinstance(ratio, int | float | np.floating) or not 0 <= ratio <= 1:
        raise ValueError(f"fuzzy_set: set_op_mix_ratio must be from 0 to 1, got {ratio!r}")
    weights = ops.fuzzy_weights(as_tensor(graph.distances), local_connectivity=local_connectivity)[0]
    # mix (A + Aᵀ - A∘Aᵀ) + (1 - mix) A∘Aᵀ
    return graph.symmetrized(weights, float(ratio), 1.0 - 2.0 * ratio)


def _exponent(graph: KNNGraph) -> int:
    """Of the power of two by which distances of any scale become about 1 at most, which a perplexity does not see."""
    parts = (part[part < torch.inf] for part in as_tensor(graph.distances).split(ROWS_AT_ONCE))
    largest = max((float(part.max()) for part in parts if len(part)), default=0.0)
    return math.frexp(graph.largest(largest))[1]


def _require_graph(function: str, graph: object) -> None:
    if not isinstance(graph, KNNGraph):
        raise TypeError(f"{function}: graph must be a KNNGraph, got {type(graph).__name__}")


def _require_neighbors(graph: KNNGraph, perplexities: float | Sequence[float]) -> None:
    levels = list(perplexities) if isinstance(perplexities, Iterable) else [perplexities]
    numbers = [level for level in levels if isinstance(level, int | float | np.number) and math.isfinite(level)]
    largest = max(numbers, default=1.0)  # what is no number, ops.perplexity_search refuses
    needed = min(graph.n - 1, int(NEIGHBORS_PER_PERPLEXITY * largest))
    if graph.n > 1 and largest >= graph.n:
        raise ValueError(
            f"perplexity_affinities: perplexities must be less than the graph's {graph.n} rows, got {largest:g}"
        )
    if graph.k < needed:
        raise ValueError(
            f"perplexity_affinities: graph must have k >= {needed} neighbours for perplexity {largest:g}, got "
            f"k = {graph.k}; build it with n_neighbors={needed}"
        )
