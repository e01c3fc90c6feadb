"""A map as the last step of a scikit-learn Pipeline, its settings chosen by what held-out rows say.

Takes 20 seconds on scikit-learn's digits; with --data a minute and a half on 5,000 rows of Letter (letter_20k.npz),
whose columns count different things. Writes map.png and the folder model, which holds scaler and map.
"""

from __future__ import annotations

from string import ascii_uppercase

import common
import numpy as np
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

import fastpdr

options = common.parser(__doc__, rows=5_000).parse_args()
folder = common.output_folder(options, "grid_search")

X, y = common.digits_or(options, "letter_20k.npz")
if options.data:
    y = np.array([*ascii_uppercase])[y]
train, test, y_train, y_test = train_test_split(X, y, random_state=0)


def trustworthiness(pipeline: Pipeline, rows, _labels=None) -> float:
    """Judge the map of held-out rows against these rows, standardised.

    Without ``scoring`` the search would take the pipeline's own score, which compares the map with the rows that the
    last step sees: fine for settings of the map, but each scaler would be judged by its own distances.
    """
    return fastpdr.metrics.trustworthiness(yardstick.transform(rows), pipeline.transform(rows))


yardstick = StandardScaler().fit(train)
pipeline = Pipeline(
    [("scale", StandardScaler()), ("map", fastpdr.ParametricUMAP(n_epochs=options.epochs, random_state=0))]
)
search = GridSearchCV(
    # Ten epochs are enough to tell settings apart. No labels are passed: ParametricUMAP would learn from them.
    clone(pipeline).set_params(map__n_epochs=10),
    {"scale": [StandardScaler(), "passthrough"], "map__n_neighbors": [5, 15, 45]},
    scoring=trustworthiness,
    cv=2,
    refit=False,
).fit(train)

results = search.cv_results_
for place in results["rank_test_score"].argsort(kind="stable"):
    setting = results["params"][place]
    scaler = "none" if setting["scale"] == "passthrough" else "standard"
    mean, spread = results["mean_test_score"][place], results["std_test_score"][place]
    print(f"scaler {scaler:8}  n_neighbors {setting['map__n_neighbors']:2}  held-out {mean:.4f} ± {spread:.4f}")

best = clone(pipeline).set_params(**search.best_params_).fit(train)  # at full length, on all training rows
Z = best.transform(test)
print(f"trustworthiness of {len(test)} unseen rows: {trustworthiness(best, test):.3f}")
fastpdr.plotting.save(fastpdr.plotting.map(Z, y_test, title=f"{len(test)} rows never seen"), folder / "map.png")

fastpdr.save(best, folder / "model", overwrite=True)  # scaler and map, as numbers
print(f"loaded: same places {(fastpdr.load(folder / 'model').transform(test) == Z).all()}")
print(f"written: {folder}")
