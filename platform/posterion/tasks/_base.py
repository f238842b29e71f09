"""The protocol of tasks.

Shape legend: N examples, W windows (a long text has several), B rows of a batch, S samples
of the posterior, O outputs of the head.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from posterion._exceptions import RequestError
from posterion.config import TaskSection

if TYPE_CHECKING:
    import pyarrow as pa
    import pydantic
    from torch import Tensor

    from posterion.config import TrustSection
    from posterion.data import TableSchema
    from posterion.tasks._teaching import Teaching
    from posterion.text import Tokenizer
    from posterion.trust import Calibration, Prediction
    from posterion.trust.posteriors import OutputKind


class AnyDistribution(Protocol):
    """What every task's distribution can do, whatever it is made of."""

    def __len__(self) -> int:
        """Number of examples."""
        ...

    def take(self, indices: NDArray[np.intp]) -> Self:
        """The distributions of some of the examples."""
        ...

    def require_finite(self) -> None:
        """Raise WorkError when the model gave NaN."""
        ...


OptionsT = TypeVar("OptionsT", bound=TaskSection)
DistributionT = TypeVar("DistributionT", bound=AnyDistribution)


class Task(ABC, Generic[OptionsT, DistributionT]):
    """What a problem is: schema, encoding, loss, decoding, metric, trust.

    A task holds its options (from the recipe) and its state (what it learned from the
    training part, e.g. the label set); both are JSON and travel with the model. It knows no
    model, no cluster and no server.
    """

    kind: ClassVar[str]
    """Name in recipes."""
    Options: ClassVar[type[TaskSection]]
    """The recipe's ``task`` section; ``kind`` is a ``Literal`` of this task's name."""
    metric: str
    """Metric that chooses the best checkpoint unless the recipe names another."""
    metric_names: ClassVar[tuple[str, ...]]
    """Everything :meth:`evaluate` may report."""
    calibrations: ClassVar[tuple[str, ...]]
    """Values of ``trust.calibration`` that make sense here, beside ``auto`` and ``none``."""

    def __init__(self, options: OptionsT, state: Mapping[str, Any] | None = None) -> None:
        self.options = options
        self.state: dict[str, Any] = dict(state or {})

    @property
    def greater_is_better(self) -> bool:
        """Direction of :attr:`metric`."""
        return self.direction(self.metric)

    @classmethod
    def direction(cls, metric: str) -> bool:
        """Whether more of a metric is better."""
        from posterion.metrics import greater_is_better

        return greater_is_better(metric)

    # -- data ---------------------------------------------------------------------------

    @abstractmethod
    def schema(self) -> TableSchema:
        """Columns of training data."""

    @property
    @abstractmethod
    def input_columns(self) -> list[str]:
        """Columns an example must have to be answered."""

    @property
    @abstractmethod
    def target_column(self) -> str:
        """Column of the right answer; splits are stratified by it."""

    @property
    def key_columns(self) -> list[str]:
        """Columns whose equality makes two rows the same example for leak-free splits."""
        return self.input_columns

    @abstractmethod
    def fit(self, train_table: pa.Table) -> None:
        """Learn :attr:`state` (label set, target's mean and spread) from the training part.

        Raises:
            DataError: Nothing can be learned from it (constant target, one label only).
        """

    @property
    @abstractmethod
    def num_outputs(self) -> int:
        """O; may need :meth:`fit` or a state."""

    @property
    def output_kind(self) -> OutputKind:
        """What the head's outputs are, for posteriors in closed form.

        Raises:
            RequestError: Nothing that there is a closed form for.
        """
        raise RequestError(
            f"There is no closed form for the outputs of the task {self.kind}; choose another "
            "trust.posterior than laplace."
        )

    @abstractmethod
    def encode(
        self, table: pa.Table, tokenizer: Tokenizer, max_length: int, *, labelled: bool = True
    ) -> pa.Table:
        """Tokens and labels of every window.

        Args:
            table: Rows that fit :meth:`schema`; without labels only the input columns.
            tokenizer: The model's tokenizer.
            max_length: Tokens per window, special tokens included. Longer texts become
                windows that overlap by a quarter.
            labelled: Whether to add the label columns.

        Returns:
            Columns ``example`` (row of ``table``), ``input_ids``, ``length``, ``weight``
            (one over the example's number of windows) and the label columns.

        Raises:
            DataError: Labels outside the set, empty texts; names the rows.
        """

    # -- learning -----------------------------------------------------------------------

    @abstractmethod
    def label_tensors(self, rows: pa.Table) -> dict[str, Tensor]:
        """The label columns of encoded rows as tensors of B rows."""

    @abstractmethod
    def loss(self, logits: Tensor, labels: Mapping[str, Tensor]) -> Tensor:
        """Loss per row in fp32. Shapes: (B, O) -> (B,)."""

    def teaching(self) -> Teaching:
        """How a student of this task learns from its teachers' answers.

        Raises:
            RequestError: This task cannot be distilled.
        """
        raise RequestError(
            f"Models of the task {self.kind!r} cannot be distilled: nothing says how a student "
            "learns from their answers (Task.teaching). Fine-tune the student instead."
        )

    # -- answering ----------------------------------------------------------------------

    @abstractmethod
    def distribution(self, logits: NDArray[np.floating[Any]]) -> DistributionT:
        """What the model believes, in the target's own units. Logits' shape: (S, N, O)."""

    @abstractmethod
    def evaluate(self, distribution: DistributionT, table: pa.Table) -> dict[str, float]:
        """Metrics against the right answers of ``table``.

        Metrics that are not defined (the correlation of a constant) are left out.

        Raises:
            WorkError: The distribution holds NaN.
        """

    @abstractmethod
    def fit_calibration(
        self, distribution: DistributionT, table: pa.Table, trust: TrustSection
    ) -> Calibration:
        """Fit on held-out rows; :class:`~posterion.trust.Uncalibrated` says why it could not.

        Raises:
            WorkError: The distribution holds NaN.
        """

    @abstractmethod
    def uncalibrated(self, reason: str, trust: TrustSection | None = None) -> Calibration:
        """The calibration of a model for which none can be fitted (no held-out rows)."""

    @abstractmethod
    def predictions(
        self,
        distribution: DistributionT,
        calibration: Calibration,
        *,
        model_name: str = "",
        abstain_below: float = 0.0,
    ) -> list[Prediction]:
        """One prediction per example."""

    @abstractmethod
    def evaluate_trust(
        self, distribution: DistributionT, table: pa.Table, calibration: Calibration
    ) -> dict[str, float]:
        """How far confidences and intervals hold on ``table``.

        Use rows that calibrated nothing. Gives ``mean_confidence``, ``right`` (share of right
        answers), ``confidence_ece`` and for regression ``coverage`` and ``interval_width``.
        """

    @abstractmethod
    def pictures(
        self,
        distribution: DistributionT,
        table: pa.Table,
        calibration: Calibration,
        out_dir: Path,
    ) -> list[Path]:
        """Draw reliability and errors as PNG files into ``out_dir``."""

    @abstractmethod
    def prediction_columns(
        self, distribution: DistributionT, calibration: Calibration
    ) -> dict[str, Any]:
        """Columns of ``predictions.parquet`` beside the input's: answers and distributions."""

    # -- typed requests -----------------------------------------------------------------

    @abstractmethod
    def request_model(self) -> type[pydantic.BaseModel]:
        """One typed example for HTTP; its fields (by alias) are :attr:`input_columns`."""

    @abstractmethod
    def answer_schema(self) -> dict[str, Any]:
        """JSON Schema of ``Prediction.answer``."""


def combine_windows(
    logits: NDArray[np.floating[Any]], example: NDArray[np.integer[Any]], num_examples: int
) -> NDArray[np.float64]:
    """Average the logits of the windows of each example.

    Args:
        logits: Shape: (S, W, O).
        example: Example of each window, from 0 to ``num_examples - 1``. Shape: (W,).
        num_examples: N.

    Returns:
        Shape: (S, N, O).
    """
    counts = np.bincount(example, minlength=num_examples)
    if len(counts) != num_examples or (counts == 0).any():
        raise ValueError(
            f"windows name examples up to {len(counts) - 1} and {int((counts == 0).sum())} "
            f"of {num_examples} examples have no window"
        )
    if not num_examples:
        return np.zeros((logits.shape[0], 0, logits.shape[2]))
    order = np.argsort(example, kind="stable")
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    total = np.add.reduceat(logits[:, order].astype(np.float64), starts, axis=1)
    combined: NDArray[np.float64] = total / counts[:, None]
    return combined
