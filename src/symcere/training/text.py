"""Text features as training reads them: profiles of all nodes, vectors of single reviews, profiles without one."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from symcere.data.dataset import Dataset
from symcere.errors import ConfigError
from symcere.losses import unit_rows
from symcere.models.projection import PairFeatures
from symcere.text.features import TextFeatures

ReviewOfPair: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""(users, items) of train pairs -> which train review each pair is."""


def profiles(train: Dataset, text: TextFeatures, rows: slice | None = None) -> Float[Tensor, "nodes text_dim"]:
    """Profiles of all nodes, users first.

    Args:
        train: The train part.
        text: Profiles made from it.
        rows: Of these nodes alone, from a first to a last one; of all if left out.

    Returns:
        One row a node; zero where there is no text.

    Raises:
        ConfigError: If the profiles are those of another train part.
    """
    n_users, n_items = len(train.users), len(train.items)
    if (len(text.user), len(text.item)) != (n_users, n_items):
        raise ConfigError(
            f"Text features must have a row for each of {n_users} users and {n_items} items; found "
            f"{len(text.user)} and {len(text.item)}. Encode the same train part that is fitted."
        )
    begin, end = (rows.start, rows.stop) if rows else (0, n_users + n_items)
    sides = text.user[begin:end], text.item[max(begin - n_users, 0) : max(end - n_users, 0)]
    return torch.from_numpy(np.concatenate(sides))


def on_sphere(features: Float[Tensor, "nodes text_dim"]) -> Float[Tensor, "nodes text_dim"]:
    """Profiles of unit length; zero where there is no text.

    Args:
        features: Profiles.

    Returns:
        The same directions.

    Raises:
        ConfigError: If a profile is too long for its length to be a number.
    """
    unit = unit_rows(features)
    if not torch.equal(unit.any(1), features.any(1)):
        raise ConfigError(
            "A profile is so long that its length is no number of 32 bits. Scale the vectors of the text."
        )
    return unit


def told(text: TextFeatures) -> Bool[Tensor, " nodes"]:
    """Which nodes have text, users first."""
    return torch.from_numpy(np.concatenate([side.any(1) for side in (text.user, text.item)]))


def review_vectors(train: Dataset, text: TextFeatures) -> Float[ndarray, "reviews text_dim"]:
    """The vector of each train review, those of several encoders side by side.

    Args:
        train: The train part.
        text: Features of it that know their reviews.

    Returns:
        One row a train interaction, in order; zero where it has no text.

    Raises:
        ConfigError: If the features do not know their reviews, or know those of another train part.
    """
    _check_own(text, "Systems that read single reviews need text features that know them.")
    profiles(train, text)
    if (n := len(text.own[0].vectors)) != len(train):
        raise ConfigError(
            f"Text features must know the {len(train)} reviews of train; they know {n}. Encode the same train part "
            "that is fitted."
        )
    return np.concatenate([own.vectors for own in text.own], axis=1)


def review_of_pair(train: Dataset) -> ReviewOfPair:
    """Find the train review of pairs of a batch.

    Args:
        train: The train part; the pairs that are asked for must be in it.

    Returns:
        The function.

    Example:
        >>> import symcere as sc
        >>> train = sc.split_random(sc.k_core(sc.anchoring_world(60, 30, 5).reviews, 2)).train
        >>> user, item = (torch.from_numpy(side[[7, 3]]) for side in (train.user, train.item))
        >>> review_of_pair(train)(user, item).tolist()
        [7, 3]
    """
    n_items = len(train.items)
    key, order = torch.sort(torch.from_numpy(train.user.astype(np.int64) * n_items + train.item))

    def review(user: Int[Tensor, " batch"], item: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        return order[torch.searchsorted(key, (user * n_items + item).cpu())].to(user.device)

    return review


def without_own(train: Dataset, text: TextFeatures) -> PairFeatures:
    """Profiles of train pairs without the pair's own review.

    Args:
        train: The train part.
        text: Features of it that know their reviews.

    Returns:
        The function, from user and item nodes to the profiles of both.

    Raises:
        ConfigError: If the features do not know their reviews.
    """
    _check_own(text, "leave_one_out needs text features that know their reviews.")
    n_users, review = len(train.users), review_of_pair(train)

    def of_pairs(user: Tensor, item: Tensor) -> tuple[Tensor, Tensor]:
        item = item - n_users
        left = text.left_out(*(of.cpu().numpy() for of in (user, item, review(user, item))))
        return torch.from_numpy(left[0]).to(user.device), torch.from_numpy(left[1]).to(user.device)

    return of_pairs


def _check_own(text: TextFeatures, needed: str) -> None:
    if not text.own:
        raise ConfigError(
            f"{needed} Encode with encode_reviews(..., leave_one_out=True); on the command line, "
            "--profile leave-one-out."
        )
