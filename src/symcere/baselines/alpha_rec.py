"""AlphaRec: projected text, propagated over the graph; no ids."""

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from symcere.data.dataset import Dataset, HeldOut
from symcere.graph import NormAdj, propagate, weighted_sums
from symcere.losses import Known, info_nce, l2, sampled_softmax, unit_rows
from symcere.models.projection import LeakyTextTower, TextTower
from symcere.models.tables import Table
from symcere.recommender import Recommender
from symcere.text.features import TextFeatures
from symcere.training.config import GraphSettings
from symcere.training.loop import adjacency, optimise, torch_generator
from symcere.training.progress import OnEpoch
from symcere.training.space import GRAPH, TEMPERATURE, Choice, Space
from symcere.training.text import on_sphere, profiles

Negatives = Literal["batch", "uniform"]


class AlphaRecSettings(GraphSettings):
    """AlphaRec."""

    include_ego: bool = True
    """Whether layer 0 is in the mean over layers."""
    temperature: Annotated[float, Field(ge=0.01, le=10)] = 0.35
    """Of the softmax over cosines, and the unit of the score."""
    projection: Literal["linear", "mlp"] = "linear"
    """How profiles are projected; "mlp" has a hidden layer half as wide as the text."""
    user_text: Literal["items", "own"] = "own"
    """What a user starts from: the mean of the profiles of the train items, as published, or the user's own."""
    unit_profiles: bool = False
    """Whether profiles are put on the unit sphere before all else, as SymCERE does; the authors leave them as they
    are."""
    negatives: Negatives = "uniform"
    """What the denominators hold beside a user's item: the other items of the batch, or as many others, drawn
    uniformly, each unseen by one user of the batch, as published."""


SPACE: Space = {
    **GRAPH,
    "temperature": TEMPERATURE,
    "projection": Choice(("linear", "mlp")),
    "user_text": Choice(("items", "own")),
    "unit_profiles": Choice((False, True)),
    "negatives": Choice(("batch", "uniform")),
}
"""What a search may move."""

PUBLISHED = tuple(
    AlphaRecSettings(
        n_layers=2,
        include_ego=True,
        w_l2=1e-6,
        learning_rate=1e-3,
        batch_size=2_048,
        temperature=temperature,
        projection="mlp",
        user_text="items",
        negatives="uniform",
    )
    for temperature in (0.15, 0.2)
)
"""The authors' code: Books and Movies, then Games. Theirs draws 256 negatives for each user and has no L2; our batch
and L2 are the nearest of the space that all systems share."""


class AlphaRec(nn.Module):
    """Projected profiles through LightGCN, trained by a softmax over cosines.

    A node without train interactions keeps its layer 0 also where the mean leaves that out, so that cold items are
    ranked by their text.

    Args:
        adj: Normalised adjacency of users and items.
        text: The text tower over the same nodes: layer 0.
        n_users: How many of the nodes are users.
        n_layers: Number of propagation hops.
        include_ego: Whether layer 0 is in the mean over layers.
        temperature: Of the softmax and of the score.
        negatives: What the denominators hold.
    """

    def __init__(
        self,
        adj: NormAdj,
        text: TextTower,
        n_users: int,
        *,
        n_layers: int,
        include_ego: bool,
        temperature: float,
        negatives: Negatives,
    ) -> None:
        super().__init__()
        self.adj, self.text, self.n_users = adj, text, n_users
        self.n_layers, self.include_ego = n_layers, include_ego
        self.temperature, self.negatives = temperature, negatives

    def forward(self) -> tuple[Float[Tensor, "nodes dim"], Float[Tensor, "nodes dim"]]:
        """Layer 0, and final vectors before they are normalised."""
        layer0 = self.text()
        final = propagate(self.adj, layer0, self.n_layers, include_ego=self.include_ego)
        alone = (self.adj.offsets.diff() == 0)[:, None]
        return layer0, torch.where(alone, layer0, final)

    def tables(self) -> tuple[Float[Tensor, "nodes dim"], ...]:
        """Layer 0 and final vectors of all nodes, before they are normalised."""
        return self.forward()

    def terms(
        self,
        user: Int[Tensor, " batch"],
        item: Int[Tensor, " batch"],
        negative: Int[Tensor, " batch"],
        known: Known,  # noqa: ARG002  as published, nothing is masked
        tables: Sequence[Table],
    ) -> dict[str, Float[Tensor, ""]]:
        """Unweighted loss terms of a batch: "softmax" and "l2" (on the projected profiles)."""
        item, negative = item + self.n_users, negative + self.n_users
        layer0, final = tables
        if self.negatives == "batch":
            softmax = info_nce(final[user], final[item], self.temperature)
        else:
            own, its, unseen = (unit_rows(final[node]) for node in (user, item, negative))
            softmax = sampled_softmax(own, its, unseen, self.temperature)
        return {"softmax": softmax, "l2": l2(layer0[user], layer0[item])}

    @torch.no_grad()
    def embeddings(self) -> tuple[Float[Tensor, "n_users dim"], Float[Tensor, "n_items dim"]]:
        """Final vectors of users and items: unit rows, zero for a node that no text reaches."""
        final = unit_rows(self()[1])
        return final[: self.n_users], final[self.n_users :]


def user_profiles(
    features: Float[Tensor, "nodes text_dim"], adj: NormAdj, n_users: int
) -> Float[Tensor, "nodes text_dim"]:
    """Profiles with those of users replaced by the mean of the profiles of their train items.

    Args:
        features: Profiles of all nodes, users first.
        adj: Adjacency; its neighbours count, not its weights.
        n_users: How many of the nodes are users.

    Returns:
        The profiles. A user without train items keeps the own profile; an item without text is not in the mean.
    """
    told = features.any(1, keepdim=True).to(features.dtype)
    items = adj.indices[: adj.offsets[n_users]]
    total = weighted_sums(torch.cat([features, told], dim=1), items, adj.offsets[: n_users + 1])
    n = total[:, -1:]
    return torch.cat([torch.where(n > 0, total[:, :-1] / n.clamp(min=1), features[:n_users]), features[n_users:]])


def fit_alpha_rec(
    train: Dataset,
    text: TextFeatures,
    *,
    valid: HeldOut,
    settings: AlphaRecSettings | None = None,
    seed: int = 0,
    on_epoch: OnEpoch | None = None,
) -> Recommender:
    """Fit AlphaRec; epoch and dial are chosen on valid.

    Args:
        train: The train part.
        text: Profiles made from the same train part; here in place of a language model's vectors of item titles.
        valid: What decides.
        settings: AlphaRecSettings() if left out.
        seed: Of initial values, order of batches and negatives.
        on_epoch: Called after each epoch.

    Returns:
        The recommender of the best epoch.

    Raises:
        ConfigError: If the loss diverges, or text and train do not fit together.

    Source:
        Sheng et al., Language Representations Can be What Recommenders Need (AlphaRec), ICLR 2025.
    """
    settings = settings or AlphaRecSettings()
    features, n_users = profiles(train, text), len(train.users)
    if settings.unit_profiles:
        features = on_sphere(features)
    adj = adjacency(train, settings)
    if settings.user_text == "items":
        features = user_profiles(features, adj, n_users)
    hidden = features.shape[1] // 2 if settings.projection == "mlp" else 0
    model = AlphaRec(
        adj,
        LeakyTextTower(features, settings.dim, hidden, torch_generator(seed)),
        n_users,
        n_layers=settings.n_layers,
        include_ego=settings.include_ego,
        temperature=settings.temperature,
        negatives=settings.negatives,
    )
    weights = {"softmax": 1.0, "l2": settings.w_l2}
    return optimise(model, train, valid, settings, weights=weights, seed=seed, on_epoch=on_epoch)
