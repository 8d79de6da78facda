"""Words: what counts as one, in any language, and how often each occurs in a text."""

import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
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
_LOWER = "".join(chr(c).lower() if chr(c).isalnum() or chr(c) == "_" else " " for c in range(128))
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
    if text.isascii():  # the same in a third of the time
        return text.translate(_LOWER).split()
    return _FIND(unicodedata.normalize("NFKC", _ACCENTS.sub("", unicodedata.normalize("NFKD", text.lower()))))


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


def numbered(
    texts: Iterable[str], number: Callable[[list[str]], Iterable[int]]
) -> tuple[Int[ndarray, " words"], Int[ndarray, " words"]]:
    """Words of texts as numbers.

    Args:
        texts: Any texts.
        number: Numbers of some words.

    Returns:
        The number of each word of each text, in order, and the text that each stands in.
    """
    each = [list(number(words(text))) for text in texts]
    n = np.fromiter(map(len, each), dtype=np.int64, count=len(each))
    word = np.fromiter(itertools.chain.from_iterable(each), dtype=np.int64, count=int(n.sum()))
    return word, np.repeat(np.arange(len(each)), n)


def numbering(index: dict[str, int]) -> Callable[[list[str]], list[int]]:
    """Number words as they come up, and keep their numbers in `index`."""
    return lambda found: [index.setdefault(word, len(index)) for word in found]


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
    word, text = numbered(texts, numbering(index))
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


class Vocabulary:
    """Words, and pairs of neighbouring ones, to be found in texts.

    Args:
        words: The words; a number is the position of one.
        pairs: Pairs as first * len(words) + second, ascending.
    """

    def __init__(self, words: Sequence[str], pairs: Int[ndarray, " pairs"]) -> None:
        self.words, self.pairs = tuple(words), pairs
        self._index = {word: number for number, word in enumerate(self.words)}

    @classmethod
    def of(cls, terms: Sequence[str]) -> tuple["Vocabulary", Int[ndarray, " words"], Int[ndarray, " pairs"]]:
        """The vocabulary of some terms.

        Args:
            terms: Words, and pairs of words with a blank between.

        Returns:
            The vocabulary, which also has the words of pairs that are no terms themselves; the term that each of its
            words is, -1 if none; and the term that each of its pairs is.
        """
        each = [term.split(" ") for term in terms]
        words = tuple(dict.fromkeys(itertools.chain.from_iterable(each)))
        index = {word: number for number, word in enumerate(words)}
        first = np.array([index[term[0]] for term in each], dtype=np.int64)
        second = np.array([index[term[1]] if len(term) > 1 else -1 for term in each], dtype=np.int64)
        term_of_word = np.full(len(words), -1, dtype=np.int64)
        term_of_word[first[second < 0]] = np.flatnonzero(second < 0)
        pair = np.where(second < 0, -1, first * len(words) + second)
        of_pairs = np.argsort(pair)[np.count_nonzero(second < 0) :]
        return cls(words, pair[of_pairs]), term_of_word, of_pairs

    def ids(self, texts: Iterable[str]) -> tuple[Int[ndarray, " words"], Int[ndarray, " words"]]:
        """Return the known words of all texts in order, and the text that each stands in; -1 is an unknown word."""
        return numbered(texts, lambda found: map(self._index.get, found, itertools.repeat(-1)))

    def pairs_of(
        self, word: Int[ndarray, " words"], text: Int[ndarray, " words"]
    ) -> tuple[Int[ndarray, " pairs"], Int[ndarray, " pairs"]]:
        """Return the pairs of neighbouring known words, and the text that each stands in."""
        both = np.flatnonzero((word[:-1] >= 0) & (word[1:] >= 0) & (text[:-1] == text[1:]))
        return word[both] * len(self.words) + word[both + 1], text[both]

    def found_in(self, texts: Iterable[str]) -> tuple[ndarray, ndarray, ndarray, ndarray]:
        """Return the words of all texts and the text of each, the places in `pairs` of the pairs, and theirs."""
        word, text = self.ids(texts)
        pair, pair_text = self.pairs_of(word, text)
        place = self._places(pair)
        known, here = word >= 0, place >= 0
        return word[known], text[known], place[here], pair_text[here]

    def rows_of(self, terms: Terms) -> tuple[Int[ndarray, " terms"], Int[ndarray, " terms"]]:
        """Number of each term among the words, and place among the pairs; -1 where it is none of them."""
        known = np.array([self._index.get(word, -1) for word in terms.vocabulary], dtype=np.int64)
        first, second = known[terms.first], np.where(terms.second < 0, -1, known[terms.second])
        pair = np.where((first >= 0) & (second >= 0), first * len(self.words) + second, -1)
        return np.where(terms.second < 0, first, -1), self._places(pair)

    def _places(self, pair: Int[ndarray, " some"]) -> Int[ndarray, " some"]:
        """Where pairs stand among those known; -1 for any other."""
        at = np.searchsorted(self.pairs, pair)
        return np.where(np.append(self.pairs, -2)[at] == pair, at, -1)


class Bags(Vocabulary):
    """Weighs the words of a vocabulary, and pairs of neighbouring ones, as rows of a sparse matrix.

    Args:
        words: Words; their positions are the columns.
        idf: Weight of each word.
        pairs: As of Vocabulary; their positions are the columns.
        pair_idf: Weight of each pair.
    """

    def __init__(
        self,
        words: Sequence[str],
        idf: Float[ndarray, " words"],
        pairs: Int[ndarray, " pairs"],
        pair_idf: Float[ndarray, " pairs"],
    ) -> None:
        super().__init__(words, pairs)
        self.idf, self.pair_idf = idf, pair_idf

    def __call__(self, texts: Sequence[str]) -> tuple[csr_array, csr_array]:
        """Bags of words and of pairs: (1 + log count) * idf, rows of unit length, empty where nothing is known."""
        word, text, pair, pair_text = self.found_in(texts)
        return (
            _unit_rows(word, text, self.idf, len(texts)),
            _unit_rows(pair, pair_text, self.pair_idf, len(texts)),
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
