"""Terms worth keeping, against scikit-learn's counter."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import CountVectorizer

import symcere as sc
from symcere.text import vocabulary
from symcere.text.corpus import corpus_of
from symcere.text.vocabulary import count_terms
from symcere.text.words import words

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
