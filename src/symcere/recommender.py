"""What `fit` returns and what is served: vectors, ids and a score. NumPy and SciPy only, no torch."""

import dataclasses
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from safetensors import SafetensorError
from scipy.sparse import csr_array

from symcere.errors import BundleError, ConfigError, DataError
from symcere.ids import IdMap
from symcere.index.search import Index
from symcere.manifest import new_folder, read_manifest
from symcere.mapped import map_tensors, write_tensors
from symcere.ranking import Hidden, hidden_of, rank, top_k
from symcere.towers import Towers

FORMAT = "symcere-recommender-1"
_AT_ONCE = 1_000_000  # scores held at once where their spread is taken: 8 MB


@dataclass(frozen=True, eq=False)
class Scored(ABC):
    """A system that scores every item: score = affinity / temperature + popularity_weight * log(1 + degree).

    The second term is the popularity dial. In-batch negatives arrive in proportion to popularity, so a
    trained cosine estimates preference with popularity divided out; the dial puts it back on purpose.

    Args:
        users: Ids of the users.
        items: Ids of the items.
        seen: Binary matrix (n_users x n_items) of interactions not to recommend again.
        popularity: Train interactions of each item.
        temperature: Unit of the affinity.
        popularity_weight: The dial; 0 is the debiased ranking.
    """

    users: IdMap
    items: IdMap
    seen: csr_array
    popularity: Float[ndarray, " n_items"]
    temperature: float
    popularity_weight: float

    @abstractmethod
    def affinity(self, user: Int[ndarray, " some_users"]) -> Float[ndarray, "some_users n_items"]:
        """What the system itself says of every item for each of `user`, without the dial."""

    @cached_property
    def log_popularity(self) -> Float[ndarray, " n_items"]:
        """log(1 + train degree) of each item."""
        return np.asarray(np.log1p(self.popularity), dtype=np.float32)

    def score(self, user: Int[ndarray, " some_users"]) -> Float[ndarray, "some_users n_items"]:
        """Score of every item for each of `user` (indices); higher is better."""
        return next(self.scores_at(user, [self.popularity_weight]))

    def scores_at(
        self, user: Int[ndarray, " some_users"], popularity_weights: Iterable[float]
    ) -> Iterator[Float[ndarray, "some_users n_items"]]:
        """The same score with the dial at each of some values; what the system itself says is computed once."""
        affinity = self.affinity(user) / np.float32(self.temperature)
        for weight in popularity_weights:
            yield np.asarray(affinity + np.float32(weight) * self.log_popularity)

    def with_popularity_weight(self, popularity_weight: float) -> Self:
        """Return the same system with the dial set to `popularity_weight`, a finite number."""
        if not np.isfinite(popularity_weight):
            raise ConfigError(f"The popularity weight must be a finite number; found {popularity_weight}.")
        return dataclasses.replace(self, popularity_weight=popularity_weight)

    def recommend(self, user_id: str, k: int = 10) -> list[tuple[str, float]]:
        """Return the k best items that the user has not seen.

        Args:
            user_id: An id as it stands in the raw file.
            k: How many.

        Returns:
            (item id, score) pairs, best first; fewer than k where the user has seen nearly everything.

        Raises:
            UnknownIdError: If there is no such user.
            ConfigError: If k is below 1.
        """
        _check_k(k)
        user = np.array([self.users.index(user_id)])
        found = zip(*(side[0].tolist() for side in self.best(user, k)), strict=True)
        return [(self.items.id(item), score) for item, score in found if item >= 0]

    def best(self, user: Int[ndarray, " users"], k: int) -> tuple[Int[ndarray, "users k"], Float[ndarray, "users k"]]:
        """The k best items that each of `user` (indices) has not seen, -1 where fewer are left, and their scores."""
        best = rank(self, user, k, self.seen)
        score = np.take_along_axis(self.score(user), best, axis=1)
        return best, np.where(best >= 0, score, -np.inf)


@dataclass(frozen=True, eq=False)
class Recommender(Scored):
    """Users and items as vectors; the affinity is their inner product (a cosine where rows are unit).

    Args:
        user_emb: float32 (n_users x dim). A zero row is a user of whom nothing is known.
        item_emb: float32 (n_items x dim).
        towers: What the vectors are made of, for those who ask why; None where they are all there is.

    Raises:
        DataError: If shapes do not fit the ids, or a value is not finite.
    """

    user_emb: Float[ndarray, "n_users dim"]
    item_emb: Float[ndarray, "n_items dim"]
    towers: Towers | None = None

    def __post_init__(self) -> None:
        """Check shapes, type and finiteness."""
        for ids, emb in ((self.users, self.user_emb), (self.items, self.item_emb)):
            if emb.ndim != 2 or len(emb) != len(ids) or emb.dtype != np.float32:
                raise DataError(
                    f"{ids.kind} embeddings must be float32 with {len(ids)} rows; found {emb.dtype} {emb.shape}."
                )
            if not np.isfinite(emb).all():
                raise DataError(f"{ids.kind} embeddings must be finite. Lower the learning rate and fit again.")

    def affinity(self, user: Int[ndarray, " some_users"]) -> Float[ndarray, "some_users n_items"]:
        """Inner product of each of `user` with every item."""
        return np.asarray(self.user_emb[user] @ self.item_emb.T)

    def search(self, user: Int[ndarray, " users"], k: int, hidden: Hidden) -> Int[ndarray, "users k"]:
        """The k best items of each of `user` (indices), best first; -1 where fewer are left."""
        return self.index.best(self.tastes(user), self.popularity_weight, k, hidden)[0]

    def best(self, user: Int[ndarray, " users"], k: int) -> tuple[Int[ndarray, "users _"], Float[ndarray, "users _"]]:
        """The same, by one search; at most as many as there are items."""
        k = min(k, len(self.items))
        return self.index.best(self.tastes(user), self.popularity_weight, k, hidden_of(self.seen, user))

    def tastes(self, user: Int[ndarray, " users"]) -> Float[ndarray, "users dim"]:
        """Vectors of users, in the unit of scores."""
        return np.asarray(self.user_emb[user] / np.float32(self.temperature))

    @cached_property
    def index(self) -> Index:
        """Finds the best items of a taste."""
        return Index(self.item_emb, self.log_popularity)

    def similar_items(self, item_id: str, k: int = 10) -> list[tuple[str, float]]:
        """Return the k items nearest by cosine.

        Args:
            item_id: An id as it stands in the raw file.
            k: How many.

        Returns:
            (item id, cosine) pairs, nearest first, without the item itself.

        Raises:
            UnknownIdError: If there is no such item.
            ConfigError: If k is below 1.
        """
        _check_k(k)
        own = self.items.index(item_id)
        cosine = self.item_emb @ self.item_emb[own] / (self._length * self._length[own])
        cosine[own] = -np.inf
        k = min(k, len(self.items) - 1)
        best = top_k(cosine[None], k)[0] if k else ()
        return [(self.items.id(int(item)), float(cosine[item])) for item in best]

    @cached_property
    def _length(self) -> Float[ndarray, " n_items"]:
        return np.asarray(np.maximum(np.linalg.norm(self.item_emb, axis=1), np.float32(1e-12)))

    def save(self, folder: str | Path, *, half: bool = False) -> None:
        """Write the recommender as safetensors and JSON, whole or not at all.

        Args:
            folder: Where; a recommender that stands there is replaced.
            half: Whether vectors are written as float16: half the file, and scores that differ in the third digit.

        Raises:
            OutputError: If it cannot be written, or other files stand there.
        """
        tensors = {
            "user_emb": np.ascontiguousarray(self.user_emb, dtype=np.float16 if half else np.float32),
            "item_emb": np.ascontiguousarray(self.item_emb, dtype=np.float16 if half else np.float32),
            "popularity": self.popularity,
            "seen_indptr": self.seen.indptr.astype(np.int64),
            "seen_indices": self.seen.indices.astype(np.int32),
        }
        score = {"temperature": self.temperature, "popularity_weight": self.popularity_weight}
        fields = {"format": FORMAT, "score": score, "towers": self.towers and self.towers.about}
        with new_folder(Path(folder), None, fields) as temporary:
            write_tensors(temporary / "model.safetensors", tensors)
            if self.towers:
                write_tensors(temporary / "towers.safetensors", self.towers.tensors)
            ids = json.dumps({"users": self.users.ids, "items": self.items.ids})
            (temporary / "ids.json").write_text(ids, encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read what `save` wrote; arrays are mapped, so that several processes share them.

        Args:
            folder: A folder made by `save`.

        Returns:
            An equal recommender.

        Raises:
            BundleError: If the folder is missing, damaged or of another format.
        """
        folder = Path(folder)
        manifest = read_manifest(folder)
        if manifest is None or manifest.get("format") != FORMAT:
            raise BundleError(
                f"{folder} is no saved recommender (it must hold a manifest.json of format {FORMAT} and files "
                "that match its hashes). Train again, or name the folder that `symcere run` printed."
            )
        try:
            tensors = map_tensors(folder / "model.safetensors")
            ids = json.loads((folder / "ids.json").read_text(encoding="utf-8"))
            users, items = IdMap(tuple(ids["users"]), "user"), IdMap(tuple(ids["items"]), "item")
            indices = tensors["seen_indices"]
            values = np.ones(len(indices), dtype=np.float32)
            seen = csr_array((values, indices, tensors["seen_indptr"]), shape=(len(users), len(items)))
            about = manifest.get("towers")
            return cls(
                users=users,
                items=items,
                seen=seen,
                popularity=tensors["popularity"],
                temperature=manifest["score"]["temperature"],
                popularity_weight=manifest["score"]["popularity_weight"],
                user_emb=tensors["user_emb"].astype(np.float32, copy=False),
                item_emb=tensors["item_emb"].astype(np.float32, copy=False),
                towers=Towers.of(map_tensors(folder / "towers.safetensors"), about) if about else None,
            )
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise BundleError(f"{folder} is damaged ({error}). Train again.") from error


System = TypeVar("System", bound=Scored)


def with_unit_spread(system: System) -> System:
    """Return the system with its temperature set so that affinities have standard deviation 1.

    Scores of different systems live on different scales; in this unit one grid of dials serves them all.

    Args:
        system: Any system; the spread is taken over its first 2,000 users.

    Returns:
        The same system; unchanged where all affinities are equal.
    """
    users = np.arange(min(len(system.users), 2_000))
    size = max(1, _AT_ONCE // len(system.items))
    n, shift, total, squares = len(users) * len(system.items), 0.0, 0.0, 0.0
    for start in range(0, len(users), size):
        affinity = system.affinity(users[start : start + size])
        if start == 0:
            shift = float(affinity[0, 0])  # of equal affinities nothing is left, whatever rounding does
        apart = np.subtract(affinity, shift, dtype=np.float64).ravel()
        total += float(apart.sum())
        squares += float(apart @ apart)
    return dataclasses.replace(system, temperature=math.sqrt(max(squares / n - (total / n) ** 2, 0.0)) or 1.0)


def unit_rows(emb: Float[ndarray, "rows dim"]) -> Float[ndarray, "rows dim"]:
    """The rows at length 1; zero rows stay."""
    return np.asarray(emb / np.maximum(np.linalg.norm(emb, axis=1, keepdims=True), np.float32(1e-12)))


def _check_k(k: int) -> None:
    if k < 1:
        raise ConfigError(f"k must be at least 1; found {k}.")
