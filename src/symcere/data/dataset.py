"""The nouns between splitting and training: what `fit` may see, and what it may not."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.sparse import csr_array

from symcere.errors import DataError
from symcere.ids import IdMap

REVIEW = ("rating", "timestamp", "helpful", "title", "text")
"""What a review says beside who and what: the columns of Reviews.table that train keeps."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Interactions with their reviews, as indices; sorted by (user, item).

    Args:
        users: Ids of all users of the split, also of those without a train interaction.
        items: Ids of all items of the split.
        user: User index of each interaction.
        item: Item index of each interaction.
        review: The columns REVIEW of each interaction, typed as in Reviews.table.

    Raises:
        DataError: If lengths differ, a column is missing, an index is out of range, or a (user, item) pair occurs
            twice.
    """

    users: IdMap
    items: IdMap
    user: Int[ndarray, " interactions"]
    item: Int[ndarray, " interactions"]
    review: pl.DataFrame

    def __post_init__(self) -> None:
        """Check lengths, ranges and uniqueness."""
        if not len(self.user) == len(self.item) == len(self.review):
            raise DataError(
                f"user, item and review must be of equal length; found {len(self.user)}, {len(self.item)}, "
                f"{len(self.review)}."
            )
        if self.review.columns != list(REVIEW):
            raise DataError(
                f"A train review has columns {', '.join(REVIEW)}; found {', '.join(self.review.columns)}."
            )
        _check_pairs(self.user, self.item, self.users, self.items)

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
        name: How it was made: "random", "leave-last-out" or "temporal".

    Raises:
        DataError: If a part is empty, parts overlap, or their id maps differ.
    """

    train: Dataset
    valid: HeldOut
    test: HeldOut
    name: str

    def __post_init__(self) -> None:
        """Check that the parts are disjoint and share their id maps."""
        for part in (self.valid, self.test):
            if part.users != self.train.users or part.items != self.train.items:
                raise DataError("train, valid and test must share one pair of id maps.")
        total = self.train.matrix + self.valid.matrix + self.test.matrix
        if total.nnz != len(self.train) + len(self.valid) + len(self.test):
            raise DataError("train, valid and test must be disjoint; a (user, item) pair is in two of them.")
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
    return train.matrix if valid is None else csr_array(train.matrix + valid.matrix)


def _check_pairs(user: ndarray, item: ndarray, users: IdMap, items: IdMap) -> None:
    if len(user) != len(item):
        raise DataError(f"user and item must be of equal length; found {len(user)} and {len(item)}.")
    for index, ids in ((user, users), (item, items)):
        if len(index) and not 0 <= index.min() <= index.max() < len(ids):
            raise DataError(f"{ids.kind} indices must lie in 0..{len(ids) - 1}; found {index.min()}..{index.max()}.")
    if len(np.unique(user.astype(np.int64) * len(items) + item)) != len(user):
        raise DataError("A (user, item) pair occurs twice; an interaction is either there or not.")
