"""A raw file, batch by batch, to interactions: types given, duplicates found, every dropped row counted.

What is held in memory of all rows is who, what, when and how rated. The words go to whoever keeps them, batch by
batch; which rows of them stay is known at the end.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy import ndarray

from symcere.data.ahead import Ahead
from symcere.data.formats.raw import Meter
from symcere.data.formats.recognise import Recognised, Wanted, read_rows
from symcere.data.formats.rows import Rows
from symcere.data.interactions import UNDATED, Interactions, Step, interactions_of, keys_of
from symcere.data.items import Items, items_of
from symcere.data.typed import FAULTS, typed
from symcere.errors import DataError

_BATCH = 131_072  # rows of a batch, at least


@dataclass(frozen=True)
class Intake:
    """What a raw file holds.

    Args:
        source: The corpus or format that was recognised.
        interactions: One a (user, item) pair: the first in time.
        steps: Counts after each step.
        items: What the rows say of their items.
    """

    source: str
    interactions: Interactions
    steps: tuple[Step, ...]
    items: Items


def take_in(
    path: Path, wanted: Wanted, *, skip_bad: bool, keep: Callable[[pl.DataFrame], None], meter: Meter
) -> Intake:
    """Read a file of reviews.

    Args:
        path: The file or folder.
        wanted: What to look for in it.
        skip_bad: Drop and count lines that cannot be parsed, instead of raising at the first one.
        keep: Given every batch of reviews, in order; row numbers go on from batch to batch.
        meter: Told how much is read.

    Returns:
        The interactions; their rows are those of the batches, one after the other.

    Raises:
        DataError: If the file cannot be read, or nothing is left of it.
    """
    found = read_rows(path, wanted, skip_bad=skip_bad, meter=meter)
    keys, faults, bodies, items = [], [], [], []
    n_bad = 0
    for batch in batches_of(found):
        n_bad += batch.n_bad
        keep(batch.reviews)
        keys.append(keys_of(batch.reviews))
        faults.append(batch.fault)
        bodies.append(batch.body)
        if len(batch.items):
            items.append(items_of(batch.items).table)
    if not keys:
        raise DataError(f"{path} is empty. It must hold reviews: JSON lines or an array, CSV, TSV or Parquet.")
    left = interactions_of(pl.concat(keys).with_columns(pl.col("user_id", "item_id").fill_null("")))
    steps = [left.step("read", dropped=n_bad)]
    for reason, still, dropped in cleaned(left, pl.concat(faults), pl.concat(bodies)):
        left = still
        if dropped:
            steps.append(left.step(reason, dropped))
    if not len(left):
        raise nothing_usable(path, steps)
    return Intake(found.name, left, tuple(steps), items_of(pl.concat(items)) if items else Items())


@dataclass(frozen=True)
class Batch:
    """Some rows of a file, typed.

    Args:
        reviews: Columns SCHEMA.
        fault: Why a row cannot be used; null where it can.
        body: Hash of the body of each.
        items: What the rows say of their items: item_id, title, category.
        n_bad: Lines dropped since the batch before.
    """

    reviews: pl.DataFrame
    fault: pl.Series
    body: pl.Series
    items: pl.DataFrame
    n_bad: int


def batches_of(found: Recognised) -> Iterator[Batch]:
    """Read the rows of a file, the next ones while the caller works on those before."""
    for rows in Ahead(_batches(found.rows)):
        reviews, fault, items = typed(rows.table, found.source)
        yield Batch(reviews, fault, reviews.select("text").hash_rows(), items, rows.n_bad)


def cleaned(left: Interactions, fault: pl.Series, body: pl.Series) -> Iterator[tuple[str, Interactions, int]]:
    """Drop, one reason after the other, what cannot be used.

    Args:
        left: The rows.
        fault: Of each row that `left` numbers.
        body: Hash of the body of each.

    Yields:
        Reason, what is left, and how many went.
    """
    for reason in FAULTS:
        yield (reason, *(step := _without(left, (fault == reason).fill_null(False).to_numpy()[left.row])))
        left = step[0]
    copies, later = _doubled(left, body.to_numpy()[left.row])
    yield ("the same review again", *(step := _without(left, copies)))
    yield ("duplicate (user, item)", *_without(step[0], later[~copies]))


def nothing_usable(path: object, steps: Sequence[Step]) -> DataError:
    """Say that no row was left, and where they went."""
    lost = "; ".join(f"{step.dropped} dropped: {step.name}" for step in steps if step.dropped) or "0 rows"
    return DataError(f"{path} holds no usable review ({lost}). Check the file and the column map.")


def _batches(parts: Iterator[Rows]) -> Iterator[Rows]:
    """Join small parts, such as hotels, so that none but the last is small."""
    held: list[Rows] = []
    for part in parts:
        held.append(part)
        if sum(rows.table.height for rows in held) >= _BATCH:
            yield _joined(held)
            held = []
    if held:
        yield _joined(held)


def _joined(parts: Sequence[Rows]) -> Rows:
    table = pl.concat([rows.table for rows in parts], how="diagonal_relaxed")
    return Rows(table, sum(rows.n_bad for rows in parts))


def _without(left: Interactions, drop: ndarray) -> tuple[Interactions, int]:
    n = int(drop.sum())
    return (left.kept(~drop) if n else left), n


def _doubled(left: Interactions, body: ndarray) -> tuple[ndarray, ndarray]:
    """Mark what repeats a (user, item) pair.

    Args:
        left: The reviews.
        body: Hash of each one's body.

    Returns:
        Copies: reviews whose body, date and rating stand earlier in the file; title and votes may have changed. And
        of the others all but the first in time of each pair; undated ones are later than all others.
    """
    copies, later = np.zeros(len(left), dtype=bool), np.zeros(len(left), dtype=bool)
    pair = left.pair
    order = np.argsort(pair)
    same = pair[order[1:]] == pair[order[:-1]]
    if not same.any():
        return copies, later
    rows = np.sort(order[np.append(same, False) | np.append(False, same)])
    said = (pair[rows], left.timestamp[rows], left.rating[rows], body[rows])
    table = pl.DataFrame(dict(zip("abcd", said, strict=True)))
    copies[rows] = ~table.select(pl.struct(pl.all()).is_first_distinct()).to_series().to_numpy()
    rows = rows[~copies[rows]]
    time = left.timestamp[rows]
    order = rows[np.lexsort((rows, time, time == UNDATED, pair[rows]))]
    later[order[1:][pair[order[1:]] == pair[order[:-1]]]] = True
    return copies, later
