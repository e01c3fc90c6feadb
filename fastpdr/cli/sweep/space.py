"""What a sweep searches: the distributions of W&B's sweep syntax, checked, and drawn from through optuna.

Source of the syntax: https://docs.wandb.ai/models/sweeps/sweep-config-keys and the schema of the package wandb/sweeps.
Ranges are optuna's own where it has them; shapes (normal, beta, ...) are drawn as quantiles, which a sampler that
learns handles as a uniform range. Multiples of q stay within the bounds, where W&B rounds beyond them.
"""

from __future__ import annotations

import json
import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from fastpdr.cli.config import Section, check_section, nearest, short

SMALLEST_SHARE = 1e-3  # of the tails of a shape that are not drawn from
Positive = Annotated[float, Field(gt=0)]
Step = Annotated[int, Field(gt=0)] | Positive


class Distribution(Section):
    """One parameter; the classes below have the keys and the names of W&B's schema."""

    distribution: str

    @abstractmethod
    def draw(self, trial: Any, name: str) -> Any:
        """Take a value by an optuna trial."""

    @abstractmethod
    def examples(self) -> list[Any]:
        """Return values to check: all of a list, otherwise some from both ends, the smallest first."""

    def extremes(self) -> list[Any]:
        """Return values among which the largest is."""
        return self.examples()

    def choices(self) -> list[Any] | None:
        """Return all values, if there is an end to them."""
        return None


class Constant(Distribution):
    """A value that is not searched."""

    distribution: Literal["constant"] = "constant"
    value: Any

    def draw(self, trial: Any, name: str) -> Any:
        """Return it."""
        return self.value

    def examples(self) -> list[Any]:
        """Return it."""
        return [self.value]

    def choices(self) -> list[Any]:
        """Return it."""
        return [self.value]


class Categorical(Distribution):
    """One of a list."""

    distribution: Literal["categorical"] = "categorical"
    values: Annotated[list[Any], Field(min_length=1)]

    def draw(self, trial: Any, name: str) -> Any:
        """Take one; optuna has no lists as choices, so it gets their JSON."""
        labels = [label(value) for value in self.values]
        return self.values[labels.index(trial.suggest_categorical(name, labels))]

    def examples(self) -> list[Any]:
        """Return all."""
        return self.values

    def choices(self) -> list[Any]:
        """Return all."""
        return self.values


class Weighted(Distribution):
    """One of a list, each with its probability."""

    distribution: Literal["categorical_w_probabilities", "categorical"] = "categorical_w_probabilities"
    values: Annotated[list[Any], Field(min_length=1)]
    probabilities: list[Annotated[float, Field(ge=0)]]

    @model_validator(mode="after")
    def _one_for_each(self) -> Weighted:
        if len(self.probabilities) != len(self.values) or not sum(self.probabilities) > 0:
            raise ValueError(
                f"probabilities must be one for each of the {len(self.values)} values, not all 0, "
                f"got {short(self.probabilities)}"
            )
        return self

    def draw(self, trial: Any, name: str) -> Any:
        """Take one, as a quantile."""
        upper = np.cumsum(self.probabilities) / sum(self.probabilities)
        # The upper ends are not drawn, so that what has no probability is not.
        place = np.searchsorted(upper, trial.suggest_float(name, 0.0, 1.0 - 1e-9), side="right")
        return self.values[int(place)]

    def examples(self) -> list[Any]:
        """Return all."""
        return self.values


class IntUniform(Distribution):
    """Integers, both ends included."""

    distribution: Literal["int_uniform"] = "int_uniform"
    min: int
    max: int

    @model_validator(mode="after")
    def _in_order(self) -> IntUniform:
        require_order(self.min, self.max)
        return self

    def draw(self, trial: Any, name: str) -> int:
        """Take one."""
        return trial.suggest_int(name, self.min, self.max)

    def examples(self) -> list[Any]:
        """Return both ends."""
        return [self.min, self.max]

    def choices(self) -> list[Any]:
        """Return all."""
        return list(range(self.min, self.max + 1))


class Range(Distribution):
    """Numbers between two bounds; base of the other ranges, which say what the bounds mean and how dense it is."""

    min: float
    max: float

    @model_validator(mode="after")
    def _in_order(self) -> Range:
        require_order(self.min, self.max)
        return self

    @property
    def log(self) -> bool:
        """Whether it is uniform in the logarithm."""
        return "log" in self.distribution

    @property
    def bounds(self) -> tuple[float, float]:
        """The smallest and the largest value."""
        return self.min, self.max

    def draw(self, trial: Any, name: str) -> Any:
        """Take one."""
        return trial.suggest_float(name, *self.bounds, log=self.log)

    def examples(self) -> list[Any]:
        """Return values near the ends, since a bound itself is never met: a rate may begin at 0."""
        low, high = self.bounds
        if self.log:
            return [low, high]
        return [low + share * (high - low) for share in (SMALLEST_SHARE, 1 - SMALLEST_SHARE)]


class Uniform(Range):
    """Evenly dense."""

    distribution: Literal["uniform"] = "uniform"


class LogUniformValues(Range):
    """Evenly dense in the logarithm; the inverse of such a number is distributed alike."""

    distribution: Literal["log_uniform_values", "inv_log_uniform_values"]
    min: Positive


class LogUniform(Range):
    """The same, with natural logarithms as bounds; those of 1 / x in the inverse form."""

    distribution: Literal["log_uniform", "inv_log_uniform"]

    @property
    def bounds(self) -> tuple[float, float]:
        """The smallest and the largest value."""
        low, high = (self.min, self.max) if self.distribution == "log_uniform" else (-self.max, -self.min)
        return math.exp(low), math.exp(high)


class Quantized(Range):
    """Multiples of q within the bounds."""

    distribution: Literal["q_uniform"]
    q: Step = 1

    @model_validator(mode="after")
    def _has_multiples(self) -> Quantized:
        low, high = self.multiples
        if low > high:
            raise ValueError(f"there is no multiple of q={self.q} from {self.min} to {self.max}")
        return self

    @property
    def multiples(self) -> tuple[int, int]:
        """The factors of q at the ends, with room for rounding."""
        low, high = self.bounds
        return math.ceil(low / self.q - 1e-9), math.floor(high / self.q + 1e-9)

    def draw(self, trial: Any, name: str) -> Any:
        """Take one."""
        low, high = (multiple(factor, self.q) for factor in self.multiples)
        suggest = trial.suggest_int if isinstance(self.q, int) else trial.suggest_float
        return multiple(round(suggest(name, low, high, step=self.q) / self.q), self.q)

    def examples(self) -> list[Any]:
        """Return both ends."""
        return [multiple(factor, self.q) for factor in self.multiples]

    def choices(self) -> list[Any] | None:
        """Return all."""
        low, high = self.multiples
        return [multiple(factor, self.q) for factor in range(low, high + 1)]


class QuantizedLogValues(Quantized):
    """Multiples of q, evenly dense in the logarithm."""

    distribution: Literal["q_log_uniform_values"]  # type: ignore[assignment]
    min: Positive

    def draw(self, trial: Any, name: str) -> Any:
        """Take one."""
        low, high = self.multiples
        if isinstance(self.q, int) and self.q == 1:
            return trial.suggest_int(name, low, high, log=True)
        number = trial.suggest_float(name, float(low * self.q), float(high * self.q), log=True)
        return multiple(round(number / self.q), self.q)

    def choices(self) -> None:
        """Return nothing: on a grid every value would count alike."""
        return None


class QuantizedLog(QuantizedLogValues):
    """The same, with natural logarithms as bounds."""

    distribution: Literal["q_log_uniform"]  # type: ignore[assignment]
    min: float

    @property
    def bounds(self) -> tuple[float, float]:
        """The smallest and the largest value."""
        return math.exp(self.min), math.exp(self.max)


class Shape(Distribution):
    """A distribution of SciPy, drawn as a quantile and rounded to multiples of q if there is one."""

    @abstractmethod
    def quantile(self, share: float) -> float:
        """Return the value below which a share lies."""

    def at(self, share: float) -> Any:
        """Return the quantile, rounded."""
        q = getattr(self, "q", None)
        value = float(self.quantile(share))
        return value if q is None else multiple(round(value / q), q)

    def draw(self, trial: Any, name: str) -> Any:
        """Take one."""
        return self.at(trial.suggest_float(name, SMALLEST_SHARE, 1 - SMALLEST_SHARE))

    def examples(self) -> list[Any]:
        """Return the median: what lies far out may fail."""
        return [self.at(0.5)]

    def extremes(self) -> list[Any]:
        """Return both ends."""
        return [self.at(SMALLEST_SHARE), self.at(1 - SMALLEST_SHARE)]


class Normal(Shape):
    """Bell-shaped."""

    distribution: Literal["normal"]
    mu: float = 0.0
    sigma: Positive = 1.0

    def quantile(self, share: float) -> float:
        """Return the value below which a share lies."""
        from scipy.stats import norm

        return norm.ppf(share, self.mu, self.sigma)


class LogNormal(Normal):
    """Bell-shaped in the logarithm."""

    distribution: Literal["log_normal"]  # type: ignore[assignment]

    def quantile(self, share: float) -> float:
        """Return the value below which a share lies."""
        return math.exp(super().quantile(share))


class QuantizedNormal(Normal):
    """Multiples of q."""

    distribution: Literal["q_normal"]  # type: ignore[assignment]
    q: Step = 1


class QuantizedLogNormal(LogNormal):
    """Multiples of q."""

    distribution: Literal["q_log_normal"]  # type: ignore[assignment]
    q: Step = 1


class Beta(Shape):
    """From 0 to 1."""

    distribution: Literal["beta"]
    a: Positive = 1.0
    b: Positive = 1.0

    def quantile(self, share: float) -> float:
        """Return the value below which a share lies."""
        from scipy.stats import beta

        return beta.ppf(share, self.a, self.b)


class QuantizedBeta(Beta):
    """Multiples of q."""

    distribution: Literal["q_beta"]  # type: ignore[assignment]
    q: Step = 1


KINDS: dict[str, type[Distribution]] = {
    "constant": Constant,
    "categorical": Categorical,
    "categorical_w_probabilities": Weighted,
    "int_uniform": IntUniform,
    "uniform": Uniform,
    "q_uniform": Quantized,
    "log_uniform": LogUniform,
    "log_uniform_values": LogUniformValues,
    "inv_log_uniform": LogUniform,
    "inv_log_uniform_values": LogUniformValues,
    "q_log_uniform": QuantizedLog,
    "q_log_uniform_values": QuantizedLogValues,
    "normal": Normal,
    "q_normal": QuantizedNormal,
    "log_normal": LogNormal,
    "q_log_normal": QuantizedLogNormal,
    "beta": Beta,
    "q_beta": QuantizedBeta,
}


def read(parameters: Any, where: str = "parameters", prefix: str = "") -> dict[str, Distribution]:
    """Check W&B's section of parameters.

    Parameters
    ----------
    parameters : mapping
        Name to distribution; one with the key ``parameters`` holds others, whose names follow its own and a dot.
    where, prefix : str
        Of a nested section: what errors call it, and what the names begin with.

    Returns
    -------
    dict of str to Distribution
        In the order of the file.

    Raises
    ------
    ValueError
        One line for each parameter that is wrong.
    """
    if not isinstance(parameters, dict) or not parameters:
        raise ValueError(f"{where}: expected parameters and their distributions, got {short(parameters)}")
    found: dict[str, Distribution] = {}
    wrong = []
    for name, content in parameters.items():
        try:
            if isinstance(content, dict) and "parameters" in content:
                found |= read(content["parameters"], f"{where}.{name}.parameters", f"{prefix}{name}.")
            else:
                found[f"{prefix}{name}"] = distribution(content, f"{where}.{name}")
        except ValueError as error:
            wrong.append(str(error))
    if wrong:
        raise ValueError("\n  ".join(wrong))
    return found


def distribution(content: Any, where: str) -> Distribution:
    """Check one distribution; without a name it is known by its keys, as W&B has it."""
    if not isinstance(content, dict):
        raise ValueError(f"{where}: expected value, values, or min and max, got {short(content)}")
    name = content.get("distribution")
    if name is None:
        name = _by_keys(content, where)
    elif name not in KINDS if isinstance(name, str) else True:
        raise ValueError(f"{where}.distribution: expected one of W&B's, got {short(name)}{nearest(name, KINDS)}")
    kind = Weighted if name == "categorical" and "probabilities" in content else KINDS[name]
    return check_section(kind, {"distribution": name} | content, where)


def _by_keys(content: dict[Any, Any], where: str) -> str:
    if "value" in content:
        return "constant"
    if "values" in content:
        return "categorical"
    if "min" in content and "max" in content:
        whole = all(isinstance(content[key], int) for key in ("min", "max"))
        return "int_uniform" if whole else "uniform"
    raise ValueError(
        f"{where}: expected value, values, min and max, or a distribution, got {short(content)}"
        f"{nearest(next(iter(content), ''), ('value', 'values', 'min', 'max', 'distribution'))}"
    )


def grid(
    parameters: Mapping[str, Distribution], applies: Callable[[str, dict[str, Any]], bool]
) -> Iterator[dict[str, Any]]:
    """Yield every combination, the last parameter varying fastest; `applies` says what earlier values leave out."""

    def extend(known: dict[str, Any], rest: list[str]) -> Iterator[dict[str, Any]]:
        if not rest:
            yield known
        elif not applies(rest[0], known):
            yield from extend(known, rest[1:])
        else:
            for value in parameters[rest[0]].choices() or []:
                yield from extend(known | {rest[0]: value}, rest[1:])

    return extend({}, list(parameters))


def label(value: Any) -> Any:
    """What optuna stores of a value: itself, or its JSON."""
    return value if value is None or isinstance(value, bool | int | float | str) else json.dumps(value, default=str)


def multiple(factor: int, q: float) -> Any:
    """Return q times a factor, without the digits that rounding leaves."""
    return factor * q if isinstance(q, int) else float(f"{factor * q:.12g}")


def require_order(low: float, high: float) -> None:
    """Refuse bounds that hold nothing between them."""
    if not low < high:
        raise ValueError(f"min must be less than max, got {low} and {high}")
