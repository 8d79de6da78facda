"""Lift: terms that come back, counted by hand and told apart from those that do not."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

import symcere as sc
from symcere.errors import DataError
from symcere.text import lift as lift_module
from symcere.text.corpus import corpus_of
from symcere.text.lift import FLOOR, SMOOTHING, lift_weights, of_some_users


def _by_hand(stands, user, item):
    """The same by loops over reviews."""
    n, weights = len(user), []
    for term in range(stands.shape[1]):
        n_user = n_item = n_both = 0
        for own in range(n):
            others = [review for review in range(n) if review != own and stands[review, term]]
            of_user, of_item = (any(side[review] == side[own] for review in others) for side in (user, item))
            n_user, n_item, n_both = n_user + of_user, n_item + of_item, n_both + (of_user and of_item)
        lift = (n_both + SMOOTHING) / (n_user * n_item / n + SMOOTHING)
        weights.append(max(np.log(lift), 0) + FLOOR)
    return weights


def test_texts_that_are_exchanged_are_another_encoder_and_rows_in_another_order_are_not():
    texts, user, item = ["a b", "c d", "e f", "", "g h"], np.array([0, 0, 1, 1, 2]), np.array([0, 1, 1, 2, 0])

    def fingerprint(order, mixed):
        corpus = corpus_of([mixed[row] for row in order], pairs=(user[order], item[order]))
        return sc.lift_encoder().fit(corpus).fingerprint

    same, back = np.arange(5), np.arange(5)[::-1]
    exchanged = ["c d", "a b", *texts[2:]]
    assert fingerprint(same, texts) == fingerprint(back, texts)
    assert fingerprint(same, texts) != fingerprint(same, exchanged)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000), n=st.integers(2, 40), block=st.sampled_from([1, 7, 2_048]))
def test_lift_is_what_loops_count(seed, n, block):
    draws = np.random.default_rng(seed)
    user, item = draws.integers(0, 5, n), draws.integers(0, 4, n)
    stands = draws.random((n, 6)) < 0.4
    stands[user == 0, 0] = True
    terms = csr_array(stands * draws.random((n, 6)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lift_module, "_BLOCK", block)
        patch.setattr(lift_module, "SMOOTHING", 0.5)
        patch.setitem(globals(), "SMOOTHING", 0.5)
        np.testing.assert_allclose(lift_weights(terms, user, item), _by_hand(stands, user, item), rtol=1e-5)


def test_whole_users_are_drawn():
    user = np.random.default_rng(0).integers(0, 100, 1_000)
    some = of_some_users(user, 300)
    assert 250 <= len(some) <= 300
    assert (np.diff(some) > 0).all()
    drawn = np.unique(user[some])
    np.testing.assert_array_equal(some, np.flatnonzero(np.isin(user, drawn)))
    np.testing.assert_array_equal(of_some_users(user, 1_000), np.arange(1_000))
    assert len(of_some_users(np.zeros(10, dtype=np.int64), 5)) == 0
    for busy in range(100):  # one who wrote more than all may have keeps nobody else out
        user[:500] = busy
        assert len(of_some_users(user, 300)) > 250
        user[:500] = np.arange(500) % 100


def _world():
    """Users of one place each, whose words come back; moods that do not."""
    draws, rows = np.random.default_rng(3), []
    for user in range(120):
        place = user % 6
        for item in draws.choice(10, 4, replace=False):
            mood = ["great", "good", "awful", "fine"][draws.integers(4)]
            rows.append((user, place * 10 + int(item), f"{mood} stay near harbour{place} again"))
    user, item, text = zip(*rows, strict=True)
    return pl.DataFrame({"title": "", "text": text}), (np.array(user), np.array(item))


def test_terms_that_come_back_weigh_more():
    table, pairs = _world()
    plain = sc.tfidf_encoder(8).fit(corpus_of(table, pairs=pairs)).table
    lifted = sc.lift_encoder(8).fit(corpus_of(table, pairs=pairs)).table
    assert lifted.terms == plain.terms
    weight = dict(zip(lifted.terms, lifted.idf / plain.idf, strict=True))
    assert min(weight[f"harbour{place}"] for place in range(6)) > 1.0
    assert max(weight[mood] for mood in ("great", "good", "awful", "fine")) < 0.25

    def told_apart(table):
        one, other, third = table.encode(["great stay near harbour1", "awful stay near harbour1", "great harbour2"])
        return one @ other - one @ third

    assert told_apart(lifted) > told_apart(plain)


def test_neither_the_order_of_reviews_nor_their_mood_decides():
    table, (user, item) = _world()
    order = np.random.default_rng(1).permutation(len(table))
    one = sc.lift_encoder(6).fit(corpus_of(table, pairs=(user, item)))
    other = sc.lift_encoder(6).fit(corpus_of(table[order], pairs=(user[order], item[order])))
    np.testing.assert_array_equal(one.encode(table["text"].to_list()), other.encode(table["text"].to_list()))


def test_words_alone_are_refused_and_pairs_decide():
    table, (user, item) = _world()
    with pytest.raises(DataError, match="who wrote"):
        sc.lift_encoder().fit(corpus_of(table))
    fingerprints = {
        encoder.fit(corpus_of(table, pairs=pairs)).fingerprint
        for encoder in (sc.tfidf_encoder(), sc.lift_encoder())
        for pairs in ((user, item), (user[::-1].copy(), item))
    }
    assert len(fingerprints) == 3  # plain terms do not read them


def test_a_corpus_that_is_too_large_is_learned_from_by_users(monkeypatch):
    table, (user, item) = _world()
    corpus = corpus_of(table, pairs=(user, item))
    monkeypatch.setattr("symcere.text.tfidf.FITTED_ON", 200)
    texts, (some, _) = sc.lift_encoder().fit(corpus)._sample()
    assert len(texts) == len(some) <= 200
    np.testing.assert_array_equal(np.bincount(some)[np.unique(some)], 4)  # all reviews of each
