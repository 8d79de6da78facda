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
        ours: Whether it is JSON lines under our own column names, as `symcere feedback` writes them.
    """

    name: str
    source: Source | None
    rows: Iterator[Rows]
    ours: bool = False


def read_rows(path: Path, wanted: Wanted, *, skip_bad: bool, meter: Meter) -> Recognised:
    """Recognise a file and begin to read it. The files of a folder are read one after the other.

    They must be of one kind, by which the folder is called. Only JSON lines under our own column names may stand
    beside any kind; what it takes for no rating and for nobody is taken so in them too.

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
    named, kind = files[0], first
    if first.ours:
        heads = ((file, _read_file(file, wanted, skip_bad, Meter())) for file in files[1:])
        named, kind = next(((file, head) for file, head in heads if not head.ours), (named, kind))

    def all_rows() -> Iterator[Rows]:
        yield from first.rows
        for file in files[1:]:
            other = _read_file(file, wanted, skip_bad, meter)
            if other.name != kind.name and not other.ours:
                raise DataError(
                    f"{file} is {other.name}, and {named.name} beside it {kind.name}. The files of a folder are "
                    "read as one; move away what does not belong to it."
                )
            yield from other.rows

    return Recognised(kind.name, kind.source, all_rows(), kind.ours)


def _read_file(path: Path, wanted: Wanted, skip_bad: bool, meter: Meter) -> Recognised:
    if is_parquet(path):
        mapping, source = _resolve(path, list(parquet_schema(path)), "parquet", wanted)
        return Recognised(source.name if source else "parquet", source, read_parquet(path, mapping, meter))
    first, blocks = first_and_all(read_blocks(path, meter), path)
    start = first.lstrip()
    if start[:1] == b"{":
        fields = json_fields(path, first)
        mapping, source = _resolve(path, fields, "jsonl", wanted)
        names, late = _all_names(mapping, fields, source, wanted)
        rows = read_json_lines(path, blocks, names, late, skip_bad=skip_bad)
        ours = source is None and all(name == theirs for name, theirs in mapping.items())
        return Recognised(source.name if source else "jsonl", source, rows, ours)
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
    known = _known(source, wanted)
    mapping = {ours: theirs for ours, theirs in known.items() if theirs in fields}
    if not known:
        lower = _lower(fields)
        mapping = {
            ours: next(lower[name] for name in names if name in lower)
            for ours, names in _aliases(wanted).items()
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


def _all_names(
    mapping: dict[str, str], fields: Sequence[str], source: Source | None, wanted: Wanted
) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Return our column -> its fields, be they there or not, and other names -> our column: a field may come late."""
    known = _known(source, wanted)
    names = {ours: [theirs] for ours, theirs in (known | mapping).items()}
    if known:
        return names, {}
    others = {
        name: ours for ours, aliases in _aliases(wanted).items() for name in aliases if name not in _lower(fields)
    }
    return names, {name: ours for name, ours in others.items() if ours not in wanted.columns}


def _known(source: Source | None, wanted: Wanted) -> dict[str, str]:
    return dict(source.items if wanted.of_items else source.columns) if source else {}


def _aliases(wanted: Wanted) -> Mapping[str, tuple[str, ...]]:
    return ITEM_ALIASES if wanted.of_items else ALIASES


def _lower(fields: Sequence[str]) -> dict[str, str]:
    """Names as aliases are written -> the fields; of several, the first."""
    return {field.split(":")[0].strip().lower(): field for field in reversed(fields)}


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
