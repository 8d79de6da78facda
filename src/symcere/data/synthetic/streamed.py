"""A world of any size, streamed to a file block by block: memory grows with users and items, not with reviews."""

import contextlib
import gzip
import io
import itertools
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

import numpy as np
import polars as pl
from jaxtyping import Float, Int, UInt8, UInt64
from numpy import ndarray
from polars.io.plugins import register_io_source

from symcere import rng
from symcere.data.synthetic.phrases import Phrases, phrases
from symcere.data.synthetic.vocabulary import EPOCH, FACTS
from symcere.errors import ConfigError, OutputError
from symcere.manifest import writing

_BLOCK = 25_000  # reviews made at a time
_MOST = 10_000  # reviews of one user, who is never cut in two
_SPREAD = 1.0  # of the logarithm of the number of reviews of a user
_TASTE = 0.7  # share of choices among items with a liked fact; the others look at popularity alone
_HEAD = 10.0  # popularity falls as (rank + _HEAD)^-0.8
_BUCKET_HEAD = 3 * _HEAD / len(FACTS)  # ranks among the items with a fact are as much smaller as these are fewer
_DAY = 86_400
_N_DAYS = 5_000
_STARS = (0.08, 0.13, 0.22, 0.42)  # cumulated shares of 1, 2, 3 and 4 stars
_COLUMNS = ("reviewerID", "asin", "helpful", "reviewText", "overall", "summary", "unixReviewTime", "reviewTime")
Made = TypeVar("Made")
_DIGITS = np.frombuffer(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", dtype=np.uint8)


@dataclass(frozen=True, eq=False)
class StreamedWorld:
    """The truth behind a file that `write_world` wrote; users and items are numbered, items by popularity.

    Args:
        n_reviews: Rows of the file.
        n_duplicates: How many of them are exact copies of another row.
        likes: The three facts (indices into FACTS) that each user likes.
        has: The three facts that each item has.
        seed: Of everything.
    """

    n_reviews: int
    n_duplicates: int
    likes: UInt8[ndarray, "n_users 3"]
    has: UInt8[ndarray, "n_items 3"]
    seed: int

    @property
    def user_ids(self) -> list[str]:
        """Id of each row of `likes`."""
        return _user_ids(np.arange(len(self.likes)), self.seed)

    @property
    def item_ids(self) -> list[str]:
        """Id of each row of `has`."""
        return _item_ids(np.arange(len(self.has)), self.seed)


def write_world(
    path: str | Path,
    n_reviews: int,
    *,
    n_users: int | None = None,
    n_items: int | None = None,
    duplicates: int | float = 0.0,
    seed: int = 0,
    level: int = 1,
    threads: int | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> StreamedWorld:
    """Write a world of any size in bounded memory: 50 million reviews need less than 1 GiB.

    The same arguments write the same bytes, whatever the number of threads. Reviews of a user are together
    within 25,000 rows; years go by from the first row to the last.

    Args:
        path: Where, written whole or not at all. Its suffix chooses the format: .json or .jsonl for JSON lines with
            the fields of Amazon 2014, the same with .gz, or .parquet with our own column names.
        n_reviews: Rows to write.
        n_users: An eighth of the reviews if left out; each writes at least one.
        n_items: A fifteenth of the reviews, at least 40, if left out; some may have no review.
        duplicates: Share of the rows that are exact copies of another one, as in the Amazon 2018 files.
        seed: Of everything, at least 0.
        level: Of gzip, 1 (fast) to 9 (small).
        threads: How many blocks are made at a time; one a processor, at most 4, if left out.
        on_progress: Called with the number of rows written so far.

    Returns:
        The planted truth.

    Raises:
        ConfigError: If a size, the share, the level or the suffix is out of range.
        OutputError: If the file cannot be written.

    Example:
        >>> import tempfile, pathlib
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "world.json.gz"
        >>> world = write_world(file, 1_000, duplicates=0.02)
        >>> len(gzip.decompress(file.read_bytes()).splitlines()), world.n_duplicates, len(world.likes)
        (1000, 20, 122)
    """
    path = Path(path)
    if not path.name.endswith((".parquet", ".json", ".jsonl", ".json.gz", ".jsonl.gz")):
        raise ConfigError(
            f"A world is written as .json, .jsonl, .json.gz, .jsonl.gz or .parquet; found {path.name!r}."
        )
    if not 0 <= duplicates <= 0.5:
        raise ConfigError(f"duplicates must be a share from 0 to 0.5; found {duplicates}.")
    if not 1 <= level <= 9:
        raise ConfigError(f"level of gzip must be 1 to 9; found {level}.")
    if n_reviews < 1 or seed < 0:
        raise ConfigError(f"A world needs n_reviews >= 1 and seed >= 0; found {n_reviews}, {seed}.")
    plan = _plan(n_reviews, round(duplicates * n_reviews), n_users, n_items, seed)
    threads = threads or min(4, os.cpu_count() or 1)
    with _replacing(path) as file:
        if path.suffix == ".parquet":
            _write_parquet(path, file, plan, threads, on_progress)
            return plan.world
        n_done = 0
        compression = level if path.suffix == ".gz" else None
        for lines, n_rows in _in_order(lambda number: _lines(plan.block(number), compression), len(plan), threads):
            file.write(lines)
            n_done += n_rows
            if on_progress:
                on_progress(n_done)
    return plan.world


@dataclass(frozen=True, eq=False)
class _Plan:
    """All that a block needs to be made, alone and in any order.

    Args:
        world: The truth.
        count: Reviews of each user.
        end: Cumulated counts.
        cuts: First user of each block, and the number of users.
        bucket: Items with a fact, fact after fact, popular ones first.
        bucket_start: Where the items of each fact begin, and where the last end.
        phrases: What reviews are made of.
    """

    world: StreamedWorld
    count: Int[ndarray, " n_users"]
    end: Int[ndarray, " n_users"]
    cuts: Int[ndarray, " blocks_and_1"]
    bucket: Int[ndarray, " facts_of_items"]
    bucket_start: Int[ndarray, " facts_and_1"]
    phrases: Phrases

    def __len__(self) -> int:
        return len(self.cuts) - 1

    def block(self, number: int) -> pl.DataFrame:
        """The reviews of some users in the order of time, then copies of some of them."""
        world, first, last = self.world, self.cuts[number], self.cuts[number + 1]
        draws = rng.stream(world.seed, f"world block {number}")
        user, item = self._choose(world.likes[first:last], self.count[first:last], draws)
        user += first
        # more and more users join; each writes for some years, often soon after joining
        start = _N_DAYS * np.sqrt((user + 0.5) / len(world.likes))
        day = (start + (_N_DAYS - start) * draws.random(len(user)) ** 3).astype(np.int64)
        order = np.argsort(day, kind="stable")
        user, item, day = user[order], item[order], day[order]
        rating = 1 + np.searchsorted(_STARS, draws.random(len(user)), side="right")
        votes = np.minimum(0.4 * draws.pareto(1.2, len(user)), 900).astype(np.int64)
        text, title = self.phrases.write(world.likes[user], world.has[item], rating, draws)
        table = pl.DataFrame(
            {
                "reviewerID": _user_ids(user, world.seed),
                "asin": _item_ids(item, world.seed),
                "helpful": pl.Series(np.stack([draws.binomial(votes, 0.7), votes], axis=1)).cast(pl.List(pl.Int64)),
                "reviewText": text,
                "overall": rating.astype(np.float64),
                "summary": title,
                "unixReviewTime": EPOCH // _DAY * _DAY + day * _DAY,
            }
        ).with_columns(reviewTime=pl.from_epoch("unixReviewTime").dt.strftime("%m %d, %Y"))
        n_distinct = int(self.end[-1])
        before, after = (int(self.end[user - 1]) if user else 0 for user in (first, last))
        copies = after * world.n_duplicates // n_distinct - before * world.n_duplicates // n_distinct
        return pl.concat([table, table[draws.integers(0, len(table), copies)]]).select(_COLUMNS)

    def _choose(
        self, likes: UInt8[ndarray, "some_users 3"], count: Int[ndarray, " some_users"], draws: np.random.Generator
    ) -> tuple[Int[ndarray, " reviews"], Int[ndarray, " reviews"]]:
        """Draw `count` distinct items for each user: again and again, until nobody lacks any."""
        n_items = len(self.world.has)
        keys, lacking = np.empty(0, dtype=np.int64), count
        for attempt in itertools.count():
            user = np.repeat(np.arange(len(likes)), lacking + lacking // 4)
            item = self._draw(likes[user], draws) if attempt < 4 else draws.integers(0, n_items, len(user))
            keys = np.concatenate([keys, user * n_items + item])
            keys = keys[np.sort(np.unique(keys, return_index=True)[1])]  # the first of each, in the order of drawing
            keys = keys[np.argsort(keys // n_items, kind="stable")]
            owner = keys // n_items
            place = np.arange(len(keys)) - np.searchsorted(owner, np.arange(len(likes)))[owner]
            keys = keys[place < count[owner]]
            lacking = count - np.bincount(keys // n_items, minlength=len(likes))
            if not lacking.any():
                break
        return keys // n_items, keys % n_items

    def _draw(self, likes: UInt8[ndarray, "draws 3"], draws: np.random.Generator) -> Int[ndarray, " draws"]:
        """One item for each row: a popular one with a liked fact, or a popular one."""
        n = len(likes)
        fact = likes[np.arange(n), draws.integers(0, 3, n)]
        start, size = self.bucket_start[fact], np.diff(self.bucket_start)[fact]
        place = draws.random(n)
        tasteful = self.bucket[np.minimum(start + _popular(place, size, _BUCKET_HEAD), len(self.bucket) - 1)]
        chosen: Int[ndarray, " draws"] = np.where(
            (draws.random(n) < _TASTE) & (size > 0), tasteful, _popular(place, np.full(n, len(self.world.has)), _HEAD)
        )
        return chosen


def _plan(n_reviews: int, n_duplicates: int, n_users: int | None, n_items: int | None, seed: int) -> _Plan:
    """Draw all that is held in memory for the whole world."""
    n = n_reviews - n_duplicates
    n_users = max(1, n // 8) if n_users is None else n_users
    n_items = max(40, n // 15) if n_items is None else n_items
    most = min(n_items // 2, _MOST)
    if not 1 <= n_users <= n or most * n_users < n + 2 * n_users:
        raise ConfigError(
            f"Each of {n_users:,} users needs at least one of {n:,} distinct reviews, and on average at most "
            f"{most - 2:,}: half of {n_items:,} items less 2, and never over {_MOST - 2:,}. Change the number of "
            "users or items."
        )
    draws = rng.stream(seed, "world")
    likes, has = _three_facts(n_users, draws), _three_facts(n_items, draws)
    count = _counts(n_users, n, most, draws)
    end = np.cumsum(count)
    cuts = np.unique(np.concatenate([[0], np.searchsorted(end, np.arange(_BLOCK, n, _BLOCK)) + 1, [n_users]]))
    return _Plan(
        StreamedWorld(n_reviews, n_duplicates, likes, has, seed),
        count,
        end,
        cuts,
        (np.argsort(has.ravel(), kind="stable") // 3).astype(np.int32),
        np.concatenate([[0], np.cumsum(np.bincount(has.ravel(), minlength=len(FACTS)))]),
        phrases(seed),
    )


def _three_facts(n: int, draws: np.random.Generator) -> UInt8[ndarray, "n 3"]:
    """Three different facts for each of n."""
    one = draws.integers(0, len(FACTS), n)
    two = (one + 1 + draws.integers(0, len(FACTS) - 1, n)) % len(FACTS)
    three = draws.integers(0, len(FACTS) - 2, n)
    for taken in (np.minimum(one, two), np.maximum(one, two)):
        three += three >= taken
    return np.stack([one, two, three], axis=1).astype(np.uint8)


def _counts(n_users: int, n_reviews: int, most: int, draws: np.random.Generator) -> Int[ndarray, " n_users"]:
    """Reviews of each user: log-normal, from 1 to `most`, with the sum asked for."""
    weight = draws.lognormal(0, _SPREAD, n_users)
    while True:
        share = np.cumsum(weight)
        end = np.floor(share * ((n_reviews - n_users) / share[-1]) + 0.5).astype(np.int64)
        end[-1] = n_reviews - n_users
        count: Int[ndarray, " n_users"] = 1 + np.diff(end, prepend=0)
        if count.max() <= most:
            return count
        weight = np.minimum(weight, weight.max() / 2)


def _popular(place: Float[ndarray, " draws"], size: Int[ndarray, " draws"], head: float) -> Int[ndarray, " draws"]:
    """Ranks below `size` by the inverse of the Zipf-Mandelbrot distribution, at places in [0, 1)."""
    low = head**0.2
    root = low + place * ((size + head) ** 0.2 - low)
    rank: Int[ndarray, " draws"] = np.clip((root**5 - head).astype(np.int64), 0, np.maximum(size - 1, 0))
    return rank


def _user_ids(user: Int[ndarray, " rows"], seed: int) -> list[str]:
    """An A and 13 letters and digits, different for different users: every step can be undone."""
    x = user.astype(np.uint64) + np.uint64(0x9E3779B9) + (np.uint64(seed % 2**16) << np.uint64(40))
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):  # splitmix64
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    return _base_32(x, b"A", 13)


def _item_ids(item: Int[ndarray, " rows"], seed: int) -> list[str]:
    """A B and 9 letters and digits: 45 bits, scrambled like those of users."""
    mask = np.uint64(2**45 - 1)
    x = item.astype(np.uint64) + np.uint64(0x9E3779B9) + (np.uint64(seed % 2**8) << np.uint64(36))
    for shift, factor in ((23, 0x1CE4E5B9), (21, 0x133111EB), (23, 1)):
        x = ((x ^ (x >> np.uint64(shift))) * np.uint64(factor)) & mask
    return _base_32(x, b"B", 9)


def _base_32(x: UInt64[ndarray, " rows"], first: bytes, n_digits: int) -> list[str]:
    rows = np.full((len(x), n_digits + 2), ord("\n"), dtype=np.uint8)
    rows[:, 0] = first[0]
    for digit in range(n_digits):
        rows[:, 1 + digit] = _DIGITS[(x >> np.uint64(5 * digit)) & np.uint64(31)]
    return rows.tobytes().decode("ascii").splitlines()


def _lines(block: pl.DataFrame, level: int | None) -> tuple[bytes, int]:
    buffer = io.BytesIO()
    block.write_ndjson(buffer)
    raw = buffer.getvalue()
    return (raw if level is None else gzip.compress(raw, level, mtime=0)), len(block)


def _write_parquet(
    path: Path, file: IO[bytes], plan: _Plan, threads: int, on_progress: Callable[[int], None] | None
) -> None:
    """Stream the blocks through polars' own writer."""
    names = {"reviewerID": "user_id", "asin": "item_id", "overall": "rating", "unixReviewTime": "timestamp",
             "helpful": "helpful", "summary": "title", "reviewText": "text"}  # fmt: skip
    schema = pl.Schema(
        {"user_id": pl.String, "item_id": pl.String, "rating": pl.Float64, "timestamp": pl.Int64, "helpful": pl.Int64,
         "title": pl.String, "text": pl.String}
    )  # fmt: skip

    def make(number: int) -> pl.DataFrame:
        block = plan.block(number).with_columns(pl.col("helpful").list.first())
        return block.select(pl.col(theirs).alias(ours) for theirs, ours in names.items())

    def source(*_: object) -> Iterator[pl.DataFrame]:  # the sink asks for all columns and rows
        n_done = 0
        for block in _in_order(make, len(plan), threads):
            yield block
            n_done += len(block)
            if on_progress:
                on_progress(n_done)

    try:
        register_io_source(source, schema=schema).sink_parquet(file, row_group_size=_BLOCK)
    except pl.exceptions.ComputeError as error:
        reason = str(error).rpartition(": ")[2]
        raise OutputError(f"Cannot write {path}: {reason}. Free space, or choose another folder.") from error


def _in_order(make: Callable[[int], Made], n: int, threads: int) -> Iterator[Made]:
    """Yield make(0) to make(n - 1); a few are made ahead by threads, no more than are in hand at a time."""
    with ThreadPoolExecutor(threads) as pool:
        ahead: deque[Future[Made]] = deque()
        try:
            for number in range(n):
                ahead.append(pool.submit(make, number))
                if len(ahead) > threads:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file beside `path` that takes its name when the block ends well, and is gone otherwise."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name[:40]}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            Path(name).chmod(0o644)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
