"""Place the rows of a Ray data set: any number of them, by as many workers as Ray has, with or without GPUs.

Takes 30 seconds on scikit-learn's digits; with --data a minute on 70,000 rows of MNIST (mnist_70k.npz). Learns a map
of 2,000 rows here, and has all rows placed by two actors, each of which opens the saved model once. Writes the folder
model, map.parquet, and map.png.
"""

from __future__ import annotations

import os

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report its use over the network

import common
import numpy as np
import ray

import fastpdr


class Placer:
    """A worker: holds the model, and is given batches of rows."""

    def __init__(self, folder: str) -> None:
        self.model = fastpdr.load(folder)  # on a GPU where Ray gives it one: device="auto" is the default

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Replace the rows ``[m, d]`` of a batch by their places."""
        Z = self.model.transform(batch["rows"])
        return {"row": batch["row"], "x": Z[:, 0], "y": Z[:, 1]}


options = common.parser(__doc__, rows=70_000).parse_args()
folder = common.output_folder(options, "place_with_ray")
X, y = common.digits_or(options, "mnist_70k.npz")

model = fastpdr.ParametricUMAP(n_epochs=options.epochs, random_state=0).fit(X[:2_000])
model.save(folder / "model", overwrite=True)

ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)

# As well: ray.data.read_parquet, read_numpy, read_csv. Batches come in any order, so a row carries its number.
rows = ray.data.from_items([{"row": i, "rows": x} for i, x in enumerate(X)])
placed = rows.map_batches(
    Placer,
    fn_constructor_args=[str((folder / "model").resolve())],
    compute=ray.data.ActorPoolStrategy(size=2),
    batch_size=4_096,
    num_cpus=1,  # or num_gpus=1
)
table = placed.to_pandas().sort_values("row")
table.to_parquet(folder / "map.parquet", index=False)
ray.shutdown()

Z = table[["x", "y"]].to_numpy(np.float32)
print(f"{len(Z)} rows placed")
print(f"largest difference to the places given here: {np.abs(Z - model.transform(X)).max():.1e}")
fastpdr.plotting.save(fastpdr.plotting.map(Z, y, title=f"{len(Z)} rows placed by Ray"), folder / "map.png")
print(f"written: {folder}")
