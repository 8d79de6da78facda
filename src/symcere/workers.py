"""Processes that train one model together: who they are, and the few things that they tell one another."""

import contextlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor, distributed


@dataclass
class Workers:
    """The processes of a fit, as one of them sees them; each calls the same methods in the same order.

    Args:
        rank: Which of them this is.
        size: How many there are; alone, nothing is sent.

    Attributes:
        sent: Bytes that this process has handed over to be sent.
    """

    rank: int = 0
    size: int = 1
    sent: int = 0

    def sum(self, x: Tensor) -> Tensor:
        """The sum of everybody's `x`, in its place."""
        if self.size > 1:
            distributed.all_reduce(x)
            self.sent += 2 * x.nbytes * (self.size - 1) // self.size  # as a ring does it
        return x

    def each(self, x: Tensor, shard: "Shard", rank: int) -> Tensor:
        """The rows of worker `rank`, given to all.

        Args:
            x: Own rows.
            shard: Whose rows are whose.
            rank: The worker that gives.

        Returns:
            Its rows; those of the caller are `x` itself.
        """
        rows = x if rank == self.rank else x.new_empty((shard.size(rank), *x.shape[1:]))
        if self.size > 1:
            rows = rows.contiguous()
            distributed.broadcast(rows, rank)
            self.sent += x.nbytes if rank == self.rank else 0
        return rows

    def all_rows(self, x: Tensor, shard: "Shard") -> Tensor:
        """Everybody's rows, one below the other: the whole matrix, at every worker."""
        return torch.cat([self.each(x, shard, rank) for rank in range(self.size)]) if self.size > 1 else x

    def share(self, n: int) -> slice:
        """The part of `n` things that is this worker's to do."""
        return slice(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def told(self, values: Sequence[float]) -> list[float]:
        """What the first worker says: for what must not differ by a clock or a last digit."""
        if self.size == 1:
            return list(values)
        said = torch.tensor(values, dtype=torch.float64)
        distributed.broadcast(said, 0)
        return said.tolist()


ALONE = Workers()
"""One process that shares nothing."""

_CURRENT: ContextVar[Workers | None] = ContextVar("workers", default=None)


def current_workers() -> Workers:
    """The processes that a fit begun now would be shared by; one alone unless `working_as` says otherwise."""
    return _CURRENT.get() or ALONE


@contextlib.contextmanager
def working_as(rank: int, size: int) -> Iterator[Workers]:
    """Let every fit inside be one worker's part of it; a process group of torch must stand.

    Args:
        rank: Which worker this process is.
        size: How many there are.

    Yields:
        The workers.
    """
    workers = Workers(rank, size)
    token = _CURRENT.set(workers)
    try:
        yield workers
    finally:
        _CURRENT.reset(token)


@dataclass(frozen=True)
class Shard:
    """Rows of a matrix over all nodes, dealt to workers in ranges.

    Args:
        bounds: Where the rows of each worker begin, then how many there are in all.
        workers: Who they are.
    """

    bounds: tuple[int, ...]
    workers: Workers

    @property
    def own(self) -> slice:
        """The rows of this worker."""
        return slice(self.bounds[self.workers.rank], self.bounds[self.workers.rank + 1])

    def size(self, rank: int) -> int:
        """How many rows a worker has."""
        return self.bounds[rank + 1] - self.bounds[rank]

    def mine(self, node: Int[Tensor, " some"]) -> tuple[Tensor, Tensor]:
        """Which of some rows are this worker's: their places in `node`, and their places among its own rows."""
        place = torch.nonzero((node >= self.own.start) & (node < self.own.stop)).flatten()
        return place, node[place] - self.own.start


def shard_by(weight: Float[ndarray, " rows"], workers: Workers) -> Shard:
    """Deal rows in ranges of about equal weight.

    Args:
        weight: What each row costs.
        workers: Who they are dealt to.

    Returns:
        The ranges.

    Example:
        >>> shard_by(np.array([1.0, 1, 1, 1, 4]), Workers(0, 2)).bounds
        (0, 4, 5)
    """
    upto = np.cumsum(weight)
    cuts = np.searchsorted(upto, upto[-1] * np.arange(1, workers.size) / workers.size, side="left") + 1
    return Shard((0, *map(int, cuts), len(weight)), workers)


def summed(x: Tensor, workers: Workers) -> Tensor:
    """The sum of everybody's `x`; so is its gradient, of which each worker knows a part."""
    if workers.size == 1:
        return x
    total: Tensor = _Summed.apply(x, workers)  # type: ignore[no-untyped-call]
    return total


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, workers: Workers) -> Tensor:
        ctx.workers = workers
        return workers.sum(x.detach().clone())

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return ctx.workers.sum(grads[0].clone()), None
