"""The k-core: the largest set of reviews in which every user and every item has at least k."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int
from numpy import ndarray

from symcere.data.interactions import Interactions
from symcere.data.reviews import Reviews
from symcere.errors import ConfigError, DataError


@dataclass(frozen=True)
class KCore:
    """Keep the (k, item_k)-core: the fixed point of dropping users and items, which no order of dropping changes.

    Args:
        k: Least number of reviews a user must keep; 1 keeps everything.
        item_k: The same for items; k where left out.

    Raises:
        ConfigError: If k or item_k is below 1.
    """

    k: int = 5
    item_k: int | None = None

    def __post_init__(self) -> None:
        """Check the bounds."""
        if min(self.k, self._least_item) < 1:
            raise ConfigError(f"k of a k-core must be at least 1; found {min(self.k, self._least_item)}.")

    @property
    def name(self) -> str:
        """As it stands in the manifest."""
        return f"{self.k}-core" if self.item_k is None else f"({self.k}, {self.item_k})-core"

    @property
    def _least_item(self) -> int:
        return self.k if self.item_k is None else self.item_k

    def __call__(self, interactions: Interactions) -> Bool[ndarray, " reviews"]:
        """Drop, again and again, until nothing more falls; DataError names the largest k that leaves something."""
        user, item = interactions.user, interactions.item
        keep = _core(user, item, self.k, self._least_item)
        if not keep.any():
            most = (int(np.bincount(side).max()) for side in (user, item))
            highest = min(max(self.k, self._least_item) - 1, *most)
            cores = ((k, int(_core(user, item, k, k).sum())) for k in range(highest, 0, -1))
            largest, left = next((k, n) for k, n in cores if n)
            raise DataError(
                f"k_core(k={self.k}{'' if self.item_k is None else f', item_k={self.item_k}'}) left 0 of "
                f"{len(user):,} reviews. Lower k (--k-core): at k={largest}, {left:,} remain."
            )
        return keep


def k_core(reviews: Reviews, k: int = 5, *, item_k: int | None = None) -> Reviews:
    """Drop users and items with fewer than k reviews, again and again, until nothing more falls.

    Args:
        reviews: One row a (user, item) pair.
        k: Least number of reviews a user must keep; 1 keeps everything.
        item_k: The same for items; k where left out.

    Returns:
        The reviews of the (k, item_k)-core: the fixed point, which does not depend on the order of dropping.

    Raises:
        ConfigError: If k or item_k is below 1.
        DataError: If nothing is left; the message names the largest k that leaves something.
    """
    return reviews.filtered(KCore(k, item_k))


def _core(
    user: Int[ndarray, " reviews"], item: Int[ndarray, " reviews"], user_k: int, item_k: int
) -> Bool[ndarray, " reviews"]:
    """Mark the rows of the core."""
    left = np.arange(len(user))  # rows that still stand
    while len(left):
        enough_user = np.bincount(user[left]) >= user_k
        enough_item = np.bincount(item[left]) >= item_k
        still = left[enough_user[user[left]] & enough_item[item[left]]]
        if len(still) == len(left):
            break
        left = still
    keep = np.zeros(len(user), dtype=bool)
    keep[left] = True
    return keep
