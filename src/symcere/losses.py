"""The losses. Pure mathematics: tensors in, a scalar out; no data, no state."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

_FLOAT32_TEMPERATURE = 0.03  # below it a ratio of sums, up to batch * exp(2 / temperature), leaves float32


class Known(NamedTuple):
    """Off-diagonal (row, column) coordinates of a batch whose pair is a known interaction.

    Args:
        row: k of each known pair (k, j), k != j: user k of the batch has interacted with item j of it.
        column: j of each known pair.
    """

    row: Int[Tensor, " known"]
    column: Int[Tensor, " known"]


def symmetric_nce(
    a: Float[Tensor, "batch dim"], c: Float[Tensor, "batch dim"], known: Known, temperature: float
) -> Float[Tensor, ""]:
    """Symmetric NCE whose denominators leave out every known pair.

    With unit rows and S = a c^T / temperature::

        row_k = logsumexp_j(S[k,j] : j = k or (k,j) not known) - S[k,k]
        col_k = logsumexp_j(S[j,k] : j = k or (j,k) not known) - S[k,k]
        loss  = mean_k (row_k + col_k) / 2

    Both directions share one similarity matrix and one exponential. Rows are normalised here, so their scale
    does not matter.

    Args:
        a: User-side rows; row k belongs to the pair k of the batch.
        c: Item-side rows.
        known: Pairs to leave out. The diagonal always stays.
        temperature: Softmax temperature, above 0. Below 0.03 the sums are done in float64.

    Returns:
        The loss: log(batch) when all rows coincide; exactly 0, with gradient 0, when all other pairs are
        known; log(1 + (batch - 1) e^(-1/temperature)) for orthonormal pairs.

    Source:
        Suzumura et al., SymCERE, arXiv 2504.02195 (the symmetric NCE and its mask, in words); the formula is ours.
    """
    loss: Tensor = _SymmetricNCE.apply(  # type: ignore[no-untyped-call]
        functional.normalize(a, dim=1), functional.normalize(c, dim=1), known, temperature
    )
    return loss


class _SymmetricNCE(torch.autograd.Function):
    """The core on unit rows; the derivative of the loss by S is written out, so S is exponentiated once."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, c: Tensor, known: Known, temperature: float) -> Tensor:
        a64, c64 = (a.double(), c.double()) if temperature < _FLOAT32_TEMPERATURE else (a, c)
        # cosines are at most 1, so subtracting 1 / temperature is the shift of a stable logsumexp
        shift = a64.new_full((), -1 / temperature)
        weight = torch.addmm(shift, a64, c64.T, alpha=1 / temperature).exp_()
        weight[known.row, known.column] = 0
        own = weight.diagonal().clone()
        weight.fill_diagonal_(0)
        row, column = weight.sum(1), weight.sum(0)  # the denominators without their own pair
        loss = (torch.log1p(row / own) + torch.log1p(column / own)).mean() / 2
        ctx.save_for_backward(a, c, weight, own, row, column)
        ctx.temperature = temperature
        return loss.to(a.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        a, c, weight, own, row, column = ctx.saved_tensors
        scale = grads[0] / (2 * len(a) * ctx.temperature)
        by_row, by_column = scale / (row + own), scale / (column + own)
        slope = (by_row[:, None] + by_column).mul_(weight)
        slope.diagonal().copy_(-(row * by_row + column * by_column))
        slope = slope.to(a.dtype)
        return slope @ c, slope.T @ a, None, None


@torch.no_grad()
def known_mass(
    a: Float[Tensor, "batch dim"], c: Float[Tensor, "batch dim"], known: Known, temperature: float
) -> float:
    """Share of the softmax mass off the diagonal that known pairs would take, were they not left out.

    Args:
        a: User-side rows.
        c: Item-side rows.
        known: The known pairs.
        temperature: Softmax temperature.

    Returns:
        A share in 0..1: by mass what `known` is by count; 0 for a batch of one.
    """
    weight = torch.exp((functional.normalize(a, dim=1) @ functional.normalize(c, dim=1).T - 1) / temperature)
    weight.fill_diagonal_(0)
    total = weight.sum()
    return float(weight[known.row, known.column].sum() / total) if total > 0 else 0.0


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


def l2(*rows: Float[Tensor, "batch dim"]) -> Float[Tensor, ""]:
    """Half the squared length of the embeddings of a batch, per pair.

    Args:
        *rows: Layer-0 rows of the batch: users, items, perhaps negatives.

    Returns:
        sum of |x|^2 / (2 batch).
    """
    return torch.stack([row.square().sum() for row in rows]).sum() / (2 * len(rows[0]))
