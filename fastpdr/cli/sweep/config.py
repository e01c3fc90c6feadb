"""The file of fastpdr sweep: W&B's sweep syntax, and the sections of fastpdr train for what is not searched.

The files of PyTorch multiscale parametric t-SNE's hyperparameter search are read too: there W&B's keys stand under
``sweep_config``, and names of parameters and metrics are others.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from fastpdr.cli import METHODS
from fastpdr.cli import config as configs
from fastpdr.cli.config import check_section, nearest, short
from fastpdr.cli.sweep import space
from fastpdr.cli.sweep.sections import (
    METRIC_ALIASES,
    METRICS,
    File,
    Hyperband,
    Metric,
    Mode,
    Modes,
    Output,
    Saving,
    SmokeTest,
)

HELD_OUT = 0.2
SECTIONS = ("data", "preprocessing", "model", "tracking", "output")
UNSUPPORTED = {
    "metrics": "one metric is searched for: give metric",
    "scheduler": "the search is chosen by --engine",
}


@dataclass(frozen=True)
class Sweep:
    """A checked file."""

    method: str
    metric: str
    target: float | None
    space: dict[str, space.Distribution]  # by the names of the file, dots between nested ones
    early_terminate: Hyperband | None
    prunes: bool  # whether trials that fall behind are stopped without early_terminate
    count: int | None
    fixed: dict[str, Any]  # the sections of a config of fastpdr train
    smoke_test: SmokeTest
    save_model: bool
    wandb: dict[str, Any] = field(default_factory=dict)  # the keys of its syntax, as its engine gets them

    @property
    def maximize(self) -> bool:
        """Whether more of the metric is better."""
        return METRICS[self.metric]

    @property
    def direction(self) -> Literal["maximize", "minimize"]:
        """The same in W&B's and optuna's word."""
        return "maximize" if self.maximize else "minimize"

    @property
    def folder(self) -> Path:
        """Where all of it is written."""
        return Path(self.fixed["output"]["model_dir"]) / self.fixed["output"]["model_name"]

    @property
    def definition(self) -> dict[str, Any]:
        """What must stay the same when a sweep goes on."""
        parameters = {name: distribution.model_dump() for name, distribution in self.space.items()}
        fixed = {name: content for name, content in self.fixed.items() if name not in ("tracking", "output")}
        return {"method": self.method, "metric": self.metric, "parameters": parameters, **fixed}

    def applies(self, name: str, values: dict[str, Any]) -> bool:
        """Tell whether the method that was drawn, or is fixed, has a parameter."""
        section, key = target_of(name)
        if section != "model" or key == "method":
            return True
        return key in known_to(self.method_of(values))

    def method_of(self, values: dict[str, Any]) -> str:
        """Return the method of a trial."""
        drawn = next((value for name, value in values.items() if target_of(name) == ("model", "method")), None)
        return drawn or self.fixed["model"].get("method", "mstsne")

    def config_of(self, values: dict[str, Any]) -> configs.Config:
        """Return the config of fastpdr train that a trial is.

        Raises
        ------
        ValueError
            There is no such combination.
        """
        return configs.resolve(self.content_of(values), "train")

    def content_of(self, values: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """Return the sections of that config, as a file would have them."""
        content = {name: dict(section) for name, section in self.fixed.items()}
        for name, value in values.items():
            section, key = target_of(name)
            content[section][key] = value
        return content

    def draw(self, trial: Any) -> dict[str, Any]:
        """Take values for a trial of optuna."""
        values: dict[str, Any] = {}
        for name, distribution in self.space.items():
            if self.applies(name, values):
                values[name] = distribution.draw(trial, name)
        return values

    def grid(self) -> Iterator[dict[str, Any]]:
        """Yield the values of all trials of a grid."""
        return space.grid(self.space, self.applies)

    @property
    def grid_size(self) -> int:
        """How many these are."""
        sizes = {name: len(distribution.choices() or []) for name, distribution in self.space.items()}
        method = next((name for name in self.space if target_of(name) == ("model", "method")), None)
        if method is None:
            return math.prod(sizes.values())
        heads = [{method: value} for value in self.space[method].choices() or []]
        others = [name for name in self.space if name != method]
        return sum(math.prod(sizes[name] for name in others if self.applies(name, head)) for head in heads)


def load(path: Path, *, seed: int | None = None, folder: Path | None = None) -> Sweep:
    """Read and check the file of a sweep.

    Parameters
    ----------
    path : Path
        A YAML file.
    seed : int, optional
        In place of the random_state of the model.
    folder : Path, optional
        In place of the output.

    Returns
    -------
    Sweep

    Raises
    ------
    ValueError
        The file is no YAML, a key or a distribution is unknown, a value has the wrong type or is out of range.
    """
    content = configs.read(path)
    try:
        return _checked(content, seed, folder)
    except ValueError as error:
        raise ValueError(configs.prefixed(path, str(error))) from error


def target_of(name: str) -> tuple[str, str]:
    """Return the section and the key that a parameter of the search sets."""
    section, dot, key = name.rpartition(".")
    if not dot:
        section = "preprocessing" if name in configs.Preprocessing.model_fields else "model"
    return section, key or name


def known_to(method: str) -> set[str]:
    """Return the keys that a section of the model may have, in both spellings."""
    own = set(configs.section_of(method).model_fields)
    return own | {alias for alias, name in configs.ALIASES.items() if name in own} | set(configs.WIDTHS)


def _checked(content: dict[Any, Any], seed: int | None, folder: Path | None) -> Sweep:
    for key, message in UNSUPPORTED.items():
        if key in content:
            raise ValueError(f"{key}: {message}")
    file = check_section(File, _flat(content), "")
    modes = check_section(Modes, file.modes or {}, "modes")
    if not check_section(Mode, modes.sweep or {}, "modes.sweep").enabled:
        raise ValueError("modes.sweep.enabled is false")
    metric, target = _metric(file.metric)
    stops = "early_terminate" in content or "early_terminate" in (content.get("sweep_config") or {})
    sweep = Sweep(
        method=file.method,
        metric=metric,
        target=target,
        space=_method_first(space.read(file.parameters)),
        early_terminate=None
        if file.early_terminate is None
        else check_section(Hyperband, file.early_terminate, "early_terminate"),
        prunes=file.method != "grid" and not stops,
        count=file.run_cap or file.sweep_count,
        fixed=_fixed(file, seed, folder),
        smoke_test=check_section(SmokeTest, modes.smoke_test or {}, "modes.smoke_test"),
        save_model=check_section(Saving, file.saving or {}, "saving").save_model,
        wandb=_of_wandb(file, metric, target),
    )
    _check_names(sweep)
    _check_values(sweep)
    if file.method == "grid":
        _check_grid(sweep)
    return sweep


def _flat(content: dict[Any, Any]) -> dict[Any, Any]:
    """Bring what the earlier implementation has under sweep_config to the top."""
    inner = content.get("sweep_config")
    if inner is None:
        return content
    if not isinstance(inner, dict):
        raise ValueError(f"sweep_config: expected method, metric and parameters, got {short(inner)}")
    for key in inner:
        if key in UNSUPPORTED:
            raise ValueError(f"sweep_config.{key}: {UNSUPPORTED[key]}")
        if key in content:
            raise ValueError(f"{key} and sweep_config.{key}: give one of them")
    return inner | {key: value for key, value in content.items() if key != "sweep_config"}


def _metric(content: Any) -> tuple[str, float | None]:
    metric = check_section(Metric, content or {}, "metric")
    name = METRIC_ALIASES.get(metric.name, metric.name)
    if name not in METRICS:
        raise ValueError(
            f"metric.name: expected one of {', '.join(METRICS)}, got {metric.name!r}"
            f"{nearest(metric.name, [*METRICS, *METRIC_ALIASES])}"
        )
    right = "maximize" if METRICS[name] else "minimize"
    if metric.goal not in (None, right):
        warnings.warn(f"metric.goal: {metric.goal} {metric.name} would search for the worst: {right} it", stacklevel=2)
    if name == "final_loss":
        warnings.warn(
            "metric.name: a loss is of the rows that are trained on, and losses of other perplexities, methods or dof "
            "do not compare; trustworthiness of held-out rows does",
            stacklevel=2,
        )
    return name, metric.target


def _of_wandb(file: File, metric: str, target: float | None) -> dict[str, Any]:
    """Return what W&B's own engine is given."""
    goal = "maximize" if METRICS[metric] else "minimize"
    wanted = {"name": metric, "goal": goal} | ({} if target is None else {"target": target})
    kept = ("project", "entity", "name", "description", "method", "parameters", "early_terminate", "run_cap")
    return {key: getattr(file, key) for key in kept if getattr(file, key) is not None} | {"metric": wanted}


def _method_first(parameters: dict[str, space.Distribution]) -> dict[str, space.Distribution]:
    """Which parameters there are depends on it."""
    return dict(sorted(parameters.items(), key=lambda item: target_of(item[0]) != ("model", "method")))


def _fixed(file: File, seed: int | None, folder: Path | None) -> dict[str, Any]:
    """Return the sections that are not searched, the folder of the results among them."""
    sections: dict[str, Any] = {}
    for name in SECTIONS:
        section = getattr(file, name)
        if not isinstance(section, dict | None):
            raise ValueError(f"{name}: expected a mapping of keys, got {short(section)}")
        sections[name] = dict(section or {})
    if sections["data"].get("held_out") is None:
        sections["data"]["held_out"] = HELD_OUT
    if seed is not None:
        sections["model"]["random_state"] = seed
    if folder is not None:
        sections["output"] = {"model_dir": str(folder.parent), "model_name": folder.name}
    sections["output"] = check_section(Output, sections["output"], "output").model_dump()
    return sections


def _check_names(sweep: Sweep) -> None:
    """Refuse parameters that no method of the sweep has, and those that are given twice."""
    methods = _methods(sweep)
    places: dict[tuple[str, str], str] = {}
    wrong = []
    for name in sweep.space:
        section, key = target_of(name)
        same = places.setdefault((section, _own_key(key)), name)
        if section == "preprocessing":
            known: set[str] = set(configs.Preprocessing.model_fields)
        elif section == "model":
            known = set().union(*(known_to(method) for method in methods))
        else:
            wrong.append(f"parameters.{name}: model and preprocessing are searched, not {section}")
            continue
        if key not in known:
            wrong.append(f"parameters.{name}: unknown key{_hint(section, key, methods, known)}")
        elif same != name:
            wrong.append(f"parameters.{same} and parameters.{name} mean the same: give one of them")
        elif key in sweep.fixed[section]:
            wrong.append(f"parameters.{name}: {section}.{key} is given as well: search for it, or fix it")
    if wrong:
        raise ValueError("\n  ".join(wrong))


def _hint(section: str, key: str, methods: list[str], known: set[str]) -> str:
    others = [other for other in METHODS if section == "model" and key in known_to(other)]
    if others:
        return f" for method {' and '.join(methods)}; it is for {' and '.join(others)}"
    return nearest(key, sorted(known | set(configs.Preprocessing.model_fields)))


def _methods(sweep: Sweep) -> list[str]:
    """Return the methods that trials can have."""
    drawn = next((d.examples() for name, d in sweep.space.items() if target_of(name) == ("model", "method")), None)
    methods = [sweep.method_of({})] if drawn is None else drawn
    for method in methods:
        configs.section_of(_known_method(method))
    return methods


def _known_method(method: Any) -> str:
    if not isinstance(method, str) or method not in METHODS:
        raise ValueError(f"method of the model: expected {', '.join(METHODS)}, got {short(method)}")
    return method


def _check_values(sweep: Sweep) -> None:
    """Try every value of the lists and the ends of the ranges, one at a time: what is wrong here is no bad luck."""
    wrong: dict[str, None] = {}
    for method in _methods(sweep):
        drawn = {name: method for name in sweep.space if target_of(name) == ("model", "method")}
        for name, distribution in sweep.space.items():
            if name in drawn or not sweep.applies(name, drawn):
                continue
            try:
                for value in distribution.examples():
                    sweep.config_of(drawn | {name: value})
            except ValueError as error:
                wrong[str(error)] = None
    if wrong:
        raise ValueError("\n  ".join(wrong))


def first_values(sweep: Sweep) -> dict[str, Any]:
    """Return the first of the examples of every parameter that the first method has."""
    values: dict[str, Any] = {}
    for name, distribution in sweep.space.items():
        if sweep.applies(name, values):
            values[name] = distribution.examples()[0]
    return values


def tiny(sweep: Sweep, folder: Path) -> Sweep:
    """Return the sweep of the smoke test: one small trial of the first values, written to a folder."""
    size = sweep.smoke_test
    overruled = {
        "n_epochs": size.iterations,
        "batch_size": size.batch_size,
        "early_exaggeration_epochs": size.early_exaggeration_epochs,
    }
    overruled = {key: value for key, value in overruled.items() if value is not None}
    first = first_values(sweep)
    kept = {name: value for name, value in first.items() if _own_key(target_of(name)[1]) not in overruled}
    left_out = {*overruled, configs.LOGDIR}
    model = {key: value for key, value in sweep.fixed["model"].items() if _own_key(key) not in left_out}
    own = configs.section_of(sweep.method_of(first)).model_fields
    model |= {key: value for key, value in overruled.items() if key in own}
    output = {"model_dir": str(folder.parent), "model_name": folder.name}
    return replace(
        sweep,
        method="random",
        target=None,
        space={name: space.Constant(value=value) for name, value in kept.items()},
        early_terminate=None,
        prunes=False,
        fixed=sweep.fixed | {"model": model, "tracking": {}, "output": output},
        save_model=True,
    )


def _own_key(key: str) -> str:
    return configs.ALIASES.get(key, key)


def _check_grid(sweep: Sweep) -> None:
    endless = [f"{name} ({d.distribution})" for name, d in sweep.space.items() if d.choices() is None]
    if endless:
        raise ValueError(
            f"method: a grid needs values, integers or multiples of q, which these are not: {', '.join(endless)}; "
            "give values, or take bayes or random"
        )
