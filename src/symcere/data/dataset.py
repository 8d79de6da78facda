"""The nouns between splitting and training: what `fit` may see, and what it may not."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.sparse import csr_array

from symcere.errors import DataError
from symcere.ids import IdMap

REVIEW = ("rating", "timestamp", "helpful", "title", "text")
"""What a review says beside who and what: the columns of Reviews.table that train keeps."""

Side = Literal["user", "item"]
"""The two kinds of nodes."""


def _check_reviews(user: ndarray, item: ndarray, review: pl.DataFrame, kind: str) -> None:
    if not len(user) == len(item) == len(review):
        raise DataError(
            f"user, item and review must be of equal length; found {len(user)}, {len(item)}, {len(review)}."
        )
    if review.columns != list(REVIEW):
        raise DataError(f"A {kind} review has columns {', '.join(REVIEW)}; found {', '.join(review.columns)}.")


@dataclass(frozen=True, eq=False)
class Support:
    """Reviews that are read and not learned from: what is known, before anybody is tested, of nodes that train lacks.

    A support review goes into the profile of its node on `side` and nowhere else: it is no interaction, counts for
    nobody's popularity, and says nothing of the node on the other side. Its pair is never ranked.

    Args:
        side: Which of the two nodes it is about: "item" for cold items, "user" for cold users.
        user: User index of each review.
        item: Item index of each review.
        review: The columns REVIEW of each review, typed as in Reviews.table.

    Raises:
        DataError: If lengths differ or a column is missing.
    """

    side: Side
    user: Int[ndarray, " reviews"]
    item: Int[ndarray, " reviews"]
    review: pl.DataFrame

    def __post_init__(self) -> None:
        """Check lengths and columns."""
        _check_reviews(self.user, self.item, self.review, "support")

    def __len__(self) -> int:
        return len(self.user)

    @property
    def node(self) -> Int[ndarray, " reviews"]:
        """The node that each review is about."""
        return self.item if self.side == "item" else self.user


NO_SUPPORT = Support("item", np.zeros(0, np.int64), np.zeros(0, np.int64), pl.DataFrame(schema=REVIEW))
"""What a train part has unless nodes were held out whole."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Interactions with their reviews, as indices; sorted by (user, item).

    Args:
        users: Ids of all users of the split, also of those without a train interaction.
        items: Ids of all items of the split.
        user: User index of each interaction.
        item: Item index of each interaction.
        review: The columns REVIEW of each interaction, typed as in Reviews.table.
        support: Reviews about nodes without a train interaction: read, and not learned from.

    Raises:
        DataError: If lengths differ, a column is missing, an index is out of range, a (user, item) pair occurs
            twice, or a support review is about a node that has train interactions.
    """

    users: IdMap
    items: IdMap
    user: Int[ndarray, " interactions"]
    item: Int[ndarray, " interactions"]
    review: pl.DataFrame
    support: Support = NO_SUPPORT

    def __post_init__(self) -> None:
        """Check lengths, ranges and uniqueness."""
        _check_reviews(self.user, self.item, self.review, "train")
        _check_pairs(self.user, self.item, self.users, self.items)
        _check_pairs(self.support.user, self.support.item, self.users, self.items)
        learned = self.item if self.support.side == "item" else self.user
        if n := int(np.isin(self.support.node, learned).sum()):
            raise DataError(
                f"A support review is about {self.support.side}s without train interactions; {n:,} of "
                f"{len(self.support):,} are about others. Give them to train."
            )

    def __len__(self) -> int:
        return len(self.user)

    @cached_property
    def matrix(self) -> csr_array:
        """The binary interaction matrix R (n_users x n_items), float32, items sorted in each row."""
        return interaction_matrix(self.user, self.item, len(self.users), len(self.items))

    @cached_property
    def popularity(self) -> Float[ndarray, " n_items"]:
        """Number of train interactions of each item."""
        return np.bincount(self.item, minlength=len(self.items)).astype(np.float32)

    @cached_property
    def seen(self) -> csr_array:
        """Pairs that are never ranked, as a binary matrix: the interactions, and the pairs of support reviews."""
        if not len(self.support):
            return self.matrix
        user, item = (np.concatenate(both) for both in zip(*self._pairs, strict=True))
        return interaction_matrix(user, item, len(self.users), len(self.items))

    @property
    def known_reviews(self) -> "Dataset":
        """All reviews that may be read, as if all were interactions: those of train first, then those of support.

        What is fitted to texts is fitted to these: a support review is there before anybody is tested.
        """
        if not len(self.support):
            return self
        user, item = (np.concatenate(both) for both in zip(*self._pairs, strict=True))
        return Dataset(self.users, self.items, user, item, pl.concat([self.review, self.support.review]))

    def about(self, side: Side) -> Bool[ndarray, " known_reviews"]:
        """Which of the known reviews go into profiles of `side`: all of train, and the support of that side."""
        return np.repeat([True, self.support.side == side], [len(self), len(self.support)])

    @property
    def _pairs(self) -> tuple[tuple[ndarray, ndarray], tuple[ndarray, ndarray]]:
        return (self.user, self.item), (self.support.user, self.support.item)


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Held-out interactions: indices only. There is no text here, so a test review cannot leak.

    Args:
        users: Ids of all users of the split.
        items: Ids of all items of the split.
        user: User index of each interaction.
        item: Item index of each interaction.

    Raises:
        DataError: If lengths differ, an index is out of range, or a (user, item) pair occurs twice.
    """

    users: IdMap
    items: IdMap
    user: Int[ndarray, " interactions"]
    item: Int[ndarray, " interactions"]

    def __post_init__(self) -> None:
        """Check lengths, ranges and uniqueness."""
        _check_pairs(self.user, self.item, self.users, self.items)

    def __len__(self) -> int:
        return len(self.user)

    @cached_property
    def matrix(self) -> csr_array:
        """The held-out pairs as a binary matrix (n_users x n_items)."""
        return interaction_matrix(self.user, self.item, len(self.users), len(self.items))


@dataclass(frozen=True, eq=False)
class Split:
    """Train with text; valid and test without.

    Args:
        train: What `fit` learns from.
        valid: What model selection sees.
        test: What only `compare` sees.
        name: How it was made: "random", "leave-last-out", "temporal", "cold-items", "cold-users" or "k-fold".
        warnings: What results on it cannot promise, in sentences.

    Raises:
        DataError: If a part is empty, parts overlap, or their id maps differ.
    """

    train: Dataset
    valid: HeldOut
    test: HeldOut
    name: str
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check that the parts are disjoint and share their id maps."""
        for part in (self.valid, self.test):
            if part.users != self.train.users or part.items != self.train.items:
                raise DataError("train, valid and test must share one pair of id maps.")
        total = self.train.seen + self.valid.matrix + self.test.matrix
        if total.nnz != len(self.train) + len(self.train.support) + len(self.valid) + len(self.test):
            raise DataError(
                "train, its support, valid and test must be disjoint; a (user, item) pair is in two of them."
            )
        for name, n in (("train", len(self.train)), ("valid", len(self.valid)), ("test", len(self.test))):
            if not n:
                raise DataError(
                    f"The {self.name} split left no interaction for {name}: the data is too small "
                    f"({total.nnz} interactions of {len(self.train.users)} users). Give more reviews."
                )


def interaction_matrix(
    user: Int[ndarray, " interactions"], item: Int[ndarray, " interactions"], n_users: int, n_items: int
) -> csr_array:
    """Return pairs as a binary csr matrix (n_users x n_items), float32, sorted indices."""
    matrix = csr_array(
        (np.ones(len(user), dtype=np.float32), (user.astype(np.int32), item.astype(np.int32))),
        shape=(n_users, n_items),
    )
    matrix.sort_indices()
    return matrix


def known_matrix(train: Dataset, valid: HeldOut | None) -> csr_array:
    """All pairs that fitting was told of, as a binary matrix: not to be recommended again."""
    return train.seen if valid is None else csr_array(train.seen + valid.matrix)


def _check_pairs(user: ndarray, item: ndarray, users: IdMap, items: IdMap) -> None:
    if len(user) != len(item):
        raise DataError(f"user and item must be of equal length; found {len(user)} and {len(item)}.")
    for index, ids in ((user, users), (item, items)):
        if len(index) and not 0 <= index.min() <= index.max() < len(ids):
            raise DataError(f"{ids.kind} indices must lie in 0..{len(ids) - 1}; found {index.min()}..{index.max()}.")
    if len(np.unique(user.astype(np.int64) * len(items) + item)) != len(user):
        raise DataError("A (user, item) pair occurs twice; an interaction is either there or not.")
