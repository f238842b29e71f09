"""The training loop."""

from __future__ import annotations

from posterion.training._gang import Gang
from posterion.training._listener import Listener, NullListener
from posterion.training._spec import FitResult, TrainingSpec


def fit(spec: TrainingSpec, gang: Gang, listener: Listener | None = None, *, resume: bool = True) -> FitResult:
    """Train as the recipe says; every worker of the gang calls this with the same spec.

    Raises:
        Interrupted: A signal asked to stop; a checkpoint was written first.
        WorkError: A loss or gradient is not finite, or a checkpoint does not fit.
    """
    raise NotImplementedError
