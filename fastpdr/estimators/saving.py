"""The saved model: a folder with ``config.json``, ``encoder.safetensors``, and where a decoder was trained
``decoder.safetensors``; no pickle, no training data.

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

from fastpdr.training import InputScaling, build_decoder, build_encoder

if TYPE_CHECKING:
    from fastpdr.estimators.base import ParametricEmbedding

FORMAT = "fastpdr-model"
FORMAT_VERSION = 1
CONFIG, SUFFIX = "config.json", ".safetensors"
NETWORKS = ("encoder", "decoder")
FITTED = ("n_features_in_", "n_iter_", "loss_history_")
FITTED_BY_SOME = ("_a", "_b")


def save(estimator: ParametricEmbedding, path: str | os.PathLike[str], *, overwrite: bool) -> None:
    """See :meth:`fastpdr.ParametricTSNE.save`."""
    target = Path(path)
    if target.is_file():
        raise FileExistsError(f"save: {target} is a file, not a folder")
    if target.is_dir() and any(target.iterdir()):
        if not overwrite:
            raise FileExistsError(f"save: {target} is not empty; use overwrite=True to replace a model")
        if not {entry.name for entry in target.iterdir()} <= {CONFIG, *(name + SUFFIX for name in NETWORKS)}:
            raise FileExistsError(f"save: {target} holds more than a model, so it is not replaced")
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        (aside / CONFIG).write_text(json.dumps(describe(estimator), indent=2) + "\n", encoding="utf-8")
        mask = current_umask()  # temporary folders and safetensors' files are closed to others
        aside.chmod(0o777 & ~mask)
        for name, network in trained_networks(estimator).items():
            state = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
            save_file(state, aside / (name + SUFFIX))
            (aside / (name + SUFFIX)).chmod(0o666 & ~mask)
        replace_folder(aside, target)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def trained_networks(estimator: ParametricEmbedding) -> dict[str, nn.Module]:
    """The encoder, and the decoder where there is one."""
    networks = {name: getattr(estimator, f"{name}_", None) for name in NETWORKS}
    return {name: network for name, network in networks.items() if network is not None}


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
    fitted |= {name: getattr(estimator, name) for name in FITTED_BY_SOME if hasattr(estimator, name)}
    given = {name: getattr(estimator, name, None) for name in NETWORKS}
    if hasattr(estimator, "feature_names_in_"):
        fitted["feature_names_in_"] = [str(name) for name in estimator.feature_names_in_]
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "fastpdr_version": __version__,
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
) -> ParametricEmbedding:
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
    weights = {name: read_weights(folder / (name + SUFFIX)) for name in NETWORKS if name in config}
    try:
        return restore(config, weights, {"encoder": encoder, "decoder": decoder}, device)
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(f"load: {folder / CONFIG} and the weights do not fit together ({error})") from error


def read_weights(file: Path) -> dict[str, torch.Tensor]:
    """Read one network's weights."""
    try:
        return load_file(file)
    except FileNotFoundError:
        raise FileNotFoundError(f"load: {file} is missing") from None
    except SafetensorError as error:
        raise ValueError(f"load: {file} is damaged ({error})") from error


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
    config: dict[str, Any],
    weights: dict[str, dict[str, torch.Tensor]],
    given: dict[str, nn.Module | None],
    device: str | torch.device,
) -> ParametricEmbedding:
    """Make the estimator that config and weights describe."""
    from fastpdr import estimators
    from fastpdr.estimators.resolve import resolve_device

    if config["class"] not in estimators.__all__ or config["class"] == "load":
        raise KeyError(f"unknown class {config['class']!r}")
    estimator = getattr(estimators, config["class"])(**config["parameters"])
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
