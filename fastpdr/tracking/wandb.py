"""Runs of Weights & Biases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastpdr.tracking.base import HELD_OUT, MAP, SCALARS, Rows, Tracker, pixels

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class WeightsAndBiases(Tracker):
    """Logs to Weights & Biases (``pip install 'fastpdr[wandb]'``), also with ``WANDB_MODE=offline``.

    Numbers, pictures and what ``config`` holds are sent, no rows.

    Parameters
    ----------
    project : str, optional
        Every training is a run of its own in it, which ends with the training; after an error as a failed one. Runs
        that are already there go on beside it.
    run : wandb.Run, optional
        In place of it a run that exists; it stays open. It takes one training: later ones begin again at epoch 1.
    held_out, metrics_every, map_every
        As for :class:`TensorBoard`.
    **settings
        For ``wandb.init``: name, group, tags, config, ...

    Raises
    ------
    ImportError, ValueError
        As :class:`TensorBoard`.
    RuntimeError
        No run can be begun, for example without a login.

    Examples
    --------
    >>> from fastpdr import ParametricUMAP
    >>> from fastpdr.tracking import WeightsAndBiases
    >>> umap = ParametricUMAP(callbacks=[WeightsAndBiases("maps", tags=["digits"])])  # doctest: +SKIP
    """

    def __init__(
        self,
        project: str | None = None,
        *,
        run: Any = None,
        held_out: Rows | None = None,
        metrics_every: int | None = 10,
        map_every: int | None = None,
        **settings: Any,
    ) -> None:
        _import_wandb()
        if run is not None and (project is not None or settings):
            given = ", ".join((["project"] if project is not None else []) + list(settings))
            raise ValueError(f"WeightsAndBiases: a run that exists has its settings: give run or {given}, not both")
        super().__init__(held_out, metrics_every, map_every)
        self.project, self.run, self.settings = project, run, settings

    def _begin(self) -> Any:
        wandb = _import_wandb()
        run = self.run
        if run is None:
            try:
                run = wandb.init(project=self.project, **{"reinit": "create_new"} | self.settings)
            except wandb.Error as error:
                raise RuntimeError(f"WeightsAndBiases: no run can be begun: {error}") from error
        # By the epoch, not by W&B's count of calls, which others move on as well.
        for name in (*SCALARS, HELD_OUT + "*"):
            run.define_metric(name, step_metric="epoch")
        return run

    def _write(self, log: Any, epoch: int, scalars: dict[str, float], axes: Axes | None) -> None:
        pictures = {} if axes is None else {MAP: _import_wandb().Image(pixels(axes))}
        log.log({"epoch": epoch, **scalars, **pictures})

    def _end(self, log: Any, failed: bool) -> None:
        if self.run is None:
            log.finish(exit_code=int(failed))


def _import_wandb() -> Any:
    try:
        import wandb
    except ImportError as error:
        raise ImportError("WeightsAndBiases: wandb is missing: pip install 'fastpdr[wandb]'") from error
    return wandb
