"""Words: what counts as one, in any language, and how often each occurs in a text."""

import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.sparse import csr_array, diags_array

# Chinese, Japanese and Thai put no space between words: there a character counts as a word, a pair as a phrase
_ALONE = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
# vowel signs of Hebrew, Arabic and the Indic scripts, which \w leaves out, though they stand inside words
_SIGNS = "\u0591-\u05c7\u064b-\u065f\u0900-\u0963\u0966-\u0dff"
_WORD = re.compile(rf"[{_ALONE}]|(?:[^\W{_ALONE}]|[{_SIGNS}])+")
_FIND = _WORD.findall
_ACCENTS = re.compile("[\u0300-\u036f]")  # of the Latin, Greek and Cyrillic scripts


def words(text: str) -> list[str]:
    """Words of a text, lower case, without accents.

    Args:
        text: Any text.

    Returns:
        The words in order.

    Example:
        >>> words("Très bon: 5 cm. 弦が हिन्दी")
        ['tres', 'bon', '5', 'cm', '弦', 'が', 'हिन्दी']
    """
    text = text.lower()
    if not text.isascii():
        text = unicodedata.normalize("NFKC", _ACCENTS.sub("", unicodedata.normalize("NFKD", text)))
    return _FIND(text)


def spans(text: str) -> Iterator[tuple[str, int, int]]:
    """Words of a text as `words` has them, and where each stands.

    Args:
        text: Any text.

    Yields:
        Word, begin and end.

    Example:
        >>> list(spans("Très bon"))
        [('tres', 0, 4), ('bon', 5, 8)]
    """
    for found in _WORD.finditer(text):
        yield "".join(words(found[0])), found.start(), found.end()


@dataclass(frozen=True, eq=False)
class Terms:
    """Words of some texts and pairs of neighbouring ones, each once a text.

    Args:
        vocabulary: The distinct words, in the order in which they come up.
        text: Text of each term, ascending among words and among pairs.
        first: The word, or the first of a pair.
        second: The second word of a pair, -1 for a single word.
        count: How often the term occurs in the text.
    """

    vocabulary: tuple[str, ...]
    text: Int[ndarray, " terms"]
    first: Int[ndarray, " terms"]
    second: Int[ndarray, " terms"]
    count: Int[ndarray, " terms"]


def terms_of(texts: Iterable[str]) -> Terms:
    """Count the words and word pairs of texts.

    Args:
        texts: Any texts.

    Returns:
        The terms, single words first.

    Example:
        >>> terms = terms_of(["oem gasket", "gasket"])
        >>> terms.vocabulary, terms.first.tolist(), terms.second.tolist()
        (('oem', 'gasket'), [0, 1, 1, 0], [-1, -1, -1, 1])
    """
    index: dict[str, int] = {}
    each = [[index.setdefault(word, len(index)) for word in words(text)] for text in texts]
    n = np.fromiter(map(len, each), dtype=np.int64, count=len(each))
    word = np.fromiter(itertools.chain.from_iterable(each), dtype=np.int64, count=int(n.sum()))
    text = np.repeat(np.arange(len(each)), n)
    size = max(len(index), 1)
    single, single_count = np.unique(text * size + word, return_counts=True)
    both = np.flatnonzero(text[:-1] == text[1:])
    pair, pair_count = np.unique((text[both] * size + word[both]) * size + word[both + 1], return_counts=True)
    rest, second = np.divmod(pair, size)
    return Terms(
        tuple(index),
        np.concatenate([single // size, rest // size]),
        np.concatenate([single % size, rest % size]),
        np.concatenate([np.full(len(single), -1), second]),
        np.concatenate([single_count, pair_count]),
    )


class Bags:
    """Counts the words of a vocabulary, and pairs of neighbouring ones, as rows of a sparse matrix.

    Args:
        vocabulary: Words; their positions are the columns.
        idf: Weight of each word.
        pairs: Pairs as first * len(vocabulary) + second, ascending; their positions are the columns.
        pair_idf: Weight of each pair.
    """

    def __init__(
        self,
        vocabulary: Sequence[str],
        idf: Float[ndarray, " words"],
        pairs: ndarray,
        pair_idf: Float[ndarray, " pairs"],
    ) -> None:
        self.vocabulary, self.idf, self.pairs, self.pair_idf = tuple(vocabulary), idf, pairs, pair_idf
        self._index = {word: index for index, word in enumerate(self.vocabulary)}

    def ids(self, texts: Iterable[str]) -> tuple[ndarray, ndarray]:
        """Return the known words of all texts in order, and the text that each stands in; -1 is an unknown word."""
        index = self._index.get
        each = [[index(word, -1) for word in words(text)] for text in texts]
        n = np.fromiter(map(len, each), dtype=np.int64, count=len(each))
        flat = np.fromiter(itertools.chain.from_iterable(each), dtype=np.int64, count=int(n.sum()))
        return flat, np.repeat(np.arange(len(each)), n)

    def pairs_of(self, word: ndarray, text: ndarray) -> tuple[ndarray, ndarray]:
        """Return the pairs of neighbouring known words, and the text that each stands in."""
        both = np.flatnonzero((word[:-1] >= 0) & (word[1:] >= 0) & (text[:-1] == text[1:]))
        return word[both] * len(self.vocabulary) + word[both + 1], text[both]

    def rows_of(self, terms: Terms) -> tuple[Int[ndarray, " terms"], Int[ndarray, " terms"]]:
        """Column of each term among the words, and among the pairs; -1 where it is none of them."""
        known = np.array([self._index.get(word, -1) for word in terms.vocabulary], dtype=np.int64)
        first, second = known[terms.first], np.where(terms.second < 0, -1, known[terms.second])
        pair = np.where((first >= 0) & (second >= 0), first * len(self.vocabulary) + second, -1)
        at = np.minimum(np.searchsorted(self.pairs, pair), max(len(self.pairs) - 1, 0))
        found = self.pairs[at] == pair if len(self.pairs) else np.zeros(len(pair), dtype=bool)
        return np.where(terms.second < 0, first, -1), np.where(found, at, -1)

    def __call__(self, texts: Sequence[str]) -> tuple[csr_array, csr_array]:
        """Bags of words and of pairs: (1 + log count) * idf, rows of unit length, empty where nothing is known."""
        word, text = self.ids(texts)
        pair, pair_text = self.pairs_of(word, text)
        at = np.minimum(np.searchsorted(self.pairs, pair), max(len(self.pairs) - 1, 0))
        found = self.pairs[at] == pair if len(self.pairs) else np.zeros(len(pair), dtype=bool)
        known = word >= 0
        return (
            _unit_rows(word[known], text[known], self.idf, len(texts)),
            _unit_rows(at[found], pair_text[found], self.pair_idf, len(texts)),
        )


def count_words(texts: Iterable[str]) -> Counter[str]:
    """In how many texts each word occurs."""
    seen: Counter[str] = Counter()
    for text in texts:
        seen.update(set(words(text)))
    return seen


def _unit_rows(column: ndarray, row: ndarray, weight: ndarray, n_rows: int) -> csr_array:
    key, count = np.unique(row * max(len(weight), 1) + column, return_counts=True)
    row, column = np.divmod(key, max(len(weight), 1))
    value = (1 + np.log(count)) * weight[column]
    length = np.sqrt(np.bincount(row, weights=value**2, minlength=n_rows))
    matrix = csr_array((value, (row, column)), shape=(n_rows, len(weight)))
    return csr_array(diags_array(1 / np.maximum(length, 1e-12)) @ matrix).astype(np.float32)
