"""The k-core: the largest set of reviews in which every user and every item has at least k."""

import numpy as np
from jaxtyping import Bool, Int
from numpy import ndarray

from symcere.data.reviews import Reviews
from symcere.errors import ConfigError, DataError


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
    least_item = k if item_k is None else item_k
    if min(k, least_item) < 1:
        raise ConfigError(f"k of a k-core must be at least 1; found {min(k, least_item)}.")
    user = reviews.table["user_id"].rank("dense").to_numpy().astype(np.int64) - 1
    item = reviews.table["item_id"].rank("dense").to_numpy().astype(np.int64) - 1
    keep = _core(user, item, k, least_item)
    if not keep.any():
        highest = min(max(k, least_item) - 1, int(np.bincount(user).max()), int(np.bincount(item).max()))
        largest, left = next((j, int(c.sum())) for j in range(highest, 0, -1) if (c := _core(user, item, j, j)).any())
        raise DataError(
            f"k_core(k={k}{'' if item_k is None else f', item_k={item_k}'}) left 0 of {len(reviews):,} reviews. "
            f"Lower k (--k-core): at k={largest}, {left:,} remain."
        )
    return reviews.after(f"{k}-core" if item_k is None else f"({k}, {item_k})-core", reviews.table.filter(keep))


def _core(
    user: Int[ndarray, " reviews"], item: Int[ndarray, " reviews"], user_k: int, item_k: int
) -> Bool[ndarray, " reviews"]:
    """Mark the rows of the core."""
    keep = np.ones(len(user), dtype=bool)
    while True:
        n_user = np.bincount(user[keep], minlength=user.max() + 1)
        n_item = np.bincount(item[keep], minlength=item.max() + 1)
        left = keep & (n_user[user] >= user_k) & (n_item[item] >= item_k)
        if np.array_equal(left, keep):
            return keep
        keep = left
