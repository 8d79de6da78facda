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

from symcere.workers import Shard, Workers, shard_by

_BLOCK = 65_536  # columns, whose vectors of 64 numbers take 16 MiB, 8 in bfloat16
_BAND = 32_768  # rows, whose sums are still in the cache when they are read
_PER_ROW = 8


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
        self.spare: dict[torch.dtype, list[Tensor]] = {}

    @property
    def n_nodes(self) -> int:
        """Number of users and items together."""
        return len(self.offsets) - 1

    @functools.cached_property
    def root(self) -> Float[Tensor, "rows 1"]:
        """D^-1/2: one over the root of each row's number of neighbours, 0 for a row of none."""
        degree = self.offsets.diff().to(torch.float64)[:, None]
        return torch.where(degree > 0, degree.clamp(min=1).rsqrt(), 0.0).float()

    def neighbours(
        self, x: Float[Tensor, "nodes dim"], out: Float[Tensor, "rows dim"] | None = None
    ) -> Float[Tensor, "rows dim"]:
        """A x; it may be put in `out`."""
        if not _is_large(x):
            return weighted_sums(x, self.indices, self.offsets, self.values.to(x.dtype))
        total = x.new_empty((self.n_nodes, x.shape[1])) if out is None else out
        for band in self._bands:
            total[band.rows] = band.sums(x)
        return total

    def counted(self, x: Float[Tensor, "nodes dim"]) -> Iterator[tuple[slice, Float[Tensor, "some dim"]]]:
        """Sums of the rows of x, in bfloat16, that are neighbours, each of weight 1: some rows of A at a time."""
        for band in self._bands:
            yield band.rows, band.sums(x, counted=True)

    @functools.cached_property
    def _bands(self) -> list["_Band"]:
        return list(_bands_of(self.indices.numpy(), self.offsets.numpy(), self.values.numpy()))


class _Block(NamedTuple):
    """Some rows of A and some of its columns, so few that a cache holds their vectors."""

    columns: slice
    indices: Tensor
    offsets: Tensor
    values: Tensor

    def sums(self, x: Tensor, *, counted: bool) -> Tensor:
        """Its part of A x; or, counted, the sums of the same rows of x without weights, in float32."""
        if counted:
            return weighted_sums(x[self.columns], self.indices, self.offsets).float()
        return weighted_sums(x[self.columns], self.indices, self.offsets, self.values.to(x.dtype))


class _Band(NamedTuple):
    """Some rows of A, in blocks of columns."""

    rows: slice
    blocks: list[_Block]

    def sums(self, x: Tensor, *, counted: bool = False) -> Tensor:
        """Its rows of A x; or, counted, without weights and in float32."""
        first, *others = self.blocks
        total = first.sums(x, counted=counted)
        for block in others:
            total += block.sums(x, counted=counted)
        return total


def _bands_of(indices: ndarray, offsets: ndarray, values: ndarray) -> Iterator[_Band]:
    """Cut A so that what is gathered at random lies in a cache: rows of vectors out of memory cost three times that.

    A block costs its rows a sum to be read and added to, so a row of it has `_PER_ROW` neighbours at least in the
    mean: the columns of sparse rows are cut less often, or not at all.
    """
    n_rows = len(offsets) - 1
    for start in range(0, n_rows, _BAND):
        rows = slice(start, min(start + _BAND, n_rows))
        inner, degree = slice(offsets[rows.start], offsets[rows.stop]), np.diff(offsets[rows.start : rows.stop + 1])
        here = indices[inner]
        bounds = [cut * _BLOCK for cut in _cuts(np.bincount(here // _BLOCK), _PER_ROW * len(degree))]
        parts = _between(bounds, here, degree, values[inner])
        yield _Band(
            rows,
            [_Block(slice(*ends), *part) for ends, part in zip(itertools.pairwise(bounds), parts, strict=True)],
        )


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
        parts = _between(self.shard.bounds, adj.indices[inner].numpy(), degree[own], adj.values[inner].numpy())
        self.blocks = nn.ModuleList(NormAdj(*part) for part in parts)
        self.spare: dict[torch.dtype, list[Tensor]] = {}

    def neighbours(
        self, x: Float[Tensor, "own dim"], out: Float[Tensor, "own dim"] | None = None
    ) -> Float[Tensor, "own dim"]:
        """Own rows of A x, from own rows of x: everybody's rows pass by once. They may be put in `out`."""
        total = torch.zeros_like(x) if out is None else out.zero_()
        for rank, block in enumerate(self.blocks):
            assert isinstance(block, NormAdj)
            total += block.neighbours(self.shard.workers.each(x, self.shard, rank))
        return total

    def counted(self, x: Float[Tensor, "own dim"]) -> Iterator[tuple[slice, Float[Tensor, "own dim"]]]:
        """Sums of the rows of x, in bfloat16, that are neighbours of own rows, each of weight 1: all at once."""
        total = x.new_zeros(x.shape, dtype=torch.float32)
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
    coarse = adj.coarse and learned and x.dtype == torch.float32 and not x.is_cuda
    mean: Tensor = _Propagate.apply(x, _coarse_mean_layer if coarse else _mean_layer, adj, n_layers, include_ego)  # type: ignore[no-untyped-call]
    return mean


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
    room: tuple[Tensor | None, ...] = (None, None)
    if _is_large(x):
        room = torch.empty_like(x), *_kept(adj, x, x.dtype, 1)
    for hop in range(n_layers):
        total = adj.neighbours(total, room[(n_layers - 1 - hop) % 2])
        if include_ego or hop < n_layers - 1:
            total += x
    return total.div_(n_layers + include_ego) if n_layers else x.clone()


def _coarse_mean_layer(x: Tensor, adj: NormAdj | ShardedAdj, n_layers: int, include_ego: bool) -> Tensor:
    """The same by way of y = D^-1/2 x: a hop counts neighbours, D^-1 C y, and no weight is rounded."""
    if not n_layers:
        return x.clone()
    root, n = adj.root, n_layers + include_ego
    own, *turns = _kept(adj, x, torch.bfloat16, min(n_layers, 3))
    for start in range(0, len(x), _BAND):
        rows = slice(start, start + _BAND)
        own[rows] = x[rows] * root[rows]
    y = own
    for hop in range(n_layers - 1):
        after = turns[hop % 2]
        for rows, sums in adj.counted(y):
            after[rows] = sums.mul_(root[rows].square()).add_(own[rows].float())
        y = after
    mean = torch.empty_like(x)
    for rows, sums in adj.counted(y):
        torch.mul(sums, root[rows] / n, out=mean[rows])
        if include_ego:
            mean[rows].add_(x[rows], alpha=1 / n)
    return mean


def _kept(adj: NormAdj | ShardedAdj, x: Tensor, dtype: torch.dtype, n: int) -> list[Tensor]:
    """Memory of the size of x that `adj` keeps between propagations: new pages cost a quarter of a hop."""
    kept = adj.spare.get(dtype, [])
    if len(kept) < n or kept[0].shape != x.shape:
        adj.spare[dtype] = kept = [torch.empty(x.shape, dtype=dtype) for _ in range(n)]
    return kept[:n]


def _is_large(x: Tensor) -> bool:
    """Whether x is larger than the cache of a processor."""
    return not x.is_cuda and len(x) >= 2 * _BLOCK


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
