"""A raw file to a folder of Arrow files, in bounded memory: the words go through, and never all at once."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from symcere.data.arrow import map_arrow, read_own_parquet, write_arrow
from symcere.data.filters import Filter, apply_filters
from symcere.data.formats.raw import Meter
from symcere.data.intake import take_in
from symcere.data.interactions import UNDATED, Step
from symcere.data.items import ITEMS_FILE, Items, read_items
from symcere.data.reviews import Reviews, wanted
from symcere.data.sources import Source
from symcere.errors import DataError
from symcere.manifest import writing

_PART = "reviews-{:05d}.arrow"


@dataclass(frozen=True)
class Ingestion:
    """What to take from which file.

    Args:
        path: The raw file, or a folder of raw files.
        source: The corpus, or None to recognise it.
        columns: The user's column map.
        skip_bad: Drop and count lines that cannot be parsed.
        filters: Applied in this order.
        items: A file of titles and categories, or None.
    """

    path: Path
    source: Source | None = None
    columns: Mapping[str, str] | None = None
    skip_bad: bool = False
    filters: Sequence[Filter] = ()
    items: Path | None = None


def ingest_reviews(
    what: Ingestion, folder: Path, on_progress: Callable[[float], None] | None = None
) -> dict[str, Any]:
    """Read, clean, filter and write reviews; equal inputs give equal bytes.

    Rows pass twice: from the raw file to disk while who, what and when are gathered, and, once it is known which of
    them stay, from there to their final place.

    Args:
        what: File and filters.
        folder: An existing, empty folder; it then holds what `load_reviews` reads.
        on_progress: Called with the share of the raw file that has been read.

    Returns:
        What a manifest says of it: source, steps, n_without_text, n_without_time, n_items.

    Raises:
        DataError: If a file cannot be read, or nothing is left.
        OutputError: If the folder cannot be written.
    """
    sizes: list[int] = []

    def keep(batch: pl.DataFrame) -> None:
        write_arrow(batch, folder / f"raw-{len(sizes):05d}.arrow")
        sizes.append(len(batch))

    found = take_in(
        what.path,
        wanted(what.source, what.columns),
        skip_bad=what.skip_bad,
        keep=keep,
        meter=Meter(on_progress=on_progress),
    )
    left, steps = apply_filters(found.interactions, what.filters)
    ends = np.cumsum(sizes)
    n_parts = 0
    for number, (begin, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
        raw = folder / f"raw-{number:05d}.arrow"
        rows = left.row[np.searchsorted(left.row, begin) : np.searchsorted(left.row, end)] - begin
        if len(rows):
            write_arrow(map_arrow([raw])[rows], folder / _PART.format(n_parts))
            n_parts += 1
        with writing(raw):
            raw.unlink()
    items = found.items
    if what.items:
        items = read_items(what.items, source=what.source).completed(items)
    items = items.only(left.item_ids.gather(np.unique(left.item)))
    write_arrow(items.table, folder / ITEMS_FILE)
    return {
        "source": found.source,
        "steps": [asdict(step) for step in (*found.steps, *steps)],
        "n_without_text": int((left.n_characters == 0).sum()),
        "n_without_time": int((left.timestamp == UNDATED).sum()),
        "n_titles": int((items.table["title"] != "").sum()),
    }


def load_reviews(folder: Path, manifest: Mapping[str, Any]) -> Reviews:
    """Map what `ingest_reviews` wrote: words are read from disk when they are looked at.

    Args:
        folder: The folder.
        manifest: What `ingest_reviews` returned.

    Returns:
        The reviews.

    Raises:
        DataError: If the folder holds no reviews, or a file is damaged.
    """
    mapped = sorted(folder.glob(_PART.replace("{:05d}", "*")))
    read = sorted(folder.glob("reviews-*.parquet"))  # ingested on Ray
    if not mapped and not read:
        raise DataError(f"{folder} holds no reviews. Make it again with symcere ingest.")
    table = map_arrow(mapped) if mapped else pl.concat([read_own_parquet(part) for part in read])
    items = map_arrow([folder / ITEMS_FILE]) if mapped else read_own_parquet(folder / "items.parquet")
    return Reviews(table, manifest["source"], tuple(Step(**step) for step in manifest["steps"]), Items(items))
