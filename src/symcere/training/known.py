"""The false-negative mask as coordinates: which off-diagonal pairs of a batch are known interactions.

Building it never looks up batch^2 pairs: the train items of the batch's users are matched against the sorted
items of the batch, in time proportional to the sum of the users' degrees.
"""

from typing import Literal

import numpy as np
import torch
from jaxtyping import Int
from numpy import ndarray
from scipy.sparse import csr_array

from symcere.losses import Known

Mask = Literal["history", "same_item", "none"]

_LOW = 65_535  # the bits of an item that name a slot
_NONE = Known(torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))


def known_pairs(user: Int[ndarray, " batch"], item: Int[ndarray, " batch"], train: csr_array) -> Known:
    """Coordinates (k, j), k != j, where user k of the batch has interacted with item j of it in train.

    Repeated users and items of a batch are covered by the same rule.

    Args:
        user: User index of each pair of the batch.
        item: Item index of each pair.
        train: Binary train matrix (n_users x n_items). Held-out pairs must not be in it: sparing them
            repulsion would be leakage.

    Returns:
        The coordinates, sorted by row.
    """
    order = np.argsort(item, kind="stable")
    in_order = item[order]
    start = train.indptr[user]
    degree = train.indptr[user + 1] - start
    row = np.repeat(np.arange(len(user)), degree)
    seen = train.indices[np.arange(degree.sum()) + np.repeat(start - _before(degree), degree)]
    slots = np.zeros(_LOW + 1, dtype=bool)
    slots[item & _LOW] = True
    perhaps = np.flatnonzero(slots[seen & _LOW])  # few items of a history are in the batch, and are worth a search
    row, seen = row[perhaps], seen[perhaps]
    first = np.searchsorted(in_order, seen, side="left")
    n = np.searchsorted(in_order, seen, side="right") - first
    column = order[np.arange(n.sum()) + np.repeat(first - _before(n), n)]
    return _off_diagonal(np.repeat(row, n), column)


def masked_pairs(mask: Mask, user: Int[ndarray, " batch"], item: Int[ndarray, " batch"], train: csr_array) -> Known:
    """Coordinates that a masking level leaves out: all known pairs, those of the same item only, or none."""
    if mask == "history":
        return known_pairs(user, item, train)
    if mask == "same_item":
        # each pair of the batch as if its user had seen nothing but its item
        own = csr_array((np.ones(len(item)), item, np.arange(len(item) + 1)), shape=(len(item), train.shape[1]))
        return known_pairs(np.arange(len(item)), item, own)
    return _NONE


def _before(n: Int[ndarray, " groups"]) -> Int[ndarray, " groups"]:
    """Number of elements in all groups before each."""
    return np.asarray(np.cumsum(n) - n)


def _off_diagonal(row: ndarray, column: ndarray) -> Known:
    off = row != column
    return Known(torch.from_numpy(row[off].astype(np.int64)), torch.from_numpy(column[off].astype(np.int64)))
