"""Item k-nearest-neighbours: cosine of co-occurrence, shrunk, cut to the nearest items."""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from pydantic import Field

from symcere.baselines.item_model import ItemModel, best_on_valid, check_catalogue, co_occurrence
from symcere.data.dataset import Dataset, HeldOut
from symcere.training.config import Settings
from symcere.training.space import Real, Space, Whole

NEIGHBOURS = (10, 20, 50, 100, 200)
SHRINK = (0.0, 5.0, 20.0, 100.0)


class ItemKNNSettings(Settings):
    """Item kNN."""

    neighbours: Annotated[int, Field(ge=1)] = 100
    """Nearest items that are kept of each."""
    shrink: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Added to the denominator of the cosine: items seen rarely are trusted less."""


SPACE: Space = {"neighbours": Whole(5, 500), "shrink": Real(0.0, 200.0)}

PUBLISHED = (ItemKNNSettings(neighbours=100, shrink=0.0),)
"""The defaults of RecBole."""


def fit_item_knn(
    train: Dataset,
    *,
    valid: HeldOut,
    neighbours: Sequence[int] = NEIGHBOURS,
    shrink: Sequence[float] = SHRINK,
) -> ItemModel:
    """Fit item kNN; neighbours, shrinkage and dial are chosen on valid.

    Args:
        train: The train part.
        valid: What decides.
        neighbours: Numbers of nearest items to try.
        shrink: Shrinkages to try: added to the denominator, they distrust items seen rarely.

    Returns:
        The best system.

    Raises:
        ConfigError: If the catalogue is too large for dense weights.

    Source:
        Sarwar et al., WWW 2001; shrinkage after Bell and Koren, ICDM 2007.
    """
    check_catalogue(train, "item_knn")
    common = co_occurrence(train)
    return best_on_valid(train, valid, (item_cosine(common, n, s) for s in shrink for n in neighbours))


def item_cosine(
    common: Float[ndarray, "n_items n_items"], neighbours: int, shrink: float
) -> Float[ndarray, "n_items n_items"]:
    """Shrunk cosine of each pair of items, the nearest of each column kept.

    Args:
        common: c_ij users in common, n_i = c_ii.
        neighbours: How many to keep.
        shrink: c_ij / (sqrt(n_i n_j) + shrink).

    Returns:
        Weights with a zero diagonal; column j holds the neighbours of item j.
    """
    length = np.sqrt(common.diagonal())
    cosine = common / np.maximum(np.outer(length, length) + np.float32(shrink), np.float32(1e-12))
    np.fill_diagonal(cosine, 0)
    if neighbours < len(cosine):
        least = np.partition(cosine, len(cosine) - neighbours, axis=0)[len(cosine) - neighbours]
        cosine[cosine < least] = 0
    return cosine
