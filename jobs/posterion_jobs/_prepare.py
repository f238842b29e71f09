"""The stages before the training: model, data, encodings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posterion_jobs._runs import RunFolder, write_json

if TYPE_CHECKING:
    import pyarrow as pa

    from posterion.config import TaskRecipe
    from posterion.tasks import Task
    from posterion_registry import Registry

PARTS = ("train", "validation", "calibration", "test")
ENCODING_FORMAT = 1
"""Raised when the meaning of cached encodings changes."""


def find_model(recipe: TaskRecipe, registry: Registry | None, folder: RunFolder) -> dict[str, Any]:
    """Find the model to start from, once for all submissions of the run.

    A model whose tokenizer is elsewhere, as that of a ``new:`` one is, is put together with it in
    the run's ``base/``.

    Returns:
        ``dir``, and ``parent``: what the lineage names, an alias replaced by its version.

    Raises:
        ModelSourceError: There is no such model, or cannot do what the recipe asks of it.
    """
    from posterion.models import check_fit, resolve_model
    from posterion.text import Tokenizer

    parent = pinned(recipe.model.source, registry)
    if recipe.model.tokenizer is None:
        directory = resolve_model(parent, registry=registry.resolve if registry else None)
    else:
        directory = folder.path / "base"
        _put_together(recipe, parent, registry, directory)
    check_fit(
        directory,
        max_length=recipe.data.max_length,
        vocabulary_size=Tokenizer.load(directory).vocabulary_size,
        pooling=recipe.model.pooling,
    )
    return {"dir": str(directory), "parent": parent, "found": {"model": parent}}


def pinned(source: str, registry: Registry | None) -> str:
    """The source with an alias replaced by the version that it means now."""
    if source.startswith("models:") and registry is not None:
        return f"models:/{registry.show(source).reference.replace('@', '/')}"
    return source


def _put_together(
    recipe: TaskRecipe, source: str, registry: Registry | None, directory: Path
) -> None:
    """Write a model with the recipe's tokenizer; ``new:`` ones get random weights that fit it."""
    from posterion.models import load_encoder, resolve_model, resolve_tokenizer, save_encoder
    from posterion.text import Tokenizer

    resolve = registry.resolve if registry else None
    named = pinned(str(recipe.model.tokenizer), registry)
    tokenizer = Tokenizer.load(resolve_tokenizer(named, registry=resolve))
    changes: dict[str, Any] = {}
    if source.startswith("new:"):
        changes["pad_token_id"] = tokenizer.pad_id
        if not Path(source.removeprefix("new:")).expanduser().exists():
            changes["vocab_size"] = tokenizer.vocabulary_size
        encoder, _ = load_encoder(source, seed=recipe.seed, changes=changes)
    else:
        encoder, _ = load_encoder(resolve_model(source, registry=resolve))
    save_encoder(encoder, directory)
    tokenizer.save(directory)


def model_still_there(result: Mapping[str, Any]) -> bool:
    """Whether the folder that an earlier submission found exists."""
    return Path(result["dir"]).is_dir()


def read_data(recipe: TaskRecipe, task: Task[Any, Any], folder: RunFolder) -> dict[str, Any]:
    """Read, validate and divide the data; let the task learn from the training part.

    The parts go to ``data/`` as Parquet, the validation report to the artifacts.
    """
    from posterion.data import content_hash, load_splits

    splits, report = load_splits(
        recipe.data,
        task.schema(),
        seed=recipe.seed,
        target=task.target_column,
        key_columns=task.key_columns,
    )
    write_json(folder.artifacts_dir / "validation.json", report.to_dict())
    hashes = {}
    for name in PARTS:
        table = getattr(splits, name)
        if table is not None:
            write_table(part_path(folder, name), table)
            hashes[name] = content_hash(table)
    task.fit(splits.train)
    sizes = splits.sizes()
    total = hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()
    return {
        "state": task.state,
        "rows": sizes,
        "hashes": hashes,
        "data_hash": total,
        "invalid_rows": len(report.invalid_rows),
        "notes": list(splits.notes),
        "found": {**sizes, **({"invalid": len(report.invalid_rows)} if not report.ok else {})},
    }


def parts_still_there(folder: RunFolder) -> Callable[[Mapping[str, Any]], bool]:
    """Whether the parts that an earlier submission wrote exist."""

    def check(result: Mapping[str, Any]) -> bool:
        return all(part_path(folder, name).is_file() for name in result["hashes"])

    return check


def encode_parts(
    recipe: TaskRecipe,
    task: Task[Any, Any],
    folder: RunFolder,
    model_dir: Path,
    cache_dir: Path,
    hashes: Mapping[str, str],
) -> dict[str, Any]:
    """Tokenize what the training needs, or find it in the cache.

    The key names everything the tokens depend on: rows, tokenizer, task and length.
    """
    from posterion.data import cached_encoding
    from posterion.text import Tokenizer

    tokenizer = Tokenizer.load(model_dir)
    max_length = recipe.data.max_length
    paths, tokens = {}, {}
    for name in ("train", "validation"):
        key_parts = {
            "format": ENCODING_FORMAT,
            "rows": hashes[name],
            "tokenizer": tokenizer.fingerprint,
            "task": task.options.model_dump(mode="json"),
            "state": task.state,
            "max_length": max_length,
        }
        key = hashlib.sha256(json.dumps(key_parts, sort_keys=True).encode()).hexdigest()

        def build(part: str = name) -> pa.Table:
            return task.encode(read_part(folder, part), tokenizer, max_length)

        dataset = cached_encoding(cache_dir / "encodings", key, build)
        paths[name] = str(dataset.path)
        tokens[name] = int(dataset.lengths.sum())
    return {"paths": paths, "tokens": tokens, "found": {"tokens": tokens["train"]}}


def encodings_still_there(result: Mapping[str, Any]) -> bool:
    """Whether the cache still holds what an earlier submission encoded."""
    return all(Path(path).is_file() for path in result["paths"].values())


def part_path(folder: RunFolder, name: str) -> Path:
    """The Parquet file of a part."""
    return folder.data_dir / f"{name}.parquet"


def read_part(folder: RunFolder, name: str) -> pa.Table:
    """The rows of a part."""
    import pyarrow.parquet as pq

    return pq.read_table(part_path(folder, name))


def write_table(path: Path, table: pa.Table) -> None:
    """Write Parquet atomically."""
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    pq.write_table(table, partial)
    partial.replace(path)
