"""`fit` on Ray Train: one worker a share of the nodes, gloo between processors and nccl between GPUs.

Each worker holds its rows of the layer-0 table, of Adam's moments and of the text profiles; all of them draw the same
batches. State goes to storage every so often, by every worker; when one of them dies, all begin again from there.
"""

import copy
import hashlib
import io
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from symcere import errors
from symcere.data.dataset import REVIEW, Dataset, HeldOut
from symcere.distributed.cluster import n_cpus, said, telling
from symcere.distributed.storage import Storage
from symcere.errors import ClusterError, DataError, SymcereError
from symcere.graph import norm_adj, shard_of
from symcere.manifest import code_digest, digest, digest_array
from symcere.recommender import Recommender
from symcere.text.features import TextFeatures
from symcere.towers import Towers
from symcere.training.checkpoint import Keeper, keeping
from symcere.training.config import SymcereSettings
from symcere.training.device import on_device
from symcere.training.loop import fit as fit_here
from symcere.training.progress import Chosen, Epoch, OnEpoch, identity_of
from symcere.workers import Workers, working_as

_MODEL = "model"
_TOLD = "told.json"
_ERROR = "error.json"


@dataclass(frozen=True)
class _Task:
    """What every worker is given.

    Args:
        train: The train part, without words.
        valid: The valid part.
        text: The profiles.
        settings: How to fit.
        seed: Of everything.
        out: Where the recommender goes.
        every: Seconds between two checkpoints.
        device: "cpu" or "cuda".
        threads: Of each worker.
    """

    train: Dataset
    valid: HeldOut | Chosen
    text: TextFeatures
    settings: SymcereSettings
    seed: int
    out: str
    every: float
    device: str
    threads: int


def fit(
    train: Dataset,
    text: TextFeatures,
    *,
    valid: HeldOut | Chosen,
    storage: str,
    settings: SymcereSettings | None = None,
    seed: int = 0,
    n_workers: int | None = None,
    cpus_a_worker: int = 1,
    gpu: bool = False,
    every: float = 60.0,
    max_failures: int = 8,
    on_epoch: OnEpoch | None = None,
) -> Recommender:
    """Fit SymCERE by several workers: what `symcere.fit` gives, to rounding.

    Every worker computes its part of the same global batches; so their number changes how long it takes and what a
    worker holds, not what is learned.

    Args:
        train: The train part; its words are not needed.
        text: Profiles made from it.
        valid: Decides when to stop and where the dial stands, or what it chose in an earlier fit.
        storage: Folder of checkpoints and of the result: a path that all nodes see, or an address. A fit of the same
            data, settings and seed that stands there is up to date; one that was killed goes on.
        settings: SymcereSettings() if left out.
        seed: Of initial values, order of batches and negatives.
        n_workers: How many; one a processor (or GPU) if left out.
        cpus_a_worker: Processors, and so threads, of each.
        gpu: Whether each has a GPU of its own.
        every: Seconds between two checkpoints.
        max_failures: How often workers may die before the fit is given up.
        on_epoch: Called after each epoch, a moment later.

    Returns:
        The recommender of the best epoch.

    Raises:
        ConfigError: If the loss diverges, or several workers cannot fit under these settings.
        ClusterError: If workers die too often, or there are fewer processors than workers.
    """
    import ray

    settings = settings or SymcereSettings()
    n = n_workers or max(1, int(ray.cluster_resources().get("GPU", 0)) if gpu else n_cpus() // cpus_a_worker)  # type: ignore[no-untyped-call]
    if n * cpus_a_worker > n_cpus():
        raise ClusterError(
            f"{n} workers need {n * cpus_a_worker} processors; the cluster has {n_cpus()}. Ask for fewer workers."
        )
    pairs = (side for part in (train, train.support) for side in (part.user, part.item))
    contents = [*(digest_array(each) for each in (*pairs, text.user, text.item)), *identity_of(valid)]
    ids = digest(train.users.ids, train.items.ids)
    key = digest(code_digest(), "distributed fit", contents, ids, settings.model_dump(mode="json"), seed, n > 1)
    out = f"{storage.rstrip('/')}/fit-{key[:16]}"
    if found := _result(out, key):
        recommender, epochs = found
        for epoch in epochs if on_epoch else ():
            on_epoch(epoch)  # type: ignore[misc]
        return recommender
    task = _Task(
        without_words(train), valid, text, settings, seed, out, every, "cuda" if gpu else "cpu", cpus_a_worker
    )
    told = 0

    def tell(epoch: Epoch) -> None:
        nonlocal told
        if on_epoch and epoch.epoch == told + 1:  # a fit that goes on from a checkpoint tells all again
            told += 1
            on_epoch(epoch)

    needs = {"CPU": float(cpus_a_worker)} | ({"GPU": 1.0} if gpu else {})
    with telling(tell if on_epoch else None) as send:
        _train(ray.put(task), send, n, needs, out, max_failures)
    if _ERROR in Storage(out).names():
        kind, message = json.loads(Storage(out).read(_ERROR))
        Storage(out).remove(_ERROR)
        raise getattr(errors, kind)(message)
    done = _result(out, None)
    if done is None:
        raise ClusterError(f"The workers left no whole result in {out}. Run the same again.")
    recommender, epochs = done
    Storage(out).finish(key, {"n_workers": n}, {name: _sha(out, name) for name in _files(out)})
    for epoch in epochs[told:] if on_epoch else ():
        on_epoch(epoch)  # type: ignore[misc]
    return recommender


def without_words(train: Dataset) -> Dataset:
    """The same interactions and support, their words left behind."""

    def empty(review: pl.DataFrame) -> pl.DataFrame:
        return review.with_columns(title=pl.lit(""), text=pl.lit("")).select(REVIEW)

    support = replace(train.support, review=empty(train.support.review)) if len(train.support) else train.support
    return replace(train, review=empty(train.review), support=support)


def _train(task: Any, send: Any, n: int, needs: dict[str, float], out: str, max_failures: int) -> None:
    """Let Ray Train run the workers."""
    import ray.train
    from ray.train.torch import TorchTrainer

    at, files = out, None
    if Storage(out).local is None:  # Ray has file systems of its own; ours is the one that knows the address
        import pyarrow.fs

        fs, at = Storage(out).filesystem
        files = pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(fs))
    trainer = TorchTrainer(
        _work,
        train_loop_config={"task": [task], "send": send},
        scaling_config=ray.train.ScalingConfig(num_workers=n, use_gpu="GPU" in needs, resources_per_worker=needs),
        run_config=ray.train.RunConfig(
            name="checkpoints",
            storage_path=at,
            storage_filesystem=files,
            failure_config=ray.train.FailureConfig(max_failures=max_failures),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
        ),
    )
    with said("fit"):
        trainer.fit()


def _work(config: Mapping[str, Any]) -> None:
    """One worker's part."""
    import ray
    import ray.train

    context = ray.train.get_context()
    rank, size = context.get_world_rank(), context.get_world_size()
    task: _Task = ray.get(config["task"][0])
    send, epochs = config["send"], []

    def tell(epoch: Epoch) -> None:
        epochs.append(asdict(epoch))
        if rank == 0 and send is not None:
            send(epoch)

    torch.set_num_threads(task.threads)
    with (
        working_as(rank, size) as workers,
        on_device(f"cuda:{ray.train.torch.get_device().index or 0}" if task.device == "cuda" else "cpu"),
        keeping(_TrainCheckpoints(workers, task.train, task.every)),
    ):
        try:
            model = fit_here(
                task.train, task.text, valid=task.valid, settings=task.settings, seed=task.seed, on_epoch=tell
            )
        except SymcereError as error:  # the same at every worker, and the same if they tried again
            if rank == 0:
                Storage(task.out).write(_ERROR, json.dumps([type(error).__name__, str(error)]).encode())
            workers.told([0.0])
            return
        sent = float(workers.sum(torch.tensor([float(workers.sent)], dtype=torch.float64)))
        if rank == 0:
            storage = Storage(task.out)
            with tempfile.TemporaryDirectory() as temporary:
                model.save(Path(temporary) / _MODEL)
                for file in sorted((Path(temporary) / _MODEL).iterdir()):
                    storage.write(f"{_MODEL}/{file.name}", file.read_bytes())
            storage.write(_TOLD, json.dumps({"epochs": epochs, "n_workers": size, "sent_bytes": int(sent)}).encode())
        workers.told([0.0])  # nobody leaves before the result is there


@dataclass
class _TrainCheckpoints(Keeper):
    """Keeps state by Ray Train: each worker hands over its own file, and a checkpoint counts when all have.

    Args:
        workers: Who they are.
        train: For dealing rows anew, where another number of workers goes on.
        every: Seconds between two of them.
    """

    workers: Workers
    train: Dataset
    every: float

    def file(self, key: str) -> Path:
        """Stands in storage, not in a file of this machine."""
        return Path(f"/nowhere/{key[:16]}")

    def save(self, key: str, state: dict[str, Any]) -> None:
        """Hand over the state of this worker."""
        import ray.train

        del key
        with tempfile.TemporaryDirectory() as temporary:
            buffer = io.BytesIO()
            torch.save(state, buffer)
            (Path(temporary) / f"rank-{self.workers.rank:05d}-of-{self.workers.size:05d}.pt").write_bytes(
                buffer.getvalue()
            )
            ray.train.report({"epoch": state["epoch"]}, checkpoint=ray.train.Checkpoint.from_directory(temporary))
        self.begin()

    def load(self, key: str) -> dict[str, Any] | None:
        """The last state that all workers handed over, the rows dealt anew where there were more or fewer."""
        import ray.train

        del key
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            return None
        with checkpoint.as_directory() as folder:
            files = sorted(Path(folder).glob("rank-*.pt"))
            if len(files) == self.workers.size:
                return _loaded(files[self.workers.rank])
            return dealt_anew([_loaded(file) for file in files], self.train, self.workers)

    def remove(self, key: str) -> None:
        """Ray Train keeps the last ones, for whoever asks for the same again."""


def _loaded(file: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    return state


def dealt_anew(states: Sequence[dict[str, Any]], train: Dataset, workers: Workers) -> dict[str, Any]:
    """The state of a worker, from those of another number of workers: rows of the first parameter are dealt anew.

    Args:
        states: Of all workers that there were.
        train: What rows are dealt by.
        workers: Who there are now.

    Returns:
        The state that the caller's worker goes on from.
    """
    adj = norm_adj(train.user, train.item, len(train.users), len(train.items))
    own = shard_of(adj, workers).own
    state = copy.deepcopy(states[0])

    def rows(parts: Sequence[torch.Tensor]) -> torch.Tensor:
        return torch.cat(list(parts))[own].clone()

    state["parameters"][0] = rows([each["parameters"][0] for each in states])
    for name in ("mean", "square"):
        state["optimiser"][name][0] = rows([each["optimiser"][name][0] for each in states])
    return state


def _files(out: str) -> list[str]:
    return [_TOLD, *(f"{_MODEL}/{name}" for name in Storage(f"{out}/{_MODEL}").names())]


def _sha(out: str, name: str) -> str:
    return hashlib.sha256(Storage(out).read(name)).hexdigest()


def _result(out: str, key: str | None) -> tuple[Recommender, list[Epoch]] | None:
    """What the workers left; under a key, only where the folder is whole."""
    storage = Storage(out)
    if key is not None and storage.manifest(key) is None:
        return None
    try:
        epochs = [Epoch(**told) for told in json.loads(storage.read(_TOLD))["epochs"]]
    except DataError:
        return None
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / _MODEL
        folder.mkdir()
        for name in Storage(f"{out}/{_MODEL}").names():
            (folder / name).write_bytes(storage.read(f"{_MODEL}/{name}"))
        model = Recommender.load(folder)
        return _in_memory(model), epochs


def _in_memory(model: Recommender) -> Recommender:
    """The recommender without the files that its arrays are mapped from."""
    towers = model.towers
    if towers:
        towers = Towers.of({name: np.array(array) for name, array in towers.tensors.items()}, towers.about)
    return replace(
        model,
        seen=model.seen.copy(),
        popularity=np.array(model.popularity),
        user_emb=np.array(model.user_emb),
        item_emb=np.array(model.item_emb),
        towers=towers,
    )
