"""Checkpoints: a fit that is killed goes on from the last one, and ends with the same bytes on the same processor."""

import contextlib
import io
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from symcere.manifest import write_file

_CURRENT: ContextVar["Keeper | None"] = ContextVar("checkpoints", default=None)
_SHARE = 0.05  # of the time that saving may take


class Keeper(ABC):
    """Where a fit keeps its state while it runs, and when.

    Attributes:
        every: Seconds between two checkpoints.
    """

    every: float
    _next = 0.0

    @abstractmethod
    def file(self, key: str) -> Path:
        """The file of the fit with this key."""

    @abstractmethod
    def save(self, key: str, state: dict[str, Any]) -> None:
        """Keep the state of a fit."""

    @abstractmethod
    def load(self, key: str) -> dict[str, Any] | None:
        """The state of a fit, if one was left."""

    @abstractmethod
    def remove(self, key: str) -> None:
        """The fit is done."""

    def begin(self) -> None:
        """A fit begins: the first checkpoint is due after a while."""
        self._next = time.monotonic() + self.every

    @property
    def due(self) -> bool:
        """Whether it is time for the next."""
        return time.monotonic() >= self._next


@dataclass
class Checkpoints(Keeper):
    """Where the fits of a block keep their state, and how often.

    Args:
        folder: One file a fit stands here while it runs; a finished fit leaves none.
        every: Seconds between two of them; more where saving would take over 5 % of the time. 0 saves after each
            step.
    """

    folder: Path
    every: float = 30.0

    def file(self, key: str) -> Path:
        """The file of the fit with this key."""
        return self.folder / f"{key[:16]}.pt"

    def save(self, key: str, state: dict[str, Any]) -> None:
        """Write the state of a fit, whole or not at all.

        Args:
            key: Of the fit.
            state: What `torch.save` takes.

        Raises:
            OutputError: If it cannot be written.
        """
        began = time.monotonic()
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_file(self.file(key), buffer.getvalue())
        took = time.monotonic() - began
        self._next = time.monotonic() + (max(self.every, took / _SHARE) if self.every else 0.0)

    def load(self, key: str) -> dict[str, Any] | None:
        """The state of a fit, if it was left behind whole.

        Args:
            key: Of the fit.

        Returns:
            What was saved, its tensors on the processor; None where there is none, or it is damaged.
        """
        try:
            found = torch.load(self.file(key), map_location="cpu", weights_only=True)
        except Exception:  # whatever is wrong with the file, the fit begins anew
            return None
        return found if isinstance(found, dict) and found.get("key") == key else None

    def remove(self, key: str) -> None:
        """The fit is done."""
        self.file(key).unlink(missing_ok=True)


Kept = TypeVar("Kept", bound=Keeper)


def current_checkpoints() -> Keeper | None:
    """Where a fit begun now would keep its state; None where it would not."""
    return _CURRENT.get()


@contextlib.contextmanager
def checkpointing(folder: str | Path, every: float = 30.0) -> Iterator[Checkpoints]:
    """Let every fit inside keep its state in a folder, and go on from what a killed one left there.

    A fit is known by all that decides it: code, data, settings, seed. Several may share the folder.

    Args:
        folder: Made when the first checkpoint is due.
        every: Seconds between two checkpoints of a fit.

    Yields:
        The checkpoints.
    """
    with keeping(Checkpoints(Path(folder), every)) as checkpoints:
        yield checkpoints


@contextlib.contextmanager
def keeping(keeper: Kept) -> Iterator[Kept]:
    """Let every fit inside keep its state there.

    Args:
        keeper: Where.

    Yields:
        The same.
    """
    token = _CURRENT.set(keeper)
    try:
        yield keeper
    finally:
        _CURRENT.reset(token)


def random_state(model: object, draws: Mapping[str, Any]) -> dict[str, Any]:
    """State of every random stream of a fit.

    Args:
        model: Its own generators are found by looking.
        draws: State of the stream of batches at the beginning of the epoch: they are drawn again from there.

    Returns:
        What `set_random_state` takes.
    """
    return {
        "draws": draws,
        "generators": [generator.get_state() for generator in _generators(model)],
    }


def set_random_state(model: object, draws: np.random.Generator, state: dict[str, Any]) -> None:
    """Put every random stream back where it was.

    Args:
        model: As it was when the state was taken.
        draws: The stream of batches.
        state: What `random_state` returned.
    """
    draws.bit_generator.state = state["draws"]
    for generator, was in zip(_generators(model), state["generators"], strict=True):
        generator.set_state(was)


def _generators(model: object) -> list[torch.Generator]:
    """The generators that a module and its parts hold, each once."""
    parts = model.modules() if isinstance(model, nn.Module) else [model]
    found = {
        id(value): value for part in parts for value in vars(part).values() if isinstance(value, torch.Generator)
    }
    return list(found.values())
