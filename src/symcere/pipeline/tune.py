"""The search: the same number of trials for every system, on valid alone, all kept, resumable after a kill."""

import contextlib
import fcntl
import json
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from symcere import rng
from symcere.data.dataset import Split
from symcere.errors import ConfigError, DataError, DivergedError, OutputError
from symcere.manifest import VERSION, code_digest, digest, digest_array, write_file, writing
from symcere.pipeline.systems import System
from symcere.pipeline.workspace import Watch
from symcere.text.features import TextFeatures
from symcere.training.checkpoint import checkpointing
from symcere.training.config import Settings
from symcere.training.device import current_device
from symcere.training.progress import Epoch
from symcere.training.space import Real, Space, Whole
from symcere.training.tuning import valid_ndcg

if TYPE_CHECKING:
    import optuna

STARTUP = 4
"""Trials that are never cut short: there is nothing yet to compare them with."""

ABOUT = ("dataset", "split", "seeds", "trials", "encoder")
"""What a file of tuned settings says of its search; beside it stand the users and items of the data."""


@dataclass(frozen=True, eq=False)
class Seeded:
    """What a trial is fitted on under one seed."""

    seed: int
    split: Split
    text: TextFeatures


def tune(
    dataset: str,
    data: Sequence[Seeded],
    systems: Sequence[System],
    n_trials: int,
    storage: Path,
    watch: Watch,
    *,
    earlier: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Search the settings of each system by mean valid NDCG@10 over the seeds.

    A trial fits one setting under one seed after the other; one that is below the median of the earlier trials after
    some seed is cut short there, and counts as a trial. The published settings come first, then those that the system
    has untuned and those that won an earlier search; then a tree-structured Parzen estimator proposes. Each trial has
    its own random stream, so a search that was killed goes on as if it had not been: what was finished is kept, what
    was under way is done again.
    Several processes may share the storage; a system that another process is searching is waited for, and is up to
    date then.

    Args:
        dataset: Its name, for the screen.
        data: Split and text features of each seed; nothing is taken from test.
        systems: Those with a space are searched.
        n_trials: Trials of each.
        storage: SQLite file that keeps them.
        watch: Who is told.
        earlier: System -> what an earlier search found, by other code perhaps: its settings are tried again.

    Returns:
        System -> "settings", "valid_ndcg@10" and "trials", as JSON values; systems that cannot be fitted are left
        out.

    Raises:
        OutputError: If the file cannot be written, or is no file of trials.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with writing(storage):
        storage.parent.mkdir(parents=True, exist_ok=True)
    data_key = digest([_digest(each) for each in data])
    found: dict[str, Any] = {}
    for system in systems:
        if not system.space:
            continue
        fixed = system.candidates[0].model_dump(mode="json", exclude=set(system.space))  # what no trial moves
        name = f"{system.name}-{digest(data_key, system.name, repr(system.space), fixed)[:16]}"
        stage = f"{system.name} on {dataset}"
        watch.begin(stage)
        began = time.perf_counter()
        with _alone(storage.parent / "locks" / name), _storing(storage):
            with _alone(storage.parent / "locks" / "trials"):  # two processes must not make the tables at once
                study = _study(storage, name, system)
            n_before = len(_finished(study))
            try:
                with checkpointing(storage.parent / "checkpoints"):
                    _search(study, system, _known(system, (earlier or {}).get(system.name)), data, n_trials, watch)
            except ConfigError as error:
                watch.end(stage, f"left out: {error}", time.perf_counter() - began, up_to_date=False)
                continue
            found[system.name] = _result(study, system, n_trials)
        best = f"valid NDCG@10 {found[system.name]['valid_ndcg@10']:.4f} after {n_trials} trials"
        watch.end(stage, best, time.perf_counter() - began, up_to_date=n_before >= n_trials)
    return found


def write_tuned(path: Path, found: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Write what a search found, joined with what stands there of other systems on the same data.

    What was searched with another encoder stays too, and says so: of systems that read no text it is as good.

    Args:
        path: A JSON file.
        found: What `tune` returned.
        about: Data set, split, seeds, trials and encoder, users and items.

    Raises:
        OutputError: If it cannot be written.
        DataError: If what stands there is no such file.
    """
    with _alone(path.with_suffix(".lock")):  # another process may be joining its own
        standing = read_tuned(path) if path.exists() else {}
        kept = standing.get("systems", {})
        before = standing.get("about", {}).get("encoder")
        if kept and standing["about"] | {"encoder": about["encoder"]} != dict(about):
            kept = {}
        elif before != about["encoder"]:
            kept = {name: {"encoder": before, **entry} for name, entry in kept.items()}
        whole = {"symcere": VERSION, "about": dict(about), "systems": kept | dict(found)}
        write_file(path, json.dumps(whole, indent=1) + "\n")


def read_tuned(path: Path) -> dict[str, Any]:
    """Read a file of tuned settings.

    Args:
        path: What `write_tuned` wrote.

    Returns:
        The whole of it: "about" and "systems".

    Raises:
        DataError: If it is missing or is none.
    """
    try:
        whole: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if missing := [key for key in ABOUT if key not in whole["about"]]:
            raise KeyError(*missing)
        if not all(isinstance(entry["settings"], dict) for entry in whole["systems"].values()):
            raise TypeError("settings are no object")
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        what = f"found none of {error}" if isinstance(error, KeyError) else error
        raise DataError(
            f"{path} must be a file of tuned settings, as symcere tune writes; {what}. Remove it, or tune again."
        ) from error
    return whole


def tuned_system(system: System, tuned: Mapping[str, Any]) -> System:
    """The system under its tuned settings; as it is where the file does not hold it.

    Args:
        system: Any system.
        tuned: What `read_tuned` returned.

    Returns:
        The system.

    Raises:
        ConfigError: If the settings are not those of this system.
    """
    entry = tuned["systems"].get(system.name)
    if entry is None:
        return system
    return system.under(type(system.candidates[0])(**entry["settings"]))


def _study(storage: Path, name: str, system: System) -> "optuna.Study":
    """The trials of a system on some data, as far as they were made."""
    import optuna

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.create_study(
            study_name=name,
            storage=f"sqlite:///{storage}",
            load_if_exists=True,
            direction="maximize",
            pruner=optuna.pruners.MedianPruner(n_startup_trials=max(STARTUP, len(system.published))),
        )


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Wait until no other process holds the lock; a killed one holds none."""
    with writing(lock):
        lock.parent.mkdir(parents=True, exist_ok=True)
        held = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


@contextlib.contextmanager
def _storing(storage: Path) -> Iterator[None]:
    """Turn an error of the database into one of ours."""
    import optuna
    import sqlalchemy.exc

    try:
        yield
    except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        cause = error.__cause__ if isinstance(error, optuna.exceptions.StorageInternalError) else error
        reason = str(getattr(cause, "orig", None) or cause)
        raise OutputError(
            f"Cannot keep trials in {storage}: {reason}. Free space, fix its permissions, move it away if it is "
            "damaged, or choose another folder (--out)."
        ) from error


def _known(system: System, earlier: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """What is tried before anything is proposed, each as values of the space.

    The own settings of a system are those it has untuned: no search may end below them for want of luck, nor below
    what an earlier one found.
    """
    known = [{name: getattr(each, name) for name in system.space} for each in (*system.published, *system.candidates)]
    if earlier:
        with contextlib.suppress(ConfigError):  # of a version that had other settings
            settings = type(system.candidates[0])(**earlier["settings"])
            values = {name: getattr(settings, name) for name in system.space}
            known += [values] if all(system.space[name].holds(value) for name, value in values.items()) else []
    return known


def _search(
    study: "optuna.Study",
    system: System,
    known: Sequence[Mapping[str, Any]],
    data: Sequence[Seeded],
    n_trials: int,
    watch: Watch,
) -> None:
    """Run what is missing of the trials."""
    import optuna

    for left in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(left.number, state=optuna.trial.TrialState.FAIL)  # a killed run left it
    distributions = _distributions(system.space)
    while (n := len(_finished(study))) < n_trials:
        _enqueue(study, known)
        seed = int(rng.stream(n, f"trials of {system.name}").integers(2**31))
        study.sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, n_startup_trials=STARTUP)
        trial = study.ask(distributions)
        settings = system.candidates[0].model_copy(update=trial.params)

        def on_share(share: float, n: int = n) -> None:
            watch.progress("", (n + share) / n_trials, f"trial {n + 1} of {n_trials}")

        _run_trial(study, trial, system, settings, data, on_share)


def _enqueue(study: "optuna.Study", known: Sequence[Mapping[str, Any]]) -> None:
    """Make the first of these settings that were not tried the next trial, also after a kill."""
    import optuna

    tried = [trial.params for trial in _finished(study)]
    left = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.WAITING,))
    waiting = [trial.system_attrs.get("fixed_params") for trial in left]
    untried = [params for params in known if params not in tried]
    if untried and untried[0] not in waiting:
        study.enqueue_trial(dict(untried[0]))


def _run_trial(
    study: "optuna.Study",
    trial: "optuna.Trial",
    system: System,
    settings: Settings,
    data: Sequence[Seeded],
    on_share: Callable[[float], None],
) -> None:
    """Fit one setting under every seed, or until it is clear that it is below the median."""
    import optuna

    began = time.perf_counter()
    by_seed: list[float] = []
    state = optuna.trial.TrialState.COMPLETE
    for step, each in enumerate(data):

        def on_epoch(epoch: Epoch, step: int = step) -> None:
            on_share((step + epoch.share_of(system.max_epochs)) / len(data))

        try:
            fitted = system.fit(each.split.train, each.split.valid, each.text, settings, each.seed, on_epoch)
            by_seed.append(valid_ndcg(fitted, each.split.train, each.split.valid))
        except DivergedError:
            by_seed.append(0.0)  # it ranks nothing
        trial.report(float(np.mean(by_seed)), step)
        if step < len(data) - 1 and trial.should_prune():
            state = optuna.trial.TrialState.PRUNED
            break
    trial.set_user_attr("settings", settings.model_dump(mode="json"))
    trial.set_user_attr("by_seed", by_seed)
    trial.set_user_attr("seconds", round(time.perf_counter() - began, 3))
    trial.set_user_attr("device", str(current_device()))
    trial.set_user_attr("code", code_digest()[:12])
    study.tell(trial, float(np.mean(by_seed)) if state == optuna.trial.TrialState.COMPLETE else None, state)


def _finished(study: "optuna.Study") -> list[Any]:
    """Trials that were done to the end, or cut short on purpose."""
    import optuna

    return study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED))


def _result(study: "optuna.Study", system: System, n_trials: int) -> dict[str, Any]:
    """What the first trials found, also where a longer search was made before."""
    trials = _finished(study)[:n_trials]
    best = max((trial for trial in trials if trial.state.name == "COMPLETE"), key=lambda trial: trial.value)
    return {
        "settings": best.user_attrs["settings"],
        "valid_ndcg@10": best.value,
        "n_published": len(system.published),
        "trials": [
            {
                "settings": {name: trial.params[name] for name in system.space},
                "state": trial.state.name.lower(),
                "valid_ndcg@10": [round(value, 6) for value in trial.user_attrs["by_seed"]],
                "seconds": trial.user_attrs["seconds"],
            }
            for trial in trials
        ],
    }


def _distributions(space: Space) -> dict[str, Any]:
    """The space in the words of Optuna."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    def one(range_: Any) -> Any:
        if isinstance(range_, Real):
            return FloatDistribution(range_.low, range_.high, log=range_.log)
        if isinstance(range_, Whole):
            return IntDistribution(range_.low, range_.high)
        return CategoricalDistribution(range_.values)

    return {name: one(range_) for name, range_ in space.items()}


def _digest(each: Seeded) -> str:
    """What decides a trial beside the settings: who interacted with what, what is held out, and the text."""
    train, valid = each.split.train, each.split.valid
    sides = (train.user, train.item, valid.user, valid.item)
    pairs = [digest_array(side.astype(np.int64)) for side in sides]
    return digest(each.seed, pairs, each.text.fingerprint)
