"""fastpdr export: a map that was learnt before, as a file for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fastpdr.cli.output import writable_folder
from fastpdr.cli.transform import model_folder


def run(folder: Path, path: Path) -> None:
    """Read a model and write it in the format that the suffix names.

    Parameters
    ----------
    folder : Path
        A folder of fastpdr fit, or a saved model.
    path : Path
        The file to write, .onnx or .pt2.

    Raises
    ------
    ValueError
        An unknown suffix, no model in the folder.
    ModuleNotFoundError
        ONNX needs packages that are not installed.
    RuntimeError
        What would be written does otherwise than the model.
    """
    import fastpdr
    from fastpdr.estimators.steps import split

    writers: dict[str, Any] = {".onnx": fastpdr.to_onnx, ".pt2": fastpdr.to_exported_program}
    if path.suffix not in writers:
        raise ValueError(f"--output {path}: the suffix must be one of {', '.join(writers)}")
    model = fastpdr.load(model_folder(folder), device="cpu")
    with writable_folder(path.parent):
        writers[path.suffix](model, path)
    c = split(model)[2].n_components
    click.echo(f"{path}: rows [n, {model.n_features_in_}] float32 to places [n, {c}], checked against the model")
