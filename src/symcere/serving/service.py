"""What the service answers, without any HTTP: plain values in, plain values out."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from symcere.analysis.why import Taste
from symcere.bundle import Bundle
from symcere.data.dataset import Dataset
from symcere.errors import ConfigError
from symcere.index.search import ApproximateIndex
from symcere.ranking import hidden_of, top_k
from symcere.serving.feedback import Event

_CANDIDATES = 10  # times k: what a diverse list is chosen from
_SPARSE = 4  # where fewer than this part of all items may be listed, only those are scored
LARGE = 200_000
"""Items, from which on following links takes less than the rest of a request; measured (docs/serving.md)."""

_THREADS = len(os.sched_getaffinity(0))  # that share a batch


@dataclass(frozen=True)
class Wish:
    """How a list of recommendations is wanted.

    Args:
        k: How many.
        dial: Popularity weight; None for the one chosen on valid.
        category: Only items whose category contains this, whatever the case.
        exclude: Items to leave out; unknown ones are ignored.
        diversity: 0 for the best scores, towards 1 for items unlike those before them (maximal marginal relevance).
        why: Whether reasons are given, except where the list is what most chose.
    """

    k: int = 10
    dial: float | None = None
    category: str = ""
    exclude: Sequence[str] = field(default_factory=tuple)
    diversity: float = 0.0
    why: bool = False


class Service:
    """Answers by a bundle.

    Args:
        bundle: The bundle.
        events: What users did; folded into their vectors, but for what the bundle has learned from.
        approximate: Whether lists of large catalogues may miss items for the sake of speed.
    """

    def __init__(self, bundle: Bundle, events: Iterable[Event] = (), *, approximate: bool = False) -> None:
        self.bundle, self.model = bundle, bundle.model
        self.index = self.model.index
        if approximate and len(self.model.items) >= LARGE:
            scale = max(abs(self.model.popularity_weight), 0.1) * self.model.temperature
            self.index = ApproximateIndex(self.model.item_emb, self.model.log_popularity, scale)
        self.index.prepare(_THREADS)
        self.since: dict[str, tuple[Event, ...]] = {}
        for event in _not_learned(events, bundle.explainer.learned.train):
            self.take(event)

    def take(self, event: Event) -> None:
        """Fold an event into its user's vector, from now on.

        Args:
            event: The event.

        Raises:
            UnknownIdError: If there is no such item.
        """
        self.model.items.index(event.item_id)
        self.since[event.user_id] = (*self.since.get(event.user_id, ()), event)

    def about(self) -> dict[str, Any]:
        """What is served."""
        model = self.model
        return {
            "users": len(model.users),
            "items": len(model.items),
            "dial": model.popularity_weight,
            "encoder": self.bundle.about["encoder"],
            "titles": len(self.bundle.items),
            "bundle": self.bundle.about["key"][:16],
            "index": "approximate" if isinstance(self.index, ApproximateIndex) else "exact",
        }

    def for_user(self, user_id: str, wish: Wish) -> dict[str, Any]:
        """Recommend to a user; to an unknown one what most chose, and say so."""
        known, since = user_id in self.model.users, self.since.get(user_id, ())
        if not known and not since:
            said = f"No user {user_id[:100]!r} is known; these are the items that most users chose."
            return {"user_id": user_id, "fallback": said, "items": self._popular(wish)}
        allowed = self._allowed(wish)
        if known:
            user, seen = self.model.users.index(user_id), self.model.seen
            allowed[seen.indices[seen.indptr[user] : seen.indptr[user + 1]]] = False
        allowed[[self.model.items.index(event.item_id) for event in since]] = False
        taste = self._taste(user_id).vector if since else self.model.user_emb[user]
        found = self._ranked(taste, allowed, self._dial(wish), wish)
        return self._answer(user_id, found, wish)

    def _taste(self, user_id: str) -> Taste:
        """What a user likes, with all that they did since; of one who is known by that alone, too."""
        since = self.since.get(user_id, ())
        items, texts = [event.item_id for event in since], [event.words for event in since]
        known = user_id in self.model.users or not since
        return self.bundle.explainer.taste(items, texts, user_id=user_id if known else None)

    def for_users(self, user_ids: Sequence[str], wish: Wish) -> list[dict[str, Any]]:
        """Recommend to several users; those who share a reading of all items are answered together."""
        model, answers = self.model, {}
        if not wish.category:
            plain = {user_id for user_id in user_ids if user_id in model.users and user_id not in self.since}
            together = sorted(plain, key=model.users.index)
            user = np.array([model.users.index(user_id) for user_id in together], dtype=np.int64)
            left_out = [model.items.index(item_id) for item_id in wish.exclude if item_id in model.items]
            row, item = hidden_of(model.seen, user)
            row = np.append(row, np.repeat(np.arange(len(user)), len(left_out)))
            item = np.append(item, np.tile(np.array(left_out, dtype=item.dtype), len(user)))
            order = np.argsort(row, kind="stable")
            k = min(self._wanted(wish), len(model.items))
            found = self.index.best(
                model.tastes(user), self._dial(wish), k, (row[order], item[order]), n_threads=_THREADS
            )
            for user_id, best, score in zip(together, *found, strict=True):
                left = best >= 0
                answers[user_id] = self._answer(user_id, self._listed(best[left], score[left], wish), wish)
        return [answers[user_id] if user_id in answers else self.for_user(user_id, wish) for user_id in user_ids]

    def _answer(self, user_id: str, found: list[dict[str, Any]], wish: Wish) -> dict[str, Any]:
        return {
            "user_id": user_id,
            "fallback": None,
            "items": self._with_reasons(found, wish, lambda: self._taste(user_id), user_id),
        }

    def _with_reasons(
        self, found: list[dict[str, Any]], wish: Wish, taste_of: Callable[[], Taste], user_id: str = ""
    ) -> list[dict[str, Any]]:
        """The list, and why each item is on it where that is wished for."""
        if wish.why and found:
            taste = taste_of()
            for each in found:
                each["why"] = self._why(taste, each["item_id"], user_id, wish.dial)
        return found

    def for_taste(self, item_ids: Sequence[str], text: str, wish: Wish) -> dict[str, Any]:
        """Recommend to somebody new, by items they chose and what they write; what most chose for neither."""
        mine = [self.model.items.index(item_id) for item_id in item_ids]
        try:
            taste = self.bundle.explainer.taste(item_ids, [text])
        except ConfigError:
            said = "No item and no known word was named; these are the items that most users chose."
            return {"fallback": said, "items": self._popular(wish)}
        allowed = self._allowed(wish)
        allowed[mine] = False
        found = self._ranked(taste.vector, allowed, self._dial(wish), wish)
        return {"fallback": None, "items": self._with_reasons(found, wish, lambda: taste)}

    def _popular(self, wish: Wish) -> list[dict[str, Any]]:
        """What most users chose."""
        nobody = np.zeros(self.model.item_emb.shape[1], dtype=np.float32)
        return self._ranked(nobody, self._allowed(wish), max(self._dial(wish), 0.0) or 1.0, wish)

    def similar(self, item_id: str, k: int) -> dict[str, Any]:
        """Items nearest by cosine."""
        near = self.model.similar_items(item_id, k)
        return {"item_id": item_id, "items": [self._told(item, score) for item, score in near]}

    def why(self, user_id: str, item_id: str) -> dict[str, Any]:
        """The reasons of a user's score, with what they did since."""
        return self._why(self._taste(user_id), item_id, user_id)

    def why_new(self, item_ids: Sequence[str], text: str, item_id: str) -> dict[str, Any]:
        """The reasons of somebody new's score."""
        return self._why(self.bundle.explainer.taste(item_ids, [text]), item_id)

    def _why(self, taste: Taste, item_id: str, user_id: str = "", dial: float | None = None) -> dict[str, Any]:
        reason = asdict(self.bundle.explainer.why_of(taste, item_id, dial=dial))
        because = [(item, self.bundle.items.title(item), value) for item, value in reason["because"]]
        return reason | {"user_id": user_id, "because": because}

    def item(self, item_id: str) -> dict[str, Any]:
        """What is known of an item."""
        item = self.model.items.index(item_id)
        return self._told(item_id) | {"train_interactions": int(self.model.popularity[item])}

    def map(self, n: int) -> dict[str, Any]:
        """The most popular items on a plane: the two leading principal components of all items, within -1 and 1."""
        shown = top_k(self.model.popularity.astype(np.float32)[None], min(n, len(self.model.items)))[0]
        plane = self._plane[shown]
        told = [self._told(self.model.items.id(int(item))) for item in shown]
        return {"items": [each | {"x": float(x), "y": float(y)} for each, (x, y) in zip(told, plane, strict=True)]}

    @cached_property
    def _plane(self) -> Float[ndarray, "n_items 2"]:
        emb = self.model.item_emb - self.model.item_emb.mean(0)
        _, direction = np.linalg.eigh(emb.T @ emb)
        xy = emb @ direction[:, [-1, -2]]
        return np.asarray(xy / max(float(np.abs(xy).max()), 1e-12))

    def search(self, words: str, k: int) -> dict[str, Any]:
        """Users and items whose id, title or category contains words, and items whose reviews speak of them."""
        wanted = words.strip().casefold()
        if not wanted:
            raise ConfigError("Search for at least one letter.")
        users = [self.model.users.id(place) for place in self._users.containing(wanted, k)]
        named = self._titles.containing(wanted, k)
        found = self.for_taste([], words, Wish(k=k, dial=0.0))
        spoken = [] if found["fallback"] else found["items"]
        return {
            "users": users,
            "items": [self._told(self.model.items.id(place)) for place in named],
            "by_text": spoken,
        }

    @cached_property
    def _users(self) -> "_Lines":
        """Ids of users, as search compares them."""
        return _Lines(self.model.users)

    @cached_property
    def _titles(self) -> "_Lines":
        """Id, title and category of each item, as search compares them."""
        told = (self._told(item_id) for item_id in self.model.items)
        return _Lines(" ".join(map(str, each.values())) for each in told)

    @cached_property
    def _category(self) -> dict[str, str]:
        return dict(self.bundle.items.table.select("item_id", "category").iter_rows())

    @cached_property
    def _categories(self) -> tuple[list[str], ndarray]:
        """The categories, as the filter compares them, and which of them each item has."""
        number: dict[str, int] = {}
        of_item = [
            number.setdefault(self._category.get(item_id, "").casefold(), len(number)) for item_id in self.model.items
        ]
        return list(number), np.array(of_item)

    def _dial(self, wish: Wish) -> float:
        return self.model.popularity_weight if wish.dial is None else wish.dial

    def _allowed(self, wish: Wish) -> Bool[ndarray, " n_items"]:
        allowed = np.ones(len(self.model.items), dtype=bool)
        if wish.category:
            categories, of_item = self._categories
            allowed &= np.array([wish.category.casefold() in category for category in categories])[of_item]
        allowed[[self.model.items.index(item) for item in wish.exclude if item in self.model.items]] = False
        return allowed

    def _ranked(
        self, taste: Float[ndarray, " dim"], allowed: Bool[ndarray, " n_items"], dial: float, wish: Wish
    ) -> list[dict[str, Any]]:
        model, k = self.model, min(self._wanted(wish), len(allowed))
        taste = taste / np.float32(model.temperature)
        among = np.flatnonzero(allowed)
        if len(among) < len(allowed) // _SPARSE:
            return self._listed(*self.index.best_among(taste, dial, k, among), wish)
        hidden = np.flatnonzero(~allowed)
        (best,), (score,) = self.index.best(taste[None], dial, k, (np.zeros_like(hidden), hidden))
        return self._listed(best[best >= 0], score[best >= 0], wish)

    def _wanted(self, wish: Wish) -> int:
        """How many items a list is chosen from."""
        return wish.k * (_CANDIDATES if wish.diversity else 1)

    def _listed(self, best: ndarray, score: ndarray, wish: Wish) -> list[dict[str, Any]]:
        """The list, of the best items and their scores."""
        if wish.diversity and len(best):
            chosen = _diverse(self.model.item_emb[best], score, wish.k, wish.diversity)
            best, score = best[chosen], score[chosen]
        items = zip(best[: wish.k].tolist(), score[: wish.k].tolist(), strict=True)
        return [self._told(self.model.items.id(item), value) for item, value in items]

    def _told(self, item_id: str, score: float | None = None) -> dict[str, Any]:
        told: dict[str, Any] = {"item_id": item_id, "title": self.bundle.items.title(item_id)}
        told["category"] = self._category.get(item_id, "")
        return told if score is None else told | {"score": score}


def _not_learned(events: Iterable[Event], train: Dataset) -> list[Event]:
    """Events with known items, but for those of which the train part has the review itself, or a later one."""
    known = [event for event in events if event.item_id in train.items]
    pairs = [
        (train.users.index(event.user_id), train.items.index(event.item_id)) if event.user_id in train.users else None
        for event in known
    ]
    keys = [user * len(train.items) + item for user, item in filter(None, pairs)]
    rows = np.flatnonzero(np.isin(train.user * len(train.items) + train.item, keys))
    at = zip(train.user[rows].tolist(), train.item[rows].tolist(), strict=True)
    learned = dict(zip(at, train.review["timestamp"][rows].to_list(), strict=True))
    last = [learned.get(pair) if pair else None for pair in pairs]
    return [event for event, until in zip(known, last, strict=True) if until is None or event.timestamp > until]


class _Lines:
    """Texts of which those that contain some words are found at the speed of a search in one string."""

    def __init__(self, texts: Iterable[str]) -> None:
        lines = [text.casefold().replace("\n", " ") for text in texts]
        self._all = "\n".join(lines)
        self._begin = np.cumsum([0, *(len(line) + 1 for line in lines)])

    def containing(self, words: str, k: int) -> list[int]:
        """Places of the first k texts that contain words."""
        found: list[int] = []
        words = words.replace("\n", " ")
        at = self._all.find(words)
        while at >= 0 and len(found) < k:
            found.append(int(np.searchsorted(self._begin, at, side="right")) - 1)
            at = self._all.find(words, int(self._begin[found[-1] + 1]))
        return found


def _diverse(emb: Float[ndarray, "n dim"], score: Float[ndarray, " n"], k: int, weight: float) -> list[int]:
    """Places of k rows by maximal marginal relevance: scores scaled to 0..1, less the nearest cosine so far.

    Source:
        Carbonell and Goldstein, The use of MMR, SIGIR 1998.
    """
    unit = emb / np.maximum(np.linalg.norm(emb, axis=1, keepdims=True), 1e-12)
    spread = float(score.max() - score.min()) or 1.0
    worth = (score - score.min()) / spread
    nearest = np.zeros(len(score))
    chosen: list[int] = []
    left = np.ones(len(score), dtype=bool)
    for _ in range(min(k, len(score))):
        value = np.where(left, (1 - weight) * worth - weight * nearest, -np.inf)
        place = int(value.argmax())
        chosen.append(place)
        left[place] = False
        nearest = np.maximum(nearest, unit @ unit[place])
    return chosen
