"""RLMRec, contrastive: LightGCN whose vectors are drawn to the projected text of the same node."""

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from symcere.data.dataset import Dataset, HeldOut
from symcere.losses import Known, bpr_of_rows, info_nce, l2
from symcere.models.lightgcn import GraphTower, LightGCN
from symcere.models.projection import LeakyTextTower, TextTower
from symcere.models.tables import Table
from symcere.recommender import Recommender
from symcere.text.features import TextFeatures
from symcere.training.config import GraphSettings, Weight
from symcere.training.loop import graph_tower, optimise, torch_generator
from symcere.training.progress import OnEpoch
from symcere.training.space import GRAPH, TEMPERATURE, Choice, Real, Space
from symcere.training.text import profiles


class RLMRecConSettings(GraphSettings):
    """RLMRec-Con."""

    learning_rate: Annotated[float, Field(gt=0, le=1)] = 2e-3
    """Step size of Adam."""
    n_layers: Annotated[int, Field(ge=1, le=16)] = 3
    """Propagation hops."""
    w_align: Weight = 0.01
    """Weight of the alignment of graph and text."""
    temperature: Annotated[float, Field(ge=0.01, le=10)] = 0.2
    """Of the softmax of the alignment; the score is an inner product and has none."""
    projection: Literal["linear", "mlp"] = "mlp"
    """How profiles are projected; "mlp" has a hidden layer half as wide as text and embedding together."""


SPACE: Space = {
    **GRAPH,
    "w_align": Real(1e-3, 1.0, log=True),
    "temperature": TEMPERATURE,
    "projection": Choice(("linear", "mlp")),
}
"""What a search may move."""

PUBLISHED = tuple(
    RLMRecConSettings(
        n_layers=3,
        include_ego=True,
        w_l2=1e-6,
        learning_rate=1e-3,
        batch_size=2_048,
        w_align=w_align,
        temperature=temperature,
    )
    for w_align, temperature in ((1e-2, 0.2), (1e-3, 0.1))
)
"""The authors' code: Amazon-Book and Yelp, then Steam. Theirs has batches of 4,096, dim 32, and L2 of 1e-7 or 1e-8 on
all parameters; ours are the nearest of the space that all systems share."""


class RLMRecCon(LightGCN):
    """LightGCN with an InfoNCE between the graph vector and the projected profile of each node of the batch.

    Other than in the authors' code, no edges are dropped, and the denominators of users hold the users of the batch,
    as those of items hold its items, not all users. A node without text is not aligned.

    Args:
        graph: The tower.
        text: The text tower over the same nodes.
        n_users: How many of the nodes are users.
        align_temperature: Of the softmax of the alignment.
    """

    def __init__(self, graph: GraphTower, text: TextTower, n_users: int, *, align_temperature: float) -> None:
        super().__init__(graph, n_users)
        self.text, self.align_temperature = text, align_temperature

    def terms(
        self,
        user: Int[Tensor, " batch"],
        item: Int[Tensor, " batch"],
        negative: Int[Tensor, " batch"],
        known: Known,  # noqa: ARG002  as published, nothing is masked
        tables: Sequence[Table],
    ) -> dict[str, Float[Tensor, ""]]:
        """Unweighted loss terms of a batch: "bpr", "l2" and "align"."""
        nodes = (user, item + self.n_users, negative + self.n_users)
        g, ego = tables
        g_user, g_item, g_negative = (g[node] for node in nodes)
        return {
            "bpr": bpr_of_rows(g_user, g_item, g_negative),
            "l2": l2(*(ego[node] for node in nodes)),
            "align": torch.stack([self._align(g, node) for node in nodes]).sum(),
        }

    def _align(self, g: Table, node: Tensor) -> Tensor:
        told = node[self.text.features[node].any(1)]
        # no node has text: the mean over nothing is 0
        return info_nce(g[told], self.text(told), self.align_temperature) if len(told) else g[node].sum() * 0


def fit_rlmrec_con(
    train: Dataset,
    text: TextFeatures,
    *,
    valid: HeldOut,
    settings: RLMRecConSettings | None = None,
    seed: int = 0,
    on_epoch: OnEpoch | None = None,
) -> Recommender:
    """Fit RLMRec-Con; epoch and dial are chosen on valid.

    Args:
        train: The train part.
        text: Profiles made from the same train part; here in place of those that a language model writes.
        valid: What decides.
        settings: RLMRecConSettings() if left out.
        seed: Of initial values, order of batches and negatives.
        on_epoch: Called after each epoch.

    Returns:
        The recommender of the best epoch.

    Raises:
        ConfigError: If the loss diverges, or text and train do not fit together.

    Source:
        Ren et al., Representation Learning with Large Language Models for Recommendation (RLMRec), WWW 2024.
    """
    settings = settings or RLMRecConSettings()
    features, generator = profiles(train, text), torch_generator(seed)
    graph = graph_tower(train, settings, generator)
    hidden = (features.shape[1] + settings.dim) // 2 if settings.projection == "mlp" else 0
    tower = LeakyTextTower(features, settings.dim, hidden, generator)
    model = RLMRecCon(graph, tower, len(train.users), align_temperature=settings.temperature)
    weights = {"bpr": 1.0, "l2": settings.w_l2, "align": settings.w_align}
    return optimise(model, train, valid, settings, weights=weights, seed=seed, on_epoch=on_epoch)
