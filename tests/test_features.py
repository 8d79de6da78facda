"""Profiles: pooled as vectors pass by, weighted, conditioned, and without a pair's own review."""

import dataclasses
import shutil

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import symcere as sc
from conftest import reviews_of
from symcere.ids import IdMap
from symcere.text.conditioning import AS_IS, Conditioning, fit_conditioning
from symcere.text.corpus import clean_text, corpus_of
from symcere.text.profiles import Pool, review_weights
from symcere.text.reader import Reader
from symcere.training.text import without_own


def letters(texts):
    """A vector a text: its length, and the codes of its first and last letters."""
    return np.array([[len(text), ord(text[0]), ord(text[-1])] for text in texts], dtype=np.float32)


LETTERS = sc.function_encoder(letters, name="letters", conditioning=AS_IS)


def loop_profile(vectors, weight, rows):
    """Weighted mean of some rows, by the definition; zero of none."""
    rows = list(rows)
    if not rows:
        return np.zeros(vectors.shape[1])
    return sum(weight[row] * vectors[row] for row in rows) / sum(weight[row] for row in rows)


@given(st.integers(1, 8), st.integers(1, 20), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_pooling_equals_a_loop_in_any_order_of_chunks_bit_for_bit(n_nodes, n_reviews, n_rows, seed):
    draws = np.random.default_rng(seed)
    node, row = draws.integers(0, n_nodes, n_reviews), draws.integers(0, n_rows, n_reviews)
    vectors = draws.normal(size=(n_rows, 3)).astype(np.float16).astype(np.float64)
    weight = draws.uniform(0.1, 2, n_reviews).astype(np.float16).astype(np.float64)
    pools = [Pool(node, row, weight, n_nodes, n_rows, 3) for _ in range(2)]
    for pool in pools:
        for rows in np.array_split(draws.permutation(n_rows), 3):
            pool.add(rows, vectors[rows])
    means = [pool.mean() for pool in pools]
    assert means[0].tobytes() == means[1].tobytes()
    expected = [loop_profile(vectors[row], weight, np.flatnonzero(node == n)) for n in range(n_nodes)]
    np.testing.assert_allclose(means[0], expected, rtol=1e-10, atol=1e-12)


def test_profiles_are_means_of_cleaned_reviews(split):
    dirty = pl.Series([f"{text}<br />&amp;{'x' * (row % 7)}" for row, text in enumerate(split.train.review["text"])])
    train = dataclasses.replace(split.train, review=split.train.review.with_columns(text=dirty, title=pl.lit("t")))
    features = sc.encode_reviews(train, LETTERS)
    vectors = letters([f"t\n{text}".strip() for text in clean_text(dirty)])
    for side, node in ((features.user, train.user), (features.item, train.item)):
        for n in np.unique(node):
            np.testing.assert_allclose(side[n], vectors[node == n].mean(0), rtol=1e-5)


def test_features_leave_out_reviews_without_text(split):
    blank = pl.Series(split.train.user == 0)
    review = split.train.review.with_columns(
        pl.when(blank).then(pl.lit(" ")).otherwise(pl.col(name)).alias(name) for name in ("title", "text")
    )
    features = sc.encode_reviews(dataclasses.replace(split.train, review=review), sc.tfidf_encoder(16))
    assert not features.user[0].any()
    assert features.user[1:].any(1).all()


def test_features_without_any_text_are_refused(split):
    review = split.train.review.with_columns(title=pl.lit(""), text=pl.lit(" "))
    train = dataclasses.replace(split.train, review=review)
    with pytest.raises(sc.DataError, match="has text"):
        sc.encode_reviews(train, sc.tfidf_encoder())
    with pytest.raises(sc.DataError, match="at least one encoder"):
        sc.encode_reviews(train)


def test_a_second_encoding_takes_everything_from_the_cache_bit_for_bit(split, tmp_path):
    whole = sc.encode_reviews(split.train, sc.tfidf_encoder(16))
    first = sc.encode_reviews(split.train, sc.tfidf_encoder(16), cache=tmp_path)
    second = sc.encode_reviews(split.train, sc.tfidf_encoder(16), cache=tmp_path)
    (profiles,) = tmp_path.glob("profiles-*")
    shutil.rmtree(profiles)
    from_vectors = sc.encode_reviews(split.train, sc.tfidf_encoder(16), cache=tmp_path)
    assert first.n_encoded > 0
    assert second.n_encoded == from_vectors.n_encoded == 0
    assert first.user.tobytes() == second.user.tobytes() == from_vectors.user.tobytes() == whole.user.tobytes()
    assert first.fingerprint == second.fingerprint


def changed(train, row, **values):
    """Train with one review changed."""
    at = pl.int_range(pl.len()) == row
    review = train.review.with_columns(
        pl.when(at).then(value).otherwise(name).alias(name) for name, value in values.items()
    )
    return dataclasses.replace(train, review=review.cast(train.review.schema))


def test_profiles_are_kept_by_all_that_decides_them(split, tmp_path):
    asked = []

    def noted(texts):
        asked.extend(texts)
        return letters(texts)

    encoder = sc.function_encoder(noted, version="1", conditioning=AS_IS)
    first = sc.encode_reviews(split.train, encoder, cache=tmp_path)
    n = len(asked)
    again = sc.encode_reviews(split.train, encoder, cache=tmp_path)
    assert len(asked) == n
    assert again.user.tobytes() == first.user.tobytes()
    assert again.item.tobytes() == first.item.tobytes()
    assert again.fingerprint == first.fingerprint
    other_text = changed(split.train, 3, text=pl.lit("zz"))
    other_title = changed(split.train, 3, title=pl.lit("zz"))
    dated = changed(split.train, 3, timestamp=pl.lit(0))
    for train, ways in (
        (other_text, ()),
        (other_title, ()),
        (split.train, (sc.Recency(30),)),
        (dated, (sc.Recency(30),)),
    ):
        there = len(list(tmp_path.glob("profiles-*")))
        kept = sc.encode_reviews(train, encoder, weightings=ways, cache=tmp_path)
        fresh = sc.encode_reviews(train, encoder, weightings=ways)
        assert kept.user.tobytes() == fresh.user.tobytes()
        assert len(list(tmp_path.glob("profiles-*"))) == there + 1


def test_profiles_of_a_weighting_that_nobody_can_name_are_made_anew(split, tmp_path):
    def power(k):
        return lambda corpus: np.arange(1.0, len(corpus.table) + 1) ** k

    powers = (0.0, 3.0, -3.0)  # each takes the place, and the address, of the one before
    kept = [sc.encode_reviews(split.train, LETTERS, weightings=[power(k)], cache=tmp_path) for k in powers]
    for k, profiles in zip(powers, kept, strict=True):
        fresh = sc.encode_reviews(split.train, LETTERS, weightings=[power(k)])
        assert profiles.user.tobytes() == fresh.user.tobytes()


def test_profiles_of_vectors_by_id_are_kept_by_the_ids(split, tmp_path):
    train, path = split.train, tmp_path / "v.parquet"
    vectors = np.random.default_rng(0).normal(size=(len(train.items), 3)).tolist()
    pl.DataFrame({"item_id": list(train.items), "v": vectors}).write_parquet(path)
    renamed = dataclasses.replace(train, items=IdMap(tuple(reversed(train.items.ids)), "item"))
    encoder = dataclasses.replace(sc.precomputed(path), conditioning=Conditioning("none"))
    first, other = (sc.encode_reviews(each, encoder, cache=tmp_path / "cache") for each in (train, renamed))
    assert other.item.tobytes() == sc.encode_reviews(renamed, encoder).item.tobytes() != first.item.tobytes()


@pytest.mark.parametrize("kind", ["centre", "whiten"])
def test_a_review_of_which_nothing_is_known_stays_zero_under_any_conditioning(split, kind):
    train = split.train
    for row in np.flatnonzero(train.user == 0):
        train = changed(train, row, title=pl.lit(""), text=pl.lit(f"qqqq{row}"))
    half = np.flatnonzero(train.user == 1)[0]
    train = changed(train, half, title=pl.lit(""), text=pl.lit("zzzz"))
    encoder = dataclasses.replace(sc.tfidf_encoder(8), conditioning=Conditioning(kind, 4))
    text = sc.encode_reviews(train, encoder, leave_one_out=True)
    assert not text.user[0].any()
    own, reader = text.own[0], Reader.of(train, text, [encoder])
    mine = np.flatnonzero(train.user == 1)
    read = reader.open(mine).vectors()
    assert not read[0].any()
    np.testing.assert_allclose(text.user[1], read.mean(0), atol=1e-3)  # kept as float16
    np.testing.assert_allclose(own.vectors[mine], read, atol=1e-3)


def test_damaged_profiles_are_made_again(split, tmp_path):
    first = sc.encode_reviews(split.train, sc.tfidf_encoder(8), cache=tmp_path)
    (kept,) = tmp_path.glob("profiles-*")
    raw = bytearray((kept / "features.safetensors").read_bytes())
    raw[-1] ^= 1
    (kept / "features.safetensors").write_bytes(raw)
    again = sc.encode_reviews(split.train, sc.tfidf_encoder(8), cache=tmp_path)
    assert again.item.tobytes() == first.item.tobytes()


@pytest.mark.parametrize("how", ["function", "leave one out"])
def test_profiles_that_nobody_can_name_are_not_kept(split, tmp_path, how):
    if how == "function":
        sc.encode_reviews(split.train, letters, cache=tmp_path)
    else:
        sc.encode_reviews(split.train, LETTERS, leave_one_out=True, cache=tmp_path)
    assert not list(tmp_path.glob("profiles-*"))


def test_several_encoders_and_parts_stand_side_by_side(split):
    small, large = sc.tfidf_encoder(8), sc.tfidf_encoder(16)
    both = sc.encode_reviews(split.train, small, large)
    np.testing.assert_array_equal(both.item[:, :8], sc.encode_reviews(split.train, small).item)
    np.testing.assert_array_equal(both.item[:, 8:], sc.encode_reviews(split.train, large).item)
    parts = sc.encode_reviews(split.train, LETTERS, parts=("title", "body"))
    for columns, column in ((slice(0, 3), "title"), (slice(3, 6), "text")):
        alone = letters(split.train.review[column].to_list())
        np.testing.assert_allclose(parts.user[0, columns], alone[split.train.user == 0].mean(0), rtol=1e-5)


@given(st.sampled_from(["centre", "whiten"]), st.integers(1, 8), st.integers(0, 2**32 - 1))
def test_conditioning_centres_and_equalises_and_keeps_the_leading_directions(kind, dim, seed):
    draws = np.random.default_rng(seed)
    vectors = draws.normal(size=(400, 6)) @ np.diag([5, 4, 3, 2, 1, 0.5]) + 5
    weight = draws.integers(1, 4, 400).astype(float)
    white = fit_conditioning(vectors, weight, Conditioning(kind, dim))(vectors)
    assert white.shape[1] == min(dim, 6)
    np.testing.assert_allclose(np.average(white, axis=0, weights=weight), 0, atol=1e-4)
    covariance = np.cov(white.T, aweights=weight, bias=True).reshape(white.shape[1], -1)
    expected = np.linalg.eigvalsh(np.cov(vectors.T, aweights=weight, bias=True))[::-1][: white.shape[1]]
    np.testing.assert_allclose(
        covariance, np.diag(expected) if kind == "centre" else np.eye(len(expected)) / len(expected), atol=1e-3
    )


def test_a_profile_may_be_conditioned_instead_of_its_reviews(split):
    whole = dataclasses.replace(LETTERS, conditioning=Conditioning("whiten", 3))
    vectors = letters(corpus_of(split.train.review).take(slice(None)))
    corpus = corpus_of(split.train.review)
    n = np.bincount(corpus.text).astype(float)
    each = fit_conditioning(vectors, n, whole.conditioning)(vectors)[corpus.text]
    features = sc.encode_reviews(split.train, whole)
    np.testing.assert_allclose(features.user[3], each[split.train.user == 3].mean(0), atol=1e-5)


def test_the_map_is_fitted_on_a_sample_where_there_are_many(split, monkeypatch):
    monkeypatch.setattr("symcere.text.features.SAMPLE", 50)
    features = sc.encode_reviews(split.train, dataclasses.replace(LETTERS, conditioning=Conditioning("whiten", 3)))
    assert np.square(features.user).sum(1).mean() == pytest.approx(1, rel=2)  # sound, if not the same


WEIGHTS = {
    "recency": (
        sc.Recency(half_life_days=2 / 86_400),
        lambda r: 0.5 ** ((r["timestamp"].max() - r["timestamp"]) / 2),
    ),
    "helpfulness": (sc.Helpfulness(), lambda r: 1 + np.log1p(r["helpful"].fill_null(0))),
    "length": (sc.Length(), lambda r: np.log1p(r["text"].str.len_chars())),
}


def reviews_with_details():
    texts = ["aa bb", "aa", "bb cc dd", "aa cc", "dd dd", "ee aa"]
    reviews = reviews_of([("u", "x"), ("u", "y"), ("v", "x"), ("v", "y"), ("w", "x"), ("w", "z")], text=texts)
    helpful = pl.Series("helpful", [0, 3, None, 10, 0, 1], dtype=pl.Float32)
    return dataclasses.replace(reviews, table=reviews.table.with_columns(helpful))


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_follow_their_definition_and_reach_the_profile(name):
    weighting, definition = WEIGHTS[name]
    table = reviews_with_details().table
    expected = np.array(definition(table), dtype=float)
    weight = review_weights(corpus_of(table), [weighting])
    np.testing.assert_allclose(weight, expected / expected.mean(), rtol=1e-3)


def test_inverse_frequency_is_the_mean_rarity_of_words():
    table = reviews_with_details().table
    weight = review_weights(corpus_of(table), [sc.InverseFrequency()])
    n_with = {"aa": 4, "bb": 2, "cc": 2, "dd": 2, "ee": 1}
    expected = np.array([np.mean([np.log(7 / (1 + n_with[w])) for w in text.split()]) for text in table["text"]])
    np.testing.assert_allclose(weight, expected / expected.mean(), rtol=1e-3)


def test_weights_multiply_and_change_the_profiles_as_the_definition_says(split):
    weightings = [sc.Length(), sc.Recency()]
    features = sc.encode_reviews(split.train, LETTERS, weightings=weightings)
    corpus = corpus_of(split.train.review)
    weight = review_weights(corpus, weightings)
    vectors = letters(corpus.take(corpus.text))
    for n in range(5):
        expected = loop_profile(vectors, weight, np.flatnonzero(split.train.user == n))
        np.testing.assert_allclose(features.user[n], expected, rtol=1e-5)
    prints = {
        sc.encode_reviews(split.train, LETTERS, weightings=w).fingerprint for w in ([], weightings, weightings[:1])
    }
    assert len(prints) == 3


def test_weights_without_their_column_are_refused(split):
    silent = dataclasses.replace(
        split.train, review=split.train.review.with_columns(helpful=pl.lit(None, pl.Float32))
    )
    with pytest.raises(sc.DataError, match="'helpful', which is empty"):
        sc.encode_reviews(silent, LETTERS, weightings=[sc.Helpfulness()])
    with pytest.raises(sc.ConfigError, match="half-life"):
        sc.Recency(0)


@pytest.mark.parametrize("weightings", [(), (sc.Length(),)])
def test_leave_one_out_equals_encoding_without_the_review(split, weightings):
    """For some pairs: take the review out of the data, encode again, compare the two profiles."""
    encoders = [dataclasses.replace(LETTERS, conditioning=AS_IS), sc.function_encoder(letters, conditioning=AS_IS)]
    features = sc.encode_reviews(split.train, *encoders, weightings=weightings, leave_one_out=True)
    plain = sc.encode_reviews(split.train, *encoders, weightings=weightings)
    np.testing.assert_array_equal(features.user, plain.user)
    rows = np.array([0, 7, 100])
    user, item = split.train.user[rows], split.train.item[rows]
    found_user, found_item = features.left_out(user, item, rows)
    for at, row in enumerate(rows):
        blank = np.arange(len(split.train)) == row
        review = split.train.review.with_columns(
            pl.when(pl.Series(blank)).then(pl.lit("")).otherwise(pl.col(name)).alias(name)
            for name in ("title", "text")
        )
        without = sc.encode_reviews(dataclasses.replace(split.train, review=review), *encoders, weightings=weightings)
        np.testing.assert_allclose(found_user[at], without.user[user[at]], rtol=2e-3)
        np.testing.assert_allclose(found_item[at], without.item[item[at]], rtol=2e-3)


def test_leave_one_out_of_an_only_review_leaves_nothing(split):
    rows = np.flatnonzero(split.train.user == 0)
    review = split.train.review.with_columns(
        pl.when(pl.Series(np.isin(np.arange(len(split.train)), rows[1:])))
        .then(pl.lit(""))
        .otherwise(pl.col(name))
        .alias(name)
        for name in ("title", "text")
    )
    train = dataclasses.replace(split.train, review=review)
    features = sc.encode_reviews(train, LETTERS, leave_one_out=True)
    user_profile, _ = features.left_out(train.user[rows], train.item[rows], rows)
    assert not user_profile[0].any()  # its only review with text
    np.testing.assert_allclose(user_profile[1], features.user[0])  # this one had no text to leave out


def test_training_leaves_the_review_of_a_pair_out(split, quick):
    features = sc.encode_reviews(split.train, sc.tfidf_encoder(16), leave_one_out=True)
    of_pairs = without_own(split.train, features)
    rows = np.array([3, 50, 3])
    user, item = (torch.from_numpy(node[rows]) for node in (split.train.user, split.train.item))
    found = of_pairs(user, item + len(split.train.users))
    expected = features.left_out(user.numpy(), item.numpy(), rows)
    np.testing.assert_array_equal(found[0].numpy(), expected[0])
    np.testing.assert_array_equal(found[1].numpy(), expected[1])
    left_out = quick.model_copy(update={"leave_one_out": True})
    one, other = (sc.fit(split.train, features, valid=split.valid, settings=each) for each in (left_out, quick))
    assert not np.allclose(one.user_emb, other.user_emb)
    with pytest.raises(sc.ConfigError, match="needs text features that know their reviews"):
        sc.fit(split.train, dataclasses.replace(features, own=()), valid=split.valid, settings=left_out)


def test_shuffled_text_is_the_same_text_elsewhere(text):
    control = text.shuffled(1)
    assert control.fingerprint != text.fingerprint
    assert not np.array_equal(control.item, text.item)
    np.testing.assert_array_equal(np.sort(control.item, axis=0), np.sort(text.item, axis=0))
