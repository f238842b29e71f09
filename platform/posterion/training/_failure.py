"""What went wrong in a step, said so that somebody can act on it."""

from __future__ import annotations

from collections.abc import Sequence

from posterion._exceptions import WorkError
from posterion.training._course import RowIndices, StepPlan
from posterion.training._divergence import Rollback

_ROWS_NAMED = 10


class Diverged(Exception):
    """A step whose update must not be made; the same on every worker.

    Args:
        problem: What was seen.
        explanation: The error for people, if the run cannot go on.
        bad_data: Whether single rows are to blame, so that going back would not help.
    """

    def __init__(self, problem: str, explanation: WorkError, *, bad_data: bool) -> None:
        super().__init__(problem)
        self.problem = problem
        self.explanation = explanation
        self.bad_data = bad_data


def diverged(
    problem: str,
    plan: StepPlan,
    *,
    learning_rate: float,
    bad_rows: Sequence[int],
    last_checkpoint: int | None,
    rollbacks: Sequence[Rollback] = (),
) -> Diverged:
    """The failure of a step whose loss or gradient left all bounds.

    Args:
        problem: What was seen, e.g. ``the loss is nan``.
        plan: The step.
        learning_rate: Of the step.
        bad_rows: Rows whose own loss is not finite; empty when none is known.
        last_checkpoint: Step of the last checkpoint, which is not affected.
        rollbacks: What was tried before.
    """
    rows = plan.rows
    if len(bad_rows):
        which = (
            f"It comes from {_named(bad_rows)} of the encoded training data; look at their labels"
        )
    else:
        which = f"The step held {_named(rows)} of the encoded training data"
    kept = (
        "No checkpoint was written yet"
        if last_checkpoint is None
        else f"The checkpoint after step {last_checkpoint} is intact"
    )
    tried = "".join(
        f" The run had gone back from step {each.step} to step {each.to_step} at "
        f"{each.learning_rate_factor:g} times the learning rate."
        for each in rollbacks
    )
    explanation = WorkError(
        f"Step {plan.step + 1} (epoch {plan.epoch + 1}) diverged: {problem} at learning rate "
        f"{learning_rate:.3g}. {which}. If they are right, the weights have diverged: use a lower "
        f"optimization.learning_rate, a longer optimization.warmup, a smaller "
        f"optimization.gradient_clipping, or engine.precision fp32. {kept}.{tried}"
    )
    some_only = 0 < len(bad_rows) < len(rows)
    return Diverged(problem, explanation, bad_data=some_only)


def _named(rows: Sequence[int] | RowIndices) -> str:
    first = ", ".join(str(int(row)) for row in rows[:_ROWS_NAMED])
    more = f" and {len(rows) - _ROWS_NAMED} more" if len(rows) > _ROWS_NAMED else ""
    return f"row{'s' if len(rows) > 1 else ''} {first}{more}"
