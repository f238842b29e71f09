"""Tables of examples in, tables of predictions out, for the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posterion import DataError, RequestError

if TYPE_CHECKING:
    import pyarrow as pa

    from posterion.tasks import Task
    from posterion.trust import Prediction

STDIN = "-"
OUTPUT_FORMATS = (".jsonl", ".csv", ".parquet")
_TEXT_SUFFIXES = (".txt", ".text")
_ID = "id"
REMEDY = "Correct the input; the model's task decides which columns it needs."
"""What a user can do about a table that does not fit."""


def read_examples(source: str, task: Task[Any, Any], stdin: Iterator[str]) -> pa.Table:
    """The examples to answer, with the task's input columns and ``id`` where there is one.

    Args:
        source: ``-``, a file (csv, tsv, jsonl, parquet, txt with one text per line) or a data
            source such as ``path:FILE`` and ``package:NAME/FILE``.
        task: Declares the input columns.
        stdin: Lines of standard input, read when ``source`` is ``-``.

    Raises:
        DataError: Columns or values are not what the task takes; names the rows.
        RequestError: The file does not exist.
    """
    from posterion.data import TableSchema, conform, read_source

    if source == STDIN:
        table = _from_lines([line.rstrip("\r\n") for line in stdin], task, "standard input")
    elif Path(source).suffix.lower() in _TEXT_SUFFIXES:
        path = _existing(source)
        table = _from_lines(path.read_text(encoding="utf-8").splitlines(), task, str(path))
    else:
        table = read_source(as_source(source))
    schema = TableSchema([c for c in task.schema().columns if c.name in task.input_columns])
    conformed, _ = conform(table, schema, remedy=REMEDY)
    if _ID in table.column_names and _ID not in conformed.column_names:
        conformed = conformed.append_column(_ID, table.column(_ID))
    return conformed


def as_source(text: str) -> str:
    """A data source; a bare file name means ``path:``."""
    return text if text.partition(":")[0] in ("path", "package", "hub") else f"path:{text}"


def output_row(example: Mapping[str, Any], prediction: Prediction) -> dict[str, Any]:
    """One line of the output: the example's ``id``, where it has one, and its prediction."""
    head = {_ID: example[_ID]} if _ID in example else {}
    return {**head, **prediction.to_dict()}


@contextmanager
def prediction_writer(target: Path) -> Iterator[PredictionWriter]:
    """A writer whose file appears under its name when everything is written.

    Raises:
        RequestError: The suffix names no known format, or the folder does not exist.
    """
    suffix = target.suffix.lower()
    if suffix not in OUTPUT_FORMATS:
        raise RequestError(
            f"--output {target}: predictions are written as {', '.join(OUTPUT_FORMATS)}, chosen by "
            "the file's name."
        )
    if not target.absolute().parent.is_dir():
        raise RequestError(f"--output {target}: the folder {target.absolute().parent} is missing.")
    partial = target.with_name(f".{target.name}.partial")
    writer = PredictionWriter(partial, suffix)
    try:
        yield writer
        writer.close()
        partial.replace(target)
    finally:
        writer.close()
        partial.unlink(missing_ok=True)


class PredictionWriter:
    """Writes predictions chunk by chunk as jsonl, csv or parquet."""

    def __init__(self, path: Path, suffix: str) -> None:
        self._suffix = suffix
        self._path = path
        self._file = path.open("wb")
        self._sink: Any = None

    def write(
        self, examples: Sequence[Mapping[str, Any]], predictions: Sequence[Prediction]
    ) -> None:
        """Add one row per example."""
        if self._suffix == ".jsonl":
            for example, prediction in zip(examples, predictions, strict=True):
                line = json.dumps(output_row(example, prediction), ensure_ascii=False)
                self._file.write(line.encode() + b"\n")
        elif predictions:
            self._write_table(examples, predictions)

    def close(self) -> None:
        """Finish the file."""
        if self._sink is not None:
            self._sink.close()
            self._sink = None
        self._file.close()

    def _write_table(
        self, examples: Sequence[Mapping[str, Any]], predictions: Sequence[Prediction]
    ) -> None:
        import pyarrow as pa
        import pyarrow.csv
        import pyarrow.parquet

        from posterion_registry.flavour import flat_rows

        rows = flat_rows(predictions)
        if _ID in examples[0]:
            ids = [{_ID: example[_ID]} for example in examples]
            rows = [{**head, **row} for head, row in zip(ids, rows, strict=True)]
        if self._suffix == ".csv":  # a cell of csv holds no list
            rows = [{**row, "answer": _cell(row["answer"])} for row in rows]
        schema = self._sink.schema if self._sink is not None and self._suffix != ".csv" else None
        table = pa.Table.from_pylist(rows, schema=schema)
        if self._sink is None and self._suffix == ".csv":
            self._sink = pyarrow.csv.CSVWriter(self._file, table.schema)
        elif self._sink is None:
            self._sink = pyarrow.parquet.ParquetWriter(self._file, table.schema)
        self._sink.write_table(table)


def _cell(answer: Any) -> Any:
    return json.dumps(answer, ensure_ascii=False) if isinstance(answer, list) else answer


def _existing(source: str) -> Path:
    path = Path(source.removeprefix("path:"))
    if not path.is_file():
        raise RequestError(f"--input {source}: there is no file {path.absolute()}.")
    return path


def _from_lines(lines: Sequence[str], task: Task[Any, Any], where: str) -> pa.Table:
    """Lines of JSON objects, or of plain text for a task with a single text column."""
    import pyarrow as pa

    filled = [line for line in lines if line.strip()]
    if not filled:
        raise DataError(f"{where} holds no example; give one text or one JSON object per line.")
    if filled[0].lstrip().startswith("{"):
        return pa.Table.from_pylist(
            [
                _json_object(line, number, where)
                for number, line in enumerate(lines, 1)
                if line.strip()
            ]
        )
    columns = task.input_columns
    if len(columns) != 1:
        raise DataError(
            f"{where} holds plain text, but an example of {task.kind} has the columns "
            f"{', '.join(columns)}; give one JSON object with these keys per line."
        )
    return pa.table({columns[0]: filled})


def _json_object(line: str, number: int, where: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise DataError(f"{where}, line {number} is no JSON object: {error}.") from error
    if not isinstance(value, dict):
        raise DataError(f"{where}, line {number} is {type(value).__name__}, not a JSON object.")
    return value
