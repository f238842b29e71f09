"""Regression: a number for a text, with the raters' spread where it is known.

Shape legend: N examples, B rows of a batch, S samples of the posterior, O outputs (2 with
the Gaussian likelihood: mean and log-variance; 1 with squared error).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from posterion._exceptions import DataError
from posterion.config import TaskSection
from posterion.tasks._teaching import ValueTeaching
from posterion.tasks._text import TextTask, describe_rows
from posterion.trust import (
    Calibration,
    ConformalRegression,
    Prediction,
    RegressionDistribution,
    Uncalibrated,
    confidence_figures,
    gaussian_within,
)

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

    from posterion.config import TrustSection
    from posterion.data import TableSchema
    from posterion.trust.posteriors import OutputKind

LOG_VARIANCE_BOUNDS = (-9.0, 4.0)
"""Bounds of the predicted log-variance in standardised units: sigma from 0.011 to 7.4 of the
target's standard deviation. Beyond them the likelihood of a single example could outweigh
all others."""

Array = NDArray[np.float64]


class RegressionOptions(TaskSection):
    """Options of the task ``regression``."""

    kind: Literal["regression"] = "regression"
    """The task's name."""
    text: str = "text"
    """Column of the text."""
    target: str = "target"
    """Column of the number to predict."""
    standard_error: str | None = None
    """Column of the standard error of the target (raters' spread over the root of their
    number); enters the Gaussian likelihood as known noise."""
    likelihood: Literal["gaussian", "squared_error"] = "gaussian"
    """``gaussian``: the model predicts a mean and a variance per text. ``squared_error``: a
    mean only; the variance is measured on the calibration part and the same for all texts."""


class Regression(TextTask[RegressionOptions, RegressionDistribution]):
    """A number for a text: ``y_i ~ N(mu(x_i), sigma^2(x_i) + se_i^2)``.

    The head works in standardised units, ``(y - mean) / std`` of the training part; state
    holds both, so that distributions come out in the target's own units.
    """

    kind: ClassVar[str] = "regression"
    Options: ClassVar[type[TaskSection]] = RegressionOptions
    metric = "rmse"
    metric_names: ClassVar[tuple[str, ...]] = (
        "rmse",
        "mae",
        "r2",
        "pearson",
        "spearman",
        "nll",
        "crps",
    )
    calibrations: ClassVar[tuple[str, ...]] = ("conformal",)

    def schema(self) -> TableSchema:
        """See :meth:`Task.schema`."""
        from posterion.data import Column, TableSchema

        columns = [
            Column(self.options.text, "string", description="text to judge"),
            Column(self.options.target, "float", description="number to predict"),
        ]
        if self.options.standard_error is not None:
            description = "standard error of the target"
            columns.append(
                Column(self.options.standard_error, "float", minimum=0.0, description=description)
            )
        return TableSchema(columns)

    @property
    def target_column(self) -> str:
        """See :attr:`Task.target_column`."""
        return self.options.target

    @property
    def num_outputs(self) -> int:
        """See :attr:`Task.num_outputs`."""
        return 2 if self.options.likelihood == "gaussian" else 1

    @property
    def output_kind(self) -> OutputKind:
        """See :attr:`Task.output_kind`."""
        return self.options.likelihood

    def fit(self, train_table: pa.Table) -> None:
        """Learn the target's mean and standard deviation; see :meth:`Task.fit`."""
        target = self._targets(train_table)
        mean, std = (float(target.mean()), float(target.std())) if len(target) else (0.0, 0.0)
        # A constant column of e.g. 0.1 has a standard deviation of rounding errors, not of 0.
        if std <= 1e-12 * max(1.0, abs(mean)):
            value = f" (it is {target[0]:g})" if len(target) else ""
            raise DataError(
                f"Column {self.options.target!r} has the same value in all {len(target)} training "
                f"rows{value}; there is nothing to learn. Check the column and the split."
            )
        self.state = {"mean": mean, "std": std}

    def label_columns(self, table: pa.Table) -> dict[str, pa.Array]:
        """See :meth:`TextTask.label_columns`."""
        import pyarrow as pa

        columns = {"target": pa.array(self._targets(table))}
        if self.options.standard_error is not None:
            columns["standard_error"] = pa.array(self._standard_errors(table))
        return columns

    def label_tensors(self, rows: pa.Table) -> dict[str, Tensor]:
        """Standardised ``target`` (B,) and, where given, ``standard_error`` (B,), fp32."""
        import torch

        mean, std = self.moments
        target = (rows.column("target").to_numpy() - mean) / std
        tensors = {"target": torch.from_numpy(target.astype(np.float32))}
        if "standard_error" in rows.column_names:
            error = rows.column("standard_error").to_numpy() / std
            tensors["standard_error"] = torch.from_numpy(error.astype(np.float32))
        return tensors

    def loss(self, logits: Tensor, labels: Mapping[str, Tensor]) -> Tensor:
        """See :meth:`Task.loss`."""
        from posterion.objectives import gaussian_nll, squared_error

        mean = logits[:, 0]
        if self.options.likelihood == "squared_error":
            return squared_error(mean, labels["target"])
        log_variance = self.log_variance(logits)
        return gaussian_nll(mean, log_variance, labels["target"], labels.get("standard_error"))

    def log_variance(self, logits: Tensor) -> Tensor:
        """Of the Gaussian likelihood, standardised, within bounds. Shapes: (B, 2) -> (B,)."""
        from posterion.objectives import soft_clamp

        return soft_clamp(logits[:, 1].float(), *LOG_VARIANCE_BOUNDS)

    def teaching(self) -> ValueTeaching:
        """See :meth:`Task.teaching`."""
        return ValueTeaching(self)

    def distribution(self, logits: NDArray[np.floating[Any]]) -> RegressionDistribution:
        """See :meth:`Task.distribution`.

        With squared error the aleatoric variance is the target's own, the most a model can
        be wrong that has learned nothing; calibration replaces it by the measured one.
        """
        mean, std = self.moments
        values = np.asarray(logits, dtype=np.float64)
        means = values[..., 0] * std + mean
        if self.options.likelihood == "gaussian":
            variances = np.exp(_soft_clamp(values[..., 1])) * std**2
        else:
            variances = np.full_like(means, std**2)
        # A diverged model's infinities pass through; whoever uses the distribution refuses them.
        with np.errstate(invalid="ignore"):
            epistemic = means.var(axis=0)
        return RegressionDistribution(
            mean=means.mean(axis=0), aleatoric=variances.mean(axis=0), epistemic=epistemic
        )

    def evaluate(self, distribution: RegressionDistribution, table: pa.Table) -> dict[str, float]:
        """See :meth:`Task.evaluate`; likelihoods include the raters' noise where it is known."""
        from posterion import metrics

        distribution.require_finite()
        target, mean = self._targets(table), distribution.mean
        scale = distribution.scale
        if self.options.standard_error is not None:
            scale = np.hypot(scale, self._standard_errors(table))
        figures = {
            "rmse": metrics.rmse(target, mean),
            "mae": metrics.mae(target, mean),
            "r2": metrics.r2(target, mean),
            "pearson": metrics.pearson(target, mean),
            "spearman": metrics.spearman(target, mean),
            "nll": metrics.gaussian_nll(target, mean, scale),
            "crps": metrics.crps_gaussian(target, mean, scale),
        }
        return {name: value for name, value in figures.items() if np.isfinite(value)}

    def fit_calibration(
        self, distribution: RegressionDistribution, table: pa.Table, trust: TrustSection
    ) -> Calibration:
        """Split conformal; see :meth:`Task.fit_calibration`."""
        distribution.require_finite()
        needed = ConformalRegression.minimum_examples(trust.coverage)
        if trust.calibration == "none":
            return self.uncalibrated("The recipe asks for none (trust.calibration: none).", trust)
        if len(distribution) < needed:
            return self.uncalibrated(
                f"The calibration part has {len(distribution)} examples; intervals of coverage "
                f"{trust.coverage:g} need at least {needed}.",
                trust,
            )
        return ConformalRegression.fit(
            distribution,
            self._targets(table),
            coverage=trust.coverage,
            tolerance=self._tolerance(trust),
        )

    def uncalibrated(self, reason: str, trust: TrustSection | None = None) -> Uncalibrated:
        """See :meth:`Task.uncalibrated`."""
        return Uncalibrated(reason=reason, tolerance=self._tolerance(trust))

    def predictions(
        self,
        distribution: RegressionDistribution,
        calibration: Calibration,
        *,
        model_name: str = "",
        abstain_below: float = 0.0,
    ) -> list[Prediction]:
        """See :meth:`Task.predictions`; answers are numbers in the target's units."""
        confidences = self._confidence(distribution, calibration)
        intervals = self._interval(distribution, calibration)
        factor = self._variance_factor(calibration)
        aleatoric = np.sqrt(distribution.aleatoric * factor)
        epistemic = np.sqrt(distribution.epistemic * factor)
        return [
            Prediction(
                answer=float(distribution.mean[row]),
                confidence=float(confidences[row]),
                abstained=bool(confidences[row] < abstain_below),
                calibrated=calibration.calibrated,
                interval=None
                if intervals is None
                else (float(intervals[row, 0]), float(intervals[row, 1])),
                uncertainty={
                    "aleatoric": float(aleatoric[row]),
                    "epistemic": float(epistemic[row]),
                },
                model=model_name,
            )
            for row in range(len(distribution))
        ]

    def evaluate_trust(
        self, distribution: RegressionDistribution, table: pa.Table, calibration: Calibration
    ) -> dict[str, float]:
        """See :meth:`Task.evaluate_trust`."""
        from posterion import metrics

        target = self._targets(table)
        confidence = self._confidence(distribution, calibration)
        right = self._right(distribution, target, calibration)
        figures = confidence_figures(confidence, right)
        intervals = self._interval(distribution, calibration)
        if intervals is not None:
            lower, upper = intervals.T
            figures["coverage"] = metrics.coverage(target, lower, upper)
            figures["interval_width"] = metrics.interval_width(lower, upper)
        return figures

    def pictures(
        self,
        distribution: RegressionDistribution,
        table: pa.Table,
        calibration: Calibration,
        out_dir: Path,
    ) -> list[Path]:
        """Reliability, risk, coverage of intervals, residuals; see :meth:`Task.pictures`."""
        from posterion import metrics, trust

        target = self._targets(table)
        error = np.abs(target - distribution.mean)
        bounds, reached = self._interval(distribution, calibration), None
        levels = gaussian_within(distribution, error)
        if isinstance(calibration, ConformalRegression) and bounds is not None:
            reached = (calibration.coverage, metrics.coverage(target, *bounds.T))
            levels = calibration.probability_within(distribution, error)
        tolerance = self._tolerance_of(calibration)
        return [
            *trust.confidence_pictures(
                out_dir,
                self._confidence(distribution, calibration),
                self._right(distribution, target, calibration),
                title=f"Within {tolerance:.3g} of the observed value",
            ),
            trust.coverage_diagram(out_dir / "coverage.png", levels, intervals=reached),
            trust.residual_diagram(
                out_dir / "residuals.png", target, distribution.mean, interval=bounds
            ),
        ]

    def prediction_columns(
        self, distribution: RegressionDistribution, calibration: Calibration
    ) -> dict[str, Any]:
        """See :meth:`Task.prediction_columns`."""
        columns = {
            "prediction": distribution.mean,
            "aleatoric_variance": distribution.aleatoric,
            "epistemic_variance": distribution.epistemic,
            "confidence": self._confidence(distribution, calibration),
        }
        intervals = self._interval(distribution, calibration)
        if intervals is not None:
            columns |= {"lower": intervals[:, 0], "upper": intervals[:, 1]}
        return columns

    def answer_schema(self) -> dict[str, Any]:
        """See :meth:`Task.answer_schema`."""
        return {"type": "number", "description": f"{self.options.target}, in its own units"}

    # -- parts --------------------------------------------------------------------------

    @property
    def moments(self) -> tuple[float, float]:
        """The target's mean and standard deviation in the training part."""
        try:
            return float(self.state["mean"]), float(self.state["std"])
        except KeyError:
            raise RuntimeError(
                f"the task {self.kind} has not been fitted: call fit first"
            ) from None

    def _tolerance(self, trust: TrustSection | None) -> float:
        given = None if trust is None else trust.tolerance
        return 0.5 * self.moments[1] if given is None else given

    def _tolerance_of(self, calibration: Calibration) -> float:
        if isinstance(calibration, ConformalRegression):
            return calibration.tolerance
        tolerance = calibration.tolerance if isinstance(calibration, Uncalibrated) else None
        return self._tolerance(None) if tolerance is None else tolerance

    def _right(
        self, distribution: RegressionDistribution, target: Array, calibration: Calibration
    ) -> NDArray[np.bool_]:
        right: NDArray[np.bool_] = np.abs(target - distribution.mean) <= self._tolerance_of(
            calibration
        )
        return right

    def _confidence(self, distribution: RegressionDistribution, calibration: Calibration) -> Array:
        if isinstance(calibration, ConformalRegression):
            return calibration.confidence(distribution)
        return gaussian_within(distribution, self._tolerance_of(calibration))

    @staticmethod
    def _interval(distribution: RegressionDistribution, calibration: Calibration) -> Array | None:
        if isinstance(calibration, ConformalRegression):
            return calibration.interval(distribution)
        return None

    @staticmethod
    def _variance_factor(calibration: Calibration) -> float:
        return calibration.variance_factor if isinstance(calibration, ConformalRegression) else 1.0

    def _targets(self, table: pa.Table) -> Array:
        return self._numbers(table, self.options.target)

    def _standard_errors(self, table: pa.Table) -> Array:
        return self._numbers(table, str(self.options.standard_error))

    @staticmethod
    def _numbers(table: pa.Table, column: str) -> Array:
        import pyarrow as pa

        values = table.column(column).cast(pa.float64()).to_numpy()
        numbers: Array = np.array(values, dtype=np.float64)
        bad = np.flatnonzero(~np.isfinite(numbers)).tolist()
        if bad:
            raise DataError(
                f"Column {column!r} is missing, NaN or infinite in {describe_rows(bad)}; every "
                "row needs a number."
            )
        return numbers


def _soft_clamp(values: Array) -> Array:
    """:func:`posterion.objectives.soft_clamp` on arrays, with this task's bounds."""
    minimum, maximum = LOG_VARIANCE_BOUNDS
    # A diverged model's NaN passes through; whoever uses the distribution refuses it by name.
    with np.errstate(invalid="ignore"):
        values = maximum - np.logaddexp(0.0, maximum - values)
        clamped: Array = minimum + np.logaddexp(0.0, values - minimum)
    return clamped
