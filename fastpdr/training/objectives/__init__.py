"""One file per family: what a batch is compared with, and the op that compares."""

from fastpdr.training.objectives.base import Objective
from fastpdr.training.objectives.pairs import Curve, PairObjective, curve_of
from fastpdr.training.objectives.tsne import BatchTSNE, NeighborTSNE, automatic_perplexities

__all__ = ["BatchTSNE", "Curve", "NeighborTSNE", "Objective", "PairObjective", "automatic_perplexities", "curve_of"]
