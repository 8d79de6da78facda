"""XSimGCL: SimGCL in one noisy pass, whose final vectors are contrasted with an early layer of their own."""

from collections.abc import Sequence
from typing import Annotated

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from symcere.baselines.sim_gcl import contrast, mean_layer, noisy_layers
from symcere.data.dataset import Dataset, HeldOut
from symcere.errors import ConfigError
from symcere.losses import Known
from symcere.models.lightgcn import GraphTower, LightGCN
from symcere.models.tables import Table, bpr_of_nodes, l2_of_nodes
from symcere.recommender import Recommender
from symcere.training.config import GraphSettings, Weight
from symcere.training.loop import graph_tower, optimise, torch_generator
from symcere.training.progress import OnEpoch
from symcere.training.space import GRAPH, TEMPERATURE, Real, Space


class XSimGCLSettings(GraphSettings):
    """XSimGCL. As published, layer 0 is not in the mean."""

    n_layers: Annotated[int, Field(ge=1, le=16)] = 3
    """Propagation hops."""
    w_l2: Weight = 1e-2
    """Weight of L2 on the layer-0 rows of a batch."""
    w_contrast: Weight = 0.02
    """Weight of the contrast between the final vectors and a layer."""
    eps: Annotated[float, Field(ge=0, le=10)] = 0.2
    """Length of the noise that each layer gets."""
    temperature: Annotated[float, Field(ge=0.01, le=10)] = 0.2
    """Of the contrast; the score is an inner product."""
    contrast_layer: Annotated[int, Field(ge=1)] = 1
    """The layer that the final vectors are contrasted with; at most n_layers."""


SPACE: Space = {
    **GRAPH,
    "w_contrast": Real(0.005, 1.0, log=True),
    "eps": Real(0.01, 1.0, log=True),
    "temperature": TEMPERATURE,
}
"""What a search may move: weight and noise as the paper sweeps them, and smaller weights, which small data wants. The
layer stays 1, the published choice."""

PUBLISHED = (
    XSimGCLSettings(
        n_layers=2, w_contrast=0.2, eps=0.2, temperature=0.15, learning_rate=1e-3, batch_size=2_048, w_l2=1e-4
    ),
    XSimGCLSettings(
        n_layers=2, w_contrast=0.2, eps=0.2, temperature=0.2, learning_rate=1e-3, batch_size=2_048, w_l2=1e-4
    ),
)
"""The authors' code (SELFRec), and the temperature of the paper."""


class XSimGCL(LightGCN):
    """LightGCN whose every training pass is noisy; it ranks without noise.

    Args:
        graph: The tower.
        n_users: How many of its nodes are users.
        eps: Length of the noise.
        contrast_temperature: Of the contrast.
        contrast_layer: The layer that the final vectors are contrasted with.
        noise: Source of the noise.
    """

    def __init__(
        self,
        graph: GraphTower,
        n_users: int,
        *,
        eps: float,
        contrast_temperature: float,
        contrast_layer: int,
        noise: torch.Generator,
    ) -> None:
        super().__init__(graph, n_users)
        self.eps, self.contrast_temperature, self.noise = eps, contrast_temperature, noise
        self.contrast_layer = contrast_layer

    def tables(self) -> tuple[Float[Tensor, "nodes dim"], ...]:
        """Noisily propagated vectors of all nodes, layer 0, and the layer that they are contrasted with."""
        layers = noisy_layers(self.graph, self.eps, self.noise)
        return mean_layer(self.graph, layers), self.graph.ego, layers[self.contrast_layer]

    def terms(
        self,
        user: Int[Tensor, " batch"],
        item: Int[Tensor, " batch"],
        negative: Int[Tensor, " batch"],
        known: Known,  # noqa: ARG002  as published, nothing is masked
        tables: Sequence[Table],
    ) -> dict[str, Float[Tensor, ""]]:
        """Unweighted loss terms of a batch: "bpr", "l2" and "contrast"."""
        g, ego, layer = tables
        triples = torch.stack([user, item, negative])
        triples[1:] += self.n_users
        return {
            "bpr": bpr_of_nodes(g, triples),
            "l2": l2_of_nodes(ego, triples),
            "contrast": contrast(g, layer, user, triples[1], self.contrast_temperature),
        }


def fit_x_sim_gcl(
    train: Dataset,
    *,
    valid: HeldOut,
    settings: XSimGCLSettings | None = None,
    seed: int = 0,
    on_epoch: OnEpoch | None = None,
) -> Recommender:
    """Fit XSimGCL; epoch and dial are chosen on valid.

    Args:
        train: The train part.
        valid: What decides.
        settings: XSimGCLSettings() if left out.
        seed: Of initial values, order of batches, negatives and noise.
        on_epoch: Called after each epoch.

    Returns:
        The recommender of the best epoch.

    Raises:
        ConfigError: If the loss diverges, or there is no such layer to contrast with.

    Source:
        Yu et al., XSimGCL, TKDE 2023.
    """
    settings = settings or XSimGCLSettings()
    if settings.contrast_layer > settings.n_layers:
        raise ConfigError(
            f"contrast_layer must be at most n_layers = {settings.n_layers}; found {settings.contrast_layer}. "
            "Lower it, or raise n_layers."
        )
    graph = graph_tower(train, settings, torch_generator(seed))
    model = XSimGCL(
        graph,
        len(train.users),
        eps=settings.eps,
        contrast_temperature=settings.temperature,
        contrast_layer=settings.contrast_layer,
        noise=torch_generator(seed, "noise"),
    )
    weights = {"bpr": 1.0, "l2": settings.w_l2, "contrast": settings.w_contrast}
    return optimise(model, train, valid, settings, weights=weights, seed=seed, on_epoch=on_epoch)
