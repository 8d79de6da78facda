"""LightGCN trained by sampled softmax: the graph alone, under a softmax over the items of the batch."""

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from symcere.data.dataset import Dataset, HeldOut
from symcere.losses import Known, info_nce, l2, unit_rows
from symcere.models.lightgcn import GraphTower, LightGCN
from symcere.models.tables import Table
from symcere.recommender import Recommender
from symcere.training.config import GraphSettings
from symcere.training.loop import graph_tower, optimise, torch_generator
from symcere.training.progress import OnEpoch
from symcere.training.space import GRAPH, TEMPERATURE, Choice, Space


class LightGCNSSMSettings(GraphSettings):
    """LightGCN under sampled softmax."""

    n_layers: Annotated[int, Field(ge=1, le=16)] = 3
    """Propagation hops."""
    temperature: Annotated[float, Field(ge=0.01, le=10)] = 0.5
    """Of the softmax over cosines, and the unit of a cosine score."""
    score: Literal["cosine", "inner"] = "cosine"
    """What ranks: the cosine that was trained, or the inner product, as published."""


SPACE: Space = {**GRAPH, "temperature": TEMPERATURE, "score": Choice(("cosine", "inner"))}
"""What a search may move."""

PUBLISHED = (
    LightGCNSSMSettings(
        n_layers=1, include_ego=True, temperature=0.12, w_l2=1e-5, learning_rate=1e-3, batch_size=2_048, score="inner"
    ),
    LightGCNSSMSettings(
        n_layers=3, include_ego=True, temperature=0.1, w_l2=0.1, learning_rate=1e-3, batch_size=2_048, score="inner"
    ),
    LightGCNSSMSettings(
        n_layers=1, include_ego=True, temperature=0.22, w_l2=1e-3, learning_rate=1e-3, batch_size=2_048, score="inner"
    ),
)
"""The authors' code, for Gowalla, Amazon-Book and Alibaba-iFashion."""


class LightGCNSSM(LightGCN):
    """LightGCN whose users pick their item among the items of the batch, by cosine; one direction, no mask.

    Args:
        graph: The tower.
        n_users: How many of its nodes are users.
        temperature: Of the softmax.
        score: What ranks, the cosine or the inner product.
    """

    def __init__(
        self, graph: GraphTower, n_users: int, *, temperature: float, score: Literal["cosine", "inner"]
    ) -> None:
        super().__init__(graph, n_users)
        self.softmax_temperature = temperature
        self.temperature = temperature if score == "cosine" else None

    def terms(
        self,
        user: Int[Tensor, " batch"],
        item: Int[Tensor, " batch"],
        negative: Int[Tensor, " batch"],  # noqa: ARG002  the other items of the batch are the negatives
        known: Known,  # noqa: ARG002  as published, nothing is masked
        tables: Sequence[Table],
    ) -> dict[str, Float[Tensor, ""]]:
        """Unweighted loss terms of a batch: "ssm" and "l2"."""
        item = item + self.n_users
        g, ego = tables
        return {"ssm": info_nce(g[user], g[item], self.softmax_temperature), "l2": l2(ego[user], ego[item])}

    @torch.no_grad()
    def embeddings(self) -> tuple[Float[Tensor, "n_users dim"], Float[Tensor, "n_items dim"]]:
        """Final vectors of users and items: unit rows where the score is the cosine."""
        g_user, g_item = super().embeddings()
        if self.temperature is None:
            return g_user, g_item
        return unit_rows(g_user), unit_rows(g_item)


def fit_light_gcn_ssm(
    train: Dataset,
    *,
    valid: HeldOut,
    settings: LightGCNSSMSettings | None = None,
    seed: int = 0,
    on_epoch: OnEpoch | None = None,
) -> Recommender:
    """Fit LightGCN by sampled softmax; epoch and dial are chosen on valid.

    Args:
        train: The train part.
        valid: What decides.
        settings: LightGCNSSMSettings() if left out.
        seed: Of initial values and order of batches.
        on_epoch: Called after each epoch.

    Returns:
        The recommender of the best epoch.

    Raises:
        ConfigError: If the loss diverges.

    Source:
        Wu et al., On the Effectiveness of Sampled Softmax Loss for Item Recommendation, TOIS 2024.
    """
    settings = settings or LightGCNSSMSettings()
    graph = graph_tower(train, settings, torch_generator(seed))
    model = LightGCNSSM(graph, len(train.users), temperature=settings.temperature, score=settings.score)
    weights = {"ssm": 1.0, "l2": settings.w_l2}
    return optimise(model, train, valid, settings, weights=weights, seed=seed, on_epoch=on_epoch)
