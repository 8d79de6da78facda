"""Batches of train interactions with sampled negatives and the coordinates of known pairs."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from numpy import ndarray
from scipy.sparse import csr_array
from torch import Tensor

from symcere.data.dataset import Dataset
from symcere.losses import Known
from symcere.training.known import Mask, masked_pairs


@dataclass(frozen=True)
class Batch:
    """Pairs (user k, item k), an unseen item for each, and the pairs to leave out of denominators."""

    user: Int[Tensor, " batch"]
    item: Int[Tensor, " batch"]
    negative: Int[Tensor, " batch"]
    known: Known

    def to(self, device: torch.device) -> "Batch":
        """The same on a device."""
        user, item, negative = (side.to(device, non_blocking=True) for side in (self.user, self.item, self.negative))
        return Batch(user, item, negative, self.known.to(device))

    @property
    def known_share(self) -> float:
        """Known pairs as a share of all off-diagonal pairs."""
        n = len(self.user)
        return len(self.known.row) / (n * (n - 1)) if n > 1 else 0.0


def batches(train: Dataset, size: int, mask: Mask, generator: np.random.Generator) -> Iterator[Batch]:
    """Yield one epoch: every train interaction once, in random order, in batches of nearly equal size.

    Args:
        train: The train part.
        size: Largest batch.
        mask: Which pairs denominators leave out.
        generator: Decides order and negatives.

    Yields:
        The batches of one epoch.
    """
    n_batches = -(-len(train) // size)
    for rows in np.array_split(generator.permutation(len(train)), n_batches):
        user, item = train.user[rows], train.item[rows]
        negative = sample_unseen(user, train.matrix, generator)
        known = masked_pairs(mask, user, item, train.matrix)
        yield Batch(torch.from_numpy(user), torch.from_numpy(item), torch.from_numpy(negative), known)


def sample_unseen(
    user: Int[ndarray, " batch"], train: csr_array, generator: np.random.Generator, attempts: int = 20
) -> Int[ndarray, " batch"]:
    """Draw an item that each user has not seen in train, uniformly.

    Args:
        user: User index of each pair.
        train: Binary train matrix, indices sorted in each row.
        generator: Source of the draws.
        attempts: Redraws before giving up on a user who has seen nearly everything.

    Returns:
        Item indices.
    """
    n_items = train.shape[1]
    seen = np.repeat(np.arange(train.shape[0]), np.diff(train.indptr)) * n_items + train.indices  # ascending
    item = generator.integers(0, n_items, len(user))
    for _ in range(attempts):
        key = user * n_items + item
        at = np.minimum(np.searchsorted(seen, key), len(seen) - 1)
        again = np.flatnonzero(seen[at] == key)
        if not len(again):
            break
        item[again] = generator.integers(0, n_items, len(again))
    return item
