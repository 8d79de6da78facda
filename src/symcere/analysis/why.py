"""Why this item: the parts of a score, the words and sentences behind its text, the neighbours behind both.

With final vectors f = graph + text (each already over the common length), a score is

    f_u . f_i / temperature + popularity_weight log(1 + degree_i)

and its graph part is graph_u . graph_i plus half of both mixed products: the Shapley value of the graph, exactly.
Text is the rest, what neighbours tell (by `propagated_weight`, and in the third tower) included. The three parts
sum to the score.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.sparse import csr_array

from symcere import rng
from symcere.analysis.learned import Gathered, Learned
from symcere.analysis.lexicon import is_function_word
from symcere.data.dataset import Dataset, Side
from symcere.errors import ConfigError
from symcere.recommender import Recommender
from symcere.text.cache import VectorCache
from symcere.text.corpus import Part, clean_texts
from symcere.text.deletion import Gone
from symcere.text.encoders import Encoder
from symcere.text.features import TextFeatures
from symcere.text.profiles import Weighting
from symcere.text.reader import Reader, Reviews

_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_LEAST_WORDS, _MOST_CHARS = 3, 280  # of a snippet
MOST_REVIEWS = 200
"""Reviews of a node that sentences are taken from; words too, where a text has to be read again without each."""

_BLOCK, _BLOCK_OF_SETS = 4_096, 32_768  # reviews without some words in memory at a time, whatever the node has
_KEPT = 32  # nodes whose words are not left out anew: 1.5 KB a word, 12 MB for an item of 5,000 reviews


@dataclass(frozen=True)
class Reason:
    """Why an item is recommended to a user. All values are in the unit of the score.

    Args:
        user_id: The user; "" for somebody new.
        item_id: The item.
        score: What the item is ranked by.
        parts: "graph", "text" and "popularity": they sum to the score.
        average: The same parts of the average item, for this user.
        item_words: Words of the item's reviews; the value is how far the score falls without the word in all of them.
            Of an encoder that reads a text again without each word, 200 reviews are drawn at random and stand for
            all: the value is an estimate. Function words, which the model reads like any other, are not named.
        user_words: Words of the user's own reviews and of what they wrote since, likewise.
        snippets: Sentences of the item's train reviews, of 200 drawn at random where it has more; the value is what
            they have in common with this user beyond the average user.
        because: Items the user chose; the value is how far the score falls without it in the user's neighbourhood.
        alike: Users who chose the item; the value is how far the score falls without them in the item's.
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
    """Some reviews, and what a profile is without some of their words.

    Args:
        reviews: The reviews, or some that stand for all.
        share: Weight of each in the profile, and of those that it stands for.
        features: The profile.
    """

    def __init__(
        self,
        reviews: Reviews,
        share: Float[ndarray, "reviews text_dim"],
        features: Float[ndarray, " text_dim"],
    ) -> None:
        self.reviews, self.share, self.features = reviews, share, features
        self._vectors = reviews.vectors() if len(reviews) else np.zeros((0, len(features)), dtype=np.float32)

    @cached_property
    def words(self) -> Int[ndarray, " words"]:
        """Words that can matter."""
        return np.unique(self.reviews.occurrences[1]) if len(self.reviews) else np.zeros(0, dtype=np.int64)

    @property
    def vocabulary(self) -> list[str]:
        """What `words` are called."""
        return [self.reviews.vocabulary[word] for word in self.words]

    def changes(self) -> Float[ndarray, "words text_dim"]:
        """How the profile changes without each of `words`, in all of its reviews."""
        change = np.zeros((len(self.words), len(self.features)))
        if not len(self.reviews):
            return np.asarray(change, dtype=np.float32)
        place, word = self.reviews.occurrences
        for start in range(0, len(place), _BLOCK):
            at, of = place[start : start + _BLOCK], word[start : start + _BLOCK]
            each = self.share[at] * (self.reviews.without(at, Gone.one_each(of)) - self._vectors[at])
            here, row = np.unique(of, return_inverse=True)
            summed = csr_array((np.ones(len(at)), (row, np.arange(len(at)))), shape=(len(here), len(at)))
            change[np.searchsorted(self.words, here)] += summed @ each
        return np.asarray(change, dtype=np.float32)

    def without_sets(self, gone: Bool[ndarray, "sets words"]) -> Float[ndarray, "sets text_dim"]:
        """The profile without each of some sets of `words`, in all of its reviews."""
        if not len(self.reviews):
            return np.repeat(self.features[None], len(gone), axis=0)
        every = np.zeros((len(gone), len(self.reviews.vocabulary)), dtype=bool)
        every[:, self.words] = gone
        change, size = np.zeros((len(gone), len(self.features))), max(_BLOCK_OF_SETS // len(self.reviews), 1)
        for start in range(0, len(gone), size):
            some = slice(start, start + size)
            left = self.reviews.without_sets(every[some])
            change[some] = np.einsum("src,rc->sc", left - self._vectors, self.share)
        return np.asarray(self.features + change, dtype=np.float32)


@dataclass(frozen=True, eq=False)
class Taste:
    """The vector of a user with what they did since, or of somebody new; and what it is made of.

    Args:
        vector: Its inner products with items are scores, over the temperature: the sum of its parts.
        made: The vector taken apart.
        chosen: Items they chose, ascending.
        features: Their profile.
        texts: What they wrote since, as far as it is in the profile.
        before: Weight of the train reviews in the profile.
        user: Index of the user; None for somebody new.
    """

    vector: Float[ndarray, " served"]
    made: Gathered
    chosen: Int[ndarray, " chosen"]
    features: Float[ndarray, " text_dim"]
    texts: tuple[str, ...]
    before: float
    user: int | None


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
        return self.why_of(self.taste(user_id=user_id), item_id, n=n)

    def why_of(self, taste: Taste, item_id: str, *, n: int = 8, dial: float | None = None) -> Reason:
        """Explain the score of an item for somebody new, or for a user with what they did since.

        Args:
            taste: As of `taste`.
            item_id: An id as it stands in the raw file.
            n: Words and neighbours to name at most; of snippets, three.
            dial: Popularity weight of the score; the chosen one if left out.

        Returns:
            The reasons.

        Raises:
            UnknownIdError: If there is no such item.
        """
        model = self.learned.model
        item = model.items.index(item_id)
        parts = self._parts(taste, model.popularity_weight if dial is None else dial)
        of_item, node = model.item_emb[item], self.learned.n_users + item
        words, change = self._changes("item", item)
        drop = self._drops(self.learned.features[node], change, self.learned.beside(node), taste.vector)
        return Reason(
            "" if taste.user is None else model.users.id(taste.user),
            item_id,
            sum(float(part[item]) for part in parts.values()),
            {name: float(part[item]) for name, part in parts.items()},
            {name: float(part.mean()) for name, part in parts.items()},
            _named([(words, drop)], n),
            _named(self._own_words(taste, of_item), n),
            self._snippets(item, taste.vector, 3),
            _largest(*self._because(taste, of_item), n),
            _largest(*self._alike(item, taste.vector), n),
        )

    def taste(self, item_ids: Sequence[str] = (), texts: Sequence[str] = (), *, user_id: str | None = None) -> Taste:
        """Fold somebody new in, or what a user did since: nothing is trained.

        The graph part is what the items send to a user who chose just these (and those of train); the text part is
        the projected mean of the texts (and of the user's train reviews). They are joined as in any user's vector.
        So do what is heard of the neighbourhood and the third tower, for which items send what is written of and
        around them. A user who did nothing since has exactly the vector that is served.

        Args:
            item_ids: Items they chose.
            texts: What they want, or wrote.
            user_id: A known user; None for somebody new.

        Returns:
            The taste.

        Raises:
            ConfigError: If there is neither an item nor a word that the encoder knows.
            UnknownIdError: If there is no such item or user.
        """
        learned = self.learned
        user = None if user_id is None else learned.model.users.index(user_id)
        item = np.array([learned.model.items.index(item_id) for item_id in item_ids], dtype=np.int64)
        if user is not None:
            matrix = learned.train.matrix
            item = np.concatenate([matrix.indices[matrix.indptr[user] : matrix.indptr[user + 1]], item])
        item = np.unique(item)
        features, known, before = self._profile_of(user, clean_texts(texts))
        made = learned.gathered(learned.n_users + item, self._layer0(user), features)
        if user is None and not (made.parts[0].any() or made.parts[1].any()):
            raise ConfigError("Name at least one item, or a text with a word that occurs in the reviews.")
        untouched = user is not None and not len(item_ids) and not known
        vector = learned.final[user] if untouched else made.final
        return Taste(vector, made, item, features, known, before, user)

    def _profile_of(self, user: int | None, texts: Sequence[str]) -> tuple[ndarray, tuple[str, ...], float]:
        """Mean of a user's train reviews and of more texts; which of these count, and the weight of train."""
        vectors = self.reader.encode(texts) if texts else np.zeros((0, self.learned.features.shape[1]))
        there = self.reader.knows(texts)
        total, count = vectors[there].sum(0), 0
        if user is not None:
            of_user = self.learned.train.known_reviews.user == user
            count = int((self.shares["user"][of_user] > 0).any(1).sum())
            total = total + count * self.learned.features[user]
        whole = max(count + int(there.sum()), 1)
        known = tuple(text for text, counts in zip(texts, there.tolist(), strict=True) if counts)
        return np.asarray(total / whole, dtype=np.float32), known, count / whole

    def _own_words(self, taste: Taste, other: ndarray) -> list[tuple[list[str], ndarray]]:
        """Words that somebody wrote, and how far the score with an item falls without each."""
        written = []
        if taste.user is not None:
            words, change = self._changes("user", taste.user)
            written.append((words, change * np.float32(taste.before)))
        if taste.texts:
            share = np.full((len(taste.texts), len(taste.features)), (1 - taste.before) / len(taste.texts))
            told = Profile(self.reader.open_texts(taste.texts), share, taste.features)
            written.append((told.vocabulary, told.changes()))
        return [(words, self._drops(taste.features, change, taste.made.beside, other)) for words, change in written]

    def word_drops(
        self, side: Side, node: int, other: Float[ndarray, " dim"]
    ) -> tuple[Profile, Float[ndarray, " words"]]:
        """How far the score with another vector falls without each word of a node's reviews."""
        at = node + (self.learned.n_users if side == "item" else 0)
        profile = self.profile(side, node)
        return profile, self._drops(profile.features, profile.changes(), self.learned.beside(at), other)

    def _drops(
        self, features: ndarray, change: Float[ndarray, "words text_dim"], beside: ndarray, other: ndarray
    ) -> Float[ndarray, " words"]:
        """How far a score falls by each change of a profile."""
        variants = self.learned.joined_with(beside, np.concatenate([features[None], features + change]))
        return self._falls(variants[0], variants[1:], other)

    @cached_property
    def _changes(self) -> Callable[[Side, int], tuple[list[str], Float[ndarray, "words text_dim"]]]:
        """Words of a node's reviews, and how its profile changes without each: the same for everybody who asks."""

        def read(side: Side, node: int) -> tuple[list[str], Float[ndarray, "words text_dim"]]:
            profile = self.profile(side, node)
            return profile.vocabulary, profile.changes()

        return lru_cache(_KEPT)(read)

    def profile(self, side: Side, node: int) -> Profile:
        """The reviews behind a profile of train: all, or some that stand for all if each is read again a word."""
        shares, text = self.shares[side], self.learned.text
        every = self._reviews_of(side, node)
        mine = every if self.reader.exact else _drawn(every, node)
        share, total = shares[mine], shares[every].sum(0)
        if len(mine) < len(every):
            share = share * (total / np.maximum(share.sum(0), 1e-300))
        features = (text.user if side == "user" else text.item)[node]
        return Profile(self.reader.open(mine), share[:, self.reader.block_of_column], features)

    def _reviews_of(self, side: Side, node: int) -> Int[ndarray, " reviews"]:
        """Those of the known reviews that a profile of train is made of."""
        known = self.learned.train.known_reviews
        mine = np.flatnonzero((known.user if side == "user" else known.item) == node)
        return mine[self.shares[side][mine].any(1)]

    @cached_property
    def shares(self) -> dict[Side, Float[ndarray, "known_reviews blocks"]]:
        """Weight of each review in the profiles of its user and item."""
        return {"user": self.reader.shares("user"), "item": self.reader.shares("item")}

    def _parts(self, taste: Taste, dial: float) -> dict[str, Float[ndarray, " n_items"]]:
        learned, model = self.learned, self.learned.model
        graph, told, heard = (part[learned.n_users :] for part in learned.parts)
        text = told + heard
        own_graph, own_text = taste.made.parts[0], taste.made.parts[1] + taste.made.parts[2]
        mixed = (graph @ own_text + text @ own_graph) / 2
        return {
            "graph": (graph @ own_graph + mixed) / model.temperature,
            "text": (text @ own_text + mixed) / model.temperature,
            "popularity": np.float32(dial) * model.log_popularity,
        }

    def _snippets(self, item: int, taste: ndarray, n: int) -> tuple[tuple[str, float], ...]:
        block, learned = self.reader.blocks[0], self.learned
        texts = block.corpus.text_of[_drawn(self._reviews_of("item", item), item)]
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
        projected = learned.joined_with(np.zeros_like(taste), text)
        projected = projected / np.maximum(np.linalg.norm(projected, axis=1, keepdims=True), 1e-12)
        support = projected @ (taste - learned.model.user_emb.mean(0)) / learned.model.temperature
        chosen: list[tuple[str, float]] = []
        said: set[int] = set()  # one sentence a review
        for place in np.argsort(-support, kind="stable"):
            if found[place][0] not in said and len(chosen) < n and support[place] > 0:
                said.add(found[place][0])
                chosen.append((found[place][1], float(support[place])))
        return tuple(chosen)

    def _layer0(self, user: int | None) -> Float[ndarray, " dim"]:
        """A user's own row of the graph tower; zero for somebody new."""
        towers = self.learned.towers
        return np.zeros(towers.dim, dtype=np.float32) if user is None else towers.layer0[user]

    def _because(self, taste: Taste, other: ndarray) -> tuple[list[str], ndarray]:
        """Items that somebody chose, and how far the score with an item falls without each."""
        learned = self.learned
        without = learned.without_each(learned.n_users + taste.chosen, self._layer0(taste.user), taste.features)
        names = [learned.model.items.id(int(each)) for each in taste.chosen]
        return names, self._falls(taste.made.final, without, other)

    def _alike(self, item: int, taste: ndarray) -> tuple[list[str], ndarray]:
        """Users of an item, and how far its score falls without each."""
        learned = self.learned
        node, by_item = learned.n_users + item, learned.by_item
        others = by_item.indices[by_item.indptr[item] : by_item.indptr[item + 1]]
        without = learned.without_each(others, learned.towers.layer0[node], learned.features[node])
        names = [learned.model.users.id(int(each)) for each in others]
        return names, self._falls(learned.final[node], without, taste)

    def _falls(self, whole: ndarray, without: ndarray, other: ndarray) -> Float[ndarray, " variants"]:
        """How far the score of a vector with another falls by each change of it."""
        return np.asarray((whole - without) @ other / self.learned.model.temperature)


def _drawn(reviews: Int[ndarray, " reviews"], node: int) -> Int[ndarray, " drawn"]:
    """Some of a node's reviews where it has many, the same every time."""
    if len(reviews) <= MOST_REVIEWS:
        return reviews
    return np.sort(rng.stream(node, "reviews of a node").choice(reviews, MOST_REVIEWS, replace=False))


def _named(words: Sequence[tuple[Sequence[str], ndarray]], n: int) -> tuple[tuple[str, float], ...]:
    """The words whose values are largest, but for function words; of one that stands twice, the sum."""
    value: dict[str, float] = {}
    for names, values in words:
        for name, each in zip(names, values.tolist(), strict=True):
            value[name] = value.get(name, 0.0) + each
    means_nothing = is_function_word(list(value)) if value else ()
    says = {name: each for (name, each), not_it in zip(value.items(), means_nothing, strict=True) if not not_it}
    return _largest(list(says), np.array(list(says.values())), n)


def _largest(names: Sequence[str], value: Float[ndarray, " names"], n: int) -> tuple[tuple[str, float], ...]:
    """The largest positive values with their names."""
    best = np.argsort(-value, kind="stable")[:n]
    return tuple((names[place], float(value[place])) for place in best.tolist() if value[place] > 0)
