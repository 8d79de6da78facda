"""What tasks do with the rows of raw files: read them, deal them out by user, clean and filter them, write them.

A bucket holds all reviews of some users, without their words; the words wait in storage until it is known which of
them stay. What a bucket cannot know alone is how many reviews an item has: items are numbered for all, and counted.
"""

import io
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from numpy import ndarray

from symcere.data.filters import Filter
from symcere.data.formats.raw import Meter
from symcere.data.formats.recognise import Wanted, read_rows
from symcere.data.intake import batches_of, cleaned
from symcere.data.interactions import KEYS, UNDATED, Interactions, interactions_of, keys_of
from symcere.data.items import items_of
from symcere.data.typed import SCHEMA
from symcere.distributed.storage import Storage, fetched
from symcere.errors import DataError

BATCHES = 1 << 20
"""A part is a batch of a file: number of the file times this, plus number of the batch."""

_DEALT = pl.Schema(
    [*KEYS.items(), ("part", pl.Int64), ("place", pl.Int32), ("fault", pl.String), ("body", pl.UInt64)]
)  # what a bucket is made of


@dataclass(frozen=True)
class Read:
    """What is known of a raw file once it is read.

    Args:
        source: The corpus or format that was recognised.
        n_bad: Lines that were dropped.
        parts: Numbers of its parts.
        ours: Whether it may stand beside files of any kind, as what `symcere feedback` writes.
    """

    source: str
    n_bad: int
    parts: tuple[int, ...]
    ours: bool


@dataclass(frozen=True)
class Bucket:
    """All reviews of some users.

    Args:
        left: Those that still stand; `row` numbers the arrays below.
        item: Number of each item of `left.item_ids` among the items of all buckets.
        part: Part that each row comes from.
        place: Its row there.
        fault: Why it cannot be used.
        body: Hash of its body.
    """

    left: Interactions
    item: ndarray
    part: ndarray
    place: ndarray
    fault: pl.Series
    body: pl.Series


@dataclass(frozen=True)
class Count:
    """What a step left in a bucket; several add up.

    Args:
        dropped: How many reviews it dropped.
        n_reviews: How many stand.
        n_users: Of how many users.
        items: A bit for each item that still has one.
    """

    dropped: int
    n_reviews: int
    n_users: int
    items: ndarray

    def __add__(self, other: "Count") -> "Count":
        """Both buckets together."""
        return Count(
            self.dropped + other.dropped,
            self.n_reviews + other.n_reviews,
            self.n_users + other.n_users,
            self.items | other.items,
        )

    @property
    def n_items(self) -> int:
        """Of how many items."""
        return int(np.bitwise_count(self.items).sum())


def raw_name(part: int) -> str:
    """Name of the file of a part, before anything is dropped."""
    return f"raw-{part:012d}.parquet"


def read_file(number: int, url: str, wanted: Wanted, skip_bad: bool, out: str, n_buckets: int) -> tuple[Any, ...]:
    """Read a raw file: its words to storage, all else to buckets.

    Args:
        number: Of the file.
        url: Of the file.
        wanted: What to look for.
        skip_bad: Drop and count lines that cannot be parsed.
        out: Where words wait.
        n_buckets: How many buckets.

    Returns:
        A Read, a table of items, and what goes into each bucket.
    """
    storage = Storage(out)
    dealt, items, n_bad = [pl.DataFrame(schema=_DEALT)], [], 0
    with fetched(url) as path:
        found = read_rows(path, wanted, skip_bad=skip_bad, meter=Meter())
        for n, batch in enumerate(batches_of(found)):
            part = number * BATCHES + n
            storage.write(raw_name(part), parquet(batch.reviews))
            n_bad += batch.n_bad
            keys = keys_of(batch.reviews).with_columns(pl.col("user_id", "item_id").fill_null(""))
            place = pl.int_range(len(keys), dtype=pl.Int32)
            where = keys.with_columns(
                part=pl.lit(part, pl.Int64), place=place, fault=batch.fault, body=batch.body
            ).cast(_DEALT)
            dealt.append(where)
            if len(batch.items):
                items.append(items_of(batch.items).table)
    rows = pl.concat(dealt)
    bucket = _bucket_of(rows["user_id"], n_buckets)
    parts = tuple(number * BATCHES + n for n in range(len(dealt) - 1))
    said = items_of(pl.concat(items)).table if items else None
    return (Read(found.name, n_bad, parts, found.ours), said, *(rows.filter(bucket == b) for b in range(n_buckets)))


def gather(*tables: pl.DataFrame) -> Bucket:
    """Make a bucket of what the files have for it, in the order of the files."""
    rows = pl.concat(tables).sort("part", "place")
    left = interactions_of(rows.select(KEYS.names()))
    empty = np.empty(0, dtype=np.int64)
    return Bucket(left, empty, rows["part"].to_numpy(), rows["place"].to_numpy(), rows["fault"], rows["body"])


def items_in(bucket: Bucket) -> pl.Series:
    """Its item ids in order."""
    return bucket.left.item_ids.sort()


def joined(*ids: pl.Series) -> pl.Series:
    """Ids of several buckets in order, each once."""
    return pl.concat(ids).unique().sort()


def numbered(bucket: Bucket, items: pl.Series) -> tuple[Bucket, Count]:
    """Give items their numbers among all; and what was read."""
    ids = bucket.left.item_ids
    bucket = replace(bucket, item=ids.to_frame("id").select(pl.col("id").replace_strict(
        items, pl.int_range(len(items), eager=True), return_dtype=pl.Int64
    )).to_series().to_numpy() if len(ids) else np.empty(0, dtype=np.int64))  # fmt: skip
    return bucket, counted(bucket, 0, len(items))


def counted(bucket: Bucket, dropped: int, n_items: int) -> Count:
    """What stands in a bucket."""
    left = bucket.left
    there = np.zeros(n_items, dtype=bool)
    there[bucket.item[np.unique(left.item)]] = True
    return Count(dropped, len(left), len(np.unique(left.user)), np.packbits(there))


def clean(bucket: Bucket, n_items: int) -> tuple[Bucket, list[tuple[str, Count]]]:
    """Drop what cannot be used, reason by reason."""
    counts = []
    for reason, left, dropped in cleaned(bucket.left, bucket.fault, bucket.body):
        bucket = replace(bucket, left=left)
        counts.append((reason, counted(bucket, dropped, n_items)))
    return bucket, counts


def keep(bucket: Bucket, chosen: Filter, n_items: int) -> tuple[Bucket, Count | str]:
    """Apply a filter.

    Args:
        bucket: The bucket.
        chosen: The filter.
        n_items: How many items there are in all.

    Returns:
        What is left, and its count; or why the filter cannot be applied to this bucket.
    """
    left = bucket.left
    try:
        mask = chosen(left)
    except DataError as error:
        mask, said = np.zeros(len(left), dtype=bool), str(error)
        return replace(bucket, left=left.kept(mask)), said
    bucket = replace(bucket, left=left.kept(mask))
    return bucket, counted(bucket, len(left) - len(bucket.left), n_items)


def degrees(bucket: Bucket, n_items: int) -> ndarray:
    """Reviews of each item."""
    return np.bincount(bucket.item[bucket.left.item], minlength=n_items).astype(np.int32)


def peel(bucket: Bucket, rare: ndarray, k: int, n_items: int) -> tuple[Bucket, ndarray, int]:
    """Drop the reviews of rare items, then those of users with fewer than k.

    Args:
        bucket: The bucket.
        rare: A bit for each item that is to go.
        k: Least number of reviews of a user.
        n_items: How many items there are in all.

    Returns:
        What is left, reviews of each item in it, and how many went.
    """
    left = bucket.left
    before = len(left)
    left = left.kept(~np.unpackbits(rare, count=n_items).astype(bool)[bucket.item[left.item]])
    left = left.kept(np.bincount(left.user, minlength=len(left.user_ids))[left.user] >= k)
    bucket = replace(bucket, left=left)
    return bucket, degrees(bucket, n_items), before - len(left)


def added(*arrays: ndarray) -> ndarray:
    """Their sum."""
    return np.asarray(np.sum(arrays, axis=0, dtype=arrays[0].dtype))


def places(bucket: Bucket, parts: Sequence[int]) -> tuple[Any, ...]:
    """Where the reviews that stand come from: how many of each part, how many lack text and date, and which rows."""
    left = bucket.left
    part, place = bucket.part[left.row], bucket.place[left.row]
    begin, end = np.searchsorted(part, parts, side="left"), np.searchsorted(part, parts, side="right")
    lacking = int((left.n_characters == 0).sum()), int((left.timestamp == UNDATED).sum())
    return ((end - begin, lacking), *(place[b:e].copy() for b, e in zip(begin, end, strict=True)))


def write_part(url: str, part: int, name: str, *rows: ndarray) -> tuple[str, str, int]:
    """Write the reviews of a part that stay.

    Args:
        url: Where.
        part: Its number.
        name: Of the file to write.
        *rows: Rows that stay, of every bucket.

    Returns:
        Name, SHA-256, and number of rows.
    """
    storage = Storage(url)
    table = pl.from_arrow(_read_parquet(storage.read(raw_name(part))))
    assert isinstance(table, pl.DataFrame)
    kept = table.cast(SCHEMA)[np.sort(np.concatenate(rows))]
    return name, storage.write(name, parquet(kept)), len(kept)


def parquet(table: pl.DataFrame) -> bytes:
    """A table as the bytes of a Parquet file: equal tables give equal bytes."""
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(table.to_arrow(compat_level=pl.CompatLevel.oldest()), buffer, compression="zstd")
    return buffer.getvalue()


def _read_parquet(raw: bytes) -> Any:
    import pyarrow.parquet as pq

    return pq.read_table(io.BytesIO(raw))


def _bucket_of(ids: pl.Series, n_buckets: int) -> pl.Series:
    """The bucket of each id: by a hash that is the same on every machine."""
    known = ids.unique()
    bucket = [zlib.crc32(str(each).encode()) % n_buckets for each in known]
    return ids.replace_strict(known, pl.Series(bucket, dtype=pl.Int32), return_dtype=pl.Int32)
