"""Parquet, read by polars slice by slice; every column becomes text."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from symcere.data.formats.raw import Meter
from symcere.data.formats.rows import POLARS_ERRORS, Rows, first_line
from symcere.errors import DataError

_SLICE = 131_072  # rows in memory at a time


def parquet_fields(path: Path) -> list[str]:
    """Names of the columns; DataError if the file is damaged."""
    try:
        return list(pl.read_parquet_schema(path))
    except (*POLARS_ERRORS, OSError) as error:
        raise DataError(f"{path} is a damaged Parquet file ({first_line(error)}). Fetch it again.") from error


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
    try:
        columns = pl.scan_parquet(path).select(sorted(set(mapping.values())))
        schema = columns.collect_schema()
        stamps = [name for name, kind in schema.items() if kind.is_temporal() and kind != pl.Time]
        columns = columns.with_columns(pl.col(stamps).dt.epoch("s"))
        if schema.get(votes := mapping.get("helpful", ""), pl.Null) == pl.List:
            columns = columns.with_columns(pl.col(votes).list.first())  # [helpful votes, all votes]
        ids = {mapping[ours] for ours in ("user_id", "item_id") if ours in mapping}
        columns = columns.with_columns(_id_column(path, columns, schema, name) for name in sorted(ids))
        n_rows = columns.select(pl.len()).collect().item()
        texts = columns.select(_text(schema, theirs).alias(ours) for ours, theirs in mapping.items())
        for start in range(0, max(n_rows, 1), _SLICE):
            yield Rows(texts.slice(start, _SLICE).collect(), 0)
            meter.add(path.stat().st_size * min(_SLICE, n_rows - start) // max(n_rows, 1))
    except (*POLARS_ERRORS, OSError) as error:
        raise DataError(f"{path} cannot be read as Parquet ({first_line(error)}).") from error


def _text(schema: Mapping[str, Any], name: str) -> pl.Expr:
    """Return a column as text; of a list of texts, such as categories, a JSON list."""
    if schema[name] == pl.List(pl.String):
        quoted = pl.col(name).list.eval(pl.format('"{}"', pl.element().str.replace_all('"', "'", literal=True)))
        return pl.format("[{}]", quoted.list.join(", "))
    return pl.col(name).cast(pl.String)


def _id_column(path: Path, columns: pl.LazyFrame, schema: Mapping[str, Any], name: str) -> pl.Expr:
    """Ids that were stored as numbers: NaN is none, and 7.0 is 7 where all are whole."""
    kind, column = schema[name], pl.col(name)
    if kind.is_nested() or kind == pl.Binary:
        raise DataError(f"{path}: column {name!r} holds {kind}; an id must be text or a number.")
    if not kind.is_float():
        return column
    column = column.fill_nan(None)
    whole = column.cast(pl.Int64, strict=False)
    return whole if columns.select((whole.cast(kind) == column).all()).collect().item() else column
