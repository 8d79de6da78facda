"""LightGCN trained by BPR, with the same loop, the same validation and the same dial as SymCERE."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from symcere.data.dataset import Dataset, HeldOut
from symcere.models.lightgcn import LightGCN
from symcere.recommender import Recommender
from symcere.training.config import GraphSettings
from symcere.training.loop import graph_tower, optimise, torch_generator
from symcere.training.progress import OnEpoch
from symcere.training.space import GRAPH, Space
from symcere.training.tuning import choose


class LightGCNSettings(GraphSettings):
    """LightGCN; its defaults are those of the graph tower, with one layer more."""

    n_layers: Annotated[int, Field(ge=1)] = 3


SETTINGS = (
    LightGCNSettings(include_ego=True, n_layers=4, learning_rate=1.5e-3, w_l2=1e-3),
    LightGCNSettings(include_ego=False, n_layers=3, learning_rate=2e-3, w_l2=1e-5),
    LightGCNSettings(include_ego=False, n_layers=3, learning_rate=1e-2, w_l2=0.05, batch_size=512),
)
"""The best of a search on valid (docs/log.md): with layer 0, without it, and for very sparse data."""

SPACE: Space = GRAPH

PUBLISHED = (LightGCNSettings(include_ego=True, n_layers=3, learning_rate=1e-3, batch_size=2_048, w_l2=1e-4),)
"""The paper's."""


def fit_light_gcn(
    train: Dataset,
    *,
    valid: HeldOut,
    settings: Sequence[LightGCNSettings] = SETTINGS,
    seed: int = 0,
    on_epoch: OnEpoch | None = None,
) -> Recommender:
    """Fit LightGCN under each of several settings; settings, epoch and dial are chosen on valid.

    Args:
        train: The train part.
        valid: What decides.
        settings: Each is fitted; at least one.
        seed: Of initial values, order of batches and negatives.
        on_epoch: Called after each epoch.

    Returns:
        The recommender of the best epoch of the best settings.

    Raises:
        ConfigError: If the loss diverges.

    Source:
        He et al., LightGCN, SIGIR 2020.
    """

    def fit(chosen: LightGCNSettings) -> Recommender:
        model = LightGCN(graph_tower(train, chosen, torch_generator(seed)), len(train.users))
        weights = {"bpr": 1.0, "l2": chosen.w_l2}
        return optimise(model, train, valid, chosen, weights=weights, seed=seed, on_epoch=on_epoch)

    return choose((fit(chosen) for chosen in settings), train, valid)[0]
