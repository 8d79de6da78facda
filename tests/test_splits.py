"""Splits are partitions, follow their rule, and refuse what they cannot do."""

import dataclasses
from collections import Counter, defaultdict

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import symcere as sc
from conftest import reviews_of
from symcere.data.reviews import Reviews

worlds = st.sets(st.tuples(st.sampled_from("abcdefg"), st.sampled_from("123456789")), min_size=4).map(
    lambda pairs: sorted(pairs | {("z", item) for item in "12345"})  # z gives valid and test something
)
SPLITTERS = [sc.split_random, sc.split_leave_last_out, sc.split_temporal]


def pairs_of(part):
    return {(part.users.id(u), part.items.id(i)) for u, i in zip(part.user.tolist(), part.item.tolist(), strict=True)}


def shares(split):
    return [Counter(u for u, _ in pairs_of(part)) for part in (split.train, split.valid, split.test)]


@given(worlds, st.sampled_from(SPLITTERS))
def test_a_split_is_a_partition_and_train_keeps_its_texts(pairs, splitter):
    reviews = reviews_of(pairs, text=[f"{u} on {i}" for u, i in pairs])
    split = splitter(reviews)
    parts = [pairs_of(part) for part in (split.train, split.valid, split.test)]
    assert sorted(pair for part in parts for pair in part) == pairs
    texts = zip(split.train.user.tolist(), split.train.item.tolist(), split.train.review["text"], strict=True)
    assert all(text == f"{split.train.users.id(u)} on {split.train.items.id(i)}" for u, i, text in texts)


@pytest.mark.parametrize(
    ("n", "expected"), [(2, (1, 0, 1)), (3, (1, 1, 1)), (5, (3, 1, 1)), (10, (8, 1, 1)), (20, (16, 2, 2))]
)
def test_random_gives_a_tenth_but_at_least_one_to_test_then_valid(n, expected):
    pairs = [("u", str(i)) for i in range(n)] + [("v", str(i)) for i in range(10)]
    assert tuple(part["u"] for part in shares(sc.split_random(reviews_of(pairs)))) == expected


def test_a_user_with_one_interaction_stays_in_train():
    split = sc.split_random(reviews_of([("u", "0"), *[("v", str(i)) for i in range(10)]]))
    assert [part["u"] for part in shares(split)] == [1, 0, 0]


@given(worlds, st.randoms())
def test_random_depends_on_the_seed_and_not_on_the_order_of_rows(pairs, random):
    shuffled = random.sample(pairs, len(pairs))
    one, other = sc.split_random(reviews_of(pairs), seed=3), sc.split_random(reviews_of(shuffled), seed=3)
    assert pairs_of(one.test) == pairs_of(other.test)


def test_another_seed_gives_another_split(reviews):
    assert pairs_of(sc.split_random(reviews, seed=0).test) != pairs_of(sc.split_random(reviews, seed=1).test)


@given(worlds, st.randoms())
def test_leave_last_out_holds_out_the_last_of_each_user(pairs, random):
    time = random.sample(range(100), len(pairs))
    split = sc.split_leave_last_out(reviews_of(pairs, time=time))
    dated = defaultdict(list)
    for (user, item), stamp in zip(pairs, time, strict=True):
        dated[user].append((stamp, item))
    expected = {(user, sorted(events)[-1][1]) for user, events in dated.items() if len(events) > 1}
    assert pairs_of(split.test) == expected
    assert pairs_of(split.valid) == {(u, sorted(e)[-2][1]) for u, e in dated.items() if len(e) > 2}


@given(worlds, st.randoms())
def test_temporal_has_one_order_for_everyone(pairs, random):
    time = [random.randrange(50) for _ in pairs]
    when = dict(zip(pairs, time, strict=True))
    try:
        split = sc.split_temporal(reviews_of(pairs, time=time))
    except sc.DataError:
        return  # too many ties for three parts
    train, valid, test = ([when[pair] for pair in pairs_of(p)] for p in (split.train, split.valid, split.test))
    assert max(train) < min(valid)
    assert max(valid) < min(test)


@pytest.mark.parametrize("splitter", [sc.split_leave_last_out, sc.split_temporal])
def test_splits_by_time_refuse_missing_timestamps(reviews, splitter):
    undated = Reviews(reviews.table.with_columns(timestamp=pl.lit(None, dtype=pl.Int64)), "test")
    with pytest.raises(sc.DataError, match="needs a timestamp"):
        splitter(undated)


def test_one_user_one_item_or_too_little_data_is_refused():
    with pytest.raises(sc.DataError, match="at least two users"):
        sc.split_random(reviews_of([("a", "1"), ("a", "2")]))
    with pytest.raises(sc.DataError, match="at least two users"):
        sc.split_random(reviews_of([("a", "1"), ("b", "1")]))
    with pytest.raises(sc.DataError, match="left no interaction for valid"):
        sc.split_random(reviews_of([("a", "1"), ("b", "2")]))


def test_ratios_must_be_shares():
    with pytest.raises(sc.ConfigError, match="sum to 1"):
        sc.split_random(reviews_of([("a", "1")]), ratios=(0.8, 0.1, 0.2))


def test_held_out_parts_carry_no_text(split):
    assert not hasattr(split.valid, "text")
    assert not hasattr(split.test, "text")


def test_datasets_refuse_duplicates_ranges_and_overlap(split):
    with pytest.raises(sc.DataError, match="disjoint"):
        dataclasses.replace(split, valid=split.test)
    with pytest.raises(sc.DataError, match="occurs twice"):
        dataclasses.replace(split.test, user=split.test.user * 0, item=split.test.item * 0)
    with pytest.raises(sc.DataError, match="must lie in"):
        dataclasses.replace(split.test, user=split.test.user + 10**6)
