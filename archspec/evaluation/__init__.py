"""What a model is worth: loss over texts by position, and tasks of recall whose examples are generated.

Imports torch. `docs/evaluation.md` shows how to use it.
"""

from archspec.evaluation.loss import LossReport, PositionBin, text_loss
from archspec.evaluation.needle import Needle
from archspec.evaluation.recall import Examples, MultiQuery, Task, task_batches
from archspec.evaluation.recall_accuracy import RecallReport, RecallRow, recall
from archspec.evaluation.scoring import Scores, first_row, score, score_cached
from archspec.evaluation.texts import ByteEncoder, Document, Encoder, FileEncoder, encoder_of, read_documents

__all__ = [
    "ByteEncoder",
    "Document",
    "Encoder",
    "Examples",
    "FileEncoder",
    "LossReport",
    "MultiQuery",
    "Needle",
    "PositionBin",
    "RecallReport",
    "RecallRow",
    "Scores",
    "Task",
    "encoder_of",
    "first_row",
    "read_documents",
    "recall",
    "score",
    "score_cached",
    "task_batches",
    "text_loss",
]
