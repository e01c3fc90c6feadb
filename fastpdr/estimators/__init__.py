"""scikit-learn estimators that learn a map, and the folder they are saved in."""

from fastpdr.estimators.export import to_exported_program, to_onnx
from fastpdr.estimators.largevis import ParametricLargeVis
from fastpdr.estimators.planning import Plan, plan
from fastpdr.estimators.saving import load, load_label_encoder, save
from fastpdr.estimators.stopping import TrustworthinessStopping
from fastpdr.estimators.tsne import MultiscaleParametricTSNE, ParametricTSNE
from fastpdr.estimators.umap import ParametricUMAP

__all__ = [
    "MultiscaleParametricTSNE",
    "ParametricLargeVis",
    "ParametricTSNE",
    "ParametricUMAP",
    "Plan",
    "TrustworthinessStopping",
    "load",
    "load_label_encoder",
    "plan",
    "save",
    "to_exported_program",
    "to_onnx",
]
