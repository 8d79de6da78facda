"""The texts that encoders see: cleaned, distinct ones once, the same in every order; and what counts as a word."""

import itertools
import re

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from symcere.text.corpus import clean_text, corpus_of
from symcere.text.words import Bags, words

TEXTS = st.lists(st.sampled_from(["", " ", "a", "b ", " b", "<br />", "c&amp;d", "c&d", "日本", "é"]), max_size=12)


def test_clean_text_removes_tags_and_entities_and_keeps_every_language():
    raw = ["a<br />b", "&#34;x&#34; &amp; y", "1 < 2 > 0", "日本語 ok", "", "<b class='c'>bold</b>"]
    assert clean_text(pl.Series(raw)).to_list() == ["a b", '"x" & y', "1 < 2 > 0", "日本語 ok", "", " bold "]


@given(TEXTS)
def test_a_corpus_holds_each_distinct_text_once_and_knows_who_wrote_it(texts):
    corpus = corpus_of(texts)
    cleaned = [text.strip() for text in clean_text(pl.Series(texts, dtype=pl.String))]
    assert sorted(corpus.take(slice(None))) == sorted(set(cleaned) - {""})
    assert corpus.review.tolist() == [row for row, text in enumerate(cleaned) if text]
    held = corpus.take(corpus.text)
    assert held == [text for text in cleaned if text]
    assert corpus.length.tolist() == [len(text) for text in corpus.take(slice(None))]


@given(TEXTS, st.randoms())
def test_the_order_of_reviews_changes_nothing(texts, random):
    shuffled = random.sample(texts, len(texts))
    one, other = corpus_of(texts), corpus_of(shuffled)
    assert one.take(slice(None)) == other.take(slice(None))
    assert one.fingerprint == other.fingerprint


def test_chunks_change_nothing(monkeypatch):
    texts = [f"text {n % 7}" for n in range(20)]
    whole = corpus_of(texts)
    monkeypatch.setattr("symcere.text.corpus._CHUNK", 3)
    parts = corpus_of(texts)
    np.testing.assert_array_equal(whole.keys, parts.keys)
    np.testing.assert_array_equal(whole.text, parts.text)


@pytest.mark.parametrize(("part", "expected"), [("review", ["A\nB", "C"]), ("title", ["A"]), ("body", ["B", "C"])])
def test_a_part_of_a_review_is_read(part, expected):
    reviews = pl.DataFrame({"title": ["A", ""], "text": ["B", "C"]})
    assert sorted(corpus_of(reviews, part).take(slice(None))) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don't panic: 5cm!", ["don", "t", "panic", "5cm"]),
        ("Señor Über", ["senor", "uber"]),
        ("弦が切れた。", ["弦", "が", "切", "れ", "た"]),
        ("отличный звук", ["отличныи", "звук"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("안녕 하세요", ["안녕", "하세요"]),
        ("", []),
    ],
)
def test_words_of_many_languages(text, expected):
    assert words(text) == expected


@given(st.text(st.characters(max_codepoint=127)))
def test_words_of_ascii_are_those_of_any_text(text):
    assert words(text) == re.findall(r"\w+", text.lower())
    assert words(text + " é") == [*words(text), "e"]


def test_bags_equal_a_loop():
    vocabulary, idf = ("a", "b", "c"), np.array([1.0, 2.0, 3.0])
    pairs, pair_idf = np.array([0 * 3 + 1, 1 * 3 + 0]), np.array([1.5, 2.5])  # "a b" and "b a"
    texts = ["a b a x b", "c", "x", ""]
    found, found_pairs = (matrix.toarray() for matrix in Bags(vocabulary, idf, pairs, pair_idf)(texts))
    for row, text in enumerate(texts):
        each = text.split()
        expected = np.array(
            [(1 + np.log(each.count(w))) * i if w in each else 0 for w, i in zip(vocabulary, idf, strict=True)]
        )
        two = [f"{x} {y}" for x, y in itertools.pairwise(each)]
        expected_pairs = np.array(
            [(1 + np.log(two.count(p))) * i if p in two else 0 for p, i in zip(("a b", "b a"), pair_idf, strict=True)]
        )
        np.testing.assert_allclose(found[row], expected / max(np.linalg.norm(expected), 1e-12), rtol=1e-6)
        np.testing.assert_allclose(
            found_pairs[row], expected_pairs / max(np.linalg.norm(expected_pairs), 1e-12), rtol=1e-6
        )
