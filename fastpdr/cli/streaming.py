"""Tables read and maps written a piece at a time, so that their length does not matter.

.npy files, folders of them, .csv, .tsv and .parquet files are never in memory as a whole; other formats are, and only
their maps are made in pieces. Errors name the row, counted from 1, without the header.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastpdr._files import written_aside
from fastpdr.cli import data, formats
from fastpdr.cli.data import Table
from fastpdr.cli.formats import Content
from fastpdr.cli.formats import numbers_where_possible as as_numbers

PIECE_ELEMENTS, MOST_ROWS = 2**22, 2**16  # numbers and rows of a piece
READ_AHEAD = 2**20  # bytes of a column of a .parquet file

Write = Callable[[NDArray[Any], "NDArray[Any] | None"], None]


@dataclass(frozen=True)
class Stream:
    """A table in pieces."""

    pieces: Iterator[Table]  # of finite numbers, none of them empty, at least one
    rows: int | None  # in all, where that is known from the start


def read(source: str, label_column: str | None, *, with_labels: bool) -> Stream:
    """Read a table in pieces.

    Parameters
    ----------
    source : str
        As for :func:`fastpdr.cli.data.read`.
    label_column : str, optional
        A column that is no feature; it may be missing.
    with_labels : bool
        Whether the pieces have the labels of that column, if it has one in every row. The column is read ahead for
        that, since it is the last row that may have none.

    Returns
    -------
    Stream
        Errors of later rows come with their pieces.

    Raises
    ------
    ValueError, ModuleNotFoundError
        As :func:`fastpdr.cli.data.read`.
    """
    with formats.named(source), formats.damage_explained(Path(source).suffix):
        kind = formats.kind_of(source)
        if kind in (".npy", formats.SHARDS):
            files = formats.shards_of(source) if kind == formats.SHARDS else [Path(source)]
            rows, tables = _of_arrays(files)
        elif kind in READERS:
            reader = READERS[kind](source)
            rows, tables = reader.rows, _of_frames(reader, label_column, with_labels)
        else:
            rows, tables = _of_whole(source, label_column)
    return Stream(_checked(source, tables), rows)


def rows_at_once(d: int) -> int:
    """Return how many rows of d numbers make a piece: a power of two, so that the blocks of the network stay whole."""
    return min(MOST_ROWS, 2 ** int(math.log2(max(1, PIECE_ELEMENTS // max(1, d)))))


class _Text:
    """A .csv or .tsv file."""

    rows = None

    def __init__(self, source: str) -> None:
        self.source, suffix = source, formats.kind_of(source)
        self._pandas = formats.require("reading", suffix)
        self._options = formats.text_options(source, suffix)
        self.columns = self._pandas.read_csv(source, nrows=1, **self._options).columns

    def frames(self, words: str | None = None) -> Iterator[Any]:
        """Return data frames; of the column `words` the text as it stands."""
        types = {name: str for name in self.columns if str(name) == words}
        size = rows_at_once(len(self.columns))
        with self._pandas.read_csv(self.source, chunksize=size, dtype=types, **self._options) as pieces:
            for piece in pieces:
                yield piece.apply(lambda column: column if str(column.name) == words else as_numbers(column))

    def column(self, name: str) -> Iterator[Any]:
        """Return the pieces of a column."""
        return (frame.iloc[:, [str(other) for other in frame.columns].index(name)] for frame in self.frames())


class _Parquet:
    """A .parquet file."""

    def __init__(self, source: str) -> None:
        formats.require("reading", ".parquet")
        from pyarrow import parquet

        formats.require_different(parquet.read_schema(source).names)
        # Without a buffer a column of a whole row group is read at once.
        self._file = parquet.ParquetFile(source, buffer_size=READ_AHEAD, pre_buffer=False)
        self.rows = self._file.metadata.num_rows
        self.columns = self._file.schema_arrow.empty_table().to_pandas().columns

    def frames(self, words: str | None = None) -> Iterator[Any]:
        """Return data frames; the types of the columns are those of the file anyway."""
        for batch in self._file.iter_batches(rows_at_once(len(self.columns))):
            yield batch.to_pandas()

    def column(self, name: str) -> Iterator[Any]:
        """Return the pieces of a column."""
        return (batch.to_pandas()[name] for batch in self._file.iter_batches(MOST_ROWS, columns=[name]))


READERS: dict[str, Any] = {".csv": _Text, ".tsv": _Text, ".parquet": _Parquet}


def _of_arrays(files: list[Path]) -> tuple[int, Iterator[Table]]:
    arrays = [formats.load_array(file, mapped=True) for file in files]
    for array in arrays:
        formats.require_table(array)
    return sum(len(array) for array in arrays), _pieces_of_arrays(files)


def _pieces_of_arrays(files: list[Path]) -> Iterator[Table]:
    for file in files:
        n, d = formats.load_array(file, mapped=True).shape
        size = rows_at_once(d)
        for begin in range(0, n, size):
            # Mapped anew: pages that were read count as this process's memory until the map is closed.
            yield Table(np.array(formats.load_array(file, mapped=True)[begin : begin + size]))


def _of_frames(reader: Any, label_column: str | None, with_labels: bool) -> Iterator[Table]:
    column = label_column if label_column in [str(name) for name in reader.columns] else None
    dtype = _common_type(reader.column(column)) if column is not None and with_labels else None
    words = column if dtype is not None and dtype.kind == "U" else None
    begin = 0
    for frame in reader.frames(words):
        _require_numbers(frame, column, begin)
        begin += len(frame)
        if len(frame):
            table = data.as_table(Content(frame), column, labels_optional=True)
            labels = None if dtype is None or table.labels is None else table.labels.astype(dtype)
            yield replace(table, labels=labels)


def _common_type(pieces: Iterable[Any]) -> np.dtype[Any] | None:
    """Return the type that holds all labels of a column: numbers, booleans or words; None if one is missing."""
    types = set()
    for values in pieces:
        if values.isna().any():
            return None
        types.add(np.asarray(values).dtype)
    kinds = {dtype.kind for dtype in types}
    numbers = kinds <= set("iuf") or kinds == {"b"}
    return np.result_type(*types) if types and numbers else np.dtype(str)


def _require_numbers(frame: Any, label_column: str | None, begin: int) -> None:
    """Name the first row of a piece that holds something else in a column of numbers."""
    import pandas

    for name, values in frame.items():
        if str(name) == label_column or pandas.api.types.is_numeric_dtype(values.dtype):
            continue
        others = np.flatnonzero(values.notna() & pandas.to_numeric(values, errors="coerce").isna())
        if len(others):
            row = int(others[0])
            raise ValueError(f"row {begin + row + 1}, column {name}: expected a number, got {values.iloc[row]!r}")


def _of_whole(source: str, label_column: str | None) -> tuple[int, Iterator[Table]]:
    content = formats.read(source, None, None, allow_pickle=False)
    names = [*content.beside, *(str(name) for name in getattr(content.rows, "columns", ()))]
    table = data.as_table(content, label_column if label_column in names else None, labels_optional=True)
    n, d = table.X.shape
    size = rows_at_once(d)
    parts = (slice(begin, begin + size) for begin in range(0, n, size))
    labels = table.labels
    return n, (replace(table, X=table.X[p], labels=None if labels is None else labels[p]) for p in parts)


def _checked(source: str, tables: Iterator[Table]) -> Iterator[Table]:
    """Hand tables on once their numbers are finite; with the name of the source before every error."""
    begin = 0
    with formats.named(source), formats.damage_explained(Path(source).suffix):
        for table in tables:
            bad = ~np.isfinite(table.X)
            if bad.any():
                row, column = np.argwhere(bad)[0]
                name = data.column_name(table, int(column))
                raise ValueError(f"row {begin + row + 1}, column {name}: NaN or an infinite value; fill or remove it")
            begin += len(table.X)
            yield table
        if begin == 0:
            raise ValueError("there are no rows")


@contextmanager
def written_map(path: Path) -> Iterator[Write]:
    """Yield a function that appends places [m, c] and perhaps labels [m] to a map, as `data.write_map` writes it whole.

    The file takes its place when the block ends without an error.
    """
    with written_aside(path) as aside, WRITERS[path.suffix](aside) as write:
        yield write


@contextmanager
def _npy(path: Path) -> Iterator[Write]:
    """Append to a .npy file: NumPy leaves room in its header for a number of rows that is known at the end."""
    n = 0
    header: dict[str, Any] = {}
    with open(path, "wb") as file:

        def write(Z: NDArray[Any], labels: NDArray[Any] | None) -> None:
            nonlocal n
            if n == 0:
                header.update(descr=np.lib.format.dtype_to_descr(Z.dtype), fortran_order=False, shape=Z.shape)
                np.lib.format.write_array_header_1_0(file, header)
            n += len(Z)
            file.write(np.ascontiguousarray(Z).data)

        yield write
        file.seek(0)
        np.lib.format.write_array_header_1_0(file, header | {"shape": (n, *header["shape"][1:])})


@contextmanager
def _csv(path: Path) -> Iterator[Write]:
    with open(path, "w", newline="", encoding="utf-8") as file:

        def write(Z: NDArray[Any], labels: NDArray[Any] | None) -> None:
            data.map_frame(Z, labels, ".csv").to_csv(file, header=file.tell() == 0, index=False)

        yield write


@contextmanager
def _parquet(path: Path) -> Iterator[Write]:
    formats.require("writing", ".parquet")
    import pyarrow
    from pyarrow import parquet

    writer = None

    def write(Z: NDArray[Any], labels: NDArray[Any] | None) -> None:
        nonlocal writer
        frame = data.map_frame(Z, labels, ".parquet")
        table = pyarrow.Table.from_pandas(frame, schema=writer and writer.schema, preserve_index=False)
        writer = writer or parquet.ParquetWriter(path, table.schema)
        writer.write_table(table)

    try:
        yield write
    finally:
        if writer is not None:
            writer.close()


WRITERS = {".npy": _npy, ".csv": _csv, ".parquet": _parquet}
