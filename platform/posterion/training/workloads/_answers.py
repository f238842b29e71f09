"""Teachers' answers computed once and kept as Arrow beside the texts they belong to.

A folder of parts of some thousand rows each. All workers compute a part together and share what
is kept; a run that was killed goes on with the first part that is missing.

Shapes: N rows (windows), K columns of the answers.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from posterion._exceptions import ArtifactError, RequestError
from posterion.data import atomic_path, evaluation_batches
from posterion.training._collectives import barrier, from_rank_zero, sum_over_workers
from posterion.training._course import RowIndices
from posterion.training._gang import Gang

logger = logging.getLogger(__name__)

PART_ROWS = 8192
"""Rows of one part: what a killed run computes again at most."""

_KEY, _DIGEST = b"key", b"sha256"

Answers = np.ndarray[Any, np.dtype[np.float32]]


class KeptAnswers:
    """Answers of the teachers to every row of an encoded data set.

    Args:
        beside: The encoded data set; a folder next to it, named after it and the key, holds the
            answers.
        key: Everything the answers depend on: teachers, rows, terms, precision.
        lengths: Tokens of each row. Shape: (N,).
    """

    def __init__(self, beside: Path, key: Mapping[str, Any], lengths: np.ndarray[Any, Any]) -> None:
        self._key: dict[str, Any] = json.loads(json.dumps(key))
        digest = hashlib.sha256(json.dumps(self._key, sort_keys=True).encode()).hexdigest()
        self.directory = beside.with_name(f"{beside.stem}.answers-{digest[:16]}")
        self._lengths = lengths
        self._values: Answers | None = None

    def complete(
        self, compute: Callable[[RowIndices], Answers], *, batch_tokens: int, gang: Gang
    ) -> None:
        """Compute what is missing; every worker calls this.

        Args:
            compute: Answers (B, K) to rows. All workers call it equally often.
            batch_tokens: Tokens of one batch, padding included.
            gang: The workers, who share the batches of a part.

        Raises:
            RequestError: The folder holds answers that belong to something else.
        """
        for number in range(self._num_parts):
            kept = gang.rank != 0 or self._read(number) is not None
            if not from_rank_zero(float(kept), gang):
                values = self._compute(number, compute, batch_tokens=batch_tokens, gang=gang)
                if gang.rank == 0:
                    self._write(number, values)
                barrier(gang)
        parts = [self._read(number) for number in range(self._num_parts)]
        if any(part is None for part in parts):
            raise ArtifactError(
                f"{self.directory}: parts that were written a moment ago cannot be read here. All "
                "workers must see the folder of the encoded texts; put the home on a shared disk."
            )
        self._values = np.concatenate([part for part in parts if part is not None])

    def take(self, rows: RowIndices) -> Answers:
        """Answers to some rows. Shape: (B, K)."""
        assert self._values is not None, "complete() comes first"
        return self._values[rows]

    @property
    def _num_parts(self) -> int:
        return -(-len(self._lengths) // PART_ROWS)

    def _rows(self, number: int) -> RowIndices:
        start = number * PART_ROWS
        return np.arange(start, min(start + PART_ROWS, len(self._lengths)), dtype=np.int64)

    def _compute(
        self,
        number: int,
        compute: Callable[[RowIndices], Answers],
        *,
        batch_tokens: int,
        gang: Gang,
    ) -> Answers:
        rows = self._rows(number)
        batches = evaluation_batches(self._lengths[rows], batch_tokens)
        rounds = math.ceil(len(batches) / gang.world_size)
        mine = batches[gang.rank :: gang.world_size]
        values: np.ndarray[Any, np.dtype[np.float64]] | None = None
        # Who has fewer batches repeats the cheapest: sharded teachers need everybody.
        for index, batch in enumerate([*mine, *[batches[-1]] * (rounds - len(mine))]):
            answers = compute(rows[batch])
            if values is None:
                values = np.zeros((len(rows), answers.shape[1]))
            if index < len(mine):
                values[batch] = answers
        assert values is not None
        return sum_over_workers(values, gang).astype(np.float32)

    # -- files ------------------------------------------------------------------------------

    def _path(self, number: int) -> Path:
        return self.directory / f"part-{number:06d}.arrow"

    def _write(self, number: int, values: Answers) -> None:
        flat = pa.array(values.reshape(-1))
        column = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
        table = pa.table({"answers": column}).replace_schema_metadata(
            {_KEY: json.dumps(self._key, sort_keys=True), _DIGEST: _digest(values)}
        )
        with (
            atomic_path(self._path(number)) as partial,
            pa.OSFile(str(partial), "wb") as sink,
            pa.ipc.new_file(sink, table.schema) as out,
        ):
            out.write_table(table)

    def _read(self, number: int) -> Answers | None:
        """The answers of a part; None where it is missing or damaged.

        Raises:
            RequestError: They are those of other teachers or texts.
        """
        path = self._path(number)
        try:
            with pa.memory_map(str(path)) as source:
                table = pa.ipc.open_file(source).read_all()
            metadata = table.schema.metadata or {}
            key = json.loads(metadata[_KEY])
            column = table.column("answers").combine_chunks()
            flat = column.flatten().to_numpy().astype(np.float32, copy=False)
            values: Answers = flat.reshape(len(self._rows(number)), -1)
            intact = _digest(values) == metadata[_DIGEST].decode()
        except FileNotFoundError:
            return None
        except (pa.ArrowInvalid, OSError, KeyError, ValueError) as error:
            logger.warning("answers %s cannot be read (%s); computing them anew", path, error)
            return None
        self._require_same(key, path)
        if not intact:
            logger.warning("answers %s are not what was written; computing them anew", path)
            return None
        return values

    def _require_same(self, key: Mapping[str, Any], path: Path) -> None:
        different = [
            f"{name} is {_short(key.get(name))} there and {_short(self._key.get(name))} here"
            for name in sorted(key.keys() | self._key.keys())
            if key.get(name) != self._key.get(name)
        ]
        if different:
            raise RequestError(
                f"{path} holds answers that belong to something else: {'; '.join(different)}. "
                f"Delete the folder {path.parent}; the answers are then computed anew."
            )


def _digest(values: Answers) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
