"""Abstention with a bound on the share of wrong answers.

Shape legend: N examples, M calibration examples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posterion._exceptions import DataError, WorkError
from posterion.metrics import binomial_upper_bound
from posterion.trust._calibration import Calibration

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class SelectiveRiskControl(Calibration):
    """A confidence from which on at most :attr:`risk` of the answers are wrong.

    With probability of at least :attr:`level` over the draw of the calibration part, the
    share of wrong answers among new examples of confidence :attr:`threshold` or more is at
    most :attr:`risk` - whatever the model, the confidence and the distribution, as long as
    calibration and new examples are independent draws of it.

    **How.** Learn then test (Angelopoulos et al. 2021) with the hypotheses "the risk above the
    k-th highest calibration confidence exceeds ``risk``" for some ranks k that are fixed
    before the data is seen. Given that confidence, the m examples strictly above it are
    independent draws of those that would be answered, so that their errors e are
    ``Bin(m, true risk)`` and ``P(Bin(m, risk) <= e)`` is a p-value. It falls below
    ``delta = (1 - level) / ranks`` just when the Clopper-Pearson bound at ``1 - delta`` is
    below ``risk``; Bonferroni over the ranks allows to choose the one that answers most. Ranks
    so high that even no error would not suffice are left out beforehand.
    """

    kind: ClassVar[str] = "selective_risk"

    risk: float
    """Highest share of wrong answers among those given."""
    level: float
    """Probability that the promise holds, over calibration parts."""
    threshold: float | None
    """Lowest confidence that is answered; ``None``: nothing can be promised, answer nothing."""
    bound: float
    """Upper bound of the risk at the threshold, at the level of its own test."""
    answered: float
    """Share of calibration examples answered."""
    num_errors: int
    """Wrong answers among them."""
    num_examples: int
    """M."""

    @classmethod
    def fit(
        cls,
        confidence: ArrayLike,
        right: ArrayLike,
        *,
        risk: float,
        level: float = 0.95,
        num_ranks: int = 20,
    ) -> Self:
        """Choose the threshold on held-out examples.

        Args:
            confidence: Of answers to M examples that neither the model nor the calibration of
                the confidence has seen. Shape: (M,).
            right: Whether the answer is right, 0 or 1. Shape: (M,).
            risk: Highest share of wrong answers, between 0 and 1.
            level: Probability that the promise holds.
            num_ranks: Evenly spaced shares of answered examples that are tried. More are finer,
                but each is tested more strictly.

        Raises:
            DataError: Too few examples to promise anything even without one error.
            WorkError: A confidence is NaN.
            ValueError: Impossible options, shapes that do not fit, or no confidences.
        """
        c, ok = _checked(confidence, right)
        for name, value in (("risk", risk), ("level", level)):
            if not 0.0 < value < 1.0:
                raise ValueError(f"{name} {value} is not between 0 and 1")
        ranks = _ranks(len(c), risk, 1.0 - level, num_ranks)
        descending = np.sort(c)[::-1]
        best, test_level = None, 1.0 - (1.0 - level) / len(ranks)
        for rank in ranks:
            # Rank M + 1 answers everything; else what lies strictly above the rank's value.
            limit = -math.inf if rank > len(c) else float(descending[rank - 1])
            above = c > limit
            errors, number = int((~ok[above]).sum()), int(above.sum())
            bound = binomial_upper_bound(errors, number, level=test_level)
            if bound <= risk and (best is None or number > best[0]):
                best = (number, errors, bound, limit)
        if best is None:
            return cls._nothing(risk, level, len(c))
        number, errors, bound, limit = best
        return cls(
            risk=risk,
            level=level,
            threshold=0.0 if math.isinf(limit) else float(np.nextafter(limit, math.inf)),
            bound=bound,
            answered=number / len(c),
            num_errors=errors,
            num_examples=len(c),
        )

    @classmethod
    def _nothing(cls, risk: float, level: float, num_examples: int) -> Self:
        return cls(
            risk=risk,
            level=level,
            threshold=None,
            bound=1.0,
            answered=0.0,
            num_errors=0,
            num_examples=num_examples,
        )

    @staticmethod
    def minimum_examples(risk: float, level: float = 0.95) -> int:
        """Examples without any error that a promise needs at the least, tested once."""
        return math.ceil(math.log(1.0 - level) / math.log1p(-risk) - 1e-9)

    def answers(self, confidence: ArrayLike) -> NDArray[np.bool_]:
        """Which examples to answer; the others abstain. A NaN abstains. Shape: (N,)."""
        c = np.asarray(confidence, dtype=np.float64)
        if self.threshold is None:
            return np.zeros(c.shape, dtype=np.bool_)
        answered: NDArray[np.bool_] = c >= self.threshold
        return answered

    def check(self) -> None:
        """See :meth:`Calibration.check`."""
        for name in ("risk", "level"):
            if not 0.0 < getattr(self, name) < 1.0:
                raise ValueError(f"{name} {getattr(self, name)} is not between 0 and 1")
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise ValueError(f"threshold {self.threshold} is not finite")
        if self.threshold is not None and not 0.0 <= self.bound <= self.risk:
            raise ValueError(f"bound {self.bound} is not between 0 and the risk {self.risk}")
        if not 0.0 <= self.answered <= 1.0 or self.num_errors < 0 or self.num_examples < 1:
            raise ValueError("answered, num_errors or num_examples is impossible")


def selective_risk_bound(
    confidence: ArrayLike, right: ArrayLike, threshold: float, *, level: float = 0.95
) -> float:
    """Upper bound of the share of wrong answers at a threshold chosen without these examples.

    Clopper-Pearson on the errors among the examples of at least this confidence; 1 when there
    are none. It does not hold for a threshold picked by looking at the same examples: that is
    what :class:`SelectiveRiskControl` is for.

    Raises:
        WorkError: A confidence is NaN.
        ValueError: An impossible level, or shapes that do not fit.
    """
    c, ok = _checked(confidence, right)
    answered = c >= threshold
    return binomial_upper_bound(int((~ok[answered]).sum()), int(answered.sum()), level=level)


def _ranks(num_examples: int, risk: float, delta: float, num_ranks: int) -> list[int]:
    """Ranks to test: with ``m = rank - 1`` examples above, no error must suffice.

    Which ranks these are depends on how many there are, so the shortest are dropped one by one.
    """
    if num_ranks < 1:
        raise ValueError(f"num_ranks {num_ranks} is not positive")
    sizes = sorted({round(num_examples * j / num_ranks) for j in range(1, num_ranks + 1)})
    while sizes and (1.0 - risk) ** sizes[0] > delta / len(sizes):
        sizes.pop(0)
    if not sizes:
        needed = SelectiveRiskControl.minimum_examples(risk, 1.0 - delta)
        raise DataError(
            f"There are {num_examples} examples; at most {risk:g} wrong answers with probability "
            f"{1.0 - delta:g} cannot be promised with fewer than {needed}, even if all are right. "
            "Hold out more, or allow more risk."
        )
    return [size + 1 for size in sizes]


def _checked(confidence: ArrayLike, right: ArrayLike) -> tuple[Array, NDArray[np.bool_]]:
    c, ok = np.asarray(confidence, dtype=np.float64), np.asarray(right)
    if c.ndim != 1 or c.shape != ok.shape:
        raise ValueError(f"confidence {c.shape} and right {ok.shape} must be vectors of one length")
    if np.isnan(c).any():
        row = int(np.flatnonzero(np.isnan(c))[0])
        raise WorkError(
            f"The confidence of example {row + 1} is NaN. The model's weights have diverged, or "
            "its calibration is damaged."
        )
    if ((c < 0.0) | (c > 1.0)).any():
        raise ValueError(f"confidences run from {c.min():g} to {c.max():g}, not within 0 to 1")
    return c, ok.astype(np.bool_)
