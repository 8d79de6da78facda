"""The best items by inner product: a first look at few bits with a bound on its error, then exact scores.

A look at four bits (one taste) or eight (several) costs a fraction of a product of floats, in time and in bytes read.
All items that it does not rule out are scored exactly, so the list is the exact one.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from symcere.index.eight_bits import BLOCK, EightBits
from symcere.index.four_bits import FourBits
from symcere.ranking import Hidden, top_k

_ROOM = 2**21  # products held at once: within the cache
_ROWS = 64, 512  # tastes at least and at most that share a reading of all items
_SHARE = 16  # of them at least for a thread
_LINKS, _EFFORT = 32, 400  # of an item; and how many items are followed up for a taste
_MANY = 32_768  # items, from which on two looks cost less than comparing all scores
_VERY_MANY = 65_536  # from which on a look at four bits costs less than one at eight
_AGAIN = 4  # times as long is a second look at four bits, where the first does not prove which are best
_FEW = 8  # tastes, from which on a look at eight bits for all of them costs less than one at four for each


@dataclass(frozen=True, eq=False)
class Index:
    """Finds the items with the greatest taste . emb + dial * offset, exactly.

    Args:
        emb: float32 (n_items x dim).
        offset: float32 (n_items): what the dial weighs.
    """

    emb: Float[ndarray, "n_items dim"]
    offset: Float[ndarray, " n_items"]

    def __getstate__(self) -> dict[str, Any]:
        """What another process needs: the rest it makes for itself, for sessions cannot be sent."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def prepare(self, n_threads: int = 1) -> None:  # noqa: ARG002  of use to others
        """Make what the first search would make otherwise: a second and a half a million items.

        Args:
            n_threads: How many threads may share the work.
        """
        if len(self.emb) >= _MANY:
            _ = self._eight_bits
        if len(self.emb) >= _VERY_MANY:
            _ = self._four_bits

    def best(
        self, tastes: Float[ndarray, "tastes dim"], dial: float, k: int, hidden: Hidden, n_threads: int = 1
    ) -> tuple[Int[ndarray, "tastes k"], Float[ndarray, "tastes k"]]:
        """Find the best items of each taste; equal scores by item index.

        Args:
            tastes: float32, a row each.
            dial: Weight of the offset.
            k: How many; at most n_items.
            hidden: Row, ascending, and item of what is not ranked.
            n_threads: How many threads share the tastes.

        Returns:
            Items, -1 where fewer than k are left, and their scores.
        """
        item = np.full((len(tastes), k), -1, dtype=np.int64)
        score = np.full((len(tastes), k), -np.inf, dtype=np.float32)
        n = len(self.emb)
        find = self._compared
        if n >= _MANY and k <= BLOCK // 4:
            find = self._glanced if n >= _VERY_MANY and len(tastes) < _FEW else self._screened
        step = min(max(_ROOM // min(n, BLOCK), _ROWS[0]), _ROWS[1], max(-(-len(tastes) // n_threads), _SHARE))

        def fill(begin: int) -> None:
            rows = slice(begin, min(begin + step, len(tastes)))
            of = slice(*np.searchsorted(hidden[0], [rows.start, rows.stop]))
            within = hidden[0][of] - begin, hidden[1][of]
            item[rows], score[rows] = find(tastes[rows], np.float32(dial), k, within)

        self.prepare()  # once, and not in each thread
        begins = range(0, len(tastes), step)
        if n_threads == 1 or len(begins) == 1:
            for begin in begins:
                fill(begin)
        else:
            with ThreadPoolExecutor(n_threads) as pool:
                list(pool.map(fill, begins))
        return item, score

    def best_among(
        self, taste: Float[ndarray, " dim"], dial: float, k: int, among: Int[ndarray, " some"]
    ) -> tuple[Int[ndarray, " found"], Float[ndarray, " found"]]:
        """Find the best of some items.

        Args:
            taste: float32.
            dial: Weight of the offset.
            k: How many.
            among: The items, ascending.

        Returns:
            Items and their scores, best first; all of them where they are fewer than k.
        """
        scores = self.emb.take(among, axis=0) @ taste + np.float32(dial) * self.offset[among]
        k = min(k, len(among))
        best = top_k(scores[None], k)[0] if k else np.zeros(0, dtype=np.int64)
        return among[best], scores[best]

    def _compared(self, tastes: ndarray, dial: np.float32, k: int, hidden: Hidden) -> tuple[ndarray, ndarray]:
        """By the exact score of every item."""
        scores = tastes @ self.emb.T
        if dial:
            scores += dial * self.offset
        scores[hidden] = -np.inf
        item = top_k(scores, k)
        score = np.take_along_axis(scores, item, axis=1)
        item[np.isneginf(score)] = -1
        return item, score

    def _screened(self, tastes: ndarray, dial: np.float32, k: int, hidden: Hidden) -> tuple[ndarray, ndarray]:
        """By the exact scores of those that may be best."""
        row, item = self._eight_bits.reaching(tastes, float(dial), k, hidden)
        score = np.einsum("cd,cd->c", self.emb[item], tastes[row]) + dial * self.offset[item]
        order = np.lexsort((-score, row))
        place = np.arange(len(row)) - np.searchsorted(row, row)  # of what is sorted, within its row
        row, item, score = row[order][place < k], item[order][place < k], score[order][place < k]
        place = place[place < k]
        items = np.full((len(tastes), k), -1, dtype=np.int64)
        scores = np.full((len(tastes), k), -np.inf, dtype=np.float32)
        items[row, place], scores[row, place] = item, score
        return items, scores

    def _glanced(self, tastes: ndarray, dial: np.float32, k: int, hidden: Hidden) -> tuple[ndarray, ndarray]:
        """By the exact scores of some, where these prove that no other item is better."""
        found = []
        for row, taste in enumerate(tastes):
            not_ranked = hidden[1][slice(*np.searchsorted(hidden[0], [row, row + 1]))]
            one = self._glance(taste, float(dial), k, not_ranked)
            found.append(one or self._screened(taste[None], dial, k, (np.zeros_like(not_ranked), not_ranked)))
        item, score = (np.concatenate(side) for side in zip(*found, strict=True))
        return item, score

    def _glance(self, taste: ndarray, dial: float, k: int, hidden: ndarray) -> tuple[ndarray, ndarray] | None:
        """The best of a taste; None where looks do not prove which they are."""
        if not (codes := self._four_bits):
            return None
        for times in (1, _AGAIN):
            looked = codes.look(taste, dial, k, len(hidden), times)
            if not looked:
                break
            found, rest = looked
            item, score = self.best_among(taste, dial, k, np.sort(found[~np.isin(found, hidden)]))
            enough = len(item) == k and float(score[-1]) > rest
            if times == 1:
                codes.learn(enough=enough)
            if enough:
                return item[None], score[None]
        return None

    @cached_property
    def _eight_bits(self) -> EightBits:
        return EightBits.of(self.emb, self.offset)

    @cached_property
    def _four_bits(self) -> FourBits | None:
        return FourBits.of(self.emb, self.offset)


@dataclass(frozen=True, eq=False)
class ApproximateIndex(Index):
    """Follows links between near items instead of looking at all: faster on large catalogues, and may miss some.

    Args:
        scale: What an offset of 1 is worth beside the vectors when items are linked: about the dial, in their unit.

    Source:
        Malkov and Yashunin, Hierarchical navigable small world graphs, 2016; the implementation is faiss'.
    """

    scale: float

    def prepare(self, n_threads: int = 1) -> None:
        """Link the items, which takes seconds for 100,000 and minutes for a million.

        Args:
            n_threads: How many threads share the work.
        """
        super().prepare()
        if self._links.ntotal:
            return
        import faiss

        faiss.omp_set_num_threads(n_threads)
        self._links.add(np.column_stack([self.emb, self.offset * np.float32(self.scale)]))
        faiss.omp_set_num_threads(1)

    def best(
        self, tastes: Float[ndarray, "tastes dim"], dial: float, k: int, hidden: Hidden, n_threads: int = 1
    ) -> tuple[Int[ndarray, "tastes k"], Float[ndarray, "tastes k"]]:
        """The same of one taste, nearly; of several, or where much is hidden, exactly."""
        self.prepare()
        wanted = k + len(hidden[0])
        if len(tastes) > 1 or wanted > _EFFORT // 2:
            return super().best(tastes, dial, k, hidden, n_threads)
        weight = np.float32(dial / self.scale)
        _, (found,) = self._links.search(np.append(tastes[0], weight)[None], wanted)
        among = np.sort(found[(found >= 0) & ~np.isin(found, hidden[1])])
        item, score = np.full((1, k), -1, dtype=np.int64), np.full((1, k), -np.inf, dtype=np.float32)
        n = min(k, len(among))
        item[0, :n], score[0, :n] = self.best_among(tastes[0], dial, k, among)
        return item, score

    @cached_property
    def _links(self) -> Any:
        import faiss

        links = faiss.IndexHNSWFlat(self.emb.shape[1] + 1, _LINKS, faiss.METRIC_INNER_PRODUCT)
        links.hnsw.efConstruction, links.hnsw.efSearch = _EFFORT // 2, _EFFORT
        return links
