"""Text alone: projected profiles of users and items, with no graph and no ids."""

from collections.abc import Sequence
from typing import Annotated

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn

from symcere.data.dataset import Dataset, HeldOut
from symcere.losses import Known, info_nce, unit_rows
from symcere.models.projection import TextTower
from symcere.models.tables import Table
from symcere.recommender import Recommender
from symcere.text.features import TextFeatures
from symcere.training.config import Schedule
from symcere.training.loop import optimise, torch_generator
from symcere.training.progress import OnEpoch
from symcere.training.space import GRAPH, TEMPERATURE, Choice, Space
from symcere.training.text import profiles, without_own


class TextOnlySettings(Schedule):
    """The text tower alone."""

    dim: Annotated[int, Field(ge=1, le=4_096)] = 64
    """Length of an embedding."""
    temperature: Annotated[float, Field(ge=0.01, le=10)] = 0.35
    """Of the softmax over cosines, and the unit of the score."""
    hidden: Annotated[int, Field(ge=0, le=65_536)] = 0
    """Width of a hidden layer in the projection; 0 for a linear projection."""
    leave_one_out: bool = False
    """Whether training takes the review of a pair out of its profiles; the features must know their reviews."""


SPACE: Space = {
    **{name: GRAPH[name] for name in ("learning_rate", "batch_size")},
    "temperature": TEMPERATURE,
    "hidden": Choice((0, 64, 256)),
    "leave_one_out": Choice((False, True)),
}
"""What a search may move."""

PUBLISHED = (TextOnlySettings(learning_rate=1e-3, batch_size=2_048, temperature=0.15, hidden=256),)
"""There is no paper: this control takes learning rate, temperature and hidden layer from AlphaRec, which it is
without the graph."""


class TextOnly(nn.Module):
    """Both sides through one projection, trained by an NCE over the batch in both directions, without a mask.

    Args:
        text: The text tower over users and items.
        n_users: How many of its nodes are users.
        temperature: Of the softmax and of the score.
    """

    def __init__(self, text: TextTower, n_users: int, *, temperature: float) -> None:
        super().__init__()
        self.text, self.n_users, self.temperature = text, n_users, temperature

    def tables(self) -> tuple[()]:
        """There are none: only the text of a batch is read."""
        return ()

    def terms(
        self,
        user: Int[Tensor, " batch"],
        item: Int[Tensor, " batch"],
        negative: Int[Tensor, " batch"],  # noqa: ARG002  the rest of the batch is the negatives
        known: Known,  # noqa: ARG002  nothing is masked
        tables: Sequence[Table],  # noqa: ARG002
    ) -> dict[str, Float[Tensor, ""]]:
        """Unweighted loss terms of a batch: "nce", over the pairs whose nodes both have text."""
        x_user, x_item = self.text.profiles(user, item + self.n_users)
        told: Bool[Tensor, " batch"] = x_user.any(1) & x_item.any(1)
        t_user, t_item = self.text.project(x_user[told]), self.text.project(x_item[told])
        if not told.any():
            return {"nce": t_user.sum()}  # the mean over nothing is 0
        both = info_nce(t_user, t_item, self.temperature) + info_nce(t_item, t_user, self.temperature)
        return {"nce": both / 2}

    @torch.no_grad()
    def embeddings(self) -> tuple[Float[Tensor, "n_users dim"], Float[Tensor, "n_items dim"]]:
        """Vectors of users and items: unit rows, zero for a node without text."""
        t = unit_rows(self.text())
        return t[: self.n_users], t[self.n_users :]


def fit_text_only(
    train: Dataset,
    text: TextFeatures,
    *,
    valid: HeldOut,
    settings: TextOnlySettings | None = None,
    seed: int = 0,
    on_epoch: OnEpoch | None = None,
) -> Recommender:
    """Fit the text tower alone; epoch and dial are chosen on valid.

    Args:
        train: The train part.
        text: Profiles made from the same train part.
        valid: What decides.
        settings: TextOnlySettings() if left out.
        seed: Of initial values and order of batches.
        on_epoch: Called after each epoch.

    Returns:
        The recommender of the best epoch.

    Raises:
        ConfigError: If the loss diverges, text and train do not fit together, or `leave_one_out` is asked of features
            that were encoded without it.
    """
    settings = settings or TextOnlySettings()
    features = profiles(train, text)
    left_out = without_own(train, text) if settings.leave_one_out else None
    tower = TextTower(features, settings.dim, settings.hidden, torch_generator(seed), left_out)
    model = TextOnly(tower, len(train.users), temperature=settings.temperature)
    return optimise(model, train, valid, settings, weights={"nce": 1.0}, seed=seed, on_epoch=on_epoch)
