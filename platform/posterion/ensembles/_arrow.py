"""Out-of-fold predictions as Arrow tables and Parquet files.

One line per row and member:

=============  ==========================  =======================================
column         type                        meaning
=============  ==========================  =======================================
row            string                      name of the row
fold           int32                       part that the member was not trained on
member         string                      name of the member
mean           float64                     regression: the predicted value
std            float64, may be missing     regression: its standard deviation
probabilities  struct, a float64 a class   classification
target         float64, or a class's name  the truth
=============  ==========================  =======================================
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from posterion._exceptions import DataError
from posterion.ensembles._table import OutOfFold

if TYPE_CHECKING:
    import pyarrow as pa

_COMMON = ("row", "fold", "member", "target")


def out_of_fold_to_table(table: OutOfFold) -> pa.Table:
    """The Arrow table of out-of-fold predictions, members one below the other."""
    import pyarrow as pa

    num_members = table.num_members
    columns: dict[str, Any] = {
        "row": pa.array(list(table.rows) * num_members, pa.string()),
        "fold": pa.array(np.tile(table.folds, num_members).astype(np.int32)),
        "member": pa.array(np.repeat(np.asarray(table.members, dtype=object), len(table))),
    }
    if table.mean is not None:
        columns["mean"] = pa.array(table.mean.reshape(-1))
        if table.std is not None:
            flat = table.std.reshape(-1)
            columns["std"] = pa.array(flat, mask=np.isnan(flat))
        columns["target"] = pa.array(np.tile(table.target, num_members))
    else:
        by_class = table.require_probabilities("a table").reshape(-1, len(table.classes))
        columns["probabilities"] = pa.StructArray.from_arrays(
            [pa.array(np.ascontiguousarray(column)) for column in by_class.T], list(table.classes)
        )
        names = np.asarray(table.classes, dtype=object)[table.labels]
        columns["target"] = pa.array(np.tile(names, num_members), pa.string())
    return pa.table(columns)


def out_of_fold_from_table(table: pa.Table) -> OutOfFold:
    """Read what :func:`out_of_fold_to_table` gives; lines may come in any order.

    Rows come in the order of their first lines, members as well.

    Raises:
        DataError: A column that is absent or of a wrong type, a row that a member lacks or has
            twice, folds or targets that differ between members, values out of range.
    """
    is_regression = _check_columns(table)
    rows, row_of = _codes(table, "row")
    members, member_of = _codes(table, "member")
    order = _positions(rows, members, row_of, member_of)
    shape = (len(members), len(rows))
    folds = _shared(table, "fold", order, shape, rows, members)
    target = _shared(table, "target", order, shape, rows, members)
    if is_regression:
        values: dict[str, Any] = {"mean": _floats(table, "mean")[order].reshape(shape)}
        if "std" in table.column_names:
            values["std"] = _floats(table, "std")[order].reshape(shape)
    else:
        column = table.column("probabilities").combine_chunks()
        classes = [field.name for field in column.type]
        entries = [column.field(index) for index in range(len(classes))]
        flat = np.stack([_as_floats(entry, "probabilities") for entry in entries], axis=-1)
        values = {"probabilities": flat[order].reshape(*shape, -1), "classes": classes}
        target = _class_indices(target, classes, rows)
    return OutOfFold(rows=rows, members=members, folds=folds, target=target, **values)


def write_out_of_fold(table: OutOfFold, path: Path) -> None:
    """Write a Parquet file, whole or not at all.

    Raises:
        DataError: The name does not end in ``.parquet``, or it cannot be written there.
    """
    from posterion.data import write_table

    if path.suffix.lower() != ".parquet":
        raise DataError(f"{path}: out-of-fold predictions are kept as .parquet; change the name.")
    write_table(out_of_fold_to_table(table), path)


def read_out_of_fold(path: Path) -> OutOfFold:
    """Read a Parquet file of :func:`write_out_of_fold`.

    Raises:
        DataError: No such file, not Parquet, or a table that
            :func:`out_of_fold_from_table` refuses; the message names the file.
    """
    import pyarrow as pa
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: cannot be read as Parquet ({error})") from error
    try:
        return out_of_fold_from_table(table)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def _check_columns(table: pa.Table) -> bool:
    """Whether it is a table of a regression."""
    import pyarrow as pa

    names = set(table.column_names)
    missing = [name for name in _COMMON if name not in names]
    if missing or len(names & {"mean", "probabilities"}) != 1:
        wanted = missing[0] if missing else "mean, or probabilities, and not both"
        raise DataError(
            f"The table lacks the column {wanted!r}; it has {', '.join(table.column_names)}."
        )
    if not table.num_rows:
        raise DataError("The table of out-of-fold predictions has no lines.")
    for name in _COMMON:
        if table.column(name).null_count:
            raise DataError(f"Column {name!r} lacks {table.column(name).null_count} values.")
    is_regression = "mean" in names
    if not pa.types.is_integer(table.schema.field("fold").type):
        raise DataError(f"Column 'fold' is {table.schema.field('fold').type}; it must be integer.")
    if not is_regression and not pa.types.is_struct(table.schema.field("probabilities").type):
        raise DataError("Column 'probabilities' must be a struct with one number a class.")
    return is_regression


def _codes(table: pa.Table, name: str) -> tuple[list[str], NDArray[np.int64]]:
    """Distinct names in order of appearance, and the number of each line's."""
    import pyarrow as pa

    encoded = table.column(name).cast(pa.string()).combine_chunks().dictionary_encode()
    return encoded.dictionary.to_pylist(), encoded.indices.to_numpy().astype(np.int64)


def _positions(
    rows: list[str], members: list[str], row_of: NDArray[np.int64], member_of: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The line of every (member, row). Shape: (M * N,)."""
    cells = member_of * len(rows) + row_of
    counts = np.bincount(cells, minlength=len(rows) * len(members))
    for count, text in ((counts > 1, "occurs twice"), (counts == 0, "is missing")):
        if count.any():
            member, row = divmod(int(np.flatnonzero(count)[0]), len(rows))
            raise DataError(
                f"Row {rows[row]!r} of member {members[member]!r} {text} ({int(count.sum())} such "
                "in all); every member predicts every row once."
            )
    return np.argsort(cells, kind="stable")


def _shared(
    table: pa.Table,
    name: str,
    order: NDArray[np.int64],
    shape: tuple[int, int],
    rows: list[str],
    members: list[str],
) -> NDArray[Any]:
    """A column on which all members must agree. Shape: (N,)."""
    values = table.column(name).to_numpy()[order].reshape(shape)
    differs = values != values[:1]
    if differs.any():
        member, row = (int(index) for index in np.argwhere(differs)[0])
        raise DataError(
            f"Row {rows[row]!r} has {name} {values[0, row]} with member {members[0]!r} and "
            f"{values[member, row]} with member {members[member]!r}; all members must be trained "
            "on the same folds of the same data."
        )
    shared: NDArray[Any] = values[0]
    return shared


def _floats(table: pa.Table, name: str) -> NDArray[np.float64]:
    return _as_floats(table.column(name).combine_chunks(), name)


def _as_floats(column: pa.Array, name: str) -> NDArray[np.float64]:
    import pyarrow as pa

    try:
        return np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False))
    except pa.ArrowException as error:
        raise DataError(f"Column {name!r} is {column.type}; it must hold numbers.") from error


def _class_indices(
    target: NDArray[Any], classes: list[str], rows: list[str]
) -> NDArray[np.float64]:
    number = {name: index for index, name in enumerate(classes)}
    for row, name in zip(rows, target, strict=True):
        if str(name) not in number:
            raise DataError(
                f"Row {row!r} has target {name!r}, which is none of the classes "
                f"{', '.join(classes)}."
            )
    return np.asarray([number[str(name)] for name in target], dtype=np.float64)
