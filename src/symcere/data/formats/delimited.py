"""CSV, TSV and their kin. Clean blocks are parsed at polars' speed; from the first other one on, record by record.

Polars forgives short records and stray quotation marks; here one of them means that fields have moved, and a user
may have become an item. So a block counts as clean only if every quotation mark opens, closes or is doubled, and
every record has as many fields as the header; all other blocks go to Python's csv reader, which is strict.
"""

import csv
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy import ndarray

from symcere.data.formats.rows import POLARS_ERRORS, POLARS_UNPACKS, Rows, bad_line, text_frame
from symcere.errors import DataError

SEPARATORS = {",": "csv", "\t": "tsv", ";": "csv with semicolons", "|": "csv with bars"}

_SLOW_ROWS = 50_000  # records in memory as Python objects
_OPEN = 64 * 2**20  # bytes after which a quoted field without end is left to the csv reader
_QUOTE, _NEWLINE = ord('"'), ord("\n")


def header(path: Path, first: bytes) -> tuple[str, list[str]]:
    """Return the separator and the column names of the first line of a delimited file.

    Args:
        path: For messages.
        first: The first block.

    Returns:
        Separator and names.

    Raises:
        DataError: If the line has no separator, or is not UTF-8.
    """
    line = _decode(path, _unix(first).lstrip(b"\n").split(b"\n", 1)[0], 1)
    separator = max(SEPARATORS, key=line.count)
    if separator not in line:
        raise DataError(
            f"{path} is none of JSON lines, JSON array, CSV, TSV, Parquet: its first line is {line[:80]!r}. "
            "A CSV or TSV file must begin with a line of column names."
        )
    return separator, next(csv.reader([line], delimiter=separator))


def read_delimited(
    path: Path,
    blocks: Iterator[bytes],
    separator: str,
    fields: Sequence[str],
    mapping: Mapping[str, str],
    *,
    skip_bad: bool,
) -> Iterator[Rows]:
    """Parse a delimited file: every record must have as many fields as the header.

    In a tab-separated block whose every line has the header's number of tabs, a lone quotation mark is a character,
    not the beginning of a field of many lines.

    Args:
        path: For messages.
        blocks: Blocks of whole lines, from the header on.
        separator: Between fields.
        fields: Names of the columns.
        mapping: Our column -> the file's column.
        skip_bad: Count records that cannot be parsed instead of raising at the first one.

    Yields:
        Rows as text.

    Raises:
        DataError: At a record that cannot be parsed, or a byte that is not UTF-8.
    """
    wanted = {ours: fields.index(theirs) for ours, theirs in mapping.items()}
    number = 1
    unix = (_unix(block) for block in blocks)
    bodies = _without_header(unix)
    skipped = next(bodies)
    number += skipped.count(b"\n")
    held = b""
    for block in bodies:
        held += block
        whole = len(held) if separator == "\t" else _end_of_record(held)
        if not whole and len(held) < _OPEN:
            continue
        table = _fast(held[:whole], separator, len(fields)) if whole else None
        if table is None:
            break
        yield Rows(table.select(table.columns[at] for at in wanted.values()).rename(_names(table, wanted)), 0)
        number += held.count(b"\n", 0, whole)
        held = held[whole:]
    if held:
        rest = itertools.chain([held], bodies)
        yield from _slowly(path, rest, number, separator, len(fields), wanted, skip_bad=skip_bad)


def _names(table: pl.DataFrame, wanted: Mapping[str, int]) -> dict[str, str]:
    return {table.columns[at]: ours for ours, at in wanted.items()}


def _unix(block: bytes) -> bytes:
    """Make every line ending a line feed."""
    return block.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in block else block


def _without_header(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield blank lines and the header as one block, then what follows."""
    for block in blocks:
        start = len(block) - len(block.lstrip(b"\n"))
        end = block.find(b"\n", start) + 1 or len(block)
        yield block[:end]
        if block[end:]:
            yield block[end:]
        yield from blocks


def _end_of_record(held: bytes) -> int:
    """Where the last record ends: after a line feed with an even number of quotation marks before it; 0 for none."""
    end, n_quotes = len(held), held.count(b'"')
    if n_quotes % 2 == 0:
        return end
    while end > 0:
        at = held.rfind(b"\n", 0, end - 1) + 1
        n_quotes -= held.count(b'"', at, end)
        if n_quotes % 2 == 0:
            return at
        end = at
    return 0


def _fast(block: bytes, separator: str, n_fields: int) -> pl.DataFrame | None:
    """Parse a clean block; None for any other."""
    if block.startswith(POLARS_UNPACKS):
        return None
    by_line = separator == "\t"
    data = np.frombuffer(block, dtype=np.uint8)
    n_records = _n_lines(data, n_fields) if by_line else _n_records(data, ord(separator), n_fields)
    if n_records is None:
        return None
    try:
        table = pl.read_csv(
            block, has_header=False, separator=separator, quote_char=None if by_line else '"', infer_schema=False,
            schema={str(at): pl.String for at in range(n_fields)}, empty_string_is_null=False,
            extra_columns="raise", missing_columns="raise",
        )  # fmt: skip
    except (*POLARS_ERRORS, UnicodeDecodeError):
        return None
    if table.height != n_records:
        return None
    return table.with_columns(_unquoted(name) for name in table.columns) if by_line and b'"' in block else table


def _n_lines(data: ndarray, n_fields: int) -> int | None:
    """Count lines; None if one of them has not the right number of tabs."""
    return _n_complete(data == _NEWLINE, data == ord("\t"), n_fields)


def _n_records(data: ndarray, separator: int, n_fields: int) -> int | None:
    """Count records; None if a quotation mark is out of place, or one of them has not the right number of fields."""
    between, ends = data == separator, data == _NEWLINE
    quotes = np.flatnonzero(data == _QUOTE)
    if len(quotes):
        before = np.where(quotes > 0, data[quotes - 1], _NEWLINE)
        after = np.append(data, _NEWLINE)[quotes + 1]
        outside = [separator, _NEWLINE, _QUOTE]
        if len(quotes) % 2 or not (np.isin(before[::2], outside).all() and np.isin(after[1::2], outside).all()):
            return None
        inside = np.zeros(len(data), dtype=np.int8)
        inside[quotes[::2]] = 1
        inside[quotes[1::2]] = -1
        free = np.cumsum(inside, dtype=np.int8) == 0
        between &= free
        ends &= free
    return _n_complete(ends, between, n_fields)


def _n_complete(ends: ndarray, between: ndarray, n_fields: int) -> int | None:
    """Count records that end at `ends`; None if one of them, say a blank line, has not the right number of fields."""
    at = np.flatnonzero(ends)
    if not ends[-1]:
        at = np.append(at, len(ends))
    n_between = np.diff(np.searchsorted(np.flatnonzero(between), at), prepend=0)
    return len(at) if (n_between == n_fields - 1).all() else None


def _unquoted(name: str) -> pl.Expr:
    """Take the quotation marks off fields that are quoted as a whole."""
    field = pl.col(name)
    quoted = field.str.starts_with('"') & field.str.ends_with('"') & (field.str.len_bytes() > 1)
    inner = field.str.slice(1, field.str.len_chars() - 2).str.replace_all('""', '"', literal=True)
    return pl.when(quoted).then(inner).otherwise(field).alias(name)


def _slowly(
    path: Path,
    blocks: Iterator[bytes],
    number: int,
    separator: str,
    n_fields: int,
    wanted: Mapping[str, int],
    *,
    skip_bad: bool,
) -> Iterator[Rows]:
    rows: list[list[str]] = []
    n_bad = 0
    for at, record in _records(_lines(path, blocks, number), number, separator):
        if isinstance(record, list) and len(record) == n_fields:
            rows.append([record[index] for index in wanted.values()])
        elif record:
            if not skip_bad:
                reason = f"{len(record)} fields where the header has {n_fields}"
                raise bad_line(path, at, record if isinstance(record, str) else reason)
            n_bad += 1
        if len(rows) >= _SLOW_ROWS:
            yield Rows(text_frame(rows, wanted), n_bad)
            rows, n_bad = [], 0
    yield Rows(text_frame(rows, wanted), n_bad)


def _lines(path: Path, blocks: Iterator[bytes], number: int) -> Iterator[str]:
    for block in blocks:
        yield from _decode(path, block, number).removesuffix("\n").split("\n")
        number += block.count(b"\n")


def _decode(path: Path, block: bytes, number: int) -> str:
    """Decode strictly: a replaced character could make one user of two."""
    try:
        return block.decode("utf-8")
    except UnicodeDecodeError as error:
        at = number + block.count(b"\n", 0, error.start)
        raise DataError(
            f"{path}, line {at}: not UTF-8 (byte {block[error.start]:#04x}). Convert the file, for example with: "
            "iconv -f LATIN1 -t UTF-8"
        ) from error


def _records(lines: Iterator[str], number: int, separator: str) -> Iterator[tuple[int, list[str] | str]]:
    """Yield (line where a record begins, its fields or the reason why there are none)."""
    csv.field_size_limit(2**31 - 1)
    records = csv.reader((line + "\n" for line in lines), delimiter=separator, strict=True)
    while True:
        began = number + records.line_num
        try:
            record: list[str] | str = next(records)
        except StopIteration:
            return
        except csv.Error as error:
            record = str(error)
        yield began, record
