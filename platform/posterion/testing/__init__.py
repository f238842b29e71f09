"""Tiny models and contract tests for whoever adds a task or a model.

Nothing here is needed to run the platform; it is shipped so that packages outside this
repository can check their own tasks with the same tests.
"""

from posterion.testing._contract import CheckedTask, check_task
from posterion.testing._distillation import (
    tiny_distillation,
    tiny_task_model,
    tiny_word_distillation,
)
from posterion.testing._hostile_texts import hostile_texts, long_texts
from posterion.testing._model_contract import MODEL_CHECKS, check_model
from posterion.testing._model_family import ModelFamily, randomize
from posterion.testing._parity import Parity, check_model_parity
from posterion.testing._pretraining import tiny_pretraining
from posterion.testing._running_text import running_documents
from posterion.testing._tiny import TINY_ARCHITECTURES, TINY_WORDS, tiny_model
from posterion.testing._training import (
    run_workers,
    start_workers,
    tiny_recipe,
    tiny_training,
)

__all__ = [
    "MODEL_CHECKS",
    "TINY_ARCHITECTURES",
    "TINY_WORDS",
    "CheckedTask",
    "ModelFamily",
    "Parity",
    "check_model",
    "check_model_parity",
    "check_task",
    "hostile_texts",
    "long_texts",
    "randomize",
    "run_workers",
    "running_documents",
    "start_workers",
    "tiny_distillation",
    "tiny_model",
    "tiny_pretraining",
    "tiny_recipe",
    "tiny_task_model",
    "tiny_training",
    "tiny_word_distillation",
]
