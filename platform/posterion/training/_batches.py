"""Rows of an encoded data set as the tensors that the model takes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from posterion.data import EncodedDataset, pad
from posterion.tasks import Task

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """One micro-batch of B rows, padded to L tokens."""

    rows: np.ndarray[Any, np.dtype[np.int64]]
    """Their indices in the data set. Shape: (B,)."""
    input_ids: Tensor
    """Shape: (B, L)."""
    attention_mask: Tensor | None
    """True at real tokens, None when nothing is padded. Shape: (B, L)."""
    labels: dict[str, Tensor]
    """Per label column, B rows."""
    weight: Tensor
    """Weight of each row in the loss, fp32. Shape: (B,)."""


class BatchLoader:
    """Takes rows from a memory-mapped data set and pads them; counts the time it takes."""

    def __init__(
        self, dataset: EncodedDataset, task: Task[Any, Any], *, pad_id: int, device: torch.device
    ) -> None:
        self._dataset = dataset
        self._task = task
        self._pad_id = pad_id
        self._device = device
        self.seconds = 0.0
        """Time spent in :meth:`load` so far."""

    def load(self, rows: np.ndarray[Any, np.dtype[np.int64]]) -> Batch:
        """The batch of the given rows."""
        import torch

        start = time.perf_counter()
        table = self._dataset.take(rows)
        input_ids, mask = pad(table.column("input_ids"), self._pad_id)
        weight = torch.from_numpy(table.column("weight").to_numpy().astype(np.float32))
        labels = self._task.label_tensors(table)
        batch = Batch(
            rows=rows,
            input_ids=input_ids.to(self._device),
            attention_mask=None if mask is None else mask.to(self._device),
            labels={name: value.to(self._device) for name, value in labels.items()},
            weight=weight.to(self._device),
        )
        self.seconds += time.perf_counter() - start
        return batch

    def load_all(self, batches: Iterable[np.ndarray[Any, np.dtype[np.int64]]]) -> Iterator[Batch]:
        """One batch after the other."""
        return map(self.load, batches)
