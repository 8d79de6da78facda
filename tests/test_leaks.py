"""Nothing held out may change anything that is fitted."""

import dataclasses

import numpy as np
import polars as pl
import pytest

import symcere as sc
from symcere.data.reviews import Reviews
from symcere.text.corpus import corpus_of
from symcere.text.distilled import DistilledEncoder
from test_encoders import TEACHER, Teacher


@pytest.fixture(scope="module")
def tampered(reviews, split):
    """The same reviews, but every held-out review says something else and has another rating."""
    held_out = pl.DataFrame(
        {
            "user_id": [split.train.users.id(u) for part in (split.valid, split.test) for u in part.user.tolist()],
            "item_id": [split.train.items.id(i) for part in (split.valid, split.test) for i in part.item.tolist()],
            "spoiled": True,
        }
    )
    table = reviews.table.join(held_out, on=["user_id", "item_id"], how="left", maintain_order="left")
    spoiled = pl.col("spoiled").fill_null(False)
    table = table.with_columns(
        text=pl.when(spoiled).then(pl.lit("spoiler spoiler gasket")).otherwise("text"),
        title=pl.when(spoiled).then(pl.lit("spoiler")).otherwise("title"),
        rating=pl.when(spoiled).then(pl.lit(1.0, dtype=pl.Float32)).otherwise("rating"),
    ).drop("spoiled")
    return Reviews(table, reviews.source)


def test_changing_every_held_out_review_changes_no_byte_before_compare(split, text, quick, model, tampered):
    other = sc.split_random(tampered, seed=0)
    assert other.train.review.equals(split.train.review)
    features = sc.encode_reviews(other.train, sc.tfidf_encoder(64))
    assert features.fingerprint == text.fingerprint
    assert features.user.tobytes() == text.user.tobytes()
    fitted = sc.fit(other.train, features, valid=other.valid, settings=quick, seed=0)
    assert fitted.user_emb.tobytes() == model.user_emb.tobytes()
    assert fitted.item_emb.tobytes() == model.item_emb.tobytes()


def test_lift_is_counted_over_train_alone(split, tampered):
    other = sc.split_random(tampered, seed=0)
    mine, theirs = (sc.encode_reviews(part.train, sc.lift_encoder(16)) for part in (split, other))
    assert mine.fingerprint == theirs.fingerprint
    assert mine.user.tobytes() == theirs.user.tobytes()
    assert mine.item.tobytes() == theirs.item.tobytes()


@pytest.fixture(scope="module")
def fitted(tampered):
    """Encoders fitted on the train part of the tampered reviews."""
    corpus = corpus_of(sc.split_random(tampered, seed=0).train.review)
    return {
        "tfidf": sc.tfidf_encoder(64).fit(corpus),
        "distilled": DistilledEncoder(500, teacher=TEACHER).fit(corpus),
    }


def test_words_of_held_out_reviews_are_unknown_to_the_encoders(fitted):
    assert not [term for term in fitted["tfidf"].table.terms if "spoiler" in term]
    assert not fitted["tfidf"].encode(["spoiler"]).any()
    table = fitted["distilled"].table
    assert "spoiler" not in table.bags.words
    np.testing.assert_allclose(table.encode(["spoiler"])[0], table.mean / np.linalg.norm(table.mean), atol=1e-6)


def test_the_teacher_reads_train_texts_and_their_words_alone(tampered):
    train = sc.split_random(tampered, seed=0).train
    read = []

    def teacher(texts):
        read.extend(texts)
        return Teacher().encode(texts)

    sc.encode_reviews(train, DistilledEncoder(500, teacher=sc.function_encoder(teacher)))
    assert read
    assert not any("spoiler" in text for text in read)


@pytest.mark.parametrize("weighting", [sc.Recency(30), sc.Length(), sc.InverseFrequency()])
def test_weighted_profiles_see_train_alone(split, tampered, weighting):
    one, other = (
        sc.encode_reviews(part.train, sc.tfidf_encoder(8), weightings=[weighting], leave_one_out=True)
        for part in (split, sc.split_random(tampered, seed=0))
    )
    assert one.user.tobytes() == other.user.tobytes()
    assert one.own[0].vectors.tobytes() == other.own[0].vectors.tobytes()


def test_another_test_part_changes_no_byte_of_the_model(split, text, quick, model):
    """`fit` has no way to see test; here it is emptied of all but one pair."""
    one = dataclasses.replace(split.test, user=split.test.user[:1], item=split.test.item[:1])
    other = dataclasses.replace(split, test=one)
    fitted = sc.fit(other.train, text, valid=other.valid, settings=quick, seed=0)
    assert fitted.user_emb.tobytes() == model.user_emb.tobytes()


def test_popularity_counts_train_alone(split):
    assert split.train.popularity.sum() == len(split.train)
    np.testing.assert_array_equal(split.train.popularity, split.train.matrix.sum(0))
