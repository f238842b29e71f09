"""The validation part, seen once by all workers together.

Legend: W windows of the validation part, N examples, O outputs of the head, R workers.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from posterion.data import EncodedDataset, evaluation_batches
from posterion.tasks import Task, combine_windows
from posterion.training._collectives import sum_over_workers
from posterion.training._gang import Gang
from posterion.training.workloads._labelled import LabelledRows

if TYPE_CHECKING:
    import pyarrow as pa

    from posterion.training._engine import Engine


class Evaluator:
    """Computes every metric of the task on the validation part.

    Args:
        dataset: Its windows.
        table: Its rows before encoding.
        task: Loss, distribution and metrics.
        rows: Of ``dataset``.
        batch_tokens: Tokens of one batch, padding included.
        gang: The workers, who share the batches.
    """

    def __init__(
        self,
        dataset: EncodedDataset,
        table: pa.Table,
        task: Task[Any, Any],
        *,
        rows: LabelledRows,
        batch_tokens: int,
        gang: Gang,
    ) -> None:
        self._table = table
        self._task = task
        self._rows = rows
        self._gang = gang
        self._num_windows = len(dataset)
        self._example = dataset.table.column("example").to_numpy()
        self._weights = dataset.table.column("weight").to_numpy().astype(np.float64)
        batches = evaluation_batches(dataset.lengths, batch_tokens)
        rounds = math.ceil(len(batches) / gang.world_size)
        # ZeRO 3 collects weights from all workers in every pass, so all make as many passes:
        # who has fewer batches repeats the cheapest and discards it.
        mine = batches[gang.rank :: gang.world_size]
        self._batches = mine
        self._idle_passes = [batches[-1]] * (rounds - len(mine))

    def evaluate(self, engine: Engine) -> dict[str, float]:
        """Every metric, and ``loss``; the same on every worker. The model is left in train mode."""
        import torch

        outputs: np.ndarray[Any, np.dtype[np.float64]] | None = None
        engine.model.eval()
        try:
            with torch.no_grad():
                for index, rows in enumerate([*self._batches, *self._idle_passes]):
                    batch = self._rows.batch(rows).to(self._gang.device)
                    logits = engine.forward(batch.input_ids, batch.attention_mask)
                    if outputs is None:
                        outputs = np.zeros((self._num_windows, logits.shape[1] + 1))
                    if index < len(self._batches):
                        outputs[rows, :-1] = logits.float().cpu().numpy()
                        outputs[rows, -1] = self._task.loss(logits, batch.labels).cpu().numpy()
        finally:
            engine.model.train()
        assert outputs is not None
        return self._metrics(sum_over_workers(outputs, self._gang))

    def _metrics(self, outputs: np.ndarray[Any, np.dtype[np.float64]]) -> dict[str, float]:
        logits = combine_windows(outputs[None, :, :-1], self._example, self._table.num_rows)
        distribution = self._task.distribution(logits)
        loss = float((outputs[:, -1] * self._weights).sum() / self._weights.sum())
        return {**self._task.evaluate(distribution, self._table), "loss": loss}
