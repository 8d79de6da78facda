"""The losses. Pure mathematics: tensors in, a scalar out; no data, no state."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

_FLOAT32_TEMPERATURE = 0.03  # below it a ratio of sums, up to batch * exp(2 / temperature), leaves float32
_COARSE_TEMPERATURE = 0.1  # below it the 0.002 by which bfloat16 misses a cosine is more than 0.02 in the exponent
_TILE = 64
_BLOCK = 2**22  # similarities held at once: 16 MiB


class Known(NamedTuple):
    """Off-diagonal (row, column) coordinates of a batch whose pair is a known interaction.

    Args:
        row: k of each known pair (k, j), k != j: user k of the batch has interacted with item j of it.
        column: j of each known pair.
    """

    row: Int[Tensor, " known"]
    column: Int[Tensor, " known"]

    def to(self, device: torch.device) -> "Known":
        """The same on a device."""
        return Known(self.row.to(device, non_blocking=True), self.column.to(device, non_blocking=True))


class PairRows(NamedTuple):
    """The pairs of a batch as rows of two matrices: pair k is row user[k] of one and row item[k] of the other.

    Args:
        user: Row of the user-side matrix, of each pair.
        item: Row of the item-side matrix.
    """

    user: Int[Tensor, " batch"]
    item: Int[Tensor, " batch"]


class Part(NamedTuple):
    """The part of a loss that one of several processes computes: some rows of the similarity matrix.

    Args:
        rows: User-side rows.
        total: The sum of a tensor over the processes, at each of them.
    """

    rows: slice
    total: Callable[[Tensor], Tensor]


def unit_rows(x: Float[Tensor, "rows dim"]) -> Float[Tensor, "rows dim"]:
    """Rows divided by their lengths: torch's normalize, with a third of its passes over memory on the way back.

    Args:
        x: The rows.

    Returns:
        Unit rows; zero where a row is zero.
    """
    unit: Tensor = _UnitRows.apply(x)  # type: ignore[no-untyped-call]
    return unit


class _UnitRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=1, keepdim=True).clamp_min_(1e-12)
        unit: Tensor = x / length
        ctx.save_for_backward(unit, length)
        return unit

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        unit, length = ctx.saved_tensors
        along = torch.linalg.vecdot(grads[0], unit)[:, None]
        return torch.addcmul(grads[0], unit, along, value=-1).div_(length)


def symmetric_nce(
    a: Float[Tensor, "users dim"],
    c: Float[Tensor, "items dim"],
    known: Known,
    temperature: float,
    pairs: PairRows | None = None,
    part: Part | None = None,
    *,
    own_known: bool = True,
    unit: bool = False,
    coarse: bool = False,
) -> Float[Tensor, ""]:
    """Symmetric NCE whose denominators leave out every known pair.

    With unit rows and S = a c^T / temperature, of a batch whose pair k is row k of both::

        row_k = logsumexp_j(S[k,j] : j = k or (k,j) not known) - S[k,k]
        col_k = logsumexp_j(S[j,k] : j = k or (j,k) not known) - S[k,k]
        loss  = mean_k (row_k + col_k) / 2

    Both directions share one similarity matrix and one exponential. Rows are normalised here, so their scale
    does not matter.

    A batch names the same user, and the same item, many times. Where all its own pairs are known, or nothing is, its
    users and items can be given once each, with `pairs`: the same loss from a smaller matrix, a third of it on small
    data.

    Args:
        a: User-side rows; row k belongs to the pair k of the batch unless `pairs` says otherwise.
        c: Item-side rows.
        known: PairRows of rows to leave out. A batch's own pairs stay, each in its own denominators only.
        temperature: Softmax temperature, above 0. Below 0.03 the sums are done in float64.
        pairs: Which rows are the pairs of the batch. Then a pair (k, j) of rows of which one belongs to several pairs
            is left out of the denominators of all of them, also where it is one of the batch.
        part: Which rows to compute, where several processes have the same `a` and `c`: losses and gradients of all
            parts sum to those of the whole. Denominators are summed over the parts; nothing else is sent.
        own_known: Whether the batch's own pairs are known, so that with `pairs` each is left out of all denominators
            but its own. Without, and with nothing known, the loss is that of the batch with no mask.
        unit: Whether the rows are unit rows already, and stay as they are.
        coarse: Whether products of matrices are taken in bfloat16, sums and exponentials in float32: twice as fast
            where a processor has it, cosines to within 0.002. Not below a temperature of 0.1.

    Returns:
        The loss: log(batch) when all rows coincide; exactly 0, with gradient 0, when all other pairs are
        known; log(1 + (batch - 1) e^(-1/temperature)) for orthonormal pairs.

    Source:
        Suzumura et al., SymCERE, arXiv 2504.02195 (the symmetric NCE and its mask, in words); the formula is ours.
    """
    own = torch.arange(len(a), device=a.device)
    loss: Tensor = _SymmetricNCE.apply(  # type: ignore[no-untyped-call]
        a if unit else unit_rows(a),
        c if unit else unit_rows(c),
        known,
        temperature,
        pairs or PairRows(own, own),
        part or Part(slice(0, len(a)), lambda total: total),
        own_known,
        coarse and temperature >= _COARSE_TEMPERATURE,
    )
    return loss


def sincere_nce(
    a: Float[Tensor, "batch dim"], c: Float[Tensor, "batch dim"], known: Known, temperature: float
) -> Float[Tensor, ""]:
    """Symmetric NCE that takes every known pair for a positive, not only the batch's own.

    With P_k = {k} and all known j, and N_k the rest::

        row_k = mean_{j in P_k} log(1 + sum_{n in N_k} exp(S[k,n] - S[k,j]))

    and columns likewise: a positive competes with the negatives alone, never with another positive.

    Args:
        a: User-side rows; row k belongs to the pair k of the batch.
        c: Item-side rows.
        known: The other positives.
        temperature: Softmax temperature, above 0. Below 0.06 the sums are done in float64.

    Returns:
        The loss; symmetric_nce where nothing is known; 0 where everything is.

    Source:
        Feeney and Hughes, SINCERE, TMLR 2024, for one direction.
    """
    unit_a, unit_c = unit_rows(a), unit_rows(c)
    if temperature < 2 * _FLOAT32_TEMPERATURE:  # the slope of a ratio holds its denominator squared
        unit_a, unit_c = unit_a.double(), unit_c.double()
    weight = torch.exp((unit_a @ unit_c.T - 1) / temperature)
    own = torch.arange(len(a), device=a.device)
    row, column = torch.cat([own, known.row]), torch.cat([own, known.column])
    positive = weight[row, column]
    negatives = weight.index_put((row, column), weight.new_zeros(()))

    def side(of: Tensor, rest: Tensor) -> Tensor:
        share = 1 / torch.bincount(of, minlength=len(a)).to(rest.dtype)[of]
        return (share * torch.log1p(rest[of] / positive)).sum() / len(a)

    return ((side(row, negatives.sum(1)) + side(column, negatives.sum(0))) / 2).to(a.dtype)


def inner_product_nce(
    a: Float[Tensor, "batch dim"], c: Float[Tensor, "batch dim"], known: Known, temperature: float
) -> Float[Tensor, ""]:
    """symmetric_nce on rows as they are, their lengths in the similarity: the twin without the unit sphere.

    Args:
        a: User-side rows; row k belongs to the pair k of the batch.
        c: Item-side rows.
        known: PairRows to leave out. The diagonal always stays.
        temperature: Softmax temperature, above 0.

    Returns:
        The loss; that of symmetric_nce for unit rows.
    """
    similarity = a @ c.T / temperature
    left = similarity.index_put((known.row, known.column), similarity.new_full((), -torch.inf))
    return (left.logsumexp(1) + left.logsumexp(0) - 2 * similarity.diagonal()).mean() / 2


class _SymmetricNCE(torch.autograd.Function):
    """The core on unit rows, block of rows by block of rows; the derivative by S is written out.

    S is exponentiated once where it is one block; else again on the way back, so that no more than a block is held.
    """

    @staticmethod
    def forward(
        ctx: Any,
        a: Tensor,
        c: Tensor,
        known: Known,
        temperature: float,
        pairs: PairRows,
        part: Part,
        own_known: bool,
        coarse: bool,
    ) -> Tensor:
        ctx.save_for_backward(a, c)
        dtype = a.dtype
        a, c = (a.double(), c.double()) if temperature < _FLOAT32_TEMPERATURE else (a, c)
        of_user, of_item = a.index_select(0, pairs.user), c.index_select(0, pairs.item)
        own = torch.exp((torch.linalg.vecdot(of_user, of_item) - 1) / temperature)
        others = known
        if own_known:
            others = Known(torch.cat([known.row, pairs.user]), torch.cat([known.column, pairs.item]))
        others, mine = _rows_of(others, pairs, part.rows, len(a))
        n_a, n_c = (torch.bincount(of, minlength=len(x)).to(a.dtype) for of, x in zip(pairs, (a, c), strict=True))
        a, n_a = a[part.rows], n_a[part.rows]
        row, column = a.new_empty(len(a)), a.new_zeros(len(c))  # the denominators without their own pair
        weight = a.new_empty((0, len(c)))
        for block, weight in _weights(a, c, others, temperature, coarse):
            torch.mv(weight, n_c, out=row[block])
            column.addmv_(weight.T, n_a[block])
        row, column = row[pairs.user[mine] - part.rows.start], part.total(column)[pairs.item]
        own_part = own[mine]
        if not own_known:  # a pair's own weight is among its sums
            row, column = (row - own_part).clamp_(min=0), (column - own).clamp_(min=0)
        ctx.batch = others, temperature, pairs, part.rows, mine, own_known, coarse
        ctx.sums = own, row, column, n_a, n_c
        ctx.kept = weight if len(weight) == len(a) else None
        total = (torch.log1p(row / own_part) + torch.log1p(column[mine] / own_part)).sum()
        return (total / (2 * len(own))).to(dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None, None, None, None]:
        a, c = ctx.saved_tensors
        own, row, column, n_a, n_c = ctx.sums
        others, temperature, pairs, rows, mine, own_known, coarse = ctx.batch
        scale = grads[0] / (2 * len(own) * temperature)
        by_row, by_column = scale / (row + own[mine]), scale / (column + own)
        of_a, of_c = torch.zeros_like(n_a), torch.zeros_like(n_c)
        user, item = pairs.user[mine], pairs.item[mine]
        of_a.index_add_(0, user - rows.start, by_row)
        of_c.index_add_(0, pairs.item, by_column)
        pull = row * by_row + column[mine] * by_column[mine]
        if not own_known:  # what its own weight takes back is in the products below
            pull = (2 * scale).to(pull.dtype).expand_as(pull)
        at_own = -pull.to(a.dtype)[:, None]
        grad_a = torch.zeros_like(a).index_add_(0, user, at_own * c.index_select(0, item))
        grad_c = torch.zeros_like(c).index_add_(0, item, at_own * a.index_select(0, user))
        a, grad_own = a[rows], grad_a[rows]
        blocks: Iterable[tuple[slice, Tensor]] = [(slice(0, len(a)), ctx.kept)]
        if ctx.kept is None:
            blocks = _weights(a.to(own), c.to(own), others, temperature, coarse)
        for block, weight in blocks:
            slope = torch.outer(of_a[block], n_c).addr_(n_a[block], of_c).mul_(weight)
            slope = _coarse(slope) if coarse else slope.to(a.dtype)
            _add_product(grad_own[block], slope, c)
            _add_product(grad_c, slope.T, a[block])
        return grad_a, grad_c, None, None, None, None, None, None


def _rows_of(known: Known, pairs: PairRows, rows: slice, n_rows: int) -> tuple[Known, slice | Tensor]:
    """Known pairs of some rows, counted from the first of these; and which pairs of the batch are theirs."""
    if rows == slice(0, n_rows):
        return known, slice(None)
    here = (known.row >= rows.start) & (known.row < rows.stop)
    mine = torch.nonzero((pairs.user >= rows.start) & (pairs.user < rows.stop)).flatten()
    return Known(known.row[here] - rows.start, known.column[here]), mine


def _coarse(x: Tensor) -> Tensor:
    """In bfloat16, with zeros up to full tiles: for each new shape oneDNN would compile a kernel."""
    rows, columns = (-(-size // _TILE) * _TILE for size in x.shape)
    padded = x.new_empty((rows, columns), dtype=torch.bfloat16)
    padded[: len(x), : x.shape[1]] = x
    padded[len(x) :] = 0
    padded[:, x.shape[1] :] = 0
    return padded


def _scores(x: Tensor, y: Tensor, temperature: float, coarse: bool, shift: float = 0.0) -> Tensor:
    """Inner products over the temperature, plus a shift; factors and products in bfloat16 where coarse."""
    if coarse:
        product = (_coarse(x / temperature) @ _coarse(y).T)[: len(x), : len(y)].to(x.dtype)
        return product.add_(shift) if shift else product
    return torch.addmm(x.new_full((), shift), x, y.T, beta=float(shift != 0), alpha=1 / temperature)


def _add_product(total: Tensor, x: Tensor, y: Tensor) -> None:
    """Add x y to a total; x may be coarse."""
    if x.dtype == torch.bfloat16:
        total += (x @ _coarse(y))[: total.shape[0], : total.shape[1]]
    else:
        total.addmm_(x, y)


def _weights(
    a: Float[Tensor, "users dim"],
    c: Float[Tensor, "items dim"],
    known: Known,
    temperature: float,
    coarse: bool = False,
) -> Iterator[tuple[slice, Tensor]]:
    """exp((a c^T - 1) / temperature) in blocks of rows, 0 where a pair is known."""
    size = max(1, _BLOCK // len(c))
    row, column = known
    if size < len(a):
        order = row.argsort()
        row, column = row[order], column[order]
    for start in range(0, len(a), size):
        block = slice(start, min(start + size, len(a)))
        # cosines are at most 1: the shift of a stable logsumexp
        weight = _scores(a[block], c, temperature, coarse, -1 / temperature).exp_()
        here = slice(None)
        if size < len(a):
            here = slice(*torch.searchsorted(row, row.new_tensor([block.start, block.stop])).tolist())
        weight[row[here] - start, column[here]] = 0
        yield block, weight


@torch.no_grad()
def known_mass(
    a: Float[Tensor, "batch dim"],
    c: Float[Tensor, "batch dim"],
    known: Known,
    temperature: float,
    *,
    unit: bool = True,
) -> float:
    """Share of the softmax mass off the diagonal that known pairs would take, were they not left out.

    Args:
        a: User-side rows.
        c: Item-side rows.
        known: The known pairs.
        temperature: Softmax temperature.
        unit: Whether rows are compared by their cosines, or by inner products as `inner_product_nce` does.

    Returns:
        A share in 0..1: by mass what `known` is by count; 0 for a batch of one.
    """
    if unit:
        a, c = unit_rows(a), unit_rows(c)
    else:  # the same similarities, none above 1 / temperature
        longest_a, longest_c = (float(torch.linalg.vector_norm(x, dim=1).max()) or 1.0 for x in (a, c))
        a, c, temperature = a.double() / longest_a, c.double() / longest_c, temperature / (longest_a * longest_c)
    left = sum(
        float(weight.sum() - weight.diagonal(block.start).sum())
        for block, weight in _weights(a, c, known, temperature)
    )
    removed = float(torch.exp(((a[known.row] * c[known.column]).sum(1) - 1) / temperature).sum())
    return removed / (left + removed) if left + removed > 0 else 0.0


def bpr(
    positive: Float[Tensor, " batch"], negative: Float[Tensor, " batch"], temperature: float = 1.0
) -> Float[Tensor, ""]:
    """Bayesian personalised ranking: mean of softplus(-(positive - negative) / temperature).

    Cosines need a temperature well below 1: at 1 the loss cannot fall below softplus(-2) = 0.127.

    Args:
        positive: Scores of observed pairs.
        negative: Scores of the same users with items they have not seen.
        temperature: Divides the difference.

    Returns:
        The loss: log 2 when both scores are equal.

    Source:
        Rendle et al., BPR, UAI 2009.
    """
    return functional.softplus((negative - positive) / temperature).mean()


def bpr_of_rows(
    user: Float[Tensor, "batch dim"],
    positive: Float[Tensor, "batch dim"],
    negative: Float[Tensor, "batch dim"],
    temperature: float = 1.0,
) -> Float[Tensor, ""]:
    """Bpr of inner products, in half the passes over memory.

    Args:
        user: Vectors of the users.
        positive: Vectors of their items.
        negative: Vectors of items they have not seen.
        temperature: Divides the difference.

    Returns:
        bpr((user * positive).sum(1), (user * negative).sum(1), temperature).
    """
    loss: Tensor = _BprOfRows.apply(user, positive, negative, temperature)  # type: ignore[no-untyped-call]
    return loss


class _BprOfRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, user: Tensor, positive: Tensor, negative: Tensor, temperature: float) -> Tensor:
        behind = negative - positive
        margin = torch.linalg.vecdot(user, behind) / temperature
        ctx.temperature = temperature
        ctx.save_for_backward(user, behind, margin)
        return functional.softplus(margin).mean()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        user, behind, margin = ctx.saved_tensors
        slope = (torch.sigmoid(margin) * (grads[0] / (len(user) * ctx.temperature)))[:, None]
        by_negative = slope * user
        return slope * behind, -by_negative, by_negative, None


def info_nce(a: Float[Tensor, "batch dim"], c: Float[Tensor, "batch dim"], temperature: float) -> Float[Tensor, ""]:
    """InfoNCE in one direction: each row of `a` picks its own among all rows of `c`.

    With unit rows and S = a c^T / temperature::

        loss = mean_k logsumexp_j(S[k,j]) - S[k,k]

    Rows are normalised here. Between users and their items this is the in-batch sampled softmax; between two views
    of the same nodes it is the contrast of SimGCL. Nothing is masked: a row that occurs twice repels itself.

    Args:
        a: The rows that pick.
        c: Row k is what row k of `a` should pick.
        temperature: Softmax temperature, above 0. Below 0.03 the sums are done in float64.

    Returns:
        The loss: log(batch) when all rows coincide; log(1 + (batch - 1) e^(-1/temperature)) for orthonormal pairs.

    Source:
        van den Oord et al., 2018; Wu et al., On the Effectiveness of Sampled Softmax Loss for Item Recommendation,
        TOIS 2024.
    """
    unit_a, unit_c = unit_rows(a), unit_rows(c)
    if temperature < _FLOAT32_TEMPERATURE:
        unit_a, unit_c = unit_a.double(), unit_c.double()
    # cosines are at most 1, so subtracting 1 / temperature is the shift of a stable logsumexp
    shift = unit_a.new_full((), -1 / temperature)
    total = torch.addmm(shift, unit_a, unit_c.T, alpha=1 / temperature).exp().sum(1)
    own = ((unit_a * unit_c).sum(1) - 1) / temperature
    return (total.log() - own).mean().to(a.dtype)


def sampled_softmax(
    user: Float[Tensor, "users dim"],
    item: Float[Tensor, "items dim"],
    negative: Float[Tensor, "negatives dim"],
    temperature: float,
    pairs: PairRows | None = None,
    times: Float[Tensor, " negatives"] | None = None,
    *,
    coarse: bool = False,
) -> Float[Tensor, ""]:
    """Softmax of each user's item against negatives that all users share.

    With inner products over the temperature::

        loss = mean_k logsumexp(s(k, item_k), s(k, negative_1), ..) - s(k, item_k)

    Rows are taken as they come. With negatives drawn uniformly, popularity stays in the vectors; in-batch negatives,
    which come in proportion to it, divide it out. Users, items and negatives that a batch names several times can be
    given once: the same loss from a smaller matrix.

    Args:
        user: The rows that pick.
        item: Row k is what row k of `user` should pick, unless `pairs` says otherwise.
        negative: What all of them should not pick.
        temperature: Softmax temperature, above 0.
        pairs: Which rows of `user` and `item` are the pairs.
        times: How often each negative counts; once each if left out.
        coarse: As of symmetric_nce.

    Returns:
        The loss: log(1 + negatives) when all rows coincide.

    Source:
        Wu et al., On the Effectiveness of Sampled Softmax Loss for Item Recommendation, TOIS 2024.
    """
    own = torch.arange(len(user), device=user.device)
    counts = negative.new_ones(len(negative)) if times is None else times
    loss: Tensor = _SampledSoftmax.apply(  # type: ignore[no-untyped-call]
        user,
        item,
        negative,
        temperature,
        pairs or PairRows(own, own),
        counts,
        coarse and temperature >= _COARSE_TEMPERATURE,
    )
    return loss


class _SampledSoftmax(torch.autograd.Function):
    """The same, block of rows by block of rows; the derivative is written out, and exponentials are taken once."""

    @staticmethod
    def forward(
        ctx: Any,
        user: Tensor,
        item: Tensor,
        negative: Tensor,
        temperature: float,
        pairs: PairRows,
        times: Tensor,
        coarse: bool,
    ) -> Tensor:
        own = torch.linalg.vecdot(user.index_select(0, pairs.user), item.index_select(0, pairs.item)) / temperature
        total, weight = user.new_empty(len(user)), user.new_empty((0, len(negative)))
        for block, weight, top in _shifted(user, negative, temperature, coarse):
            total[block] = torch.mv(weight, times).log_().add_(top)
        behind = total[pairs.user] - own
        ctx.save_for_backward(user, item, negative, times, total, behind)
        ctx.how = temperature, pairs, coarse
        ctx.kept = (weight, top) if len(weight) == len(user) else None
        return functional.softplus(behind).mean()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None, None, None]:
        user, item, negative, times, total, behind = ctx.saved_tensors
        temperature, pairs, coarse = ctx.how
        slope = torch.sigmoid(behind).mul_(grads[0] / (len(behind) * temperature))
        of_user = torch.zeros_like(total).index_add_(0, pairs.user, slope)
        pull = -slope[:, None]
        grad_user = torch.zeros_like(user).index_add_(0, pairs.user, pull * item.index_select(0, pairs.item))
        grad_item = torch.zeros_like(item).index_add_(0, pairs.item, pull * user.index_select(0, pairs.user))
        grad_negative, counted = torch.zeros_like(negative), times[:, None] * negative
        whole = [(slice(0, len(user)), *ctx.kept)] if ctx.kept else _shifted(user, negative, temperature, coarse)
        for block, weight, top in whole:
            share = (of_user[block] * torch.exp(top - total[block]))[:, None]
            weight = _coarse(weight) if coarse else weight
            pushed = torch.zeros_like(user[block])
            _add_product(pushed, weight, counted)
            grad_user[block].addcmul_(share, pushed)
            _add_product(grad_negative, weight.T, share * user[block])
        return grad_user, grad_item, grad_negative.mul_(times[:, None]), None, None, None, None


def _shifted(
    user: Tensor, negative: Tensor, temperature: float, coarse: bool
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """exp(user negative^T / temperature - top) in blocks of rows, and the largest score `top` of each row."""
    size = max(1, _BLOCK // len(negative))
    for start in range(0, len(user), size):
        block = slice(start, min(start + size, len(user)))
        scores = _scores(user[block], negative, temperature, coarse)
        top = scores.amax(1)
        yield block, scores.sub_(top[:, None]).exp_(), top


def alignment(a: Float[Tensor, "batch dim"], c: Float[Tensor, "batch dim"]) -> Float[Tensor, ""]:
    """Mean squared distance of the pairs on the unit sphere.

    Args:
        a: User-side rows; normalised here.
        c: Item-side rows.

    Returns:
        The loss: 0 when all pairs coincide, 2 when they are orthogonal, 4 when they are opposite.

    Source:
        Wang et al., DirectAU, KDD 2022.
    """
    return (unit_rows(a) - unit_rows(c)).square().sum(1).mean()


def uniformity(x: Float[Tensor, "batch dim"]) -> Float[Tensor, ""]:
    """How evenly rows lie on the unit sphere: log of the mean of exp(-2 |x_k - x_j|^2) over all pairs k < j.

    As |x_k - x_j|^2 = 2 - 2 cos, this is one matrix product. A row that occurs twice is a pair at distance 0.

    Args:
        x: Rows; normalised here.

    Returns:
        The loss: 0 when all rows coincide, -4 when they are orthonormal; 0 for a single row.

    Source:
        Wang and Isola, ICML 2020; Wang et al., DirectAU, KDD 2022.
    """
    n = len(x)
    if n < 2:
        return x.sum() * 0
    unit = unit_rows(x)
    near = torch.addmm(unit.new_full((), -4), unit, unit.T, alpha=4).exp()
    return ((near.sum() - near.diagonal().sum()) / (n * (n - 1))).log()


def l2(*rows: Float[Tensor, "batch dim"]) -> Float[Tensor, ""]:
    """Half the squared length of the embeddings of a batch, per pair.

    Args:
        *rows: Layer-0 rows of the batch: users, items, perhaps negatives.

    Returns:
        sum of |x|^2 / (2 batch).
    """
    return torch.stack([_HalfSquares.apply(row) for row in rows]).sum() / len(rows[0])  # type: ignore[no-untyped-call]


class _HalfSquares(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        flat = x.reshape(-1)
        return flat.dot(flat) / 2

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        x: Tensor = ctx.saved_tensors[0]
        return grads[0] * x
