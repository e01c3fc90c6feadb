"""Nearest neighbours, and what the methods make of them: similarities, fuzzy sets, supervision by labels.

A :class:`KNNGraph` is built once and used for every method and every setting.
"""

from __future__ import annotations

from fastpdr.graph.affinities import fuzzy_set, perplexity_affinities
from fastpdr.graph.knn import KNNGraph

__all__ = ["KNNGraph", "fuzzy_set", "perplexity_affinities"]
