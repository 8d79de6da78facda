"""Filters, against lists; what they count; what they refuse."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import symcere as sc
from conftest import reviews_of
from symcere.data.reviews import Reviews

DAY = 86_400


def some(**columns):
    """Six reviews of three users, changed column by column."""
    reviews = reviews_of([("a", "x"), ("a", "y"), ("b", "x"), ("b", "y"), ("c", "x"), ("c", "y")])
    return Reviews(reviews.table.with_columns(**{n: sc_series(v, reviews, n) for n, v in columns.items()}), "test")


def sc_series(values, reviews, name):
    import polars as pl

    return pl.Series(values, dtype=reviews.table.schema[name])


def left(reviews, *filters):
    kept = reviews.filtered(*filters)
    return [f"{user}{item}" for user, item in kept.table.select("user_id", "item_id").rows()]


def test_ratings_below_the_threshold_and_unknown_ones_go():
    reviews = some(rating=[1, 2, 3, 4, 5, None])
    assert left(reviews, sc.MinRating(3)) == ["bx", "by", "cx"]
    with pytest.raises(sc.DataError, match="left 0 of 6"):
        reviews.filtered(sc.MinRating(6))
    with pytest.raises(sc.DataError, match="needs ratings"):
        some(rating=[None] * 6).filtered(sc.MinRating(1))


def test_a_period_begins_with_its_first_day_and_ends_before_its_last():
    reviews = some(timestamp=[0, DAY - 1, DAY, 2 * DAY - 1, 2 * DAY, None])
    assert left(reviews, sc.Period("1970-01-02", "1970-01-03")) == ["bx", "by"]
    assert left(reviews, sc.Period("1970-01-02")) == ["bx", "by", "cx"]
    assert left(reviews, sc.Period(until="1970-01-02")) == ["ax", "ay"]
    with pytest.raises(sc.DataError, match="need dates"):
        some(timestamp=[None] * 6).filtered(sc.Period("1970-01-02"))
    for wrong in (("1970-01-03", "1970-01-02"), ("3 January", None), (None, "1970-13-01")):
        with pytest.raises(sc.ConfigError):
            sc.Period(*wrong)


def test_length_counts_characters_of_any_script():
    reviews = some(title=["", "", "", "ab", "", ""], text=["", "a", "店店店", "c", "éé", "x" * 9])
    assert left(reviews, sc.TextLength(2)) == ["bx", "by", "cx", "cy"]
    assert left(reviews, sc.TextLength(2, 3)) == ["bx", "by", "cx"]
    with pytest.raises(sc.ConfigError):
        sc.TextLength(3, 2)


@given(st.permutations(range(40)), st.floats(0.05, 0.95), st.integers(0, 5))
def test_a_sample_takes_whole_users_whatever_the_order_and_grows_with_its_share(order, share, seed):
    pairs = [(f"u{n // 2:02d}", f"i{n % 2}") for n in range(40)]
    reviews, mixed = reviews_of(pairs), reviews_of([pairs[n] for n in order])

    def users(table, share):
        mask = sc.Sample(share, seed)(table.interactions)
        taken = table.table.filter(mask)
        assert len(taken) == 2 * taken["user_id"].n_unique()
        return set(taken["user_id"])

    assert users(reviews, share) == users(mixed, share) <= users(reviews, min(1.0, share + 0.2))


def test_who_is_in_a_sample_does_not_depend_on_who_else_is_there(tmp_path):
    rows = [f"u{n},i{n % 7},5,t" for n in range(200)]
    tables = []
    for more in ([], [",i1,5,nobody"], ["new,i1,5,t"]):
        (tmp_path / "r.csv").write_text("\n".join(["user_id,item_id,rating,text", *rows, *more]))
        tables += [sc.read_reviews(tmp_path / "r.csv", filters=[sc.Sample(0.3)])]
        tables += [sc.read_reviews(tmp_path / "r.csv").filtered(sc.Sample(0.3))]
    first, *others = [set(table.table["user_id"]) - {"new"} for table in tables]
    assert all(other == first for other in others)
    assert len(first) == pytest.approx(60, abs=20)


def test_about_the_share_is_sampled():
    reviews = reviews_of([(f"u{n}", "i") for n in range(4_000)])
    assert len(reviews.filtered(sc.Sample(0.25))) == pytest.approx(1_000, abs=120)
    for share in (0, -1, 1.5, float("nan")):
        with pytest.raises(sc.ConfigError):
            sc.Sample(share)


def test_filters_apply_in_order_and_count():
    reviews = some(rating=[5, 5, 5, 1, 5, 5]).filtered(sc.MinRating(2), sc.KCore(2))
    assert [(s.name, s.n_reviews, s.n_users, s.n_items, s.dropped) for s in reviews.steps] == [
        ("rating at least 2", 5, 3, 2, 1),
        ("2-core", 4, 2, 2, 1),
    ]


def test_a_core_of_users_and_items_apart():
    reviews = reviews_of([("a", "x"), ("a", "y"), ("b", "x"), ("b", "z"), ("c", "x")])
    assert left(reviews, sc.KCore(1, 2)) == ["ax", "bx", "cx"]
    assert left(reviews, sc.KCore(2, 1)) == ["ax", "ay", "bx", "bz"]


def test_interactions_number_users_and_items_by_first_row():
    known = reviews_of([("b", "y"), ("a", "y"), ("b", "x")]).interactions
    assert known.user_ids.to_list() == ["b", "a"]
    np.testing.assert_array_equal(known.user, [0, 1, 0])
    np.testing.assert_array_equal(known.item, [0, 0, 1])
