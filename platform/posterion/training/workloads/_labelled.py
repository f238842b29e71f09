"""Rows of an encoded data set as the tensors that the model takes.

Shapes: B rows, L tokens of the longest.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from posterion.data import EncodedDataset, pad
from posterion.tasks import Task
from posterion.training._course import RowIndices

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class LabelledBatch:
    """One micro-batch of B rows, padded to L tokens."""

    input_ids: Tensor
    """Shape: (B, L)."""
    attention_mask: Tensor | None
    """True at real tokens, None when nothing is padded. Shape: (B, L)."""
    labels: dict[str, Tensor]
    """Per label column, B rows."""
    weights: Tensor
    """Weight of each row in the loss, fp32. Shape: (B,)."""
    weight: float
    """Their sum."""

    def to(self, device: torch.device) -> LabelledBatch:
        """The same on a device."""
        mask = self.attention_mask
        return replace(
            self,
            input_ids=self.input_ids.to(device),
            attention_mask=None if mask is None else mask.to(device),
            labels={name: value.to(device) for name, value in self.labels.items()},
            weights=self.weights.to(device),
        )


class LabelledRows:
    """Takes rows from a memory-mapped data set and pads them."""

    def __init__(self, dataset: EncodedDataset, task: Task[Any, Any], *, pad_id: int) -> None:
        self._dataset = dataset
        self._task = task
        self._pad_id = pad_id

    def batch(self, rows: RowIndices) -> LabelledBatch:
        """The batch of the given rows."""
        import torch

        table = self._dataset.take(rows)
        input_ids, mask = pad(table.column("input_ids"), self._pad_id)
        weights = table.column("weight").to_numpy().astype(np.float32)
        return LabelledBatch(
            input_ids=input_ids,
            attention_mask=mask,
            labels=self._task.label_tensors(table),
            weights=torch.from_numpy(weights),
            weight=float(weights.sum(dtype=np.float64)),
        )
