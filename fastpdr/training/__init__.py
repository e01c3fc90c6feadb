"""Learning a map: the encoder, the objectives, the loop and its callbacks. Knows tensors, not scikit-learn."""

from fastpdr.training.callbacks import Callback, TrainingState
from fastpdr.training.encoder import MLP, InputScaling, build_decoder, build_encoder
from fastpdr.training.loop import TrainingSettings, train

__all__ = [
    "MLP",
    "Callback",
    "InputScaling",
    "TrainingSettings",
    "TrainingState",
    "build_decoder",
    "build_encoder",
    "train",
]
