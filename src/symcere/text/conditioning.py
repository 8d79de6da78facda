"""Conditioning of vectors: an affine map fitted on train reviews, applied to profiles.

The map commutes with the weighted mean that makes a profile, so it is applied once a node, not once a review.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray

SAMPLE = 65_536
"""Vectors that the map is fitted on, at most; enough for some hundred directions."""

_BLOCK = 4_096  # rows in float64 at a time


@dataclass(frozen=True)
class Conditioning:
    """What is done to the vectors of an encoder before they are profiles.

    Args:
        kind: "none" leaves them; "centre" subtracts the mean of the train reviews; "whiten" also gives all
            directions kept the same variance, 1 / dim, so that a review has unit length on average.
        dim: Leading directions to keep; None for all that vary. "none" keeps every column.
    """

    kind: Literal["none", "centre", "whiten"] = "none"
    dim: int | None = None


AS_IS = Conditioning()
WHITENED = Conditioning("whiten", 256)


@dataclass(frozen=True, eq=False)
class Affine:
    """x -> (x - mean) @ matrix.

    Args:
        mean: Subtracted first.
        matrix: text_dim x directions.
    """

    mean: Float[ndarray, " text_dim"]
    matrix: Float[ndarray, "text_dim directions"]

    def __call__(self, x: Float[ndarray, "rows text_dim"]) -> Float[ndarray, "rows directions"]:
        """Map rows, block by block; float32."""
        out = np.empty((len(x), self.matrix.shape[1]), dtype=np.float32)
        for start in range(0, len(x), _BLOCK):
            out[start : start + _BLOCK] = (x[start : start + _BLOCK] - self.mean) @ self.matrix
        return out


def fit_conditioning(
    vectors: Float[ndarray, "sample text_dim"], weight: Float[ndarray, " sample"], conditioning: Conditioning
) -> Affine | None:
    """Fit the map on vectors of train reviews.

    A mean of raw sentence vectors is dominated by one common direction; without it, profiles differ by content.

    Args:
        vectors: One row a distinct text.
        weight: How many reviews each stands for.
        conditioning: What to do.

    Returns:
        The map; None where there is nothing to do.
    """
    if conditioning.kind == "none":
        return None
    share = weight / weight.sum()
    mean = np.zeros(vectors.shape[1])
    for start in range(0, len(vectors), _BLOCK):
        mean += share[start : start + _BLOCK] @ vectors[start : start + _BLOCK].astype(np.float64)
    covariance = np.zeros((len(mean), len(mean)))
    for start in range(0, len(vectors), _BLOCK):
        centred = vectors[start : start + _BLOCK].astype(np.float64) - mean
        covariance += (centred * share[start : start + _BLOCK, None]).T @ centred
    variance, direction = np.linalg.eigh(covariance)
    keep = np.flatnonzero(variance > 1e-8 * variance[-1])[::-1][: conditioning.dim]
    scale = 1 / np.sqrt(variance[keep] * max(len(keep), 1)) if conditioning.kind == "whiten" else 1.0
    return Affine(mean, np.ascontiguousarray(direction[:, keep] * scale))
