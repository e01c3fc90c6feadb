"""Diagrams of what a training and a map are like: losses by epoch, R_NX by size of the neighbourhood."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastpdr.plotting.colors import class_colors
from fastpdr.plotting.figures import frame_curves, new_figure, set_texts, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def loss(
    histories: Any,
    *,
    ax: Axes | None = None,
    title: str | None = None,
) -> Axes:
    """Draw the loss of every epoch.

    Parameters
    ----------
    histories : array-like [n_epochs], fitted estimator or pipeline, or a mapping of str to one of these
        The losses, or what has them as ``loss_history_``; a mapping draws a curve for each, with its name.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default the axes of a new figure.
    title : str, optional
        Stands above the diagram.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        A history is not numbers [n_epochs], n_epochs >= 1.
    ModuleNotFoundError
        matplotlib is not installed.

    Notes
    -----
    Losses of different methods, batch sizes or perplexities are of different kinds: their heights say nothing.

    Examples
    --------
    >>> from fastpdr import plotting
    >>> ax = plotting.loss({"first": [3.0, 2.0, 1.5], "second": [2.5, 1.8, 1.6]})
    """
    curves = _curves("loss", "histories", histories, _history)
    ax = new_figure(6.5, 4.5).subplots() if ax is None else ax
    from matplotlib.ticker import MaxNLocator

    frame_curves(ax, title, "epoch", "loss")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    _draw(ax, curves, [shortened(name) for name in curves])
    return ax


def rnx(
    curves: ArrayLike | Mapping[str, ArrayLike],
    *,
    ax: Axes | None = None,
    title: str | None = None,
) -> Axes:
    """Draw how much of the neighbourhoods of every size maps keep, R_NX(K) over log K.

    Parameters
    ----------
    curves : array-like [k_max], or mapping of str to array-like [k_max]
        R_NX(1), R_NX(2), ..., as :func:`fastpdr.metrics.rnx_curve` returns them; a mapping draws one for each name.
        The legend has the area under each, :func:`fastpdr.metrics.rnx_auc`.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default the axes of a new figure.
    title : str, optional
        Stands above the diagram.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        A curve is not numbers [k_max], k_max >= 1.
    ModuleNotFoundError
        matplotlib is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> from fastpdr import metrics, plotting
    >>> X = np.random.default_rng(0).normal(size=(100, 5))
    >>> ax = plotting.rnx({"first two columns": metrics.rnx_curve(X, X[:, :2])})
    """
    from fastpdr.metrics.structure import log_k_mean

    checked = _curves("rnx", "curves", curves, np.asarray)
    ax = new_figure(6.5, 4.5).subplots() if ax is None else ax
    frame_curves(ax, title, "neighbourhood size K", r"$R_{\mathrm{NX}}(K)$")
    ax.set_xscale("log")
    names = [f"{shortened(name)}, " if name else "" for name in checked]
    labels = [f"{name}AUC {log_k_mean(curve):.3f}" for name, curve in zip(names, checked.values(), strict=True)]
    _draw(ax, checked, labels)
    ax.set_ylim(min(0.0, ax.get_ylim()[0]), 1.0)
    return ax


def _history(value: Any) -> NDArray:
    """Return the losses of a fitted estimator, of a pipeline's last step, or as they were given."""
    last = value.steps[-1][1] if hasattr(value, "steps") else value
    return np.asarray(getattr(last, "loss_history_", last))


def _curves(function: str, argument: str, value: Any, read: Callable[[Any], NDArray]) -> dict[str, NDArray]:
    """Return curves by their names; one alone has none."""
    given = value if isinstance(value, Mapping) else {"": value}
    curves = {str(name): read(item) for name, item in given.items()}
    if not curves:
        raise ValueError(f"{function}: {argument} must hold at least one curve, got none")
    for name, curve in curves.items():
        if curve.ndim != 1 or len(curve) == 0 or curve.dtype.kind not in "iuf":
            where = f" of {name}" if name else ""
            got = f"{curve.dtype} {list(curve.shape)}"
            raise ValueError(f"{function}: {argument}{where} must be numbers [k], k >= 1, got {got}")
    return curves


def _draw(ax: Axes, curves: dict[str, NDArray], labels: list[str]) -> None:
    """Draw curves over 1, 2, 3, ...; a legend has the labels, unless there is none."""
    for i, (curve, color) in enumerate(zip(curves.values(), class_colors(len(curves)), strict=True)):
        # One point is no line.
        style: dict[str, Any] = {"color": color, "linewidth": 1.8, "marker": "." if len(curve) == 1 else ""}
        ax.plot(np.arange(1, len(curve) + 1), curve, label=str(i), **style)
    if any(labels):
        set_texts(ax.legend(frameon=False), labels)
