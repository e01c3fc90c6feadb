"""The config files of fastpdr train and fastpdr pipeline: what may stand in them, and what is wrong with one.

Keys are those of PyTorch multiscale parametric t-SNE's YAML files, and every parameter of the estimators under its own
name. The section of the model is made from the signature of the estimator, so that the two cannot drift apart; ranges
are checked by the estimator itself. A value must have the type that it should have: "50" is no number.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_type_hints

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, field_validator, model_validator

import fastpdr
from fastpdr.cli import METHODS

# Names of the earlier implementation for ours, and the widths of its three layers.
ALIASES = {
    "n_iter": "n_epochs",
    "lr": "learning_rate",
    "alpha": "dof",
    "early_exaggeration_value": "early_exaggeration",
    "early_stopping_epochs": "early_stopping_patience",
    "early_stopping_min_improvement": "early_stopping_min_delta",
}
WIDTHS = {"nl1": 1000, "nl2": 500, "nl3": 250}
LOGDIR = "logdir"  # its key of the model for tracking.tensorboard
# What YAML has no form for, or what only labels that teach would need.
NOT_IN_FILES = {
    "encoder", "decoder", "callbacks", "precomputed_knn", "landmark_loss_fn", "landmark_loss_weight",
    "parametric_reconstruction_loss_fcn", "target_metric", "target_n_neighbors", "target_weight",
}  # fmt: skip
OTHER_TYPES: dict[str, tuple[Any, Any]] = {
    "checkpoint_dir": (str | None, None),
    "init": (Literal["random", "pca"], "random"),
    "device": (str, "auto"),
    "random_state": (Annotated[int, Field(ge=0)], 0),
    "verbose": (bool | int, True),
}
Name = Annotated[str, Field(min_length=1)]
Epochs = Annotated[int, Field(ge=1)]
S = TypeVar("S", bound="Section")
FORMATS = Literal["auto", "csv", "tsv", "npy", "npz", "parquet", "json", "h5ad", "pkl"]


Neighbors = Annotated[int, Field(ge=1)] | None  # of each row, to be named in the table of the map


class Section(BaseModel):
    """Keys and their types; no others."""

    # Older versions of pydantic keep names that begin with model_ to themselves.
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, protected_namespaces=())


class Data(Section):
    """Where the rows and the labels are."""

    features: str | None = None  # a file or a folder; none is scikit-learn's digits
    format: FORMATS = "auto"
    array: str | None = None  # of an .npz file
    labels: str | None = None  # a file
    label_column: str | int | None = None
    allow_missing_labels: bool = True
    allow_pickle: bool = False

    @model_validator(mode="after")
    def _one_source_of_labels(self) -> Data:
        if self.labels is not None and self.label_column is not None:
            raise ValueError("give labels or label_column, not both")
        return self


class TrainData(Data):
    """The same, and how much of it the training shall not see."""

    held_out: Annotated[float, Field(gt=0, lt=1)] | None = None


class PipelineData(Data):
    """The same, with a word for which of the two sources it is."""

    source: Literal["sklearn_digits", "file"] | None = None

    @model_validator(mode="after")
    def _source_fits(self) -> PipelineData:
        if self.source == "file" and self.features is None:
            raise ValueError("source: file needs features, the path of the file")
        if self.source == "sklearn_digits" and self.features is not None:
            raise ValueError(f"source: sklearn_digits takes no features, got {self.features!r}")
        return self


class Preprocessing(Section):
    """What is done to the rows before the map, in training and whenever new rows are placed."""

    scaler: Literal["StandardScaler", "MinMaxScaler", "none"] | None = "StandardScaler"
    pca: int | float | None = None  # how many components, or the share of the variance that they keep

    @field_validator("pca")
    @classmethod
    def _components_or_share(cls, value: float | None) -> float | None:
        if value is None or 0 < value < 1 or (isinstance(value, int) and value >= 1):
            return value
        raise ValueError(f"expected components >= 1 or a share of the variance between 0 and 1, got {value}")


class Tracking(Section):
    """Where it is written down how the training goes."""

    tensorboard: Name | None = None  # a folder
    wandb: Name | None = None  # a project
    csv: Name | None = None  # a file
    jsonl: Name | None = None  # a file
    metrics_every: Epochs | None = 10
    map_every: Epochs | None = None


class TrainOutput(Section):
    """The folder model_dir/model_name and what is written into it."""

    model_dir: str = "models"
    model_name: Name = "fastpdr_model"
    save_embeddings: bool = True
    embedding_format: Literal["npy", "csv", "parquet"] = "npy"
    save_neighbors: Neighbors = None
    save_preprocessing: bool = True
    save_metrics: bool = True
    embedding_in_model: bool = False
    overwrite_existing: bool = False

    @model_validator(mode="after")
    def _neighbors_have_a_column(self) -> TrainOutput:
        if self.save_neighbors is not None and self.embedding_format == "npy":
            raise ValueError("save_neighbors needs embedding_format: csv or parquet")
        return self


class PipelineOutput(Section):
    """Paths of the results; .pkl and .joblib ask for a joblib file in place of our folder."""

    model_path: str = "models/fastpdr_pipeline"
    embeddings_path: str = "models/fastpdr_pipeline_embeddings.npy"
    save_neighbors: Neighbors = None
    metrics_path: str = "models/fastpdr_pipeline_metrics.json"
    embedding_in_model: bool = False
    overwrite_existing: bool = False

    @model_validator(mode="after")
    def _neighbors_have_a_column(self) -> PipelineOutput:
        if self.save_neighbors is not None and self.embeddings_path.endswith(".npy"):
            raise ValueError("save_neighbors needs an embeddings_path that ends in .csv or .parquet")
        return self


class Config(BaseModel):
    """A whole file; the section of the model is added for its method."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: Any
    preprocessing: Preprocessing = Preprocessing()
    model: Any
    tracking: Tracking = Tracking()
    output: Any


SECTIONS = {"train": ("model", TrainData, TrainOutput), "pipeline": ("algorithm", PipelineData, PipelineOutput)}


def load(path: Path | None, command: str, settings: Sequence[str] = (), seed: int | None = None) -> Config:
    """Read and check a config.

    Parameters
    ----------
    path : Path, optional
        A YAML file; without one all is by default.
    command : {"train", "pipeline"}
        Which keys there are.
    settings : sequence of str
        key.key=value, values as in YAML, stronger than the file.
    seed : int, optional
        In place of the random_state of the model.

    Returns
    -------
    Config
        Every key with its value, those of the model under the names that the estimator has for them.

    Raises
    ------
    ValueError
        The file is no YAML, a key is unknown, a value has the wrong type or is out of range.
    """
    content = {} if path is None else read(path)
    try:
        for setting in settings:
            _set(content, setting)
        return resolve(content, command, seed)
    except ValueError as error:
        raise ValueError(prefixed(path, str(error))) from error


def resolve(content: dict[Any, Any], command: str, seed: int | None = None) -> Config:
    """Check the content of a config and fill in the defaults; as :func:`load`, whose parameters these are."""
    model_key, data_section, output_section = SECTIONS[command]
    content = {key: {} if value is None else value for key, value in content.items()}
    given, written = _translated(_keys(content, model_key), model_key)
    content = _with_logdir(content, given, written, model_key)
    if seed is not None:
        given["random_state"] = seed
    method = _method(given, model_key)
    whole = _config_of(method, model_key, data_section, output_section)
    try:
        config = whole.model_validate(content | {model_key: given})
    except ValidationError as error:
        raise ValueError(_explain(error, whole, method, written)) from None
    _check_ranges(config, model_key)
    if config.tracking.map_every is not None and getattr(config.data, "held_out", None) is None:
        raise ValueError("tracking.map_every needs rows to draw: give data.held_out, a key of fastpdr train")
    return config


@functools.cache
def _config_of(method: str, model_key: str, data_section: type[Data], output_section: type[Section]) -> Any:
    """Make the class of whole configs of a method."""
    model_section = section_of(method)
    return create_model(
        "Config",
        __base__=Config,
        data=(data_section, data_section()),
        model=(model_section, Field(default_factory=model_section, alias=model_key)),
        output=(output_section, output_section()),
    )


def dump(config: Config) -> str:
    """Return the YAML that says the same as a config, with nothing left to defaults."""
    return yaml.safe_dump(config.model_dump(by_alias=True), sort_keys=False)


@functools.cache
def section_of(method: str) -> type[Section]:
    """Make the section of a method: every parameter of its estimator that a file can hold."""
    init = getattr(fastpdr, METHODS[method]).__init__
    hints = get_type_hints(init)
    fields: dict[str, Any] = {"method": (Literal[method], method)}
    for name, parameter in inspect.signature(init).parameters.items():
        if name not in NOT_IN_FILES | {"self"}:
            fields[name] = OTHER_TYPES.get(name, (hints[name], parameter.default))
    return create_model(f"Model[{method}]", __base__=Section, **fields)


def make_estimator(config: Config) -> Any:
    """Return the estimator that a config describes."""
    parameters = {name: getattr(config.model, name) for name in type(config.model).model_fields if name != "method"}
    return getattr(fastpdr, METHODS[config.model.method])(**parameters)


class _Loader(yaml.SafeLoader):
    """Safe loading in which 1e-3 is a number, as everywhere but in YAML 1.1, and a key stands once."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        named = [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        keys = [self.construct_object(key, deep=True) for key in named]
        twice = next((key for i, key in enumerate(keys) if key in keys[:i]), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(problem=f"{twice} stands twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def read(path: Path) -> dict[Any, Any]:
    """Return what a YAML file holds, nothing of it checked; a file without content is an empty mapping."""
    try:
        content = _parse(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if not isinstance(content, dict | None):
        raise ValueError(f"{path}: expected sections such as data and output, got {short(content)}")
    return content or {}


def _parse(text: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}: " if mark else ""
        raise ValueError(f"{place}not YAML: {getattr(error, 'problem', None) or error}") from error


def _set(content: dict[Any, Any], setting: str) -> None:
    key, equals, value = setting.partition("=")
    section, dot, name = key.partition(".")
    if not equals or not dot or not name:
        raise ValueError(f"--set {setting}: expected section.key=value, as in model.n_epochs=50")
    content[section] = _keys(content, section) | {name: _parse(value)}


def _keys(content: dict[Any, Any], section: str) -> dict[Any, Any]:
    keys = content.get(section) or {}
    if not isinstance(keys, dict):
        raise ValueError(f"{section}: expected a mapping of keys, got {short(keys)}")
    return keys


def _translated(given: dict[Any, Any], section: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the keys of a model as the estimator has them, and how keys of the whole config were written."""
    result: dict[str, Any] = {}
    written: dict[str, str] = {}
    for key, value in given.items():
        if key in WIDTHS:
            continue
        name = ALIASES.get(key, key)
        if name in result:
            raise ValueError(f"{section}.{key} and {section}.{written[name]} mean the same: give one of them")
        result[name], written[name] = value, key
    if WIDTHS.keys() & given.keys():
        if "hidden_dims" in result:
            raise ValueError(f"{section}.hidden_dims and {section}.nl1, nl2, nl3 mean the same: give one of them")
        result["hidden_dims"], written["hidden_dims"] = [given.get(k, w) for k, w in WIDTHS.items()], "nl1, nl2, nl3"
    return result, {f"{section}.{name}": f"{section}.{key}" for name, key in written.items()}


def _with_logdir(
    content: dict[Any, Any], given: dict[str, Any], written: dict[str, str], section: str
) -> dict[Any, Any]:
    """Move the earlier implementation's key for TensorBoard from the model to the trackers."""
    logdir, tracking = given.pop(LOGDIR, None), _keys(content, "tracking")
    if logdir is None:
        return content
    if tracking.get("tensorboard") is not None:
        raise ValueError(f"{section}.{LOGDIR} and tracking.tensorboard mean the same: give one of them")
    written["tracking.tensorboard"] = f"{section}.{LOGDIR}"
    return content | {"tracking": tracking | {"tensorboard": logdir}}


def _method(given: dict[str, Any], section: str) -> str:
    method = given.get("method", "mstsne")
    if not isinstance(method, str) or method not in METHODS:
        raise ValueError(
            f"{section}.method: expected {', '.join(METHODS)}, got {short(method)}{nearest(method, METHODS)}"
        )
    return method


def _check_ranges(config: Config, section: str) -> None:
    try:
        make_estimator(config)._validate_params()
    except ValueError as error:
        raise ValueError(f"{section}: {error}") from error


def _explain(error: ValidationError, whole: type[BaseModel], method: str, written: dict[str, str]) -> str:
    """One line for each key that is wrong."""
    lines: dict[str, str] = {}
    for detail in error.errors():
        section, *rest = detail["loc"]
        place = ".".join(str(part) for part in (section, *rest[:1]))
        place = written.get(place, place)
        name = place.partition(".")[2]
        key = place + "".join(f"[{part}]" for part in rest[1:] if isinstance(part, int))
        hint = _hint(str(section), name, whole, method) if detail["type"] == "extra_forbidden" else ""
        lines[key] = _line(detail, hint, lines.get(key, ""))
    return "\n  ".join(f"{key}: {line}" for key, line in lines.items())


def check_section(section: type[S], content: Any, where: str) -> S:
    """Check one section by itself, which has no sections in it.

    Parameters
    ----------
    section : type of Section
        What keys there are.
    content : Any
        What the file has.
    where : str
        What errors call it; nothing for a whole file.

    Returns
    -------
    Section

    Raises
    ------
    ValueError
        One line for each key that is wrong.
    """
    try:
        return section.model_validate(content)
    except ValidationError as error:
        lines: dict[str, str] = {}
        for detail in error.errors():
            name, items = str(detail["loc"][0]) if detail["loc"] else "", detail["loc"][1:]
            key = ".".join(part for part in (where, name) if part)
            key += "".join(f"[{item}]" for item in items if isinstance(item, int))
            hint = nearest(name, section.model_fields) if detail["type"] == "extra_forbidden" else ""
            lines[key] = _line(detail, hint, lines.get(key, ""))
        raise ValueError("\n  ".join(f"{key}: {line}" if key else line for key, line in lines.items())) from None


def _line(detail: Any, hint: str, earlier: str) -> str:
    """Say what is wrong with a key, in the words of pydantic where they are clear."""
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "extra_forbidden":
        return f"unknown key{hint}"
    if detail["type"] == "missing":
        return "has to be given"
    if detail["type"] == "model_type":
        return f"expected a mapping of keys, got {short(detail['input'])}"
    if not message.startswith("Input should be"):
        return message
    # A type of several is refused several times.
    before = earlier.rpartition(", got ")[0]
    expected = message.removeprefix("Input should be ")
    return f"{before or 'expected'} {'or ' if before else ''}{expected}, got {short(detail['input'])}"


def _hint(section: str, name: str, whole: type[BaseModel], method: str) -> str:
    fields = {field.alias or key: field.annotation for key, field in whole.model_fields.items()}
    if not name:
        return nearest(section, fields)
    if section != "model" and section != "algorithm":
        return nearest(name, fields[section].model_fields)  # type: ignore[union-attr]
    others = [other for other in METHODS if ALIASES.get(name, name) in section_of(other).model_fields]
    if others:
        return f" for method {method}; it is for {' and '.join(others)}"
    return nearest(name, [*fields[section].model_fields, *ALIASES, *WIDTHS, LOGDIR])  # type: ignore[union-attr]


def nearest(word: object, known: Sequence[str] | dict[str, Any]) -> str:
    """Return the end of a message about an unknown word: the known one that is most like it, or all."""
    near = difflib.get_close_matches(str(word), list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known)}"


def short(value: object) -> str:
    """Return a value as messages show it."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def prefixed(path: Path | None, message: str) -> str:
    """Return a message that begins with the file it is about."""
    return message if path is None else f"{path}: {message}"
