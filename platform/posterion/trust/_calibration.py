"""What every calibration is: fitted on held-out examples, kept as JSON."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from posterion._exceptions import ArtifactError

_KINDS: dict[str, type[Calibration]] = {}


class Calibration(ABC):
    """Turns a distribution's own idea of its certainty into a measured one.

    Subclasses are frozen dataclasses of plain numbers, strings and lists; they register
    themselves by :attr:`kind`.
    """

    kind: ClassVar[str]
    """Name in ``calibration.json``."""
    calibrated: ClassVar[bool] = True
    """Whether confidences were fitted on held-out examples."""

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        _KINDS[cls.kind] = cls

    def to_json(self) -> dict[str, Any]:
        """All numbers of the calibration, with its kind."""
        return {"kind": self.kind, **asdict(self)}  # type: ignore[call-overload]

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Calibration:
        """Read what :meth:`to_json` wrote.

        Raises:
            ArtifactError: Unknown kind, or fields that do not belong to it.
        """
        fields = dict(values)
        kind = fields.pop("kind", None)
        if kind not in _KINDS:
            raise ArtifactError(
                f"calibration.json has kind {kind!r}; known kinds are {', '.join(sorted(_KINDS))}."
            )
        try:
            calibration = _KINDS[kind](**fields)
            calibration.check()
        except (TypeError, ValueError) as error:
            raise ArtifactError(
                f"calibration.json does not fit its kind {kind!r}: {error}."
            ) from error
        return calibration

    @abstractmethod
    def check(self) -> None:
        """Refuse impossible numbers.

        Raises:
            ValueError: Says which.
        """


@dataclass(frozen=True, kw_only=True)
class Uncalibrated(Calibration):
    """No calibration; confidences are the model's own and marked as such."""

    kind: ClassVar[str] = "none"
    calibrated: ClassVar[bool] = False

    reason: str
    """Why there is none."""
    tolerance: float | None = None
    """Regression: distance within which an answer counts as right."""

    def check(self) -> None:
        """See :meth:`Calibration.check`."""
        if self.tolerance is not None and not (
            math.isfinite(self.tolerance) and self.tolerance > 0
        ):
            raise ValueError(f"tolerance {self.tolerance} is not a positive number")
