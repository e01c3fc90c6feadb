"""The kernels as differentiable functions of tensors, each with its reference in :mod:`fastpdr.reference`."""

from fastpdr.ops.pairs import pair_loss
from fastpdr.ops.perplexity import perplexity_search
from fastpdr.ops.student_t import student_t_kl

__all__ = ["pair_loss", "perplexity_search", "student_t_kl"]
