"""What is left of the vector of a text when some of its words are left out: exact, and without encoding it again.

An encoder that sums over the terms of a text (TF-IDF, distilled) needs no second reading: what the words add is
subtracted, and the rest is scaled anew. Any other encoder reads the text again without the words.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.sparse import csr_array

from symcere.text.words import Terms, spans, terms_of


@dataclass(frozen=True, eq=False)
class Gone:
    """Which words each of some variants is without.

    Args:
        offsets: Where the words of each variant begin in `word`, then their number.
        word: Words.
    """

    offsets: Int[ndarray, " offsets"]
    word: Int[ndarray, " words"]

    @classmethod
    def one_each(cls, word: Int[ndarray, " variants"]) -> "Gone":
        """A variant a word."""
        return cls(np.arange(len(word) + 1), word)

    @property
    def variant(self) -> Int[ndarray, " words"]:
        """Variant of each word."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))


@runtime_checkable
class Cuttable(Protocol):
    """Texts of which words can be left out."""

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Distinct words that an encoder may have heard of."""
        ...

    @property
    def occurrences(self) -> tuple[Int[ndarray, " occurrences"], Int[ndarray, " occurrences"]]:
        """Text and word of each occurrence that can matter: a word once a text."""
        ...

    def without(self, text: Int[ndarray, " variants"], gone: Gone) -> Float[ndarray, "variants text_dim"]:
        """Unit vectors of variants of texts, each without some words; zero where nothing is left."""
        ...

    def without_sets(self, gone: Bool[ndarray, "sets words"]) -> Float[ndarray, "sets texts text_dim"]:
        """Unit vectors of all texts, without each of some sets of words; zero where nothing is left."""
        ...


@dataclass(frozen=True, eq=False)
class Bag:
    """Texts as sums: vector = unit(mean + sum over blocks of (sum of value x row) / length of the values).

    Args:
        vocabulary: Distinct words.
        text: Text of each entry.
        first: A word of it.
        second: The other word where it is a pair, else -1.
        block: Block of it.
        row: Row of the block.
        value: What the row is multiplied with.
        rows: Rows of each block.
        n_texts: Number of texts.
        mean: Added to every text; the vector of a text without a known term.
    """

    vocabulary: tuple[str, ...]
    text: Int[ndarray, " entries"]
    first: Int[ndarray, " entries"]
    second: Int[ndarray, " entries"]
    block: Int[ndarray, " entries"]
    row: Int[ndarray, " entries"]
    value: Float[ndarray, " entries"]
    rows: tuple[Float[ndarray, "_ text_dim"], ...]
    n_texts: int
    mean: Float[ndarray, " text_dim"] | None = None

    @classmethod
    def of(
        cls,
        n_texts: int,
        terms: Terms,
        blocks: Sequence[tuple[ndarray, ndarray, ndarray]],
        mean: Float[ndarray, " text_dim"] | None = None,
    ) -> "Bag":
        """The bag of some terms; of the rows it keeps those that they have, a few of tens of thousands.

        Args:
            n_texts: Number of texts.
            terms: Their terms.
            blocks: For each block the row of each term (-1 for none), its value, and the rows.
            mean: Added to every text.

        Returns:
            The bag.
        """
        kept = [np.flatnonzero(row >= 0) for row, _, _ in blocks]
        every = np.concatenate(kept)
        used = [np.unique(row[each], return_inverse=True) for (row, _, _), each in zip(blocks, kept, strict=True)]
        return cls(
            terms.vocabulary,
            terms.text[every],
            terms.first[every],
            terms.second[every],
            np.repeat(np.arange(len(blocks)), [len(each) for each in kept]),
            np.concatenate([place for _, place in used]),
            np.concatenate([value[each] for (_, value, _), each in zip(blocks, kept, strict=True)]),
            tuple(rows[its] for (_, _, rows), (its, _) in zip(blocks, used, strict=True)),
            n_texts,
            mean,
        )

    def whole(self) -> Float[ndarray, "texts text_dim"]:
        """Unit vectors of the texts with all their words."""
        nothing = Gone(np.zeros(self.n_texts + 1, dtype=np.int64), np.zeros(0, dtype=np.int64))
        return self.without(np.arange(self.n_texts), nothing)

    @cached_property
    def occurrences(self) -> tuple[Int[ndarray, " occurrences"], Int[ndarray, " occurrences"]]:
        """Text and word of each occurrence that can matter: a word once a text."""
        key = np.unique(self._touches[0])
        text, word = np.divmod(key, max(len(self.vocabulary), 1))
        return text, word

    def without(self, text: Int[ndarray, " variants"], gone: Gone) -> Float[ndarray, "variants text_dim"]:
        """Unit vectors of variants of texts, each without some words; zero where nothing is left.

        A pair goes with either of its words, and leaving a word out makes no new pair.

        Args:
            text: Text of each variant.
            gone: The words that each is without.

        Returns:
            One row a variant.
        """
        removed = self._removed(text, gone)
        vectors = (
            np.zeros((len(text), self.rows[0].shape[1])) if self.mean is None else np.tile(self.mean, (len(text), 1))
        )
        sums, squares = self._whole
        for block, rows in enumerate(self.rows):
            variant, entry = (each[self.block[removed[1]] == block] for each in removed)
            value = self.value[entry]
            taken = csr_array((value, (variant, self.row[entry])), shape=(len(text), len(rows)))
            square = squares[block][text] - np.bincount(variant, weights=value**2, minlength=len(text))
            left = square > 1e-9 * squares[block][text]
            scale = np.where(left, 1 / np.sqrt(np.where(left, square, 1)), 0)
            vectors += (sums[block][text] - taken @ rows) * scale[:, None]
        return _unit(vectors)

    def without_sets(self, gone: Bool[ndarray, "sets words"]) -> Float[ndarray, "sets texts text_dim"]:
        """Unit vectors of all texts, without each of some sets of words; zero where nothing is left.

        Args:
            gone: Which words each set has.

        Returns:
            The same as `without` gives; by dense products, faster where sets are large.
        """
        vectors = np.zeros((len(gone), self.n_texts, self.rows[0].shape[1]))
        if self.mean is not None:
            vectors += self.mean
        order = np.lexsort((self.block, self.text))
        key = self.text[order] * len(self.rows) + self.block[order]
        for part in np.split(order, np.flatnonzero(np.diff(key)) + 1) if len(order) else ():
            text, block = self.text[part[0]], self.block[part[0]]
            second = self.second[part]
            left = ~(gone[:, self.first[part]] | (gone[:, second] & (second >= 0)))
            value = self.value[part] * left
            length = np.sqrt(np.square(value).sum(1, keepdims=True))
            vectors[:, text] += value / np.maximum(length, 1e-12) @ self.rows[block][self.row[part]]
        return _unit(vectors)

    @cached_property
    def _whole(self) -> tuple[list[ndarray], list[ndarray]]:
        """For each block the sum of value x row, and of squared values, of each text."""
        sums, squares = [], []
        for block, rows in enumerate(self.rows):
            mine = self.block == block
            value = self.value[mine]
            bag = csr_array((value, (self.text[mine], self.row[mine])), shape=(self.n_texts, len(rows)))
            sums.append(bag @ rows)
            squares.append(np.bincount(self.text[mine], weights=value**2, minlength=self.n_texts))
        return sums, squares

    @cached_property
    def _touches(self) -> tuple[ndarray, ndarray]:
        """Key text x words + word of each word of each entry, ascending; and the entry."""
        size = max(len(self.vocabulary), 1)
        two = np.flatnonzero((self.second >= 0) & (self.second != self.first))
        key = np.concatenate([self.text * size + self.first, self.text[two] * size + self.second[two]])
        entry = np.concatenate([np.arange(len(self.text)), two])
        order = np.argsort(key, kind="stable")
        return key[order], entry[order]

    def _removed(self, text: ndarray, gone: Gone) -> tuple[ndarray, ndarray]:
        """(variant, entry) of all that goes, each once."""
        key, entry = self._touches
        wanted = text[gone.variant] * max(len(self.vocabulary), 1) + gone.word
        begin, end = np.searchsorted(key, wanted), np.searchsorted(key, wanted, side="right")
        n = end - begin
        at = np.arange(n.sum()) + np.repeat(begin - np.cumsum(n) + n, n)
        variant, removed = np.repeat(gone.variant, n), entry[at]
        if np.diff(gone.offsets).max(initial=0) > 1:  # a pair can go with both of its words
            both = np.unique(variant * max(len(self.text), 1) + removed)
            variant, removed = np.divmod(both, max(len(self.text), 1))
        return variant, removed


@runtime_checkable
class Summing(Protocol):
    """An encoder whose vectors are sums over the terms of a text."""

    def bag(self, texts: Sequence[str]) -> Bag:
        """Texts as sums, of which terms can be left out."""
        ...


@dataclass(frozen=True, eq=False)
class Reread:
    """Texts that are encoded again without the words: for encoders that are more than a sum.

    Args:
        texts: The texts.
        encode: Texts -> unit vectors.
    """

    texts: Sequence[str]
    encode: Callable[[Sequence[str]], Float[ndarray, "texts text_dim"]]

    @cached_property
    def _terms(self) -> Terms:
        return terms_of(self.texts)

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Distinct words."""
        return self._terms.vocabulary

    @property
    def occurrences(self) -> tuple[Int[ndarray, " occurrences"], Int[ndarray, " occurrences"]]:
        """Text and word of each occurrence: a word once a text."""
        single = self._terms.second < 0
        return self._terms.text[single], self._terms.first[single]

    def without(self, text: Int[ndarray, " variants"], gone: Gone) -> Float[ndarray, "variants text_dim"]:
        """Unit vectors of variants of texts, each without some words; zero where nothing is left."""
        names, offsets = self.vocabulary, gone.offsets
        return self._read(
            [
                _cut(self.texts[of], {names[word] for word in gone.word[offsets[place] : offsets[place + 1]]})
                for place, of in enumerate(text.tolist())
            ]
        )

    def without_sets(self, gone: Bool[ndarray, "sets words"]) -> Float[ndarray, "sets texts text_dim"]:
        """Unit vectors of all texts, without each of some sets of words; zero where nothing is left."""
        sets = [{self.vocabulary[word] for word in np.flatnonzero(words)} for words in gone]
        read = self._read([_cut(text, words) for words in sets for text in self.texts])
        return read.reshape(len(sets), len(self.texts), -1)

    def _read(self, cut: Sequence[str]) -> Float[ndarray, "texts text_dim"]:
        """Each distinct text is read once."""
        distinct = list(dict.fromkeys(cut))
        vectors = np.array(self.encode(distinct), dtype=np.float32)
        vectors[[not text.strip() for text in distinct]] = 0
        place = {text: number for number, text in enumerate(distinct)}
        return np.asarray(vectors[[place[text] for text in cut]])


def _cut(text: str, gone: set[str]) -> str:
    """The text without some words; what stands around them stays."""
    kept, at = [], 0
    for word, begin, end in spans(text) if gone else ():
        if word in gone:
            kept.append(text[at:begin])
            at = end
    return "".join([*kept, text[at:]])


def _unit(vectors: Float[ndarray, "*rows text_dim"]) -> Float[ndarray, "*rows text_dim"]:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(length, 1e-12), dtype=np.float32)
