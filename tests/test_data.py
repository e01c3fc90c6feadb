"""Rows of every kind of input: as they stand there, in any order, and never all at once."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import scipy.sparse
import torch

from fastpdr import Shards
from fastpdr.data import MOST_OPEN_FILES, FileRows, MappedRows, TensorRows, open_rows, widened

N, D = 23, 5
DTYPES = "?bBhHiIlLefdg"


class Items(torch.utils.data.Dataset):
    """A data set that notes what it is asked for."""

    def __init__(self, X, pairs=False):
        self.X, self.pairs, self.asked = X, pairs, []

    def __len__(self):
        return len(self.X)

    def __getitem__(self, number):
        return (self.X[number], 7) if self.pairs else self.X[number]

    def __getitems__(self, numbers):
        self.asked.append(len(numbers))
        return [self[number] for number in numbers]


def whole_numbers(dtype=np.float32, n=N, d=D):
    return np.random.default_rng(0).integers(0, 2 if np.dtype(dtype) == bool else 100, (n, d)).astype(dtype)


def saved(folder, *parts):
    folder.mkdir(exist_ok=True)
    for number, part in enumerate(parts):
        np.save(folder / f"part{number:03}.npy", part)
    return folder


def inputs(X, folder):
    """The same rows as every kind of input."""
    np.save(folder / "rows.npy", X)
    np.save(folder / "fortran.npy", np.asfortranarray(X))
    shards = saved(folder / "shards", X[:7], X[7:7], X[7:8], X[8:])
    return {
        "array": X,
        "fortran": np.asfortranarray(X),
        "strided": np.repeat(X, 2, axis=1)[:, ::2],
        "backwards": X[::-1].copy()[::-1],
        "foreign": X.astype(X.dtype.newbyteorder()),
        "list": X.tolist(),
        "objects": X.astype(object),
        "map": np.load(folder / "rows.npy", mmap_mode="r"),
        "part of a map": np.load(saved(folder / "longer", np.concatenate([X, X])) / "part000.npy", mmap_mode="r")[N:],
        "map, copied on write": np.load(folder / "rows.npy", mmap_mode="c"),
        "map in Fortran's order": np.load(folder / "fortran.npy", mmap_mode="r"),
        "file": folder / "rows.npy",
        "name of a file": str(folder / "rows.npy"),
        "folder": shards,
        "shards": Shards(shards),
        "files": Shards(sorted(shards.glob("*.npy"))),
        "csr": scipy.sparse.csr_matrix(X),
        "csc": scipy.sparse.csc_array(X),
        "tensor": torch.from_numpy(X),
        "data set": Items(X),
        "pairs": Items(X, pairs=True),
        "plain data set": torch.utils.data.TensorDataset(torch.from_numpy(X)),
        "subset": torch.utils.data.Subset(Items(X), range(N)),
        "rows": open_rows("test", X),
    }


def test_all_kinds_of_input_hold_the_same_rows(tmp_path):
    X, chosen = whole_numbers(), torch.tensor([22, 0, 7, 7, 6, 8, 1])
    for name, given in inputs(X, tmp_path).items():
        rows = open_rows("test", given)
        assert (rows.shape, len(rows)) == ((N, D), N), name
        assert np.array_equal(rows.block(5, 12), X[5:12]), name
        assert np.array_equal(rows.take(chosen), X[chosen]), name
        assert rows.block(3, 3).shape == rows.take(chosen[:0]).shape == (0, D), name
        assert rows.block(0, N).dtype == rows.dtype == rows.take(chosen).dtype, name
        assert rows.row_bytes == D * rows.dtype.itemsize, name
        blocks = list(rows.blocks(4 * D))
        assert [begin for begin, _, _ in blocks] == list(range(0, N, 4)), name
        assert np.array_equal(torch.cat([block for _, _, block in blocks]), X), name


@pytest.mark.parametrize("dtype", DTYPES)
def test_numbers_keep_their_type(dtype, tmp_path):
    X = whole_numbers(dtype)
    for given in (X, X[::-1], saved(tmp_path / "s", X[:9], X[9:])):
        rows = open_rows("test", given)
        wanted = torch.float64 if dtype == "g" else torch.from_numpy(X).dtype
        assert rows.dtype == rows.block(0, 4).dtype == rows.take(torch.tensor([3])).dtype == wanted
    exact = np.float32 if X.dtype.itemsize <= 2 or dtype == "f" else np.float64
    assert np.array_equal(widened(open_rows("test", X).block(0, N)), X.astype(exact))
    assert widened(rows.block(0, N)).numpy().dtype == exact


def test_rows_may_be_images(tmp_path):
    X = np.arange(6 * 12, dtype=np.uint8).reshape(6, 3, 2, 2)
    for given in (X, Items(X, pairs=True), saved(tmp_path / "s", X[:4], X[4:])):
        rows = open_rows("test", given)
        assert (rows.shape, rows.dtype, rows.row_bytes) == (X.shape, torch.uint8, 12)
        assert np.array_equal(rows.take(torch.tensor([5, 3, 4])), X[[5, 3, 4]])


def test_arrays_and_tensors_are_seen_where_they_lie():
    X = whole_numbers()
    for given in (X, np.asfortranarray(X), torch.from_numpy(X)):
        rows = open_rows("test", given)
        pointer = given.data_ptr() if isinstance(given, torch.Tensor) else given.__array_interface__["data"][0]
        assert rows.block(0, 9).data_ptr() == pointer
        assert rows.in_memory


def test_a_tensor_that_is_trained_gives_rows_that_are_not():
    assert not open_rows("test", torch.ones(3, 2, requires_grad=True)).block(0, 2).requires_grad


def test_a_data_set_is_asked_for_batches():
    items = Items(whole_numbers())
    rows = open_rows("test", items)
    rows.take(torch.arange(8))
    rows.block(0, N)
    assert items.asked == [1, 8, N]


def test_what_was_written_to_a_private_map_is_not_lost(tmp_path):
    np.save(tmp_path / "rows.npy", whole_numbers(n=50_000))
    X = np.load(tmp_path / "rows.npy", mmap_mode="c")
    X[:] = 3
    rows = open_rows("test", X)
    assert isinstance(rows, TensorRows)
    assert bool((rows.take(torch.arange(50_000)) == 3).all())


def test_a_map_is_read_through_its_file_while_there_is_such(tmp_path):
    X, file = whole_numbers(), tmp_path / "rows.npy"
    np.save(file, X)
    mapped = np.load(file, mmap_mode="r+")
    rows = open_rows("test", mapped[4:])
    assert isinstance(rows, FileRows)
    mapped[5] = 200  # a file and its map are one
    assert np.array_equal(rows.block(0, 3), mapped[4:7])
    file.unlink()
    np.save(file, X + 1)
    replaced = open_rows("test", mapped[4:])
    assert isinstance(replaced, MappedRows)
    for opened in (rows, replaced):
        assert np.array_equal(opened.take(torch.tensor([9, 1])), mapped[[13, 5]])


def test_a_file_that_becomes_shorter_is_an_error(tmp_path):
    np.save(tmp_path / "rows.npy", whole_numbers(n=5000))
    rows = open_rows("test", tmp_path / "rows.npy")
    os.truncate(tmp_path / "rows.npy", 50_000)
    with pytest.raises(OSError, match="has become shorter: row 4999 of 5000 is not there"):
        rows.take(torch.tensor([0, 4999]))


def test_more_shards_than_files_may_be_open(tmp_path):
    X = whole_numbers(n=MOST_OPEN_FILES + 40)
    rows = Shards(saved(tmp_path / "s", *X[:, None]))
    order = torch.randperm(len(X), generator=torch.Generator().manual_seed(0))
    for _ in range(2):
        assert np.array_equal(rows.take(order), X[order])
    assert len(rows._open) == MOST_OPEN_FILES


def test_a_file_of_any_size_is_read_in_little_memory(tmp_path):
    """A sparse file of 600 MB: blocks and random rows, with far less in memory, its pages counted."""
    program = """
import sys, numpy as np, torch
from fastpdr.data import open_rows
np.lib.format.open_memmap(sys.argv[1], mode="w+", dtype=np.uint8, shape=(750_000, 800))
rows, generator = open_rows("test", np.load(sys.argv[1], mmap_mode="r")), torch.Generator().manual_seed(0)

def memory(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name)) / 1000

before = memory("VmRSS")
total = sum(int(block.sum()) for _, _, block in rows.blocks())
for _ in range(20):
    total += int(rows.take(torch.randint(len(rows), (4096,), generator=generator)).sum())
print(total, memory("VmHWM") - before)
"""
    file = str(tmp_path / "large.npy")
    done = subprocess.run([sys.executable, "-c", program, file], capture_output=True, text=True, check=True)
    total, megabytes = done.stdout.split()
    assert total == "0"
    assert float(megabytes) < 200


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.ones((3, 2), complex), "test: X must hold real numbers, got dtype complex128"),
        ([["a", "b"]], "test: X must hold real numbers, got dtype <U1"),
        ([["a", None]], "test: X must hold real numbers, got could not convert"),
        (3.0, r"test: X must be rows \[n, d\], got a single value"),
        (torch.ones(2, 2).to_sparse(), "test: X must be a dense tensor or a SciPy CSR matrix, got torch.sparse_coo"),
        (torch.ones(2, 2, dtype=torch.complex64), "real numbers, got dtype torch.complex64"),
        (Items([]), "test: X must have rows, got an empty data set"),
        (Items(["ab"]), r"must be a row of numbers or \(row, label\), got str"),
        (Items(torch.ones(3)), "a row of the data set must be an array, got a single number"),
        (torch.utils.data.Dataset(), "of known length, got Dataset without len"),
    ],
)
def test_what_is_no_rows_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        open_rows("test", given)


def test_rows_of_a_data_set_that_differ_are_refused():
    rows = open_rows("test", Items([np.ones(3), np.ones(3), np.ones(4)]))
    with pytest.raises(ValueError, match=r"must be torch.float64 \[3\] as the first, got torch.float64 \[4\] in row 2"):
        rows.block(0, 3)
    items = Items(whole_numbers())
    rows = open_rows("test", items)
    items.__class__ = type("Short", (Items,), {"__getitems__": lambda self, numbers: []})
    with pytest.raises(ValueError, match="an item for each of the 4 rows that it is asked for, got 0"):
        rows.block(0, 4)


def test_errors_of_files_name_the_file(tmp_path):
    good = np.ones((2, 3), np.float32)
    with pytest.raises(
        ValueError, match=r"part001.npy must have rows as .*part000.npy, which is float32 \[2, 3\], got"
    ):
        Shards(saved(tmp_path / "width", good, good[:, :2]))
    with pytest.raises(ValueError, match=r"part001.npy .* got float16 \[2, 3\]"):
        Shards(saved(tmp_path / "type", good, good.astype(np.float16)))
    folder = saved(tmp_path / "damaged", good)
    (folder / "part000.npy").write_bytes(b"no numbers")
    with pytest.raises(ValueError, match="part000.npy must be a complete .npy file of plain numbers"):
        open_rows("test", folder)
    with pytest.raises(ValueError, match=r"part000.npy must be a .npy file of numbers \[rows, ...\], got <U1"):
        Shards(saved(tmp_path / "words", np.array(["a"])))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty must hold .npy files, got none"):
        Shards(tmp_path / "empty")
    with pytest.raises(ValueError, match="files must name at least one .npy file"):
        Shards([])
    with pytest.raises(ValueError, match="must be a folder or a list of .npy files, got .*part000.npy"):
        Shards(tmp_path / "words" / "part000.npy")
    with pytest.raises(FileNotFoundError, match="no such file: .*missing.npy"):
        open_rows("test", tmp_path / "missing.npy")
