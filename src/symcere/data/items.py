"""What is known of the items beside their reviews: titles and categories."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import polars as pl

from symcere.data.formats.raw import Meter
from symcere.data.formats.recognise import Wanted, read_rows
from symcere.data.sources import ITEM_COLUMNS, Source
from symcere.errors import ConfigError, DataError

ITEMS = pl.Schema(dict.fromkeys(ITEM_COLUMNS, pl.String))
"""Columns of a table of items."""

ITEMS_FILE = "items.arrow"
"""The file that holds one, beside the reviews, in the folder of a run, or in a bundle."""


@dataclass(frozen=True, eq=False)
class Items:
    """Titles and categories of items; an item may lack either, and may not be there at all.

    Args:
        table: Columns item_id, title, category; one row an item, "" where unknown.

    Raises:
        DataError: If columns differ or an item occurs twice.
    """

    table: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=ITEMS))

    def __post_init__(self) -> None:
        """Check columns and uniqueness."""
        if self.table.schema != ITEMS or self.table["item_id"].is_duplicated().any():
            raise DataError(f"A table of items has columns {', '.join(ITEMS)}, and one row an item.")

    def __len__(self) -> int:
        return self.table.height

    @cached_property
    def _titles(self) -> dict[str, str]:
        return dict(self.table.select("item_id", "title").iter_rows())

    def title(self, item_id: str) -> str:
        """Title of an item, "" where unknown."""
        return self._titles.get(item_id, "")

    def only(self, item_ids: pl.Series) -> "Items":
        """Those among some ids."""
        return Items(self.table.filter(pl.col("item_id").is_in(item_ids.implode())))

    def completed(self, others: "Items") -> "Items":
        """These, and what others know that these do not."""
        return _first_known(pl.concat([self.table, others.table]))


def items_of(rows: pl.DataFrame) -> Items:
    """Make a table of items of rows of text, of which some columns may be missing.

    Args:
        rows: Columns item_id, title, category; the first row that says something of an item counts.

    Returns:
        The items; lists of categories become paths.

    Example:
        >>> items_of(pl.DataFrame({"item_id": ["a"], "category": ['[["Music", "Guitars"]]']})).table.rows()
        [('a', '', 'Music > Guitars')]
    """
    rows = rows.with_columns(pl.lit(None, dtype=pl.String).alias(name) for name in ITEMS if name not in rows.columns)
    rows = rows.filter(pl.col("item_id").fill_null("") != "").select(ITEM_COLUMNS)
    words = pl.col("category").str.extract_all(r'"(?:[^"\\]|\\.)*"').list.eval(pl.element().str.strip_chars('"'))
    path = words.list.unique(maintain_order=True).list.join(" > ")
    rows = rows.with_columns(
        category=pl.when(pl.col("category").str.starts_with("[")).then(path).otherwise("category")
    ).with_columns(pl.col("title", "category").fill_null("").str.strip_chars().str.slice(0, 500))
    return _first_known(rows)


def read_items(
    path: str | Path,
    *,
    source: Source | None = None,
    columns: Mapping[str, str] | None = None,
    skip_bad: bool = False,
    meter: Meter | None = None,
) -> Items:
    """Read titles and categories of items from the metadata file of a corpus, or any table of items.

    Args:
        path: JSON lines, a JSON array, CSV, TSV (each also gzipped) or Parquet, or a folder of such files.
        source: Take this corpus' field names instead of recognising them.
        columns: Our column -> the file's column, for item_id, title and category.
        skip_bad: Drop lines that cannot be parsed instead of raising at the first one.
        meter: Told how much of the file is read.

    Returns:
        The items.

    Raises:
        DataError: If the file is missing, damaged, or has no column for item_id or title.
        ConfigError: If `columns` names a column that we do not have.
    """
    chosen = dict(columns or {})
    if unknown := sorted(set(chosen) - set(ITEM_COLUMNS)):
        raise ConfigError(f"Unknown column {unknown[0]!r} of items. Ours are: {', '.join(ITEM_COLUMNS)}.")
    found = read_rows(Path(path), Wanted(source, chosen, of_items=True), skip_bad=skip_bad, meter=meter or Meter())
    parts = [items_of(rows.table).table for rows in found.rows]
    items = _first_known(pl.concat([pl.DataFrame(schema=ITEMS), *parts]))
    if not len(items):
        raise DataError(f"{path} holds no item with an id. Check the file and the column map.")
    return items


def _first_known(rows: pl.DataFrame) -> Items:
    """One row an item: the first title and the first category that are not empty."""
    known = [pl.col(name).filter(pl.col(name) != "").first().fill_null("") for name in ("title", "category")]
    return Items(rows.group_by("item_id", maintain_order=True).agg(known))
