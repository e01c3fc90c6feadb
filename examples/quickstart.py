"""Learn a map of handwritten digits, place rows that it has never seen, judge it, save it, and load it again.

Takes 10 seconds on scikit-learn's digits (1,797 rows of 64 pixels); with --data half a minute on 10,000 rows of MNIST
(mnist_70k.npz). Writes map.png and the folder model.
"""

from __future__ import annotations

import common
from matplotlib.figure import Figure
from sklearn.model_selection import train_test_split

import fastpdr

options = common.parser(__doc__, rows=10_000).parse_args()
folder = common.output_folder(options, "quickstart")

X, y = common.digits_or(options, "mnist_70k.npz")
train, test, y_train, y_test = train_test_split(X, y, random_state=0)

# One common factor and the mean of the rows are taken care of; pixels need no scaler.
model = fastpdr.ParametricUMAP(n_epochs=options.epochs, random_state=0, verbose=True).fit(train)

# Each row is placed on its own: alone, with others, in any order, it gets the same place.
Z = model.transform(test)  # [m, 2]

scores = fastpdr.metrics.evaluate(test, Z, y_test)
print(f"trustworthiness of {len(test)} unseen rows: {scores['trustworthiness']:.3f}")
print(f"R_NX AUC: {scores['rnx_auc']:.3f}")
accuracy = fastpdr.metrics.knn_accuracy(model.embedding_, y_train, Z, y_test)
print(f"accuracy of the 7 nearest training rows' labels: {accuracy:.3f}")

axes = Figure(figsize=(13, 6), layout="constrained").subplots(1, 2, sharex=True, sharey=True)
fastpdr.plotting.map(model.embedding_, y_train, ax=axes[0], title=f"{len(train)} training rows", legend=False)
fastpdr.plotting.map(Z, y_test, ax=axes[1], title=f"{len(test)} rows never seen")
fastpdr.plotting.save(axes[0].figure, folder / "map.png")

# A folder of JSON and safetensors: no pickle, no training data.
model.save(folder / "model", overwrite=True)
again = fastpdr.load(folder / "model")
print(f"loaded: same places {(again.transform(test) == Z).all()}")
print(f"written: {folder}")
