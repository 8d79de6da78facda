"""Batches of train interactions with sampled negatives and the coordinates of known pairs."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int
from numpy import ndarray
from torch import Tensor

from symcere.data.dataset import Dataset
from symcere.losses import Known
from symcere.training.known import Mask, masked_pairs

_DRAWN = 65_536  # pairs whose negatives are drawn at once: small enough for the cache, large enough for small batches


@dataclass(frozen=True)
class Batch:
    """Pairs (user k, item k), an unseen item for each, and the pairs to leave out of denominators."""

    user: Int[Tensor, " batch"]
    item: Int[Tensor, " batch"]
    negative: Int[Tensor, " batch"]
    known: Known

    def to(self, device: torch.device) -> "Batch":
        """The same on a device."""
        if self.user.device == device:
            return self
        user, item, negative = (side.to(device, non_blocking=True) for side in (self.user, self.item, self.negative))
        return Batch(user, item, negative, self.known.to(device))

    @property
    def known_share(self) -> float:
        """Known pairs as a share of all off-diagonal pairs."""
        n = len(self.user)
        return len(self.known.row) / (n * (n - 1)) if n > 1 else 0.0


class SeenPairs:
    """The pairs of train, to be asked for one by one: nearly always one look into a table, however many there are.

    Args:
        train: The train part.
    """

    def __init__(self, train: Dataset) -> None:
        self.n_items = len(train.items)
        self.keys = np.sort(train.user * self.n_items + train.item)
        self._shift = np.uint64(64 - (8 * len(self.keys)).bit_length())  # a table an eighth full at most
        self._perhaps = np.zeros(2 ** (64 - int(self._shift)), dtype=bool)
        self._perhaps[self._slot(self.keys)] = True

    def __call__(self, user: Int[ndarray, " pairs"], item: Int[ndarray, " pairs"]) -> Bool[ndarray, " pairs"]:
        """Whether each pair is in train."""
        key = user * self.n_items + item
        seen: ndarray = self._perhaps[self._slot(key)]
        sure = np.flatnonzero(seen)
        key = key[sure]
        seen[sure] = self.keys.take(np.searchsorted(self.keys, key), mode="clip") == key
        return seen

    def _slot(self, key: ndarray) -> ndarray:
        """Multiplicative hashing: the high bits of the key times the golden ratio (Knuth, volume 3, 6.4)."""
        return np.asarray(key.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) >> self._shift)


def batches(
    train: Dataset, size: int, mask: Mask, generator: np.random.Generator, seen: SeenPairs | None = None
) -> Iterator[Batch]:
    """Yield one epoch: every train interaction once, in random order, in batches of nearly equal size.

    Args:
        train: The train part.
        size: Largest batch.
        mask: Which pairs denominators leave out.
        generator: Decides order and negatives.
        seen: The pairs of train, where they are kept between epochs.

    Yields:
        The batches of one epoch.
    """
    order = generator.permutation(len(train))
    bounds = np.linspace(0, len(train), -(-len(train) // size) + 1).astype(np.int64)
    seen = seen or SeenPairs(train)
    together = max(1, _DRAWN // size)
    for begin in range(0, len(bounds) - 1, together):
        ends = bounds[begin : begin + together + 1]
        rows = order[ends[0] : ends[-1]]
        user, item = train.user[rows], train.item[rows]
        negative = sample_unseen(user, seen, generator)
        for start, end in itertools.pairwise(ends - ends[0]):
            mine = slice(start, end)
            known = masked_pairs(mask, user[mine], item[mine], train.matrix)
            own, its, unseen = (torch.from_numpy(side[mine]) for side in (user, item, negative))
            yield Batch(own, its, unseen, known)


def in_groups(drawn: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    """Batches in lists of `size`, the last one perhaps shorter; no more than one list is drawn ahead."""
    left = iter(drawn)
    while group := list(itertools.islice(left, size)):
        yield group


def sample_unseen(
    user: Int[ndarray, " batch"], seen: SeenPairs, generator: np.random.Generator, attempts: int = 20
) -> Int[ndarray, " batch"]:
    """Draw an item that each user has not seen in train, uniformly.

    Args:
        user: User index of each pair.
        seen: The pairs of train.
        generator: Source of the draws.
        attempts: Redraws before giving up on a user who has seen nearly everything.

    Returns:
        Item indices.
    """
    item = generator.integers(0, seen.n_items, len(user))
    again = np.flatnonzero(seen(user, item))
    for _ in range(attempts):
        if not len(again):
            break
        item[again] = generator.integers(0, seen.n_items, len(again))
        again = again[seen(user[again], item[again])]
    return item
