"""Reviews without their words: all that filters, k-cores and splits need to look at."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int
from numpy import ndarray


@dataclass(frozen=True)
class Step:
    """What one stage left, and how many rows it dropped or noted, for the manifest."""

    name: str
    n_reviews: int
    n_users: int
    n_items: int
    dropped: int = 0


@dataclass(frozen=True, eq=False)
class Interactions:
    """Who, what, when and how rated; one entry a review.

    Args:
        row: Row of each review in the table that it comes from, ascending.
        user: Number of its user, a position in `user_ids`; not every one need occur.
        item: Number of its item, the same.
        rating: NaN where unknown.
        timestamp: Seconds since 1970; the least number there is where unknown.
        n_characters: Length of title and body.
        user_ids: Id of each user number.
        item_ids: Id of each item number.
    """

    row: Int[ndarray, " reviews"]
    user: Int[ndarray, " reviews"]
    item: Int[ndarray, " reviews"]
    rating: Float[ndarray, " reviews"]
    timestamp: Int[ndarray, " reviews"]
    n_characters: Int[ndarray, " reviews"]
    user_ids: pl.Series
    item_ids: pl.Series

    def __len__(self) -> int:
        return len(self.row)

    def kept(self, mask: Bool[ndarray, " reviews"]) -> "Interactions":
        """Some of the reviews; users and items keep their numbers."""
        names = ("row", "user", "item", "rating", "timestamp", "n_characters")
        return replace(self, **{name: getattr(self, name)[mask] for name in names})

    def of_a_table(self) -> "Interactions":
        """The same reviews as rows 0..n-1 of a table of their own, with its users and items alone."""
        (user, user_ids), (item, item_ids) = (
            _compact(self.user, self.user_ids),
            _compact(self.item, self.item_ids),
        )
        row = np.arange(len(self))
        return replace(self, row=row, user=user, item=item, user_ids=user_ids, item_ids=item_ids)

    def step(self, name: str, dropped: int = 0) -> Step:
        """Count what is left as the step called `name`."""
        n_users, n_items = (int((np.bincount(side) > 0).sum()) for side in (self.user, self.item))
        return Step(name, len(self), n_users, n_items, dropped)

    @cached_property
    def pair(self) -> Int[ndarray, " reviews"]:
        """One number for each (user, item)."""
        return np.asarray(self.user.astype(np.int64) * len(self.item_ids) + self.item)


UNDATED = np.iinfo(np.int64).min
"""Timestamp of a review that has none."""

KEYS = pl.Schema(
    {
        "user_id": pl.String,
        "item_id": pl.String,
        "rating": pl.Float32,
        "timestamp": pl.Int64,
        "n_characters": pl.Int32,
    }
)
"""What interactions are made of."""


def keys_of(reviews: pl.DataFrame) -> pl.DataFrame:
    """Take from reviews what interactions are made of: columns KEYS."""
    length = (pl.col("title").str.len_chars() + pl.col("text").str.len_chars()).cast(pl.Int32)
    return reviews.select("user_id", "item_id", "rating", "timestamp", n_characters=length)


def interactions_of(keys: pl.DataFrame) -> Interactions:
    """Number users and items.

    Args:
        keys: Columns KEYS, one row a review.

    Returns:
        The interactions.

    Example:
        >>> keys = pl.DataFrame([("ann", "strap", 5, None, 3)], schema=KEYS, orient="row")
        >>> interactions_of(keys).user_ids.to_list()
        ['ann']
    """
    with ThreadPoolExecutor(2) as pool:
        (user, user_ids), (item, item_ids) = pool.map(_numbered, (keys["user_id"], keys["item_id"]))
    return Interactions(
        np.arange(len(keys)),
        user,
        item,
        keys["rating"].fill_null(np.nan).to_numpy(),
        keys["timestamp"].fill_null(UNDATED).to_numpy(),
        keys["n_characters"].to_numpy(),
        user_ids,
        item_ids,
    )


def _compact(number: Int[ndarray, " reviews"], ids: pl.Series) -> tuple[Int[ndarray, " reviews"], pl.Series]:
    there = np.bincount(number, minlength=len(ids)) > 0
    return (np.cumsum(there) - 1)[number], ids.filter(pl.Series(there))


def _numbered(ids: pl.Series) -> tuple[Int[ndarray, " reviews"], pl.Series]:
    known = ids.unique(maintain_order=True).alias("id")
    numbers = known.to_frame().with_row_index("number").with_columns(pl.col("number").cast(pl.Int32))
    found = ids.alias("id").to_frame().join(numbers, on="id", how="left", maintain_order="left")
    return found["number"].to_numpy(), known
