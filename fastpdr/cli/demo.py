"""fastpdr demo: two maps of scikit-learn's digits, and the rows neither of them has seen placed on both."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from numpy.typing import NDArray

from fastpdr.cli import output
from fastpdr.cli.showing import HELD_OUT, TRAINING, parameters_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TEST_SHARE = 0.25
NEIGHBORS = 12
MARGIN = 0.04
POINT_SIZE = 16.0


@dataclass(frozen=True)
class Digits:
    """Standardised rows [n, 64] and the digits they show."""

    X_train: NDArray
    X_test: NDArray
    y_train: NDArray
    y_test: NDArray


@dataclass(frozen=True)
class Result:
    """What one method made of the digits."""

    estimator: Any
    Z_train: NDArray  # [n_train, 2]
    Z_test: NDArray  # [n_test, 2]
    scores: dict[str, Any]
    rnx: dict[str, NDArray]  # curves of the training rows and of those held out

    @property
    def name(self) -> str:
        return type(self.estimator).__name__


def run(folder: Path, seed: int = 0, n_epochs: int | None = None) -> None:
    """Train both t-SNE estimators with their defaults, place the unseen rows, write and report.

    Parameters
    ----------
    folder : Path
        Gets model/ (the ParametricTSNE), report.html of it, metrics.json and map.png, all or none; older ones are
        replaced.
    seed : int
        random_state of both estimators.
    n_epochs : int, optional
        By default that of the estimators.

    Raises
    ------
    ModuleNotFoundError
        matplotlib is not installed.
    ValueError
        The folder is a file, or its model is none that fastpdr wrote.
    OSError
        The folder cannot be written.
    """
    import fastpdr
    from fastpdr import plotting

    plotting.require_matplotlib()
    output.refuse_used_folder(folder, True, "--output")
    with output.filled_folder(folder, ("report.html",)) as aside:
        digits = _load_digits()
        results = []
        for kind in (fastpdr.ParametricTSNE, fastpdr.MultiscaleParametricTSNE):
            click.echo(f"Training {kind.__name__} on {len(digits.X_train)} rows of scikit-learn's digits")
            results.append(_train(kind(random_state=seed, n_epochs=n_epochs, verbose=True), digits))
        fastpdr.save(results[0].estimator, aside / "model", metrics=results[0].scores)
        output.write_json(aside / "metrics.json", _facts(digits, seed, results))
        plotting.save(_draw(digits, results), aside / "map.png")
        report = _write_report(aside / "report.html", digits, results[0])
    _say(folder, results, report)


def _load_digits() -> Digits:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
    from sklearn.preprocessing import StandardScaler

    X, y = load_digits(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=TEST_SHARE, random_state=0)
    scaler = StandardScaler().fit(X_train)
    return Digits(scaler.transform(X_train), scaler.transform(X_test), y_train, y_test)


def _train(estimator: Any, digits: Digits) -> Result:
    from fastpdr.metrics import knn_accuracy

    start = time.perf_counter()
    Z_train = estimator.fit_transform(digits.X_train)
    fitted = time.perf_counter()
    Z_test = estimator.transform(digits.X_test)
    placed = time.perf_counter()
    train, train_rnx = _structure(digits.X_train, Z_train)
    test, test_rnx = _structure(digits.X_test, Z_test)
    scores = {
        "train": train,
        "test": test,
        "knn_accuracy": knn_accuracy(Z_train, digits.y_train, Z_test, digits.y_test),
        "training_time_seconds": fitted - start,
        "transform_time_seconds": placed - fitted,
    }
    return Result(estimator, Z_train, Z_test, scores, {TRAINING: train_rnx, HELD_OUT: test_rnx})


def _structure(X: NDArray, Z: NDArray) -> tuple[dict[str, float], NDArray]:
    from fastpdr.metrics import evaluate_with_curve

    scores, rnx = evaluate_with_curve(X, Z, n_neighbors=NEIGHBORS)
    return {name: scores[name] for name in ("trustworthiness", "rnx_auc")}, rnx


def _facts(digits: Digits, seed: int, results: list[Result]) -> dict[str, Any]:
    return {
        "data": "scikit-learn digits, standardised by the training rows",
        "n_train": len(digits.X_train),
        "n_test": len(digits.X_test),
        "seed": seed,
        "methods": {result.name: result.scores for result in results},
        "versions": output.versions(),
    }


def _write_report(path: Path, digits: Digits, result: Result) -> str:
    """Write the report of one method if that is possible; returns what to say about it."""
    from fastpdr import report

    scores, n_train, n_test = result.scores, len(digits.y_train), len(digits.y_test)
    try:
        report.write(
            path,
            np.vstack([result.Z_train, result.Z_test]),
            np.concatenate([digits.y_train, digits.y_test]),
            held_out=np.arange(n_train + n_test) >= n_train,
            scores={
                TRAINING: scores["train"]
                | {
                    "knn_accuracy": None,
                    "training_time_seconds": scores["training_time_seconds"],
                    "n_samples": n_train,
                },
                HELD_OUT: scores["test"]
                | {name: scores[name] for name in ("knn_accuracy", "transform_time_seconds")}
                | {"n_samples": n_test},
            },
            rnx=result.rnx,
            loss=result.estimator.loss_history_,
            config=parameters_of(result.estimator),
            versions=output.versions(),
            title=f"{result.name} of handwritten digits",
        )
    except ModuleNotFoundError as error:
        return f"not written: {error}"
    return f"the map of {result.name} as a page for the browser"


def _draw(digits: Digits, results: list[Result]) -> Figure:
    """Draw a row for each method: the rows that trained the map, and the unseen ones in the same frame."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.5, 11))
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.1)
    figure.suptitle("A learnt map of handwritten digits, and rows it has never seen", fontsize=17)
    panels = figure.subplots(len(results), 2)
    for (left, right), result in zip(panels, results, strict=True):
        _draw_row(left, right, digits, result)
    _share_legend(figure)
    return figure


def _draw_row(left: Axes, right: Axes, digits: Digits, result: Result) -> None:
    from fastpdr import plotting

    title = f"{result.name}: {len(digits.y_train)} training rows"
    plotting.map(result.Z_train, digits.y_train, ax=left, title=title, point_size=POINT_SIZE, legend=False)
    # The trained map stays visible below, so that one sees where the new rows fall on it.
    below = result.Z_train
    right.scatter(below[:, 0], below[:, 1], s=POINT_SIZE, linewidths=0, color=plotting.MISSING_COLOR)
    title = f"{len(digits.y_test)} rows never seen: k-NN accuracy {100 * result.scores['knn_accuracy']:.1f} %"
    plotting.map(result.Z_test, digits.y_test, ax=right, title=title, point_size=POINT_SIZE)
    (x, y), reach = _square(np.vstack([result.Z_train, result.Z_test]))
    for ax in (left, right):
        ax.set(xlim=(x - reach, x + reach), ylim=(y - reach, y + reach))


def _share_legend(figure: Figure) -> None:
    """Put one legend beside the panels in place of those in them, with the grey of the rows below."""
    from matplotlib.lines import Line2D

    from fastpdr.plotting import MISSING_COLOR

    legends = [legend for ax in figure.axes if (legend := ax.get_legend()) is not None]
    handles = list(legends[0].legend_handles)
    for legend in legends:
        legend.remove()
    grey = {"linestyle": "", "marker": "o", "markersize": 7, "color": MISSING_COLOR}
    handles.append(Line2D([], [], label="training\nrows", **grey))  # type: ignore[arg-type]
    style: dict[str, Any] = {"loc": "outside right center", "frameon": False, "handletextpad": 0.2}
    figure.legend(handles=handles, title="digit", fontsize=12, title_fontsize=12, **style)


def _square(points: NDArray) -> tuple[NDArray, float]:
    """Return centre and half the side of the square around all points, with a margin."""
    low, high = points.min(axis=0), points.max(axis=0)
    return (low + high) / 2, float((high - low).max()) * (0.5 + MARGIN)


def _say(folder: Path, results: list[Result], report: str) -> None:
    scores = [result.scores for result in results]
    figures = {
        "trustworthiness, training rows": [f"{s['train']['trustworthiness']:.3f}" for s in scores],
        "trustworthiness, unseen rows": [f"{s['test']['trustworthiness']:.3f}" for s in scores],
        "R_NX AUC, training rows": [f"{s['train']['rnx_auc']:.3f}" for s in scores],
        "R_NX AUC, unseen rows": [f"{s['test']['rnx_auc']:.3f}" for s in scores],
        "k-NN accuracy, unseen rows": [f"{s['knn_accuracy']:.3f}" for s in scores],
        "seconds of training": [f"{s['training_time_seconds']:.1f}" for s in scores],
        "seconds to place unseen rows": [f"{s['transform_time_seconds']:.3f}" for s in scores],
    }
    header = ("", *(result.name for result in results))
    click.echo()
    click.echo(output.aligned([header, *((name, *cells) for name, cells in figures.items())], numbers=True))
    files = {
        "map.png": "both maps: look here first",
        "report.html": report,
        "metrics.json": "these figures and the versions",
        "model/": f"the ParametricTSNE: fastpdr.load({str(folder / 'model')!r})",
    }
    click.echo(f"\nIn {folder}:")
    click.echo(output.aligned(list(files.items())))
