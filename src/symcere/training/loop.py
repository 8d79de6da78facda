"""`fit`, and the one loop that steps an optimiser: it reads top to bottom."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor, nn

from symcere import rng
from symcere.data.dataset import Dataset, HeldOut, known_matrix
from symcere.errors import DivergedError
from symcere.graph import norm_adj
from symcere.losses import Known
from symcere.manifest import code_digest, digest, digest_array
from symcere.models.lightgcn import GraphTower
from symcere.models.projection import TextTower
from symcere.models.symcere import SymcereModel
from symcere.models.tables import Rows, Table, send_back
from symcere.recommender import Recommender, with_unit_spread
from symcere.text.features import TextFeatures
from symcere.training.batches import Batch, SeenPairs, batches, in_groups
from symcere.training.checkpoint import current_checkpoints, random_state, set_random_state
from symcere.training.config import GraphSettings, Schedule, SymcereSettings
from symcere.training.device import current_device
from symcere.training.known import Mask
from symcere.training.text import profiles, without_own
from symcere.training.tuning import choose_popularity_weight, some_users


@runtime_checkable
class Model(Protocol):
    """What the loop trains: a module with loss terms and final vectors."""

    @property
    def temperature(self) -> float | None:
        """Unit of the score; None to take the spread of the scores."""
        ...

    def tables(self) -> tuple[Tensor, ...]:
        """Matrices over all nodes that depend on the parameters alone: computed once a step, for all its batches."""
        ...

    def terms(
        self, user: Tensor, item: Tensor, negative: Tensor, known: Known, tables: Sequence[Table]
    ) -> dict[str, Tensor]:
        """Unweighted loss terms of a batch, which reads rows of the tables."""
        ...

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Final vectors of users and items."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """What the optimiser moves."""
        ...

    def to(self, device: torch.device) -> object:
        """Move all of it to a device."""
        ...


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


_BESIDE = ("loss", "grad_norm", "known_share")  # what the log of a step holds beside the terms

OnEpoch = Callable[[Epoch], None]

KnownMass = Callable[[Tensor, Tensor, Known], float]
"""(user, item, known) of a batch -> share of softmax mass that the mask removes."""


def fit(
    train: Dataset,
    text: TextFeatures,
    *,
    valid: HeldOut,
    settings: SymcereSettings | None = None,
    seed: int = 0,
    on_epoch: OnEpoch | None = None,
) -> Recommender:
    """Fit SymCERE: graph and text tower on the unit sphere, joined by the symmetric NCE with history mask.

    Epoch and popularity dial are chosen together by NDCG@10 on valid. Test is not a parameter. Under the setting
    `leave_one_out`, the review of a pair is taken out of the profiles of its user and item whenever the pair is
    learned from: at test time there is no such review either.

    Args:
        train: The train part.
        text: Profiles made from the same train part.
        valid: Decides when to stop and where the dial stands; its items are not recommended afterwards.
        settings: SymcereSettings() if left out.
        seed: Of initial values, order of batches and negatives.
        on_epoch: Called after each epoch.

    Returns:
        The recommender of the best epoch.

    Raises:
        ConfigError: If the loss diverges, text and train do not fit together, or `leave_one_out` is asked of features
            that were encoded without it.
    """
    settings = settings or SymcereSettings()
    features, generator = profiles(train, text), torch_generator(seed)
    graph = graph_tower(train, settings, generator)
    left_out = without_own(train, text) if settings.leave_one_out else None
    model = SymcereModel(
        graph,
        TextTower(features, settings.dim, settings.hidden, generator, left_out),
        len(train.users),
        temperature=settings.temperature,
        text_weight=settings.text_weight,
        propagated_weight=settings.propagated_weight,
        positives=settings.positives,
        pairs=settings.pairs,
        unit=settings.unit,
        text_in_graph=settings.w_text_in_graph,
        distinct=settings.mask == "history" and not settings.leave_one_out,
    )
    return optimise(
        model,
        train,
        valid,
        settings,
        weights=settings.weights,
        mask=settings.mask,
        known_mass=model.known_mass,
        seed=seed,
        on_epoch=on_epoch,
    )


def optimise(
    model: Model,
    train: Dataset,
    valid: HeldOut,
    schedule: Schedule,
    *,
    weights: Mapping[str, float],
    seed: int,
    mask: Mask = "none",
    known_mass: KnownMass | None = None,
    on_epoch: OnEpoch | None = None,
) -> Recommender:
    """Step Adam on the weighted terms of a model until valid NDCG@10 stops rising.

    Runs on `current_device()`. Inside `checkpointing` it keeps its state, and goes on from what a killed one left;
    the epochs before are told again then.

    Args:
        model: The model; its parameters are moved.
        train: The train part.
        valid: Decides the epoch and the dial.
        schedule: How to step, when to validate, when to stop.
        weights: Weight of each of the model's terms.
        seed: Of the batches.
        mask: Which in-batch pairs denominators leave out.
        known_mass: What that removes, for the log; 0 where there is no mask.
        on_epoch: Called after each epoch.

    Returns:
        The recommender of the best epoch, its dial set.

    Raises:
        DivergedError: If a term of the loss is no longer finite.
    """
    device, checkpoints = current_device(), current_checkpoints()
    key = ""
    if checkpoints:  # all that decides the fit
        settings = [schedule.model_dump(mode="json"), dict(weights), seed, mask, str(device)]
        key = digest(code_digest(), type(model).__name__, _contents(model, train, valid), settings)
    model.to(device)
    optimiser = torch.optim.Adam(model.parameters(), lr=schedule.learning_rate, fused=True)
    draws = rng.stream(seed, "batches")
    seen, deciding = known_matrix(train, valid), some_users(valid, schedule.valid_users, seed)
    pairs = SeenPairs(train)
    at = _Progress()
    if checkpoints:
        checkpoints.begin()
        if saved := checkpoints.load(key):
            at = _restored(saved, model, optimiser, draws, train, seen)
            for told in at.told if on_epoch else ():
                on_epoch(told)  # type: ignore[misc]
    began = time.perf_counter() - at.seconds
    for epoch in range(at.epoch, schedule.max_epochs + 1):
        if at.is_over(schedule):
            break
        epoch_draws, n_done = draws.bit_generator.state, len(at.steps)
        epoch_began, n_learned = time.perf_counter(), 0
        drawn = batches(train, schedule.batch_size, mask, draws, pairs)
        for number, group in enumerate(in_groups(drawn, schedule.batches_per_step(len(train)))):
            if number < n_done:
                continue  # learned from before the fit was killed
            streams = random_state(model, epoch_draws) if checkpoints and checkpoints.due else None
            optimiser.zero_grad()
            step = _gradients(model, [batch.to(device) for batch in group], weights)
            _check_finite(step, epoch, checkpoints.file(key) if checkpoints else None)
            if checkpoints and streams:  # before the step: these parameters are known to give a finite loss
                at.seconds = time.perf_counter() - began
                checkpoints.save(key, {"key": key, "random": streams, **_saved(at, model, optimiser)})
            optimiser.step()
            at.steps.append(step)
            n_learned += sum(len(batch.user) for batch in group)
        speed = n_learned / (time.perf_counter() - epoch_began)
        validated: tuple[float, float] | None = None
        if epoch % schedule.valid_every == 0 or epoch == schedule.max_epochs:
            system, ndcg = choose_popularity_weight(
                _recommender(model, train, seen), train, deciding, schedule.popularity_weights
            )
            validated = (ndcg, system.popularity_weight)
            if at.best is None or ndcg > at.best[0]:
                at.best = (ndcg, epoch, system)
        mean = {name: float(np.mean([step[name] for step in at.steps])) for name in at.steps[0]}
        told = Epoch(
            epoch=epoch,
            seconds=time.perf_counter() - began,
            interactions_per_second=speed,
            terms={name: mean[name] for name in mean if name not in _BESIDE},
            loss=mean["loss"],
            grad_norm=mean["grad_norm"],
            known_share=mean["known_share"],
            known_mass=_mass(known_mass, group[-1].to(device)) if known_mass and on_epoch else 0.0,
            valid_ndcg=validated[0] if validated else None,
            popularity_weight=validated[1] if validated else None,
            best_ndcg=at.best[0] if at.best else None,
        )
        at.epoch, at.steps = epoch + 1, []
        at.told.append(told)
        if on_epoch:
            on_epoch(told)
    if checkpoints:
        checkpoints.remove(key)
    assert at.best is not None  # the last epoch is always validated
    return at.best[2]


@dataclass
class _Progress:
    """How far a fit has come: what is neither in the model nor in the optimiser nor in a random stream.

    Args:
        epoch: The epoch in hand.
        steps: What its steps showed so far.
        best: Valid NDCG@10, epoch and system of the best validation.
        told: The epochs before.
        seconds: Since training began, at the last checkpoint.
    """

    epoch: int = 1
    steps: list[dict[str, float]] = field(default_factory=list)
    best: tuple[float, int, Recommender] | None = None
    told: list[Epoch] = field(default_factory=list)
    seconds: float = 0.0

    def is_over(self, schedule: Schedule) -> bool:
        """Whether patience ended at the end of the last epoch."""
        return self.best is not None and self.epoch - 1 - self.best[1] >= schedule.patience * schedule.valid_every


def _contents(model: Model, train: Dataset, valid: HeldOut) -> list[str]:
    """Digests of initial values, text and interactions."""
    tensors = [*model.parameters(), *(model.buffers() if isinstance(model, nn.Module) else ())]
    sides = (train.user, train.item, valid.user, valid.item)
    return [digest_array(array) for array in (*(tensor.detach().cpu().numpy() for tensor in tensors), *sides)]


def _saved(at: _Progress, model: Model, optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """The state of a fit as plain values and tensors, but for its random streams."""
    best = at.best and {
        "ndcg": at.best[0],
        "epoch": at.best[1],
        "user_emb": torch.from_numpy(at.best[2].user_emb),
        "item_emb": torch.from_numpy(at.best[2].item_emb),
        "temperature": at.best[2].temperature,
        "popularity_weight": at.best[2].popularity_weight,
    }
    return {
        "parameters": [parameter.detach() for parameter in model.parameters()],
        "optimiser": optimiser.state_dict(),
        "epoch": at.epoch,
        "steps": at.steps,
        "best": best,
        "told": [asdict(told) for told in at.told],
        "seconds": at.seconds,
    }


def _restored(
    saved: Mapping[str, Any],
    model: Model,
    optimiser: torch.optim.Optimizer,
    draws: np.random.Generator,
    train: Dataset,
    seen: csr_array,
) -> _Progress:
    """Put model, optimiser and random streams back to where they were saved; returns how far that was."""
    with torch.no_grad():
        for parameter, was in zip(model.parameters(), saved["parameters"], strict=True):
            parameter.copy_(was)
    optimiser.load_state_dict(saved["optimiser"])
    set_random_state(model, draws, saved["random"])
    best = saved["best"]
    system = best and dataclasses.replace(
        _recommender(model, train, seen),
        user_emb=best["user_emb"].numpy(),
        item_emb=best["item_emb"].numpy(),
        temperature=best["temperature"],
        popularity_weight=best["popularity_weight"],
    )
    return _Progress(
        epoch=saved["epoch"],
        steps=saved["steps"],
        best=(best["ndcg"], best["epoch"], system) if best else None,
        told=[Epoch(**told) for told in saved["told"]],
        seconds=saved["seconds"],
    )


def torch_generator(seed: int, stream: str = "init") -> torch.Generator:
    """The named random stream under `seed`, as torch wants it; initial values have one of their own."""
    return torch.Generator().manual_seed(int(rng.stream(seed, stream).integers(2**62)))


def graph_tower(train: Dataset, settings: GraphSettings, generator: torch.Generator) -> GraphTower:
    """The graph tower over the train interactions.

    Args:
        train: The train part.
        settings: Its length, hops and layer 0.
        generator: Source of the initial values.

    Returns:
        The tower.
    """
    adj = norm_adj(train.user, train.item, len(train.users), len(train.items))
    return GraphTower(adj, settings.dim, settings.n_layers, include_ego=settings.include_ego, generator=generator)


def _recommender(model: Model, train: Dataset, seen: csr_array) -> Recommender:
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
    )
    return system if model.temperature else with_unit_spread(system)


def _check_finite(step: Mapping[str, float], epoch: int, checkpoint: Path | None) -> None:
    for name in step:
        if name not in _BESIDE and not math.isfinite(step[name]):
            kept = checkpoint is not None and checkpoint.exists()
            raise DivergedError(
                f"Training diverged in epoch {epoch}: the term {name!r} is {step[name]}. Lower the "
                "learning rate, or raise the temperature."
                + (f" The last good checkpoint is {checkpoint}." if kept else "")
            )


def _gradients(model: Model, group: Sequence[Batch], weights: Mapping[str, float]) -> dict[str, float]:
    """Gradients of the mean loss over batches that share their tables; returns what a step showed."""
    tables = [Rows(table) for table in model.tables()]
    shown = []
    for batch in group:
        terms = model.terms(batch.user, batch.item, batch.negative, batch.known, tables)
        loss = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
        (loss / len(group)).backward()  # type: ignore[no-untyped-call]
        shown.append(torch.stack([*terms.values(), loss]).detach())
    send_back(tables)
    grads = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    length = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(grad) for grad in grads]))
    values = [*torch.stack(shown).mean(0), length]
    named = zip([*terms, "loss", "grad_norm"], torch.stack(values).tolist(), strict=True)  # one wait for the device
    return {**dict(named), "known_share": float(np.mean([batch.known_share for batch in group]))}


def _mass(known_mass: KnownMass, batch: Batch) -> float:
    return known_mass(batch.user, batch.item, batch.known)
