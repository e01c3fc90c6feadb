"""Single cells: a reference map of known cells, on which new cells are placed and named.

Takes 10 seconds: 700 cells of 10 kinds whose counts are drawn at random, or with --data 700 cells of PBMC 68k
(pbmc68k_reduced_700.npz; scanpy ships them). Writes map.png and the folder model: PCA, map and names of the kinds.

An .h5ad file needs no script: fastpdr fit cells.h5ad --labels cell_type --method umap -o cells
"""

from __future__ import annotations

import common
import numpy as np
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import LabelEncoder

import fastpdr

options = common.parser(__doc__, rows=700).parse_args()
folder = common.output_folder(options, "single_cell")


def drawn_cells(n: int, genes: int = 600, kinds: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Stand-in data: overdispersed counts, normalised by cell, logarithms, scaled by gene."""
    rng = np.random.default_rng(0)
    profiles = rng.lognormal(0, 1, genes) * rng.lognormal(0, 1, (kinds, genes)) ** (rng.random((kinds, genes)) < 0.1)
    kind = rng.choice(kinds, n, p=np.arange(1, kinds + 1) / np.arange(1, kinds + 1).sum())
    depth = rng.lognormal(np.log(2000), 0.3, (n, 1))
    expected = depth * profiles[kind] / profiles[kind].sum(1, keepdims=True)
    counts = rng.poisson(expected * rng.gamma(2, 1 / 2, expected.shape))
    logs = np.log1p(1e4 * counts / counts.sum(1, keepdims=True))
    return (logs - logs.mean(0)) / (logs.std(0) + 1e-9), np.array([f"kind {letter}" for letter in "ABCDEFGHIJ"])[kind]


real = common.load(options, "pbmc68k_reduced_700.npz")
X, names = (real["X"], real["label_names"][real["y"]]) if real else drawn_cells(min(700, options.rows))
known, new, names_known, names_new = train_test_split(X, names, stratify=names, random_state=0)

# More genes than cells: principal components first, as part of the model. UMAP does not see the names.
umap = fastpdr.ParametricUMAP(n_neighbors=15, min_dist=0.3, n_epochs=options.epochs, random_state=0)
model = make_pipeline(PCA(50, random_state=0), umap).fit(known)
Z_known, Z_new = model.transform(known), model.transform(new)

components = model[0].transform(new)
print(f"trustworthiness of {len(new)} new cells: {fastpdr.metrics.trustworthiness(components, Z_new):.3f}")
named = KNeighborsClassifier(7).fit(Z_known, names_known).predict(Z_new)
print(f"named on the map as by hand: {np.mean(named == names_new):.3f}")
in_components = KNeighborsClassifier(7).fit(model[0].transform(known), names_known).predict(components)
print(f"named in 50 components as by hand: {np.mean(in_components == names_new):.3f}")

axes = Figure(figsize=(14, 6), layout="constrained").subplots(1, 2, sharex=True, sharey=True)
fastpdr.plotting.map(Z_known, names_known, ax=axes[0], title=f"{len(known)} known cells", legend=False)
fastpdr.plotting.map(Z_new, names_new, ax=axes[1], title=f"{len(new)} new cells, by their true names")
fastpdr.plotting.save(axes[0].figure, folder / "map.png")

fastpdr.save(model, folder / "model", overwrite=True, label_encoder=LabelEncoder().fit(names))
print(f"kinds in the saved model: {len(fastpdr.load_label_encoder(folder / 'model').classes_)}")
print(f"written: {folder}")
