"""The methods' short names, and the estimators that they stand for; apart, so that reading it imports nothing."""

METHODS = {
    "tsne": "ParametricTSNE",
    "mstsne": "MultiscaleParametricTSNE",
    "umap": "ParametricUMAP",
    "largevis": "ParametricLargeVis",
}
