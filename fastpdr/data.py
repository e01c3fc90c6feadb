"""Rows of any input, of which only those that are asked for are in memory.

An array, a memory map, a file or a folder of files, a CSR matrix, a tensor or a map-style data set of PyTorch is read
in blocks or by the numbers of its rows. What comes has the input's own type: uint8 and float16 stay so until somebody
computes with a batch, and sparse rows are dense only in a batch.

Files are read by preadv, a call for each of the rows that are asked for by number, also where a memory map of one was
given. Of 1.5 GB of rows of 784 bytes, 512 random ones took 35 ms off the disk, and 9 MB were read; through the map they
took 377 ms, and the whole file was read around them. 2,048 rows that the system had in its cache took 4 ms, and 2 to
10 ms through the map, whose every page that was looked at then counts as memory of this process.
"""

from __future__ import annotations

import mmap
import os
import warnings
import weakref
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

BLOCK_ELEMENTS = 1 << 23  # of a block of rows
MOST_OPEN_FILES = 128  # every map keeps its file open, and a process may have few hundred


class Rows(ABC):
    """Read-only rows ``[n, ...]`` of any input.

    Attributes
    ----------
    shape : tuple of int
        (n, d), or (n, ...) where a row is itself an array.
    dtype : torch.dtype
        As the rows are held, and as they come.
    device : torch.device
        Where :meth:`block` and :meth:`take` return rows.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device = torch.device("cpu")

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def row_bytes(self) -> int:
        """Bytes of a row as it comes."""
        return self.dtype.itemsize * int(np.prod(self.shape[1:], dtype=np.int64))

    @property
    def in_memory(self) -> bool:
        """Whether all rows, dense, are in memory anyway."""
        return False

    @abstractmethod
    def block(self, begin: int, end: int) -> torch.Tensor:
        """Rows begin .. end - 1 as they are held, perhaps a view of them; nobody writes to it."""

    @abstractmethod
    def take(self, rows: torch.Tensor) -> torch.Tensor:
        """The rows of these numbers, ``[b]`` int64 from 0 to n - 1 in any order, as they are held."""

    def blocks(self, elements: int = BLOCK_ELEMENTS) -> Iterator[tuple[int, int, torch.Tensor]]:
        """Yield (begin, end, rows) of all rows, about so many numbers at a time."""
        step = max(1, elements // max(1, int(np.prod(self.shape[1:], dtype=np.int64))))
        for begin in range(0, len(self), step):
            end = min(len(self), begin + step)
            yield begin, end, self.block(begin, end)


def as_tensor(array: NDArray[Any]) -> torch.Tensor:
    """The array's own memory as a tensor, which nobody writes to: PyTorch's warning about read-only data is moot."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


def widened(rows: torch.Tensor) -> torch.Tensor:
    """Rows as float32 where that holds their type exactly, else as float64."""
    small = rows.dtype.itemsize <= 2 or rows.dtype == torch.float32
    return rows.to(torch.float32 if small else torch.float64)


def in_one_piece(rows: Rows) -> torch.Tensor:
    """All rows in floating point; those in memory where they lie, if they are such."""
    if rows.in_memory:
        return widened(rows.block(0, len(rows))).contiguous()
    result = torch.empty(rows.shape, dtype=widened(rows.block(0, 0)).dtype, device=rows.device)
    for begin, end, block in rows.blocks():
        result[begin:end] = block
    return result


class TensorRows(Rows):
    """Rows of a tensor ``[n, ...]``, or of an array's memory seen as one."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor
        self.shape, self.dtype, self.device = tuple(tensor.shape), tensor.dtype, tensor.device

    @property
    def in_memory(self) -> bool:
        """Whether all rows, dense, are in memory anyway."""
        return True

    def block(self, begin: int, end: int) -> torch.Tensor:
        """Rows begin .. end - 1, a view."""
        return self.tensor[begin:end]

    def take(self, rows: torch.Tensor) -> torch.Tensor:
        """The rows of these numbers."""
        return self.tensor.index_select(0, rows.to(self.device))


class FileRows(Rows):
    """Rows of a file in which they lie one after another.

    Parameters
    ----------
    file : int
        A descriptor, which is closed with the rows.
    offset : int
        Of the first row, in bytes.
    shape : tuple of int
        Of all rows.
    dtype : numpy.dtype
        One that PyTorch knows as well.
    """

    def __init__(self, file: int, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._file, self._offset, self._stored = file, offset, dtype
        weakref.finalize(self, os.close, file)
        self.shape, self.dtype = shape, torch.from_numpy(np.empty(0, dtype)).dtype

    def block(self, begin: int, end: int) -> torch.Tensor:
        """Rows begin .. end - 1, read at once."""
        return self._read(end - begin, [(0, begin, end - begin)])

    def take(self, rows: torch.Tensor) -> torch.Tensor:
        """The rows of these numbers, read one by one."""
        return self._read(len(rows), [(place, row, 1) for place, row in enumerate(rows.tolist())])

    def _read(self, count: int, parts: list[tuple[int, int, int]]) -> torch.Tensor:
        """So many rows; of each part its place among them, the first row and the number of rows."""
        result, size = np.empty((count, *self.shape[1:]), self._stored), self.row_bytes
        if result.size:
            target: Any = result.reshape(-1).view(np.uint8)
            for place, row, number in parts:
                done = 0
                while done < number * size:
                    piece = target[place * size + done : (place + number) * size]
                    read = os.preadv(self._file, [piece], self._offset + row * size + done)
                    if read == 0:
                        raise OSError(f"a file of rows has become shorter: row {row} of {len(self)} is not there")
                    done += read
        return torch.from_numpy(result)


class MappedRows(Rows):
    """Rows of a memory map whose file cannot be read in its place, such as one in Fortran's order.

    Parameters
    ----------
    array : ndarray
        A memory map, or a view of one.
    pages : mmap.mmap
        What it is a view of; shared with the file, so that it loses nothing where it lets go of what was read.
    """

    def __init__(self, array: NDArray[Any], pages: mmap.mmap) -> None:
        self._tensor, self._pages = as_tensor(array.view(np.ndarray)), pages
        self.shape, self.dtype = array.shape, self._tensor.dtype

    def block(self, begin: int, end: int) -> torch.Tensor:
        """Rows begin .. end - 1, a copy."""
        return self._let_go(self._tensor[begin:end].clone(memory_format=torch.contiguous_format))

    def take(self, rows: torch.Tensor) -> torch.Tensor:
        """The rows of these numbers."""
        return self._let_go(self._tensor.index_select(0, rows))

    def _let_go(self, result: torch.Tensor) -> torch.Tensor:
        self._pages.madvise(mmap.MADV_DONTNEED)
        return result


class ConvertedRows(Rows):
    """Rows of an array that PyTorch cannot see as it stands: of a foreign byte order, say, or read backwards."""

    def __init__(self, array: NDArray[Any], in_memory: bool) -> None:
        self.array, self._in_memory = array, in_memory
        self.shape, self.dtype = array.shape, self.block(0, 0).dtype

    @property
    def in_memory(self) -> bool:
        """Whether all rows, dense, are in memory anyway."""
        return self._in_memory

    def block(self, begin: int, end: int) -> torch.Tensor:
        """Rows begin .. end - 1, a copy."""
        return _copied(self.array[begin:end])

    def take(self, rows: torch.Tensor) -> torch.Tensor:
        """The rows of these numbers."""
        return _copied(self.array[rows.cpu().numpy()])


class SparseRows(Rows):
    """Rows of a SciPy CSR matrix ``[n, d]``, dense only as they come."""

    def __init__(self, matrix: Any) -> None:
        self.matrix = matrix
        self.shape, self.dtype = tuple(matrix.shape), self.block(0, 0).dtype

    def block(self, begin: int, end: int) -> torch.Tensor:
        """Rows begin .. end - 1, dense."""
        return _copied(self.matrix[begin:end].toarray())

    def take(self, rows: torch.Tensor) -> torch.Tensor:
        """The rows of these numbers, dense."""
        return _copied(self.matrix[rows.cpu().numpy()].toarray())


class DatasetRows(Rows):
    """Rows of a map-style data set of PyTorch, asked for a batch at a time where it has ``__getitems__``.

    An item is a row (an array, a tensor or numbers), or a tuple or list that begins with one, as (row, label). All
    rows have the shape and type of the first.
    """

    def __init__(self, function: str, dataset: Any) -> None:
        self.function, self.dataset = function, dataset
        if len(dataset) == 0:
            raise ValueError(f"{function}: X must have rows, got an empty data set")
        first = self._items([0])[0]
        self.shape, self.dtype = (len(dataset), *first.shape), first.dtype

    def block(self, begin: int, end: int) -> torch.Tensor:
        """Rows begin .. end - 1."""
        return self._rows(list(range(begin, end)))

    def take(self, rows: torch.Tensor) -> torch.Tensor:
        """The rows of these numbers, in one call of ``__getitems__``."""
        return self._rows(rows.tolist())

    def _rows(self, numbers: list[int]) -> torch.Tensor:
        if not numbers:
            return torch.empty((0, *self.shape[1:]), dtype=self.dtype)
        parts = self._items(numbers)
        for number, part in zip(numbers, parts, strict=True):
            if part.shape != self.shape[1:] or part.dtype != self.dtype:
                raise ValueError(
                    f"{self.function}: all rows of the data set must be {self.dtype} {list(self.shape[1:])} as the "
                    f"first, got {part.dtype} {list(part.shape)} in row {number}"
                )
        return torch.stack(parts)

    def _items(self, numbers: list[int]) -> list[torch.Tensor]:
        if hasattr(self.dataset, "__getitems__"):
            items = self.dataset.__getitems__(numbers)
        else:
            items = [self.dataset[number] for number in numbers]
        if len(items) != len(numbers):
            raise ValueError(
                f"{self.function}: __getitems__ of the data set must return an item for each of the {len(numbers)} "
                f"rows that it is asked for, got {len(items)}"
            )
        return [self._row(item) for item in items]

    def _row(self, item: Any) -> torch.Tensor:
        pair = isinstance(item, tuple | list) and len(item) > 0 and np.ndim(item[0]) > 0
        row = item[0] if pair else item
        if not isinstance(row, torch.Tensor):
            array = np.asarray(row)
            if array.dtype.kind not in "biuf":
                raise ValueError(
                    f"{self.function}: an item of the data set must be a row of numbers or (row, label), got "
                    f"{type(item).__name__}"
                )
            row = _copied(array)
        if row.ndim == 0:
            raise ValueError(f"{self.function}: a row of the data set must be an array, got a single number")
        return row.detach().cpu()


class ChosenRows(Rows):
    """Some of other rows, none of them copied.

    Parameters
    ----------
    rows : Rows
        ``[n, ...]``.
    numbers : torch.Tensor
        ``[m]`` int64, which of them.
    """

    def __init__(self, rows: Rows, numbers: torch.Tensor) -> None:
        self._rows, self._numbers = rows, numbers
        self.shape, self.dtype, self.device = (len(numbers), *rows.shape[1:]), rows.dtype, rows.device

    def block(self, begin: int, end: int) -> torch.Tensor:
        """Rows begin .. end - 1 of those that were chosen."""
        return self._rows.take(self._numbers[begin:end])

    def take(self, rows: torch.Tensor) -> torch.Tensor:
        """The rows of these numbers among those that were chosen."""
        return self._rows.take(self._numbers[rows.cpu()])


class Shards(Rows):
    """The rows of several .npy files, one file after another, none of them read before its rows are asked for.

    For :meth:`fit <fastpdr.ParametricUMAP.fit>`, :meth:`transform <fastpdr.ParametricUMAP.transform>` and
    :meth:`KNNGraph.build <fastpdr.KNNGraph.build>` in place of an array.

    Parameters
    ----------
    files : path-like, or sequence of path-like
        A folder, whose .npy files are taken in the order of their names, or the files, in the order given. All hold
        numbers of one dtype, ``[rows, ...]`` with rows of one shape; files without rows are fine.

    Attributes
    ----------
    files : tuple of pathlib.Path
        What is read.
    shape : tuple of int
        Of all rows together.
    dtype : torch.dtype
        Of the numbers.

    Raises
    ------
    ValueError
        If there are no files, or one is no .npy file of numbers, or does not fit the first: the message names it.
    OSError
        If one cannot be read.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from fastpdr import Shards
    >>> folder = tempfile.mkdtemp()
    >>> for i in range(3):
    ...     np.save(f"{folder}/part{i}.npy", np.full((4, 2), i, dtype=np.float16))
    >>> rows = Shards(folder)
    >>> rows.shape, rows.dtype
    ((12, 2), torch.float16)
    """

    def __init__(self, files: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> None:
        self.files = _files_of(files)
        begins = [0]
        for number, file in enumerate(self.files):
            array = _mapped(file)
            if number == 0:
                first, described = array.shape[1:], f"{array.dtype} {[*array.shape]}"
                self.dtype, stored = _rows_of("Shards", array).dtype, array.dtype
            if array.shape[1:] != first or array.dtype != stored:
                raise ValueError(
                    f"Shards: {file} must have rows as {self.files[0]}, which is {described}, got {array.dtype} "
                    f"{[*array.shape]}"
                )
            begins.append(begins[-1] + len(array))
        self.shape = (begins[-1], *first)
        self._begins = torch.tensor(begins)
        self._open: OrderedDict[int, Rows] = OrderedDict()

    def __repr__(self) -> str:
        return f"Shards({len(self.files)} files, shape={self.shape}, dtype={self.dtype})"

    def block(self, begin: int, end: int) -> torch.Tensor:
        """Rows begin .. end - 1; a view where they lie in one file.

        Parameters
        ----------
        begin, end : int

        Returns
        -------
        torch.Tensor of shape (end - begin, ...)
        """
        if begin >= end:
            return torch.empty((0, *self.shape[1:]), dtype=self.dtype)
        numbers = torch.searchsorted(self._begins, torch.tensor([begin, end - 1]), right=True) - 1
        parts = []
        for number in range(int(numbers[0]), int(numbers[1]) + 1):
            first, last = self._begins[number : number + 2].tolist()
            parts.append(self._file(number).block(max(begin - first, 0), min(end, last) - first))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def take(self, rows: torch.Tensor) -> torch.Tensor:
        """The rows of these numbers, file by file.

        Parameters
        ----------
        rows : torch.Tensor of shape (b,), int64

        Returns
        -------
        torch.Tensor of shape (b, ...)
        """
        rows = rows.cpu()
        numbers = torch.searchsorted(self._begins, rows, right=True) - 1
        order = numbers.argsort(stable=True)
        present, counts = numbers.unique(return_counts=True)
        parts = [self.block(0, 0)]
        for number, places in zip(present.tolist(), order.split(counts.tolist()), strict=True):
            parts.append(self._file(number).take(rows[places] - self._begins[number]))
        return torch.cat(parts).index_select(0, order.argsort())

    def _file(self, number: int) -> Rows:
        if number not in self._open:
            if len(self._open) >= MOST_OPEN_FILES:
                self._open.popitem(last=False)
            self._open[number] = _rows_of("Shards", _mapped(self.files[number]))
        self._open.move_to_end(number)
        return self._open[number]


def open_rows(function: str, X: Any) -> Rows:
    """Rows of whatever X is; its type and shape are checked, nothing is read yet.

    Parameters
    ----------
    function : str
        That errors name.
    X : array-like, memory map, scipy.sparse matrix, torch.Tensor, torch.utils.data.Dataset, Rows or path
        Of shape (n, ...), n >= 0. A list is made an array; a sparse matrix of another format is made CSR. Of a data
        set ``len()`` and ``__getitems__`` (or the class of PyTorch and ``[]``) are needed: :class:`DatasetRows`. A
        path is that of a .npy file or of a folder of such: :class:`Shards`.

    Returns
    -------
    Rows

    Raises
    ------
    ValueError
        If X holds anything but real numbers, or is a single one, or a tensor that is not dense.
    OSError
        If there is no such file.
    """
    if isinstance(X, Rows):
        return X
    if isinstance(X, str | os.PathLike):
        path = Path(X)
        return Shards(path) if path.is_dir() else _rows_of(function, _mapped(path))
    if isinstance(X, torch.Tensor):
        _require_rows(function, tuple(X.shape), not X.dtype.is_complex, X.dtype)
        if X.layout is not torch.strided:
            raise ValueError(f"{function}: X must be a dense tensor or a SciPy CSR matrix, got {X.layout}")
        return TensorRows(X.detach())
    if hasattr(X, "tocsr"):
        matrix = X.tocsr()
        _require_rows(function, matrix.shape, matrix.dtype.kind in "biuf", matrix.dtype)
        return SparseRows(matrix)
    if hasattr(X, "__getitems__") or isinstance(X, torch.utils.data.Dataset):
        if not hasattr(X, "__len__"):
            raise ValueError(f"{function}: X must be a data set of known length, got {type(X).__name__} without len()")
        return DatasetRows(function, X)
    return _rows_of(function, _numbers(function, X))


def _numbers(function: str, X: Any) -> NDArray[Any]:
    """X as an array; objects that are numbers become float64."""
    array = X if isinstance(X, np.ndarray) else np.asarray(X)
    if array.dtype.kind != "O":
        return array
    try:
        return array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{function}: X must hold real numbers, got {error}") from error


def _rows_of(function: str, array: NDArray[Any]) -> Rows:
    _require_rows(function, array.shape, array.dtype.kind in "biuf", array.dtype)
    memory_map = _shared_map(array)
    size = array.dtype.itemsize
    if not array.dtype.isnative or size > 8 or any(stride < 0 or stride % size for stride in array.strides):
        return ConvertedRows(array, in_memory=memory_map is None)
    if memory_map is None:
        return TensorRows(as_tensor(array))
    place = _place_in_file(array, memory_map)
    return MappedRows(array, _pages(memory_map)) if place is None else FileRows(*place, array.shape, array.dtype)


def _shared_map(array: NDArray[Any]) -> np.memmap[Any, Any] | None:
    """The memory map that an array is a view of, if it is one that is shared with a file."""
    base: Any = array
    while isinstance(base, np.ndarray):
        if isinstance(base, np.memmap) and isinstance(base.base, mmap.mmap):
            return None if base.mode == "c" else base  # what was written to a copy is nowhere else
        base = base.base
    return None


def _pages(memory_map: np.memmap[Any, Any]) -> mmap.mmap:
    pages: Any = memory_map.base
    return pages


def _place_in_file(array: NDArray[Any], memory_map: np.memmap[Any, Any]) -> tuple[int, int] | None:
    """A descriptor of the file and where in it the array begins; None if it lies there in another order.

    Or if the file is not known any more: its name may be another's by now.
    """
    address, begin = (part.__array_interface__["data"][0] for part in (array, memory_map))
    if memory_map.filename is None or not array.flags.c_contiguous:
        return None
    try:
        file = os.open(memory_map.filename, os.O_RDONLY)
        try:
            if _inode_at(begin) == os.fstat(file).st_ino:
                return os.dup(file), memory_map.offset + address - begin
        finally:
            os.close(file)
    except OSError:  # no such file, or no such list of maps on this system
        pass
    return None


def _inode_at(address: int) -> int | None:
    """Of the file that is mapped there."""
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
        for line in maps:
            limits, _, _, _, inode, *_ = line.split()
            first, last = (int(limit, 16) for limit in limits.split("-"))
            if first <= address < last:
                return int(inode)
    return None


def _copied(array: NDArray[Any]) -> torch.Tensor:
    """The array in memory of its own, in the native byte order; long doubles as float64."""
    dtype = array.dtype.newbyteorder("=") if array.dtype.itemsize <= 8 else np.dtype(np.float64)
    return torch.from_numpy(np.array(array, dtype=dtype, order="C"))


def _mapped(file: Path) -> NDArray[Any]:
    """The memory map of a .npy file of numbers."""
    if not file.exists():
        raise FileNotFoundError(2, "no such file", str(file))
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except PermissionError:
        raise
    except Exception as error:  # NumPy's own message advises to switch pickle on
        raise ValueError(f"{file} must be a complete .npy file of plain numbers") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf" or array.ndim == 0:
        got = f"{array.dtype} {[*array.shape]}" if isinstance(array, np.ndarray) else "an archive"
        raise ValueError(f"{file} must be a .npy file of numbers [rows, ...], got {got}")
    return array


def _files_of(files: Any) -> tuple[Path, ...]:
    if isinstance(files, str | os.PathLike):
        folder = Path(files)
        if not folder.is_dir():
            raise ValueError(f"Shards: files must be a folder or a list of .npy files, got {folder}")
        found = tuple(sorted(folder.glob("*.npy")))
        if not found:
            raise ValueError(f"Shards: {folder} must hold .npy files, got none")
        return found
    found = tuple(Path(file) for file in files)
    if not found:
        raise ValueError("Shards: files must name at least one .npy file, got none")
    return found


def _require_rows(function: str, shape: tuple[int, ...], real: bool, dtype: object) -> None:
    if len(shape) == 0:
        raise ValueError(f"{function}: X must be rows [n, d], got a single value")
    if not real:
        raise ValueError(f"{function}: X must hold real numbers, got dtype {dtype}")
