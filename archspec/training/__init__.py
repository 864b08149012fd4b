"""Training on text: documents -> packed tokens -> transformers' `Trainer` -> a model folder and its curve."""

from archspec.training.data import Packed, pack
from archspec.training.settings import Settings
from archspec.training.trainer import Trained, train

__all__ = ["Packed", "Settings", "Trained", "pack", "train"]
