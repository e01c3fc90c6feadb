"""Nearest neighbours, and what the methods make of them: similarities, fuzzy sets, supervision by labels.

A :class:`KNNGraph` is built once and used for every method and every setting.
"""

from __future__ import annotations

from fastpdr.graph.affinities import fuzzy_set, perplexity_affinities
from fastpdr.graph.knn import KNNGraph
from fastpdr.graph.supervision import categorical_intersection, continuous_intersection

__all__ = ["KNNGraph", "categorical_intersection", "continuous_intersection", "fuzzy_set", "perplexity_affinities"]
