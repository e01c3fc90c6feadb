"""Tables read and maps written: .npy, .npz, .csv, .parquet and scikit-learn's digits.

Errors are ValueError that name the file and say what was expected.  Nothing is ever unpickled.  pandas and pyarrow
are imported only for the formats that need them.
"""

from __future__ import annotations

import csv
import importlib
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastpdr.cli.output import written_aside

if TYPE_CHECKING:
    import pandas as pd

MAP_SUFFIXES = (".npy", ".csv", ".parquet")
LABEL_SUFFIXES = (".npy", ".csv", ".txt")
LISTED_NAMES = 10


@dataclass(frozen=True)
class Table:
    """Rows to map, and what is known about them."""

    X: NDArray  # [n, d], numbers
    labels: NDArray | None = None  # [n], numbers, booleans or strings, none missing
    label_column: str | None = None
    names: tuple[str, ...] | None = None  # of the d columns, where the file has a header

    @property
    def rows(self) -> Any:
        """X, as a data frame where the columns have names: the estimator then checks them."""
        if self.names is None:
            return self.X
        return importlib.import_module("pandas").DataFrame(self.X, columns=list(self.names))


def read(source: str, labels: str | None = None, *, optional_label: str | None = None) -> Table:
    """Read a table.

    Parameters
    ----------
    source : str
        A .npy, .npz, .csv or .parquet file, or the name of a built-in set.
    labels : str, optional
        A column of the table, or a .npy, .csv or .txt file with one value per row.  By default the array y of a
        .npz file and the digits of the built-in set.
    optional_label : str, optional
        A column that holds labels, and no feature, if the table has it; they may be missing.

    Returns
    -------
    Table
        X [n, d] may still hold NaN: that is for the estimator to refuse.

    Raises
    ------
    ValueError
        No such file, an unknown format, columns that are not numbers, labels that do not fit.
    ModuleNotFoundError
        The format needs a package that is not installed.
    """
    kind = _kind(source)
    try:
        if kind in _FRAME_READERS:
            table = _from_frame(_FRAME_READERS[kind](source), labels, optional_label)
        else:
            table = Table(*_ARRAY_READERS[kind](source))
        _check_data(table.X)
        if labels is not None and table.label_column != labels:
            table = replace(table, labels=_read_labels(Path(labels), len(table.X)))
        return table if table.labels is None else replace(table, labels=_as_labels(table.labels, len(table.X)))
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error


def write_map(path: Path, Z: NDArray, labels: NDArray | None = None) -> None:
    """Write a map in the format that the suffix names.

    Parameters
    ----------
    path : Path
        A .npy file gets Z alone; .csv and .parquet get a named column for each component and the column label.
    Z : ndarray [n, c]
        The map.
    labels : ndarray [n], optional
        One per row.

    Raises
    ------
    ModuleNotFoundError
        The format needs a package that is not installed.
    """
    with written_aside(path) as aside:
        if path.suffix == ".npy":
            np.save(aside, Z, allow_pickle=False)
            return
        frame = require_pandas("writing", path.suffix).DataFrame(Z, columns=projection_names(Z.shape[1]))
        if labels is not None:
            frame["label"] = labels
        if path.suffix == ".csv":
            frame.to_csv(aside, index=False)
        else:
            frame.to_parquet(aside, index=False)


def projection_names(n_components: int) -> list[str]:
    """Return projection_x, _y, _z for up to three components, projection_1, _2, ... for more."""
    names = list("xyz")[:n_components] if n_components <= 3 else [str(i + 1) for i in range(n_components)]
    return [f"projection_{name}" for name in names]


def require_pandas(action: str, suffix: str) -> Any:
    """Import pandas (and pyarrow for .parquet), or say what to install."""
    needed = ["pandas", "pyarrow"] if suffix == ".parquet" else ["pandas"]
    try:
        modules = [importlib.import_module(name) for name in needed]
    except ModuleNotFoundError as error:
        message = f"{action} {suffix} needs {' and '.join(needed)}: pip install 'fastpdr[data]'"
        raise ModuleNotFoundError(message) from error
    return modules[0]


def _kind(source: str) -> str:
    if source in _BUILT_IN:
        return source
    suffix = Path(source).suffix.lower()
    files = [kind for kind in (*_ARRAY_READERS, *_FRAME_READERS) if kind not in _BUILT_IN]
    if suffix not in files:
        raise ValueError(
            f"{source}: unknown format; known are {', '.join(files)} files and the built-in set {', '.join(_BUILT_IN)}"
        )
    if not Path(source).is_file():
        raise ValueError(f"{source}: no such file")
    return suffix


def _read_digits(source: str) -> tuple[NDArray, NDArray | None]:
    from sklearn.datasets import load_digits

    return load_digits(return_X_y=True)


def _read_npy(source: str) -> tuple[NDArray, NDArray | None]:
    return _load_array(source), None


def _read_npz(source: str) -> tuple[NDArray, NDArray | None]:
    with _numpy_errors():
        archive = np.load(source, allow_pickle=False)
        names = archive.files
    with archive:
        data_name = _data_name(names)
        with _numpy_errors():
            return archive[data_name], archive["y"] if "y" in names else None


def _data_name(names: Sequence[str]) -> str:
    candidates = [name for name in names if name != "y"]
    if "X" in candidates:
        return "X"
    if len(candidates) != 1:
        raise ValueError(f"must hold an array X or a single array, but holds {_listed(names)}")
    return candidates[0]


def _load_array(source: str | Path) -> NDArray:
    with _numpy_errors():
        array = np.load(source, allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise TypeError("an archive of arrays")
    return array


@contextmanager
def _numpy_errors() -> Iterator[None]:
    # NumPy's own message advises to switch pickle on.
    try:
        yield
    except (ValueError, TypeError, AttributeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError("not a complete NumPy file of plain arrays (pickled objects are never loaded)") from error


def _read_csv(source: str) -> pd.DataFrame:
    pandas = require_pandas("reading", ".csv")
    with open(source, newline="", encoding="utf-8-sig") as file:
        first = next(csv.reader(file), [])
    has_header = _is_header(first)
    return pandas.read_csv(
        source,
        header=0 if has_header else None,
        # pandas and R write the names of the rows into a first column without a name: it is no feature.
        index_col=0 if has_header and first[0] == "" else None,
        encoding="utf-8-sig",
    )


def _is_header(fields: Sequence[str]) -> bool:
    names = list(fields[1:] if fields and fields[0] == "" else fields)
    # pandas calls columns without a name 0, 1, 2, ...
    if len(names) > 2 and names == [str(i) for i in range(len(names))]:
        return True
    return not all(field.strip() == "" or _is_number(field) for field in fields)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _read_parquet(source: str) -> pd.DataFrame:
    return require_pandas("reading", ".parquet").read_parquet(source)


_ArrayReader = Callable[[str], "tuple[NDArray, NDArray | None]"]
_BUILT_IN = ("digits",)
_ARRAY_READERS: dict[str, _ArrayReader] = {"digits": _read_digits, ".npy": _read_npy, ".npz": _read_npz}
_FRAME_READERS: dict[str, Callable[[str], Any]] = {".csv": _read_csv, ".parquet": _read_parquet}


def _from_frame(frame: pd.DataFrame, labels: str | None, optional_label: str | None) -> Table:
    frame.columns = frame.columns.astype(str)
    column = next((name for name in (labels, optional_label) if name in frame.columns), None)
    if labels is not None and labels != column and not Path(labels).is_file():
        raise ValueError(f"--labels {labels} is neither a column nor a file; the columns are {_listed(frame.columns)}")
    features = frame if column is None else frame.drop(columns=column)
    _check_columns(features)
    dtype = np.float32 if (features.dtypes == np.float32).all() else np.float64
    X = features.to_numpy(dtype, na_value=np.nan)
    if column is None or (column == optional_label and frame[column].isna().any()):
        return Table(X, names=_names(features))
    return Table(X, _plain_column(frame[column]), column, _names(features))


def _names(features: pd.DataFrame) -> tuple[str, ...] | None:
    """Return the names of the columns; running numbers are those of an array, not of a table."""
    names = tuple(features.columns)
    return None if all(name.isdigit() for name in names) else names


def _check_columns(features: pd.DataFrame) -> None:
    from pandas.api.types import is_numeric_dtype

    words = [name for name, dtype in features.dtypes.items() if not is_numeric_dtype(dtype)]
    if words:
        raise ValueError(
            f"all columns but that of the labels (fit --labels) must be numbers; these are not: {_listed(words)}"
        )


def _plain_column(column: pd.Series) -> NDArray:
    missing = int(column.isna().sum())
    if missing:
        raise ValueError(f"column {column.name} must have a label in every row, but {missing} are missing")
    return np.asarray(column)


def _check_data(X: NDArray) -> None:
    if X.ndim != 2:
        hint = "; flatten the rest first, X.reshape(len(X), -1)" if X.ndim > 2 else ""
        raise ValueError(f"the data must be a table [rows, columns], got shape {list(X.shape)}{hint}")
    if X.dtype.kind not in "biuf":
        raise ValueError(f"the data must be real numbers, got dtype {X.dtype}")


def _read_labels(path: Path, n: int) -> NDArray:
    if path.suffix.lower() not in LABEL_SUFFIXES or not path.is_file():
        raise ValueError(f"--labels {path} must be a {', '.join(LABEL_SUFFIXES)} file or a column of a table")
    if path.suffix.lower() == ".npy":
        return _load_array(path)
    with open(path, newline="", encoding="utf-8-sig") as file:
        rows = list(csv.reader(file)) if path.suffix.lower() == ".csv" else [[line.strip()] for line in file]
    if any(len(row) > 1 for row in rows):
        raise ValueError(f"--labels {path} must have one value per row, got {max(len(row) for row in rows)}")
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


def _listed(names: Sequence[object]) -> str:
    shown = ", ".join(str(name) for name in names[:LISTED_NAMES])
    return f"{shown}, ... ({len(names)} in all)" if len(names) > LISTED_NAMES else shown or "nothing"
