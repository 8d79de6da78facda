"""Why this item: the parts of a score, the words and sentences behind its text, the neighbours behind its graph.

With final vectors f = graph + text (each already over the common length), a score is

    f_u . f_i / temperature + popularity_weight log(1 + degree_i)

and its graph part is graph_u . graph_i plus half of both mixed products: the Shapley value of the graph, exactly.
Text is the rest, what neighbours tell by `propagated_weight` included. The three parts sum to the score.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from symcere.analysis.learned import Learned
from symcere.analysis.lexicon import is_function_word
from symcere.data.dataset import Dataset, Side
from symcere.recommender import Recommender
from symcere.text.cache import VectorCache
from symcere.text.corpus import Part
from symcere.text.deletion import Gone
from symcere.text.encoders import Encoder
from symcere.text.features import TextFeatures
from symcere.text.profiles import Weighting
from symcere.text.reader import Reader, Reviews

_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_LEAST_WORDS, _MOST_CHARS = 3, 280  # of a snippet
_MOST_REVIEWS = 200  # of a node: read for its words; the heaviest in its profile


@dataclass(frozen=True)
class Reason:
    """Why an item is recommended to a user. All values are in the unit of the score.

    Args:
        user_id: The user.
        item_id: The item.
        score: What the item is ranked by.
        parts: "graph", "text" and "popularity": they sum to the score.
        average: The same parts of the average item, for this user.
        item_words: Words of the item's reviews; the value is how far the score falls without the word. Function
            words, which the model reads like any other, are not named.
        user_words: Words of the user's own reviews, likewise.
        snippets: Sentences of the item's train reviews; the value is what they have in common with this user beyond
            the average user.
        because: Items the user chose; the value is what each adds through the user's graph vector.
        alike: Users who chose the item; the value is what each adds through the item's graph vector.
    """

    user_id: str
    item_id: str
    score: float
    parts: dict[str, float]
    average: dict[str, float]
    item_words: tuple[tuple[str, float], ...]
    user_words: tuple[tuple[str, float], ...]
    snippets: tuple[tuple[str, float], ...]
    because: tuple[tuple[str, float], ...]
    alike: tuple[tuple[str, float], ...]


class Profile:
    """The reviews behind the profile of one node, and what the profile is without some of their words.

    Args:
        learned: The fit.
        reader: Who reads.
        shares: Weight of each known review in the profiles of this side, a column a block.
        side: Kind of the node.
        node: Its index among the users or items.
    """

    def __init__(self, learned: Learned, reader: Reader, shares: ndarray, side: Side, node: int) -> None:
        known = reader.train.known_reviews
        mine = np.flatnonzero((known.user if side == "user" else known.item) == node)
        mine = mine[shares[mine].any(1)]
        mine = np.sort(mine[np.argsort(-shares[mine].sum(1), kind="stable")[:_MOST_REVIEWS]])
        self.reviews: Reviews = reader.open(mine)
        self.share = shares[mine][:, reader.block_of_column]
        self.features = (learned.text.user if side == "user" else learned.text.item)[node]
        self._vectors = self.reviews.vectors() if len(mine) else np.zeros((0, len(self.features)), dtype=np.float32)

    @cached_property
    def words(self) -> Int[ndarray, " words"]:
        """Words that can matter."""
        return np.unique(self.reviews.occurrences[1]) if len(self.reviews) else np.zeros(0, dtype=np.int64)

    def without_each(self) -> Float[ndarray, "words text_dim"]:
        """The profile without each of `words`, in all of its reviews."""
        profile = np.repeat(self.features[None].astype(np.float64), len(self.words), axis=0)
        if len(self.reviews):
            place, word = self.reviews.occurrences
            cut = self.reviews.without(place, Gone.one_each(word))
            change = self.share[place] * (cut - self._vectors[place])
            np.add.at(profile, np.searchsorted(self.words, word), change)
        return np.asarray(profile, dtype=np.float32)

    def without_sets(self, gone: Bool[ndarray, "sets words"]) -> Float[ndarray, "sets text_dim"]:
        """The profile without each of some sets of `words`, in all of its reviews."""
        if not len(self.reviews):
            return np.repeat(self.features[None], len(gone), axis=0)
        every = np.zeros((len(gone), len(self.reviews.vocabulary)), dtype=bool)
        every[:, self.words] = gone
        change = np.einsum("src,rc->sc", self.reviews.without_sets(every) - self._vectors, self.share)
        return np.asarray(self.features + change, dtype=np.float32)


@dataclass(frozen=True, eq=False)
class Explainer:
    """Says why.

    Args:
        learned: The fit.
        reader: The encoders of its profiles.
    """

    learned: Learned
    reader: Reader

    @classmethod
    def of(
        cls,
        train: Dataset,
        text: TextFeatures,
        model: Recommender,
        *encoders: Encoder,
        parts: Sequence[Part] = ("review",),
        weightings: Sequence[Weighting] = (),
        cache: str | Path | None = None,
    ) -> "Explainer":
        """Make an explainer of what `fit` was given and returned.

        Args:
            train: The train part.
            text: Its features.
            model: What `fit` returned.
            *encoders: As given to `encode_reviews`.
            parts: As given there.
            weightings: As given there.
            cache: Root folder of the vector cache.

        Returns:
            The explainer.

        Raises:
            ConfigError: If they are not of one fit, or the features come from vectors of a file.

        Example:
            >>> import symcere as sc
            >>> split = sc.split_random(sc.k_core(sc.anchoring_world(60, 30, 5).reviews, 2))
            >>> text = sc.encode_reviews(split.train, sc.tfidf_encoder(8))
            >>> quick = sc.SymcereSettings(dim=8, max_epochs=2)
            >>> model = sc.fit(split.train, text, valid=split.valid, settings=quick)
            >>> explainer = sc.Explainer.of(split.train, text, model, sc.tfidf_encoder(8))
            >>> reason = explainer.why(model.users.id(0), model.items.id(0))
            >>> abs(sum(reason.parts.values()) - reason.score) < 1e-3
            True
        """
        reader = Reader.of(train, text, encoders, parts, weightings, VectorCache(Path(cache) if cache else None))
        return cls(Learned(train, text, model), reader)

    def why(self, user_id: str, item_id: str, *, n: int = 8) -> Reason:
        """Explain the score of an item for a user.

        Args:
            user_id: An id as it stands in the raw file.
            item_id: Likewise; whether it is recommended or not.
            n: Words and neighbours to name at most; of snippets, three.

        Returns:
            The reasons.

        Raises:
            UnknownIdError: If there is no such user or item.
        """
        learned, model = self.learned, self.learned.model
        user, item = model.users.index(user_id), model.items.index(item_id)
        parts = self._parts(user)
        score = float(model.score(np.array([user]))[0, item])
        because, alike = self._neighbours(user, item)
        return Reason(
            user_id,
            item_id,
            score,
            {name: float(part[item]) for name, part in parts.items()},
            {name: float(part.mean()) for name, part in parts.items()},
            self._words("item", item, learned.final[user], n),
            self._words("user", user, learned.final[learned.n_users + item], n),
            self._snippets(item, user, 3),
            _largest(model.items.ids, because, n),
            _largest(model.users.ids, alike, n),
        )

    def word_drops(
        self, side: Side, node: int, other: Float[ndarray, " dim"]
    ) -> tuple[Profile, Float[ndarray, " words"]]:
        """How far the score with another vector falls without each word of a node's reviews."""
        learned = self.learned
        profile = self.profile(side, node)
        at = node + (learned.n_users if side == "item" else 0)
        variants = np.concatenate([profile.features[None], profile.without_each()])
        scores = learned.with_features(at, variants) @ other / learned.model.temperature
        return profile, np.asarray(scores[0] - scores[1:])

    def profile(self, side: Side, node: int) -> Profile:
        """The reviews behind a profile."""
        return Profile(self.learned, self.reader, self.shares[side], side, node)

    @cached_property
    def shares(self) -> dict[Side, Float[ndarray, "known_reviews blocks"]]:
        """Weight of each review in the profiles of its user and item."""
        return {"user": self.reader.shares("user"), "item": self.reader.shares("item")}

    def _parts(self, user: int) -> dict[str, Float[ndarray, " n_items"]]:
        learned, model = self.learned, self.learned.model
        graph, told, heard = learned.parts
        text = told + heard
        n = learned.n_users
        mixed = (graph[n:] @ text[user] + text[n:] @ graph[user]) / 2
        return {
            "graph": (graph[n:] @ graph[user] + mixed) / model.temperature,
            "text": (text[n:] @ text[user] + mixed) / model.temperature,
            "popularity": model.popularity_weight * model.log_popularity,
        }

    def _words(self, side: Side, node: int, other: ndarray, n: int) -> tuple[tuple[str, float], ...]:
        profile, drop = self.word_drops(side, node, other)
        names = [profile.reviews.vocabulary[word] for word in profile.words]
        says = np.flatnonzero(~is_function_word(names))
        return _largest([names[place] for place in says], drop[says], n)

    def _snippets(self, item: int, user: int, n: int) -> tuple[tuple[str, float], ...]:
        block, learned = self.reader.blocks[0], self.learned
        texts = block.text_of[self.profile("item", item).reviews.reviews]
        texts = np.unique(texts[texts >= 0])
        found = [
            (place, sentence.strip())
            for place, text in enumerate(block.corpus.take(texts))
            for sentence in _SENTENCE.split(text)
            if len(sentence.split()) >= _LEAST_WORDS and len(sentence) <= _MOST_CHARS
        ]
        if not found:
            return ()
        text = self.reader.encode([sentence for _, sentence in found])
        projected = learned.towers.project(text)
        projected = projected / np.maximum(np.linalg.norm(projected, axis=1, keepdims=True), 1e-12)
        users = learned.model.user_emb
        support = projected @ (users[user] - users.mean(0)) / learned.model.temperature
        chosen: list[tuple[str, float]] = []
        said: set[int] = set()  # one sentence a review
        for place in np.argsort(-support, kind="stable"):
            if found[place][0] not in said and len(chosen) < n and support[place] > 0:
                said.add(found[place][0])
                chosen.append((found[place][1], float(support[place])))
        return tuple(chosen)

    def _neighbours(self, user: int, item: int) -> tuple[Float[ndarray, " n_items"], Float[ndarray, " n_users"]]:
        """What each item of the user adds to the score through the graph, and each user of the item."""
        learned = self.learned
        n, matrix = learned.n_users, learned.train.matrix
        degree = np.maximum(learned.degree, 1)
        towers = learned.towers
        means = towers.n_layers + towers.include_ego
        raw = np.linalg.norm(learned.graph, axis=1) if towers.unit else np.ones(len(learned.graph))

        def through(node: int, neighbours: ndarray, other: int) -> ndarray:
            weight = 1 / np.sqrt(degree[node] * degree[neighbours])
            scale = means * np.maximum(raw[node], 1e-12) * learned.length[node, 0] * learned.model.temperature
            return np.asarray(weight * (learned.sent[neighbours] @ learned.final[other]) / scale)

        items, users = np.zeros(len(learned.train.items)), np.zeros(n)
        chosen = matrix.indices[matrix.indptr[user] : matrix.indptr[user + 1]]
        items[chosen] = through(user, n + chosen, n + item)
        by_item = learned.by_item
        others = by_item.indices[by_item.indptr[item] : by_item.indptr[item + 1]]
        users[others] = through(n + item, others, user)
        return items, users


def _largest(names: Sequence[str], value: Float[ndarray, " names"], n: int) -> tuple[tuple[str, float], ...]:
    """The largest positive values with their names."""
    best = np.argsort(-value, kind="stable")[:n]
    return tuple((names[place], float(value[place])) for place in best.tolist() if value[place] > 0)
