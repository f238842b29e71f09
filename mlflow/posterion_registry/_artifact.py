"""The folder that is uploaded: an assembled version plus what MLflow wants beside it."""

from __future__ import annotations

import json
import os
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

from posterion import ArtifactError

PARTS = (
    "model",
    "manifest.json",
    "calibration.json",
    "metrics.json",
    "predictions.parquet",
    "card.md",
)
"""What every version holds at least; see ``posterion.inference.assemble_version``."""

EXAMPLE_FILE = "input_example.json"
REQUIREMENTS_FILE = "requirements.txt"
_DESCRIPTIONS = ("MLmodel", REQUIREMENTS_FILE, EXAMPLE_FILE, "registered_model_meta")
LANGUAGE_MODEL = "language_model"
"""In place of a task, of versions that answer none."""

_NO_TIME = "1970-01-01 00:00:00"
"""No clock: the same version is the same bytes."""
_LOADER = "posterion_registry.flavour"
_REQUIREMENTS = ("posterion", "mlflow", "torch", "transformers", "tokenizers", "safetensors")

_TYPES = {"string": "string", "float": "double", "int": "long", "bool": "boolean"}
_EXAMPLES: dict[str, Any] = {
    "string": "An example of a text.",
    "float": 0.5,
    "int": 1,
    "bool": True,
    "strings": ["one", "two"],
}


def require_complete(version_dir: Path) -> None:
    """Refuse a folder that lacks a part.

    Raises:
        ArtifactError: Names the missing part.
    """
    for name in PARTS:
        if not (version_dir / name).exists():
            raise ArtifactError(
                f"{version_dir} is no complete model version: {name} is missing. Assemble it with "
                "posterion.inference.assemble_version."
            )


def stage(version_dir: Path, target: Path) -> None:
    """Fill ``target`` with the files of ``version_dir`` and MLflow's description of them.

    The result depends on nothing but the version and the installed packages, so that an
    interrupted upload can be continued.
    """
    from posterion.inference import write_manifest

    # A version that came out of a registry brings descriptions, which are made anew; what is
    # linked must not be written to.
    described = {str(version_dir): _DESCRIPTIONS}
    shutil.copytree(
        version_dir,
        target,
        ignore=lambda folder, _: described.get(str(folder), ()),
        copy_function=_link,
        dirs_exist_ok=True,
    )
    _describe(target)
    write_manifest(target)


def task_of(version_dir: Path) -> str:
    """The kind of task that a version answers; ``language_model`` for one that answers none."""
    from posterion.tasks import SETTINGS_FILE, read_task_model

    if not (version_dir / "model" / SETTINGS_FILE).exists():
        return LANGUAGE_MODEL
    return read_task_model(version_dir / "model").task.kind


def read_metrics(version_dir: Path) -> dict[str, float]:
    """The figures of ``metrics.json``; nested ones get dotted names."""
    flat: dict[str, float] = {}

    def walk(values: dict[str, Any], prefix: str) -> None:
        for key, value in values.items():
            if isinstance(value, dict):
                walk(value, f"{prefix}{key}.")
            elif isinstance(value, int | float) and not isinstance(value, bool):
                flat[f"{prefix}{key}"] = float(value)

    walk(json.loads((version_dir / "metrics.json").read_text(encoding="utf-8")), "")
    return flat


def _link(source: str | Path, target: str | Path) -> None:
    """Link rather than copy: weights are large, and all writers replace files whole."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _describe(target: Path) -> None:
    """Write ``MLmodel``, ``requirements.txt`` and the input example."""
    import mlflow.pyfunc
    from mlflow.models import Model

    from posterion.tasks import read_task_model

    requirements = [f"{name}=={version(name).partition('+')[0]}" for name in _REQUIREMENTS]
    (target / REQUIREMENTS_FILE).write_text("\n".join(requirements) + "\n", encoding="utf-8")
    if task_of(target) == LANGUAGE_MODEL:
        # It predicts nothing for a table of examples, so it has no pyfunc flavour.
        model = Model(utc_time_created=_NO_TIME, model_uuid=None, metadata={"task": LANGUAGE_MODEL})
        model.save(str(target / "MLmodel"))
        return
    task = read_task_model(target / "model").task
    example = _input_example(task)
    (target / EXAMPLE_FILE).write_text(json.dumps(example), encoding="utf-8")
    model = Model(
        utc_time_created=_NO_TIME,
        model_uuid=None,
        signature=_signature(task),
        saved_input_example_info={
            "artifact_path": EXAMPLE_FILE,
            "type": "dataframe",
            "pandas_orient": "split",
        },
        metadata={"task": task.kind},
    )
    mlflow.pyfunc.add_to_model(model, loader_module=_LOADER)
    model.save(str(target / "MLmodel"))


def _input_columns(task: Any) -> list[Any]:
    by_name = {column.name: column for column in task.schema().columns}
    return [by_name[name] for name in task.input_columns]


def _signature(task: Any) -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import Array

    strings = Array(DataType.string)
    inputs = [
        ColSpec(_TYPES.get(column.type, strings), column.name, required=True)
        for column in _input_columns(task)
    ]
    answers = {"number": "double", "integer": "long", "boolean": "boolean", "array": strings}
    outputs = [
        ColSpec(answers.get(task.answer_schema().get("type"), "string"), "answer"),
        *(ColSpec("double", name) for name in ("confidence", "interval_low", "interval_high")),
        *(ColSpec("boolean", name) for name in ("abstained", "calibrated")),
        *(ColSpec("string", name) for name in ("alternatives", "evidence", "model")),
    ]
    return ModelSignature(inputs=Schema(inputs), outputs=Schema(outputs))


def _input_example(task: Any) -> dict[str, Any]:
    columns = _input_columns(task)
    return {
        "columns": [column.name for column in columns],
        "data": [[_EXAMPLES[column.type] for column in columns]],
    }
