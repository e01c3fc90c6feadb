"""Files of rows, a reader for each format.

Errors are ValueError that say what was expected; the caller names the file. Nothing is unpickled unless that was asked
for. pandas, pyarrow and anndata are imported only for the formats that need them.
"""

from __future__ import annotations

import csv
import importlib
import json
import pickle
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

LISTED_NAMES = 10
DIGITS, SHARDS = "digits", "a folder"
SEPARATORS = {".csv": ",", ".tsv": "\t"}
PANDAS_PREFIX = "Error tokenizing data. C error: "
PACKAGES = {".parquet": ("data", "pandas", "pyarrow"), ".h5ad": ("h5ad", "anndata")}
MATRIX_KEYS = ("data", "features")  # of a .json file


@dataclass(frozen=True)
class Content:
    """What a file holds."""

    rows: Any  # [n, d], an array or a data frame
    labels: NDArray | None = None  # [n], those that belong to the rows without anybody saying so
    beside: Mapping[str, Any] = field(default_factory=dict)  # name to [n], what is known of the rows and no feature


def read(source: str, file_format: str | None, array: str | None, allow_pickle: bool) -> Content:
    """Read a file, a folder of .npy files, or a built-in set.

    Parameters
    ----------
    source : str
        A path, or the name of the built-in set.
    file_format : str, optional
        A suffix such as ".csv". By default that of the file.
    array : str, optional
        Which array of an .npz file holds the rows.
    allow_pickle : bool
        Whether a .pkl file may be read, which can run any code.

    Returns
    -------
    Content
        As it stands there: nothing is checked yet.

    Raises
    ------
    ValueError
        No such file, an unknown format, a damaged file.
    ModuleNotFoundError
        The format needs a package that is not installed.
    """
    kind = kind_of(source, file_format)
    if array is not None and kind != ".npz":
        raise ValueError(f"an array is named only in .npz files, not in {kind}")
    with damage_explained(kind):
        if kind == ".npz":
            return _read_npz(source, array)
        if kind in PICKLES:
            return _read_pickle(source, allow_pickle)
        return READERS[kind](source)


@contextmanager
def named(source: str | Path) -> Iterator[None]:
    """Let errors of bad input begin with the name of the file; one that cannot be read is bad input as well."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise ValueError(f"{source}: must be text in UTF-8, but byte {error.start} is not") from error
    except OSError as error:
        raise ValueError(f"{error.filename or source}: {error.strerror or error}") from error
    except ValueError as error:
        raise ValueError(f"{source}: {str(error).removeprefix(PANDAS_PREFIX).strip()}") from error


@contextmanager
def damage_explained(kind: str) -> Iterator[None]:
    """Turn what readers raise for a damaged file, which is of every kind, into bad input."""
    try:
        yield
    except (ValueError, OSError, ImportError, MemoryError):
        raise
    except Exception as error:
        raise ValueError(f"not a readable {kind} file ({type(error).__name__}: {error})") from error


def require(action: str, suffix: str) -> Any:
    """Import the package that reads or writes a format (pandas, if not another), or say what to install."""
    extra, *needed = PACKAGES.get(suffix, ("data", "pandas"))
    try:
        modules = [importlib.import_module(name) for name in needed]
    except ModuleNotFoundError as error:
        message = f"{action} {suffix} needs {' and '.join(needed)}: pip install 'fastpdr[{extra}]'"
        raise ModuleNotFoundError(message) from error
    return modules[0]


def load_array(source: str | Path, *, mapped: bool = False) -> NDArray:
    """Read a .npy file, or only say where in it the numbers are."""
    with _numpy_errors():
        array = np.load(source, mmap_mode="r" if mapped else None, allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise TypeError("an archive of arrays")
    return array


def require_table(X: NDArray) -> None:
    """Refuse an array that is no table of real numbers."""
    if X.ndim != 2:
        hint = "; flatten the rest first, X.reshape(len(X), -1)" if X.ndim > 2 else ""
        raise ValueError(f"the data must be a table [rows, columns], got shape {list(X.shape)}{hint}")
    if X.dtype.kind not in "biuf":
        raise ValueError(f"the data must be real numbers, got dtype {X.dtype}")
    if X.shape[1] == 0:
        raise ValueError("there are no columns")


def listed(names: Sequence[object]) -> str:
    """Return the first names and how many there are."""
    shown = ", ".join(str(name) for name in names[:LISTED_NAMES])
    return f"{shown}, ... ({len(names)} in all)" if len(names) > LISTED_NAMES else shown or "nothing"


def kind_of(source: str, file_format: str | None = None) -> str:
    """Return the suffix that stands for a format, or the word for a source that is no file."""
    path = Path(source)
    kind = file_format or (source if source == DIGITS else SHARDS if path.is_dir() else path.suffix.lower())
    if kind not in (*READERS, ".npz", *PICKLES):
        files = sorted(kind for kind in (*READERS, ".npz", *PICKLES) if kind.startswith("."))
        raise ValueError(
            f"unknown format; known are {', '.join(files)} files, folders of .npy files and the built-in set {DIGITS}"
        )
    if kind not in (SHARDS, DIGITS):
        require_content(path)
    return kind


def require_content(path: Path) -> None:
    """Refuse what is no file, or an empty one."""
    if not path.is_file():
        raise ValueError("no such file")
    if path.stat().st_size == 0:
        raise ValueError("the file is empty")


def require_different(names: Sequence[str]) -> None:
    """Refuse columns that cannot be told apart by their names; some may have none."""
    twice = [name for name, count in Counter(names).items() if count > 1 and name != ""]
    if twice:
        raise ValueError(f"the names of columns must differ; these stand more than once: {listed(twice)}")


def _read_digits(source: str) -> Content:
    from sklearn.datasets import load_digits

    return Content(*load_digits(return_X_y=True))


def _read_npy(source: str) -> Content:
    return Content(load_array(source))


def shards_of(source: str) -> list[Path]:
    """Return the .npy files of a folder, in the order of their names, once it is clear that they fit together."""
    files = sorted(Path(source).glob("*.npy"))
    if not files:
        raise ValueError("the folder holds no .npy files")
    parts = []
    for file in files:
        with named(file.name):
            parts.append(load_array(file, mapped=True))
            require_table(parts[-1])
    for file, part in zip(files, parts, strict=True):
        if part.shape[1:] != parts[0].shape[1:]:
            raise ValueError(
                f"all files must be tables of as many columns as {files[0].name}, of shape {list(parts[0].shape)}, "
                f"but {file.name} has shape {list(part.shape)}"
            )
    return files


def _read_shards(source: str) -> Content:
    return Content(np.concatenate([load_array(file) for file in shards_of(source)]))


def _read_npz(source: str, data_name: str | None) -> Content:
    with _numpy_errors(), np.load(source, allow_pickle=False) as archive:
        # A zip file may hold other things beside arrays.
        arrays = {name: array for name in archive.files if isinstance(array := archive[name], np.ndarray)}
    rows = arrays.pop(_data_name(list(arrays), data_name))
    return Content(rows, arrays.get("y"), arrays)


def _data_name(names: Sequence[str], array: str | None) -> str:
    if array is not None:
        if array not in names:
            raise ValueError(f"there is no array {array}; the arrays are {listed(names)}")
        return array
    candidates = [name for name in names if name != "y"]
    if "X" in candidates:
        return "X"
    if len(candidates) != 1:
        raise ValueError(f"must hold an array X or a single array, but holds {listed(names)}")
    return candidates[0]


@contextmanager
def _numpy_errors() -> Iterator[None]:
    # NumPy's own message advises to switch pickle on.
    try:
        yield
    except (OSError, MemoryError):
        raise
    except Exception as error:
        raise ValueError("not a complete NumPy file of plain arrays (pickled objects are never loaded)") from error


def _read_csv(source: str) -> Content:
    return _read_text(source, ".csv")


def _read_tsv(source: str) -> Content:
    return _read_text(source, ".tsv")


def _read_text(source: str, suffix: str) -> Content:
    frame = require("reading", suffix).read_csv(source, **text_options(source, suffix))
    return Content(frame.apply(numbers_where_possible))


def text_options(source: str, suffix: str) -> dict[str, Any]:
    """Return how pandas.read_csv is to read a .csv or .tsv file, by its first two lines."""
    separator = SEPARATORS[suffix]
    with open(source, newline="", encoding="utf-8-sig") as file:
        lines = (fields for fields in csv.reader(file, delimiter=separator) if fields)
        first, second = next(lines, []), next(lines, [])
    if not first:
        raise ValueError("there are no rows")
    has_header = _is_header(first)
    if has_header:
        require_different(first)
    # R leaves the names of the rows without a name above: pandas knows that, and would take a number for one as well.
    if len(second) > len(first) > 0 and _is_number(second[0]):
        raise ValueError(f"line 2 has {len(second)} fields, but line 1 has {len(first)}")
    return {
        "sep": separator,
        "header": 0 if has_header else None,
        # pandas and R write the names of the rows into a first column without a name: it is no feature.
        "index_col": 0 if has_header and first[0] == "" else None,
        "encoding": "utf-8-sig",
    }


def numbers_where_possible(column: Any) -> Any:
    """Return a column of integers too large for any integer type, which pandas takes for words, as numbers."""
    try:
        return column if column.dtype.kind in "biuf" else column.astype(np.float64)
    except (TypeError, ValueError):
        return column


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


def _read_parquet(source: str) -> Content:
    pandas = require("reading", ".parquet")
    from pyarrow import parquet

    require_different(parquet.read_schema(source).names)
    return Content(pandas.read_parquet(source))


def _read_json(source: str) -> Content:
    try:
        content = json.loads(Path(source).read_text(encoding="utf-8-sig"))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from error
    if isinstance(content, dict):
        content = next((content[key] for key in MATRIX_KEYS if key in content), content)
    if content in ([], {}):
        raise ValueError("there are no rows")
    kinds = {type(row) for row in content} if isinstance(content, list) else set()
    if kinds == {list}:
        return Content(_as_rows(content))
    if kinds == {dict} or (isinstance(content, dict) and {type(values) for values in content.values()} == {list}):
        return Content(require("reading", ".json").DataFrame(content))
    raise ValueError('must be a list of records, a list of rows, {"data": rows} or {"column": values, ...}')


def _as_rows(content: list[list[Any]]) -> NDArray:
    """Return rows of numbers; null is NaN."""
    for i, row in enumerate(content):
        if len(row) != len(content[0]):
            raise ValueError(
                f"all rows must have the {len(content[0])} values of the first, but row {i} has {len(row)}"
            )
    rows = np.asarray(content)
    if rows.dtype.kind != "O":
        return rows
    try:
        return rows.astype(np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"all values must be numbers ({error})") from error


def _read_h5ad(source: str) -> Content:
    anndata = require("reading", ".h5ad")
    try:
        cells = anndata.read_h5ad(source)
    except PermissionError:
        raise
    except (OSError, KeyError, AttributeError) as error:
        raise ValueError(f"not a complete .h5ad file ({error})") from error
    if cells.X is None:
        raise ValueError("holds no matrix X")
    X = cells.X if isinstance(cells.X, np.ndarray) else cells.X.toarray()
    rows = require("reading", ".csv").DataFrame(X, columns=cells.var_names)
    return Content(rows, beside={str(name): cells.obs[name] for name in cells.obs.columns})


def _read_pickle(source: str, allowed: bool) -> Content:
    if not allowed:
        raise ValueError("reading a pickle can run any code; data.allow_pickle: true of fastpdr train allows it")
    warnings.warn(f"{source}: reading a pickle can run any code; read only those that you trust", stacklevel=2)
    try:
        content = pickle.loads(Path(source).read_bytes())
    # A pickle may raise anything.
    except Exception as error:
        raise ValueError(f"not a readable pickle ({type(error).__name__}: {error})") from error
    if isinstance(content, tuple) and len(content) == 2:
        return Content(np.asarray(content[0]), np.asarray(content[1]))
    if isinstance(content, dict):
        content = require("reading", ".pkl").DataFrame(content)
    return Content(content if hasattr(content, "columns") else np.asarray(content))


PICKLES = (".pkl", ".pickle")
READERS: dict[str, Callable[[str], Content]] = {
    DIGITS: _read_digits,
    SHARDS: _read_shards,
    ".npy": _read_npy,
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".parquet": _read_parquet,
    ".json": _read_json,
    ".h5ad": _read_h5ad,
}
