"""Matrices over all nodes, of which batches read rows."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from symcere.losses import l2
from symcere.workers import Shard


@runtime_checkable
class Table(Protocol):
    """What a loss term needs of a matrix over all nodes: some of its rows. A tensor is one."""

    def __getitem__(self, node: Int[Tensor, " some"], /) -> Float[Tensor, "some dim"]:
        """Its rows at `node`."""
        ...


class Rows:
    """A matrix of which several batches read rows; the gradients of the rows are gathered, and sent back once.

    Left to autograd, each read has a gradient as large as the matrix, and each batch its own way back through the
    graph. Here a read costs what it reads, and any number of batches share one propagation there and one back.

    Args:
        matrix: The matrix: a parameter, or what was computed from parameters.
        shard: Where several workers own rows each, and `matrix` is what this one owns: any rows are read all the
            same, and sent by who owns them.

    Example:
        >>> table = torch.nn.Parameter(torch.ones(3, 1))
        >>> rows = Rows(2 * table)
        >>> for node in (torch.tensor([0, 0]), torch.tensor([2])):
        ...     rows[node].sum().backward()
        >>> send_back([rows])
        >>> table.grad.flatten().tolist()
        [4.0, 0.0, 2.0]
    """

    def __init__(self, matrix: Float[Tensor, "nodes dim"], shard: Shard | None = None) -> None:
        self.shard = shard
        self.matrix, self._values = matrix, matrix.detach()
        self.gathered = torch.zeros_like(self._values)
        self._asks = torch.zeros((), requires_grad=True, device=matrix.device)  # makes autograd call `backward`

    def __getitem__(self, node: Int[Tensor, " some"]) -> Float[Tensor, "some dim"]:
        """Its rows at `node`."""
        if self.shard:
            place, row = self.shard.mine(node)
            read: Tensor = _ReadSharded.apply(  # type: ignore[no-untyped-call]
                self._asks, self._values, (len(node), place, row), self.shard, self.gathered
            )
            return read
        return self.owned(node)

    def owned(self, node: Int[Tensor, " some"]) -> Float[Tensor, "some dim"]:
        """Rows of `matrix` itself, whoever owns others."""
        rows: Tensor = _Read.apply(self._asks, self._values, node, self.gathered)  # type: ignore[no-untyped-call]
        return rows


def half_squares(table: Table, node: Int[Tensor, " some"]) -> Float[Tensor, ""]:
    """Half the squared length of some rows: what L2 weighs.

    Where more rows are asked for than there are, each is squared once and counted.

    Args:
        table: The matrix.
        node: The rows; repeated ones count again.

    Returns:
        sum of |x|^2 / 2.
    """
    if isinstance(table, Rows) and table.shard is None and len(node) > len(table.matrix):
        counted: Tensor = _CountedSquares.apply(table._asks, table._values, node, table.gathered)  # type: ignore[no-untyped-call]
        return counted
    return l2(table[node]) * len(node)


def send_back(tables: Sequence[Rows]) -> None:
    """Send what the reads of all tables gathered back to the parameters, in one backward pass."""
    if tables:
        torch.autograd.backward([rows.matrix for rows in tables], [rows.gathered for rows in tables])


class _ReadSharded(torch.autograd.Function):
    """Rows of a matrix whose rows lie with several workers, each of whom knows a part of their gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        asks: Tensor,  # noqa: ARG004
        values: Tensor,
        at: tuple[int, Tensor, Tensor],
        shard: Shard,
        gathered: Tensor,
    ) -> Tensor:
        n, place, row = at
        ctx.place, ctx.row, ctx.shard, ctx.gathered = place, row, shard, gathered
        rows = values.new_zeros((n, values.shape[1]))
        rows[place] = values.index_select(0, row)
        return shard.workers.sum(rows)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, None, None, None, None]:
        grad = ctx.shard.workers.sum(grads[0].clone()).index_select(0, ctx.place)
        if grad.is_cuda:
            ctx.gathered.index_put_((ctx.row,), grad, accumulate=True)
        else:
            ctx.gathered.index_add_(0, ctx.row, grad)
        return None, None, None, None, None


class _CountedSquares(torch.autograd.Function):
    """Half the sum of squared rows; the gradient of the rows is added to `gathered`."""

    @staticmethod
    def forward(ctx: Any, asks: Tensor, values: Tensor, node: Tensor, gathered: Tensor) -> Tensor:  # noqa: ARG004
        count = torch.bincount(node, minlength=len(values)).to(values.dtype)
        ctx.values, ctx.count, ctx.gathered = values, count, gathered
        total: Tensor = torch.linalg.vecdot(values, values) @ count / 2
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, None, None, None]:
        ctx.gathered.addcmul_(ctx.values, (grads[0] * ctx.count)[:, None])
        return None, None, None, None


class _Read(torch.autograd.Function):
    """Rows of a matrix; their gradient is added to `gathered`."""

    @staticmethod
    def forward(ctx: Any, asks: Tensor, values: Tensor, node: Tensor, gathered: Tensor) -> Tensor:  # noqa: ARG004
        ctx.node, ctx.gathered = node, gathered
        return values.index_select(0, node)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, None, None, None]:
        if grads[0].is_cuda:  # index_add_ has no fixed order there
            ctx.gathered.index_put_((ctx.node,), grads[0], accumulate=True)
        else:
            ctx.gathered.index_add_(0, ctx.node, grads[0])
        return None, None, None, None
