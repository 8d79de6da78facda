"""From a path to rows of text: format and corpus are recognised from the content, never from the name."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from symcere.data.formats.delimited import SEPARATORS, header, read_delimited
from symcere.data.formats.jsonl import json_fields, read_json_lines
from symcere.data.formats.lara import FIELDS, START, read_lara
from symcere.data.formats.parquet import parquet_schema, read_parquet
from symcere.data.formats.raw import Meter, first_and_all, input_files, is_parquet, read_blocks
from symcere.data.formats.rows import Rows
from symcere.data.sources import (
    ALIASES,
    ITEM_ALIASES,
    RECBOLE,
    REQUIRED,
    REQUIRED_OF_ITEMS,
    SOURCES,
    TRIPADVISOR_LARA,
    Source,
)
from symcere.errors import DataError


@dataclass(frozen=True)
class Wanted:
    """What is looked for in a file.

    Args:
        source: Take this corpus' field names instead of recognising them.
        columns: Our column -> the file's column; wins over what is recognised.
        of_items: Look for items instead of reviews.
    """

    source: Source | None
    columns: Mapping[str, str]
    of_items: bool = False


@dataclass(frozen=True)
class Recognised:
    """A file, or a folder of files, whose fields are known.

    Args:
        name: Of the corpus, or of the format.
        source: The corpus; None for other files.
        rows: Its rows.
    """

    name: str
    source: Source | None
    rows: Iterator[Rows]


def read_rows(path: Path, wanted: Wanted, *, skip_bad: bool, meter: Meter) -> Recognised:
    """Recognise a file and begin to read it. The files of a folder are read one after the other.

    Args:
        path: The file or folder.
        wanted: What to look for.
        skip_bad: Drop and count lines that cannot be parsed, instead of raising at the first one.
        meter: Told how much is read.

    Returns:
        Its rows as text under our column names (those that were found), while one iterates.

    Raises:
        DataError: If the file cannot be read, or lacks a required column.
    """
    files = input_files(path)
    meter.total += sum(file.stat().st_size for file in files if file.exists())
    first = _read_file(files[0], wanted, skip_bad, meter)
    if len(files) == 1:
        return first

    def all_rows() -> Iterator[Rows]:
        yield from first.rows
        for file in files[1:]:
            other = _read_file(file, wanted, skip_bad, meter)
            if other.name != first.name:
                raise DataError(
                    f"{file} is {other.name}, and {files[0].name} beside it {first.name}. The files of a folder are "
                    "read as one; move away what does not belong to it."
                )
            yield from other.rows

    return Recognised(first.name, first.source, all_rows())


def _read_file(path: Path, wanted: Wanted, skip_bad: bool, meter: Meter) -> Recognised:
    if is_parquet(path):
        mapping, source = _resolve(path, list(parquet_schema(path)), "parquet", wanted)
        return Recognised(source.name if source else "parquet", source, read_parquet(path, mapping, meter))
    first, blocks = first_and_all(read_blocks(path, meter), path)
    start = first.lstrip()
    if start[:1] == b"{":
        mapping, source = _resolve(path, json_fields(path, first), "jsonl", wanted)
        rows = read_json_lines(path, blocks, mapping, skip_bad=skip_bad)
        return Recognised(source.name if source else "jsonl", source, rows)
    if start[:1] == b"[":
        raise DataError(
            f"{path} starts with '[', and holds no JSON array of objects. It must hold one, or one object a line."
        )
    if start.startswith(START):
        mapping, source = _resolve(path, list(FIELDS), TRIPADVISOR_LARA.name, wanted)
        return Recognised(TRIPADVISOR_LARA.name, source, read_lara(path, blocks, mapping))
    separator, fields = header(path, first)
    mapping, source = _resolve(path, fields, SEPARATORS[separator], wanted)
    rows = read_delimited(path, blocks, separator, fields, mapping, skip_bad=skip_bad)
    return Recognised(source.name if source else SEPARATORS[separator], source, rows)


def _resolve(path: Path, fields: Sequence[str], kind: str, wanted: Wanted) -> tuple[dict[str, str], Source | None]:
    """Return our column -> the file's field, and the corpus that was recognised."""
    source = wanted.source or _recognised(fields, kind, of_items=wanted.of_items)
    known = (source.items if wanted.of_items else source.columns) if source else {}
    mapping = {ours: theirs for ours, theirs in known.items() if theirs in fields}
    if not known:
        aliases = ITEM_ALIASES if wanted.of_items else ALIASES
        lower = {field.split(":")[0].strip().lower(): field for field in reversed(fields)}
        mapping = {
            ours: next(lower[name] for name in names if name in lower)
            for ours, names in aliases.items()
            if any(name in lower for name in names)
        }
    mapping |= wanted.columns
    found = ", ".join(field[:60] for field in fields[:40]) or "none"
    for ours, theirs in wanted.columns.items():
        if theirs not in fields:
            raise DataError(f"{path} has no column {theirs!r} (asked for as {ours}). Its columns: {found}.")
    required = REQUIRED_OF_ITEMS if wanted.of_items else REQUIRED[:2] if source and source.lacks_text else REQUIRED
    if missing := [column for column in required if column not in mapping]:
        raise DataError(
            f"{path} ({source.name if source else kind}) lacks a column for {', '.join(missing)}. "
            f"Its columns: {found}." + ("" if wanted.of_items else f" Name it with --columns {missing[0]}=COLUMN.")
        )
    return mapping, source


def _recognised(fields: Sequence[str], kind: str, *, of_items: bool) -> Source | None:
    """Find the first corpus whose marks are all there. Only JSON has names that nobody has chosen by chance."""
    if kind == TRIPADVISOR_LARA.name:
        return TRIPADVISOR_LARA
    if kind == "tsv" and all(":" in field for field in fields):
        return RECBOLE
    if kind != "jsonl":
        return None
    marks = [(source, source.item_marks if of_items else source.marks) for source in SOURCES]
    return next((source for source, needed in marks if needed and needed <= set(fields)), None)
