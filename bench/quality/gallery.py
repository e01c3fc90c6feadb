"""A picture of a set: the training rows' map of each method above that of rows which it has not seen.

The latter with their trustworthiness, of 7 neighbours.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from fastpdr import plotting
from fastpdr.cli.output import written_aside
from fastpdr.metrics import trustworthiness

from . import methods, sets

ROWS = 5_000  # of either kind: as many points above as below
DOTS_PER_INCH = 90


def draw(names: Sequence[str], name: str, seed: int, threads: int, changed: dict[str, Any], path: Path) -> None:
    """Fit methods to a set by the published protocol, in this process, and write the picture of their maps.

    Parameters
    ----------
    names : sequence of str
        Keys of ``methods.METHODS``, from left to right.
    name : str
        A key of ``sets.SOURCES``.
    seed, threads, changed
        As for ``run.run``.
    path : Path
        The picture; its suffix names the format.

    Raises
    ------
    methods.NotInstalledError, ValueError
    """
    torch.set_num_threads(threads)
    data = sets.load(name, "published")
    chosen = [methods.imported(each) for each in names]
    above, below = {}, {}
    for method in chosen:
        with warnings.catch_warnings(action="ignore"):
            Z, place = method.fit(data.X, seed, threads, **changed)
        unseen = place(data.X_test)
        title = method.title.replace("`", "").replace("Parametric", "")
        score = trustworthiness(data.X_test, unseen, n_neighbors=7)
        above[f"{title}: training rows"] = (Z[:ROWS], data.y[:ROWS])
        below[f"{title}, never seen: {score:.3f}"] = (unseen[:ROWS], data.y_test[:ROWS])
    figure = plotting.compare({**above, **below}, columns=len(chosen))[0].figure
    with written_aside(path) as aside:
        figure.savefig(aside, dpi=DOTS_PER_INCH, bbox_inches="tight")
