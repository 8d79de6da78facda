"""The interaction graph: its symmetrically normalised adjacency, and LightGCN propagation over it."""

import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor, nn
from torch.nn import functional

from symcere.workers import Shard, Workers, shard_by

_BLOCK = 65_536  # nodes, whose vectors of 64 numbers take 16 MiB
_PER_ROW = 8


class NormAdj(nn.Module):
    """A = D^-1/2 [[0, R], [R^T, 0]] D^-1/2 in compressed rows: users first, then items.

    Args:
        indices: Neighbour of each non-zero, row by row.
        offsets: Where each row begins in `indices`, then the length of `indices`: n_users + n_items + 1 numbers.
        values: Weight of each non-zero, 1 / sqrt(degree of row * degree of column).

    It is a module of buffers, so that a model which holds it takes it along to another device.
    """

    indices: Tensor
    offsets: Tensor
    values: Tensor

    def __init__(
        self, indices: Int[Tensor, " nnz"], offsets: Int[Tensor, " rows"], values: Float[Tensor, " nnz"]
    ) -> None:
        super().__init__()
        for name, tensor in (("indices", indices), ("offsets", offsets), ("values", values)):
            self.register_buffer(name, tensor, persistent=False)
        self.spare: Tensor | None = None

    @property
    def n_nodes(self) -> int:
        """Number of users and items together."""
        return len(self.offsets) - 1

    def neighbours(
        self, x: Float[Tensor, "nodes dim"], out: Float[Tensor, "rows dim"] | None = None
    ) -> Float[Tensor, "rows dim"]:
        """A x; it may be put in `out`."""
        if not _is_large(x):
            return weighted_sums(x, self.indices, self.offsets, self.values.to(x.dtype))
        total = x.new_empty((self.n_nodes, x.shape[1])) if out is None else out
        for block in self._blocks:
            sums = weighted_sums(x[block.columns], block.indices, block.offsets, block.values.to(x.dtype))
            if block.first:
                total[block.rows] = sums
            else:
                total[block.rows] += sums
        return total

    @functools.cached_property
    def _blocks(self) -> list["_Block"]:
        return list(_blocks_of(self.indices.numpy(), self.offsets.numpy(), self.values.numpy()))


class _Block(NamedTuple):
    """Some rows of A and some of its columns, so few that a cache holds their vectors."""

    rows: slice
    columns: slice
    indices: Tensor
    offsets: Tensor
    values: Tensor

    @property
    def first(self) -> bool:
        """Whether it is the first of its rows."""
        return bool(self.columns.start == 0)


def _blocks_of(indices: ndarray, offsets: ndarray, values: ndarray) -> Iterator[_Block]:
    """Cut A so that what is gathered at random lies in a cache: rows of vectors out of memory cost three times that.

    A block costs its rows a sum to be read and added to, so a row of it has `_PER_ROW` neighbours at least in the
    mean: the columns of sparse rows are cut less often, or not at all.
    """
    n_rows = len(offsets) - 1
    for start in range(0, n_rows, _BLOCK):
        rows = slice(start, min(start + _BLOCK, n_rows))
        inner, degree = slice(offsets[rows.start], offsets[rows.stop]), np.diff(offsets[rows.start : rows.stop + 1])
        here = indices[inner]
        bounds = [cut * _BLOCK for cut in _cuts(np.bincount(here // _BLOCK), _PER_ROW * len(degree))]
        parts = _between(bounds, here, degree, values[inner])
        for (begin, end), part in zip(itertools.pairwise(bounds), parts, strict=True):
            yield _Block(rows, slice(begin, end), *part)


def _between(
    bounds: Sequence[int], indices: ndarray, degree: ndarray, values: ndarray
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Compressed rows cut into columns from each bound to the next: indices from there on, offsets and values."""
    row = np.repeat(np.arange(len(degree)), degree)
    for begin, end in itertools.pairwise(bounds):
        here = np.flatnonzero((indices >= begin) & (indices < end))
        starts = np.searchsorted(row[here], np.arange(len(degree) + 1)).astype(indices.dtype)
        own = torch.from_numpy(indices[here] - indices.dtype.type(begin))
        yield own, torch.from_numpy(starts), torch.from_numpy(values[here])


def _cuts(counts: ndarray, least: int) -> list[int]:
    """Where to cut columns that have `counts` neighbours each, so that every part has `least` or is the only one."""
    cuts, within = [0], 0
    for column, count in enumerate(counts):
        within += int(count)
        if within >= least:
            cuts.append(column + 1)
            within = 0
    if len(cuts) == 1:
        cuts.append(len(counts))
    cuts[-1] = len(counts)  # what is left over is part of the last
    return cuts


class ShardedAdj(nn.Module):
    """Rows of A that one worker owns, cut into blocks of columns by the worker that owns these.

    No worker ever holds a matrix over all nodes: it gets the rows of the others one after the other.

    Args:
        adj: All of A.
        workers: Who shares it.
    """

    def __init__(self, adj: NormAdj, workers: Workers) -> None:
        super().__init__()
        offsets = adj.offsets.numpy().astype(np.int64)
        degree = np.diff(offsets)
        self.n_nodes = adj.n_nodes
        self.shard = shard_of(adj, workers)
        own = self.shard.own
        inner = slice(offsets[own.start], offsets[own.stop])
        parts = _between(self.shard.bounds, adj.indices[inner].numpy(), degree[own], adj.values[inner].numpy())
        self.blocks = nn.ModuleList(NormAdj(*part) for part in parts)
        self.spare: Tensor | None = None

    def neighbours(
        self, x: Float[Tensor, "own dim"], out: Float[Tensor, "own dim"] | None = None
    ) -> Float[Tensor, "own dim"]:
        """Own rows of A x, from own rows of x: everybody's rows pass by once. They may be put in `out`."""
        total = torch.zeros_like(x) if out is None else out.zero_()
        for rank, block in enumerate(self.blocks):
            assert isinstance(block, NormAdj)
            total += block.neighbours(self.shard.workers.each(x, self.shard, rank))
        return total


def shard_of(adj: NormAdj, workers: Workers) -> Shard:
    """Deal the nodes of a graph to workers: a node costs its neighbours, and its own vector and optimiser."""
    return shard_by(np.diff(adj.offsets.numpy()) + 2.0, workers)


def norm_adj(
    user: Int[ndarray, " interactions"], item: Int[ndarray, " interactions"], n_users: int, n_items: int
) -> NormAdj:
    """Build the normalised adjacency of the user-item graph.

    A node without interactions gets an empty row: it propagates to zero, never to infinity.

    Args:
        user: User index of each train interaction; pairs are distinct.
        item: Item index of each train interaction.
        n_users: Number of users.
        n_items: Number of items.

    Returns:
        The adjacency; its matrix is symmetric with spectral norm at most 1.

    Source:
        He et al., LightGCN, SIGIR 2020, equation 8.
    """
    row = np.concatenate([user, item + n_users]).astype(np.int64)
    column = np.concatenate([item + n_users, user]).astype(np.int64)
    order = np.lexsort((column, row))
    row, column = row[order], column[order]
    degree = np.bincount(row, minlength=n_users + n_items)
    offsets = np.concatenate([[0], np.cumsum(degree)])
    values = 1.0 / np.sqrt(degree[row].astype(np.float64) * degree[column])
    index = np.int32 if len(column) < 2**31 else np.int64  # half the traffic where it fits
    parts = (column.astype(index), offsets.astype(index), values.astype(np.float32))
    return NormAdj(*map(torch.from_numpy, parts))


def propagate(
    adj: NormAdj | ShardedAdj, x: Float[Tensor, "nodes dim"], n_layers: int, *, include_ego: bool
) -> Float[Tensor, "nodes dim"]:
    """Mean over layers of A^l x: LightGCN.

    Args:
        adj: The normalised adjacency.
        x: Layer-0 embeddings, users first; of a sharded adjacency, the worker's own rows.
        n_layers: Number of hops, at least 1 unless `include_ego`.
        include_ego: Whether layer 0 itself is in the mean.

    Returns:
        The propagated embeddings; x itself for n_layers=0 with include_ego.

    Source:
        He et al., LightGCN, SIGIR 2020; the layer weights 1 / (L + 1), or 1 / L without layer 0.
    """
    mean: Tensor = _Propagate.apply(x, adj, n_layers, include_ego)  # type: ignore[no-untyped-call]
    return mean


class _Propagate(torch.autograd.Function):
    """A is symmetric, so the mean over layers is its own backward pass: 5x autograd's, and no layer is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, adj: NormAdj | ShardedAdj, n_layers: int, include_ego: bool) -> Tensor:
        ctx.how = adj, n_layers, include_ego
        return _mean_layer(x.detach(), *ctx.how)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        return _mean_layer(grads[0].contiguous(), *ctx.how), None, None, None


def _mean_layer(x: Tensor, adj: NormAdj | ShardedAdj, n_layers: int, include_ego: bool) -> Tensor:
    """By Horner's rule: n times the mean is A(A(x + ..) + x) + x, the last x but for `include_ego`."""
    total = x
    room = _room(adj, x)
    for hop in range(n_layers):
        total = adj.neighbours(total, room[(n_layers - 1 - hop) % 2])
        if include_ego or hop < n_layers - 1:
            total += x
    return total.div_(n_layers + include_ego) if n_layers else x.clone()


def _is_large(x: Tensor) -> bool:
    """Whether x is larger than the cache of a processor."""
    return not x.is_cuda and len(x) >= 2 * _BLOCK


def _room(adj: NormAdj | ShardedAdj, x: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Where hops put what they sum, by turns: new memory, and memory that `adj` keeps; None where that is no gain.

    At half a million nodes new pages cost a quarter of the sums that are put there.
    """
    if not _is_large(x):
        return None, None
    if adj.spare is None or adj.spare.dtype != x.dtype or adj.spare.shape != x.shape:
        adj.spare = torch.empty_like(x)
    return torch.empty_like(x), adj.spare


def weighted_sums(
    x: Float[Tensor, "rows dim"],
    indices: Int[Tensor, " nnz"],
    offsets: Int[Tensor, " groups"],
    weights: Float[Tensor, " nnz"],
) -> Float[Tensor, "sums dim"]:
    """Sum weights times rows over groups; no gradient is taken through it.

    Args:
        x: The rows.
        indices: Row of each term, group by group.
        offsets: Where each group begins in `indices`, then their length.
        weights: Weight of each term.

    Returns:
        One row a group; zero for an empty one.
    """
    sums: Tensor = functional.embedding_bag(
        indices, x, offsets, mode="sum", per_sample_weights=weights, include_last_offset=True
    )
    return sums
