"""What can be trained, one module per job."""

from posterion.training.workloads._asked import TaskTeachers
from posterion.training.workloads._held_out import held_out_rows, perplexity_of
from posterion.training.workloads._teachers import TeacherModel, check_teacher
from posterion.training.workloads.distill import TaskDistillSpec
from posterion.training.workloads.distill_words import LanguageDistillSpec, load_language_teacher
from posterion.training.workloads.finetune import FinetuneSpec
from posterion.training.workloads.pretrain import PretrainSpec

__all__ = [
    "FinetuneSpec",
    "LanguageDistillSpec",
    "PretrainSpec",
    "TaskDistillSpec",
    "TaskTeachers",
    "TeacherModel",
    "check_teacher",
    "held_out_rows",
    "load_language_teacher",
    "perplexity_of",
]
