"""Tables read and maps written.

Errors are ValueError that name the file and say what was expected.
"""

from __future__ import annotations

import csv
import importlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Number
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from fastpdr._files import save_array, written_aside
from fastpdr._progress import phase
from fastpdr.cli import formats
from fastpdr.cli.formats import Content, listed, load_array
from fastpdr.data import ChosenRows, Rows, Shards, open_rows

if TYPE_CHECKING:
    from fastpdr.graph import KNNGraph

READ_AT_ONCE = 2**28  # bytes of .npy files
MAP_SUFFIXES = (".npy", ".csv", ".parquet")
LABEL_SUFFIXES = (".npy", ".csv", ".txt")


@dataclass(frozen=True)
class Table:
    """Rows to map, and what is known about them."""

    X: Any  # [n, d], an array of numbers, or Rows of a file that is larger than is well read at once
    labels: NDArray | None = None  # [n], numbers, booleans or strings, none missing
    label_column: str | None = None
    names: tuple[str, ...] | None = None  # of the d columns, where the file has a header

    @property
    def rows(self) -> Any:
        """X, as a data frame where the columns have names: the estimator then checks them."""
        if self.names is None:
            return self.X
        return importlib.import_module("pandas").DataFrame(self.X, columns=list(self.names))

    def take(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> Table:
        """Return a table of some of the rows."""
        labels = None if self.labels is None else self.labels[chosen]
        if isinstance(self.X, Rows):
            numbers = torch.from_numpy(np.flatnonzero(chosen) if chosen.dtype == bool else chosen)
            return replace(self, X=ChosenRows(self.X, numbers), labels=labels)
        return replace(self, X=self.X[chosen], labels=labels)


def read(
    source: str,
    labels: str | int | None = None,
    *,
    labels_optional: bool = False,
    file_format: str | None = None,
    array: str | None = None,
    allow_pickle: bool = False,
    whole: bool = True,
) -> Table:
    """Read a table.

    Parameters
    ----------
    source : str
        A .npy, .npz, .csv, .tsv, .parquet, .json or .h5ad file, a folder of .npy files, in the order of their names,
        or the name of a built-in set.
    labels : str or int, optional
        A column of the table by its name or its position, another array of an .npz, a column of obs of an .h5ad, or a
        .npy, .csv or .txt file with one value per row. By default the array y of an .npz file and the digits of the
        built-in set.
    labels_optional : bool
        Whether the column of the labels, or values in it, may be missing: the table then has no labels.
    file_format, array, allow_pickle
        As for :func:`fastpdr.cli.formats.read`.
    whole : bool
        Whether the rows must be in memory. Else those of a .npy file, or a folder of such, of more than 256 MB are read
        when they are needed, if the labels are not among their columns.

    Returns
    -------
    Table
        X [n, d] may still hold NaN: see :func:`require_finite`.

    Raises
    ------
    ValueError
        No such file, an unknown format, columns that are not numbers, labels that do not fit.
    ModuleNotFoundError
        The format needs a package that is not installed.
    """
    with formats.named(source), phase(f"{source}: reading"):
        if not whole and (labels is None or Path(str(labels)).is_file()):
            rows = _unread(source, file_format)
            if rows is not None:
                return _with_labels_of_file(Table(rows), labels)
        content = formats.read(source, file_format, array, allow_pickle)
        return as_table(content, labels, labels_optional=labels_optional)


def as_table(content: Content, labels: str | int | None, *, labels_optional: bool) -> Table:
    """Return what a file holds, or a piece of it, as rows of numbers and labels; see :func:`read`."""
    rows, values, column = _separate(content, labels, labels_optional)
    table = _table(rows)
    if labels is None:
        values = content.labels
    elif isinstance(values, Path):
        return _with_labels_of_file(table, values)
    elif missing := _count_missing(values):
        if not labels_optional:
            raise ValueError(f"column {labels} must have a label in every row, but {missing} are missing")
        values = None
    if values is None:
        return table
    return replace(table, labels=_as_labels(np.asarray(values), len(table.X)), label_column=column)


def _unread(source: str, file_format: str | None) -> Rows | None:
    """The rows of large .npy files, which are there to be read; None for everything else."""
    kind = formats.kind_of(source, file_format)
    if kind not in (".npy", formats.SHARDS):
        return None
    files = formats.shards_of(source) if kind == formats.SHARDS else [Path(source)]
    if sum(file.stat().st_size for file in files) <= READ_AT_ONCE:
        return None
    formats.require_table(formats.load_array(files[0], mapped=True))
    return Shards(files)


def _with_labels_of_file(table: Table, path: Any) -> Table:
    if path is None:
        return table
    with formats.named(path):
        return replace(table, labels=_as_labels(_read_labels(Path(path), len(table.X)), len(table.X)))


def require_finite(table: Table) -> None:
    """Name the columns with values that no map can be learnt from.

    Raises
    ------
    ValueError
        There is a NaN or an infinite value.
    """
    n, d = table.X.shape
    counts = np.zeros(d, dtype=np.int64)
    for _, _, block in open_rows("fit", table.X).blocks():
        counts += (~block.isfinite()).sum(0).numpy()
    if counts.any():
        named = [f"{column_name(table, int(i))} ({counts[i]} of {n} rows)" for i in np.flatnonzero(counts)]
        raise ValueError(f"NaN or infinite values, fill or remove them; in column {listed(named)}")


def column_name(table: Table, column: int) -> str:
    """Return the name of a column, or its position where it has none."""
    return str(column) if table.names is None else table.names[column]


def write_map(
    path: Path,
    Z: NDArray,
    labels: NDArray | None = None,
    *,
    held_out: NDArray[np.bool_] | None = None,
    neighbors: KNNGraph | None = None,
) -> None:
    """Write a map in the format that the suffix names.

    Parameters
    ----------
    path : Path
        A .npy file gets Z alone; .csv and .parquet get a named column for each component and the columns label and
        held_out and neighbors.
    Z : ndarray [n, c]
        The map.
    labels : ndarray [n], optional
        One per row.
    held_out : ndarray of bool [n], optional
        Which rows the training has not seen.
    neighbors : KNNGraph, optional
        Of the n rows. Each gets ``{"ids": [...], "distances": [...]}``, the nearest first, ids the numbers of the rows
        from 0 on: a struct in .parquet, JSON in .csv.

    Raises
    ------
    ModuleNotFoundError
        The format needs a package that is not installed.

    References
    ----------
    The column neighbors is that of Embedding Atlas' option --neighbors
    (https://apple.github.io/embedding-atlas/tool.html).
    """
    with written_aside(path) as aside:
        if path.suffix == ".npy":
            save_array(aside, Z)
            return
        frame = map_frame(Z, labels, path.suffix)
        if held_out is not None:
            frame["held_out"] = held_out
        if path.suffix == ".csv":
            if neighbors is not None:
                frame["neighbors"] = _neighbors_as_json(neighbors)
            frame.to_csv(aside, index=False)
        else:
            _write_parquet(aside, frame, neighbors)


def _neighbors_as_json(graph: KNNGraph) -> list[str]:
    pairs = zip(graph.indices.tolist(), graph.distances.astype(str).tolist(), strict=True)
    return [f'{{"ids": {ids}, "distances": [{", ".join(distances)}]}}' for ids, distances in pairs]


def _write_parquet(path: Path, frame: Any, neighbors: KNNGraph | None) -> None:
    import pyarrow
    from pyarrow import parquet

    table = pyarrow.Table.from_pandas(frame, preserve_index=False)
    if neighbors is not None:
        offsets = np.arange(0, neighbors.indices.size + 1, neighbors.k)
        lists = [
            pyarrow.ListArray.from_arrays(offsets, pyarrow.array(values.ravel()))
            for values in (neighbors.indices, neighbors.distances)
        ]
        table = table.append_column("neighbors", pyarrow.StructArray.from_arrays(lists, ["ids", "distances"]))
    parquet.write_table(table, path)


def map_frame(Z: NDArray, labels: NDArray | None, suffix: str) -> Any:
    """Return the data frame of a map that a .csv or .parquet file holds."""
    frame = formats.require("writing", suffix).DataFrame(Z, columns=projection_names(Z.shape[1]))
    if labels is not None:
        frame["label"] = labels
    return frame


def projection_names(n_components: int) -> list[str]:
    """Return projection_x, _y, _z for up to three components, projection_1, _2, ... for more."""
    names = list("xyz")[:n_components] if n_components <= 3 else [str(i + 1) for i in range(n_components)]
    return [f"projection_{name}" for name in names]


def _separate(content: Content, labels: str | int | None, optional: bool) -> tuple[Any, Any, str | None]:
    """Return the rows without the column of the labels, that column or a file in its place, and the column's name."""
    rows = content.rows
    if isinstance(labels, str) and labels in content.beside:
        return rows, content.beside[labels], labels
    is_frame = hasattr(rows, "columns")
    width = 0 if is_frame or np.ndim(rows) < 2 else np.shape(rows)[-1]
    names = [str(name) for name in rows.columns] if is_frame else [str(i) for i in range(width)]
    position = labels if isinstance(labels, int) else names.index(labels) if is_frame and labels in names else -1
    if 0 <= position < len(names):
        others = [i for i in range(len(names)) if i != position]
        if is_frame:
            return rows.iloc[:, others], rows.iloc[:, position], names[position]
        return rows[:, others], rows[:, position], None
    if isinstance(labels, str) and Path(labels).is_file():
        return rows, Path(labels), None
    if labels is None or optional:
        return rows, None, None
    columns = listed([*names, *content.beside])
    raise ValueError(f"labels {labels} is neither a column nor a file; the columns are {columns}")


def _table(rows: Any) -> Table:
    if np.ndim(rows) and len(rows) == 0:
        raise ValueError("there are no rows")
    table = _from_frame(rows) if hasattr(rows, "columns") else Table(rows)
    formats.require_table(table.X)
    return table


def _from_frame(frame: Any) -> Table:
    from pandas.api.types import is_numeric_dtype

    names = [str(name) for name in frame.columns]
    formats.require_different(names)
    frame = frame.apply(_numbers_of_objects)
    words = [name for name, dtype in zip(names, frame.dtypes, strict=True) if not is_numeric_dtype(dtype)]
    if words:
        raise ValueError(f"all columns but that of the labels must be numbers; these are not: {listed(words)}")
    dtype = np.float32 if (frame.dtypes == np.float32).all() else np.float64
    # Running numbers are the names of an array's columns, not of a table's.
    is_array = all(name.isdigit() for name in names)
    return Table(frame.to_numpy(dtype, na_value=np.nan), names=None if is_array else tuple(names))


def _numbers_of_objects(column: Any) -> Any:
    """Return a column of numbers that are objects, such as decimals and integers of any size, as floating point."""
    is_object = column.dtype.kind == "O" and all(isinstance(value, Number) or value is None for value in column)
    return column.astype(np.float64) if is_object else column


def _count_missing(values: Any) -> int:
    if hasattr(values, "isna"):
        return int(values.isna().sum())
    return int(np.isnan(values).sum()) if values is not None and values.dtype.kind == "f" else 0


def _read_labels(path: Path, n: int) -> NDArray:
    if path.suffix.lower() not in LABEL_SUFFIXES:
        raise ValueError(f"labels must be a {', '.join(LABEL_SUFFIXES)} file or a column of a table")
    formats.require_content(path)
    if path.suffix.lower() == ".npy":
        return load_array(path)
    with open(path, newline="", encoding="utf-8-sig") as file:
        rows = list(csv.reader(file)) if path.suffix.lower() == ".csv" else [[line.strip()] for line in file]
    if any(len(row) > 1 for row in rows):
        raise ValueError(f"labels must have one value per row, got {max(len(row) for row in rows)}")
    values = [row[0] if row else "" for row in rows]
    while values and values[-1] == "":
        values.pop()
    # One line more than the data has rows: the first is a header.
    return _numbers_or_words(values[1:] if len(values) == n + 1 else values)


def _numbers_or_words(values: Sequence[str]) -> NDArray:
    words = np.array(values, dtype=str)
    for dtype in (np.int64, np.float64):
        try:
            return words.astype(dtype)
        except (ValueError, OverflowError):
            continue
    return words


def _as_labels(labels: NDArray, n: int) -> NDArray:
    """Return labels [n] as numbers, booleans or strings, complete."""
    column = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if column.shape != (n,):
        raise ValueError(f"labels must be one per row, {n} in all, got shape {list(labels.shape)}")
    values = column if column.dtype.kind in "biuf" else column.astype(str)
    missing = int(np.count_nonzero(np.isnan(values) if values.dtype.kind == "f" else values.astype(str) == ""))
    if missing:
        raise ValueError(f"every row must have a label, but {missing} are missing")
    return values
