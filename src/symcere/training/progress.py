"""How far a fit has come: what each epoch showed, the best so far, and all of it as plain values and back."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array

from symcere.data.dataset import Dataset, HeldOut
from symcere.errors import ConfigError
from symcere.manifest import digest_array
from symcere.models.model import Model
from symcere.models.symcere import SymcereModel
from symcere.recommender import Recommender, with_unit_spread
from symcere.towers import Towers
from symcere.training.adam import Adam
from symcere.training.checkpoint import set_random_state
from symcere.training.config import Schedule


@dataclass(frozen=True)
class Epoch:
    """What one epoch of training showed.

    Args:
        epoch: Number of the epoch, from 1.
        seconds: Since training began, validation included.
        interactions_per_second: Learned from in this epoch, validation not counted.
        terms: Mean over batches of each loss term without its weight.
        loss: Their weighted sum.
        grad_norm: Mean length of the gradient of all parameters.
        known_share: Known pairs as a share of all off-diagonal pairs of a batch, by count.
        known_mass: The same share by softmax mass, in the last batch.
        valid_ndcg: NDCG@10 on valid at the best dial; None where this epoch was not validated.
        popularity_weight: That dial.
        best_ndcg: The best valid NDCG@10 so far.
        again: Whether all is learned once more, graph and text apart; `best_ndcg` is of this second time then, and
            `epoch` counts on.
    """

    epoch: int
    seconds: float
    interactions_per_second: float
    terms: dict[str, float]
    loss: float
    grad_norm: float
    known_share: float
    known_mass: float
    valid_ndcg: float | None
    popularity_weight: float | None
    best_ndcg: float | None
    again: bool = False

    def share_of(self, n_epochs: int) -> float:
        """Share of the fit that is over, if it takes so many epochs, or twice as many."""
        return self.epoch / (2 * n_epochs if self.again else n_epochs)


BESIDE = ("loss", "grad_norm", "known_share")
"""What a step shows beside its terms."""

OnEpoch = Callable[[Epoch], None]


@dataclass(frozen=True)
class Chosen:
    """What valid chose in a fit, for one that holds nothing out: there is nothing left to choose by.

    Args:
        epochs: How many epochs are learned; an epoch of more interactions has more steps.
        popularity_weight: Where the dial stands.
        text_times: How often all text counts (`check_text`).
        apart: Whether graph and text are learned apart: without the term that joins them.
    """

    epochs: int
    popularity_weight: float
    text_times: float = 1.0
    apart: bool = False

    @classmethod
    def of(cls, system: Recommender, told: Sequence[Epoch]) -> "Chosen":
        """What a fit chose.

        Args:
            system: What it returned.
            told: What it told `on_epoch`.

        Returns:
            Its best epoch, and the dial and weight of the text that it set.

        Raises:
            ConfigError: If no epoch was validated.
        """
        times, apart = (system.towers.text_times, system.towers.apart) if system.towers else (1.0, False)
        its_own = [epoch for epoch in told if epoch.again == apart]
        validated = [epoch for epoch in its_own if epoch.valid_ndcg is not None]
        if not validated:
            raise ConfigError("No epoch of this fit was validated. Pass what it told on_epoch, all of it.")
        best = max(validated, key=lambda epoch: epoch.valid_ndcg or 0.0)  # the earlier wins a tie
        return cls(best.epoch - its_own[0].epoch + 1, system.popularity_weight, times, apart)


def identity_of(valid: HeldOut | Chosen) -> list[Any]:
    """What decides a fit, as JSON values for its key: digests of the valid part, or what it chose before."""
    return [asdict(valid)] if isinstance(valid, Chosen) else [digest_array(valid.user), digest_array(valid.item)]


@dataclass
class Progress:
    """How far a fit has come: what is neither in the model nor in the optimiser nor in a random stream.

    Args:
        epoch: The epoch in hand.
        steps: What its steps showed so far.
        best: Valid NDCG@10, epoch and system of the best validation.
        told: The epochs before.
        seconds: Since training began, at the last checkpoint.
        first: What was learned the first time, where all is learned once more; epochs begin at 1 again, what they
            tell counts on.
    """

    epoch: int = 1
    steps: list[dict[str, float]] = field(default_factory=list)
    best: tuple[float, int, Recommender] | None = None
    told: list[Epoch] = field(default_factory=list)
    seconds: float = 0.0
    first: Recommender | None = None

    def begin_again(self, first: Recommender) -> None:
        """Keep what was learned, and begin with the first epoch."""
        self.first, self.epoch, self.best = first, 1, None

    def end_epoch(
        self, seconds: float, speed: float, known_mass: float, validated: tuple[float, float] | None
    ) -> Epoch:
        """Make what the epoch in hand showed of what its steps did, and take the next one in hand.

        Args:
            seconds: Since training began.
            speed: Interactions learned from a second.
            known_mass: Of its last batch.
            validated: Valid NDCG@10 and its dial, where it was validated.

        Returns:
            What it showed.
        """
        mean = {name: float(np.mean([step[name] for step in self.steps])) for name in self.steps[0]}
        showed = Epoch(
            epoch=len(self.told) + 1,
            seconds=seconds,
            interactions_per_second=speed,
            terms={name: mean[name] for name in mean if name not in BESIDE},
            loss=mean["loss"],
            grad_norm=mean["grad_norm"],
            known_share=mean["known_share"],
            known_mass=known_mass,
            valid_ndcg=validated[0] if validated else None,
            popularity_weight=validated[1] if validated else None,
            best_ndcg=self.best[0] if self.best else None,
            again=self.first is not None,
        )
        self.epoch, self.steps = self.epoch + 1, []
        self.told.append(showed)
        return showed

    def is_over(self, schedule: Schedule) -> bool:
        """Whether patience ended at the end of the last epoch."""
        return self.best is not None and self.epoch - 1 - self.best[1] >= schedule.patience * schedule.valid_every


def saved_state(at: Progress, model: Model, optimiser: Adam) -> dict[str, Any]:
    """The state of a fit as plain values and tensors, but for its random streams."""
    return {
        "parameters": [parameter.detach() for parameter in model.parameters()],
        "optimiser": optimiser.state(),
        "epoch": at.epoch,
        "steps": at.steps,
        "best": at.best and {"ndcg": at.best[0], "epoch": at.best[1], "system": _saved_system(at.best[2])},
        "told": [asdict(told) for told in at.told],
        "seconds": at.seconds,
        "first": at.first and _saved_system(at.first),
    }


def restored(
    saved: Mapping[str, Any],
    model: Model,
    optimiser: Adam,
    draws: np.random.Generator,
    train: Dataset,
    seen: csr_array,
) -> Progress:
    """Put model, optimiser and random streams back to where they were saved; returns how far that was."""
    with torch.no_grad():
        for parameter, was in zip(model.parameters(), saved["parameters"], strict=True):
            parameter.copy_(was)
    optimiser.restore(saved["optimiser"])
    set_random_state(model, draws, saved["random"])
    best, first = saved["best"], saved["first"]
    return Progress(
        epoch=saved["epoch"],
        steps=saved["steps"],
        best=(best["ndcg"], best["epoch"], _restored_system(best["system"], model, train, seen)) if best else None,
        told=[Epoch(**told) for told in saved["told"]],
        seconds=saved["seconds"],
        first=_restored_system(first, model, train, seen) if first else None,
    )


def _saved_system(system: Recommender) -> dict[str, Any]:
    """What a fit changes of a recommender, as plain values and tensors."""
    towers = system.towers
    arrays = towers and {name: torch.from_numpy(array) for name, array in towers.tensors.items()}
    return {
        "user_emb": torch.from_numpy(system.user_emb),
        "item_emb": torch.from_numpy(system.item_emb),
        "temperature": system.temperature,
        "popularity_weight": system.popularity_weight,
        "towers": towers and {"tensors": arrays, "about": towers.about},
    }


def _restored_system(saved: Mapping[str, Any], model: Model, train: Dataset, seen: csr_array) -> Recommender:
    """The recommender that `_saved_system` was given."""
    towers = saved["towers"]
    return dataclasses.replace(
        recommender_of(model, train, seen),
        user_emb=saved["user_emb"].numpy(),
        item_emb=saved["item_emb"].numpy(),
        temperature=saved["temperature"],
        popularity_weight=saved["popularity_weight"],
        towers=towers
        and Towers.of({name: tensor.numpy() for name, tensor in towers["tensors"].items()}, towers["about"]),
    )


def recommender_of(model: Model, train: Dataset, seen: csr_array) -> Recommender:
    """The model as it stands, its dial at 0."""
    user_emb, item_emb = (np.ascontiguousarray(emb.cpu().numpy()) for emb in model.embeddings())
    system = Recommender(
        users=train.users,
        items=train.items,
        seen=seen,
        popularity=train.popularity,
        temperature=model.temperature or 1.0,
        popularity_weight=0.0,
        user_emb=user_emb,
        item_emb=item_emb,
        towers=model.towers() if isinstance(model, SymcereModel) else None,
    )
    return system if model.temperature else with_unit_spread(system)
