"""What a task's models can teach: the answers of teachers as targets of a student.

Shape legend: M teachers, B rows of a batch, N examples, O outputs of a head, K columns of the
targets.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from posterion._exceptions import RequestError
from posterion.trust import ClassificationDistribution, RegressionDistribution

if TYPE_CHECKING:
    from torch import Tensor

    from posterion.tasks._base import Task
    from posterion.tasks.classification import Classification
    from posterion.tasks.regression import Regression

_SHOWN = 8


class Teaching(ABC):
    """How one task learns from models that were fine-tuned for it."""

    @abstractmethod
    def check(self, teacher: Task[Any, Any], name: str) -> None:
        """Refuse a teacher of something else.

        Args:
            teacher: Its task, with the state it learned.
            name: The teacher's, for the message.

        Raises:
            RequestError: It answers other questions, or in other terms; names both.
        """

    @abstractmethod
    def targets(self, logits: Sequence[Tensor], teachers: Sequence[Task[Any, Any]]) -> Tensor:
        """The combined answer of M teachers, in the student's terms.

        Args:
            logits: Of each teacher, (B, O).
            teachers: Their tasks; all passed :meth:`check`.

        Returns:
            Shape: (B, K), float32, without gradient. K is the student's O.
        """

    @abstractmethod
    def distribution(self, targets: NDArray[np.float64]) -> Any:
        """What the teachers believe of N examples, as the student's task says it.

        Args:
            targets: Shape: (N, K).
        """

    @abstractmethod
    def loss(self, logits: Tensor, targets: Tensor, *, temperature: float) -> Tensor:
        """How far a student is from :meth:`targets`. Shapes: (B, O), (B, K) -> (B,)."""


class ClassTeaching(Teaching):
    """Classes (softmax), or independent labels (a sigmoid each)."""

    def __init__(self, task: Classification) -> None:
        self._task = task

    def check(self, teacher: Task[Any, Any], name: str) -> None:
        """See :meth:`Teaching.check`; labels may come in another order."""
        from posterion.tasks.classification import Classification

        mine = self._task
        if not isinstance(teacher, Classification):
            raise _other_task(mine, teacher, name)
        if teacher.options.multi_label != mine.options.multi_label:
            forms = {True: "any number of labels", False: "exactly one label"}
            raise RequestError(
                f"The teacher {name} gives {forms[teacher.options.multi_label]} to a text, the "
                f"recipe's task {forms[mine.options.multi_label]} (task.multi_label). Take a "
                "teacher of the same kind, or change task.multi_label."
            )
        if set(teacher.labels) != set(mine.labels):
            raise RequestError(
                f"The teacher {name} knows {_listed(teacher.labels)}, the student's training part "
                f"{_listed(mine.labels)}. Only the teacher has "
                f"{_listed(sorted(set(teacher.labels) - set(mine.labels)))}; only the student "
                f"{_listed(sorted(set(mine.labels) - set(teacher.labels)))}. Take a teacher of "
                "this task, or name all labels with task.labels where the data merely lacks some."
            )

    def targets(self, logits: Sequence[Tensor], teachers: Sequence[Task[Any, Any]]) -> Tensor:
        """Logits of one teacher, or those of the members' mean probability."""
        import torch

        from posterion.objectives.distillation import (
            ensemble_binary_logits,
            ensemble_log_probabilities,
        )

        ordered = []
        for values, teacher in zip(logits, teachers, strict=True):
            place = {label: index for index, label in enumerate(teacher.labels)}  # type: ignore[attr-defined]
            order = [place[label] for label in self._task.labels]
            ordered.append(values.detach().float()[:, order])
        if len(ordered) == 1:
            return ordered[0]
        several = self._task.options.multi_label
        combine = ensemble_binary_logits if several else ensemble_log_probabilities
        return combine(torch.stack(ordered))

    def distribution(self, targets: NDArray[np.float64]) -> ClassificationDistribution:
        """See :meth:`Teaching.distribution`."""
        return self._task.distribution(targets[None])

    def loss(self, logits: Tensor, targets: Tensor, *, temperature: float) -> Tensor:
        """Softened Kullback-Leibler divergence; of independent labels the mean over them."""
        from posterion.objectives.distillation import softened_binary_kl, softened_kl

        kind = softened_binary_kl if self._task.options.multi_label else softened_kl
        return kind(logits, targets, temperature)


class ValueTeaching(Teaching):
    """Values, with how sure the teacher is of them where both say so."""

    def __init__(self, task: Regression) -> None:
        self._task = task

    def check(self, teacher: Task[Any, Any], name: str) -> None:
        """See :meth:`Teaching.check`; units may be standardised otherwise."""
        from posterion.tasks.regression import Regression

        if not isinstance(teacher, Regression):
            raise _other_task(self._task, teacher, name)
        mine, other = self._task.options.likelihood, teacher.options.likelihood
        if mine == "gaussian" and other != "gaussian":
            raise RequestError(
                f"The recipe's task learns a value and how sure it is (task.likelihood: gaussian), "
                f"but the teacher {name} was trained with {other} and gives no variance. Set "
                "task.likelihood: squared_error, or take a teacher with the gaussian likelihood."
            )

    def targets(self, logits: Sequence[Tensor], teachers: Sequence[Task[Any, Any]]) -> Tensor:
        """Mean and log-variance in the student's standardised units; the mean only, without."""
        import torch

        from posterion.objectives.distillation import ensemble_gaussian

        outputs = [
            self._in_own_units(values.detach().float(), teacher)
            for values, teacher in zip(logits, teachers, strict=True)
        ]
        means = torch.stack([mean for mean, _ in outputs])
        if self._task.options.likelihood != "gaussian":
            return means.mean(0).unsqueeze(1)
        variances = torch.stack([log_variance for _, log_variance in outputs])
        return torch.stack(ensemble_gaussian(means, variances), dim=1)

    def _in_own_units(self, logits: Tensor, teacher: Any) -> tuple[Tensor, Tensor]:
        import math

        mean, std = self._task.moments
        other_mean, other_std = teacher.moments
        ratio = other_std / std
        values = logits[:, 0] * ratio + (other_mean - mean) / std
        if teacher.options.likelihood != "gaussian":
            return values, values
        return values, teacher.log_variance(logits) + 2.0 * math.log(ratio)

    def distribution(self, targets: NDArray[np.float64]) -> RegressionDistribution:
        """See :meth:`Teaching.distribution`."""
        if self._task.options.likelihood != "gaussian":
            return self._task.distribution(targets[None])
        mean, std = self._task.moments
        return RegressionDistribution(
            mean=targets[:, 0] * std + mean,
            aleatoric=np.exp(targets[:, 1]) * std**2,
            epistemic=np.zeros(len(targets)),
        )

    def loss(self, logits: Tensor, targets: Tensor, *, temperature: float) -> Tensor:
        """Kullback-Leibler divergence of normal distributions, or squared difference of values.

        A normal distribution has no order among the unlikely that a temperature could show.
        """
        from posterion.objectives import squared_error
        from posterion.objectives.distillation import gaussian_distillation

        if self._task.options.likelihood != "gaussian":
            return squared_error(logits[:, 0], targets[:, 0])
        return gaussian_distillation(
            logits[:, 0], self._task.log_variance(logits), targets[:, 0], targets[:, 1]
        )


def _other_task(mine: Task[Any, Any], teacher: Task[Any, Any], name: str) -> RequestError:
    return RequestError(
        f"The teacher {name} was fine-tuned for the task {teacher.kind!r}, the recipe's task is "
        f"{mine.kind!r}. Take a teacher of the same task."
    )


def _listed(labels: Sequence[str]) -> str:
    more = f", ... ({len(labels)} in all)" if len(labels) > _SHOWN else ""
    return f"{', '.join(labels[:_SHOWN])}{more}" if labels else "none"
