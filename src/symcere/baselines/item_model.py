"""What item_knn and ease share: a user's affinity is the sum of item-item weights over the items seen."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.sparse import csr_array

from symcere.data.dataset import Dataset, HeldOut, known_matrix
from symcere.errors import ConfigError
from symcere.recommender import Scored, with_unit_spread
from symcere.training.config import POPULARITY_WEIGHTS
from symcere.training.tuning import choose, choose_popularity_weight

MAX_ITEMS = 20_000
"""Largest catalogue for dense item-item weights: 20,000 squared is 1.6 GB in float32, and EASE's inverse needs
several copies in float64."""


@dataclass(frozen=True, eq=False)
class ItemModel(Scored):
    """Affinity = R W, for the binary train matrix R and item-item weights W.

    Args:
        train: Binary matrix (n_users x n_items) of train interactions.
        weights: Item-item weights.
    """

    train: csr_array
    weights: Float[ndarray, "n_items n_items"]

    def affinity(self, user: Int[ndarray, " some_users"]) -> Float[ndarray, "some_users n_items"]:
        """Sum of the weights from each user's train items."""
        return np.asarray(self.train[user] @ self.weights, dtype=np.float32)


def co_occurrence(train: Dataset) -> Float[ndarray, "n_items n_items"]:
    """R^T R, float32: how many users each pair of items has in common."""
    return np.asarray((train.matrix.T @ train.matrix).todense(), dtype=np.float32)


def check_catalogue(train: Dataset, name: str) -> None:
    """Raise ConfigError where dense item-item weights would not fit into memory."""
    n_items = len(train.items)
    if n_items > MAX_ITEMS:
        raise ConfigError(
            f"{name} holds {n_items:,} x {n_items:,} weights ({4 * n_items**2 / 1e9:.0f} GB); at most "
            f"{MAX_ITEMS:,} items are taken. Raise --k-core, or leave it out of --systems."
        )


def best_on_valid(train: Dataset, valid: HeldOut, weights: Iterable[Float[ndarray, "n_items n_items"]]) -> ItemModel:
    """Choose item-item weights and dial together, by NDCG@10 on valid.

    Args:
        train: The train part.
        valid: What decides.
        weights: The candidates, one matrix a setting.

    Returns:
        The best system, its affinities of unit spread and its dial set.
    """
    candidates = (
        with_unit_spread(
            ItemModel(
                users=train.users,
                items=train.items,
                seen=known_matrix(train, valid),
                popularity=train.popularity,
                temperature=1.0,
                popularity_weight=0.0,
                train=train.matrix,
                weights=matrix,
            )
        )
        for matrix in weights
    )
    dialled = (choose_popularity_weight(each, train, valid, POPULARITY_WEIGHTS)[0] for each in candidates)
    return choose(dialled, train, valid)[0]
