"""Which training examples the model sees as most alike.

Shape legend: N examples, D features, Q queries, k neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posterion._exceptions import ArtifactError

Array = NDArray[np.float32]


@dataclass(frozen=True)
class NearestExamples:
    """Training examples by the vectors that the model's head sees."""

    vectors: Array
    """Of length 1. Shape: (N, D)."""
    rows: tuple[int, ...]
    """Row of each example in its table. Length N."""

    @classmethod
    def of(cls, features: ArrayLike, rows: ArrayLike | None = None) -> Self:
        """Keep the vectors of examples.

        Args:
            features: From :func:`posterion.trust.posteriors.features_of`. Shape: (N, D).
            rows: Their rows; 0 to N - 1 when absent.

        Raises:
            ValueError: No examples, or values that are not finite.
        """
        vectors = np.asarray(features, dtype=np.float32)
        if vectors.ndim != 2 or not len(vectors) or not np.isfinite(vectors).all():
            raise ValueError(f"features of shape {vectors.shape} must be finite rows, at least one")
        numbers = np.arange(len(vectors)) if rows is None else np.asarray(rows)
        if len(numbers) != len(vectors):
            raise ValueError(f"{len(numbers)} rows are named for {len(vectors)} examples")
        return cls(_unit(vectors), tuple(int(number) for number in numbers))

    def search(self, features: ArrayLike, k: int = 5) -> list[list[tuple[int, float]]]:
        """Row and cosine similarity of the nearest examples, best first; ties by row.

        Args:
            features: Shape: (Q, D).
            k: How many; all where there are fewer.
        """
        similarity = _unit(np.atleast_2d(np.asarray(features, dtype=np.float32))) @ self.vectors.T
        found = []
        for row in similarity:
            order = np.argsort(-row, kind="stable")[:k]
            found.append([(self.rows[index], float(row[index])) for index in order])
        return found

    def save(self, path: Path) -> None:
        """Write vectors (half precision) and rows as safetensors."""
        from safetensors.numpy import save_file

        values = {
            "vectors": self.vectors.astype(np.float16),
            "rows": np.asarray(self.rows, dtype=np.int64),
        }
        save_file(values, path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what :meth:`save` wrote.

        Raises:
            ArtifactError: No such file, or a damaged one.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            values = load_file(path)
            return cls.of(values["vectors"], values["rows"])
        except (OSError, KeyError, ValueError, SafetensorError) as error:
            raise ArtifactError(
                f"{path} holds no nearest examples ({error}). Write it again."
            ) from error


def _unit(vectors: Array) -> Array:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(norms, 1e-12), dtype=np.float32)
