"""The formats: bytes of a raw file to rows of text, whatever they mean; a damaged file is named by its line."""

import codecs
import contextlib
import csv
import gzip
import hashlib
import io
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from symcere.data.sources import ALIASES, REQUIRED, SOURCES, Source
from symcere.errors import DataError

_HEAD_LINES = 1_000  # JSON lines whose keys decide the source: a field may be absent from single lines
_SEPARATORS = {",": "csv", "\t": "tsv", ";": "csv with semicolons", "|": "csv with bars"}


def read_rows(
    path: Path, source: Source | None, columns: Mapping[str, str], *, skip_bad: bool
) -> tuple[pl.DataFrame, str, int]:
    """Read a file of any known format; format and corpus are recognised from the content.

    Args:
        path: The file.
        source: Take this corpus' field names instead of recognising them.
        columns: Our column -> the file's column; wins over what is recognised.
        skip_bad: Drop and count lines that cannot be parsed, instead of raising at the first one.

    Returns:
        Rows as text under our column names (those that were found), the name of what was recognised, and the
        number of lines dropped.

    Raises:
        DataError: If the file cannot be read, or lacks a required column.
    """
    raw = _read_bytes(path)
    if raw is None:
        mapping, name = _resolve(path, _parquet_fields(path), "parquet", source, columns)
        return _read_parquet(path, mapping), name, 0
    start = raw.lstrip()[:1]
    if start == b"{":
        mapping, name = _resolve(path, _json_fields(path, raw), "jsonl", source, columns)
        table, n_bad = _read_json_lines(path, raw, mapping, skip_bad)
    elif start == b"[":
        raise DataError(
            f"{path} must hold one JSON object a line; it starts with '['. Convert it, for example with: "
            f"jq -c '.[]' {path.name} > reviews.jsonl"
        )
    else:
        text = _decode(path, raw)
        separator, fields = _header(path, text)
        mapping, name = _resolve(path, fields, _SEPARATORS[separator], source, columns)
        table, n_bad = _read_delimited(path, text, separator, fields, mapping, skip_bad)
    return table, name, n_bad


@contextlib.contextmanager
def _open_input(path: Path) -> Iterator[io.BufferedReader]:
    """Open a regular file for reading, or raise the DataError that says why it cannot be."""
    try:
        if path.is_dir():
            raise DataError(f"{path} is a folder. Name the review file inside it.")
        if not path.exists():
            raise DataError(f"{path} does not exist. Check the path (now in {Path.cwd()}).")
        if not path.is_file():
            raise DataError(
                f"{path} is no regular file. Save its content to a file first: it is read more than once."
            )
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}. Check its name and permissions.") from error


def digest_input(path: str | Path) -> str:
    """SHA-256 of a raw file; raises DataError where it cannot be read."""
    with _open_input(Path(path)) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_bytes(path: Path) -> bytes | None:
    """Return the file's content, decompressed; None for Parquet, which polars reads itself."""
    with _open_input(path) as file:
        if file.read(4) == b"PAR1":
            return None
        file.seek(0)
        raw = file.read()
    if raw[:2] == b"\x1f\x8b":
        try:
            raw = gzip.decompress(raw)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError(
                f"{path} is a damaged gzip file ({error}); it may be half downloaded. Fetch it again."
            ) from error
    if raw[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        raise DataError(f"{path} is UTF-16. Convert it, for example with: iconv -f UTF-16 -t UTF-8")
    raw = raw.removeprefix(codecs.BOM_UTF8)
    if not raw.strip():
        raise DataError(f"{path} is empty. It must hold reviews: JSON lines, CSV, TSV or Parquet.")
    if b"\x00" in raw[:4096]:
        raise DataError(f"{path} is binary, and not Parquet or gzip. Give JSON lines, CSV, TSV or Parquet.")
    return raw


def _resolve(
    path: Path, fields: list[str], kind: str, source: Source | None, chosen: Mapping[str, str]
) -> tuple[dict[str, str], str]:
    """Return (our column -> the file's field, name of what was recognised)."""
    if source is None and kind == "jsonl":
        source = next((known for known in SOURCES if known.marks <= set(fields)), None)
    if source is not None:
        mapping = {ours: theirs for ours, theirs in source.columns.items() if theirs in fields}
    else:
        lower = {field.strip().lower(): field for field in reversed(fields)}
        mapping = {
            ours: next(lower[alias] for alias in aliases if alias in lower)
            for ours, aliases in ALIASES.items()
            if any(alias in lower for alias in aliases)
        }
    mapping |= chosen
    found = ", ".join(field[:60] for field in fields[:40]) or "none"
    for ours, theirs in chosen.items():
        if theirs not in fields:
            raise DataError(f"{path} has no column {theirs!r} (asked for as {ours}). Its columns: {found}.")
    if missing := [column for column in REQUIRED if column not in mapping]:
        raise DataError(
            f"{path} ({source.name if source else kind}) lacks a column for {', '.join(missing)}. "
            f"Its columns: {found}. Name it with --columns {missing[0]}=COLUMN."
        )
    return mapping, source.name if source else kind


def _parquet_fields(path: Path) -> list[str]:
    try:
        return list(pl.read_parquet_schema(path))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{path} is a damaged Parquet file ({_first_line(error)}). Fetch it again.") from error


def _read_parquet(path: Path, mapping: Mapping[str, str]) -> pl.DataFrame:
    """Read the mapped columns; everything becomes text except dates, which become seconds first."""
    try:
        table = pl.read_parquet(path, columns=sorted(set(mapping.values())))
        stamps = [name for name, kind in table.schema.items() if kind.is_temporal() and kind != pl.Time]
        table = table.with_columns(pl.col(stamps).dt.epoch("s"))
        if table.schema.get(votes := mapping.get("helpful", ""), pl.Null) == pl.List:
            table = table.with_columns(pl.col(votes).list.first())  # [helpful votes, all votes]
        for ours in ("user_id", "item_id"):
            table = table.with_columns(_id_column(path, table[mapping[ours]]))
        return table.select(pl.col(theirs).cast(pl.String).alias(ours) for ours, theirs in mapping.items())
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{path} cannot be read as Parquet ({_first_line(error)}).") from error


def _id_column(path: Path, column: pl.Series) -> pl.Series:
    """Ids that were stored as numbers: NaN is none, and 7.0 is 7."""
    if column.dtype.is_nested() or column.dtype == pl.Binary:
        raise DataError(f"{path}: column {column.name!r} holds {column.dtype}; an id must be text or a number.")
    if not column.dtype.is_float():
        return column
    column = column.fill_nan(None)
    whole = column.cast(pl.Int64, strict=False)
    return whole if (whole.cast(column.dtype) == column).all() else column


def _json_fields(path: Path, raw: bytes) -> list[str]:
    """Union of the keys of the first lines that parse, in order of appearance."""
    fields: dict[str, None] = {}
    reason = ""
    for number, line in enumerate(raw.split(b"\n", _HEAD_LINES)[:_HEAD_LINES], start=1):
        record = _json_object(line) if line.strip() else {}
        if isinstance(record, dict):
            fields |= dict.fromkeys(record)
        else:
            reason = reason or f"{path}, line {number}: cannot be parsed ({record})"
    if not fields:
        raise DataError(
            f"{reason or f'{path} holds no field'}, and no other of its first {_HEAD_LINES} lines holds an object. "
            "There must be one JSON object a line, not one spread over several."
        )
    return list(fields)


def _json_object(line: bytes) -> dict[str, Any] | str:
    """Return the object on a line, or the reason why there is none."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        return _first_line(error)
    return record if isinstance(record, dict) else f"{type(record).__name__} instead of an object"


def _read_json_lines(path: Path, raw: bytes, mapping: Mapping[str, str], skip_bad: bool) -> tuple[pl.DataFrame, int]:
    """Parse at polars' speed; only a file with a bad line is read again line by line, to name it."""
    wanted = dict.fromkeys(mapping.values())
    try:
        table = pl.read_ndjson(io.BytesIO(raw), schema=dict.fromkeys(wanted, pl.String))
        return table.select(pl.col(theirs).alias(ours) for ours, theirs in mapping.items()), 0
    except pl.exceptions.PolarsError:
        pass
    rows: list[list[str | None]] = []
    n_bad = 0
    for number, line in enumerate(raw.split(b"\n"), start=1):
        if not line.strip():
            continue
        record = _json_object(line)
        if isinstance(record, str):
            if not skip_bad:
                raise _bad_line(path, number, record)
            n_bad += 1
        else:
            rows.append([_as_text(record.get(theirs)) for theirs in mapping.values()])
    return pl.DataFrame(rows, schema=dict.fromkeys(mapping, pl.String), orient="row"), n_bad


def _as_text(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = value if isinstance(value, str) else json.dumps(value)
    return text.encode("utf-8", errors="replace").decode()


def _bad_line(path: Path, number: int, reason: str) -> DataError:
    return DataError(
        f"{path}, line {number}: cannot be parsed ({reason}). Mend the line, or pass --skip-bad to drop and "
        "count such lines."
    )


def _decode(path: Path, raw: bytes) -> str:
    """Decode strictly: a replaced character could make one user of two."""
    try:
        return raw.decode("utf-8").lstrip("\r\n").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        number = raw.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}, line {number}: not UTF-8 (byte {raw[error.start]:#04x}). Convert the file, for example with: "
            "iconv -f LATIN1 -t UTF-8"
        ) from error


def _header(path: Path, text: str) -> tuple[str, list[str]]:
    """Return the separator and the column names of the first line of a delimited file."""
    line = text.split("\n", 1)[0]
    separator = max(_SEPARATORS, key=line.count)
    if separator not in line:
        raise DataError(
            f"{path} is none of JSON lines, CSV, TSV, Parquet: its first line is {line[:80]!r}. "
            "A CSV or TSV file must begin with a line of column names."
        )
    return separator, next(csv.reader([line], delimiter=separator))


def _read_delimited(
    path: Path, text: str, separator: str, fields: list[str], mapping: Mapping[str, str], skip_bad: bool
) -> tuple[pl.DataFrame, int]:
    """Parse record by record: every record must have as many fields as the header.

    A tab-separated file whose every line has the header's number of tabs is taken line by line: there a lone
    quotation mark is a character, not the beginning of a field of many lines.
    """
    wanted = {ours: fields.index(theirs) for ours, theirs in mapping.items()}
    lines = text.split("\n")
    by_line = separator == "\t" and all(line.count("\t") == len(fields) - 1 for line in lines if line)
    rows: list[list[str]] = []
    n_bad = 0
    for number, record in _records(lines, separator, by_line=by_line):
        if isinstance(record, list) and len(record) == len(fields):
            rows.append([record[index] for index in wanted.values()])
        elif record:
            if not skip_bad:
                reason = f"{len(record)} fields where the header has {len(fields)}"
                raise _bad_line(path, number, record if isinstance(record, str) else reason)
            n_bad += 1
    return pl.DataFrame(rows, schema=dict.fromkeys(wanted, pl.String), orient="row"), n_bad


def _records(lines: list[str], separator: str, *, by_line: bool) -> Iterator[tuple[int, list[str] | str]]:
    """Yield (line where a record begins, its fields or the reason why there are none)."""
    csv.field_size_limit(2**31 - 1)
    if by_line:
        for number, line in enumerate(lines[1:], start=2):
            yield number, [_unquote(field) for field in line.split(separator)] if line else []
        return
    records = csv.reader((line + "\n" for line in lines), delimiter=separator, strict=True)
    next(records)
    while True:
        began = records.line_num + 1
        try:
            record: list[str] | str = next(records)
        except StopIteration:
            return
        except csv.Error as error:
            record = str(error)
        yield began, record


def _unquote(field: str) -> str:
    """Take the quotation marks off a field that is quoted as a whole."""
    return field[1:-1].replace('""', '"') if len(field) > 1 and field[0] == field[-1] == '"' else field


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
