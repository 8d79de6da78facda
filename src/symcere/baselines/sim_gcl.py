"""SimGCL: LightGCN beside a contrast between two noisy propagations of the same vectors."""

from collections.abc import Sequence
from typing import Annotated

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from symcere.data.dataset import Dataset, HeldOut
from symcere.graph import propagate
from symcere.losses import Known, info_nce, unit_rows
from symcere.models.lightgcn import GraphTower, LightGCN
from symcere.models.tables import Table
from symcere.recommender import Recommender
from symcere.training.config import GraphSettings, Weight
from symcere.training.loop import graph_tower, optimise, torch_generator
from symcere.training.progress import OnEpoch
from symcere.training.space import GRAPH, TEMPERATURE, Real, Space


class SimGCLSettings(GraphSettings):
    """SimGCL. As published, layer 0 is not in the mean."""

    n_layers: Annotated[int, Field(ge=1, le=16)] = 3
    """Propagation hops."""
    w_l2: Weight = 1e-2
    """Weight of L2 on the layer-0 rows of a batch."""
    w_contrast: Weight = 0.02
    """Weight of the contrast between the two noisy views."""
    eps: Annotated[float, Field(ge=0, le=10)] = 0.1
    """Length of the noise that each layer of a view gets."""
    temperature: Annotated[float, Field(ge=0.01, le=10)] = 0.2
    """Of the contrast; the score is an inner product."""


SPACE: Space = {
    **GRAPH,
    "w_contrast": Real(0.005, 1.0, log=True),
    "eps": Real(0.01, 1.0, log=True),
    "temperature": TEMPERATURE,
}
"""What a search may move: weight and noise as the paper sweeps them, and smaller weights, which small data wants."""

PUBLISHED = (SimGCLSettings(n_layers=2, w_contrast=0.5, eps=0.1, learning_rate=1e-3, batch_size=2_048, w_l2=1e-4),)
"""The authors' code (SELFRec). Theirs puts L2 on the propagated rows; ours, as everywhere, on layer 0."""


class SimGCL(LightGCN):
    """LightGCN with one more term: two noisy views of each node must find each other among the batch's nodes.

    Args:
        graph: The tower.
        n_users: How many of its nodes are users.
        eps: Length of the noise.
        contrast_temperature: Of the contrast.
        noise: Source of the noise.
    """

    def __init__(
        self, graph: GraphTower, n_users: int, *, eps: float, contrast_temperature: float, noise: torch.Generator
    ) -> None:
        super().__init__(graph, n_users)
        self.eps, self.contrast_temperature, self.noise = eps, contrast_temperature, noise

    def tables(self) -> tuple[Float[Tensor, "nodes dim"], ...]:
        """Propagated vectors of all nodes, layer 0, and two noisy views."""
        views = (mean_layer(self.graph, noisy_layers(self.graph, self.eps, self.noise)) for _ in range(2))
        return *super().tables(), *views

    def terms(
        self,
        user: Int[Tensor, " batch"],
        item: Int[Tensor, " batch"],
        negative: Int[Tensor, " batch"],
        known: Known,
        tables: Sequence[Table],
    ) -> dict[str, Float[Tensor, ""]]:
        """Unweighted loss terms of a batch: "bpr", "l2" and "contrast"."""
        *plain, one, other = tables
        return {
            **super().terms(user, item, negative, known, plain),
            "contrast": contrast(one, other, user, item + self.n_users, self.contrast_temperature),
        }


def noisy_layers(graph: GraphTower, eps: float, noise: torch.Generator) -> list[Float[Tensor, "nodes dim"]]:
    """Propagate with noise of length eps added to each layer, in the layer's own orthant; it is propagated further.

    Args:
        graph: The tower.
        eps: Length of the noise of each node and layer.
        noise: Source of the directions, uniform in the positive orthant.

    Returns:
        Layers 0..n_layers; layer 0 has no noise, and a node without neighbours stays at zero.

    Source:
        Yu et al., SimGCL, SIGIR 2022, equation 7.
    """
    layers: list[Tensor] = [graph.ego]
    for _ in range(graph.n_layers):
        layer = propagate(graph.adj, layers[-1], 1, include_ego=False)
        direction = unit_rows(torch.rand(layer.shape, generator=noise, dtype=layer.dtype).to(layer.device))
        layers.append(layer + torch.sign(layer.detach()) * direction * eps)
    return layers


def mean_layer(graph: GraphTower, layers: list[Float[Tensor, "nodes dim"]]) -> Float[Tensor, "nodes dim"]:
    """Mean over layers, layer 0 in it where the tower has it in its own."""
    return torch.stack(layers if graph.include_ego else layers[1:]).mean(0)


def contrast(
    one: Table,
    other: Table,
    user: Int[Tensor, " batch"],
    item: Int[Tensor, " batch"],
    temperature: float,
) -> Float[Tensor, ""]:
    """InfoNCE between two views, over the distinct users of a batch and over its distinct items.

    Args:
        one: A view of all nodes, users first.
        other: Another view.
        user: User nodes of the batch; each counts once.
        item: Item nodes of the batch.
        temperature: Of the softmax.

    Returns:
        The sum of the two.
    """
    users, items = torch.unique(user), torch.unique(item)
    return info_nce(one[users], other[users], temperature) + info_nce(one[items], other[items], temperature)


def fit_sim_gcl(
    train: Dataset,
    *,
    valid: HeldOut,
    settings: SimGCLSettings | None = None,
    seed: int = 0,
    on_epoch: OnEpoch | None = None,
) -> Recommender:
    """Fit SimGCL; epoch and dial are chosen on valid.

    Args:
        train: The train part.
        valid: What decides.
        settings: SimGCLSettings() if left out.
        seed: Of initial values, order of batches, negatives and noise.
        on_epoch: Called after each epoch.

    Returns:
        The recommender of the best epoch.

    Raises:
        ConfigError: If the loss diverges.

    Source:
        Yu et al., Are Graph Augmentations Necessary? (SimGCL), SIGIR 2022.
    """
    settings = settings or SimGCLSettings()
    graph = graph_tower(train, settings, torch_generator(seed))
    model = SimGCL(
        graph,
        len(train.users),
        eps=settings.eps,
        contrast_temperature=settings.temperature,
        noise=torch_generator(seed, "noise"),
    )
    weights = {"bpr": 1.0, "l2": settings.w_l2, "contrast": settings.w_contrast}
    return optimise(model, train, valid, settings, weights=weights, seed=seed, on_epoch=on_epoch)
