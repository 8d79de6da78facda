"""Rankings for all users on Ray Data: users in blocks, actors that hold the recommender, one file a block."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from numpy import ndarray
from scipy.sparse import csr_array

from symcere.data.dataset import Split, known_matrix
from symcere.distributed.cluster import fetch, n_cpus, standing
from symcere.distributed.intake import parquet
from symcere.distributed.storage import Storage
from symcere.errors import ConfigError
from symcere.evaluation.compare import Values, measure_ranked, refuse_who_knows_test
from symcere.evaluation.measures import Measure
from symcere.manifest import code_digest, digest, digest_array
from symcere.ranking import rank
from symcere.recommender import Recommender, Scored

_USERS = 8_192  # of a block
_PART = "recommendations-{:05d}.parquet"


class _Rank:
    """An actor that ranks: the recommender stays in its memory."""

    def __init__(self, k: int, out: str | None) -> None:
        self.k, self.out = k, out

    @cached_property
    def _held(self) -> tuple[Scored, csr_array]:
        """The system, and what is not ranked."""
        held: tuple[Scored, csr_array] = fetch(self._refs[0])
        return held

    def __call__(self, batch: dict[str, ndarray], refs: Sequence[Any] = ()) -> dict[str, ndarray]:
        """The best items of a block of users; written as a file, or handed on."""
        self._refs = refs
        system, exclude = self._held
        user = batch["data"].astype(np.int64)
        if self.out is None:
            return {"user": user, "best": rank(system, user, self.k, exclude)}
        name = _PART.format(int(user[0]) // _USERS)
        sha = Storage(self.out).write(name, parquet(self._table(system, user)))
        return {"name": np.array([name]), "sha256": np.array([sha])}

    def _table(self, system: Scored, user: ndarray) -> pl.DataFrame:
        """One row a recommendation, best first."""
        best, score = system.best(user, self.k)
        row, place = np.nonzero(best >= 0)
        users, items = (np.array(ids.ids, dtype=object) for ids in (system.users, system.items))
        return pl.DataFrame(
            {
                "user_id": pl.Series(users[user[row]].tolist(), dtype=pl.String),
                "rank": (place + 1).astype(np.int32),
                "item_id": pl.Series(items[best[row, place]].tolist(), dtype=pl.String),
                "score": score[row, place].astype(np.float32),
            }
        )


def recommend_all(model: Recommender, out: str, k: int = 10, n_actors: int | None = None) -> dict[str, Any]:
    """Write the best items of every user that the user has not seen.

    Args:
        model: The recommender.
        out: Folder to write: Parquet files of user_id, rank, item_id, score, and a manifest.
        k: How many items a user.
        n_actors: How many rank at a time; one a processor if left out.

    Returns:
        The manifest; a folder that stands there under the same model and k is up to date.

    Raises:
        ConfigError: If k is below 1.
        OutputError: If the folder cannot be written.
    """
    if k < 1:
        raise ConfigError(f"k must be at least 1; found {k}.")
    arrays = (model.user_emb, model.item_emb, model.popularity, model.seen.indptr, model.seen.indices)
    contents = [*map(digest_array, arrays), model.users.ids, model.items.ids]
    key = digest(code_digest(), "recommend_all", contents, model.popularity_weight, model.temperature, k)
    storage = Storage(out)
    if made := standing(storage, key):
        return made
    files: dict[str, str] = {}
    for batch in _ranked(model, np.arange(len(model.users)), k, model.seen, n_actors, out):
        files.update(zip(batch["name"].tolist(), batch["sha256"].tolist(), strict=True))
    return storage.finish(key, {"n_users": len(model.users), "k": k}, files)


def measure_test(system: Scored, split: Split, measures: Sequence[Measure], n_actors: int | None = None) -> Values:
    """Measure a system on the test part, users ranked in blocks by many.

    Args:
        system: The system.
        split: The split that it was fitted on.
        measures: What to compute.
        n_actors: How many rank at a time; one a processor if left out.

    Returns:
        What `symcere.evaluation.compare.measure_test` gives, to the last bit.

    Raises:
        ConfigError: If it has learned from test interactions.
    """
    refuse_who_knows_test(system, split)
    user = np.unique(split.test.user)
    k = max(measure.k for measure in measures)
    best = np.full((len(user), k), -1, dtype=np.int64)
    for batch in _ranked(system, user, k, known_matrix(split.train, split.valid), n_actors, None):
        best[np.searchsorted(user, batch["user"])] = np.stack(list(batch["best"]))
    return measure_ranked(best, user, split.train, split.test, measures)


def _ranked(
    system: Scored, user: ndarray, k: int, exclude: csr_array, n_actors: int | None, out: str | None
) -> Iterator[dict[str, ndarray]]:
    """Rank users in blocks by their number, so that a block is the same however many rank."""
    import ray
    import ray.data

    n = n_actors or n_cpus()
    cuts = np.searchsorted(user, np.arange(_USERS, int(user.max(initial=0)) + 1, _USERS))
    blocks = [block for block in np.split(user, cuts) if len(block)]
    ranked = ray.data.from_numpy(blocks).map_batches(
        _Rank,
        fn_constructor_args=(k, out),
        fn_args=([ray.put((system, exclude))],),
        batch_size=None,
        batch_format="numpy",
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=max(1, min(n, len(blocks)))),
        num_cpus=1,
    )
    yield from ranked.iter_batches(batch_size=None, batch_format="numpy")
