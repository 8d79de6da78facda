"""The anchoring world: small, whole in memory, with the choice probabilities that made it."""

import gzip
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from symcere import rng
from symcere.data.reviews import Reviews
from symcere.data.synthetic.vocabulary import EPOCH, FACTS, FILLERS, SENTIMENTS
from symcere.data.typed import SCHEMA
from symcere.errors import ConfigError
from symcere.ids import IdMap
from symcere.manifest import write_file


@dataclass(frozen=True)
class World:
    """Reviews and the truth behind them.

    Args:
        table: Reviews, in the columns of Reviews.table.
        user_ids: Id of each row of `likes`.
        item_ids: Id of each row of `has`.
        likes: Which facts each user likes.
        has: Which facts each item has.
        log_appeal: Log of each item's popularity beyond taste.
        taste: Weight of a shared fact in the choice.
    """

    table: pl.DataFrame
    user_ids: tuple[str, ...]
    item_ids: tuple[str, ...]
    likes: Bool[ndarray, "users facts"]
    has: Bool[ndarray, "items facts"]
    log_appeal: Float[ndarray, " items"]
    taste: float

    @property
    def reviews(self) -> Reviews:
        """The reviews as if they had been read from a file."""
        return Reviews(self.table, "synthetic")

    @property
    def log_choice(self) -> Float[ndarray, "users items"]:
        """Unnormalised log-probability that a user chooses an item: the best ranking there can be."""
        return np.asarray(self.taste * (self.likes.astype(float) @ self.has.T) + self.log_appeal)

    def truth(self, users: IdMap, items: IdMap) -> "Truth":
        """The best ranking there can be, for the users and items of a split."""
        row = [self.user_ids.index(id_) for id_ in users]
        column = [self.item_ids.index(id_) for id_ in items]
        return Truth(self.log_choice[np.ix_(row, column)].astype(np.float32))


@dataclass(frozen=True)
class Truth:
    """Ranks by the choice probabilities that made the world; no system can expect to do better."""

    log_choice: Float[ndarray, "n_users n_items"]

    def score(self, user: Int[ndarray, " some_users"]) -> Float[ndarray, "some_users n_items"]:
        """Log-probability of every item for each of `user`."""
        return np.asarray(self.log_choice[user])


def anchoring_world(
    n_users: int = 900, n_items: int = 300, reviews_per_user: int = 7, *, taste: float = 2.2, seed: int = 0
) -> World:
    """Make a world in which facts decide and sentiment does not.

    Args:
        n_users: At least 2.
        n_items: At least twice `reviews_per_user`.
        reviews_per_user: Least number of reviews of a user; the mean is about 1.5 higher.
        taste: Weight of a shared fact in the choice; 0 leaves popularity alone.
        seed: Of everything.

    Returns:
        The world.

    Raises:
        ConfigError: If a size is too small.

    Example:
        >>> world = anchoring_world(20, 30, 5)
        >>> world.table.columns
        ['user_id', 'item_id', 'rating', 'timestamp', 'helpful', 'title', 'text']
    """
    if n_users < 2 or reviews_per_user < 1 or n_items < 2 * reviews_per_user:
        raise ConfigError(
            f"A world needs n_users >= 2 and n_items >= 2 * reviews_per_user; found {n_users}, {n_items}, "
            f"{reviews_per_user}."
        )
    draws = rng.stream(seed, "world")
    likes, has = (_choose_facts(n, 4, draws) for n in (n_users, n_items))
    log_appeal = draws.normal(0, 0.7, n_items)
    world = World(
        pl.DataFrame(),
        tuple(f"user{u:05d}" for u in range(n_users)),
        tuple(f"item{i:05d}" for i in range(n_items)),
        likes, has, log_appeal, taste,
    )  # fmt: skip
    n_reviews = reviews_per_user + np.minimum(draws.poisson(1.5, n_users), reviews_per_user)
    # the n largest of log-probability plus Gumbel noise are a draw of n without replacement
    order = np.argsort(-(world.log_choice + draws.gumbel(size=(n_users, n_items))), axis=1)
    user = np.repeat(np.arange(n_users), n_reviews)
    item = np.concatenate([order[u, :n] for u, n in enumerate(n_reviews)])
    rating = np.clip(np.round(draws.normal(4, 1.1, len(user))), 1, 5).astype(int).tolist()
    table = pl.DataFrame(
        {
            "user_id": [world.user_ids[u] for u in user],
            "item_id": [world.item_ids[i] for i in item],
            "rating": [float(r) for r in rating],
            "timestamp": EPOCH + draws.integers(0, 100_000_000, len(user)),
            "helpful": None,
            "title": [_feeling(r, draws) for r in rating],
            "text": [_review(likes[u], has[i], r, draws) for u, i, r in zip(user, item, rating, strict=True)],
        },
        schema=SCHEMA,
    ).sort("timestamp")
    return World(table, world.user_ids, world.item_ids, likes, has, log_appeal, taste)


def write_amazon(world: World, path: str | Path) -> None:
    """Write the reviews of a world as a gzipped file in the Amazon 2014 format.

    Args:
        world: The world.
        path: Where; written whole or not at all.

    Raises:
        OutputError: If it cannot be written.
    """
    names = {"user_id": "reviewerID", "item_id": "asin", "rating": "overall", "timestamp": "unixReviewTime",
             "title": "summary", "text": "reviewText"}  # fmt: skip
    rows = (
        world.table.rename(names)
        .with_columns(helpful=pl.lit([0, 0]))
        .select(*names.values(), "helpful")
        .iter_rows(named=True)
    )
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    write_file(Path(path), gzip.compress(lines.encode(), mtime=0))


def _choose_facts(n: int, each: int, draws: np.random.Generator) -> Bool[ndarray, "n facts"]:
    rank = np.argsort(draws.random((n, len(FACTS))), axis=1)
    chosen = np.zeros((n, len(FACTS)), dtype=bool)
    np.put_along_axis(chosen, rank[:, :each], True, axis=1)
    return chosen


def _feeling(rating: int, draws: np.random.Generator) -> str:
    return str(draws.choice(SENTIMENTS[0 if rating <= 2 else 1 if rating == 3 else 2]))


def _review(likes: ndarray, has: ndarray, rating: int, draws: np.random.Generator) -> str:
    """Two facts of the item, liked ones first, between fillers and words of feeling."""
    facts = draws.permutation(np.flatnonzero(has))
    facts = facts[np.argsort(~likes[facts], kind="stable")][:2]
    words = [FACTS[fact] for fact in facts] + [_feeling(rating, draws) for _ in range(2)]
    words += [str(word) for word in draws.choice(FILLERS, size=draws.integers(6, 14))]
    return " ".join(draws.permutation(words))
