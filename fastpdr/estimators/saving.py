"""The saved model: a folder with ``config.json`` and ``encoder.safetensors``; no pickle, no training data.

A folder is written aside and renamed, so that a failure leaves what was there. Numbers in the JSON round-trip exactly.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from fastpdr.training import InputScaling, build_encoder

if TYPE_CHECKING:
    from fastpdr.estimators.base import ParametricEmbedding

FORMAT = "fastpdr-model"
FORMAT_VERSION = 1
CONFIG, WEIGHTS = "config.json", "encoder.safetensors"
FITTED = ("n_features_in_", "n_iter_", "loss_history_")


def save(estimator: ParametricEmbedding, path: str | os.PathLike[str], *, overwrite: bool) -> None:
    """See :meth:`fastpdr.ParametricTSNE.save`."""
    target = Path(path)
    if target.is_file():
        raise FileExistsError(f"save: {target} is a file, not a folder")
    if target.is_dir() and any(target.iterdir()):
        if not overwrite:
            raise FileExistsError(f"save: {target} is not empty; use overwrite=True to replace a model")
        if not {entry.name for entry in target.iterdir()} <= {CONFIG, WEIGHTS}:
            raise FileExistsError(f"save: {target} holds more than a model, so it is not replaced")
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        (aside / CONFIG).write_text(json.dumps(describe(estimator), indent=2) + "\n", encoding="utf-8")
        state = {name: value.detach().cpu().contiguous() for name, value in estimator.encoder_.state_dict().items()}
        save_file(state, aside / WEIGHTS)
        mask = current_umask()  # temporary folders and safetensors' files are closed to others
        aside.chmod(0o777 & ~mask)
        (aside / WEIGHTS).chmod(0o666 & ~mask)
        replace_folder(aside, target)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def current_umask() -> int:
    """The process's umask, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def replace_folder(source: Path, target: Path) -> None:
    """Rename a folder over an existing one, which is put back if that fails."""
    if not target.exists():
        source.rename(target)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}-old-", dir=target.parent)) / target.name
    target.rename(old)
    try:
        source.rename(target)
    except BaseException:
        old.rename(target)
        raise
    finally:
        shutil.rmtree(old.parent, ignore_errors=True)


def plain(value: object) -> object:
    """JSON's form of a NumPy number or a device; anything else has none."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, torch.device):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def describe(estimator: ParametricEmbedding) -> dict[str, Any]:
    """What config.json holds; parameters that JSON has no form for are named and take their defaults on loading."""
    from fastpdr import __version__

    parameters, omitted = {}, []
    for name, value in estimator.get_params(deep=False).items():
        try:
            parameters[name] = json.loads(json.dumps(value, default=plain))
        except TypeError:
            omitted.append(name)
    fitted = {name: getattr(estimator, name) for name in FITTED}
    if hasattr(estimator, "feature_names_in_"):
        fitted["feature_names_in_"] = [str(name) for name in estimator.feature_names_in_]
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "fastpdr_version": __version__,
        "class": type(estimator).__name__,
        "encoder": "built-in" if estimator.encoder is None else type(estimator.encoder).__qualname__,
        "parameters": parameters,
        "omitted_parameters": omitted,
        "fitted": fitted,
    }


def load(
    path: str | os.PathLike[str], *, encoder: nn.Module | None = None, device: str | torch.device = "auto"
) -> ParametricEmbedding:
    """Load a saved map.

    Parameters
    ----------
    path : path-like
        The folder that ``save`` wrote.
    encoder : torch.nn.Module, optional
        A network of the same architecture, for a model that was trained with an own encoder. It is copied.
    device : str or torch.device
        Where to place it; any device, whatever it was trained on.

    Returns
    -------
    estimator
        Of the class that was saved; ``transform`` gives the same numbers. ``embedding_`` is not part of the folder.

    Raises
    ------
    FileNotFoundError
        If there is no such folder, or a file of it is missing.
    ValueError
        If the folder is not a model of fastpdr, is damaged, or comes from a newer version.
    """
    folder = Path(path)
    config = read_config(folder)
    try:
        weights = load_file(folder / WEIGHTS)
    except FileNotFoundError:
        raise FileNotFoundError(f"load: {folder / WEIGHTS} is missing") from None
    except SafetensorError as error:
        raise ValueError(f"load: {folder / WEIGHTS} is damaged ({error})") from error
    try:
        return restore(config, weights, encoder, device)
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(f"load: {folder / CONFIG} and {WEIGHTS} do not fit together ({error})") from error


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
    version = config.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise ValueError(
            f"load: {folder} has format version {version}, written by fastpdr {config.get('fastpdr_version')}; "
            f"this fastpdr reads up to {FORMAT_VERSION}: upgrade it"
        )
    return config


def restore(
    config: dict[str, Any], weights: dict[str, torch.Tensor], encoder: nn.Module | None, device: str | torch.device
) -> ParametricEmbedding:
    """Make the estimator that config and weights describe."""
    from fastpdr import estimators
    from fastpdr.estimators.resolve import resolve_device

    if config["class"] not in estimators.__all__ or config["class"] == "load":
        raise KeyError(f"unknown class {config['class']!r}")
    own = config["encoder"] != "built-in"
    if own and encoder is None:
        raise ValueError(f"load: the model has an own encoder ({config['encoder']}): pass one like it as encoder=")
    estimator = getattr(estimators, config["class"])(**config["parameters"])
    estimator.set_params(device=device if isinstance(device, str) else str(device))
    fitted = config["fitted"]
    if own:
        estimator.set_params(encoder=encoder)
        network = copy.deepcopy(encoder)
    else:
        empty = torch.zeros(fitted["n_features_in_"], dtype=torch.float64)
        scaling = InputScaling(empty, torch.ones((), dtype=torch.float64))
        with torch.random.fork_rng(devices=[]):
            network = build_encoder(scaling, estimator.n_components, estimator.hidden_dims, estimator.activation)
    network.load_state_dict(weights)  # type: ignore[union-attr]
    estimator.encoder_ = network.to(resolve_device(device)).eval()  # type: ignore[union-attr]
    for name in FITTED:
        setattr(estimator, name, fitted[name])
    if "feature_names_in_" in fitted:
        estimator.feature_names_in_ = np.asarray(fitted["feature_names_in_"], dtype=object)
    return estimator
