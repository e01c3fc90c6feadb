"""The saved model: a folder with ``config.json``, ``encoder.safetensors`` and the model card ``README.md``, and where
there are such ``decoder.safetensors``, ``preprocessing.safetensors``, ``metrics.json`` and ``embedding.npy``; no
pickle, no training data.

A folder is written aside and renamed, so that a failure leaves what was there. Numbers in config.json round-trip
exactly. Its format_version rises when an older fastpdr would read a folder wrongly, not for a further file.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import LabelEncoder
from sklearn.utils.validation import check_is_fitted
from torch import nn

from fastpdr._files import folder_aside, save_array, strict_json
from fastpdr._versions import versions
from fastpdr.estimators.card import model_card
from fastpdr.training import InputScaling, build_decoder, build_encoder

if TYPE_CHECKING:
    from fastpdr.estimators.base import ParametricEmbedding

FORMAT = "fastpdr-model"
FORMAT_VERSION = 1
CONFIG, SUFFIX = "config.json", ".safetensors"
NETWORKS = ("encoder", "decoder")
PREPROCESSING = "preprocessing" + SUFFIX
METRICS, EMBEDDING, CARD = "metrics.json", "embedding.npy", "README.md"
FILES = {CONFIG, PREPROCESSING, METRICS, EMBEDDING, CARD, *(name + SUFFIX for name in NETWORKS)}
SECTIONS = ("parameters", "fitted", "labels", "pipeline")  # of config.json
FITTED = ("n_features_in_", "n_iter_", "loss_history_")
FITTED_BY_SOME = ("_a", "_b", "n_samples_seen_", "training_seconds_")


def save(
    model: Any,
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    label_encoder: LabelEncoder | None = None,
    label_column: str | None = None,
    metrics: Mapping[str, Any] | None = None,
    embedding: ArrayLike | None = None,
) -> None:
    """Save a fitted map, or a pipeline of scalers, PCA and a map, as a folder without pickle and training data.

    A model card, ``README.md``, is written with it: what the map is, what it was learnt from, how to load it.

    Parameters
    ----------
    model : estimator or sklearn.pipeline.Pipeline
        Steps before the map may be StandardScaler, MinMaxScaler and PCA; "passthrough" and None are left out.
    path : path-like
        The folder; made if missing.
    overwrite : bool
        Replace a model that is already there.
    label_encoder : sklearn.preprocessing.LabelEncoder, optional
        Of the labels of the training rows, kept for :func:`load_label_encoder`.
    label_column : str, optional
        The column of the training table that held them.
    metrics : mapping of str, optional
        How good the map is: numbers, words, or mappings of them, as :func:`fastpdr.metrics.evaluate` returns. They go
        into ``metrics.json`` and the card.
    embedding : array-like of shape (n, n_components), optional
        Places of rows, such as the map's ``embedding_``, to keep as ``embedding.npy``: :func:`load` puts them back.

    Raises
    ------
    FileExistsError
        If the folder holds something and ``overwrite`` is false, or something that is no model of ours.
    ValueError
        If the pipeline has other steps, or metrics or embedding are not as documented.
    OSError
        If it cannot be written; what was there before is left.

    Examples
    --------
    >>> import fastpdr
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> X = load_iris().data
    >>> pipeline = make_pipeline(StandardScaler(), fastpdr.ParametricTSNE(random_state=0)).fit(X)
    >>> fastpdr.save(pipeline, "iris-map", overwrite=True)
    >>> bool((fastpdr.load("iris-map").transform(X) == pipeline.transform(X)).all())
    True
    """
    from fastpdr.estimators.steps import describe_steps, split

    steps, name, estimator = split(model)
    check_is_fitted(model)
    estimator = loadable(estimator)
    target = Path(path)
    check_target(target, overwrite=overwrite)
    config = describe(estimator)
    described, arrays = describe_steps(steps)
    if name:
        config["pipeline"] = {"steps": described, "map": name}
    if label_encoder is not None or label_column is not None:
        classes = None if label_encoder is None else label_encoder.classes_.tolist()
        config["labels"] = {"column": label_column, "classes": classes}
    scores = None if metrics is None else plain_metrics(metrics)
    places = None if embedding is None else require_places(embedding, estimator.n_components)
    with folder_aside(target) as aside, explained_failure():
        write(aside, config, trained_networks(estimator), arrays, scores, places)


def check_target(target: Path, *, overwrite: bool) -> None:
    """Refuse to save to a file, or over what is no model, or, unless asked to, over a model."""
    if target.is_file():
        raise FileExistsError(f"save: {target} is a file, not a folder")
    if target.is_dir() and any(target.iterdir()):
        if not overwrite:
            raise FileExistsError(f"save: {target} is not empty; use overwrite=True to replace a model")
        if not {entry.name for entry in target.iterdir()} <= FILES:
            raise FileExistsError(f"save: {target} holds more than a model, so it is not replaced")


def write(
    folder: Path,
    config: dict[str, Any],
    networks: dict[str, nn.Module],
    arrays: dict[str, NDArray[Any]],
    metrics: dict[str, Any] | None,
    embedding: NDArray[np.float32] | None,
) -> None:
    """Write the files of a model into an empty folder."""
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    for name, network in networks.items():
        state = {key: value.detach().cpu().contiguous().clone() for key, value in network.state_dict().items()}
        save_file(state, folder / (name + SUFFIX))
    if arrays:
        save_arrays(arrays, folder / PREPROCESSING)
    if metrics is not None:
        (folder / METRICS).write_text(strict_json(metrics), encoding="utf-8")
    if embedding is not None:
        save_array(folder / EMBEDDING, embedding)
    (folder / CARD).write_text(model_card(config, metrics or {}), encoding="utf-8")


def loadable(estimator: ParametricEmbedding) -> ParametricEmbedding:
    """The estimator to describe; of a class that :func:`load` can make again."""
    from fastpdr import estimators

    saved = estimator._saved()
    if type(saved).__name__ not in estimators.__all__:
        raise ValueError(
            f"save: model must be of one of fastpdr's classes, not of one derived from them, got {saved!r}"
        )
    return saved


@contextmanager
def explained_failure() -> Iterator[None]:
    """Raise what safetensors has an error of its own for as the OSError that it is: no space, no permission."""
    try:
        yield
    except SafetensorError as error:
        raise OSError(f"save: {error}") from error


def plain_metrics(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics as JSON has them, checked before anything is written."""
    try:
        return json.loads(json.dumps(dict(metrics), default=plain))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"save: metrics must be a mapping of names to numbers, words or mappings of them: {error}"
        ) from error


def require_places(embedding: ArrayLike, width: int) -> NDArray[np.float32]:
    """The places of rows on a map of so many components, as float32."""
    places = np.ascontiguousarray(embedding, dtype=np.float32)
    if places.ndim != 2 or places.shape[1] != width or not np.isfinite(places).all():
        raise ValueError(f"save: embedding must be finite, of shape (n, {width}), got shape {places.shape}")
    return places


def trained_networks(estimator: ParametricEmbedding) -> dict[str, nn.Module]:
    """The encoder, and the decoder where there is one."""
    networks = {name: getattr(estimator, f"{name}_", None) for name in NETWORKS}
    return {name: network for name, network in networks.items() if network is not None}


def plain(value: object) -> object:
    """JSON's form of a NumPy number or a device; anything else has none."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, torch.device):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def json_parameters(estimator: Any) -> tuple[dict[str, Any], list[str]]:
    """The parameters that JSON has a form for, and the names of the others."""
    parameters, omitted = {}, []
    for name, value in estimator.get_params(deep=False).items():
        try:
            parameters[name] = json.loads(json.dumps(value, default=plain))
        except TypeError:
            omitted.append(name)
    return parameters, omitted


def describe(estimator: ParametricEmbedding) -> dict[str, Any]:
    """What config.json holds; parameters that JSON has no form for are named and take their defaults on loading."""
    from fastpdr import __version__

    parameters, omitted = json_parameters(estimator)
    if parameters.pop("checkpoint_dir", None) is not None:
        omitted.append("checkpoint_dir")  # a place on this machine
    fitted = {name: getattr(estimator, name) for name in FITTED}
    fitted |= {name: getattr(estimator, name) for name in FITTED_BY_SOME if hasattr(estimator, name)}
    given = {name: getattr(estimator, name, None) for name in NETWORKS}
    if hasattr(estimator, "feature_names_in_"):
        fitted["feature_names_in_"] = [str(name) for name in estimator.feature_names_in_]
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "fastpdr_version": __version__,
        "versions": versions(),
        "class": type(estimator).__name__,
        **{
            name: "built-in" if given[name] is None else type(given[name]).__qualname__
            for name in trained_networks(estimator)
        },
        "parameters": parameters,
        "omitted_parameters": omitted,
        "fitted": fitted,
    }


def load(
    path: str | os.PathLike[str],
    *,
    encoder: nn.Module | None = None,
    decoder: nn.Module | None = None,
    device: str | torch.device = "auto",
) -> Any:
    """Load a saved map.

    Parameters
    ----------
    path : path-like
        The folder that ``save`` wrote.
    encoder, decoder : torch.nn.Module, optional
        Networks of the same architecture, for a model that was trained with own ones. They are copied.
    device : str or torch.device
        Where to place it; any device, whatever it was trained on.

    Returns
    -------
    estimator or sklearn.pipeline.Pipeline
        What was saved; ``transform`` gives the same numbers. The map has ``embedding_`` where that was saved with it.

    Raises
    ------
    FileNotFoundError
        If there is no such folder, or a file of it is missing.
    ValueError
        If the folder is not a model of fastpdr, is damaged, or comes from a newer version.

    Examples
    --------
    >>> import fastpdr
    >>> from sklearn.datasets import load_iris
    >>> X = load_iris().data
    >>> fastpdr.ParametricUMAP(random_state=0).fit(X).save("iris-umap", overwrite=True)
    >>> fastpdr.load("iris-umap", device="cpu").transform(X[:5]).shape
    (5, 2)
    """
    folder = Path(path)
    config = read_config(folder)
    weights = {name: read_file(folder / (name + SUFFIX), load_file) for name in NETWORKS if name in config}
    has_arrays = bool(config.get("pipeline", {}).get("steps"))
    arrays = read_file(folder / PREPROCESSING, load_arrays) if has_arrays else {}
    try:
        estimator = restore(config, weights, {"encoder": encoder, "decoder": decoder}, device)
        if (folder / EMBEDDING).exists():
            estimator.embedding_ = read_places(folder / EMBEDDING, estimator.n_components)
        return restore_pipeline(config["pipeline"], arrays, estimator) if "pipeline" in config else estimator
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(f"load: {folder / CONFIG} and the weights do not fit together ({error})") from error


def load_label_encoder(path: str | os.PathLike[str]) -> LabelEncoder | None:
    """Load the fitted encoder of the labels that was saved with a map.

    Parameters
    ----------
    path : path-like
        The folder that ``save`` wrote.

    Returns
    -------
    LabelEncoder or None
        Its ``inverse_transform`` makes labels of codes; None where the map was saved without one.

    Raises
    ------
    FileNotFoundError, ValueError
        As :func:`load`.

    Examples
    --------
    >>> import fastpdr
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.preprocessing import LabelEncoder
    >>> iris = load_iris()
    >>> names = LabelEncoder().fit(iris.target_names)
    >>> model = fastpdr.ParametricUMAP(random_state=0).fit(iris.data)
    >>> fastpdr.save(model, "iris-named", overwrite=True, label_encoder=names)
    >>> fastpdr.load_label_encoder("iris-named").inverse_transform([0, 2]).tolist()
    ['setosa', 'virginica']
    """
    classes = (read_config(Path(path)).get("labels") or {}).get("classes")
    if classes is None:
        return None
    encoder = LabelEncoder()
    encoder.classes_ = np.asarray(classes)
    return encoder


def restore_pipeline(described: dict[str, Any], arrays: dict[str, NDArray[Any]], estimator: Any) -> Pipeline:
    """Put the steps that were saved before the map."""
    from fastpdr.estimators.steps import restore_steps

    return Pipeline([*restore_steps(described["steps"], arrays), (described["map"], estimator)])


def read_file(file: Path, read: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """Read a file of tensors or arrays."""
    try:
        return read(file)
    except FileNotFoundError:
        raise FileNotFoundError(f"load: {file} is missing") from None
    except SafetensorError as error:
        raise ValueError(f"load: {file} is damaged ({error})") from error


def read_places(file: Path, width: int) -> NDArray[np.float32]:
    """Read the places of rows on the map."""
    try:
        places = np.load(file, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"load: {file} is damaged ({error})") from error
    if not isinstance(places, np.ndarray) or places.dtype != np.float32 or places.shape[1:] != (width,):
        raise ValueError(f"load: {file} must hold the float32 places of rows on a map of {width} components")
    return places


def read_config(folder: Path) -> dict[str, Any]:
    """Read and check config.json."""
    if not folder.is_dir():
        raise FileNotFoundError(f"load: no model folder at {folder}")
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"load: {folder} is no model folder, {CONFIG} is missing") from None
    except ValueError as error:
        raise ValueError(f"load: {folder / CONFIG} is damaged ({error})") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise ValueError(f"load: {folder / CONFIG} was not written by fastpdr")
    odd = [name for name in SECTIONS if not isinstance(config.get(name, {}), dict)]
    if odd:
        raise ValueError(f"load: {folder / CONFIG} is damaged ({', '.join(odd)} must be mappings)")
    version = config.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise ValueError(
            f"load: {folder} has format version {version}, written by fastpdr {config.get('fastpdr_version')}; "
            f"this fastpdr reads up to {FORMAT_VERSION}: upgrade it"
        )
    return config


def restore(
    config: dict[str, Any],
    weights: dict[str, dict[str, torch.Tensor]],
    given: dict[str, nn.Module | None],
    device: str | torch.device,
) -> ParametricEmbedding:
    """Make the estimator that config and weights describe."""
    from fastpdr import estimators
    from fastpdr.estimators.base import ParametricEmbedding
    from fastpdr.estimators.resolve import resolve_device

    cls = getattr(estimators, config["class"]) if config["class"] in estimators.__all__ else None
    if not isinstance(cls, type) or not issubclass(cls, ParametricEmbedding):
        raise KeyError(f"unknown class {config['class']!r}")
    estimator = cls(**config["parameters"])
    estimator.set_params(device=device if isinstance(device, str) else str(device))
    fitted = config["fitted"]
    for name, state in weights.items():
        network = make_network(name, config[name], given[name], estimator, fitted["n_features_in_"])
        network.load_state_dict(state)
        setattr(estimator, f"{name}_", network.to(resolve_device(device)).eval())
    for name in (*FITTED, *(name for name in FITTED_BY_SOME if name in fitted)):
        setattr(estimator, name, fitted[name])
    if "feature_names_in_" in fitted:
        estimator.feature_names_in_ = np.asarray(fitted["feature_names_in_"], dtype=object)
    return estimator


def make_network(
    name: str, kind: str, given: nn.Module | None, estimator: ParametricEmbedding, n_features: int
) -> nn.Module:
    """Make an untrained encoder or decoder like the one that was saved."""
    if kind != "built-in":
        if given is None:
            raise ValueError(f"load: the model has an own {name} ({kind}): pass one like it as {name}=")
        estimator.set_params(**{name: given})
        return copy.deepcopy(given)
    build = build_encoder if name == "encoder" else build_decoder
    scaling = InputScaling(torch.zeros(n_features, dtype=torch.float64), torch.ones((), dtype=torch.float64))
    with torch.random.fork_rng(devices=[]):
        return build(scaling, estimator.n_components, estimator.hidden_dims, estimator.activation)
