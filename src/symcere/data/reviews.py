"""The table of reviews, one row a (user, item) pair, and how a raw file becomes one."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from symcere.data.filters import Filter, apply_filters
from symcere.data.formats.raw import Meter
from symcere.data.formats.recognise import Wanted
from symcere.data.intake import take_in
from symcere.data.interactions import Interactions, Step, interactions_of, keys_of
from symcere.data.items import Items
from symcere.data.sources import COLUMNS, Source
from symcere.data.typed import SCHEMA
from symcere.errors import ConfigError, DataError


@dataclass(frozen=True)
class Reviews:
    """A clean table of reviews: one row a (user, item) pair.

    Args:
        table: Columns user_id, item_id (text, never empty), rating (float32; null where unknown),
            timestamp (seconds since 1970; null where unknown), helpful (votes of readers; null where
            unknown), title and text (never null).
        source: The corpus or file format that was recognised.
        steps: Counts after each stage so far, oldest first.
        items: Titles and categories, where the file has them.
        known: The reviews without their words, where they are at hand; found in the table otherwise.

    Raises:
        DataError: If columns differ from the schema or a (user, item) pair occurs twice.
    """

    table: pl.DataFrame
    source: str
    steps: tuple[Step, ...] = ()
    items: Items = field(default_factory=Items)
    known: Interactions | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check columns and uniqueness."""
        if self.table.schema != SCHEMA:
            raise DataError(f"A table of reviews has columns {dict(SCHEMA)}; found {dict(self.table.schema)}.")
        pairs = np.sort(self.interactions.pair) if self.known is None else np.empty(0)
        if (pairs[1:] == pairs[:-1]).any():
            raise DataError("A (user, item) pair occurs twice. Read the file with read_reviews, which drops them.")

    @cached_property
    def interactions(self) -> Interactions:
        """The reviews without their words."""
        return self.known or interactions_of(keys_of(self.table))

    @property
    def n_without_text(self) -> int:
        """How many rows have neither title nor text; they stay as interactions, outside the text terms."""
        blank = pl.all_horizontal(pl.col("title", "text").str.strip_chars() == "")
        return int(self.table.select(blank.sum()).item())

    @property
    def n_without_time(self) -> int:
        """How many rows have no usable timestamp; only splits by time need one."""
        return self.table["timestamp"].null_count()

    def __len__(self) -> int:
        return self.table.height

    def filtered(self, *filters: Filter) -> "Reviews":
        """Return the reviews that pass all filters, applied in this order; each adds its counts to `steps`.

        Args:
            *filters: Such as MinRating(4), Period("2014-01-01"), TextLength(20), Sample(0.1), KCore(5).

        Returns:
            The reviews that are left.

        Raises:
            DataError: If a filter leaves nothing, or the reviews lack what it needs.

        Example:
            >>> import symcere as sc
            >>> reviews = sc.anchoring_world(20, 30, 5).reviews.filtered(sc.MinRating(4), sc.KCore(2))
            >>> [step.name for step in reviews.steps]
            ['rating at least 4', '2-core']
        """
        left, steps = apply_filters(self.interactions, filters)
        return replace(self, table=self.table[left.row], steps=(*self.steps, *steps), known=left.of_a_table())

    def summary(self) -> list[dict[str, Any]]:
        """The steps as JSON values, for a manifest."""
        return [asdict(step) for step in self.steps]


def read_reviews(
    path: str | Path,
    *,
    source: Source | None = None,
    columns: Mapping[str, str] | None = None,
    skip_bad: bool = False,
    filters: Sequence[Filter] = (),
) -> Reviews:
    r"""Read a raw review file into a clean table.

    Understood are JSON lines, JSON arrays, CSV, TSV (each also gzipped), Parquet, TripAdvisor's text files and
    RecBole's atomic files, or a folder of files of one kind, beside which JSON lines under our own column names may
    stand (`symcere feedback`). The format is recognised from the content, not the name; the corpus from its fields
    (see `symcere.data.sources`); other files by common column names. Rows without a user or item id, rows whose
    rating is not a finite number, and all but the first review in time of a (user, item) pair are dropped and
    counted in `steps`.

    Args:
        path: The file or folder.
        source: Take this corpus' field names instead of recognising them.
        columns: Our column -> the file's column, for any of user_id, item_id, rating, timestamp, helpful, title,
            text; wins over what is recognised.
        skip_bad: Drop and count lines that cannot be parsed, instead of raising at the first one.
        filters: Applied in this order.

    Returns:
        The reviews, rows in the order of the file.

    Raises:
        DataError: If the file is missing, empty, damaged, lacks a required column, or nothing is left of it.
        ConfigError: If `columns` names a column that we do not have.

    Example:
        >>> import tempfile, pathlib
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "reviews.csv"
        >>> _ = file.write_text("user_id,item_id,text\nann,strap,sturdy leather\nann,strap,again\n")
        >>> reviews = read_reviews(file)
        >>> len(reviews), reviews.steps[-1].name, reviews.steps[-1].dropped
        (1, 'duplicate (user, item)', 1)
    """
    batches: list[pl.DataFrame] = []
    found = take_in(Path(path), wanted(source, columns), skip_bad=skip_bad, keep=batches.append, meter=Meter())
    left, steps = apply_filters(found.interactions, filters)
    table = pl.concat(batches, rechunk=True)[left.row]  # of one chunk polars gathers views, of several text
    known = left.of_a_table()
    return Reviews(table, found.source, (*found.steps, *steps), found.items.only(known.item_ids), known)


def wanted(source: Source | None, columns: Mapping[str, str] | None) -> Wanted:
    """What to look for in a file of reviews.

    Args:
        source: The corpus, or None to recognise it.
        columns: The user's column map.

    Returns:
        What `read_rows` takes.

    Raises:
        ConfigError: If `columns` names a column that we do not have.
    """
    chosen = dict(columns or {})
    if unknown := sorted(set(chosen) - set(COLUMNS)):
        raise ConfigError(f"Unknown column {unknown[0]!r} in the column map. Ours are: {', '.join(COLUMNS)}.")
    return Wanted(source, chosen)
