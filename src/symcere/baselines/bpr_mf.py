"""BPR-MF: matrix factorisation trained to rank, with no graph and no text."""

from collections.abc import Sequence
from typing import Annotated

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from symcere.data.dataset import Dataset, HeldOut
from symcere.losses import Known, bpr_of_rows, l2
from symcere.models.tables import Table
from symcere.recommender import Recommender
from symcere.training.config import Schedule, Weight
from symcere.training.loop import optimise, torch_generator
from symcere.training.progress import OnEpoch
from symcere.training.space import GRAPH, Space


class BPRMFSettings(Schedule):
    """Matrix factorisation. An item bias is left out: the popularity dial is one."""

    dim: Annotated[int, Field(ge=1, le=4_096)] = 64
    """Length of an embedding."""
    w_l2: Weight = 0.05
    """Weight of L2 on the rows of a batch."""


SPACE: Space = {name: GRAPH[name] for name in ("learning_rate", "batch_size", "w_l2")}
"""What a search may move."""

PUBLISHED = (BPRMFSettings(learning_rate=1e-3, batch_size=2_048, w_l2=1e-4),)
"""As the graph papers run it (LightGCN, SELFRec). Rendle et al. step by plain gradient, one pair at a time: their
settings have no counterpart under Adam."""


class MatrixFactorisation(nn.Module):
    """A free vector for each user and item, scored by inner product.

    Args:
        n_users: Number of users.
        n_items: Number of items.
        dim: Length of a vector.
        generator: Source of the initial values, normal with standard deviation 0.1.
    """

    temperature: float | None = None  # the unit of an inner product is its spread

    def __init__(self, n_users: int, n_items: int, dim: int, generator: torch.Generator) -> None:
        super().__init__()
        self.user = nn.Parameter(torch.randn(n_users, dim, generator=generator) * 0.1)
        self.item = nn.Parameter(torch.randn(n_items, dim, generator=generator) * 0.1)

    def tables(self) -> tuple[Float[Tensor, "n_users dim"], Float[Tensor, "n_items dim"]]:
        """The vectors of users and of items."""
        return self.user, self.item

    def terms(
        self,
        user: Int[Tensor, " batch"],
        item: Int[Tensor, " batch"],
        negative: Int[Tensor, " batch"],
        known: Known,  # noqa: ARG002  BPR has no denominator to leave pairs out of
        tables: Sequence[Table],
    ) -> dict[str, Float[Tensor, ""]]:
        """Unweighted loss terms of a batch: "bpr" and "l2"."""
        users, items = tables
        x_user, x_item, x_negative = users[user], items[item], items[negative]
        return {
            "bpr": bpr_of_rows(x_user, x_item, x_negative),
            "l2": l2(x_user, x_item, x_negative),
        }

    @torch.no_grad()
    def embeddings(self) -> tuple[Float[Tensor, "n_users dim"], Float[Tensor, "n_items dim"]]:
        """Vectors of users and items as they stand; their inner product is the score."""
        return self.user.detach().clone(), self.item.detach().clone()


def fit_bpr_mf(
    train: Dataset,
    *,
    valid: HeldOut,
    settings: BPRMFSettings | None = None,
    seed: int = 0,
    on_epoch: OnEpoch | None = None,
) -> Recommender:
    """Fit matrix factorisation by BPR; epoch and dial are chosen on valid.

    Args:
        train: The train part.
        valid: What decides.
        settings: BPRMFSettings() if left out.
        seed: Of initial values, order of batches and negatives.
        on_epoch: Called after each epoch.

    Returns:
        The recommender of the best epoch.

    Raises:
        ConfigError: If the loss diverges.

    Source:
        Rendle et al., BPR, UAI 2009.
    """
    settings = settings or BPRMFSettings()
    model = MatrixFactorisation(len(train.users), len(train.items), settings.dim, torch_generator(seed))
    weights = {"bpr": 1.0, "l2": settings.w_l2}
    return optimise(model, train, valid, settings, weights=weights, seed=seed, on_epoch=on_epoch)
