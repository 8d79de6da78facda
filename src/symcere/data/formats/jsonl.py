"""JSON lines, arrays of the same records, and the Python literals of older corpora that look like them."""

import ast
import itertools
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from symcere.data.formats.raw import Meter, holds_array, read_blocks
from symcere.data.formats.rows import POLARS_ERRORS, POLARS_UNPACKS, Rows, bad_line, first_line, text_frame
from symcere.errors import DataError

_HEAD_LINES = 1_000  # lines whose keys decide the source; a field may be absent from them all
_SLOW_ROWS = 50_000  # records in memory as Python objects
_NUMBERS: dict[str, Any] = {"rating": pl.Float64, "timestamp": pl.Int64}  # polars refuses anything else under these

_IDS = ("user_id", "item_id")
_HALF = re.compile("[\ud800-\udfff]")
_HEX = rb"[0-9a-fA-F]{2}"
_HIGH, _LOW = rb"[dD][89abAB]" + _HEX, rb"[dD][c-fC-F]" + _HEX
_ESCAPED_HALF = re.compile(rb"\\u(?:%b(?!\\u%b)|%b(?<!\\u%b\\u.{4}))" % (_HIGH, _LOW, _LOW, _HIGH))
_MARKED_HALF = "\ufffd(?:d[89a-f][0-9a-f]{2})"


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
    path: Path,
    blocks: Iterator[bytes],
    names: Mapping[str, Sequence[str]],
    late: Mapping[str, str],
    *,
    skip_bad: bool,
) -> Iterator[Rows]:
    """Parse at polars' speed; only a block with a line that polars cannot parse is read record by record.

    Half of a character (a lone surrogate, where a text was cut within an emoji) becomes U+FFFD. In ids its number
    stays behind that: two users must not become one.

    Args:
        path: For messages.
        blocks: Blocks of whole lines.
        names: Our column -> the file's fields; of a record counts the first that is not null.
        late: Further names, lower case, in order of preference -> our column. They are looked for in every block, in
            upper and lower case, and count after those of `names`.
        skip_bad: Count lines that cannot be parsed instead of raising at the first one.

    Yields:
        Rows as text; ratings and timestamps that are numbers throughout, as numbers.

    Raises:
        DataError: At a line that cannot be parsed.
    """
    nested = any("." in field for fields in names.values() for field in fields)
    numbers = _NUMBERS
    came: set[str] = set()
    for number, block in enumerate(blocks):
        came |= _fields_named(block, late)
        here = _with_late(names, late, came)
        slow = nested or block.lstrip()[:2] in (b"{'", b"{u")
        table = None if slow else _fast(block, here, numbers)
        if table is None and numbers and not slow:  # then it is text, here or everywhere
            table, numbers = _fast(block, here, {}), {}
        if table is not None:
            yield Rows(table, 0)
        else:
            yield from _slowly(path, block, number, here, skip_bad=skip_bad)


def _fields_named(block: bytes, names: Collection[str]) -> set[str]:
    """Find the fields of these names as they are spelled; what only looks like a field does no harm."""
    if not names:
        return set()
    pattern = rf"""(?i-u)["'](?:{"|".join(map(re.escape, names))})["']\s*:"""
    found = pl.Series([block.decode("utf-8", errors="replace")]).str.extract_all(pattern).explode().drop_nulls()
    return {re.split("[\"']", each)[1] for each in found.unique()}  # the two quotation marks may differ


def _with_late(names: Mapping[str, Sequence[str]], late: Mapping[str, str], came: set[str]) -> dict[str, list[str]]:
    """Names with the late ones that came: in the order of preference, so that it does not matter when they came."""
    order = list(late)
    joined = {ours: list(fields) for ours, fields in names.items()}
    for field in sorted(came, key=lambda field: (order.index(field.lower()), field)):
        joined.setdefault(late[field.lower()], []).append(field)
    return joined


def _fast(block: bytes, names: Mapping[str, Sequence[str]], numbers: Mapping[str, Any]) -> pl.DataFrame | None:
    if block.startswith(POLARS_UNPACKS):
        return None
    schema = {field: numbers.get(ours, pl.String) for ours, fields in names.items() for field in fields}
    block, n_halves = _ESCAPED_HALF.subn(_marked, block)  # of some polars makes NUL, and refuses others
    try:
        table = pl.read_ndjson(block, schema=schema)
    except POLARS_ERRORS:
        return None
    table = table.select(pl.coalesce(fields).alias(ours) for ours, fields in names.items())
    words = [pl.col(name).str.replace_all(_MARKED_HALF, "\ufffd") for name in _words(table)] if n_halves else []
    return table.with_columns(words)


def _words(table: pl.DataFrame) -> list[str]:
    return [name for name, kind in table.schema.items() if kind == pl.String and name not in _IDS]


def _marked(half: re.Match[bytes]) -> bytes:
    """U+FFFD and the number of a half; as it is where its backslash is itself escaped."""
    begin = end = half.start()
    while begin and half.string[begin - 1] == ord("\\"):
        begin -= 1
    return half[0] if (end - begin) % 2 else rb"\ufffd" + half[0][2:].lower()


def _slowly(
    path: Path, block: bytes, number: int, names: Mapping[str, Sequence[str]], *, skip_bad: bool
) -> Iterator[Rows]:
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
        rows.extend([_value(row, ours, fields) for ours, fields in names.items()] for row in _flat(record))
        if len(rows) >= _SLOW_ROWS:
            yield Rows(text_frame(rows, names), n_bad)
            rows, n_bad = [], 0
    yield Rows(text_frame(rows, names), n_bad)


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


def _value(row: Mapping[str, Any], ours: str, fields: Sequence[str]) -> str | None:
    """The first of some fields that is not null, as text."""
    value = next((row[field] for field in fields if row.get(field) is not None), None)
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    if text.isascii():
        return text
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")  # pairs become characters
    return _HALF.sub(lambda half: f"\ufffd{ord(half[0]):x}" if ours in _IDS else "\ufffd", whole)
