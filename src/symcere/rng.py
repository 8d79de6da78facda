"""Randomness by name: one seed, one independent stream for each purpose."""

import hashlib

import numpy as np


def stream(seed: int, name: str) -> np.random.Generator:
    """Return the random stream called `name` under `seed`.

    Streams of different names are independent, so adding a draw to one never shifts another.

    Args:
        seed: The run's seed, at least 0.
        name: The purpose, such as "split" or "negatives".

    Returns:
        A generator; the same (seed, name) always gives the same numbers.

    Example:
        >>> float(stream(0, "split").random()) == float(stream(0, "split").random())
        True
        >>> float(stream(0, "split").random()) == float(stream(0, "negatives").random())
        False
    """
    word = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    return np.random.default_rng(np.random.SeedSequence([seed, word]))
