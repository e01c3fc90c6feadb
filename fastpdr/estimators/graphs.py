"""The user's own graph of neighbours, ``precomputed_knn``: what may be given, and whether it fits the data."""

from __future__ import annotations

from typing import Any

from fastpdr.graph import KNNGraph


def given_graph(value: Any, metric: str, name: str) -> KNNGraph | None:
    """The user's graph: one of ours, umap-learn's (indices, distances[, index]), or none."""
    if value is None or isinstance(value, KNNGraph):
        return value
    if len(value) not in (2, 3):
        raise ValueError(
            f"{name}: precomputed_knn must be a KNNGraph or (indices, distances[, index]), got {len(value)} items"
        )
    indices, distances = value[:2]
    if indices is None and distances is None:
        return None
    try:
        return KNNGraph.from_precomputed(indices, distances, metric=metric)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: precomputed_knn is no graph of neighbours ({error})") from error


def fitting_graph(graph: KNNGraph, n: int, k: int, name: str) -> KNNGraph:
    """The k nearest of a given graph, which must be of n rows."""
    if graph.n != n:
        raise ValueError(f"{name}: precomputed_knn must have a row for each of the {n} rows of X, got {graph.n}")
    if graph.k < k:
        raise ValueError(
            f"{name}: precomputed_knn must have at least {k} neighbours without the row itself, got {graph.k}"
        )
    return graph.take(k)
