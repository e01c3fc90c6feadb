"""A .npy file of any size: learn from all of its rows and place them, with none of them in memory as a whole.

Takes two minutes with a file of 50 MB of random rows, made on the fly (--gigabytes 50 makes a larger one, --data
FILE.npy takes one of yours); the time grows with the file, the memory hardly does. --memory-limit says how much a fit
may take beside the rows: it reads them batch by batch where they would not fit, and says so if that is not enough.
Writes map.npy, a place for each row, and map.png.

A sample of the rows is often enough, since every further row is placed by itself: model.fit(X[::10]).transform(X).
"""

from __future__ import annotations

from pathlib import Path

import common
import numpy as np

import fastpdr

parser = common.parser(__doc__, rows=0)
parser.add_argument("--gigabytes", type=float, default=0.05, help="size of the file that is made (default: 0.05)")
parser.add_argument("--memory-limit", help="what a fit may take, as 8GB (default: most of what is free)")
options = parser.parse_args()
folder = common.output_folder(options, "large_memmap")
BLOCK = 65_536


def blocks(n: int) -> list[slice]:
    """The rows 0 .. n in parts."""
    return [slice(begin, min(begin + BLOCK, n)) for begin in range(0, n, BLOCK)]


def write_rows(path: Path, gigabytes: float, width: int = 128, kinds: int = 20) -> None:
    """Rows around the corners of a curved surface, block after block: never more than one in memory."""
    rng = np.random.default_rng(0)
    corners, bend = rng.normal(size=(kinds, 6)), rng.normal(size=(6, width))
    n = max(kinds * 50, round(gigabytes * 1e9 / (4 * width)))
    rows = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(n, width))
    for block in blocks(n):
        m = block.stop - block.start
        inner = corners[rng.integers(kinds, size=m)] + 0.35 * rng.normal(size=(m, 6))
        rows[block] = np.sin(inner @ bend) + 0.1 * rng.normal(size=(m, width))
    rows.flush()


file = folder / "rows.npy"
if options.data is not None and Path(options.data).suffix == ".npy":
    file = Path(options.data)
else:
    write_rows(file, options.gigabytes)
X = np.load(file, mmap_mode="r")
print(f"{len(X)} rows of {X.shape[1]} columns, {X.nbytes / 1e9:.2f} GB")

settings = {"n_epochs": options.epochs, "memory_limit": options.memory_limit}
print(fastpdr.plan(*X.shape, "umap", dtype=X.dtype, memory_limit=options.memory_limit))

model = fastpdr.ParametricUMAP(**settings, random_state=0, verbose=True).fit(X)
Z = model.transform(X)  # read in blocks; the map alone is in memory
np.save(folder / "map.npy", Z)

rng = np.random.default_rng(0)
judged = np.sort(rng.choice(len(X), min(len(X), 5_000), replace=False))  # sorted: the disk is read forwards
print(f"trustworthiness of {len(judged)} rows: {fastpdr.metrics.trustworthiness(X[judged], Z[judged]):.3f}")
shown = np.sort(rng.choice(len(X), min(len(X), 100_000), replace=False))
axes = fastpdr.plotting.map(Z[shown], title=f"{len(shown)} of {len(X)} rows")
fastpdr.plotting.save(axes, folder / "map.png")
print(f"written: {folder}")
