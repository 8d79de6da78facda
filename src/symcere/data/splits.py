"""Ways to hold interactions out: at random, by fold, the last of each user, after a point in time, by whole nodes.

Each split says in `warnings` what results on it cannot promise, with numbers counted on the data in hand.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl
from jaxtyping import Bool, Int
from numpy import ndarray

from symcere import rng
from symcere.data.dataset import NO_SUPPORT, REVIEW, Dataset, HeldOut, Side, Split, Support
from symcere.data.reviews import Reviews
from symcere.errors import ConfigError, DataError
from symcere.ids import IdMap

RATIOS = (0.8, 0.1, 0.1)
N_FOLDS = 5
_TRAIN, _VALID, _TEST, _SUPPORT = 0, 1, 2, 3


def split_random(
    reviews: Reviews, *, ratios: tuple[float, float, float] = RATIOS, seed: int = 0, ask_from: int = 1
) -> Split:
    """Hold out each user's interactions at random: the field's usual protocol and our headline.

    A user with n interactions gives max(1, floor(ratio n)) of them to test, then to valid, as long as one
    stays in train (RecBole's rule). It draws the past from the future: it measures how well tastes are
    completed, not how well the next visit is foretold.

    Args:
        reviews: One row a (user, item) pair.
        ratios: Shares of train, valid and test; they sum to 1.
        seed: Seed of the draw. The order of rows in `reviews` does not matter.
        ask_from: Users with fewer interactions give none away: they are learned from, and not asked.

    Returns:
        The split.

    Raises:
        ConfigError: If the ratios are not three positive shares that sum to 1, or `ask_from` is below 1.
        DataError: If there are fewer than two users or items, or a part would be empty.

    Example:
        >>> import symcere as sc
        >>> reviews = sc.anchoring_world(60, 30, 5).reviews
        >>> train = split_random(reviews, ask_from=6).train
        >>> asked = np.bincount(sc.undivided(reviews).user) > np.bincount(train.user)
        >>> int(np.bincount(sc.undivided(reviews).user)[asked].min())
        6
    """
    _check_ratios(ratios)
    rows = _indexed(reviews)
    order = np.lexsort((rng.stream(seed, "split").random(len(rows)), rows.user))
    part = _parts_from_end(rows.user, order, ratios, ask_from)
    warnings = (_FROM_THE_FUTURE.format("random", _later(rows, part)), *_not_asked(rows, ask_from))
    return _split(rows, part, "random", warnings)


def split_leave_last_out(reviews: Reviews, *, ask_from: int = 1) -> Split:
    """Hold out each user's last interaction for test and the one before it for valid.

    Users are cut at different moments, so train knows of other users' later choices: the future leaks
    across users. `split_temporal` does not have this fault.

    Args:
        reviews: One row a (user, item) pair, each with a timestamp.
        ask_from: Users with fewer interactions give none away: they are learned from, and not asked.

    Returns:
        The split; a user with two interactions gives one to test, a user with one gives none.

    Raises:
        ConfigError: If `ask_from` is below 1.
        DataError: If a timestamp is missing, there are fewer than two users or items, or a part is empty.
    """
    rows = _indexed(reviews)
    order = np.lexsort((rows.item, _times(reviews, rows.table, "leave-last-out"), rows.user))
    part = _parts_from_end(rows.user, order, None, ask_from)
    warning = (
        "The leave-last-out split cuts users at different moments, so the future leaks across users"
        f"{_later(rows, part)}. The temporal split does not have this fault."
    )
    return _split(rows, part, "leave-last-out", (warning, *_not_asked(rows, ask_from)))


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
    rows = _indexed(reviews)
    time = _times(reviews, rows.table, "temporal")
    ordered = np.sort(time)
    first_valid = ordered[min(len(ordered) - 1, round(ratios[0] * len(ordered)))]
    first_test = ordered[min(len(ordered) - 1, round((ratios[0] + ratios[1]) * len(ordered)))]
    part = np.where(time >= first_test, _TEST, np.where(time >= first_valid, _VALID, _TRAIN))
    unseen = [
        (len(np.setdiff1d(node[part == _TEST], node[part == _TRAIN])), len(np.unique(node[part == _TEST])), kind)
        for node, kind in ((rows.user, "users"), (rows.item, "items"))
    ]
    counted = " and ".join(f"{new:,} of {n:,} test {kind}" for new, n, kind in unseen)
    warning = (
        f"The temporal split cuts at one moment: {counted} are unseen in train, and no collaborative method can "
        "serve them."
    )
    return _split(rows, part, "temporal", (warning,))


def split_cold_items(reviews: Reviews, *, ratios: tuple[float, float, float] = RATIOS, seed: int = 0) -> Split:
    """Hold whole items out: train has no interaction with a cold item, and only text can rank it.

    Items are drawn until their interactions make up the shares of test and of valid. Half of a cold item's reviews
    (at least one, never all) are support: what people already wrote about it. They make its text profile and nothing
    else; their pairs are neither targets nor ranked. The other half are the targets, and their text is gone. All
    items, cold or not, compete in every ranking.

    Args:
        reviews: One row a (user, item) pair.
        ratios: Shares of train, valid and test; they sum to 1.
        seed: Seed of the draw. The order of rows in `reviews` does not matter.

    Returns:
        The split; the review of a cold item that has only one is a target, so that this item has no text.

    Raises:
        ConfigError: If the ratios are not three positive shares that sum to 1.
        DataError: If there are fewer than two users or items, or a part would be empty.

    Example:
        >>> import symcere as sc
        >>> split = split_cold_items(sc.anchoring_world(60, 30, 5).reviews)
        >>> bool(split.train.popularity[split.test.item].any())
        False
    """
    return _split_cold("item", reviews, ratios, seed)


def split_cold_users(reviews: Reviews, *, ratios: tuple[float, float, float] = RATIOS, seed: int = 0) -> Split:
    """Hold whole users out: the mirror image of `split_cold_items`.

    Half of a cold user's reviews are support: they make the user's text profile and nothing else, and the items they
    are about are not ranked for the user. The other half are the targets.

    Args:
        reviews: One row a (user, item) pair.
        ratios: Shares of train, valid and test; they sum to 1.
        seed: Seed of the draw. The order of rows in `reviews` does not matter.

    Returns:
        The split; the review of a cold user who has only one is a target, so that this user has no text.

    Raises:
        ConfigError: If the ratios are not three positive shares that sum to 1.
        DataError: If there are fewer than two users or items, or a part would be empty.
    """
    return _split_cold("user", reviews, ratios, seed)


def split_k_fold(reviews: Reviews, n_folds: int = N_FOLDS, *, fold: int, seed: int = 0) -> Split:
    """Deal each user's interactions into folds; test is one fold, valid the next, train all others.

    Over all folds, every interaction of a user with at least two of them is tested exactly once. Train keeps at
    least one interaction of every user: where test and valid would take all, valid gives way, and a user with one
    interaction is never tested. Like `split_random`, it draws the past from the future.

    Args:
        reviews: One row a (user, item) pair.
        n_folds: How many folds; at least 3.
        fold: Which of them is tested, 0..n_folds-1.
        seed: Seed of the dealing, the same for all folds. The order of rows in `reviews` does not matter.

    Returns:
        The split.

    Raises:
        ConfigError: If there are fewer than 3 folds, or no such fold.
        DataError: If there are fewer than two users or items, or a part would be empty.

    Example:
        >>> import symcere as sc
        >>> reviews = sc.anchoring_world(60, 30, 5).reviews
        >>> sum(len(split_k_fold(reviews, 5, fold=fold).test) for fold in range(5)) == len(reviews)
        True
    """
    if n_folds < 3:
        raise ConfigError(f"k-fold needs at least 3 folds (train, valid, test); found {n_folds}.")
    if not 0 <= fold < n_folds:
        raise ConfigError(f"The fold must be one of 0..{n_folds - 1}; found {fold}.")
    rows = _indexed(reviews)
    draws = rng.stream(seed, "folds")
    order = np.lexsort((draws.random(len(rows)), rows.user))
    n = np.bincount(rows.user)
    place = np.empty(len(rows), dtype=np.int64)
    place[order] = np.arange(len(rows)) - (np.cumsum(n) - n)[rows.user[order]]
    dealt = (place + draws.integers(0, n_folds, len(n))[rows.user]) % n_folds
    part = np.where(dealt == fold, _TEST, np.where(dealt == (fold + 1) % n_folds, _VALID, _TRAIN))
    part[n[rows.user] == 1] = _TRAIN
    has_train = np.bincount(rows.user, weights=part == _TRAIN) > 0
    part[~has_train[rows.user] & (part == _VALID)] = _TRAIN
    return _split(rows, part, "k-fold", (_FROM_THE_FUTURE.format("k-fold", _later(rows, part)),))


def undivided(reviews: Reviews) -> Dataset:
    """Hold nothing out: what a recommender that is to be served learns from, once valid has chosen its settings.

    Args:
        reviews: One row a (user, item) pair.

    Returns:
        All interactions with their reviews, users and items numbered as in every split of the same reviews.

    Raises:
        DataError: If there are fewer than two users or items.

    Example:
        >>> import symcere as sc
        >>> reviews = sc.anchoring_world(60, 30, 5).reviews
        >>> everything, split = sc.undivided(reviews), sc.split_random(reviews)
        >>> len(everything) == len(split.train) + len(split.valid) + len(split.test)
        True
        >>> everything.items == split.train.items
        True
    """
    rows = _indexed(reviews)
    return Dataset(rows.users, rows.items, rows.user, rows.item, rows.table.select(REVIEW))


_FROM_THE_FUTURE = (
    "The {} split draws the past from the future: it measures how well tastes are completed, not how well the next "
    "visit is foretold{}."
)


def _check_ratios(ratios: tuple[float, float, float]) -> None:
    if min(ratios) <= 0 or abs(sum(ratios) - 1) > 1e-9:
        raise ConfigError(f"ratios must be three positive shares that sum to 1; found {ratios}.")


@dataclass(frozen=True, eq=False)
class _Rows:
    """Reviews sorted by id, so that nothing depends on the order of the file, with their indices."""

    table: pl.DataFrame
    users: IdMap
    items: IdMap
    user: Int[ndarray, " reviews"]
    item: Int[ndarray, " reviews"]

    def __len__(self) -> int:
        return len(self.user)


def _indexed(reviews: Reviews) -> _Rows:
    """Sort rows by id and give ids their indices."""
    users, items, user, item = _numbered(reviews)
    if min(len(users), len(items)) < 2:
        raise DataError(
            f"A recommender needs at least two users and two items; found {len(users)} and {len(items)}. "
            "Give more reviews, or lower --k-core."
        )
    order = np.lexsort((item, user))
    return _Rows(reviews.table[order], users, items, user[order], item[order])


def rows_of(reviews: Reviews, user: Int[ndarray, " some"], item: Int[ndarray, " some"]) -> Int[ndarray, " some"]:
    """Find the rows of interactions of a split in the table that it was made of.

    Args:
        reviews: What was split.
        user: User indices of the split.
        item: Item indices of the split.

    Returns:
        Rows of `reviews.table`.
    """
    _, items, user_of_row, item_of_row = _numbered(reviews)
    pair = user_of_row * len(items) + item_of_row
    order = np.argsort(pair)
    return np.asarray(order[np.searchsorted(pair, user * len(items) + item, sorter=order)])


def _numbered(reviews: Reviews) -> tuple[IdMap, IdMap, Int[ndarray, " reviews"], Int[ndarray, " reviews"]]:
    """Number ids in their own order, and the user and item of every row with them."""
    known = reviews.interactions
    made = []
    for ids, number, kind in ((known.user_ids, known.user, "user"), (known.item_ids, known.item, "item")):
        order = ids.arg_sort().to_numpy()
        index = np.empty(len(ids), dtype=np.int64)
        index[order] = np.arange(len(ids))
        made.append((IdMap(tuple(ids.gather(order)), kind=kind), index[number]))
    (users, user), (items, item) = made
    return users, items, user, item


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
    ask_from: int,
) -> Int[ndarray, " reviews"]:
    """Walk each user's interactions from the end of `order`: first test, then valid, the rest train.

    All are train where a user has fewer than `ask_from`.
    """
    if ask_from < 1:
        raise ConfigError(f"ask_from must be at least 1; found {ask_from}.")
    n = np.bincount(user)
    if n.max() < ask_from:
        raise DataError(
            f"ask_from={ask_from} left no interaction for valid and test: no user has more than {n.max():,}. "
            "Lower it (--ask-from)."
        )
    n_valid, n_test = (
        (np.maximum(1, np.floor(n * r + 1e-9)) for r in ratios[1:]) if ratios else (1 + 0 * n, 1 + 0 * n)
    )
    spare = np.where(n < ask_from, 0, n - 1)
    n_test = np.minimum(n_test, spare)
    n_valid = np.minimum(n_valid, spare - n_test)
    end = np.cumsum(n)
    owner = user[order]
    from_end = end[owner] - 1 - np.arange(len(order))
    part = np.empty(len(order), dtype=np.int64)
    part[order] = np.where(
        from_end < n_test[owner], _TEST, np.where(from_end < (n_test + n_valid)[owner], _VALID, _TRAIN)
    )
    return part


def _split_cold(side: Side, reviews: Reviews, ratios: tuple[float, float, float], seed: int) -> Split:
    """Draw cold nodes of one side; of each, half of the reviews are support and the others targets."""
    _check_ratios(ratios)
    rows = _indexed(reviews)
    node = rows.item if side == "item" else rows.user
    draws = rng.stream(seed, f"cold {side}s")
    n = np.bincount(node)
    home = np.full(len(n), _TRAIN)
    left = draws.permutation(len(n))
    for part, ratio in ((_TEST, ratios[2]), (_VALID, ratios[1])):
        drawn = 1 + int(np.searchsorted(np.cumsum(n[left]), ratio * len(rows)))
        home[left[:drawn]] = part
        left = left[drawn:]
    part = home[node]
    order = np.lexsort((draws.random(len(rows)), node))
    place = np.arange(len(rows)) - (np.cumsum(n) - n)[node[order]]
    support = order[(place < n[node[order]] // 2) & (part[order] != _TRAIN)]
    part[support] = _SUPPORT
    tested, validated, silent = (
        int(nodes.sum()) for nodes in (home == _TEST, home == _VALID, (home != _TRAIN) & (n == 1))
    )
    warnings = (
        f"The cold-{side}s split tests {tested:,} {side}s ({validated:,} on valid) without any interaction in train: "
        "collaborative methods know nothing about them, and what these score comes from ties and from the popularity "
        "dial, which may put the unseen first.",
        f"{len(support):,} reviews of cold {side}s are support: text about the {side} that is read and never learned "
        f"from or ranked; {silent:,} cold {side}s have a single review, a target, and so no text. Cold {side}s are "
        "drawn by lot, not by age.",
    )
    return _split(rows, part, f"cold-{side}s", warnings, side)


def _not_asked(rows: _Rows, ask_from: int) -> tuple[str, ...]:
    """Say how many users have too few interactions to be asked; nothing where all are."""
    n = np.bincount(rows.user)
    few = int((n < ask_from).sum())
    if not few:
        return ()
    return (
        f"{few:,} of {len(n):,} users have fewer than {ask_from} interactions: they are learned from and never "
        "asked, so results say nothing about them, and are not comparable with those of a k-core, which leaves such "
        "users out of train.",
    )


def _later(rows: _Rows, part: Int[ndarray, " reviews"]) -> str:
    """Say how much of train is later than the median test interaction; nothing where timestamps are missing."""
    time = rows.table["timestamp"]
    if time.null_count() or not (part == _TEST).any():
        return ""
    seconds = time.to_numpy()
    share = np.mean(seconds[part == _TRAIN] > np.median(seconds[part == _TEST]))
    return f"; {share:.0%} of train interactions are later than the median test interaction"


def _split(
    rows: _Rows, part: Int[ndarray, " reviews"], name: str, warnings: tuple[str, ...], side: Side = "item"
) -> Split:
    """Give train and support their reviews; take everything but the pairs from valid and test."""

    def reviews_of(chosen: Bool[ndarray, " reviews"]) -> tuple[ndarray, ndarray, pl.DataFrame]:
        return rows.user[chosen], rows.item[chosen], rows.table.filter(chosen).select(REVIEW)

    supporting = part == _SUPPORT
    support = Support(side, *reviews_of(supporting)) if supporting.any() else NO_SUPPORT
    return Split(
        train=Dataset(rows.users, rows.items, *reviews_of(part == _TRAIN), support),
        valid=HeldOut(rows.users, rows.items, rows.user[part == _VALID], rows.item[part == _VALID]),
        test=HeldOut(rows.users, rows.items, rows.user[part == _TEST], rows.item[part == _TEST]),
        name=name,
        warnings=warnings,
    )
