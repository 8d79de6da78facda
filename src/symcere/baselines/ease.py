"""EASE: a linear item-item model in closed form."""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from pydantic import Field

from symcere.baselines.item_model import ItemModel, best_on_valid, check_catalogue, co_occurrence
from symcere.data.dataset import Dataset, HeldOut
from symcere.training.config import Settings
from symcere.training.space import Real, Space

L2 = (3.0, 10.0, 30.0, 100.0, 300.0, 1_000.0, 3_000.0)


class EASESettings(Settings):
    """EASE has one setting."""

    l2: Annotated[float, Field(gt=0, le=1e9)] = 100.0
    """The ridge."""


SPACE: Space = {"l2": Real(1.0, 10_000.0, log=True)}

PUBLISHED = (EASESettings(l2=500.0),)
"""The paper's for MovieLens 20M (its figure 1)."""


def fit_ease(train: Dataset, *, valid: HeldOut, l2: Sequence[float] = L2) -> ItemModel:
    """Fit EASE; ridge and dial are chosen on valid.

    Args:
        train: The train part.
        valid: What decides.
        l2: Ridges to try.

    Returns:
        The best system.

    Raises:
        ConfigError: If the catalogue is too large for dense weights.

    Source:
        Steck, Embarrassingly Shallow Autoencoders for Sparse Data, WWW 2019.
    """
    check_catalogue(train, "ease")
    common = co_occurrence(train)
    return best_on_valid(train, valid, (ease_weights(common, ridge) for ridge in l2))


def ease_weights(common: Float[ndarray, "n_items n_items"], l2: float) -> Float[ndarray, "n_items n_items"]:
    """Minimise |R - R B|^2 + l2 |B|^2 over B with a zero diagonal.

    Args:
        common: R^T R.
        l2: The ridge, above 0.

    Returns:
        B = I - P / diag(P) with P = (R^T R + l2 I)^-1.
    """
    inverse = np.linalg.inv(common.astype(np.float64) + l2 * np.eye(len(common)))
    weights = -inverse / inverse.diagonal()
    np.fill_diagonal(weights, 0)
    return weights.astype(np.float32)
