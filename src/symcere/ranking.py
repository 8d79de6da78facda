"""Ranks: scores in, the k best items of each user out (symcere.index needs not all scores). NumPy and SciPy only."""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int, Num
from numpy import ndarray
from scipy.sparse import csr_array

from symcere.errors import DataError

_BLOCK = 250_000  # scores held at once: 1 MB, within the cache of one core
_MANY = 32_768  # items, from which on looking into a few groups costs less than comparing all of them
_GROUPS = 12  # times k; with half as many at least, few items but the best reach what k groups do
_LONG = 16_384  # items, whose marks NumPy counts row by row in less time than in narrow numbers
_SEARCHED = 4_096  # users whose seen items are laid out at once
_USERS = 32  # users at least that share a reading of all items


Hidden: TypeAlias = tuple[Int[ndarray, " hidden"], Int[ndarray, " hidden"]]
"""Row, ascending, and item of what is not ranked."""


@runtime_checkable
class Scorer(Protocol):
    """Anything that gives every item a score for some users."""

    def score(self, user: Int[ndarray, " some_users"]) -> Float[ndarray, "some_users n_items"]:
        """Score of every item for each of `user`; higher is better."""
        ...


@runtime_checkable
class Searcher(Protocol):
    """A scorer that finds its best items without scoring all of them."""

    def search(self, user: Int[ndarray, " users"], k: int, hidden: Hidden) -> Int[ndarray, "users k"]:
        """The k best items of each of `user`, best first; -1 where fewer are left."""
        ...


def top_k(scores: Float[ndarray, "users n_items"], k: int) -> Int[ndarray, "users k"]:
    """Indices of the k best items of each row, best first; equal scores by item index.

    Items are dealt into groups; the k-th best of the groups' maxima is a score that at least k items reach. Those
    that do are sorted, all of them, so ties never depend on the groups. A pass of maxima costs less than a partition.

    Args:
        scores: float32, without NaN.
        k: How many; at most n_items.

    Returns:
        Item indices.

    Example:
        >>> top_k(np.array([[0.5, 2.0, 2.0, -1.0]], dtype=np.float32), 3)
        array([[1, 2, 0]])
    """
    row, item = reaching(scores, k)
    n = np.bincount(row, minlength=len(scores))
    place = np.arange(len(row)) - np.repeat(np.cumsum(n) - n, n)
    found = np.zeros((len(scores), int(n.max(initial=k))), dtype=np.int64)
    behind = np.full(found.shape, np.inf, dtype=scores.dtype)
    found[row, place], behind[row, place] = item, -scores[row, item]
    best = np.argsort(behind, axis=1, kind="stable")[:, :k]  # of equal scores the first item
    return np.asarray(np.take_along_axis(found, best, axis=1))


def reaching(
    scores: Num[ndarray, "users n_items"], k: int, slack: Num[ndarray, " users"] | int = 0
) -> tuple[Int[ndarray, " found"], Int[ndarray, " found"]]:
    """Items that reach a score that at least k items of their row reach, and not many more.

    Args:
        scores: Of any number type, without NaN.
        k: How many; at most n_items.
        slack: By how much an item of each row may fall short of that score.

    Returns:
        Row and item of each, both ascending.
    """
    n_users, n_items = scores.shape
    if n_items < _MANY:
        reached = scores >= _kth(_folded(scores, _GROUPS * k), k) - np.reshape(slack, (-1, 1))
        return np.divmod(np.flatnonzero(reached), n_items)
    n_groups = min(n_items, math.isqrt(n_items * k))
    deep, rest = divmod(n_items, n_groups)
    maxima = scores[:, : deep * n_groups].reshape(n_users, deep, n_groups).max(1)
    maxima[:, :rest] = np.maximum(maxima[:, :rest], scores[:, deep * n_groups :])
    least = _kth(maxima, k) - np.reshape(slack, (-1, 1))
    row, group = np.nonzero(maxima >= least)
    members = group[:, None] + n_groups * np.arange(deep + 1)
    there = members < n_items
    members[~there] = 0
    found, place = np.nonzero(there & (scores[row[:, None], members] >= least[row]))
    return np.divmod(np.sort(row[found] * n_items + members[found, place]), n_items)


def _kth(values: Num[ndarray, "rows columns"], k: int) -> Num[ndarray, "rows 1"]:
    """The k-th greatest of each row."""
    at = values.shape[1] - k
    return np.asarray(np.partition(values, at, axis=1)[:, at, None])


def _folded(scores: Num[ndarray, "users n_items"], enough: int) -> Num[ndarray, "users n_groups"]:
    """Maxima of groups, halved while there are `enough`: two thirds of the time of one reduction.

    Items that halves leave over are in no group: what k groups reach, k items reach without them.
    """
    while scores.shape[1] >= enough:
        half = scores.shape[1] // 2
        scores = np.maximum(scores[:, :half], scores[:, half : 2 * half])
    return scores


def rank(scorer: Scorer, user: Int[ndarray, " users"], k: int, exclude: csr_array) -> Int[ndarray, "users k"]:
    """Rank all items for each user, leaving out those in `exclude`; block by block, in bounded memory.

    Args:
        scorer: The system.
        user: User indices.
        k: Length of a ranking.
        exclude: Binary matrix (n_users x n_items) of items not to recommend, usually those already seen.

    Returns:
        Item indices, best first; -1 where a user has fewer than k items left.

    Raises:
        DataError: If a score is NaN.
    """
    n_items = exclude.shape[1]
    ranking = np.full((len(user), k), -1, dtype=np.int64)
    k = min(k, n_items)
    if isinstance(scorer, Searcher):
        for start in range(0, len(user), _SEARCHED):
            block = user[start : start + _SEARCHED]
            ranking[start : start + _SEARCHED, :k] = scorer.search(block, k, hidden_of(exclude, block))
        return ranking
    for start, block in _blocks(user, n_items):
        scores = np.array(scorer.score(block), dtype=np.float32)
        if np.isnan(scores.min()):
            whose = block[np.isnan(scores).any(axis=1)][0]
            raise DataError(f"{type(scorer).__name__} scores an item of user {whose} as NaN, which has no rank.")
        scores[hidden_of(exclude, block)] = -np.inf
        best = top_k(scores, k)
        best[np.isneginf(np.take_along_axis(scores, best, axis=1))] = -1
        ranking[start : start + len(block), :k] = best
    return ranking


def places(
    scores_of: Callable[[Int[ndarray, " some_users"]], Iterable[Float[ndarray, "some_users n_items"]]],
    user: Int[ndarray, " pairs"],
    item: Int[ndarray, " pairs"],
    exclude: csr_array,
) -> Int[ndarray, "views pairs"]:
    """Place of each pair's item in the ranking of its user, under several views of the scores; block by block.

    Where only the places of some items are asked for, counting what stands above them is far cheaper than ranking.

    Args:
        scores_of: Users -> their scores, one matrix for each view; it is not changed.
        user: User of each pair, ascending.
        item: Item of each pair.
        exclude: Binary matrix (n_users x n_items) of items that are not ranked.

    Returns:
        0 for the first place; equal scores by item index, as `rank` has them. n_items for an item that is not ranked.

    Example:
        >>> scores = np.array([[0.5, 2, 2, -1]])
        >>> places(lambda user: [scores[user]], np.array([0, 0]), np.array([2, 0]), csr_array((1, 4)))
        array([[1, 2]])
    """
    n_items = exclude.shape[1]
    blocks: list[list[ndarray]] = []
    for start, block in _blocks(user, n_items):
        wanted, hidden = item[start : start + len(block)], hidden_of(exclude, block)
        blocks.append([_places(scores, wanted, hidden) for scores in scores_of(block)])
    return np.stack([np.concatenate(view) for view in zip(*blocks, strict=True)])


def _places(scores: ndarray, item: ndarray, hidden: Hidden) -> ndarray:
    """Places of one item a row."""
    own = scores[np.arange(len(item)), item][:, None]
    above, level = scores > own, scores == own
    above[hidden], level[hidden] = False, False
    place = _count(above)
    ranked = level[np.arange(len(item)), item]
    for row in np.flatnonzero(_count(level) > 1):
        place[row] += np.count_nonzero(level[row, : item[row]])
    return np.asarray(np.where(ranked, place, scores.shape[1]))


def _count(marked: Bool[ndarray, "rows columns"]) -> Int[ndarray, " rows"]:
    """Marks of each row: of long rows one by one, of others in the narrowest numbers that hold them.

    Both take a fifth of the time of NumPy's count along an axis, or less.
    """
    if marked.shape[1] >= _LONG:
        return np.array([np.count_nonzero(row) for row in marked], dtype=np.int64)
    narrow = np.min_scalar_type(marked.shape[1])
    return np.asarray(marked.view(np.uint8).sum(axis=1, dtype=narrow), dtype=np.int64)


def hits(ranking: Int[ndarray, "users k"], user: Int[ndarray, " users"], relevant: csr_array) -> ndarray:
    """Mark the ranked items that are relevant.

    Args:
        ranking: Item indices, best first; -1 for none.
        user: User index of each row.
        relevant: Binary matrix (n_users x n_items) of held-out pairs.

    Returns:
        Booleans (users x k).
    """
    row, item = hidden_of(relevant, user)
    marked = np.zeros(ranking.shape, dtype=bool)
    for place, ranked in enumerate(ranking.T):
        marked[row[ranked[row] == item], place] = True
    return marked


def _blocks(user: ndarray, n_items: int) -> Iterator[tuple[int, ndarray]]:
    """Users in blocks of about as many scores as are held at once, each with its place among all."""
    size = max(_USERS, _BLOCK // n_items)
    for start in range(0, len(user), size):
        yield start, user[start : start + size]


def hidden_of(exclude: csr_array, user: Int[ndarray, " users"]) -> Hidden:
    """Lay out what is not ranked, for a matrix of scores with a row a user.

    Args:
        exclude: Binary matrix (n_users x n_items).
        user: User of each row.

    Returns:
        Row and item.
    """
    rows = exclude[user]
    return np.repeat(np.arange(len(user)), np.diff(rows.indptr)), rows.indices
