"""Every op again in plain PyTorch: written to be read, exact in float64, the fallback where nothing is compiled."""

from fastpdr.reference.pairs import pair_loss
from fastpdr.reference.perplexity import perplexity_search
from fastpdr.reference.student_t import student_t_kl

__all__ = ["pair_loss", "perplexity_search", "student_t_kl"]
