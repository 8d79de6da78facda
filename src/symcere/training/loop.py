"""`fit`, and the one loop that steps an optimiser: it reads top to bottom."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from symcere import rng
from symcere.data.dataset import Dataset, HeldOut, known_matrix
from symcere.errors import ConfigError, DivergedError
from symcere.graph import NormAdj, ShardedAdj, norm_adj, propagate
from symcere.losses import Known
from symcere.manifest import code_digest, digest, digest_array
from symcere.memory import Spare
from symcere.models.lightgcn import GraphTower
from symcere.models.model import Model
from symcere.models.projection import Projection, TextTower
from symcere.models.sharded import ShardedSymcere
from symcere.models.symcere import SymcereModel
from symcere.models.tables import Rows, send_back
from symcere.recommender import Recommender
from symcere.text.features import TextFeatures
from symcere.training.adam import Adam
from symcere.training.batches import Batch, SeenPairs, batches, in_groups
from symcere.training.checkpoint import current_checkpoints, random_state
from symcere.training.config import GraphSettings, Schedule, SymcereSettings
from symcere.training.device import current_device, gathers_bfloat16, multiplies_bfloat16
from symcere.training.fusion import Checked, check_text, count_text, counts_less, learned_apart
from symcere.training.known import Mask
from symcere.training.progress import (
    Chosen,
    OnEpoch,
    Progress,
    identity_of,
    recommender_of,
    restored,
    saved_state,
)
from symcere.training.text import on_sphere, profiles, told, without_own
from symcere.training.tuning import check_decides, choose, choose_popularity_weight, some_users
from symcere.workers import current_workers

_LARGE_GRAPH = 32_768  # nodes, whose vectors of 64 numbers take 8 MiB

KnownMass = Callable[[Tensor, Tensor, Known], float]
"""(user, item, known) of a batch -> share of softmax mass that the mask removes."""


def fit(
    train: Dataset,
    text: TextFeatures,
    *,
    valid: HeldOut | Chosen,
    settings: SymcereSettings | None = None,
    seed: int = 0,
    on_epoch: OnEpoch | None = None,
) -> Recommender:
    """Fit SymCERE: graph and text tower on the unit sphere, joined by the symmetric NCE with history mask.

    Epoch and popularity dial are chosen together by NDCG@10 on valid, and then whether text counts as much as its
    weights say (`check_text`). Where it clearly has to count less, or would not be missed, all is learned once more
    without the term that joins graph and text; if text has to count less there, the better of both on valid is
    taken, and the first otherwise. Test is not a parameter. Under the setting
    `leave_one_out`, the review of a pair is taken out of the profiles of its user and item whenever the pair is
    learned from: at test time there is no such review either. What is averaged over the graph keeps it, as do the
    vectors of p and the third tower that are made of that.

    What is served should know everything. When a fit has chosen, the same settings learn once more from all
    interactions (`undivided`), for as many epochs, with its dial and weight of the text: `valid=Chosen.of(...)`.

    Args:
        train: The train part.
        text: Profiles made from the same train part.
        valid: Decides when to stop and where the dial stands; its items are not recommended afterwards. Or what
            valid chose in an earlier fit, and then nothing is held out.
        settings: SymcereSettings() if left out.
        seed: Of initial values, order of batches and negatives.
        on_epoch: Called after each epoch.

    Returns:
        The recommender of the best epoch; of the last one, where it was chosen before.

    Raises:
        ConfigError: If the loss diverges, text and train do not fit together, or `leave_one_out` is asked of features
            that were encoded without it.

    Example:
        >>> import symcere as sc
        >>> reviews = sc.k_core(sc.anchoring_world(60, 30, 5).reviews, 2)
        >>> split, encoder, told = sc.split_random(reviews), sc.tfidf_encoder(8), []
        >>> how = {"settings": sc.SymcereSettings(dim=8, max_epochs=4, valid_every=2)}
        >>> text = sc.encode_reviews(split.train, encoder)
        >>> measured = sc.fit(split.train, text, valid=split.valid, on_epoch=told.append, **how)
        >>> everything = sc.undivided(reviews)
        >>> text = sc.encode_reviews(everything, encoder)
        >>> served = sc.fit(everything, text, valid=sc.Chosen.of(measured, told), **how)
        >>> len(served.seen.data) - len(measured.seen.data) == len(split.test)
        True
    """
    settings = settings or SymcereSettings()
    apart = settings.model_copy(update={"w_cross": 0.0}).weights
    model = symcere_model(train, text, settings, torch_generator(seed))

    def finish(system: Recommender, deciding: HeldOut | Chosen, weights: Mapping[str, float]) -> Checked:
        adj = model.graph.adj
        at_hand = adj if isinstance(adj, NormAdj) and not adj.values.is_cuda else None
        adj.spare.clear()  # of the steps; what is asked now is float32
        if weights is apart:
            system = learned_apart(system)
        if isinstance(deciding, Chosen):
            return Checked(count_text(system, train, text, deciding.text_times, at_hand), in_the_way=False)
        return check_text(system, train, text, deciding, settings.popularity_weights, at_hand)

    chosen = isinstance(valid, Chosen)
    joined = settings.w_cross and not settings.w_text_in_graph  # what is in the graph stays in it
    return optimise(
        model,
        train,
        valid,
        settings,
        weights=apart if isinstance(valid, Chosen) and valid.apart else settings.weights,
        mask=settings.mask,
        known_mass=model.known_mass,
        seed=seed,
        on_epoch=on_epoch,
        finish=finish if settings.check_text or chosen else None,
        apart=apart if settings.check_text and joined and not chosen else None,
    )


def symcere_model(
    train: Dataset, text: TextFeatures, settings: SymcereSettings, generator: torch.Generator
) -> SymcereModel:
    """The model before its first step: of one process, or this worker's part of it.

    Args:
        train: The train part.
        text: Profiles made from it.
        settings: Its settings.
        generator: Source of the initial values.

    Returns:
        The model.

    Raises:
        ConfigError: If text and train do not fit together, or several workers cannot fit under these settings.
    """
    if current_workers().size > 1:
        _check_shared(settings)
    graph = graph_tower(train, settings, generator)
    left_out = without_own(train, text) if settings.leave_one_out else None
    shard = graph.adj.shard if isinstance(graph.adj, ShardedAdj) else None
    features = profiles(train, text, shard.own if shard else None)
    if settings.unit:
        features = on_sphere(features)
    tower = TextTower(features, settings.dim, settings.hidden, generator, left_out)
    near = Projection(features.shape[1], settings.dim, 0, generator) if settings.neighbourhood_weight else None
    averaged = None
    if near or settings.propagated_weight:
        averaged = propagate(graph.adj, features, settings.n_layers, include_ego=False)
    how: dict[str, Any] = {
        "temperature": settings.temperature,
        "text_weight": settings.text_weight,
        "averaged": averaged,
        "propagated_weight": settings.propagated_weight,
        "positives": settings.positives,
        "pairs": settings.pairs,
        "unit": settings.unit,
        "text_in_graph": settings.w_text_in_graph,
        "distinct": settings.mask in ("history", "none") and not settings.leave_one_out,
        "own_known": settings.mask == "history",
        "neighbourhood": near,
        "neighbourhood_weight": settings.neighbourhood_weight,
        "coarse": multiplies_coarsely(settings, len(train)),
    }
    if not shard:
        return SymcereModel(graph, tower, len(train.users), **how)
    return ShardedSymcere(graph, tower, len(train.users), told(text), **how)


def multiplies_coarsely(settings: SymcereSettings, n_interactions: int) -> bool:
    """Whether the products of SymCERE's softmaxes are taken in bfloat16 on `current_device()`; of unit rows alone."""
    if not settings.unit:
        return False
    if settings.precision == "auto":
        return settings.is_large(n_interactions) and multiplies_bfloat16(current_device())
    return settings.precision == "bfloat16"


def propagates_coarsely(settings: GraphSettings, n_nodes: int) -> bool:
    """Whether a graph of so many nodes is propagated over in bfloat16 on `current_device()`."""
    if settings.precision == "auto":
        return n_nodes >= _LARGE_GRAPH and gathers_bfloat16(current_device())
    return settings.precision == "bfloat16"


def adjacency(train: Dataset, settings: GraphSettings) -> NormAdj:
    """The graph that is propagated over, in the precision that the settings ask for.

    Args:
        train: The train part.
        settings: Their precision; "auto" is bfloat16 where the vectors are too many for a cache.

    Returns:
        The adjacency.
    """
    n_users, n_items = len(train.users), len(train.items)
    coarse = propagates_coarsely(settings, n_users + n_items)
    return norm_adj(train.user, train.item, n_users, n_items, coarse=coarse)


def _check_shared(settings: SymcereSettings) -> None:
    default = SymcereSettings()
    for name in ("positives", "pairs", "unit", "leave_one_out", "w_text_in_graph"):
        if getattr(settings, name) != getattr(default, name):
            raise ConfigError(
                f"Several workers fit SymCERE with {name}={getattr(default, name)!r} alone; found "
                f"{getattr(settings, name)!r}. Take one worker."
            )


def optimise(
    model: Model,
    train: Dataset,
    valid: HeldOut | Chosen,
    schedule: Schedule,
    *,
    weights: Mapping[str, float],
    seed: int,
    mask: Mask = "none",
    known_mass: KnownMass | None = None,
    on_epoch: OnEpoch | None = None,
    finish: Callable[[Recommender, HeldOut | Chosen, Mapping[str, float]], Checked] | None = None,
    apart: Mapping[str, float] | None = None,
) -> Recommender:
    """Step Adam on the weighted terms of a model until valid NDCG@10 stops rising.

    Runs on `current_device()`. Inside `checkpointing` it keeps its state, and goes on from what a killed one left;
    the epochs before are told again then.

    Args:
        model: The model; its parameters are moved.
        train: The train part.
        valid: Decides the epoch and the dial; or what they are, and then none is validated.
        schedule: How to step, when to validate, when to stop.
        weights: Weight of each of the model's terms.
        seed: Of the batches.
        mask: Which in-batch pairs denominators leave out.
        known_mass: What that removes, for the log; 0 where there is no mask.
        on_epoch: Called after each epoch.
        finish: What becomes of the recommender of the best epoch, by the part of valid that chose it, or by `valid`,
            and by the weights that it was learned under.
        apart: Where that finds text in the way, all is learned once more from the same initial values under these
            weights. If text has to count less there, the better of both on valid is taken; the first otherwise, and
            where the second time diverges.

    Returns:
        The recommender of the best epoch, its dial set.

    Raises:
        ConfigError: If valid is empty, or several workers cannot fit this model.
        DivergedError: If a term of the loss, or the gradient, is no longer finite.
    """
    device, checkpoints, workers = current_device(), current_checkpoints(), current_workers()
    if workers.size > 1 and not isinstance(model, ShardedSymcere):
        raise ConfigError(f"{type(model).__name__} is fitted by one process; only SymCERE is by several workers.")
    key = ""
    if checkpoints:  # all that decides the fit
        settings = [schedule.model_dump(mode="json"), dict(weights), seed, mask, str(device)]
        key = digest(code_digest(), type(model).__name__, _contents(model, train, valid), settings)
    model.to(device)
    optimiser = Adam(model.parameters(), schedule.learning_rate)
    draws = rng.stream(seed, "batches")
    seen, deciding, n_epochs = train.seen, valid, schedule.max_epochs
    if isinstance(deciding, Chosen):
        n_epochs = deciding.epochs
    else:
        check_decides(deciding)
        seen, deciding = known_matrix(train, deciding), some_users(deciding, schedule.valid_users, seed)
    pairs = SeenPairs(train)
    initial = [parameter.detach().clone() for parameter in model.parameters()] if apart else []
    at = Progress()
    if checkpoints:
        checkpoints.begin()
        if saved := checkpoints.load(key):
            at = restored(saved, model, optimiser, draws, train, seen)
            if apart and at.first:
                weights = apart
            for earlier in at.told if on_epoch else ():
                on_epoch(earlier)  # type: ignore[misc]
    spare = Spare()
    began = time.perf_counter() - at.seconds
    while True:
        try:
            while at.epoch <= n_epochs and not at.is_over(schedule):
                epoch_draws, n_done = draws.bit_generator.state, len(at.steps)
                epoch_began, n_learned = time.perf_counter(), 0
                drawn = batches(train, schedule.batch_size, mask, draws, pairs)
                for number, group in enumerate(in_groups(drawn, schedule.batches_per_step(len(train)))):
                    if number < n_done:
                        continue  # learned from before the fit was killed
                    due = checkpoints is not None and bool(workers.told([checkpoints.due])[0])
                    streams = random_state(model, epoch_draws) if due else None
                    optimiser.zero_grad()
                    step = _gradients(model, [batch.to(device) for batch in group], weights, spare)
                    _check_finite(step, len(at.told) + 1, checkpoints.file(key) if checkpoints else None)
                    if checkpoints and streams:  # before the step: these parameters are known to give a finite loss
                        at.seconds = time.perf_counter() - began
                        checkpoints.save(key, {"key": key, "random": streams, **saved_state(at, model, optimiser)})
                    optimiser.step()
                    at.steps.append(step)
                    n_learned += sum(len(batch.user) for batch in group)
                speed = n_learned / (time.perf_counter() - epoch_began)
                validated: tuple[float, float] | None = None
                if isinstance(deciding, HeldOut) and (at.epoch % schedule.valid_every == 0 or at.epoch == n_epochs):
                    system, ndcg = choose_popularity_weight(
                        recommender_of(model, train, seen), train, deciding, schedule.popularity_weights, workers
                    )
                    validated = (ndcg, system.popularity_weight)
                    if at.best is None or ndcg > at.best[0]:
                        at.best = (ndcg, at.epoch, system)
                asked = on_epoch or workers.size > 1  # of several, all compute what one of them tells
                mass = _mass(known_mass, group[-1].to(device)) if known_mass and asked else 0.0
                showed = at.end_epoch(time.perf_counter() - began, speed, mass, validated)
                if on_epoch:
                    on_epoch(showed)
        except DivergedError:
            if not at.first:
                raise
            best = at.first  # what was learned the first time is as good as it was
            break
        optimiser.zero_grad()
        spare.clear()  # what steps needed is memory that `finish` may take
        if isinstance(deciding, Chosen):
            best = recommender_of(model, train, seen).with_popularity_weight(deciding.popularity_weight)
        else:
            assert at.best is not None  # the last epoch is always validated
            best = at.best[2]
        best, in_the_way = finish(best, deciding, weights) if finish else Checked(best, in_the_way=False)
        if at.first or not (apart and in_the_way):
            break
        at.begin_again(best)
        weights, draws, optimiser = apart, rng.stream(seed, "batches"), _begun_again(model, initial, schedule)
    if at.first and isinstance(deciding, HeldOut):
        best, _ = choose([at.first, best] if counts_less(best) else [at.first], train, deciding)
    if checkpoints:
        checkpoints.remove(key)
    return best


def _begun_again(model: Model, initial: Sequence[Tensor], schedule: Schedule) -> Adam:
    """Put the parameters back to their initial values; returns an optimiser that has not moved them yet."""
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), initial, strict=True):
            parameter.copy_(value)
    return Adam(model.parameters(), schedule.learning_rate)


def _contents(model: Model, train: Dataset, valid: HeldOut | Chosen) -> list[Any]:
    """Digests of initial values, text and interactions, and what decides."""
    tensors = [*model.parameters(), *(model.buffers() if isinstance(model, nn.Module) else ())]
    arrays = (*(tensor.detach().cpu().numpy() for tensor in tensors), train.user, train.item)
    return [*map(digest_array, arrays), *identity_of(valid)]


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
    adj = adjacency(train, settings)
    workers = current_workers()
    shared = ShardedAdj(adj, workers) if workers.size > 1 else adj
    return GraphTower(shared, settings.dim, settings.n_layers, include_ego=settings.include_ego, generator=generator)


def _check_finite(step: Mapping[str, float], epoch: int, checkpoint: Path | None) -> None:
    for name in step:
        if not math.isfinite(step[name]):
            kept = checkpoint is not None and checkpoint.exists()
            what = "length of the gradient" if name == "grad_norm" else f"term {name!r}"
            raise DivergedError(
                f"Training diverged in epoch {epoch}: the {what} is {step[name]}. Lower the "
                "learning rate, or raise the temperature."
                + (f" The last good checkpoint is {checkpoint}." if kept else "")
            )


def _gradients(model: Model, group: Sequence[Batch], weights: Mapping[str, float], spare: Spare) -> dict[str, float]:
    """Gradients of the mean loss over batches that share their tables; returns what a step showed."""
    shard = model.shard if isinstance(model, ShardedSymcere) else None
    tables = [Rows(table, shard, spare, len(group)) for table in model.tables()]
    shown: list[Tensor] = []
    for batch in group:
        terms = model.terms(batch.user, batch.item, batch.negative, batch.known, tables)
        values = torch.stack(list(terms.values()))
        if not shown:  # a batch of the step has the terms of the others; one copy to the device
            shares = values.new_tensor([weights[name] / len(group) for name in terms])
        torch.autograd.backward(values @ shares)
        shown.append(values.detach())
    send_back(tables)
    parameters = [parameter for parameter in model.parameters() if parameter.grad is not None]
    showed = torch.stack(shown).mean(0)
    if isinstance(model, ShardedSymcere):
        norms = _shared(model, parameters, showed)
    else:
        norms = torch.stack([torch.linalg.vector_norm(parameter.grad) for parameter in parameters])
    told = torch.cat([showed, norms]).tolist()  # one wait for the device
    step = dict(zip(terms, told, strict=False))
    step["loss"] = math.fsum(weights[name] * step[name] for name in terms)
    step["grad_norm"] = math.hypot(*told[len(terms) :])
    step["known_share"] = math.fsum(batch.known_share for batch in group) / len(group)
    return step


def _shared(model: ShardedSymcere, parameters: Sequence[nn.Parameter], showed: Tensor) -> Tensor:
    """Sum over workers what each has a part of; returns the lengths of the whole gradients."""
    workers = model.shard.workers
    whole = {id(parameter) for parameter in model.replicated}
    squares = []
    for parameter in parameters:
        assert parameter.grad is not None  # the caller saw to it
        square = torch.linalg.vector_norm(workers.sum(parameter.grad) if id(parameter) in whole else parameter.grad)
        squares.append(square**2 / (workers.size if id(parameter) in whole else 1))
    workers.sum(showed)
    return workers.sum(torch.stack(squares)).sqrt()


def _mass(known_mass: KnownMass, batch: Batch) -> float:
    return known_mass(batch.user, batch.item, batch.known)
