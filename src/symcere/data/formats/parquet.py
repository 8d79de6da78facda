"""Parquet, read by Arrow batch by batch; every column becomes text.

Arrow and not polars takes the bytes apart: of a damaged page polars asks for memory that no machine has, and ends the
process, where Arrow raises.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl

from symcere.data.formats.raw import Meter
from symcere.data.formats.rows import POLARS_ERRORS, Rows, first_line
from symcere.errors import DataError

_SLICE = 131_072  # rows in memory at a time


def parquet_schema(path: Path) -> Mapping[str, Any]:
    """Columns and their types; DataError if the file is damaged."""
    import pyarrow.parquet as pq

    with _taken_apart(path):
        return _frame(pq.read_schema(path).empty_table()).schema


def parquet_frames(path: Path, names: Sequence[str], n_rows: int = _SLICE) -> Iterator[pl.DataFrame]:
    """Read some columns as they are.

    Args:
        path: The file.
        names: The columns.
        n_rows: Rows at a time, at most.

    Yields:
        Its rows; of a file of none, once a frame without any.

    Raises:
        DataError: If the file cannot be read.
    """
    import pyarrow.parquet as pq

    with _taken_apart(path), pq.ParquetFile(path, memory_map=True) as file:
        yield from _frames(file, names, n_rows)
        if not file.metadata.num_rows:
            yield _frame(file.schema_arrow.empty_table().select(list(names)))


@contextmanager
def _taken_apart(path: Path) -> Iterator[None]:
    """What reading raises, as a DataError that says which file."""
    import pyarrow as pa

    try:
        yield
    except (*POLARS_ERRORS, pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} cannot be read as Parquet ({first_line(error)}).") from error


def read_parquet(path: Path, mapping: Mapping[str, str], meter: Meter) -> Iterator[Rows]:
    """Read the mapped columns; everything becomes text except dates, which become seconds first.

    Args:
        path: The file.
        mapping: Our column -> the file's column.
        meter: Told how much is read.

    Yields:
        Rows as text.

    Raises:
        DataError: If the file cannot be read, or an id column holds neither text nor numbers.
    """
    import pyarrow.parquet as pq

    with _taken_apart(path), pq.ParquetFile(path, memory_map=True) as file:
        names = sorted(set(mapping.values()))
        schema = _frame(file.schema_arrow.empty_table().select(names)).schema
        ids = sorted({mapping[ours] for ours in ("user_id", "item_id") if ours in mapping})
        changes = [_id_column(path, file, schema, name) for name in ids]
        stamps = [name for name, kind in schema.items() if kind.is_temporal() and kind != pl.Time]
        changes += [pl.col(name).dt.epoch("s") for name in stamps if name not in ids]
        if schema.get(votes := mapping.get("helpful", ""), pl.Null) == pl.List:
            changes.append(pl.col(votes).list.first())  # [helpful votes, all votes]
        texts = [_text(schema, theirs).alias(ours) for ours, theirs in mapping.items()]
        n_rows = max(file.metadata.num_rows, 1)
        size = path.stat().st_size
        for frame in _frames(file, names):
            yield Rows(frame.with_columns(changes).select(texts), 0)
            meter.add(size * len(frame) // n_rows)
        if not file.metadata.num_rows:
            yield Rows(pl.DataFrame(schema=schema).with_columns(changes).select(texts), 0)


def _frames(file: Any, names: Sequence[str], n_rows: int = _SLICE) -> Iterator[pl.DataFrame]:
    """Rows of some columns, so many at a time."""
    return (_frame(batch) for batch in file.iter_batches(n_rows, columns=list(names)))


def _frame(table: Any) -> pl.DataFrame:
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)  # a table or a batch is never one column
    return frame


def _text(schema: Mapping[str, Any], name: str) -> pl.Expr:
    """Return a column as text; of a list of texts, such as categories, a JSON list."""
    if schema[name] == pl.List(pl.String):
        quoted = pl.col(name).list.eval(pl.format('"{}"', pl.element().str.replace_all('"', "'", literal=True)))
        return pl.format("[{}]", quoted.list.join(", "))
    return pl.col(name).cast(pl.String)


def _id_column(path: Path, file: Any, schema: Mapping[str, Any], name: str) -> pl.Expr:
    """Ids that were stored as numbers: NaN is none, and 7.0 is 7 where all are whole."""
    kind, column = schema[name], pl.col(name)
    if kind.is_nested() or kind == pl.Binary:
        raise DataError(f"{path}: column {name!r} holds {kind}; an id must be text or a number.")
    if kind.is_temporal() and kind != pl.Time:
        return column.dt.epoch("s")
    if not kind.is_float():
        return column
    column = column.fill_nan(None)
    whole = column.cast(pl.Int64, strict=False)
    same = (whole.cast(kind) == column).all()
    return whole if all(frame.select(same).item() for frame in _frames(file, [name])) else column
