"""Filters: which reviews are kept. Each looks at interactions alone, so it costs the same with and without text."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from symcere.data.interactions import UNDATED, Interactions, Step
from symcere.errors import ConfigError, DataError


@runtime_checkable
class Filter(Protocol):
    """Marks the reviews to keep."""

    @property
    def name(self) -> str:
        """A few words for the manifest."""
        ...

    def __call__(self, interactions: Interactions) -> Bool[ndarray, " reviews"]:
        """Reviews to keep; raises DataError where the interactions lack what the filter needs."""
        ...


@dataclass(frozen=True)
class MinRating:
    """Keep reviews rated at least so; reviews without a rating go.

    Args:
        at_least: In the unit of the file.
    """

    at_least: int | float

    @property
    def name(self) -> str:
        """As it stands in the manifest."""
        return f"rating at least {self.at_least:g}"

    def __call__(self, interactions: Interactions) -> Bool[ndarray, " reviews"]:
        """Compare ratings."""
        if np.isnan(interactions.rating).all():
            raise DataError(
                "--min-rating needs ratings, and no review has one. Name the column with --columns rating=."
            )
        return np.asarray(interactions.rating >= self.at_least)


@dataclass(frozen=True)
class Period:
    """Keep reviews of a period; reviews without a date go.

    Args:
        since: Its first day, as in 2014-01-31; None for no bound.
        until: The day after its last day; None for no bound.

    Raises:
        ConfigError: If a day is none, or the period is empty.
    """

    since: str | None = None
    until: str | None = None

    def __post_init__(self) -> None:
        """Check the days."""
        if self.since and self.until and _seconds(self.since) >= _seconds(self.until):
            raise ConfigError(f"A period must begin before it ends; found {self.since} to {self.until}.")
        for day in (self.since, self.until):
            if day:
                _seconds(day)

    @property
    def name(self) -> str:
        """As it stands in the manifest."""
        return f"from {self.since or 'the beginning'} until {self.until or 'the end'}"

    def __call__(self, interactions: Interactions) -> Bool[ndarray, " reviews"]:
        """Compare timestamps."""
        time = interactions.timestamp
        if (time == UNDATED).all():
            raise DataError(
                "--since and --until need dates, and no review has one. Name the column with --columns timestamp=."
            )
        keep = time != UNDATED
        if self.since:
            keep &= time >= _seconds(self.since)
        if self.until:
            keep &= time < _seconds(self.until)
        return np.asarray(keep)


@dataclass(frozen=True)
class TextLength:
    """Keep reviews whose title and body have so many characters together, in any script.

    Args:
        at_least: Characters.
        at_most: Characters; None for no bound.

    Raises:
        ConfigError: If the bounds exclude each other.
    """

    at_least: int = 0
    at_most: int | None = None

    def __post_init__(self) -> None:
        """Check the bounds."""
        if self.at_most is not None and self.at_most < self.at_least:
            raise ConfigError(f"No text has {self.at_least} to {self.at_most} characters.")

    @property
    def name(self) -> str:
        """As it stands in the manifest."""
        return f"{self.at_least} to {self.at_most if self.at_most is not None else 'any number of'} characters"

    def __call__(self, interactions: Interactions) -> Bool[ndarray, " reviews"]:
        """Compare lengths."""
        n = interactions.n_characters
        return np.asarray((n >= self.at_least) & (n <= self.at_most if self.at_most is not None else True))


@dataclass(frozen=True)
class Sample:
    """Keep a random share of the users, each with all reviews, so that histories stay whole.

    Args:
        share: Above 0, at most 1.
        seed: Of the draw. Each user is drawn by the id alone, whoever else is there: the order of rows and of
            filters does not matter, and a smaller share is part of a larger one.

    Raises:
        ConfigError: If the share is out of range.
    """

    share: int | float
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the share."""
        if not 0 < self.share <= 1:
            raise ConfigError(f"A sample takes a share of the users above 0 and at most 1; found {self.share}.")

    @property
    def name(self) -> str:
        """As it stands in the manifest."""
        return f"{self.share:.4g} of the users, seed {self.seed}"

    def __call__(self, interactions: Interactions) -> Bool[ndarray, " reviews"]:
        """Draw for each user."""
        key = f"sample {self.seed}".encode()
        hashes = (blake2b(user.encode(), digest_size=8, key=key).digest() for user in interactions.user_ids)
        drawn = np.frombuffer(b"".join(hashes), dtype="<u8") / 2.0**64
        return np.asarray(drawn[interactions.user] < self.share)


def apply_filters(interactions: Interactions, filters: Sequence[Filter]) -> tuple[Interactions, tuple[Step, ...]]:
    """Apply filters one after the other.

    Args:
        interactions: One a (user, item) pair.
        filters: In this order.

    Returns:
        What is left, and a step for each filter.

    Raises:
        DataError: If a filter leaves nothing, or the interactions lack what it needs.
    """
    steps = []
    for chosen in filters:
        left = interactions.kept(chosen(interactions))
        if not len(left):
            raise DataError(f"The filter {chosen.name!r} left 0 of {len(interactions):,} reviews. Loosen it.")
        steps.append(left.step(chosen.name, dropped=len(interactions) - len(left)))
        interactions = left
    return interactions, tuple(steps)


def _seconds(day: str) -> int:
    try:
        return int(datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC).timestamp())
    except ValueError as error:
        raise ConfigError(f"A day is written as in 2014-01-31; found {day!r}.") from error
