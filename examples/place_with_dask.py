"""Place the rows of a Dask array: any number of them, in as many processes or machines as Dask has.

Takes 20 seconds on scikit-learn's digits; with --data half a minute on 70,000 rows of MNIST (mnist_70k.npz). Learns a
map of 2,000 rows here, and has all rows placed by worker processes. Writes the folders model and map (map.npy in
parts), and map.png.

A saved model is 2 MB and no pickle, so that workers open it themselves; a model as it is can be pickled as well.
"""

from __future__ import annotations

import functools

import common
import dask
import dask.array as da
import numpy as np
import torch

import fastpdr


@functools.cache
def opened(folder: str):
    """The model, opened once in each process."""
    torch.set_num_threads(1)  # the workers share the processors
    return fastpdr.load(folder)


def place(rows: np.ndarray, folder: str) -> np.ndarray:
    """What a worker does with a block ``[m, d]``."""
    return opened(folder).transform(rows)


if __name__ == "__main__":  # worker processes import this file
    options = common.parser(__doc__, rows=70_000).parse_args()
    folder = common.output_folder(options, "place_with_dask")
    X, y = common.digits_or(options, "mnist_70k.npz")

    model = fastpdr.ParametricUMAP(n_epochs=options.epochs, random_state=0).fit(X[:2_000])
    model.save(folder / "model", overwrite=True)

    # As well: da.from_zarr, da.from_npy_stack, or a Dask DataFrame's to_dask_array(lengths=True).
    rows = da.from_array(X, chunks=(max(1, len(X) // 8), -1))
    places = rows.map_blocks(
        place,
        str((folder / "model").resolve()),
        dtype=np.float32,
        chunks=(rows.chunks[0], (model.n_components,)),
        meta=np.empty((0, model.n_components), dtype=np.float32),
    )
    with dask.config.set(scheduler="processes", num_workers=2):  # or a dask.distributed.Client
        da.to_npy_stack(folder / "map", places)

    Z = da.from_npy_stack(folder / "map").compute()
    print(f"{len(Z)} rows placed in {places.numblocks[0]} blocks")
    print(f"largest difference to the places given here: {np.abs(Z - model.transform(X)).max():.1e}")
    fastpdr.plotting.save(fastpdr.plotting.map(Z, y, title=f"{len(Z)} rows placed by Dask"), folder / "map.png")
    print(f"written: {folder}")
