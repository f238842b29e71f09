"""The loop on DeepSpeed: parameter groups, schedules, checkpoints, progress."""

from posterion.training._gang import Gang, SoloGang, TorchGang
from posterion.training._listener import (
    CheckpointReport,
    EvaluationReport,
    JsonLinesListener,
    Listener,
    NullListener,
    RollbackReport,
    StepReport,
    Totals,
)
from posterion.training._loop import fit
from posterion.training._preload import preload
from posterion.training._spec import FitResult, TrainingSpec
from posterion.training.workloads import (
    FinetuneSpec,
    LanguageDistillSpec,
    PretrainSpec,
    TaskDistillSpec,
    TaskTeachers,
    TeacherModel,
    check_teacher,
    held_out_rows,
    load_language_teacher,
    perplexity_of,
)

__all__ = [
    "CheckpointReport",
    "EvaluationReport",
    "FinetuneSpec",
    "FitResult",
    "Gang",
    "JsonLinesListener",
    "LanguageDistillSpec",
    "Listener",
    "NullListener",
    "PretrainSpec",
    "RollbackReport",
    "SoloGang",
    "StepReport",
    "TaskDistillSpec",
    "TaskTeachers",
    "TeacherModel",
    "TorchGang",
    "Totals",
    "TrainingSpec",
    "check_teacher",
    "fit",
    "held_out_rows",
    "load_language_teacher",
    "perplexity_of",
    "preload",
]
