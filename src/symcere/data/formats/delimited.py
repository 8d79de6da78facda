"""CSV, TSV and their kin. Clean blocks are parsed at polars' speed, all others record by record.

Polars forgives short records and stray quotation marks; here one of them means that fields have moved, and a user
may have become an item. So a block counts as clean only if every quotation mark opens, closes or is doubled, and
every record has as many fields as the header; from the first other one on, all go to Python's csv reader, which is
strict. Only of lines with tabs does each tell by itself whether it is a record, whatever stands around it.
"""

import csv
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy import ndarray

from symcere.data.formats.rows import POLARS_ERRORS, POLARS_UNPACKS, Rows, bad_line, text_frame
from symcere.errors import DataError

SEPARATORS = {",": "csv", "\t": "tsv", ";": "csv with semicolons", "|": "csv with bars"}

_SLOW_ROWS = 50_000  # records in memory as Python objects
_OPEN = 64 * 2**20  # bytes after which the end of a quoted field is waited for no longer
_QUOTE, _NEWLINE = ord('"'), ord("\n")
_CLOSES = re.compile(rb'(?:[^"\t]|"")*+"\t')  # a line on which a first field ends that was opened on another

# Line where it begins, how many lines it takes, its fields or why there are none.
_Record = tuple[int, int, list[str] | str]


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

    In a tab-separated file a line with the header's number of tabs is a record, and a lone quotation mark in it a
    character. Other lines are bad, unless a quoted field takes them: it must open and end where fields do, make a
    record of the right length, and run over no line that is a record by itself. (The end of a quoted first field may
    look like one.) Elsewhere a field that opens with a quotation mark ends at the next that closes it, however many
    lines away, as in Python's csv module; where nothing closes it, all lines up to the end count as dropped.

    Args:
        path: For messages.
        blocks: Blocks of whole lines, from the header on.
        separator: Between fields.
        fields: Names of the columns.
        mapping: Our column -> the file's column.
        skip_bad: Count the lines of records that cannot be parsed instead of raising at the first one.

    Yields:
        Rows as text.

    Raises:
        DataError: At a record that cannot be parsed, or a byte that is not UTF-8.
    """
    csv.field_size_limit(2**31 - 1)
    wanted = {ours: fields.index(theirs) for ours, theirs in mapping.items()}
    by_line = separator == "\t"
    number = 1
    unix = (_unix(block) for block in blocks)
    bodies = _without_header(unix)
    skipped = next(bodies)
    number += skipped.count(b"\n")
    held = b""
    for block in bodies:
        held += block
        whole = _end_of_run(held, len(fields)) if by_line else _end_of_record(held)
        if not whole and len(held) < _OPEN:
            continue
        table = _fast(held[:whole], separator, len(fields)) if whole else None
        if table is not None:
            yield Rows(table.select(pl.col(str(at)).alias(ours) for ours, at in wanted.items()), 0)
        elif by_line:
            whole = whole or len(held)
            records = _tabbed(list(_lines(path, iter([held[:whole]]), number)), number, len(fields))
            yield from _slowly(path, records, len(fields), wanted, skip_bad=skip_bad)
        else:
            break
        number += held.count(b"\n", 0, whole)
        held = held[whole:]
    if held:
        lines = _lines(path, itertools.chain([held], bodies), number)
        records = _tabbed(list(lines), number, len(fields)) if by_line else _records(lines, number, separator)
        yield from _slowly(path, records, len(fields), wanted, skip_bad=skip_bad)


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


def _end_of_run(held: bytes, n_fields: int) -> int:
    """Where the last line begins that is a record by itself, if a quoted field may go on behind it; else the end."""
    begin = len(held)
    while begin > 0:
        end, begin = begin, held.rfind(b"\n", 0, begin - 1) + 1
        if held.count(b"\t", begin, end) == n_fields - 1 and not _CLOSES.match(held, begin):
            break
    return begin if held.find(b'"', begin) >= 0 else len(held)


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
    path: Path, records: Iterator[_Record], n_fields: int, wanted: Mapping[str, int], *, skip_bad: bool
) -> Iterator[Rows]:
    rows: list[list[str]] = []
    n_bad = 0
    for at, n_lines, record in records:
        if isinstance(record, list) and len(record) == n_fields:
            rows.append([record[index] for index in wanted.values()])
        elif record:
            if not skip_bad:
                reason = f"{len(record)} fields where the header has {n_fields}"
                reason = record if isinstance(record, str) else reason
                raise bad_line(path, at, reason if n_lines == 1 else f"{reason}; {n_lines} lines are one record")
            n_bad += n_lines
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


def _records(lines: Iterator[str], number: int, separator: str) -> Iterator[_Record]:
    """Read as csv does, strictly."""
    records = csv.reader((line + "\n" for line in lines), delimiter=separator, strict=True)
    while True:
        began = records.line_num
        try:
            record: list[str] | str = next(records)
        except StopIteration:
            return
        except csv.Error as error:
            record = str(error)
        yield number + began, records.line_num - began, record


def _tabbed(lines: Sequence[str], number: int, n_fields: int) -> Iterator[_Record]:
    """Read line by line, but for lines that a quoted field takes together."""
    alone = [line.count("\t") == n_fields - 1 for line in lines]
    at = 0
    while at < len(lines):
        quoted = _quoted(lines, alone, at, n_fields) if '"' in lines[at] else None
        record, n_lines = quoted or ([_bare(field) for field in lines[at].split("\t")] if lines[at] else [], 1)
        yield number + at, n_lines, record
        at += n_lines


def _quoted(lines: Sequence[str], alone: Sequence[bool], at: int, n_fields: int) -> tuple[list[str], int] | None:
    """Return a record that has the right length only with its quotation marks obeyed, and how many lines it takes."""
    has_one = alone[at]

    def goes_on(n: int) -> bool:
        nonlocal has_one
        ends_here = alone[n] and not has_one and _CLOSES.match(lines[n].encode()) is not None
        has_one |= alone[n]
        return ends_here or not alone[n]

    taken = itertools.chain([at], itertools.takewhile(goes_on, range(at + 1, len(lines))))
    reader = csv.reader((lines[n] + "\n" for n in taken), delimiter="\t", strict=True)
    try:
        record = next(reader)
    except csv.Error:
        return None
    found = len(record) == n_fields and not (alone[at] and reader.line_num == 1)
    return (record, reader.line_num) if found else None


def _bare(field: str) -> str:
    """A field without the quotation marks around it, as `_unquoted` does it."""
    quoted = len(field) > 1 and field[0] == field[-1] == '"'
    return field[1:-1].replace('""', '"') if quoted else field
