"""Data: sources to Arrow tables, schemas, validation, splits, encodings, batches.

Data flows one way: :func:`read_source` -> :func:`conform` -> :func:`split` ->
``Task.encode`` -> :class:`EncodedDataset` -> :class:`BatchPlan` -> :func:`pad`.
:func:`load_splits` does the first three from a recipe's data section. Text for pretraining goes
another way: :mod:`posterion.data.corpus` builds packed rows, :class:`TokenShards` reads them.
"""

from posterion.data._batching import BatchPlan, evaluation_batches
from posterion.data._describe import describe, repeated_rows
from posterion.data._encoded import EncodedDataset, cached_encoding
from posterion.data._files import atomic_path
from posterion.data._formats import formats, source_formats
from posterion.data._hash import content_hash
from posterion.data._loading import load_splits
from posterion.data._near_duplicates import near_duplicates
from posterion.data._padding import pad
from posterion.data._read import read_source
from posterion.data._reading import ReadingKind, reading_schema
from posterion.data._reading_check import conform_reading, validate_reading
from posterion.data._report import ColumnProblem, ValidationReport
from posterion.data._schema import Column, TableSchema
from posterion.data._shift import Shift, TellingFeature, adversarial_validation
from posterion.data._source import resolve_source
from posterion.data._split import Splits, split, split_columns
from posterion.data._validate import conform, validate
from posterion.data._write import write_table
from posterion.data.corpus import TokenShards

__all__ = [
    "BatchPlan",
    "Column",
    "ColumnProblem",
    "EncodedDataset",
    "ReadingKind",
    "Shift",
    "Splits",
    "TableSchema",
    "TellingFeature",
    "TokenShards",
    "ValidationReport",
    "adversarial_validation",
    "atomic_path",
    "cached_encoding",
    "conform",
    "conform_reading",
    "content_hash",
    "describe",
    "evaluation_batches",
    "formats",
    "load_splits",
    "near_duplicates",
    "pad",
    "read_source",
    "reading_schema",
    "repeated_rows",
    "resolve_source",
    "source_formats",
    "split",
    "split_columns",
    "validate",
    "validate_reading",
    "write_table",
]
