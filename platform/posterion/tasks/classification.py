"""Classification: one label for a text, or any number of labels.

Shape legend: N examples, B rows of a batch, S samples of the posterior, C labels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, model_validator

from posterion._exceptions import DataError
from posterion.config import TaskSection, did_you_mean
from posterion.tasks._teaching import ClassTeaching
from posterion.tasks._text import TextTask, describe_rows
from posterion.trust import (
    Calibration,
    ClassCalibration,
    ClassificationDistribution,
    Prediction,
    TemperatureScaling,
    Uncalibrated,
    answer_confidence,
    confidence_figures,
)

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

    from posterion.config import TrustSection
    from posterion.data import TableSchema
    from posterion.trust.posteriors import OutputKind

SEPARATOR = "|"
"""Between the labels of a multi-label row that is given as one text."""
NUM_ALTERNATIVES = 5

Array = NDArray[np.float64]


def _as_text(value: Any) -> Any:
    """Labels may be written as numbers in YAML; ``true`` would be a slip of the pen."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Label = Annotated[str, BeforeValidator(_as_text), Field(min_length=1)]


class ClassificationOptions(TaskSection):
    """Options of the task ``classification``."""

    kind: Literal["classification"] = "classification"
    """The task's name."""
    text: str = "text"
    """Column of the text."""
    label: str = "label"
    """Column of the label; with ``multi_label`` a list, or one text separated by ``|``."""
    labels: list[Label] | None = None
    """All labels, in the order of the model's outputs; those of the training part when absent."""
    multi_label: bool = False
    """Whether a text may have any number of labels, or exactly one."""

    @model_validator(mode="after")
    def _distinct_labels(self) -> Self:
        twice = [label for label, count in Counter(self.labels or ()).items() if count > 1]
        if twice:
            raise ValueError(f"labels come more than once: {', '.join(twice)}")
        if self.labels == []:
            raise ValueError("labels is empty; name them, or leave it out to learn them")
        if self.labels is not None and len(self.labels) < 2 and not self.multi_label:
            raise ValueError(
                f"one label ({self.labels[0]}) leaves nothing to decide; give two at least, or "
                "set multi_label: true for a yes/no question"
            )
        return self


class Classification(TextTask[ClassificationOptions, ClassificationDistribution]):
    """One label (softmax) or a set of labels (a sigmoid each) for a text."""

    kind: ClassVar[str] = "classification"
    Options: ClassVar[type[TaskSection]] = ClassificationOptions
    metric_names: ClassVar[tuple[str, ...]] = (
        "accuracy",
        "macro_f1",
        "micro_f1",
        "auroc",
        "nll",
        "brier",
        "ece",
    )
    calibrations: ClassVar[tuple[str, ...]] = ("temperature",)

    def __init__(
        self, options: ClassificationOptions, state: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(options, state)
        self.metric = "micro_f1" if options.multi_label else "accuracy"
        if not self.state and options.labels is not None:
            self.state = {"labels": list(options.labels)}

    @property
    def labels(self) -> list[str]:
        """All labels, in the order of the outputs."""
        try:
            return list(self.state["labels"])
        except KeyError:
            raise RuntimeError(
                f"the task {self.kind} has not been fitted: call fit first"
            ) from None

    def schema(self) -> TableSchema:
        """See :meth:`Task.schema`."""
        from posterion.data import Column, TableSchema

        allowed = None if self.options.labels is None else tuple(self.options.labels)
        if self.options.multi_label:
            label = Column(
                self.options.label,
                "strings",
                allow_empty=True,
                allowed=allowed,
                description="labels",
            )
        else:
            label = Column(self.options.label, "string", allowed=allowed, description="label")
        return TableSchema(
            [Column(self.options.text, "string", description="text to judge"), label]
        )

    @property
    def target_column(self) -> str:
        """See :attr:`Task.target_column`."""
        return self.options.label

    @property
    def num_outputs(self) -> int:
        """See :attr:`Task.num_outputs`."""
        return len(self.labels)

    @property
    def output_kind(self) -> OutputKind:
        """See :attr:`Task.output_kind`."""
        return "multi_label" if self.options.multi_label else "categorical"

    def fit(self, train_table: pa.Table) -> None:
        """Learn the label set where the options do not give it; see :meth:`Task.fit`."""
        found = {label for labels in self._label_sets(train_table) for label in labels}
        given = self.options.labels
        names = list(given) if given is not None else sorted(found, key=_natural_order)
        needed = 1 if self.options.multi_label else 2
        if len(found) < needed:
            seen = f" ({next(iter(found))!r})" if found else ""
            raise DataError(
                f"Column {self.options.label!r} has {len(found)} label{seen} in "
                f"{train_table.num_rows} training rows; at least {needed} are needed to learn "
                "anything. Check the column and the split."
            )
        self.state = {"labels": names}
        self._indices(train_table)

    def label_columns(self, table: pa.Table) -> dict[str, pa.Array]:
        """See :meth:`TextTask.label_columns`: ``label`` holds indices."""
        import pyarrow as pa

        indices = self._indices(table)
        if self.options.multi_label:
            return {"label": pa.array(indices, type=pa.list_(pa.int32()))}
        return {"label": pa.array([index[0] for index in indices], type=pa.int32())}

    def label_tensors(self, rows: pa.Table) -> dict[str, Tensor]:
        """``label``: indices (B,), or 0/1 (B, C) for multi-label."""
        import torch

        values = rows.column("label").to_pylist()
        if self.options.multi_label:
            return {"label": torch.from_numpy(self._indicators(values).astype(np.float32))}
        return {"label": torch.tensor(values, dtype=torch.long)}

    def loss(self, logits: Tensor, labels: Mapping[str, Tensor]) -> Tensor:
        """See :meth:`Task.loss`."""
        from posterion.objectives import binary_cross_entropy, cross_entropy

        function = binary_cross_entropy if self.options.multi_label else cross_entropy
        return function(logits, labels["label"])

    def teaching(self) -> ClassTeaching:
        """See :meth:`Task.teaching`."""
        return ClassTeaching(self)

    def distribution(self, logits: NDArray[np.floating[Any]]) -> ClassificationDistribution:
        """See :meth:`Task.distribution`."""
        from scipy.special import expit, softmax

        values = np.asarray(logits, dtype=np.float64)
        multi_label = self.options.multi_label
        # A diverged model's NaN passes through; whoever uses the distribution refuses it.
        with np.errstate(invalid="ignore"):
            probabilities = expit(values) if multi_label else softmax(values, axis=-1)
        return ClassificationDistribution(probabilities, multi_label)

    def evaluate(
        self, distribution: ClassificationDistribution, table: pa.Table
    ) -> dict[str, float]:
        """See :meth:`Task.evaluate`; ``accuracy`` of multi-label is that of whole sets."""
        from posterion import metrics

        distribution.require_finite()
        truth, probabilities = self._truth(table), distribution.mean
        answers = self._answers(distribution)
        right = self._right(distribution, truth)
        confidence = answer_confidence(probabilities, self.options.multi_label)
        likelihood = metrics.multi_label_nll if self.options.multi_label else metrics.nll
        num_classes = distribution.num_classes
        figures = {
            "accuracy": float(right.mean()),
            "macro_f1": metrics.macro_f1(truth, answers, num_classes),
            "micro_f1": metrics.micro_f1(truth, answers, num_classes),
            "auroc": metrics.auroc(truth, probabilities),
            "nll": likelihood(truth, probabilities),
            "brier": metrics.brier(truth, probabilities),
            "ece": metrics.ece(confidence, right),
        }
        return {name: value for name, value in figures.items() if np.isfinite(value)}

    def fit_calibration(
        self, distribution: ClassificationDistribution, table: pa.Table, trust: TrustSection
    ) -> Calibration:
        """Temperature scaling; see :meth:`Task.fit_calibration`."""
        distribution.require_finite()
        if trust.calibration == "none":
            return self.uncalibrated("The recipe asks for none (trust.calibration: none).")
        truth = self._truth(table)
        try:
            return TemperatureScaling.fit(distribution, truth)
        except DataError as error:
            return self.uncalibrated(str(error))

    def uncalibrated(self, reason: str, trust: TrustSection | None = None) -> Uncalibrated:
        """See :meth:`Task.uncalibrated`."""
        return Uncalibrated(reason=reason)

    def predictions(
        self,
        distribution: ClassificationDistribution,
        calibration: Calibration,
        *,
        model_name: str = "",
        abstain_below: float = 0.0,
    ) -> list[Prediction]:
        """See :meth:`Task.predictions`; answers are a label, or a list of labels."""
        probabilities, confidences = self._calibrated(distribution, calibration)
        answers = self._answers(distribution)
        aleatoric, epistemic = distribution.uncertainty()
        return [
            Prediction(
                answer=self._decode(answers[row]),
                confidence=float(confidences[row]),
                abstained=bool(confidences[row] < abstain_below),
                calibrated=calibration.calibrated,
                alternatives=self._alternatives(probabilities[row], answers[row]),
                uncertainty={
                    "aleatoric": float(aleatoric[row]),
                    "epistemic": float(epistemic[row]),
                },
                model=model_name,
            )
            for row in range(len(distribution))
        ]

    def evaluate_trust(
        self,
        distribution: ClassificationDistribution,
        table: pa.Table,
        calibration: Calibration,
    ) -> dict[str, float]:
        """See :meth:`Task.evaluate_trust`."""
        _, confidence = self._calibrated(distribution, calibration)
        return confidence_figures(confidence, self._right(distribution, self._truth(table)))

    def pictures(
        self,
        distribution: ClassificationDistribution,
        table: pa.Table,
        calibration: Calibration,
        out_dir: Path,
    ) -> list[Path]:
        """``reliability.png`` and ``risk_coverage.png``; see :meth:`Task.pictures`."""
        from posterion.trust import confidence_pictures

        _, confidence = self._calibrated(distribution, calibration)
        right = self._right(distribution, self._truth(table))
        title = "The whole label set is right" if self.options.multi_label else "The label is right"
        return confidence_pictures(out_dir, confidence, right, title=title)

    def prediction_columns(
        self, distribution: ClassificationDistribution, calibration: Calibration
    ) -> dict[str, Any]:
        """See :meth:`Task.prediction_columns`."""
        probabilities, confidence = self._calibrated(distribution, calibration)
        return {
            "prediction": [self._decode(answer) for answer in self._answers(distribution)],
            "confidence": confidence,
            "probabilities": probabilities.tolist(),
        }

    def answer_schema(self) -> dict[str, Any]:
        """See :meth:`Task.answer_schema`."""
        label = {"type": "string", "enum": self.labels}
        if self.options.multi_label:
            return {"type": "array", "items": label, "uniqueItems": True}
        return label

    # -- parts --------------------------------------------------------------------------

    def _label_sets(self, table: pa.Table) -> list[list[str]]:
        """Labels of every row as texts."""
        column = self.options.label
        values = table.column(column).to_pylist()
        missing = [row for row, value in enumerate(values) if value is None]
        if missing:
            raise DataError(f"Column {column!r} has no label in {describe_rows(missing)}.")
        if not self.options.multi_label:
            return [[str(value)] for value in values]
        return [_split_labels(value) for value in values]

    def _indices(self, table: pa.Table) -> list[list[int]]:
        """Output indices of the labels of every row."""
        names = self.labels
        index = {label: number for number, label in enumerate(names)}
        label_sets = self._label_sets(table)
        unknown = [row for row, labels in enumerate(label_sets) if not index.keys() >= set(labels)]
        if unknown:
            label = next(label for label in label_sets[unknown[0]] if label not in index)
            shown = ", ".join(names[:20]) + (
                f", ... ({len(names)} in all)" if len(names) > 20 else ""
            )
            raise DataError(
                f"Column {self.options.label!r} has labels outside the set in "
                f"{describe_rows(unknown)}; the first is {label!r}. Allowed are {shown}."
                f"{did_you_mean(label, names)}"
            )
        return [sorted({index[label] for label in labels}) for labels in label_sets]

    def _indicators(self, indices: Sequence[Sequence[int]]) -> NDArray[np.int64]:
        """0/1 per label. Shape: (N, C)."""
        indicators = np.zeros((len(indices), self.num_outputs), dtype=np.int64)
        for row, columns in enumerate(indices):
            indicators[row, list(columns)] = 1
        return indicators

    def _truth(self, table: pa.Table) -> NDArray[np.int64]:
        """Class indices (N,), or 0/1 (N, C) for multi-label."""
        indices = self._indices(table)
        if self.options.multi_label:
            return self._indicators(indices)
        return np.array([index[0] for index in indices], dtype=np.int64)

    def _answers(self, distribution: ClassificationDistribution) -> NDArray[np.int64]:
        """The model's decisions, in the form of :meth:`_truth`; calibration cannot move them."""
        if self.options.multi_label:
            return np.asarray(distribution.mean >= 0.5, dtype=np.int64)
        return np.asarray(distribution.mean.argmax(axis=1), dtype=np.int64)

    def _right(
        self, distribution: ClassificationDistribution, truth: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        same: NDArray[np.bool_] = np.equal(self._answers(distribution), truth)
        return np.all(same, axis=1) if self.options.multi_label else same

    def _calibrated(
        self, distribution: ClassificationDistribution, calibration: Calibration
    ) -> tuple[Array, Array]:
        """Probabilities (N, C) and confidence in the answer (N,)."""
        if isinstance(calibration, ClassCalibration):
            return calibration.probabilities(distribution), calibration.confidence(distribution)
        probabilities = distribution.mean
        return probabilities, answer_confidence(probabilities, self.options.multi_label)

    def _decode(self, answer: Any) -> str | list[str]:
        names = self.labels
        if self.options.multi_label:
            return [names[index] for index in np.flatnonzero(answer)]
        return names[int(answer)]

    def _alternatives(self, probabilities: Array, answer: Any) -> list[dict[str, Any]]:
        """The likeliest other labels; of multi-label the likeliest, chosen ones included."""
        names = self.labels
        order = np.argsort(-probabilities, kind="stable")
        if not self.options.multi_label:
            order = order[order != int(answer)]
        return [
            {"answer": names[index], "confidence": float(probabilities[index])}
            for index in order[:NUM_ALTERNATIVES]
        ]


def _split_labels(value: Any) -> list[str]:
    if isinstance(value, str):
        return [label.strip() for label in value.split(SEPARATOR) if label.strip()]
    if isinstance(value, list | tuple):
        return [str(label) for label in value]
    return [str(value)]


def _natural_order(label: str) -> tuple[int, int, str]:
    """Numbers by value, before all else by spelling."""
    is_number = label.removeprefix("-").isdecimal()
    return (0, int(label), label) if is_number else (1, 0, label)
