"""What every task must do, from a table to a served prediction."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from posterion.testing._tiny import tiny_model

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

    from posterion.models import TextModel
    from posterion.tasks import Task
    from posterion.text import Tokenizer

ENCODED_COLUMNS = ("example", "input_ids", "length", "weight")


@dataclass(frozen=True, kw_only=True)
class CheckedTask:
    """What :func:`check_task` made on its way, for further checks of one's own."""

    task: Task[Any, Any]
    """Fitted on the table."""
    model_dir: Path
    """Saved model of a few training steps."""
    version_dir: Path
    """Assembled model version."""


def check_task(
    task_class: type[Task[Any, Any]],
    table: pa.Table,
    directory: Path,
    *,
    options: Mapping[str, Any] | None = None,
    trust: Mapping[str, Any] | None = None,
    max_length: int = 16,
) -> CheckedTask:
    """Take a task the whole way on a tiny random BERT; any broken promise fails an assertion.

    Schema, state, encoding with windows, loss and gradients, a few steps that learn,
    distribution, metrics, calibration, predictions, pictures, saving, and a
    :class:`~posterion.inference.Predictor` that answers as the model did before.

    Args:
        task_class: The task.
        table: Valid training rows, 40 at least, of more than one length.
        directory: Empty folder to write into.
        options: The task's options beside ``kind``.
        trust: The recipe's ``trust`` section.
        max_length: Tokens per window; short enough that some texts need several.
    """
    from posterion.config import TrustSection
    from posterion.models import TextModel
    from posterion.tasks import save_task_model
    from posterion.text import Tokenizer

    assert table.num_rows >= 40, "give 40 rows or more, or calibration has nothing to fit"
    trust_section = TrustSection.model_validate(dict(trust or {}))
    encoder_dir = tiny_model(directory / "encoder")
    tokenizer = Tokenizer.load(encoder_dir)
    task, table = _check_state(task_class, table, options or {})
    encoded = _check_encoding(task, table, tokenizer, max_length)
    model = TextModel.create(
        encoder_dir,
        num_outputs=task.num_outputs,
        pooling="mean",
        dropout=0.1,
        head_dropout=0.1,
        seed=0,
    )
    _check_learning(task, model, encoded, tokenizer.pad_id)
    model_dir = directory / "run" / "model"
    save_task_model(model_dir, model, encoder_dir, task, max_length, trust_section)
    version_dir = _check_answers(task, table, model_dir, trust_section, directory)
    return CheckedTask(task=task, model_dir=model_dir, version_dir=version_dir)


def _check_state(
    task_class: type[Task[Any, Any]], table: pa.Table, options: Mapping[str, Any]
) -> tuple[Task[Any, Any], pa.Table]:
    from posterion.data import conform

    section = task_class.Options.model_validate({"kind": task_class.kind, **options})
    fresh = task_class(section)
    table, _ = conform(table, fresh.schema())
    names = set(table.column_names)
    assert set(fresh.input_columns) <= names, "input_columns must be columns of the schema"
    assert set(fresh.key_columns) <= names, "key_columns must be columns of the schema"
    assert fresh.target_column in names, "target_column must be a column of the schema"
    fresh.fit(table)
    # What travels is JSON: options and state must come back as they were.
    saved = json.loads(json.dumps([fresh.options.model_dump(mode="json"), fresh.state]))
    task = task_class(task_class.Options.model_validate(saved[0]), saved[1])
    assert task.options == fresh.options, "options do not survive JSON"
    assert task.num_outputs == fresh.num_outputs >= 1
    assert task.metric in task.metric_names
    assert isinstance(task.greater_is_better, bool)
    return task, table


def _check_encoding(
    task: Task[Any, Any], table: pa.Table, tokenizer: Tokenizer, max_length: int
) -> pa.Table:
    encoded = task.encode(table, tokenizer, max_length)
    plain = task.encode(table.select(task.input_columns), tokenizer, max_length, labelled=False)
    assert tuple(plain.column_names) == ENCODED_COLUMNS
    assert plain.equals(encoded.select(ENCODED_COLUMNS)), "labels must not change the tokens"
    example = encoded.column("example").to_numpy()
    lengths = encoded.column("length").to_numpy()
    weights = np.bincount(example, weights=encoded.column("weight").to_numpy())
    assert len(weights) == table.num_rows, "every row must have a window"
    np.testing.assert_allclose(weights, 1.0, rtol=1e-6, err_msg="an example's weights sum to 1")
    assert lengths.max() <= max_length
    assert [len(row) for row in encoded.column("input_ids")] == lengths.tolist()
    assert encoded.num_rows > table.num_rows, "no text needed a second window; lower max_length"
    return encoded


def _check_learning(task: Task[Any, Any], model: TextModel, encoded: pa.Table, pad_id: int) -> None:
    import torch

    from posterion.data import pad

    rows = encoded.slice(0, 32)
    input_ids, attention_mask = pad(rows.column("input_ids").combine_chunks(), pad_id)
    labels = task.label_tensors(rows)
    assert all(len(value) == rows.num_rows for value in labels.values())

    def loss() -> Tensor:
        losses = task.loss(model(input_ids, attention_mask), labels)
        assert losses.shape == (rows.num_rows,), f"loss must be per row, not {losses.shape}"
        assert losses.dtype == torch.float32
        assert bool(torch.isfinite(losses).all())
        return losses.mean()

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        model.eval()
        before = loss().item()
        model.train()
        for step in range(30):
            optimizer.zero_grad()
            torch.autograd.backward(loss())
            if step == 0:
                _check_gradients(model)
            optimizer.step()
    model.eval()
    after = loss().item()
    assert after < before, f"30 steps on 32 rows did not lower the loss: {before} to {after}"


def _check_gradients(model: TextModel) -> None:
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and parameter.grad is not None:
            assert bool(parameter.grad.isfinite().all()), f"{name} has a gradient of NaN"
    head = [p for name, p in model.named_parameters() if name.startswith("head.")]
    assert head, "the model has no parameters named head.*"
    for parameter in head:
        assert parameter.grad is not None
        assert bool(parameter.grad.any()), "the loss does not reach the head"


def _check_answers(
    task: Task[Any, Any], table: pa.Table, model_dir: Path, trust: Any, directory: Path
) -> Path:
    import pyarrow as pa

    from posterion.inference import Predictor, assemble_version
    from posterion.trust import Calibration

    distribution = Predictor.from_model_dir(model_dir).distribution(table)
    assert len(distribution) == table.num_rows
    assert len(distribution.take(np.array([1, 1, 0]))) == 3
    figures = task.evaluate(distribution, table)
    assert task.metric in figures
    assert figures.keys() <= set(task.metric_names)
    assert np.isfinite(list(figures.values())).all()
    calibration = task.fit_calibration(distribution, table, trust)
    assert calibration.calibrated, f"could not calibrate: {getattr(calibration, 'reason', '')}"
    calibration = Calibration.from_json(json.loads(json.dumps(calibration.to_json())))
    honest = task.evaluate_trust(distribution, table, calibration)
    assert {"mean_confidence", "right", "confidence_ece"} <= honest.keys()
    pictures = task.pictures(distribution, table, calibration, directory / "pictures")
    assert pictures, "draw the reliability diagram at least"
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)
    columns = task.prediction_columns(distribution, calibration)
    assert all(len(values) == table.num_rows for values in columns.values())
    version_dir = assemble_version(
        directory / "version",
        model_dir=model_dir,
        calibration=calibration,
        metrics={"train": figures},
        predictions=pa.table({**columns}),
        card="# A card\n",
        pictures=pictures,
    )
    expected = task.predictions(distribution, calibration, model_name="it@1")
    _check_predictor(task, table, version_dir, expected)
    return version_dir


def _check_predictor(
    task: Task[Any, Any], table: pa.Table, version_dir: Path, expected: list[Any]
) -> None:
    import jsonschema  # type: ignore[import-untyped]
    import pydantic

    from posterion import DataError
    from posterion.inference import Predictor

    predictor = Predictor.load(version_dir, name="it@1")
    examples = table.select(task.input_columns).to_pylist()
    predictions = predictor.predict(examples)
    assert predictor.predict([]) == []
    assert len(predictions) == len(expected)
    schema = predictor.task.answer_schema()
    for prediction, before in zip(predictions, expected, strict=True):
        published = prediction.to_dict()
        jsonschema.validate(published["answer"], schema)
        json.dumps(published, allow_nan=False)
        assert 0.0 <= prediction.confidence <= 1.0
        assert prediction.calibrated
        assert prediction.model == "it@1"
        assert abs(prediction.confidence - before.confidence) < 1e-6
    request_model = task.request_model()
    request_model.model_validate(examples[0])
    fields = {field.alias or name for name, field in request_model.model_fields.items()}
    assert fields == set(task.input_columns)
    for wrong in ({}, {**examples[0], "no such field": 1}):
        try:
            request_model.model_validate(wrong)
        except pydantic.ValidationError:
            continue
        raise AssertionError(f"the request model accepts {wrong}")
    try:
        predictor.predict([{column: "" for column in task.input_columns}])
    except DataError:
        return
    raise AssertionError("an empty example must be refused with a DataError")
