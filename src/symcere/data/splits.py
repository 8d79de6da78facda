"""Three ways to hold interactions out: at random per user, the last of each user, after a point in time."""

import numpy as np
import polars as pl
from jaxtyping import Int
from numpy import ndarray

from symcere import rng
from symcere.data.dataset import REVIEW, Dataset, HeldOut, Split
from symcere.data.reviews import Reviews
from symcere.errors import ConfigError, DataError
from symcere.ids import IdMap

RATIOS = (0.8, 0.1, 0.1)
_TRAIN, _VALID, _TEST = 0, 1, 2


def split_random(reviews: Reviews, *, ratios: tuple[float, float, float] = RATIOS, seed: int = 0) -> Split:
    """Hold out each user's interactions at random: the field's usual protocol and our headline.

    A user with n interactions gives max(1, floor(ratio n)) of them to test, then to valid, as long as one
    stays in train (RecBole's rule). It draws the past from the future: it measures how well tastes are
    completed, not how well the next visit is foretold.

    Args:
        reviews: One row a (user, item) pair.
        ratios: Shares of train, valid and test; they sum to 1.
        seed: Seed of the draw. The order of rows in `reviews` does not matter.

    Returns:
        The split.

    Raises:
        ConfigError: If the ratios are not three positive shares that sum to 1.
        DataError: If there are fewer than two users or items, or a part would be empty.
    """
    _check_ratios(ratios)
    table, users, items, user, item = _indexed(reviews)
    order = np.lexsort((rng.stream(seed, "split").random(len(user)), user))
    return _split(table, users, items, user, item, _parts_from_end(user, order, ratios), "random")


def split_leave_last_out(reviews: Reviews) -> Split:
    """Hold out each user's last interaction for test and the one before it for valid.

    Users are cut at different moments, so train knows of other users' later choices: the future leaks
    across users. `split_temporal` does not have this fault.

    Args:
        reviews: One row a (user, item) pair, each with a timestamp.

    Returns:
        The split; a user with two interactions gives one to test, a user with one gives none.

    Raises:
        DataError: If a timestamp is missing, there are fewer than two users or items, or a part is empty.
    """
    table, users, items, user, item = _indexed(reviews)
    order = np.lexsort((item, _times(reviews, table, "leave-last-out"), user))
    return _split(table, users, items, user, item, _parts_from_end(user, order, None), "leave-last-out")


def split_temporal(reviews: Reviews, *, ratios: tuple[float, float, float] = RATIOS) -> Split:
    """Cut all interactions at two moments: the past trains, the future tests, for everyone alike.

    Users and items that first appear after the cut stay in the split; no collaborative method can know them.

    Args:
        reviews: One row a (user, item) pair, each with a timestamp.
        ratios: Shares of train, valid and test; they sum to 1. Interactions of the same second stay together.

    Returns:
        The split.

    Raises:
        ConfigError: If the ratios are not three positive shares that sum to 1.
        DataError: If a timestamp is missing, there are fewer than two users or items, or a part is empty.
    """
    _check_ratios(ratios)
    table, users, items, user, item = _indexed(reviews)
    time = _times(reviews, table, "temporal")
    ordered = np.sort(time)
    first_valid = ordered[min(len(ordered) - 1, round(ratios[0] * len(ordered)))]
    first_test = ordered[min(len(ordered) - 1, round((ratios[0] + ratios[1]) * len(ordered)))]
    part = np.where(time >= first_test, _TEST, np.where(time >= first_valid, _VALID, _TRAIN))
    return _split(table, users, items, user, item, part, "temporal")


def _check_ratios(ratios: tuple[float, float, float]) -> None:
    if min(ratios) <= 0 or abs(sum(ratios) - 1) > 1e-9:
        raise ConfigError(f"ratios must be three positive shares that sum to 1; found {ratios}.")


def _indexed(
    reviews: Reviews,
) -> tuple[pl.DataFrame, IdMap, IdMap, Int[ndarray, " reviews"], Int[ndarray, " reviews"]]:
    """Sort rows by id, so that nothing depends on the order of the file, and give ids their indices."""
    table = reviews.table.sort("user_id", "item_id")
    users = IdMap(tuple(table["user_id"].unique().sort()), kind="user")
    items = IdMap(tuple(table["item_id"].unique().sort()), kind="item")
    if min(len(users), len(items)) < 2:
        raise DataError(
            f"A recommender needs at least two users and two items; found {len(users)} and {len(items)}. "
            "Give more reviews, or lower --k-core."
        )
    user = table["user_id"].rank("dense").to_numpy().astype(np.int64) - 1
    item = table["item_id"].rank("dense").to_numpy().astype(np.int64) - 1
    return table, users, items, user, item


def _times(reviews: Reviews, table: pl.DataFrame, name: str) -> Int[ndarray, " reviews"]:
    if n := reviews.n_without_time:
        raise DataError(
            f"The {name} split needs a timestamp on every review; {n:,} of {len(reviews):,} have none. "
            "Use --split random, or name the column with --columns timestamp=COLUMN."
        )
    return table["timestamp"].to_numpy()


def _parts_from_end(
    user: Int[ndarray, " reviews"],
    order: Int[ndarray, " reviews"],
    ratios: tuple[float, float, float] | None,
) -> Int[ndarray, " reviews"]:
    """Walk each user's interactions from the end of `order`: first test, then valid, the rest train."""
    n = np.bincount(user)
    n_valid, n_test = (
        (np.maximum(1, np.floor(n * r + 1e-9)) for r in ratios[1:]) if ratios else (1 + 0 * n, 1 + 0 * n)
    )
    n_test = np.minimum(n_test, n - 1)
    n_valid = np.minimum(n_valid, n - 1 - n_test)
    end = np.cumsum(n)
    owner = user[order]
    from_end = end[owner] - 1 - np.arange(len(order))
    part = np.empty(len(order), dtype=np.int64)
    part[order] = np.where(
        from_end < n_test[owner], _TEST, np.where(from_end < (n_test + n_valid)[owner], _VALID, _TRAIN)
    )
    return part


def _split(
    table: pl.DataFrame,
    users: IdMap,
    items: IdMap,
    user: Int[ndarray, " reviews"],
    item: Int[ndarray, " reviews"],
    part: Int[ndarray, " reviews"],
    name: str,
) -> Split:
    """Give train its reviews; take everything but the pairs from valid and test."""
    seen = part == _TRAIN
    return Split(
        train=Dataset(users, items, user[seen], item[seen], table.filter(seen).select(REVIEW)),
        valid=HeldOut(users, items, user[part == _VALID], item[part == _VALID]),
        test=HeldOut(users, items, user[part == _TEST], item[part == _TEST]),
        name=name,
    )
