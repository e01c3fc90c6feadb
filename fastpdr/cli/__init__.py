"""The command line: fit, train, pipeline, sweep, transform, export, demo, info.

Commands import what they need when they run, so that --help answers at once.  Bad input ends with exit code 2, a
failure on the way with 1; either way with one line that begins with "Error:", unless --debug asks for the traceback.
Ctrl-C ends with 130 and SIGTERM with 143, after a checkpoint where there are such.
"""

from __future__ import annotations

import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import click

import fastpdr
from fastpdr._methods import METHODS
from fastpdr.cli import logs

# Options that not every method has.
METHODS_OF_OPTIONS = {
    "perplexity": ("tsne", "largevis"),
    "affinity": ("tsne", "mstsne"),
    "n_neighbors": ("umap",),
    "min_dist": ("umap",),
    "metric": ("umap", "largevis"),
}
# What the library and the packages below it raise on purpose; all else is said with its type.
EXPECTED = (ValueError, OSError, ArithmeticError, RuntimeError, MemoryError, ImportError)
METRICS = ("euclidean", "cosine", "manhattan", "chebyshev", "braycurtis")
FORMATS = ("npy", "csv", "parquet")


class _InputError(click.ClickException):
    exit_code = 2


class _Group(click.Group):
    """A group whose commands say errors and warnings of the library in a line that people can act on."""

    command_class = logs.Command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with warnings.catch_warnings(), _ended_in_order():
                warnings.showwarning = show_warning  # type: ignore[assignment]
                return super().invoke(ctx)
        except (click.ClickException, click.Abort, click.exceptions.Exit, BrokenPipeError):
            raise
        except KeyboardInterrupt:
            click.echo("Interrupted", err=True)
            raise click.exceptions.Exit(128 + signal.SIGINT) from None
        except Exception as error:
            if ctx.params["debug"]:
                raise
            _end(error)


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """Let SIGTERM end a command as Ctrl-C does: with what it wrote aside removed."""

    def end(number: int, _: Any) -> NoReturn:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def show_warning(message: Warning | str, *_: Any) -> None:
    """Print a warning as commands do."""
    click.echo(f"Warning: {message}", err=True)


def _end(error: Exception) -> NoReturn:
    message = str(error) or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        message = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    elif not isinstance(error, EXPECTED):
        message = f"{type(error).__name__}: {message} (fastpdr --debug shows where)"
    kind = _InputError if isinstance(error, (ValueError, FileNotFoundError)) else click.ClickException
    raise kind(message) from error


@logs.verbosity
@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(fastpdr.__version__, prog_name="fastpdr")
@click.option("--debug", is_flag=True, hidden=True, help="Show the traceback of an error.")
def main(debug: bool) -> None:
    """Fast parametric dimension reduction: learn a map of your data, place new rows on it at once."""


@main.command("fit")
@click.argument("source", metavar="DATA")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Folder to write.")
@click.option("--method", type=click.Choice(list(METHODS)), default="tsne", show_default=True, help="Kind of map.")
@click.option("--labels", metavar="COLUMN_OR_FILE", help="Labels: a column of DATA, or a .npy, .csv or .txt file.")
@click.option(
    "--held-out",
    type=click.FloatRange(min=0, max=1, min_open=True, max_open=True),
    metavar="SHARE",
    help="Share of the rows that the map does not learn from; they are placed on it and judged.",
)
@click.option("--perplexity", type=click.FloatRange(min=1), help="Neighbours that count for a row (tsne, largevis).")
@click.option("--n-neighbors", type=click.IntRange(min=2), help="Neighbours that count for a row, with itself (umap).")
@click.option("--min-dist", type=click.FloatRange(min=0, max=1), help="How far near rows stay apart (umap).")
@click.option("--metric", type=click.Choice(METRICS), help="Distance between rows (umap, largevis).")
@click.option(
    "--affinity",
    type=click.Choice(["batch", "knn"]),
    help="Compare the rows of a batch, or with neighbours in all data (tsne, mstsne).",
)
@click.option("--n-components", type=click.IntRange(min=1), help="Columns of the map.  [default: 2]")
@click.option("--n-epochs", type=click.IntRange(min=1), help="Passes over the data.  [default: by its size]")
@click.option("--batch-size", type=click.IntRange(min=2), help="Rows in one step.  [default: by the number of rows]")
@click.option("--learning-rate", type=click.FloatRange(min=0, min_open=True), help="Step size of the optimizer.")
@click.option("--device", help="Where to train: cpu, cuda, cuda:1, ...  [default: a GPU if there is one]")
@click.option("--memory-limit", metavar="SIZE", help="Memory to take, as 8GB.  [default: most of what is free]")
@click.option("--seed", "random_state", type=click.IntRange(min=0), default=0, show_default=True, help="Random seed.")
@click.option(
    "--format",
    "file_format",
    type=click.Choice(FORMATS),
    default="npy",
    show_default=True,
    help="Of the map as a table.",
)
@click.option(
    "--neighbors", type=click.IntRange(min=1), metavar="K", help="Add K neighbours of each row to a .csv or .parquet."
)
@click.option("--embedding-in-model", is_flag=True, help="Put the map of the rows learnt from into model/ as well.")
@click.option(
    "--checkpoint",
    "checkpoint_dir",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Folder of checkpoints; the same command goes on from them after an interruption.",
)
@click.option("--overwrite", is_flag=True, help="Write into a folder that is not empty.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
def _fit(
    source: str,
    output: Path,
    method: str,
    labels: str | None,
    held_out: float | None,
    file_format: str,
    neighbors: int | None,
    embedding_in_model: bool,
    overwrite: bool,
    quiet: bool,
    **parameters: Any,
) -> None:
    """Learn a map of DATA and write it to a folder.

    DATA is a .npy, .npz, .csv, .tsv, .parquet, .json or .h5ad file of numbers, one row per sample, a folder of .npy
    files, or the built-in set: digits.  The folder gets the model, the map of DATA, a picture of it, metrics.json, and
    report.html with all of it.  Labels colour the picture and judge the map; no method learns from them here.
    .npy files and folders of them may be larger than memory; of more than 256 MB, up to 20,000 rows are judged.
    Several processes learn one map: torchrun --nproc-per-node N -m fastpdr fit ...
    """
    from fastpdr.cli import data, formats
    from fastpdr.cli.fit import run
    from fastpdr.cli.output import refuse_used_folder

    _refuse_other_options(method, parameters)
    if file_format == "npy" and neighbors is not None:
        raise click.UsageError("--neighbors is for --format csv and parquet, not for npy")
    if file_format != "npy":
        formats.require("writing", f".{file_format}")
    given = {name: value for name, value in parameters.items() if value is not None}
    with fastpdr.distributed() as ranks:
        if ranks.rank == 0:
            refuse_used_folder(output, overwrite, "--output")
        table = data.read(source, labels, whole=False)
        estimator = getattr(fastpdr, METHODS[method])(**given, verbose=not quiet and ranks.rank == 0)
        run(
            table,
            estimator,
            output,
            f".{file_format}",
            held_out=held_out,
            neighbors=neighbors,
            quiet=quiet,
            embedding_in_model=embedding_in_model,
        )


def _refuse_other_options(method: str, parameters: dict[str, Any]) -> None:
    for name, methods in METHODS_OF_OPTIONS.items():
        if parameters.get(name) is not None and method not in methods:
            option = "--" + name.replace("_", "-")
            raise click.UsageError(f"{option} is for --method {' and '.join(methods)}, not for {method}")


def _config_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that train and pipeline share."""
    options = [
        click.option(
            "--config",
            "path",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            metavar="FILE",
            help="YAML; without one all settings have their defaults.",
        ),
        click.option("--seed", type=click.IntRange(min=0), help="Random seed, in place of the config's."),
        click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="As in model.n_epochs=50."),
        click.option("--print-config", is_flag=True, help="Print all settings as they result, and stop."),
        click.option("--overwrite", is_flag=True, help="Replace older results."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@main.command("train")
@_config_options
def _train(path: Path | None, seed: int | None, settings: tuple[str, ...], print_config: bool, overwrite: bool) -> None:
    """Learn a map as a YAML file says: data, preprocessing, model and output.

    What the file leaves out has a default. The folder output.model_dir/output.model_name gets the model with its
    preprocessing, the map, a picture of it, metrics.json, report.html, and train.yml with all settings.
    """
    _run_config("train", path, seed, settings, print_config, overwrite)


@main.command("pipeline")
@_config_options
def _pipeline(
    path: Path | None, seed: int | None, settings: tuple[str, ...], print_config: bool, overwrite: bool
) -> None:
    """Learn scaler and map as one scikit-learn pipeline, as a YAML file says.

    Its sections are data, preprocessing, algorithm and output; what it leaves out has a default. A model_path that
    ends in .joblib or .pkl asks for a joblib file in place of a folder for fastpdr.load.
    """
    _run_config("pipeline", path, seed, settings, print_config, overwrite)


def _run_config(
    command: str, path: Path | None, seed: int | None, settings: Sequence[str], print_config: bool, overwrite: bool
) -> None:
    from fastpdr.cli import config as configs

    config = configs.load(path, command, settings, seed)
    if print_config:
        click.echo(configs.dump(config), nl=False)
        return
    with fastpdr.distributed():
        import_module(f"fastpdr.cli.{command}").run(config, overwrite=overwrite)


@main.command("sweep")
@click.option(
    "--config",
    "path",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="YAML in the syntax of W&B's sweeps.",
)
@click.option("--count", type=click.IntRange(min=1), help="Trials in all.  [default: run_cap of FILE, or the grid]")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Trials at a time.")
@click.option(
    "--engine",
    type=click.Choice(["optuna", "wandb"]),
    default="optuna",
    show_default=True,
    help="Who searches: optuna here, or W&B.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="DIR", help="Folder, in place of FILE's.")
@click.option("--seed", type=click.IntRange(min=0), help="Random seed, in place of FILE's.")
@click.option("--overwrite", is_flag=True, help="Begin anew where there is a sweep already.")
@click.option("--smoke-test", is_flag=True, help="Run one tiny trial, and leave nothing without --output.")
def _sweep(path: Path, output: Path | None, **options: Any) -> None:
    """Search for good parameters: train with many, judge each map on rows that it has not seen, keep the best model.

    FILE has what is searched (method, metric, parameters) and the sections of train for what is not. The same command
    again goes on where it was stopped. The folder gets the study, a table of the trials, the best model and best.yml.
    """
    from fastpdr.cli.sweep import run

    run(path, folder=output, **options)


@main.command("plan")
@click.argument("n", type=click.IntRange(min=1), metavar="N")
@click.argument("d", type=click.IntRange(min=1), metavar="D")
@click.option("--method", type=click.Choice(list(METHODS)), default="tsne", show_default=True, help="Kind of map.")
@click.option("--dtype", default="float32", show_default=True, help="Of the rows as stored: uint8, float16, ...")
@click.option("--perplexity", type=click.FloatRange(min=1), help="Neighbours that count for a row (tsne, largevis).")
@click.option("--n-neighbors", type=click.IntRange(min=2), help="Neighbours that count for a row, with itself (umap).")
@click.option("--batch-size", type=click.IntRange(min=2), help="Rows in one step.  [default: by the number of rows]")
@click.option("--device", help="Where to train: cpu, cuda, cuda:1, ...  [default: a GPU if there is one]")
@click.option("--memory-limit", metavar="SIZE", help="Memory to take, as 8GB.  [default: most of what is free]")
def _plan(n: int, d: int, method: str, dtype: str, **parameters: Any) -> None:
    """Say how much memory a map of N rows of D columns would take, and whether it fits.

    The rows themselves are in files and not counted, nor is the process itself.  The command ends with 1 if the map
    does not fit.
    """
    _refuse_other_options(method, parameters)
    given = {name: value for name, value in parameters.items() if value is not None}
    made = fastpdr.plan(n, d, method, dtype=dtype, **given)
    click.echo(repr(made))
    if not made.fits:
        raise click.exceptions.Exit(1)


@main.command("transform")
@click.argument("folder", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("source", metavar="NEW")
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="OUT",
    help="File to write: .npy, .csv or .parquet.",
)
def _transform(folder: Path, source: str, output: Path) -> None:
    """Place the rows of NEW on the map in DIR.

    DIR is a folder that fit wrote, or the model in it.  NEW has the columns the map was learnt from; the column
    that held its labels may be missing.  .npy, .csv, .tsv and .parquet files and folders of .npy files may be larger
    than memory.
    """
    from fastpdr.cli.transform import run

    run(folder, source, output)


@main.command("export")
@click.argument("folder", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="OUT",
    help="File to write: .onnx, or .pt2 for PyTorch.",
)
def _export(folder: Path, output: Path) -> None:
    """Write the map in DIR as one file that runs without fastpdr.

    DIR is a folder that fit, train or pipeline wrote, or the model in it.  The file takes rows as they are in the
    data: scaler and PCA are part of it.  It is run and compared with the model before it replaces an older one.
    """
    from fastpdr.cli.export import run

    run(folder, output)


@main.command("demo")
@click.option(
    "-o",
    "--output",
    default="demo",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Folder to write.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Random seed.")
def _demo(output: Path, seed: int) -> None:
    """Learn and draw two maps of handwritten digits.

    Both t-SNE methods learn from three quarters of scikit-learn's digits and place the last quarter on their maps.
    Older results in the folder are replaced.
    """
    from fastpdr.cli.demo import run

    run(output, seed)


@main.command("info")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def _info(as_json: bool) -> None:
    """Say what is compiled and what is used."""
    import json

    from fastpdr.cli.output import aligned

    info = fastpdr.build_info()
    click.echo(json.dumps(info, indent=2) if as_json else aligned(_info_rows(info)))


def _info_rows(info: dict[str, Any]) -> list[tuple[str, str]]:
    rows = []
    for name, value in info.items():
        if isinstance(value, dict):
            rows += _info_rows({f"{name}: {key}": item for key, item in value.items()})
        elif isinstance(value, list):
            rows.append((name, ", ".join(value) or "none"))
        else:
            rows.append(
                (name, {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value))
            )
    return rows
