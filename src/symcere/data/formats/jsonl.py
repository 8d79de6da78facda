"""JSON lines, arrays of the same records, and the Python literals of older corpora that look like them."""

import ast
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from symcere.data.formats.raw import Meter, holds_array, read_blocks
from symcere.data.formats.rows import POLARS_ERRORS, POLARS_UNPACKS, Rows, bad_line, first_line, text_frame
from symcere.errors import DataError

_HEAD_LINES = 1_000  # lines whose keys decide the source: a field may be absent from single lines
_SLOW_ROWS = 50_000  # records in memory as Python objects
_NUMBERS: dict[str, Any] = {"rating": pl.Float64, "timestamp": pl.Int64}  # polars refuses anything else under these


def json_fields(path: Path, first: bytes) -> list[str]:
    """Return the union of the keys of the first lines that parse, in order of appearance.

    A list of records inside a record, such as the reviews of a user, gives fields like `reviews.item_id`.

    Args:
        path: For messages.
        first: The first block.

    Returns:
        Names.

    Raises:
        DataError: If no line holds an object.
    """
    fields: dict[str, None] = {}
    reason = ""
    for number, line in enumerate(first.split(b"\n", _HEAD_LINES)[:_HEAD_LINES], start=1):
        record = _record(line) if line.strip() else {}
        if isinstance(record, dict):
            fields |= dict.fromkeys(str(name) for row in _flat(record) for name in row)
        else:
            reason = reason or f"{path}, {_what(path)} {number}: cannot be parsed ({record})"
    if not fields:
        raise DataError(
            f"{reason or f'{path} holds no field'}, and no other of its first {_HEAD_LINES} lines holds an object. "
            "There must be one JSON object a line, not one spread over several."
        )
    return list(fields)


def read_json_lines(
    path: Path, blocks: Iterator[bytes], mapping: Mapping[str, str], *, skip_bad: bool
) -> Iterator[Rows]:
    """Parse at polars' speed; only a block with a line that polars cannot parse is read record by record.

    Args:
        path: For messages.
        blocks: Blocks of whole lines.
        mapping: Our column -> the file's field.
        skip_bad: Count lines that cannot be parsed instead of raising at the first one.

    Yields:
        Rows as text; ratings and timestamps that are numbers throughout, as numbers.

    Raises:
        DataError: At a line that cannot be parsed.
    """
    nested = any("." in theirs for theirs in mapping.values())
    text = dict.fromkeys(mapping.values(), pl.String)
    numbers = {mapping[ours]: kind for ours, kind in _NUMBERS.items() if ours in mapping}
    for number, block in enumerate(blocks):
        slow = nested or block.lstrip()[:2] in (b"{'", b"{u")
        table = None if slow else _fast(block, text | numbers)
        if table is None and numbers and not slow:  # then it is text, here or everywhere
            table, numbers = _fast(block, text), {}
        if table is not None:
            yield Rows(table.select(pl.col(theirs).alias(ours) for ours, theirs in mapping.items()), 0)
        else:
            yield from _slowly(path, block, number, mapping, skip_bad=skip_bad)


def _fast(block: bytes, schema: dict[str, Any]) -> pl.DataFrame | None:
    if block.startswith(POLARS_UNPACKS):
        return None
    try:
        return pl.read_ndjson(block, schema=schema)
    except POLARS_ERRORS:
        return None


def _slowly(path: Path, block: bytes, number: int, mapping: Mapping[str, str], *, skip_bad: bool) -> Iterator[Rows]:
    rows: list[list[str | None]] = []
    n_bad = 0
    for at, line in enumerate(block.split(b"\n"), start=1):
        if not line.strip():
            continue
        record = _record(line)
        if isinstance(record, str):
            if not skip_bad:
                raise bad_line(path, at + _lines_before(path, number), record, what=_what(path))
            n_bad += 1
            continue
        rows.extend([_as_text(row.get(theirs)) for theirs in mapping.values()] for row in _flat(record))
        if len(rows) >= _SLOW_ROWS:
            yield Rows(text_frame(rows, mapping), n_bad)
            rows, n_bad = [], 0
    yield Rows(text_frame(rows, mapping), n_bad)


def _lines_before(path: Path, n_blocks: int) -> int:
    """Lines of the first blocks. Only a bad line asks, so the file is read again rather than counted every time."""
    return sum(block.count(b"\n") for block in itertools.islice(read_blocks(path, Meter()), n_blocks))


def _what(path: Path) -> str:
    """What the lines of the blocks are in the file."""
    return "record" if holds_array(path) else "line"


def _record(line: bytes) -> dict[str, Any] | str:
    """Return the object on a line, or the reason why there is none."""
    try:
        record = _literal(line) if line.lstrip()[:2] in (b"{'", b"{u") else json.loads(line)
    except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
        return first_line(error)
    return record if isinstance(record, dict) else f"{type(record).__name__} instead of an object"


def _literal(line: bytes) -> Any:
    """Read a Python literal, as in Steam's reviews and Amazon's metadata of 2014; nothing in it is run."""
    return ast.literal_eval(line.decode("utf-8").strip())


def _flat(record: dict[str, Any]) -> Sequence[dict[str, Any]]:
    """Return the records inside a record, each with the outer fields; the record itself where there are none."""
    for name, value in record.items():
        if isinstance(value, list) and value and all(isinstance(inner, dict) for inner in value):
            return [record | {f"{name}.{key}": entry for key, entry in inner.items()} for inner in value]
    return [record]


def _as_text(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text.encode("utf-8", errors="replace").decode()
