"""Data that grows: new rows of kinds that the map has never seen, while the old rows stay where they are.

Takes 15 seconds on scikit-learn's digits, 0 to 6 first and 7 to 9 later; with --data a minute on 10,000 rows of
MNIST (mnist_70k.npz). Writes map.png: before, after training on the new rows alone, and with old rows as landmarks.
"""

from __future__ import annotations

import copy

import common
import numpy as np
from matplotlib.figure import Figure
from sklearn.model_selection import train_test_split

import fastpdr

options = common.parser(__doc__, rows=10_000).parse_args()
folder = common.output_folder(options, "growing_data")

X, y = common.digits_or(options, "mnist_70k.npz")
train, test, y_train, y_test = train_test_split(X, y, random_state=0)
old, new, old_test = train[y_train < 7], train[y_train >= 7], y_test < 7

first = fastpdr.ParametricUMAP(n_epochs=options.epochs, random_state=0, verbose=True).fit(old)
places = first.transform(test)
spread = places[old_test].std()

# The new rows alone: nothing tells the network to remember.
careless = copy.deepcopy(first).partial_fit(new)

# With a quarter of the old rows, held where the map has them now; NaN leaves the new rows free.
kept = old[np.random.default_rng(0).choice(len(old), len(old) // 4, replace=False)]
positions = np.vstack([first.transform(kept), np.full((len(new), 2), np.nan)])
careful = copy.deepcopy(first).partial_fit(np.vstack([kept, new]), landmark_positions=positions)

axes = Figure(figsize=(18, 6), layout="constrained").subplots(1, 3)
fastpdr.plotting.map(places, y_test, ax=axes[0], title="trained on 0 to 6", legend=False)
for ax, name, model in ((axes[1], "new rows alone", careless), (axes[2], "with landmarks", careful)):
    Z = model.transform(test)
    moved = np.median(np.linalg.norm(Z[old_test] - places[old_test], axis=1)) / spread
    accuracy = fastpdr.metrics.knn_accuracy(model.transform(train), y_train, Z, y_test)
    print(f"{name}: unseen old rows moved by {moved:.2f} of the map's spread, accuracy of all kinds {accuracy:.3f}")
    fastpdr.plotting.map(Z, y_test, ax=ax, title=f"7 to 9 added: {name}", legend=ax is axes[2])
fastpdr.plotting.save(axes[0].figure, folder / "map.png")
print(f"written: {folder}")
