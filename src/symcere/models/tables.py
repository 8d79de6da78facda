"""Matrices over all nodes, of which batches read rows."""

import functools
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from symcere.losses import bpr_of_rows, l2
from symcere.memory import Spare
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
        spare: Where memory to gather in is taken from; new if left out.
        n_batches: How many batches are about to read rows; squares of rows are counted where these are many.

    Example:
        >>> table = torch.nn.Parameter(torch.ones(3, 1))
        >>> rows = Rows(2 * table)
        >>> for node in (torch.tensor([0, 0]), torch.tensor([2])):
        ...     rows[node].sum().backward()
        >>> send_back([rows])
        >>> table.grad.flatten().tolist()
        [4.0, 0.0, 2.0]
    """

    def __init__(
        self,
        matrix: Float[Tensor, "nodes dim"],
        shard: Shard | None = None,
        spare: Spare | None = None,
        n_batches: int = 1,
    ) -> None:
        self.shard, self._spare, self.n_batches = shard, spare or Spare(), n_batches
        self.matrix, self._values = matrix, matrix.detach()
        self._asks = torch.zeros((), requires_grad=True, device=matrix.device)  # makes autograd call `backward`

    @functools.cached_property
    def gathered(self) -> Float[Tensor, "nodes dim"]:
        """Sum of the gradients of what was read."""
        return self._spare.empty_like(self._values).zero_()

    @functools.cached_property
    def half_squares(self) -> Float[Tensor, " nodes"]:
        """Half the squared length of each row."""
        squares: Tensor = torch.linalg.vector_norm(self._values, dim=1).square_()
        return squares.div_(2)

    @functools.cached_property
    def counted(self) -> Float[Tensor, " nodes"]:
        """How often half the square of each row counts in the loss."""
        return self._values.new_zeros(len(self._values))

    @property
    def was_read(self) -> bool:
        """Whether there is a gradient to be sent back."""
        return not self.__dict__.keys().isdisjoint(("gathered", "counted"))

    def gradient(self) -> Float[Tensor, "nodes dim"]:
        """The gradient of all rows: what was gathered, and of the squares that were counted."""
        if "counted" in self.__dict__:
            times = self.__dict__.pop("counted")[:, None]
            if "gathered" in self.__dict__:
                self.gathered.addcmul_(self._values, times)
            else:
                self.gathered = torch.mul(self._values, times, out=self._spare.empty_like(self._values))
        return self.gathered

    def __getitem__(self, node: Int[Tensor, " some"]) -> Float[Tensor, "some dim"]:
        """Its rows at `node`."""
        if self.shard:
            place, row = self.shard.mine(node)
            read: Tensor = _ReadSharded.apply(self._asks, self, (len(node), place, row))  # type: ignore[no-untyped-call]
            return read
        return self.owned(node)

    def owned(self, node: Int[Tensor, " some"]) -> Float[Tensor, "some dim"]:
        """Rows of `matrix` itself, whoever owns others."""
        rows: Tensor = _Read.apply(self._asks, self, node)  # type: ignore[no-untyped-call]
        return rows

    def add(self, node: Int[Tensor, " some"], grad: Float[Tensor, "some dim"]) -> None:
        """Add the gradient of rows that were read."""
        if grad.is_cuda:  # index_add_ has no fixed order there
            self.gathered.index_put_((node,), grad, accumulate=True)
        else:
            self.gathered.index_add_(0, node, grad)

    def count(self, node: Int[Tensor, " some"], times: Float[Tensor, ""]) -> None:
        """Let half the square of each of these rows count so often more."""
        if times.is_cuda:
            self.counted.index_put_((node,), times, accumulate=True)
        else:
            self.counted.index_add_(0, node, times.expand(len(node)))


def bpr_of_nodes(table: Table, triples: Int[Tensor, "3 batch"]) -> Float[Tensor, ""]:
    """`bpr_of_rows` of rows of a matrix, read together and sent back together.

    Args:
        table: The matrix.
        triples: Rows of the users, of their items, and of items they have not seen.

    Returns:
        The loss, at temperature 1.
    """
    if not isinstance(table, Rows) or table.shard:
        user, positive, negative = triples
        return bpr_of_rows(table[user], table[positive], table[negative])
    loss: Tensor = _BprOfNodes.apply(table._asks, table, triples.flatten())  # type: ignore[no-untyped-call]
    return loss


def l2_of_nodes(table: Table, nodes: Int[Tensor, "roles batch"]) -> Float[Tensor, ""]:
    """`l2` of rows of a matrix; where a step asks for half of them or more, each is squared once and counted.

    Args:
        table: The matrix.
        nodes: The rows of a batch, in each of their roles; repeated ones count again.

    Returns:
        sum of |x|^2 / (2 batch).
    """
    node = nodes.flatten()
    if isinstance(table, Rows) and table.shard is None and 2 * len(node) * table.n_batches > len(table.matrix):
        counted: Tensor = _CountedSquares.apply(table._asks, table, node, 1 / nodes.shape[1])  # type: ignore[no-untyped-call]
        return counted
    return l2(table[node]) * len(nodes)


def send_back(tables: Sequence[Rows]) -> None:
    """Send what the reads of all tables gathered back to the parameters, in one backward pass."""
    left = []
    for rows in tables:
        if not rows.was_read:
            continue
        if rows.matrix.is_leaf and rows.matrix.grad is None:  # autograd would add it to a copy
            rows.matrix.grad = rows.gradient()
        else:
            left.append(rows)
    if left:
        sent: Tensor = _SendBack.apply(left, *(rows.matrix for rows in left))  # type: ignore[no-untyped-call]
        torch.autograd.backward(sent)


class _SendBack(torch.autograd.Function):
    """A number whose gradient is what was gathered: given gradients, autograd loads sympy, 0.8 s of a process."""

    @staticmethod
    def forward(ctx: Any, left: Sequence[Rows], *matrices: Tensor) -> Tensor:
        ctx.left = left
        return matrices[0].new_zeros(())

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ARG004
        return None, *(rows.gradient() for rows in ctx.left)


class _ReadSharded(torch.autograd.Function):
    """Rows of a matrix whose rows lie with several workers, each of whom knows a part of their gradient."""

    @staticmethod
    def forward(ctx: Any, asks: Tensor, table: Rows, at: tuple[int, Tensor, Tensor]) -> Tensor:  # noqa: ARG004
        n, place, row = at
        ctx.place, ctx.row, ctx.table = place, row, table
        assert table.shard is not None
        rows = table._values.new_zeros((n, table._values.shape[1]))
        rows[place] = table._values.index_select(0, row)
        return table.shard.workers.sum(rows)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, None, None]:
        ctx.table.add(ctx.row, ctx.table.shard.workers.sum(grads[0].clone()).index_select(0, ctx.place))
        return None, None, None


class _CountedSquares(torch.autograd.Function):
    """Half the sum of squared rows, times a weight."""

    @staticmethod
    def forward(ctx: Any, asks: Tensor, table: Rows, node: Tensor, weight: float) -> Tensor:  # noqa: ARG004
        ctx.table, ctx.node, ctx.weight = table, node, weight
        return table.half_squares.index_select(0, node).sum().mul_(weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, None, None, None]:
        ctx.table.count(ctx.node, grads[0] * ctx.weight)
        return None, None, None, None


class _BprOfNodes(torch.autograd.Function):
    """BPR of rows, written out: three reads, a difference and a product have one way back."""

    @staticmethod
    def forward(ctx: Any, asks: Tensor, table: Rows, node: Tensor) -> Tensor:  # noqa: ARG004
        user, positive, negative = table._values.index_select(0, node).chunk(3)
        behind = negative.sub_(positive)
        margin = torch.linalg.vecdot(user, behind)
        ctx.table, ctx.node, ctx.kept = table, node, (user, behind, margin)
        return functional.softplus(margin).mean()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, None, None]:
        user, behind, margin = ctx.kept
        slope = torch.sigmoid(margin).mul_(grads[0] / len(user))[:, None]
        rows = user.new_empty((3 * len(user), user.shape[1]))
        of_user, of_positive, of_negative = rows.chunk(3)
        torch.mul(slope, behind, out=of_user)
        torch.mul(slope, user, out=of_negative)
        torch.neg(of_negative, out=of_positive)
        ctx.table.add(ctx.node, rows)
        return None, None, None


class _Read(torch.autograd.Function):
    """Rows of a matrix."""

    @staticmethod
    def forward(ctx: Any, asks: Tensor, table: Rows, node: Tensor) -> Tensor:  # noqa: ARG004
        ctx.table, ctx.node = table, node
        return table._values.index_select(0, node)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, None, None]:
        ctx.table.add(ctx.node, grads[0])
        return None, None, None
