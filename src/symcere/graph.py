"""The interaction graph: its symmetrically normalised adjacency, and LightGCN propagation over it."""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor, nn
from torch.nn import functional

from symcere.memory import Spare
from symcere.workers import Shard, Workers, shard_by

_LARGE = 131_072  # nodes, whose vectors no cache holds
_STRIP = 128  # bytes of each vector that are taken at once: 64 numbers in bfloat16
_BLOCK = 65_536  # columns, whose strips take 8 MiB
_BAND = 8_192  # rows, whose sums are still in the cache when they are read
_BANDS = 14  # at most, that read a block one after the other where rows have neighbours in several blocks
_PER_ROW = 12  # neighbours in a block, at least: each block costs its rows a sum to be added


class NormAdj(nn.Module):
    """A = D^-1/2 [[0, R], [R^T, 0]] D^-1/2 in compressed rows: users first, then items.

    Args:
        indices: Neighbour of each non-zero, row by row.
        offsets: Where each row begins in `indices`, then the length of `indices`: n_users + n_items + 1 numbers.
        values: Weight of each non-zero, 1 / sqrt(degree of row * degree of column).
        coarse: Whether what is learned from it is propagated in bfloat16, on a processor: see `propagate`.

    It is a module of buffers, so that a model which holds it takes it along to another device.
    """

    indices: Tensor
    offsets: Tensor
    values: Tensor

    def __init__(
        self,
        indices: Int[Tensor, " nnz"],
        offsets: Int[Tensor, " rows"],
        values: Float[Tensor, " nnz"],
        *,
        coarse: bool = False,
    ) -> None:
        super().__init__()
        for name, tensor in (("indices", indices), ("offsets", offsets), ("values", values)):
            self.register_buffer(name, tensor, persistent=False)
        self.coarse = coarse
        self.spare = Spare()

    @property
    def n_nodes(self) -> int:
        """Number of users and items together."""
        return len(self.offsets) - 1

    @functools.cached_property
    def root(self) -> Float[Tensor, "rows 1"]:
        """D^-1/2: one over the root of each row's number of neighbours, 0 for a row of none."""
        degree = self.offsets.diff().to(torch.float64)[:, None]
        return torch.where(degree > 0, degree.clamp(min=1).rsqrt(), 0.0).float()

    def neighbours(self, x: Float[Tensor, "nodes dim"]) -> Float[Tensor, "rows dim"]:
        """A x."""
        return weighted_sums(x, self.indices, self.offsets, self.values.to(x.dtype))

    def counted(self, x: Float[Tensor, "nodes dim"]) -> Iterator[tuple[slice, Float[Tensor, "some dim"]]]:
        """Sums of the rows of x that are neighbours, each of weight 1: some rows of A at a time.

        They are in the precision of x, or in float32 where those of several blocks are added.
        """
        for band in self._bands:
            yield from band.sums(x, self.spare)

    @functools.cached_property
    def _bands(self) -> list["_Band"]:
        return list(_bands_of(self.indices.numpy(), self.offsets.numpy()))


class _Piece(NamedTuple):
    """Some rows of a band, and their neighbours in a block."""

    rows: slice
    indices: Tensor
    offsets: Tensor


class _Block(NamedTuple):
    """Columns of A, so few that a cache holds a strip of their vectors, and the neighbours that a band has there."""

    columns: slice
    pieces: list[_Piece]

    def sums(self, x: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Sums of the rows of x that are neighbours, a piece at a time."""
        vectors = x[self.columns]
        return ((rows, weighted_sums(vectors, *neighbours)) for rows, *neighbours in self.pieces)


class _Band(NamedTuple):
    """Rows of A from `start` on, in blocks of columns."""

    start: int
    n_rows: int
    blocks: list[_Block]

    def sums(self, x: Tensor, spare: Spare) -> Iterator[tuple[slice, Tensor]]:
        """Sums of the rows of x that are neighbours, a piece at a time; of several blocks in float32 at least."""
        first, *others = self.blocks
        found = first.sums(x)
        if others:
            total = spare.empty_like(x[:1].expand(self.n_rows, -1), torch.promote_types(x.dtype, torch.float32))
            for block in self.blocks:
                x[block.columns].sum()  # reads them in order, so that its sums find them in the cache
                for rows, sums in block.sums(x):
                    if block is first:
                        total[rows] = sums
                    else:
                        total[rows] += sums
            found = ((rows, total[rows]) for rows in _pieces(self.n_rows))
        return ((slice(self.start + rows.start, self.start + rows.stop), sums) for rows, sums in found)


def _bands_of(indices: ndarray, offsets: ndarray) -> Iterator[_Band]:
    """Cut A so that what is gathered at random lies in a cache: out of memory it costs three times that.

    A block costs its rows a sum to be read and added to, so a row of it has `_PER_ROW` neighbours at least in the
    mean: the columns of sparse rows are cut less often, or not at all.
    """
    for start, stop in _rows_of(indices, offsets):
        here = indices[offsets[start] : offsets[stop]]
        n_blocks, first, last = _blocks(here, stop - start)
        bounds = np.linspace(first, last, n_blocks + 1).astype(int).tolist()
        parts = _between(bounds, here, np.diff(offsets[start : stop + 1]))
        blocks = [
            _Block(slice(*ends), list(_pieces_of(here[inner] - here.dtype.type(ends[0]), starts)))
            for ends, (inner, starts) in zip(itertools.pairwise(bounds), parts, strict=True)
        ]
        yield _Band(start, stop - start, blocks)


def _pieces_of(indices: ndarray, offsets: ndarray) -> Iterator[_Piece]:
    """Compressed rows, so few at a time that their sums are still in the cache when they are read."""
    for rows in _pieces(len(offsets) - 1):
        bounds = offsets[rows.start : rows.stop + 1]
        here = indices[bounds[0] : bounds[-1]]
        yield _Piece(rows, torch.from_numpy(here), torch.from_numpy(bounds - bounds[0]))


def _rows_of(indices: ndarray, offsets: ndarray) -> Iterator[tuple[int, int]]:
    """Where each band begins and ends: after `_BAND` rows, or after `_BANDS` times as many that need more blocks."""

    def needs_several(rows: slice) -> bool:
        return _blocks(indices[offsets[rows.start] : offsets[rows.stop]], rows.stop - rows.start)[0] > 1

    for several, alike in itertools.groupby(_pieces(len(offsets) - 1), needs_several):
        group, size = list(alike), _BANDS if several else 1
        for at in range(0, len(group), size):
            yield group[at].start, group[at : at + size][-1].stop


def _pieces(n_rows: int) -> Iterator[slice]:
    """So many rows, `_BAND` at a time."""
    return (slice(start, min(start + _BAND, n_rows)) for start in range(0, n_rows, _BAND))


def _blocks(columns: ndarray, n_rows: int) -> tuple[int, int, int]:
    """Blocks for so many rows that have these neighbours; where their columns begin, and where they end."""
    if not len(columns):
        return 1, 0, 0
    first, last = int(columns.min()), int(columns.max()) + 1
    return max(1, min(-(-(last - first) // _BLOCK), len(columns) // (_PER_ROW * n_rows))), first, last


def _between(bounds: Sequence[int], indices: ndarray, degree: ndarray) -> Iterator[tuple[ndarray, ndarray]]:
    """Compressed rows cut into columns from each bound to the next: places in `indices`, and offsets into them."""
    row = np.repeat(np.arange(len(degree)), degree)
    for begin, end in itertools.pairwise(bounds):
        here = np.flatnonzero((indices >= begin) & (indices < end))
        yield here, np.searchsorted(row[here], np.arange(len(degree) + 1)).astype(indices.dtype)


class ShardedAdj(nn.Module):
    """Rows of A that one worker owns, cut into blocks of columns by the worker that owns these.

    No worker ever holds a matrix over all nodes: it gets the rows of the others one after the other.

    Args:
        adj: All of A.
        workers: Who shares it.
    """

    root: Tensor

    def __init__(self, adj: NormAdj, workers: Workers) -> None:
        super().__init__()
        offsets = adj.offsets.numpy().astype(np.int64)
        degree = np.diff(offsets)
        self.n_nodes, self.coarse = adj.n_nodes, adj.coarse
        self.shard = shard_of(adj, workers)
        own = self.shard.own
        self.register_buffer("root", adj.root[own], persistent=False)
        inner = slice(offsets[own.start], offsets[own.stop])
        indices, values, bounds = adj.indices[inner].numpy(), adj.values[inner], self.shard.bounds
        self.blocks = nn.ModuleList(
            NormAdj(
                torch.from_numpy(indices[here] - indices.dtype.type(begin)), torch.from_numpy(starts), values[here]
            )
            for begin, (here, starts) in zip(bounds[:-1], _between(bounds, indices, degree[own]), strict=True)
        )
        self.spare = Spare()

    def neighbours(self, x: Float[Tensor, "own dim"]) -> Float[Tensor, "own dim"]:
        """Own rows of A x, from own rows of x: everybody's rows pass by once."""
        total = torch.zeros_like(x)
        for rank, block in enumerate(self.blocks):
            assert isinstance(block, NormAdj)
            total += block.neighbours(self.shard.workers.each(x, self.shard, rank))
        return total

    def counted(self, x: Float[Tensor, "own dim"]) -> Iterator[tuple[slice, Float[Tensor, "own dim"]]]:
        """Sums of the rows of x that are neighbours of own rows, each of weight 1: all at once, float32 at least."""
        total = self.spare.empty_like(x, torch.promote_types(x.dtype, torch.float32)).zero_()
        for rank, block in enumerate(self.blocks):
            assert isinstance(block, NormAdj)
            for rows, sums in block.counted(self.shard.workers.each(x, self.shard, rank)):
                total[rows] += sums
        yield slice(0, len(x)), total


def shard_of(adj: NormAdj, workers: Workers) -> Shard:
    """Deal the nodes of a graph to workers: a node costs its neighbours, and its own vector and optimiser."""
    return shard_by(np.diff(adj.offsets.numpy()) + 2.0, workers)


def norm_adj(
    user: Int[ndarray, " interactions"],
    item: Int[ndarray, " interactions"],
    n_users: int,
    n_items: int,
    *,
    coarse: bool = False,
) -> NormAdj:
    """Build the normalised adjacency of the user-item graph.

    A node without interactions gets an empty row: it propagates to zero, never to infinity.

    Args:
        user: User index of each train interaction; pairs are distinct.
        item: Item index of each train interaction.
        n_users: Number of users.
        n_items: Number of items.
        coarse: As of NormAdj.

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
    return NormAdj(*map(torch.from_numpy, parts), coarse=coarse)


def propagate(
    adj: NormAdj | ShardedAdj, x: Float[Tensor, "nodes dim"], n_layers: int, *, include_ego: bool
) -> Float[Tensor, "nodes dim"]:
    """Mean over layers of A^l x: LightGCN.

    On a processor, and where a gradient is asked for, a coarse adjacency takes rows in bfloat16 and sums in float32,
    on the way there and back: half the bytes, and the way back is still that of the same matrix. What is computed
    without a gradient, to be validated or served, is float32 throughout.

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
    learned = x.requires_grad and torch.is_grad_enabled()
    coarse = adj.coarse and learned and x.dtype == torch.float32
    mean: Callable[..., Tensor] = _mean_layer
    if not x.is_cuda and (coarse or adj.n_nodes >= _LARGE):
        dtype = torch.bfloat16 if coarse else x.dtype
        mean = functools.partial(_mean_layer_by_strips, dtype=dtype, spare=adj.spare if learned else Spare())
    propagated: Tensor = _Propagate.apply(x, mean, adj, n_layers, include_ego)  # type: ignore[no-untyped-call]
    return propagated


class _Propagate(torch.autograd.Function):
    """A is symmetric, so the mean over layers is its own backward pass: 5x autograd's, and no layer is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mean: Callable[..., Tensor], *how: Any) -> Tensor:
        ctx.mean, ctx.how = mean, how
        return mean(x.detach(), *how)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return ctx.mean(grads[0].contiguous(), *ctx.how), None, None, None, None


def _mean_layer(x: Tensor, adj: NormAdj | ShardedAdj, n_layers: int, include_ego: bool) -> Tensor:
    """By Horner's rule: n times the mean is A(A(x + ..) + x) + x, the last x but for `include_ego`."""
    total = x
    for hop in range(n_layers):
        total = adj.neighbours(total)
        if include_ego or hop < n_layers - 1:
            total += x
    return total.div_(n_layers + include_ego) if n_layers else x.clone()


def _mean_layer_by_strips(
    x: Tensor, adj: NormAdj | ShardedAdj, n_layers: int, include_ego: bool, dtype: torch.dtype, spare: Spare
) -> Tensor:
    """The same of a large graph, a strip of all vectors after the other, so that a cache holds those of a block.

    From hop to hop goes y = D^-1/2 x: a hop counts neighbours, D^-1 C y. Where y is coarse D^-1 may be rounded with
    it: the mean is still that of a symmetric matrix.
    """
    if not n_layers:
        return x.clone()
    root, n, mean = adj.root, n_layers + include_ego, spare.empty_like(x)
    inverse = root.square()
    rounded = inverse.to(dtype)
    for strip in _strips(x.shape[1], dtype):
        own, *turns = (spare.empty_like(x[:, strip], dtype) for _ in range(min(n_layers, 3)))
        for rows in _pieces(len(x)):
            own[rows] = x[rows, strip] * root[rows]
        y = own
        for hop in range(n_layers - 1):
            after = turns[hop % 2]
            for rows, sums in adj.counted(y):
                if sums.dtype == dtype:
                    torch.addcmul(own[rows], sums, rounded[rows], out=after[rows])
                else:
                    after[rows] = sums.mul_(inverse[rows]).add_(own[rows].to(sums.dtype))
            y = after
        for rows, sums in adj.counted(y):
            torch.mul(sums, root[rows] / n, out=mean[rows, strip])
            if include_ego:
                mean[rows, strip].add_(x[rows, strip], alpha=1 / n)
    return mean


def _strips(dim: int, dtype: torch.dtype) -> Iterator[slice]:
    """Columns of vectors, as many at a time as fill a strip."""
    width = _STRIP // dtype.itemsize
    return (slice(start, start + width) for start in range(0, dim, width))


def weighted_sums(
    x: Float[Tensor, "rows dim"],
    indices: Int[Tensor, " nnz"],
    offsets: Int[Tensor, " groups"],
    weights: Float[Tensor, " nnz"] | None = None,
) -> Float[Tensor, "sums dim"]:
    """Sum weights times rows over groups; no gradient is taken through it.

    Args:
        x: The rows.
        indices: Row of each term, group by group.
        offsets: Where each group begins in `indices`, then their length.
        weights: Weight of each term; 1 if left out.

    Returns:
        One row a group; zero for an empty one.
    """
    sums: Tensor = functional.embedding_bag(
        indices, x, offsets, mode="sum", per_sample_weights=weights, include_last_offset=True
    )
    return sums
