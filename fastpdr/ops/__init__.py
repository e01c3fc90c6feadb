"""The kernels as differentiable functions of tensors, each with its reference in :mod:`fastpdr.reference`."""

from fastpdr.ops.coranking import coranking
from fastpdr.ops.fuzzy import fuzzy_weights
from fastpdr.ops.layer_norm_gelu import layer_norm_gelu
from fastpdr.ops.pairs import pair_loss
from fastpdr.ops.perplexity import perplexity_search
from fastpdr.ops.sampling import alias_table, sample_edges
from fastpdr.ops.student_t import student_t_kl
from fastpdr.ops.subgraph import subgraph
from fastpdr.ops.symmetrize import symmetrize

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
