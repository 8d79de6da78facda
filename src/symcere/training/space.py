"""The space that a search draws settings from: one entry a setting, as plain data."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Real:
    """A real number from low to high, on a log scale where `log`."""

    low: float
    high: float
    log: bool = False

    def holds(self, value: float | str) -> bool:
        """Whether a value lies in it."""
        return not isinstance(value, str) and self.low <= value <= self.high


@dataclass(frozen=True)
class Whole:
    """A whole number from low to high, both included."""

    low: int
    high: int

    def holds(self, value: float | str) -> bool:
        """Whether a value lies in it."""
        return isinstance(value, int) and self.low <= value <= self.high


@dataclass(frozen=True)
class Choice:
    """One of several values."""

    values: tuple[bool | int | float | str, ...]

    def holds(self, value: float | str) -> bool:
        """Whether a value is one of them."""
        return value in self.values


Space: TypeAlias = Mapping[str, Real | Whole | Choice]
"""Name of a setting -> where its value may lie. A setting that is not named keeps its default."""

GRAPH: Space = {
    "learning_rate": Real(1e-3, 1e-2, log=True),
    "batch_size": Choice((512, 1_024, 2_048)),
    "n_layers": Whole(1, 4),
    "include_ego": Choice((False, True)),
    "w_l2": Real(1e-6, 1e-1, log=True),
}
"""What every system with a graph tower is offered alike."""

TEMPERATURE = Real(0.05, 0.8, log=True)
"""What every system that scores by cosine is offered alike."""
