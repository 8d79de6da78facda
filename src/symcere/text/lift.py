"""Lift: how much oftener than by chance a term comes back, among what users write and what is written of their items.

Facts come back and moods do not: who stayed in one hotel at Waikiki and writes of it chooses others of which Waikiki
is written, and "great" is written of everything.
"""

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.sparse import csr_array

from symcere import rng

SMOOTHING = 5.0
"""Pairs that are added to both counts: a term that came back once or twice proves nothing."""

FLOOR = 0.1
"""Weight of a term that comes back no oftener than by chance; one that comes back e times as often weighs 1.1."""

_BLOCK = 2_048  # reviews whose terms are laid out at once


def lift_weights(
    terms: csr_array, user: Int[ndarray, " reviews"], item: Int[ndarray, " reviews"]
) -> Float[ndarray, " terms"]:
    """Weigh terms by their lift over the pairs of some reviews.

    A pair counts for a term if that stands in another review of its user and in another review of its item: the
    review of the pair itself would be in both.

    Args:
        terms: Reviews x terms; what is not 0 stands there.
        user: User of each review.
        item: Item of each.

    Returns:
        max(ln((n_both + s) / (n_user * n_item / n + s)), 0) + floor, of n pairs.

    Example:
        >>> user, item = np.repeat(np.arange(20), 2), np.repeat([[0, 1], [2, 3]], 10, axis=0).ravel()
        >>> terms = csr_array(np.stack([item < 2, item > 1, item >= 0], axis=1))  # a place, another, and "great"
        >>> [f"{weight:.2f}" for weight in lift_weights(terms, user, item)]
        ['0.61', '0.61', '0.10']
    """
    stands = csr_array((np.ones(terms.nnz, dtype=np.float32), terms.indices, terms.indptr), shape=terms.shape)
    by_user, by_item = (_summed(stands, node) for node in (user, item))
    n_user, n_item, n_both = np.zeros((3, terms.shape[1]))
    for begin in range(0, len(user), _BLOCK):
        rows = slice(begin, begin + _BLOCK)
        own = stands[rows]
        others_of_user, others_of_item = _others(by_user, user[rows], own), _others(by_item, item[rows], own)
        n_user += others_of_user.sum(axis=0)
        n_item += others_of_item.sum(axis=0)
        n_both += others_of_user.multiply(others_of_item).sum(axis=0)
    by_chance = n_user * n_item / max(len(user), 1)
    lift = np.log((n_both + SMOOTHING) / (by_chance + SMOOTHING))
    return np.asarray(np.maximum(lift, 0) + FLOOR, dtype=np.float32)


def of_some_users(user: Int[ndarray, " reviews"], n: int) -> Int[ndarray, " some"]:
    """All reviews of users drawn at random, as many as have `n` reviews together at most; of all where they do.

    Reviews drawn one by one would leave each user with one.

    Args:
        user: User of each review.
        n: How many reviews.

    Returns:
        Reviews, ascending.
    """
    if len(user) <= n:
        return np.arange(len(user))
    count = np.bincount(user)
    order = rng.stream(0, "lift").permutation(len(count))
    order = order[count[order] <= n]
    drawn = np.zeros(len(count), dtype=bool)
    drawn[order[np.cumsum(count[order]) <= n]] = True
    return np.flatnonzero(drawn[user])


def _summed(stands: csr_array, node: ndarray) -> csr_array:
    """In how many reviews of each node each term stands."""
    n = len(node)
    of_node = csr_array(
        (np.ones(n, dtype=np.float32), (node, np.arange(n))), shape=(int(node.max(initial=-1)) + 1, n)
    )
    return csr_array(of_node @ stands)


def _others(by_node: csr_array, node: ndarray, own: csr_array) -> csr_array:
    """Whether each term stands in another review of the node of each review."""
    others = csr_array(by_node[node] - own)
    others.data = (others.data > 0).astype(np.float32)
    return others
