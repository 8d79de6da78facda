"""Nothing held out may change anything that is fitted."""

import dataclasses

import numpy as np
import polars as pl
import pytest

import symcere as sc
from symcere.data.reviews import Reviews


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
    assert other.train.text.to_list() == split.train.text.to_list()
    features = sc.encode_reviews(other.train, sc.tfidf_encoder(64))
    assert features.fingerprint == text.fingerprint
    assert features.user.tobytes() == text.user.tobytes()
    fitted = sc.fit(other.train, features, valid=other.valid, settings=quick, seed=0)
    assert fitted.user_emb.tobytes() == model.user_emb.tobytes()
    assert fitted.item_emb.tobytes() == model.item_emb.tobytes()


def test_words_of_held_out_reviews_are_unknown_to_the_encoder(tampered):
    train = sc.split_random(tampered, seed=0).train
    encoder = sc.tfidf_encoder(64).fit(train.text.to_list())
    assert "spoiler" not in encoder.vectorizer.vocabulary_
    assert not encoder.encode(["spoiler"]).any()


def test_another_test_part_changes_no_byte_of_the_model(split, text, quick, model):
    """`fit` has no way to see test; here it is emptied of all but one pair."""
    one = dataclasses.replace(split.test, user=split.test.user[:1], item=split.test.item[:1])
    other = dataclasses.replace(split, test=one)
    fitted = sc.fit(other.train, text, valid=other.valid, settings=quick, seed=0)
    assert fitted.user_emb.tobytes() == model.user_emb.tobytes()


def test_popularity_counts_train_alone(split):
    assert split.train.popularity.sum() == len(split.train)
    np.testing.assert_array_equal(split.train.popularity, split.train.matrix.sum(0))
