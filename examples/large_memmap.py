"""A .npy file of any size: learn from a sample of its rows, then place all of them, block by block.

Takes a minute with a file of 1 GB of random rows, made on the fly (--gigabytes 50 makes a larger one, --data FILE.npy
takes one of yours); time grows with the file, memory does not. Writes map.npy, a place for each row, and map.png.

What estimators do with a memory map today: fit makes two to four float32 copies of all rows that it is given, so give
it a sample. transform copies no rows that are float32 in the file (other dtypes are converted, all at once), but its
result is in memory; blocks of rows, as below, keep both small. A sample is enough where it shows the structure of the
data: every further row is placed by itself.
"""

from __future__ import annotations

from pathlib import Path

import common
import numpy as np

import fastpdr

parser = common.parser(__doc__, rows=20_000)
parser.add_argument("--gigabytes", type=float, default=1.0, help="size of the file that is made (default: 1)")
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

rng = np.random.default_rng(0)
chosen = np.sort(rng.choice(len(X), min(len(X), options.rows), replace=False))  # sorted: the disk is read forwards
model = fastpdr.ParametricUMAP(n_epochs=options.epochs, random_state=0, verbose=True).fit(X[chosen])

Z = np.lib.format.open_memmap(folder / "map.npy", mode="w+", dtype=np.float32, shape=(len(X), 2))
for block in blocks(len(X)):
    Z[block] = model.transform(X[block])
Z.flush()

unseen = np.setdiff1d(rng.choice(len(X), min(len(X), 5_000), replace=False), chosen)
trust = fastpdr.metrics.trustworthiness(X[unseen], Z[unseen])
print(f"trustworthiness of {len(unseen)} rows outside the sample: {trust:.3f}")
shown = np.sort(rng.choice(len(X), min(len(X), 100_000), replace=False))
axes = fastpdr.plotting.map(Z[shown], title=f"{len(shown)} of {len(X)} rows, learnt from {len(chosen)}")
fastpdr.plotting.save(axes, folder / "map.png")
print(f"written: {folder}")
