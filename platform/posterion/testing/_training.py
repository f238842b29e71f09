"""A training of seconds: a tiny model, a few dozen made-up texts, and workers to run it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from posterion.config import FinetuneRecipe
from posterion.testing._tiny import TINY_WORDS, tiny_model
from posterion.testing._worker import WorkerProcess

if TYPE_CHECKING:
    import pyarrow as pa

    from posterion.training import FinetuneSpec, TrainingSpec


def tiny_recipe(overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A recipe for :func:`tiny_training`; ``overrides`` maps dotted keys to values."""
    recipe: dict[str, Any] = {
        "job": "finetune",
        "seed": 7,
        "task": {"kind": "regression", "text": "text", "target": "target"},
        "data": {"source": "path:unused.csv", "max_length": 32},
        "model": {"source": "path:unused"},
        "optimization": {"learning_rate": 3e-3, "epochs": 2, "batch_tokens": 96},
        "engine": {"precision": "fp32"},
    }
    return with_overrides(recipe, overrides)


def with_overrides(recipe: dict[str, Any], overrides: Mapping[str, Any] | None) -> dict[str, Any]:
    """The recipe with values replaced by dotted key."""
    for key, value in (overrides or {}).items():
        *sections, name = key.split(".")
        section = recipe
        for part in sections:
            section = section.setdefault(part, {})
        section[name] = value
    return recipe


def tiny_training(
    directory: Path,
    overrides: Mapping[str, Any] | None = None,
    *,
    num_texts: int = 48,
    architecture: str = "bert",
) -> FinetuneSpec:
    """Everything :func:`posterion.training.fit` needs, made up under ``directory``.

    Args:
        directory: Folder to write into; calling again with the same one and other overrides
            keeps the data and the run folder.
        overrides: Recipe values by dotted key, e.g. ``{"engine.zero": 2}``.
        num_texts: Training texts; a third as many validate.
        architecture: Of the encoder; see :func:`~posterion.testing.tiny_model`.
    """
    from posterion.data import EncodedDataset
    from posterion.tasks import create_task, parse_recipe
    from posterion.text import Tokenizer
    from posterion.training import FinetuneSpec

    recipe = cast(FinetuneRecipe, parse_recipe(tiny_recipe(overrides)))
    model_dir = tiny_model(directory / "encoder", architecture)
    train, validation = _texts(num_texts, seed=0), _texts(num_texts // 3, seed=1)
    task = create_task(recipe.task)
    task.fit(train)
    tokenizer = Tokenizer.load(model_dir)
    for name, table in (("train", train), ("validation", validation)):
        encoded = task.encode(table, tokenizer, recipe.data.max_length)
        EncodedDataset.build(directory / f"{name}.arrow", encoded)
    _write_parquet(validation, directory / "validation.parquet")
    return FinetuneSpec(
        recipe=recipe.model_dump(mode="json"),
        task_state=task.state,
        model_dir=model_dir,
        train_path=directory / "train.arrow",
        validation_path=directory / "validation.arrow",
        validation_table_path=directory / "validation.parquet",
        run_dir=directory / "run",
    )


def start_workers(spec: TrainingSpec, world_size: int) -> list[WorkerProcess]:
    """Start one process per worker, joined by a file instead of a port.

    Each writes its :class:`~posterion.training.FitResult` to ``run_dir/result-<rank>.json`` and
    exits with the status of the error, if any, printing its message.
    """
    spec.run_dir.mkdir(parents=True, exist_ok=True)
    meeting_point = spec.run_dir.parent / f"workers-{uuid.uuid4().hex}"
    return [WorkerProcess(spec, meeting_point, rank, world_size) for rank in range(world_size)]


def run_workers(spec: TrainingSpec, world_size: int) -> list[dict[str, Any]]:
    """Run :func:`start_workers` to the end and return every worker's result.

    Raises:
        RuntimeError: A worker failed; holds what it printed.
    """
    workers = start_workers(spec, world_size)
    outputs = [worker.communicate()[0] for worker in workers]
    for worker, output in zip(workers, outputs, strict=True):
        if worker.returncode:
            raise RuntimeError(f"a worker ended with status {worker.returncode}:\n{output}")
    return [
        json.loads((spec.run_dir / f"result-{rank}.json").read_text(encoding="utf-8"))
        for rank in range(world_size)
    ]


def _texts(count: int, *, seed: int) -> pa.Table:
    """Texts whose target is how many of their words praise rather than blame."""
    import pyarrow as pa

    rng = np.random.default_rng(seed)
    praise = {"great", "best", "nice", "happy", "fine", "love", "wonderful", "fun"}
    blame = {"bad", "worst", "awful", "sad", "poor", "hate", "boring", "terrible"}
    texts = [" ".join(rng.choice(TINY_WORDS, rng.integers(3, 20))) for _ in range(count)]
    targets = [
        sum((word in praise) - (word in blame) for word in text.split())
        + float(rng.normal(0.0, 0.1))
        for text in texts
    ]
    return pa.table({"text": texts, "target": targets})


def _write_parquet(table: pa.Table, path: Path) -> None:
    import pyarrow.parquet as pq

    pq.write_table(table, path)
