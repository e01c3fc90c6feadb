"""The sections of a sweep's file: which keys there are, and what is measured.

Those of W&B's sweep syntax, of fastpdr train for what is not searched, and of PyTorch multiscale parametric t-SNE.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from fastpdr.cli.config import Section

# What is measured of every trial, and whether more of it is better.
METRICS = {
    "trustworthiness": True,
    "continuity": True,
    "neighborhood_preservation": True,
    "rnx_auc": True,
    "neighborhood_hit": True,
    "knn_accuracy": True,
    "silhouette": True,
    "final_loss": False,
    "training_time_seconds": False,
}
EPOCHS = "n_epochs"  # noted beside them
NEED_LABELS = ("neighborhood_hit", "knn_accuracy", "silhouette")
METRIC_ALIASES = {
    "trustworthiness_score": "trustworthiness",
    "neighborhood_preservation_ratio": "neighborhood_preservation",
    "silhouette_score": "silhouette",
    "final_kl_loss": "final_loss",
    "training_time": "training_time_seconds",
}

Count = Annotated[int, Field(ge=1)]


class Metric(Section):
    """What is searched for."""

    name: str = "trustworthiness"
    goal: Literal["maximize", "minimize"] | None = None
    target: float | None = None
    impute: Literal["latest", "best", "worst"] | None = None  # of W&B's engine
    impute_while_running: Literal["latest", "best", "worst", "false"] | None = None


class Hyperband(Section):
    """When trials are stopped that others have left behind, in epochs."""

    type: Literal["hyperband"]
    min_iter: Count | None = None
    max_iter: Count | None = None
    s: Annotated[float, Field(ge=1)] | None = None
    eta: Annotated[float, Field(gt=1)] = 3
    strict: bool = True

    @model_validator(mode="after")
    def _has_a_band(self) -> Hyperband:
        if self.min_iter is None and (self.max_iter is None or self.s is None):
            raise ValueError("give min_iter, or max_iter and s")
        return self

    @property
    def factor(self) -> int:
        """How many times as many epochs each band has as the one before; one in so many trials survives it."""
        return math.ceil(self.eta)

    @property
    def first(self) -> int:
        """The epoch of the first band."""
        if self.min_iter is not None:
            return self.min_iter
        assert self.max_iter is not None
        assert self.s is not None
        return max(1, int(self.max_iter / self.factor**self.s))

    def bands(self, n_epochs: int) -> list[int]:
        """Return the epochs of a training after which trials are compared."""
        bands = [self.first]
        while bands[-1] * self.factor < n_epochs:
            bands.append(bands[-1] * self.factor)
        return [band for band in bands if band < n_epochs]


class Mode(Section):
    """Whether there is a sweep at all."""

    enabled: bool = True


class SmokeTest(Section):
    """The one tiny trial of --smoke-test."""

    enabled: bool = True
    sample_size: Annotated[int, Field(ge=10)] = 200
    iterations: Count = 5
    batch_size: Annotated[int, Field(ge=2)] | None = None
    early_exaggeration_epochs: Annotated[int, Field(ge=0)] | None = None
    verbose: int | bool = 0


class Modes(Section):
    """Both ways to run the file."""

    sweep: Any = None
    smoke_test: Any = None


class Saving(Section):
    """What is kept."""

    save_model: bool = True


class Output(Section):
    """The folder model_dir/model_name of the whole sweep."""

    model_dir: str = "models"
    model_name: Annotated[str, Field(min_length=1)] = "sweep"


class File(Section):
    """All keys at the top; sections are checked one by one."""

    method: Literal["bayes", "random", "grid"] = "bayes"
    metric: Any = None
    parameters: Any = None
    early_terminate: Any = None
    run_cap: Count | None = None
    data: Any = None
    preprocessing: Any = None
    model: Any = None
    tracking: Any = None
    output: Any = None
    # Of W&B: the first three name what its engine makes, the others say which program it would start.
    project: str | None = None
    entity: str | None = None
    name: str | None = None
    description: str | None = None
    program: str | None = None
    command: list[Any] | None = None
    job: str | None = None
    image_uri: str | None = None
    apiVersion: str | None = None  # noqa: N815
    kind: Literal["sweep"] | None = None
    controller: dict[str, Any] | None = None
    # Of the earlier implementation.
    sweep_count: Count | None = None
    modes: Any = None
    saving: Any = None
    sweep_config: Any = None
