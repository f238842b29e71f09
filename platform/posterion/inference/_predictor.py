"""The one object that turns examples into predictions.

Shape legend: N examples, W windows, B rows of a batch, L tokens, S samples, O outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from posterion._exceptions import ArtifactError, DataError
from posterion.inference._artifact import (
    CALIBRATION_FILE,
    MODEL_DIR,
    read_json,
    verify_manifest,
)
from posterion.tasks import TaskModel, combine_windows, read_task_model
from posterion.trust import Calibration, Prediction

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

    from posterion.models import TextModel
    from posterion.text import Tokenizer
    from posterion.trust.posteriors import Posterior

Tokens = NDArray[np.int32]

SPARE_TOKENS = 128
"""Padding that costs about as much as a forward pass of its own (measured on MiniLM, CPU)."""


@dataclass(frozen=True)
class EncodedExample:
    """One example as tokens."""

    windows: tuple[Tokens, ...]
    """Token ids of each window, special tokens included."""

    @property
    def num_tokens(self) -> int:
        """Tokens of all windows: what answering this example costs."""
        return sum(len(window) for window in self.windows)


class Predictor:
    """Loads a model version and answers examples; safe to use from several threads.

    In fp32 a prediction does not depend on the batch it is computed in (within 1e-6 of the
    target's standard deviation): only windows of equal length share a batch, because padding
    alone would change sums by 2e-6. bf16, a thousand times coarser anyway, pads a little.
    """

    def __init__(
        self,
        *,
        model: TextModel,
        tokenizer: Tokenizer,
        settings: TaskModel,
        calibration: Calibration | None = None,
        name: str = "",
        precision: str = "fp32",
        device: str | None = None,
        posterior: Callable[[TextModel], Posterior] | None = None,
    ) -> None:
        import torch

        from posterion.trust.posteriors import McDropout, Point

        if precision not in ("fp32", "bf16"):
            raise ValueError(f"precision {precision!r} is neither 'fp32' nor 'bf16'")
        self.name = name
        self.task = settings.task
        self.max_length = settings.max_length
        self.calibration = calibration or self.task.uncalibrated("The model was never calibrated.")
        self.tokenizer = tokenizer
        self._settings = settings
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self.model = model.to(device=self._device, dtype=self._dtype).eval()
        if self._device.type == "cpu":
            self.model.pack_weights()
        self.posterior: Posterior
        """What is asked for outputs; made last, on the model as it is computed with."""
        if posterior is not None:
            self.posterior = posterior(self.model)
        elif settings.posterior == "mc_dropout":
            self.posterior = McDropout(self.model, samples=settings.samples)
        else:
            self.posterior = Point(self.model)
        self._example_model = self.task.request_model()

    @classmethod
    def load(
        cls,
        directory: Path,
        *,
        name: str = "",
        precision: str = "fp32",
        threads: int | None = None,
        verify: bool = True,
        device: str | None = None,
    ) -> Self:
        """Read a model version.

        Args:
            directory: Folder of the version, with ``manifest.json``.
            name: Registered name and version, repeated in every prediction.
            precision: ``fp32``, or ``bf16`` for speed at some 1e-2 relative accuracy.
            threads: Computing threads of this process; as they are when absent.
            verify: Check every file against the manifest first.
            device: ``cpu``, ``cuda`` ...; a GPU if there is one when absent.

        Raises:
            ArtifactError: Something is missing, damaged or tampered with.
        """
        directory = Path(directory)
        if not directory.is_dir():
            raise ArtifactError(f"{directory} is no folder of a model version.")
        if verify:
            verify_manifest(directory)
        if threads is not None:
            import torch

            torch.set_num_threads(threads)
        calibration = Calibration.from_json(read_json(directory / CALIBRATION_FILE))
        return cls.from_model_dir(
            directory / MODEL_DIR,
            calibration=calibration,
            name=name,
            precision=precision,
            device=device,
        )

    @classmethod
    def from_model_dir(
        cls,
        model_dir: Path,
        *,
        calibration: Calibration | None = None,
        name: str = "",
        precision: str = "fp32",
        device: str | None = None,
    ) -> Self:
        """Read a bare ``model/`` folder, such as a run's best model before calibration.

        A ``posterior.safetensors`` in it (see :func:`~posterion.trust.posteriors.save_posterior`)
        is the model's posterior, whatever its settings say.

        Raises:
            ArtifactError: Something is missing or damaged.
        """
        from posterion.models import TextModel
        from posterion.text import Tokenizer
        from posterion.trust.posteriors import POSTERIOR_FILE, load_posterior

        settings = read_task_model(model_dir)
        posterior_path = model_dir / POSTERIOR_FILE
        if settings.posterior == "laplace" and not posterior_path.exists():
            raise ArtifactError(
                f"{posterior_path} does not exist, but the model says that its posterior is "
                "laplace. Fetch the model again, or fit it (posterion.inference.fit_laplace)."
            )
        return cls(
            model=TextModel.load(model_dir),
            tokenizer=Tokenizer.load(model_dir),
            settings=settings,
            calibration=calibration,
            name=name,
            precision=precision,
            device=device,
            posterior=partial(load_posterior, posterior_path) if posterior_path.exists() else None,
        )

    def encode(self, examples: Sequence[Mapping[str, Any]]) -> list[EncodedExample]:
        """Check and tokenize examples.

        Args:
            examples: Mappings with the task's input columns; other keys are ignored.

        Raises:
            DataError: A missing, empty or wrongly typed field; names the example.
        """
        import pyarrow as pa

        if not examples:
            return []
        columns = self.task.input_columns
        rows = [self._checked(number, example) for number, example in enumerate(examples, start=1)]
        table = pa.table({column: [row[column] for row in rows] for column in columns})
        example, windows = self._windows(table)
        grouped: list[list[Tokens]] = [[] for _ in examples]
        for index, window in zip(example.tolist(), windows, strict=True):
            grouped[index].append(window)
        return [EncodedExample(tuple(group)) for group in grouped]

    def predict(
        self, examples: Sequence[Mapping[str, Any]], batch_tokens: int = 8192
    ) -> list[Prediction]:
        """Answer examples, in their order.

        Args:
            examples: Mappings with the task's input columns.
            batch_tokens: Tokens in one forward pass.

        Raises:
            DataError: See :meth:`encode`.
        """
        return self.predict_encoded(self.encode(examples), batch_tokens)

    def predict_encoded(
        self, encoded: Sequence[EncodedExample], batch_tokens: int = 8192
    ) -> list[Prediction]:
        """Answer examples that :meth:`encode` gave, in their order."""
        if not encoded:
            return []
        windows = [window for example in encoded for window in example.windows]
        example = np.repeat(np.arange(len(encoded)), [len(item.windows) for item in encoded])
        return self._predictions(self._distribution(example, windows, len(encoded), batch_tokens))

    def distribution(self, table: pa.Table, batch_tokens: int = 8192) -> Any:
        """What the model believes of each row of a table, before calibration.

        Args:
            table: Has the task's input columns.
            batch_tokens: Tokens in one forward pass.

        Returns:
            The task's distribution of ``table.num_rows`` examples.

        Raises:
            DataError: Empty texts; names the rows.
        """
        example, windows = self._windows(table)
        return self._distribution(example, windows, table.num_rows, batch_tokens)

    def features(self, table: pa.Table, batch_tokens: int = 8192) -> NDArray[np.float32]:
        """The vector that the head sees of each row of a table, its windows' mean.

        Args:
            table: Has the task's input columns.
            batch_tokens: Tokens in one forward pass.

        Returns:
            Shape: (N, D), float32.

        Raises:
            DataError: Empty texts; names the rows.
        """
        from posterion.trust.posteriors import features_of

        example, windows = self._windows(table)
        sums = np.zeros((table.num_rows, self.model.head.weight.shape[1]), dtype=np.float64)
        for rows, batch in self._padded(windows, batch_tokens):
            np.add.at(sums, example[rows], features_of(self.model, batch).cpu().numpy())
        counts = np.bincount(example, minlength=table.num_rows)
        return (sums / counts[:, None]).astype(np.float32)

    def warm_up(self, batch_tokens: int = 8192) -> None:
        """Compute one short and one full window, so that the first request need not wait."""
        shortest = np.full(self.tokenizer.num_special_tokens + 1, self.tokenizer.pad_id, np.int32)
        longest = np.resize(shortest, self.max_length)
        self._logits([shortest, longest], batch_tokens)

    # -- parts --------------------------------------------------------------------------

    def _checked(self, number: int, example: Mapping[str, Any]) -> dict[str, Any]:
        columns = self.task.input_columns
        if not isinstance(example, Mapping):
            raise DataError(
                f"Example {number} is a {type(example).__name__}; give a mapping with "
                f"{', '.join(columns)}."
            )
        given = {column: example[column] for column in columns if column in example}
        try:
            return self._example_model.model_validate(given).model_dump(by_alias=True)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            field = ".".join(str(part) for part in first["loc"])
            raise DataError(
                f"Example {number}, field {field!r}: {first['msg']}. The task {self.task.kind} "
                f"needs {', '.join(columns)}."
            ) from error

    def _windows(self, table: pa.Table) -> tuple[NDArray[np.int64], list[Tokens]]:
        """Example of each window, and its tokens."""
        encoded = self.task.encode(table, self.tokenizer, self.max_length, labelled=False)
        example = encoded.column("example").to_numpy()
        windows = [np.asarray(row.values) for row in encoded.column("input_ids")]
        return example, windows

    def _distribution(
        self, example: NDArray[np.integer[Any]], windows: list[Tokens], num: int, batch_tokens: int
    ) -> Any:
        logits = self._logits(windows, batch_tokens)
        return self.task.distribution(combine_windows(logits, example, num))

    def _logits(self, windows: Sequence[Tokens], batch_tokens: int) -> NDArray[np.float32]:
        """Shape: (S, W, O)."""
        logits = np.empty(
            (self.posterior.samples, len(windows), self.task.num_outputs), dtype=np.float32
        )
        for rows, batch in self._padded(windows, batch_tokens):
            logits[:, rows] = self.posterior.sample(batch).cpu().numpy()
        return logits

    def _padded(
        self, windows: Sequence[Tokens], batch_tokens: int
    ) -> Iterator[tuple[NDArray[np.intp], tuple[Tensor, Tensor | None]]]:
        """Batches of windows on the device, and which windows they hold."""
        import torch

        from posterion.data import pad

        spare_tokens = 0 if self._dtype == torch.float32 else SPARE_TOKENS
        for rows in _batches(windows, batch_tokens, spare_tokens):
            input_ids, mask = pad([windows[row] for row in rows], self.tokenizer.pad_id)
            yield (
                rows,
                (input_ids.to(self._device), None if mask is None else mask.to(self._device)),
            )

    def _predictions(self, distribution: Any) -> list[Prediction]:
        distribution.require_finite()
        return self.task.predictions(
            distribution,
            self.calibration,
            model_name=self.name,
            abstain_below=self._settings.abstain_below,
        )


def _batches(
    windows: Sequence[Tokens], batch_tokens: int, spare_tokens: int
) -> list[NDArray[np.intp]]:
    """Rows of each forward pass, longest first, so that memory is claimed once.

    Args:
        windows: W windows.
        batch_tokens: Most tokens of a batch, padding included; a longer window goes alone.
        spare_tokens: Most tokens of padding in a batch.
    """
    lengths = np.fromiter(map(len, windows), dtype=np.intp, count=len(windows))
    batches: list[list[int]] = []
    longest = padding = 0
    for row in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[row])
        padding += longest - length
        full = not batches or longest * (len(batches[-1]) + 1) > batch_tokens
        if full or padding > spare_tokens:
            batches.append([])
            longest, padding = length, 0
        batches[-1].append(row)
    return [np.array(rows, dtype=np.intp) for rows in batches]
