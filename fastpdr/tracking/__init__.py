"""Trackers: callbacks that write down how a training goes, for TensorBoard, Weights & Biases, as CSV or JSON lines.

All of them write the same names: loss, learning_rate and gradient_norm of every epoch, and every so often measures and
a picture of rows that are not trained on, under held_out/.
"""

from fastpdr.tracking.files import CSVLog, JSONLines
from fastpdr.tracking.tensorboard import TensorBoard
from fastpdr.tracking.wandb import WeightsAndBiases

__all__ = ["CSVLog", "JSONLines", "TensorBoard", "WeightsAndBiases"]
