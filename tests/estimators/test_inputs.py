"""Every kind of input gives the same map as an array, whole or batch by batch, and files of any size are streamed."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import scipy.sparse
import torch
from torch import nn

from fastpdr import MultiscaleParametricTSNE, ParametricLargeVis, ParametricTSNE, ParametricUMAP, Shards
from fastpdr.data import Rows, open_rows
from fastpdr.estimators import base, inputs, resolve
from fastpdr.estimators.planning import plan_of

N, D = 120, 6
SMALL = {"n_epochs": 3, "hidden_dims": (16,), "random_state": 0}
every = pytest.mark.parametrize("cls", [ParametricTSNE, MultiscaleParametricTSNE, ParametricUMAP, ParametricLargeVis])


class Items(torch.utils.data.Dataset):
    """Pairs of rows and labels, and how many of them were asked for at a time."""

    def __init__(self, X):
        self.X, self.asked = X, []

    def __len__(self):
        return len(self.X)

    def __getitems__(self, numbers):
        self.asked.append(len(numbers))
        return [(self.X[number], 0) for number in numbers]


@pytest.fixture
def X(rng):
    return rng.normal(size=(N, D)).astype(np.float32)


@pytest.fixture
def by_batch(monkeypatch):
    """No fit holds its rows as a whole."""

    def planned(*arguments):
        plan = plan_of(*arguments)
        object.__setattr__(plan, "rows", "by batch")
        return plan

    monkeypatch.setattr(base, "plan_of", planned)


def kinds(X, folder):
    """The same rows as everything that fit takes; SciPy has no matrices of float16."""
    folder.mkdir(exist_ok=True)
    sparse = {"csr": scipy.sparse.csr_array, "csc": scipy.sparse.csc_matrix} if X.dtype != np.float16 else {}
    np.save(folder / "rows.npy", X)
    shards = folder / "shards"
    shards.mkdir(exist_ok=True)
    for number, part in enumerate(np.split(X, [50, 51, 90])):
        np.save(shards / f"{number}.npy", part)
    return {
        "map": np.load(folder / "rows.npy", mmap_mode="r"),
        "file": folder / "rows.npy",
        "folder": str(shards),
        "shards": Shards(shards),
        **{name: made(X) for name, made in sparse.items()},
        "tensor": torch.from_numpy(X),
        "data set": Items(X),
        "rows": open_rows("test", X),
    }


@every
@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
def test_every_kind_of_input_gives_the_map_of_the_array(cls, dtype, X, tmp_path):
    X = (40 * X + 128).clip(0, 255).astype(dtype)
    expected = cls(**SMALL).fit(X)
    for name, given in kinds(X, tmp_path).items():
        model = cls(**SMALL).fit(given)
        assert np.array_equal(model.embedding_, expected.embedding_), name
        assert np.array_equal(model.transform(given), expected.embedding_), name
        assert model.n_features_in_ == D
        assert model.score(given) == expected.score(X), name


@pytest.mark.usefixtures("by_batch")
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"neighbor_noise": 0.5, "input_noise": 0.1},
        {"init": "pca"},
        {"encoder": nn.Linear(D, 2)},
    ],
    ids=["plain", "noise", "pca", "own encoder"],
)
@every
def test_rows_read_by_batch_give_the_map_of_whole_rows(cls, settings, X, tmp_path, monkeypatch):
    settings = {**SMALL, **settings}
    if "encoder" in settings:
        del settings["hidden_dims"]
    given = kinds(np.round(50 * X).astype(np.int16), tmp_path)
    maps = {name: cls(**settings).fit_transform(given[name]) for name in ("map", "shards", "csr", "tensor", "data set")}
    monkeypatch.undo()
    expected = cls(**settings).fit_transform(np.round(50 * X).astype(np.int16))
    for name, Z in maps.items():
        if settings.get("init") == "pca":  # means are sums in another order
            np.testing.assert_allclose(Z, expected, rtol=1e-3, atol=1e-3, err_msg=name)
        else:
            assert np.array_equal(Z, expected), name


@pytest.mark.usefixtures("by_batch")
def test_decoders_read_by_batch(X, tmp_path, monkeypatch):
    for settings in ({"parametric_reconstruction": True}, {"decoder": nn.Linear(2, D)}):
        model = ParametricUMAP(**SMALL, **settings).fit(kinds(X, tmp_path)["map"])
        with monkeypatch.context() as patch:
            patch.setattr(base, "plan_of", plan_of)
            expected = ParametricUMAP(**SMALL, **settings).fit(X)
        assert np.array_equal(model.embedding_, expected.embedding_)
        assert np.array_equal(model.inverse_transform(X[:4, :2]), expected.inverse_transform(X[:4, :2]))


@pytest.mark.usefixtures("by_batch")
def test_wide_rows_are_reduced_by_batch(rng, tmp_path, monkeypatch):
    X = (rng.normal(size=(N, 8)) @ rng.normal(size=(8, 250)) + 5).astype(np.float32)
    Z = ParametricUMAP(**SMALL).fit_transform(kinds(X, tmp_path)["map"])
    monkeypatch.undo()
    np.testing.assert_allclose(Z, ParametricUMAP(**SMALL).fit_transform(X), rtol=1e-2, atol=1e-2)


@pytest.mark.usefixtures("by_batch")
def test_a_data_set_is_asked_for_batches_and_never_for_all_rows(X, monkeypatch):
    monkeypatch.setattr(resolve, "PLACED_ELEMENTS", 32 * D)
    monkeypatch.setattr(Rows.blocks, "__defaults__", (40 * D,))
    items = Items(X)
    model = ParametricTSNE(**SMALL, affinity="batch", neighbor_noise=0, batch_size=30).fit(items)
    assert max(items.asked[1:]) == N  # principal axes and the noise look at up to 20,000 rows
    assert items.asked.count(30) >= 3 * N // 30
    del items.asked[:]
    model.transform(items)
    assert items.asked == [1, 16, 32, 32, 32, 24]


@pytest.mark.usefixtures("by_batch")
def test_partial_fit_goes_on_with_rows_of_a_file(X, tmp_path):
    model = ParametricUMAP(**SMALL).fit(X)
    model.partial_fit(kinds(X, tmp_path)["file"])
    assert model.n_samples_seen_ == 2 * N
    assert model.embedding_.shape == (N, 2)


@pytest.mark.usefixtures("by_batch")
def test_an_interrupted_training_on_a_file_goes_on(X, tmp_path):
    settings = {**SMALL, "checkpoint_dir": tmp_path / "checkpoints", "checkpoint_every": 0}

    def stop(state):
        if state.epoch == 2:
            raise KeyboardInterrupt

    file = kinds(X, tmp_path)["file"]
    with pytest.raises(KeyboardInterrupt):
        ParametricUMAP(**settings, callbacks=[stop]).fit(file)
    resumed = ParametricUMAP(**settings, callbacks=[lambda state: None]).fit_transform(file)
    assert np.array_equal(resumed, ParametricUMAP(**SMALL).fit_transform(X))


def test_large_arrays_of_small_numbers_are_not_converted_at_once(X, monkeypatch):
    monkeypatch.setattr(inputs, "CONVERTED_BYTES", 100)
    monkeypatch.setattr(inputs, "FIRST_ROWS", 5)
    seen = []
    validate = inputs.validate_data
    monkeypatch.setattr(inputs, "validate_data", lambda e, x, **rest: seen.append(len(x)) or validate(e, x, **rest))
    small = (40 * X + 128).clip(0, 255).astype(np.uint8)
    Z = ParametricTSNE(**SMALL).fit_transform(small)
    assert seen == [5]
    monkeypatch.undo()
    assert np.array_equal(Z, ParametricTSNE(**SMALL).fit_transform(small))


def test_a_file_is_placed_in_little_memory(X, tmp_path):
    """A sparse file of 2 GB in float16, of which 8 GB of float32 or one tenth of either would be seen at once."""
    program = """
import sys, numpy as np
from fastpdr import ParametricTSNE
rng = np.random.default_rng(0)
model = ParametricTSNE(n_epochs=1, hidden_dims=(4,), random_state=0).fit(rng.normal(size=(200, 1000)))
rows = np.lib.format.open_memmap(sys.argv[1], mode="w+", dtype=np.float16, shape=(1_000_000, 1000))
rows[-1] = 1
del rows

def memory(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name)) / 1000

before = memory("VmRSS")
Z = model.transform(np.load(sys.argv[1], mmap_mode="r")[-300_000:])
assert Z.shape == (300_000, 2) and (Z[:-1] == Z[0]).all() and (Z[-1] != Z[0]).all()
print(memory("VmHWM") - before)
"""
    file = str(tmp_path / "large.npy")
    done = subprocess.run([sys.executable, "-c", program, file], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 350  # the rows that are placed are 600 MB, 1.2 GB in float32


def test_bytes_of_a_file_are_learnt_from_without_a_copy_of_the_whole(tmp_path):
    """120 MB of uint8, of which a float32 matrix alone would be 480 MB."""
    program = """
import sys, numpy as np
from fastpdr import ParametricTSNE
rng = np.random.default_rng(0)
settings = {"affinity": "batch", "neighbor_noise": 0, "hidden_dims": (16,), "n_epochs": 1, "random_state": 0}
settings["batch_size"] = 512  # what a batch takes is not what is measured
ParametricTSNE(**settings).fit(rng.normal(size=(200, 5)))
rows = np.lib.format.open_memmap(sys.argv[1], mode="w+", dtype=np.uint8, shape=(300_000, 400))
for begin in range(0, 300_000, 30_000):
    rows[begin : begin + 30_000] = rng.integers(0, 255, (30_000, 400), dtype=np.uint8)
rows.flush()
del rows

def memory(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name)) / 1000

before = memory("VmHWM")
model = ParametricTSNE(**settings, max_time=2, memory_limit="500MB").fit(np.load(sys.argv[1], mmap_mode="r"))
assert np.isfinite(model.embedding_).all() and model.embedding_.std() > 0
print(memory("VmHWM") - before)
"""
    file = str(tmp_path / "bytes.npy")
    done = subprocess.run([sys.executable, "-c", program, file], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 400


# Bad input ------------------------------------------------------------------------------------------------------------


def test_bad_rows_of_files_are_refused(X, tmp_path):
    model = ParametricTSNE(**SMALL).fit(X)
    narrow = kinds(X[:, :5], tmp_path / "narrow")
    X[97, 2] = np.nan
    bad = kinds(X, tmp_path / "bad")
    for name in ("file", "csr", "tensor", "data set", "folder"):
        with pytest.raises(ValueError, match="Input X contains NaN"):
            ParametricTSNE(**SMALL).fit(bad[name])
        with pytest.raises(ValueError, match="Input X contains NaN"):
            model.transform(bad[name])
        with pytest.raises(ValueError, match="X has 5 features, but ParametricTSNE is expecting 6 features"):
            model.transform(narrow[name])


def test_too_few_rows_and_other_shapes_are_refused(X, tmp_path):
    np.save(tmp_path / "one.npy", X[:1])
    np.save(tmp_path / "images.npy", np.zeros((5, 2, 3)))
    with pytest.raises(ValueError, match=r"Found array with 1 sample\(s\) .* minimum of 2 is required"):
        ParametricUMAP().fit(tmp_path / "one.npy")
    with pytest.raises(ValueError, match="dim 3"):
        ParametricUMAP().fit(tmp_path / "images.npy")
    with pytest.raises(FileNotFoundError, match="missing.npy"):
        ParametricUMAP().fit(str(tmp_path / "missing.npy"))
    with pytest.raises(ValueError, match="ParametricUMAP: X must hold real numbers"):
        ParametricUMAP().fit(torch.ones(5, 2, dtype=torch.complex64))
