"""Every op again in plain PyTorch: written to be read, exact in float64, the fallback where nothing is compiled."""

from fastpdr.reference.coranking import coranking
from fastpdr.reference.fuzzy import fuzzy_weights
from fastpdr.reference.layer_norm_gelu import layer_norm_gelu
from fastpdr.reference.pairs import pair_loss
from fastpdr.reference.perplexity import perplexity_search
from fastpdr.reference.sampling import alias_table, sample_edges
from fastpdr.reference.student_t import student_t_kl
from fastpdr.reference.subgraph import subgraph
from fastpdr.reference.symmetrize import symmetrize

__all__ = [
    "alias_table",
    "coranking",
    "fuzzy_weights",
    "layer_norm_gelu",
    "pair_loss",
    "perplexity_search",
    "sample_edges",
    "student_t_kl",
    "subgraph",
    "symmetrize",
]
