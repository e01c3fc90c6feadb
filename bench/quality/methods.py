"""The methods, ours and the peers', each as a function from training rows to their map and to what places new rows.

They see rows alone, never labels. Parameters are the defaults of each; what a peer needs besides to place new rows, or
to give the same map again, stands in its function.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Fitted = tuple[NDArray, Callable[[NDArray], NDArray]]


class NotInstalledError(Exception):
    """A peer's package is missing."""


@dataclass(frozen=True)
class Method:
    """A way to learn a map.

    Parameters
    ----------
    title : str
        In the tables.
    learn : function of rows, seed, threads and the method's own parameters
        Returns the map of the rows and a function that places others.
    package : str
        As pip knows it.
    modules : tuple of str
        What it imports; the time for that is not the method's.
    warm_up : dict
        Parameters that make the first small fit short, and make it compile what a large one needs.
    """

    title: str
    learn: Callable[..., Fitted]
    package: str
    modules: tuple[str, ...]
    warm_up: dict[str, Any] = field(default_factory=dict)

    def fit(self, X: NDArray, seed: int, threads: int, *, pca: int | None = None, **parameters: Any) -> Fitted:
        """Learn a map of rows [n, d], or of their first `pca` principal components where d is more."""
        if pca is None or pca >= X.shape[1]:
            return self.learn(X, seed, threads, **parameters)
        from sklearn.decomposition import PCA

        projection = PCA(pca, random_state=seed).fit(X)
        Z, place = self.learn(projection.transform(X), seed, threads, **parameters)
        return Z, lambda rows: place(projection.transform(rows))

    def version(self) -> str:
        """The package and its version."""
        return f"{self.package} {importlib.metadata.version(self.package)}"


def imported(name: str) -> Method:
    """The method of a name, its modules imported.

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
            raise NotInstalledError(f"{module} cannot be imported ({error}); pip install {method.package}") from error
    return method


def ours(estimator: str, **settings: Any) -> Method:
    """An estimator of fastpdr, whose n_jobs follows PyTorch's threads."""

    def learn(X: NDArray, seed: int, threads: int, **parameters: Any) -> Fitted:
        import fastpdr

        model = getattr(fastpdr, estimator)(random_state=seed, **{**settings, **parameters}).fit(X)
        return model.embedding_, model.transform

    given = ", ".join(f'{key}="{value}"' for key, value in settings.items())
    return Method(
        f"`{estimator}({given})`" if given else f"`{estimator}`", learn, "fastpdr", ("fastpdr",), {"n_epochs": 1}
    )


def opentsne(X: NDArray, seed: int, threads: int, **parameters: Any) -> Fitted:
    from openTSNE import TSNE

    placed = TSNE(random_state=seed, n_jobs=threads, **parameters).fit(X)
    return np.asarray(placed), lambda rows: np.asarray(placed.transform(rows))


def umap_learn(X: NDArray, seed: int, threads: int, **parameters: Any) -> Fitted:
    from umap import UMAP

    # A seed makes it run on one thread.
    model = UMAP(random_state=seed if threads == 1 else None, n_jobs=threads, **parameters)
    return model.fit_transform(X), model.transform


def parametric_umap(X: NDArray, seed: int, threads: int, **parameters: Any) -> Fitted:
    import keras
    from umap.parametric_umap import ParametricUMAP

    keras.utils.set_random_seed(seed)  # draws the first weights, which random_state does not
    model = ParametricUMAP(random_state=seed if threads == 1 else None, n_jobs=threads, **parameters)
    return model.fit_transform(X), model.transform


def torchdr_umap(X: NDArray, seed: int, threads: int, **parameters: Any) -> Fitted:
    from torchdr import UMAP

    model = UMAP(random_state=seed, **parameters)
    return model.fit_transform(X), lambda rows: model.transform(rows, X_train=X)


def contrastive_ne(X: NDArray, seed: int, threads: int, **parameters: Any) -> Fitted:
    from cne import CNE

    model = CNE(parametric=True, seed=seed, **parameters)
    try:
        model.fit(X, init=X)  # without init it fails; a parametric fit does not read it
    except SystemExit as error:
        raise FloatingPointError("contrastive-ne gave up training") from error
    return model.transform(X), model.transform


def pacmap(X: NDArray, seed: int, threads: int, **parameters: Any) -> Fitted:
    from pacmap import PaCMAP

    model = PaCMAP(random_state=seed, save_tree=True, **parameters)
    return model.fit_transform(X), model.transform


METHODS = {
    "tsne": ours("ParametricTSNE"),
    "tsne-knn": ours("ParametricTSNE", affinity="knn"),
    "mstsne": ours("MultiscaleParametricTSNE"),
    "mstsne-knn": ours("MultiscaleParametricTSNE", affinity="knn"),
    "umap": ours("ParametricUMAP"),
    "largevis": ours("ParametricLargeVis"),
    "opentsne": Method(
        "openTSNE `fit`, `transform`",
        opentsne,
        "openTSNE",
        ("openTSNE",),
        {"n_iter": 10, "early_exaggeration_iter": 10},
    ),
    # Neighbours of few rows would be found exactly, and the search not compiled.
    "umap-learn": Method(
        "umap-learn `UMAP`", umap_learn, "umap-learn", ("umap",), {"force_approximation_algorithm": True}
    ),
    "parametric-umap": Method(
        "umap-learn `ParametricUMAP`",
        parametric_umap,
        "umap-learn",
        ("tensorflow", "umap.parametric_umap"),
        {"force_approximation_algorithm": True, "n_epochs": 10},
    ),
    "torchdr": Method("TorchDR `UMAP`", torchdr_umap, "torchdr", ("torchdr",), {"max_iter": 10}),
    "contrastive-ne": Method(
        "contrastive-ne `CNE(parametric=True)`", contrastive_ne, "contrastive-ne", ("cne",), {"n_epochs": 1}
    ),
    "pacmap": Method("PaCMAP", pacmap, "pacmap", ("pacmap",), {"num_iters": (2, 2, 2)}),
}
