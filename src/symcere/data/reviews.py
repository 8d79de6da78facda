"""Raw review files to one clean table: format recognised from content, every dropped row counted."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from symcere.data.formats import read_rows
from symcere.data.sources import COLUMNS, Source
from symcere.errors import ConfigError, DataError

SCHEMA = pl.Schema(
    {
        "user_id": pl.String,
        "item_id": pl.String,
        "rating": pl.Float32,
        "timestamp": pl.Int64,
        "helpful": pl.Float32,
        "title": pl.String,
        "text": pl.String,
    }
)


@dataclass(frozen=True)
class Step:
    """What one stage left, and how many rows it dropped or noted, for the manifest."""

    name: str
    n_reviews: int
    n_users: int
    n_items: int
    dropped: int = 0


@dataclass(frozen=True)
class Reviews:
    """A clean table of reviews: one row a (user, item) pair.

    Args:
        table: Columns user_id, item_id (text, never empty), rating (float32; null where unknown),
            timestamp (seconds since 1970; null where unknown), helpful (votes of readers; null where
            unknown), title and text (never null).
        source: The corpus or file format that was recognised.
        steps: Counts after each stage so far, oldest first.
        n_without_text: Rows without any text. They stay as interactions and take no part in text terms.

    Raises:
        DataError: If columns differ from the schema or a (user, item) pair occurs twice.
    """

    table: pl.DataFrame
    source: str
    steps: tuple[Step, ...] = ()

    def __post_init__(self) -> None:
        """Check columns and uniqueness."""
        if self.table.schema != SCHEMA:
            raise DataError(f"A table of reviews has columns {dict(SCHEMA)}; found {dict(self.table.schema)}.")
        if self.table.select("user_id", "item_id").is_duplicated().any():
            raise DataError("A (user, item) pair occurs twice. Read the file with read_reviews, which drops them.")

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

    def after(self, name: str, table: pl.DataFrame) -> "Reviews":
        """Return the reviews that a stage called `name` left, with its counts appended to `steps`."""
        step = count(name, table, dropped=self.table.height - table.height)
        return replace(self, table=table, steps=(*self.steps, step))

    def summary(self) -> list[dict[str, Any]]:
        """The steps as JSON values, for a manifest."""
        return [asdict(step) for step in self.steps]


def count(name: str, table: pl.DataFrame, dropped: int = 0) -> Step:
    """Count rows, users and items of `table` as the step called `name`."""
    return Step(name, table.height, table["user_id"].n_unique(), table["item_id"].n_unique(), dropped)


def read_reviews(
    path: str | Path,
    *,
    source: Source | None = None,
    columns: Mapping[str, str] | None = None,
    skip_bad: bool = False,
) -> Reviews:
    r"""Read a raw review file into a clean table.

    Understood are JSON lines, CSV, TSV (each also gzipped) and Parquet. The format is recognised from the
    content, not the name; the corpus (Amazon 2014 and 2018, Yelp) from its fields; other files by common
    column names. Rows without a user or item id, rows whose rating is not a finite number, and all but the
    first review in time of a (user, item) pair are dropped and counted in `steps`.

    Args:
        path: The file.
        source: Take this corpus' field names instead of recognising them.
        columns: Our column -> the file's column, for any of user_id, item_id, rating, timestamp, helpful, title,
            text; wins over what is recognised.
        skip_bad: Drop and count lines that cannot be parsed, instead of raising at the first one.

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
    path = Path(path)
    chosen = dict(columns or {})
    if unknown := sorted(set(chosen) - set(COLUMNS)):
        raise ConfigError(f"Unknown column {unknown[0]!r} in the column map. Ours are: {', '.join(COLUMNS)}.")
    table, name, n_bad = read_rows(path, source, chosen, skip_bad=skip_bad)
    return _clean(path, table, name, n_bad)


def _clean(path: Path, table: pl.DataFrame, source: str, n_bad: int) -> Reviews:
    """Give every column its type; drop what cannot be used, count by count; keep the first of a pair."""
    table = table.with_columns(
        pl.lit(None, dtype=pl.String).alias(name) for name in COLUMNS if name not in table.columns
    ).select(COLUMNS)
    table = table.with_columns(pl.col("title", "text").fill_null(""), _seconds(table["timestamp"]), _VOTES)
    steps = [count("read", table, dropped=n_bad)]

    def drop(name: str, keep: pl.Expr, table: pl.DataFrame) -> pl.DataFrame:
        kept = table.filter(keep)
        if kept.height < table.height:
            steps.append(count(name, kept, dropped=table.height - kept.height))
        return kept

    named = pl.all_horizontal(pl.col("user_id", "item_id").fill_null("") != "")
    table = drop("without user or item id", named, table)
    table = table.with_columns(pl.col("rating").str.strip_chars().replace("", None))
    number = pl.col("rating").cast(pl.Float32, strict=False)
    table = drop(
        "rating not a finite number", pl.col("rating").is_null() | number.is_finite().fill_null(False), table
    )
    table = table.with_columns(number.alias("rating"))
    order = table.with_row_index("row").sort("timestamp", "row", nulls_last=True)
    first = order.unique(["user_id", "item_id"], keep="first", maintain_order=True).sort("row").drop("row")
    if first.height < table.height:
        steps.append(count("duplicate (user, item)", first, dropped=table.height - first.height))
    if first.is_empty():
        found = "; ".join(f"{step.dropped} dropped: {step.name}" for step in steps if step.dropped) or "0 rows"
        raise DataError(f"{path} holds no usable review ({found}). Check the file and the column map.")
    return Reviews(first.select(COLUMNS).cast(SCHEMA), source, tuple(steps))


_VOTES = (
    pl.when(pl.col("helpful").str.starts_with("["))
    .then("helpful")
    .otherwise(pl.col("helpful").str.replace_all(",", "", literal=True))
    .str.extract(r"(\d+)")
    .cast(pl.Float32, strict=False)
)
"""Votes as a number: 3, 1,234 (Amazon 2018), and the first of [2, 5] (Amazon 2014: two of five found it helpful)."""


def _seconds(column: pl.Series) -> pl.Series:
    """Timestamps as whole seconds since 1970 from numbers (s, ms, µs or ns by size) or ISO dates."""
    number = column.cast(pl.Float64, strict=False)
    number = number.set(~(number.is_finite() & (number.abs() < 1e20)).fill_null(True), None)
    for limit in (1e17, 1e14, 1e11):  # 1e11 s is the year 5138; a larger number is in a finer unit
        scale = limit / 1e8
        number = number.set((number.abs() >= limit).fill_null(False), None).fill_null(number / scale)
    words = column.set(number.is_not_null(), None)
    words = words.str.strip_chars().str.replace("T", " ", literal=True).str.replace("Z$", "")
    dates: Iterable[pl.Series] = (
        words.str.to_datetime(pattern, strict=False, time_zone=None if "%z" in pattern else "UTC", time_unit="us")
        .dt.epoch("s")
        .cast(pl.Float64)
        for pattern in ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S%.f%z", "%Y-%m-%d")
    )
    for date in dates:
        number = number.fill_null(date)
    return number.floor().cast(pl.Int64, strict=False).alias("timestamp")
