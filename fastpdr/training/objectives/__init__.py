"""One file per family: what a batch is compared with, and the op that compares."""

from fastpdr.training.objectives.tsne import BatchTSNE, automatic_perplexities

__all__ = ["BatchTSNE", "automatic_perplexities"]
