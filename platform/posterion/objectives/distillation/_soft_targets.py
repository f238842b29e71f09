"""What a teacher says of classes, words or values, as a target.

Computed in single precision, or double where double is given. Shapes: B examples (or tokens), C
classes (or words), M members of an ensemble.
"""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional as F

from posterion._exceptions import RequestError
from posterion.objectives.distillation._precision import as_single


def softened_kl(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """``T^2 KL(softmax(t / T) || softmax(s / T))`` per example, in nats.

    The factor keeps the size of gradients as T grows (Hinton et al. 2015, section 2). The teacher
    receives no gradient. 0 where both say the same.

    Args:
        student_logits: ``s``. Shape: (B, C).
        teacher_logits: ``t``; or log-probabilities, as of an ensemble. Shape: (B, C).
        temperature: ``T``, above 0.

    Returns:
        Shape: (B,).

    Raises:
        RequestError: Classes that differ, or a temperature not above 0.
    """
    _check(student_logits, teacher_logits, temperature)
    mine = F.log_softmax(as_single(student_logits) / temperature, dim=-1)
    target = F.log_softmax(as_single(teacher_logits.detach()) / temperature, dim=-1)
    divergence = F.kl_div(mine, target, reduction="none", log_target=True).sum(-1)
    return divergence * temperature**2


def soft_cross_entropy(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0
) -> Tensor:
    """``-sum softmax(t) log softmax(s / T)`` per example: TinyBERT's prediction layer.

    Jiao et al. 2020, equation 10, where T is 1. At T = 1 it is :func:`softened_kl` plus the
    teacher's entropy, so its gradient is the same and its least value is not 0.

    Args:
        student_logits: ``s``. Shape: (B, C).
        teacher_logits: ``t``. Shape: (B, C).
        temperature: ``T``, above 0, of the student alone.

    Returns:
        Shape: (B,).

    Raises:
        RequestError: Classes that differ, or a temperature not above 0.
    """
    _check(student_logits, teacher_logits, temperature)
    target = F.softmax(as_single(teacher_logits.detach()), dim=-1)
    return -(target * F.log_softmax(as_single(student_logits) / temperature, dim=-1)).sum(-1)


def softened_binary_kl(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float
) -> Tensor:
    """:func:`softened_kl` of independent yes/no labels, the mean over them, in nats.

    ``T^2 KL(sigmoid(t / T) || sigmoid(s / T))`` of each label. 0 where both say the same.

    Args:
        student_logits: ``s``. Shape: (B, C).
        teacher_logits: ``t``. Shape: (B, C).
        temperature: ``T``, above 0.

    Returns:
        Shape: (B,).

    Raises:
        RequestError: See :func:`softened_kl`.
    """
    _check(student_logits, teacher_logits, temperature)
    mine = as_single(student_logits) / temperature
    target = as_single(teacher_logits.detach()) / temperature
    yes = target.sigmoid() * (F.logsigmoid(target) - F.logsigmoid(mine))
    no = (-target).sigmoid() * (F.logsigmoid(-target) - F.logsigmoid(-mine))
    return (yes + no).mean(-1) * temperature**2


def classification_distillation(
    student_logits: Tensor,
    teacher_logits: Tensor,
    label: Tensor | None = None,
    *,
    temperature: float = 2.0,
    soft_weight: float = 0.5,
) -> Tensor:
    """Soft labels of a teacher, and right classes where there are any.

    ``a T^2 KL + (1 - a) CE`` where an example has a label, and the softened part alone where it
    has none, as for text that nobody labelled (Hinton et al. 2015).

    Args:
        student_logits: Shape: (B, C).
        teacher_logits: Or log-probabilities, e.g. of :func:`ensemble_log_probabilities`.
            Shape: (B, C).
        label: Class indices, -100 where unknown. Shape: (B,).
        temperature: ``T``.
        soft_weight: ``a``, from 0 to 1.

    Returns:
        Shape: (B,).

    Raises:
        RequestError: A weight beyond its bounds; see :func:`softened_kl`.
    """
    check_share("soft_weight", soft_weight)
    soft = softened_kl(student_logits, teacher_logits, temperature)
    if label is None:
        return soft
    hard = F.cross_entropy(as_single(student_logits), label.long(), reduction="none")
    both = soft_weight * soft + (1 - soft_weight) * hard
    return both.where(label != -100, soft)


def ensemble_log_probabilities(logits: Tensor) -> Tensor:
    """Log of the mean probability of an ensemble's members.

    Args:
        logits: Shape: (M, B, C).

    Returns:
        Shape: (B, C).
    """
    return F.log_softmax(as_single(logits), dim=-1).logsumexp(0) - math.log(len(logits))


def ensemble_binary_logits(logits: Tensor) -> Tensor:
    """Logits of the mean probability of an ensemble's members, of independent yes/no labels.

    Args:
        logits: Shape: (M, B, C).

    Returns:
        Shape: (B, C).
    """
    logits = as_single(logits)
    return F.logsigmoid(logits).logsumexp(0) - F.logsigmoid(-logits).logsumexp(0)


def gaussian_distillation(
    mean: Tensor, log_variance: Tensor, teacher_mean: Tensor, teacher_log_variance: Tensor
) -> Tensor:
    """``KL(N(m_t, v_t) || N(m_s, v_s))`` per example, in nats: soft labels of a regression.

    ``(log v_s - log v_t + (v_t + (m_s - m_t)^2) / v_s - 1) / 2``. The student learns how sure its
    teacher is, not only the value. The teacher receives no gradient.

    Args:
        mean: ``m_s``. Shape: (B,).
        log_variance: ``log v_s``; bound it before (:func:`posterion.objectives.soft_clamp`).
            Shape: (B,).
        teacher_mean: ``m_t``. Shape: (B,).
        teacher_log_variance: ``log v_t``. Shape: (B,).

    Returns:
        Shape: (B,).
    """
    log_variance = as_single(log_variance)
    target = as_single(teacher_log_variance.detach())
    squared = (as_single(mean) - as_single(teacher_mean.detach())).square()
    ratio = target - log_variance
    # exp(x) - 1 - x without loss where both variances are nearly the same.
    return 0.5 * (ratio.expm1() - ratio + squared * (-log_variance).exp())


def ensemble_gaussian(means: Tensor, log_variances: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and log variance of an ensemble's mixture: the members' own noise and their spread.

    Args:
        means: Shape: (M, B).
        log_variances: Shape: (M, B).

    Returns:
        (B,) and (B,): ``E m`` and ``log(E v + Var m)`` (Lakshminarayanan et al. 2017, section 2.4).
    """
    means, log_variances = as_single(means), as_single(log_variances)
    spread = means.var(dim=0, correction=0)
    return means.mean(0), (log_variances.exp().mean(0) + spread).log()


def check_share(name: str, value: float) -> None:
    """Refuse a share beyond 0 and 1."""
    if not 0 <= value <= 1:
        raise RequestError(f"{name} is {value}; it must lie from 0 to 1")


def _check(student: Tensor, teacher: Tensor, temperature: float) -> None:
    if student.shape != teacher.shape:
        raise RequestError(
            f"student_logits {tuple(student.shape)} and teacher_logits {tuple(teacher.shape)} must "
            "have the same shape; both models need the same classes (words) in the same order"
        )
    if not temperature > 0:
        raise RequestError(f"temperature is {temperature}; it must be above 0, e.g. 2")
