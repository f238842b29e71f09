"""The loop on DeepSpeed: parameter groups, schedules, checkpoints, progress."""

from posterion.training._gang import Gang, SoloGang, TorchGang
from posterion.training._listener import (
    CheckpointReport,
    EvaluationReport,
    JsonLinesListener,
    Listener,
    NullListener,
    StepReport,
    Totals,
)
from posterion.training._loop import fit
from posterion.training._spec import FitResult, TrainingSpec

__all__ = [
    "CheckpointReport",
    "EvaluationReport",
    "FitResult",
    "Gang",
    "JsonLinesListener",
    "Listener",
    "NullListener",
    "SoloGang",
    "StepReport",
    "TorchGang",
    "Totals",
    "TrainingSpec",
    "fit",
]
