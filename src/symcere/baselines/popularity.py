"""Popularity: the same list for everyone, most reviewed first."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from symcere.data.dataset import Dataset, HeldOut, known_matrix
from symcere.recommender import Scored


@dataclass(frozen=True, eq=False)
class PopularityScorer(Scored):
    """No affinity at all: what remains of the score is the popularity dial."""

    def affinity(self, user: Int[ndarray, " some_users"]) -> Float[ndarray, "some_users n_items"]:
        """Zero for every pair."""
        return np.zeros((len(user), len(self.items)), dtype=np.float32)


def fit_popularity(train: Dataset, *, valid: HeldOut | None = None) -> PopularityScorer:
    """Rank items by log(1 + train interactions).

    Args:
        train: The train part.
        valid: Its items are not recommended afterwards; nothing else is taken from it.

    Returns:
        The system.
    """
    return PopularityScorer(
        users=train.users,
        items=train.items,
        seen=known_matrix(train, valid),
        popularity=train.popularity,
        temperature=1.0,
        popularity_weight=1.0,
    )
