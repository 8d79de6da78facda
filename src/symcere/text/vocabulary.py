"""Terms worth keeping: words and pairs of neighbouring words of many texts, counted as integers."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy import ndarray
from scipy.sparse import csr_array

from symcere.text.words import numbered, numbering

_SHIFT = 31  # bits of the second word of a pair
_SECOND = (1 << _SHIFT) - 1
_TEXTS = 4_096  # counted at once


class Counted(NamedTuple):
    """How often each text has each term that is kept.

    Args:
        terms: Words, and pairs of words with a blank between, in alphabetical order.
        counts: A row a text, a column a term; within a row, terms stand in the order in which they first came up.
    """

    terms: tuple[str, ...]
    counts: csr_array


def count_terms(texts: Sequence[str], *, most: int, least_texts: int = 2, share: float = 0.5) -> Counted:
    """Count the words and word pairs of texts, and keep the most frequent ones.

    The same as scikit-learn's CountVectorizer with `ngram_range=(1, 2)`, `min_df`, `max_df` and `max_features`, which
    keeps a string for every pair that it ever saw: here a pair is a number, and a third of the time goes.

    Args:
        texts: Any texts.
        most: Terms to keep at most.
        least_texts: In so many texts a term has to be.
        share: In no more than this share of the texts.

    Returns:
        What is kept; no terms where no term is in so many and so few.

    Example:
        >>> found = count_terms(["oem gasket", "oem gasket gasket", "snug", "fine"], most=9)
        >>> found.terms, found.counts.toarray().tolist()[1]
        (('gasket', 'oem', 'oem gasket'), [2.0, 1.0, 1.0])
    """
    index: dict[str, int] = {}
    key, text, count, place = _occurrences(texts, index)
    kept, n_texts = np.unique(key, return_counts=True)
    kept = kept[(n_texts >= least_texts) & (n_texts <= share * len(texts))]
    term = np.searchsorted(kept, key).astype(np.int32)
    here = np.flatnonzero(np.append(kept, -1)[term] == key)
    del key
    term, text, count, place = term[here], text[here], count[here], place[here]
    del here
    alphabet = sorted(index)
    rank = np.empty(len(alphabet) + 1, dtype=np.int64)
    rank[0] = 0
    rank[[index[word] + 1 for word in alphabet]] = np.arange(1, len(alphabet) + 1)  # a blank comes before any letter
    order = np.argsort((rank[(kept >> _SHIFT) + 1] << _SHIFT) + rank[kept & _SECOND])
    total = np.bincount(term, count, len(kept)).astype(np.float32)[order]
    if len(order) > most:
        order = order[np.sort((-total).argsort()[:most])]
    column = np.full(len(kept), -1, dtype=np.int64)
    column[order] = np.arange(len(order))
    first = np.empty(len(kept), dtype=np.int64)
    is_pair = (kept & _SECOND > 0).astype(np.int64)
    first[term[::-1]] = place[::-1]  # the earliest is written last
    earliest = np.empty(len(kept), dtype=np.int64)
    earliest[term[::-1]] = text[::-1]
    first += 2 * earliest + is_pair << _SHIFT  # the words of a text come before its pairs
    chosen = column[term] >= 0
    term, text, count = term[chosen], text[chosen], count[chosen]
    by_row = np.lexsort((first[term], text))
    bounds = np.concatenate([[0], np.cumsum(np.bincount(text, minlength=len(texts)))])
    parts = (count[by_row].astype(np.float32), column[term[by_row]].astype(np.int32), bounds.astype(np.int32))
    first_word, second_word = rank[(kept[order] >> _SHIFT) + 1].tolist(), rank[kept[order] & _SECOND].tolist()
    names = (
        f"{alphabet[one - 1]} {alphabet[other - 1]}" if other else alphabet[one - 1]
        for one, other in zip(first_word, second_word, strict=True)
    )
    return Counted(tuple(names), csr_array(parts, shape=(len(texts), len(order))))


def _occurrences(texts: Sequence[str], index: dict[str, int]) -> tuple[ndarray, ...]:
    """Each term of each text: the term, the text, ascending, how often, and where it first stands among its kind.

    A word is its number in `index`, shifted; a pair adds the number of its second word, and one.
    """
    found: tuple[list[ndarray], ...] = ([], [], [], [])
    for start in range(0, len(texts), _TEXTS):
        word, text = numbered(texts[start : start + _TEXTS], numbering(index))
        both = np.flatnonzero(text[:-1] == text[1:])
        pairs = (word[both] << _SHIFT) + word[both + 1] + 1
        for term, row in ((word << _SHIFT, text), (pairs, text[both])):
            order = np.lexsort((term, row))
            term, row = term[order], row[order]
            new = np.flatnonzero((np.diff(term, prepend=-1) != 0) | (np.diff(row, prepend=-1) != 0))
            count = np.diff(new, append=len(term))
            for column, values in zip(found, (term[new], row[new] + start, count, order[new]), strict=True):
                column.append(values if column is found[0] else values.astype(np.int32))
    return tuple(_joined(column) for column in found)


def _joined(column: list[ndarray]) -> ndarray:
    """All of it as one, whose parts are let go of."""
    whole = np.concatenate(column or [np.empty(0, dtype=np.int64)])
    column.clear()
    return whole
