"""scikit-learn estimators that learn a map, and the folder they are saved in."""

from fastpdr.estimators.saving import load
from fastpdr.estimators.tsne import MultiscaleParametricTSNE, ParametricTSNE

__all__ = ["MultiscaleParametricTSNE", "ParametricTSNE", "load"]
