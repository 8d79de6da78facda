"""DirectAU: no negatives at all; pairs are drawn together, users and items each spread over the sphere."""

from collections.abc import Sequence
from typing import Annotated

from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from symcere.data.dataset import Dataset, HeldOut
from symcere.losses import Known, alignment, l2, uniformity
from symcere.models.lightgcn import LightGCN
from symcere.models.tables import Table
from symcere.recommender import Recommender
from symcere.training.config import GraphSettings, Weight
from symcere.training.loop import graph_tower, optimise, torch_generator
from symcere.training.progress import OnEpoch
from symcere.training.space import GRAPH, Real, Space, Whole


class DirectAUSettings(GraphSettings):
    """DirectAU."""

    n_layers: Annotated[int, Field(ge=0, le=16)] = 3
    """Propagation hops; 0 is plain matrix factorisation, whatever include_ego says."""
    w_l2: Weight = 0.05
    """Weight of L2 on the layer-0 rows of a batch."""
    w_uniform: Weight = 0.2
    """Weight of uniformity beside alignment."""


SPACE: Space = {**GRAPH, "n_layers": Whole(0, 4), "w_uniform": Real(0.05, 10.0, log=True)}
"""What a search may move: the encoder, by its number of layers, and the weight as the paper sweeps it, or less."""

PUBLISHED = (
    DirectAUSettings(n_layers=0, include_ego=True, w_uniform=0.5, learning_rate=1e-3, batch_size=512, w_l2=1e-6),
    DirectAUSettings(n_layers=0, include_ego=True, w_uniform=5.0, learning_rate=1e-3, batch_size=1_024, w_l2=1e-6),
    DirectAUSettings(n_layers=0, include_ego=True, w_uniform=1.0, learning_rate=1e-3, batch_size=1_024, w_l2=1e-6),
)
"""The authors' code, for Beauty (in batches of 256 there), Gowalla and Yelp2018. Their weight decay of 1e-6 moves
every row at every step; ours is L2 on the rows of the batch."""


class DirectAU(LightGCN):
    """LightGCN, or plain vectors, under alignment and uniformity.

    Trained on the sphere, scored by the inner product of the vectors as they are: what the authors' code does.

    Args:
        graph: The tower.
        n_users: How many of its nodes are users.
    """

    def terms(
        self,
        user: Int[Tensor, " batch"],
        item: Int[Tensor, " batch"],
        negative: Int[Tensor, " batch"],  # noqa: ARG002  there are no negatives
        known: Known,  # noqa: ARG002  as published, nothing is masked
        tables: Sequence[Table],
    ) -> dict[str, Float[Tensor, ""]]:
        """Unweighted loss terms of a batch: "align", "uniform" and "l2"."""
        item = item + self.n_users
        g, ego = tables
        g_user, g_item = g[user], g[item]
        return {
            "align": alignment(g_user, g_item),
            "uniform": (uniformity(g_user) + uniformity(g_item)) / 2,
            "l2": l2(ego[user], ego[item]),
        }


def fit_direct_au(
    train: Dataset,
    *,
    valid: HeldOut,
    settings: DirectAUSettings | None = None,
    seed: int = 0,
    on_epoch: OnEpoch | None = None,
) -> Recommender:
    """Fit DirectAU; epoch and dial are chosen on valid.

    Args:
        train: The train part.
        valid: What decides.
        settings: DirectAUSettings() if left out.
        seed: Of initial values and order of batches.
        on_epoch: Called after each epoch.

    Returns:
        The recommender of the best epoch.

    Raises:
        ConfigError: If the loss diverges.

    Source:
        Wang et al., Towards Representation Alignment and Uniformity in Collaborative Filtering, KDD 2022.
    """
    settings = settings or DirectAUSettings()
    if not settings.n_layers:  # there is nothing but layer 0
        settings = settings.model_copy(update={"include_ego": True})
    graph = graph_tower(train, settings, torch_generator(seed))
    model = DirectAU(graph, len(train.users))
    weights = {"align": 1.0, "uniform": settings.w_uniform, "l2": settings.w_l2}
    return optimise(model, train, valid, settings, weights=weights, seed=seed, on_epoch=on_epoch)
