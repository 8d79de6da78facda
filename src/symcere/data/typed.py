"""Rows of text to reviews with types; what cannot be used is marked with the reason."""

import polars as pl

from symcere.data.sources import COLUMNS, OF_THE_ITEM, Source

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
"""Columns of a table of reviews."""

FAULTS = ("without user or item id", "rating not a finite number")
"""Why a row cannot be used, in the order in which it is looked at."""

_DATES = (
    "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S%.f%z", "%Y-%m-%d",
    "%a %b %d %H:%M:%S %z %Y",  # Goodreads
    "%b %d, %Y",  # TripAdvisor
    "%B %d, %Y",  # Steam
)  # fmt: skip
_BOOLEANS = {"true": "1", "false": "0", "True": "1", "False": "0"}


def typed(rows: pl.DataFrame, source: Source | None) -> tuple[pl.DataFrame, pl.Series, pl.DataFrame]:
    """Give every column its type.

    Args:
        rows: Text or numbers under our column names, of which some may be missing.
        source: The corpus, for what it calls no rating and nobody.

    Returns:
        The reviews, columns SCHEMA; the fault of each row, null or one of FAULTS; and what the rows say of their
        items, columns item_id, title, category.
    """
    here = set(rows.columns)
    rows = rows.with_columns(
        pl.lit(None, dtype=pl.String).alias(name) for name in (*COLUMNS, *OF_THE_ITEM) if name not in here
    )
    if source and source.nobody:
        rows = rows.with_columns(user_id=pl.when(~pl.col("user_id").is_in(list(source.nobody))).then("user_id"))
    rating, given = _rating(rows["rating"])
    named = pl.all_horizontal(pl.col("user_id", "item_id").fill_null("") != "")
    fault = rows.select(
        pl.when(~named)
        .then(pl.lit(FAULTS[0]))
        .when(given & ~rating.is_finite().fill_null(False))
        .then(pl.lit(FAULTS[1]))
        .alias("fault")
    ).to_series()
    unrated = source.unrated if source else None
    if unrated is not None:
        rating = rating.set((rating == float(unrated)).fill_null(False), None)
    reviews = rows.select(
        "user_id",
        "item_id",
        rating.alias("rating"),
        seconds(rows["timestamp"]),
        _VOTES,
        pl.col("title", "text").fill_null(""),
    )
    items = pl.DataFrame(schema={"item_id": pl.String, "title": pl.String, "category": pl.String})
    if here & set(OF_THE_ITEM):
        items = rows.select("item_id", *(pl.col(ours).alias(theirs) for ours, theirs in OF_THE_ITEM.items()))
    return reviews.cast(SCHEMA), fault, items


_VOTES = (
    pl.when(pl.col("helpful").str.starts_with("["))
    .then("helpful")
    .otherwise(pl.col("helpful").str.replace_all(",", "", literal=True))
    .str.extract(r"(\d+)")
    .cast(pl.Float32, strict=False)
)
"""Votes as a number: 3, 1,234 (Amazon 2018), and the first of [2, 5] (Amazon 2014: two of five found it helpful)."""


def _rating(column: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Numbers, yes and no as 1 and 0; and where something is given, be it a number or not."""
    number = column.cast(pl.Float32, strict=False)
    if number.null_count() > column.null_count():
        words = column.str.strip_chars()
        number = words.cast(pl.Float32, strict=False)
        number = number.fill_null(words.replace_strict(_BOOLEANS, default=None).cast(pl.Float32, strict=False))
        return number, (words != "").fill_null(False)
    return number, column.is_not_null()


def seconds(column: pl.Series) -> pl.Series:
    """Timestamps as whole seconds since 1970.

    Args:
        column: Numbers as text (s, ms, µs or ns by size), or dates in the forms that review corpora use.

    Returns:
        Int64, named timestamp; null where there is no date.

    Example:
        >>> seconds(pl.Series(["1393545600000", "2014-02-28", "Feb 28, 2014", "soon"])).to_list()
        [1393545600, 1393545600, 1393545600, None]
    """
    whole = column.cast(pl.Int64, strict=False)
    if whole.null_count() == column.null_count() and (whole.abs() < 10**11).all():
        return whole.alias("timestamp")
    number = column.cast(pl.Float64, strict=False)
    number = number.set(~(number.is_finite() & (number.abs() < 1e20)).fill_null(True), None)
    for limit in (1e17, 1e14, 1e11):  # 1e11 s is the year 5138; a larger number is in a finer unit
        scale = limit / 1e8
        number = number.set((number.abs() >= limit).fill_null(False), None).fill_null(number / scale)
    if column.dtype == pl.String and number.null_count() > column.null_count():
        words = column.set(number.is_not_null(), None).str.strip_chars()
        words = words.str.replace(r"^Posted ", "").str.replace(r"\.$", "")
        words = words.str.replace(r"^(\d{4}-\d\d-\d\d)T", "$1 ").str.replace("Z$", "")
        for pattern in _DATES:
            zone = None if "%z" in pattern else "UTC"
            date = words.str.to_datetime(pattern, strict=False, time_zone=zone, time_unit="us")
            number = number.fill_null(date.dt.epoch("s").cast(pl.Float64))
    return number.floor().cast(pl.Int64, strict=False).alias("timestamp")
