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
import zipfile
import zlib
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
    if kind == ".npz":
        return _read_npz(source, array)
    if kind in PICKLES:
        return _read_pickle(source, allow_pickle)
    return READERS[kind](source)


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
    if kind not in (SHARDS, DIGITS) and not path.is_file():
        raise ValueError("no such file")
    return kind


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
    parts = [load_array(file, mapped=True) for file in files]
    for file, part in zip(files, parts, strict=True):
        if part.ndim != 2 or part.shape[1:] != parts[0].shape[1:]:
            raise ValueError(
                f"all files must be tables of as many columns as {files[0].name}, of shape {list(parts[0].shape)}, "
                f"but {file.name} has shape {list(part.shape)}"
            )
    return files


def _read_shards(source: str) -> Content:
    return Content(np.concatenate([load_array(file) for file in shards_of(source)]))


def _read_npz(source: str, array: str | None) -> Content:
    with _numpy_errors():
        archive = np.load(source, allow_pickle=False)
        names = archive.files
    with archive:
        data_name = _data_name(names, array)
        with _numpy_errors():
            arrays = {name: archive[name] for name in names}
    rows = arrays.pop(data_name)
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
    except (ValueError, TypeError, AttributeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError("not a complete NumPy file of plain arrays (pickled objects are never loaded)") from error


def _read_csv(source: str) -> Content:
    return Content(require("reading", ".csv").read_csv(source, **text_options(source, ".csv")))


def _read_tsv(source: str) -> Content:
    return Content(require("reading", ".tsv").read_csv(source, **text_options(source, ".tsv")))


def text_options(source: str, suffix: str) -> dict[str, Any]:
    """Return how pandas.read_csv is to read a .csv or .tsv file, by its first two lines."""
    separator = SEPARATORS[suffix]
    with open(source, newline="", encoding="utf-8-sig") as file:
        lines = csv.reader(file, delimiter=separator)
        first, second = next(lines, []), next(lines, [])
    # R leaves the names of the rows without a name above: pandas knows that, and would take a number for one as well.
    if len(second) > len(first) > 0 and _is_number(second[0]):
        raise ValueError(f"line 2 has {len(second)} fields, but line 1 has {len(first)}")
    has_header = _is_header(first)
    return {
        "sep": separator,
        "header": 0 if has_header else None,
        # pandas and R write the names of the rows into a first column without a name: it is no feature.
        "index_col": 0 if has_header and first[0] == "" else None,
        "encoding": "utf-8-sig",
    }


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
    return Content(require("reading", ".parquet").read_parquet(source))


def _read_json(source: str) -> Content:
    try:
        content = json.loads(Path(source).read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if isinstance(content, dict):
        content = next((content[key] for key in MATRIX_KEYS if key in content), content)
    kinds = {type(row) for row in content} if isinstance(content, list) else {type(content)}
    if kinds == {list}:
        return Content(np.asarray(content))
    if kinds != {dict}:
        raise ValueError('must be a list of records, a list of rows, {"data": rows} or {"column": values, ...}')
    return Content(require("reading", ".json").DataFrame(content))


def _read_h5ad(source: str) -> Content:
    anndata = require("reading", ".h5ad")
    try:
        cells = anndata.read_h5ad(source)
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
