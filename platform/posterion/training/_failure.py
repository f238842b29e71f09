"""What went wrong in a step, said so that somebody can act on it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from posterion._exceptions import WorkError
from posterion.training._course import RowIndices, StepPlan

_ROWS_NAMED = 10


def non_finite(
    what: str,
    plan: StepPlan,
    *,
    value: float,
    learning_rate: float,
    bad_rows: Sequence[int] | RowIndices,
    last_checkpoint: int | None,
) -> WorkError:
    """The error for a loss or gradient that is NaN or infinite.

    Args:
        what: ``loss`` or ``gradient norm``.
        plan: The step.
        value: What was computed.
        learning_rate: Of the step.
        bad_rows: Examples whose own loss is not finite; empty when none is.
        last_checkpoint: Step of the last checkpoint, which is not affected.
    """
    rows = np.concatenate([micro for rank in plan.rows for micro in rank])
    if len(bad_rows):
        which = (
            f"It comes from {_named(bad_rows)} of the encoded training data; look at their labels"
        )
    else:
        which = (
            f"Every example's own loss is finite; the step held {_named(rows)} of the encoded "
            "training data"
        )
    kept = (
        "No checkpoint was written yet"
        if last_checkpoint is None
        else f"The checkpoint after step {last_checkpoint} is intact"
    )
    return WorkError(
        f"The {what} of step {plan.step + 1} (epoch {plan.epoch + 1}) is {value} at learning rate "
        f"{learning_rate:.3g}. {which}. If they are right, the weights have diverged: use a lower "
        f"optimization.learning_rate, a longer optimization.warmup, a smaller "
        f"optimization.gradient_clipping, or engine.precision fp32. {kept}."
    )


def _named(rows: Sequence[int] | RowIndices) -> str:
    first = ", ".join(str(int(row)) for row in rows[:_ROWS_NAMED])
    more = f" and {len(rows) - _ROWS_NAMED} more" if len(rows) > _ROWS_NAMED else ""
    return f"row{'s' if len(rows) > 1 else ''} {first}{more}"
