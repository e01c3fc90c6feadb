"""The methods, ours and the peers', each as a function from training rows to their map and to what places new rows.

They see rows alone, never labels. A peer has its own defaults; what a peer needs besides, to place new rows at all,
stands in its function.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Place = Callable[[NDArray], NDArray]
Fitted = tuple[NDArray, Place]


@dataclass(frozen=True)
class Method:
    """A way to learn a map.

    Parameters
    ----------
    fit : function of rows, seed, threads and the method's parameters
        Returns the map of the rows and a function that places others.
    modules : tuple of str
        What it imports, the time of which is not the method's.
    warm_up : dict
        Parameters that make the first small run short, and make it compile what a large one needs.
    """

    fit: Callable[..., Fitted]
    modules: tuple[str, ...]
    warm_up: dict[str, Any] = field(default_factory=dict)


class NotInstalledError(Exception):
    """A peer's package is missing."""


def imported(name: str) -> Method:
    """The method, its packages imported.

    Raises
    ------
    NotInstalledError
        One of them is missing; the message names it.
    """
    method = METHODS[name]
    for module in method.modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise NotInstalledError(f"{name} needs {module}, which cannot be imported: {error}") from error
    return method


def ours(estimator: str, **settings: Any) -> Method:
    def fit(X: NDArray, seed: int, threads: int, **parameters: Any) -> Fitted:
        import fastpdr

        model = getattr(fastpdr, estimator)(random_state=seed, **{**settings, **parameters}).fit(X)
        return model.embedding_, model.transform

    return Method(fit, ("fastpdr",), {"n_epochs": 1})


def opentsne(X: NDArray, seed: int, threads: int, **parameters: Any) -> Fitted:
    from openTSNE import TSNE

    placed = TSNE(random_state=seed, n_jobs=threads, **parameters).fit(X)
    return np.asarray(placed), lambda rows: np.asarray(placed.transform(rows))


def umap_learn(X: NDArray, seed: int, threads: int, **parameters: Any) -> Fitted:
    from umap import UMAP

    # A seed makes it run on one thread.
    model = UMAP(random_state=seed if threads == 1 else None, n_jobs=threads, **parameters)
    return model.fit_transform(X), model.transform


METHODS = {
    "tsne": ours("ParametricTSNE"),
    "tsne-knn": ours("ParametricTSNE", affinity="knn"),
    "mstsne": ours("MultiscaleParametricTSNE"),
    "mstsne-knn": ours("MultiscaleParametricTSNE", affinity="knn"),
    "umap": ours("ParametricUMAP"),
    "largevis": ours("ParametricLargeVis"),
    "opentsne": Method(opentsne, ("openTSNE",), {"n_iter": 10, "early_exaggeration_iter": 10}),
    "umap-learn": Method(umap_learn, ("umap",), {"force_approximation_algorithm": True}),
}
