"""Terms worth keeping, against scikit-learn's counter."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer, TfidfVectorizer

import symcere as sc
from symcere.text import vocabulary
from symcere.text.corpus import corpus_of
from symcere.text.tfidf import TermVectors
from symcere.text.vocabulary import count_terms
from symcere.text.words import Vocabulary, terms_of, words

TEXT = st.lists(st.sampled_from(["a", "ab", "b", "b2", "Été", "हिन्दी", "弦が", "zz", "1"]), max_size=8).map(" ".join)


@pytest.fixture(autouse=True)
def few_at_once(monkeypatch):
    monkeypatch.setattr(vocabulary, "_TEXTS", 3)


@given(st.lists(TEXT, min_size=4, max_size=14), st.integers(1, 30), st.sampled_from([0.5, 0.8]))
def test_what_is_counted_is_what_scikit_learn_counts_in_its_order_to_the_bit(texts, most, share):
    theirs = CountVectorizer(
        min_df=2, max_df=share, ngram_range=(1, 2), max_features=most, tokenizer=words, token_pattern=None,
        lowercase=False, dtype=np.float32,
    )  # fmt: skip
    found = count_terms(texts, most=most, share=share)
    try:
        expected = theirs.fit_transform(texts)
    except ValueError:  # there is no term, or none that is neither too rare nor too frequent
        assert found.terms == ()
        assert found.counts.shape == (len(texts), 0)
        return
    assert list(found.terms) == theirs.get_feature_names_out().tolist()
    for ours, sklearns in (
        (found.counts.data, expected.data),
        (found.counts.indices, expected.indices),
        (found.counts.indptr, expected.indptr),
    ):
        np.testing.assert_array_equal(ours, sklearns)
        assert ours.dtype == sklearns.dtype


def test_real_texts_too(shared):
    file = shared / "tripadvisor" / "reviews_core3.parquet"
    texts = list(dict.fromkeys(sc.read_reviews(file).table["text"].to_list()[:1_500]))
    theirs = CountVectorizer(
        min_df=2, max_df=0.5, ngram_range=(1, 2), max_features=5_000, tokenizer=words, token_pattern=None,
        lowercase=False, dtype=np.float32,
    )  # fmt: skip
    expected = theirs.fit_transform(texts)
    terms, counts = count_terms(texts, most=5_000)
    assert list(terms) == theirs.get_feature_names_out().tolist()
    assert abs(counts - expected).nnz == 0
    np.testing.assert_array_equal(counts.indices, expected.indices)


@pytest.mark.parametrize("texts", [[], ["", ""], ["once", "twice"], ["all", "all"]])
def test_where_no_term_is_in_some_texts_and_not_in_all_there_is_none(texts):
    terms, counts = count_terms(texts, most=9)
    assert terms == ()
    assert counts.shape == (len(texts), 0)


def test_a_corpus_without_such_a_term_is_a_sentence():
    fitted = sc.tfidf_encoder().fit(corpus_of(["once", "twice"]))
    with pytest.raises(sc.DataError, match="in at least two of the 2 train texts"):
        fitted.encode(["once"])


@given(st.lists(TEXT, min_size=4, max_size=14), st.lists(TEXT, max_size=9), st.integers(1, 30))
def test_terms_are_weighed_as_scikit_learn_weighs_them_to_the_bit(texts, new, most):
    terms, counts = count_terms(texts, most=most, share=1.0)
    if not terms:
        return
    weighting = TfidfTransformer(sublinear_tf=True)
    weights = weighting.fit_transform(counts)
    theirs = TfidfVectorizer(
        sublinear_tf=True, ngram_range=(1, 2), vocabulary=dict(zip(terms, range(len(terms)), strict=True)),
        tokenizer=words, token_pattern=None, lowercase=False, dtype=np.float32,
    )  # fmt: skip
    theirs.idf_ = weighting.idf_
    table = TermVectors(terms, weighting.idf_, np.eye(len(terms), dtype=np.float32))
    expected, found = theirs.transform([*new, *texts]), table.weights([*new, *texts])
    np.testing.assert_array_equal(found.toarray(), expected.toarray())
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_allclose(table.encode(texts), weights.toarray(), atol=1e-6)
    np.testing.assert_allclose(table.bag([*new, *texts]).whole(), found.toarray(), atol=1e-6)
    assert table.encode([]).shape == (0, len(terms))


def test_what_is_learned_weighs_terms_as_scikit_learn_does(split):
    corpus = corpus_of(split.train.review)
    table, weights, _ = sc.tfidf_encoder(8).fit(corpus).parts
    theirs = TfidfVectorizer(
        sublinear_tf=True, ngram_range=(1, 2), min_df=2, max_df=0.5, max_features=50_000, tokenizer=words,
        token_pattern=None, lowercase=False, dtype=np.float32,
    )  # fmt: skip
    expected = theirs.fit_transform(corpus.sample(100_000))
    assert list(table.terms) == theirs.get_feature_names_out().tolist()
    np.testing.assert_array_equal(table.idf, theirs.idf_)
    np.testing.assert_array_equal(weights.toarray(), expected.toarray())


def test_an_unknown_pair_is_not_the_first_word_twice():
    known, _, _ = Vocabulary.of(["a a", "b"])
    terms = terms_of(["a a", "x y"])
    assert known.rows_of(terms)[1].tolist() == [-1, -1, -1, 0, -1]


@given(st.lists(TEXT, min_size=1, max_size=6), st.lists(TEXT, min_size=1, max_size=6))
def test_pairs_are_found_whose_words_are_no_terms_themselves(texts, others):
    named = sorted({f"{a} {b}" for text in texts for a, b in itertools.pairwise(words(text))} | {"a", "zz"})
    known, term_of_word, term_of_pair = Vocabulary.of(named)
    word, text, pair, pair_text = known.found_in(others)
    found = [(named[n], t) for n, t in zip(term_of_word[word].tolist(), text.tolist(), strict=True) if n >= 0]
    found += [(named[n], t) for n, t in zip(term_of_pair[pair].tolist(), pair_text.tolist(), strict=True)]
    each = [words(other) for other in others]
    expected = [(term, t) for t, found_words in enumerate(each) for term in found_words if term in ("a", "zz")]
    expected += [
        (f"{a} {b}", t) for t, found_words in enumerate(each) for a, b in itertools.pairwise(found_words)
        if f"{a} {b}" in named
    ]  # fmt: skip
    assert sorted(found) == sorted(expected)
