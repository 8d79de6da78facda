"""Tables on disk as Arrow files, read through a memory map: text stays on disk until it is looked at."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import polars as pl

from symcere.errors import DataError
from symcere.manifest import writing


def write_arrow(table: pl.DataFrame, path: Path) -> None:
    """Write a table as an uncompressed Arrow file: equal tables give equal bytes, whatever chunks they have.

    Args:
        table: Any table.
        path: Where.

    Raises:
        OutputError: If it cannot be written.
    """
    import pyarrow as pa

    plain = table.to_arrow(compat_level=pl.CompatLevel.oldest()).combine_chunks()
    views = pa.schema([(field.name, _view(field.type)) for field in plain.schema])
    with writing(path), pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, views) as writer:
        writer.write_table(plain.cast(views))


def map_arrow(paths: Sequence[Path], columns: Sequence[str] | None = None) -> pl.DataFrame:
    """Map the files as one table; of strings, nothing but their first bytes is read until they are looked at.

    Args:
        paths: Files that `write_arrow` wrote, of one schema; at least one.
        columns: Which columns; all if left out.

    Returns:
        The table.

    Raises:
        DataError: If a file is damaged.
    """
    import pyarrow as pa

    parts = []
    for path in paths:
        try:
            table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
            parts.append(pl.DataFrame(table if columns is None else table.select(list(columns))))
        except (pa.ArrowException, OSError, KeyError) as error:
            raise DataError(f"{path} is a damaged Arrow file ({str(error).splitlines()[0][:200]}).") from error
    return pl.concat(parts, rechunk=True)  # of one chunk polars gathers views, of several it copies the text


def read_own_parquet(file: Path | BytesIO, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """Read a Parquet file that we wrote.

    Args:
        file: Its path, or its content.
        columns: Which columns; all if left out.

    Returns:
        The table.

    Raises:
        DataError: If the file is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as opened:  # read_table would load pandas where there is one, half a second
            table = pl.from_arrow(opened.read(columns=columns and list(columns)))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file} is a damaged Parquet file ({str(error).splitlines()[0][:200]}).") from error
    assert isinstance(table, pl.DataFrame)
    return table


def _view(kind: object) -> object:
    """Strings as views: polars maps those as they are, and would copy others."""
    import pyarrow as pa

    return pa.string_view() if kind == pa.large_string() else kind
