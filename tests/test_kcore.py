"""The k-core against dropping one node at a time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import symcere as sc
from conftest import reviews_of

pairs = st.sets(st.tuples(st.sampled_from("abcdefg"), st.sampled_from("123456")), min_size=1)


def one_at_a_time(pairs, user_k, item_k):
    left = set(pairs)
    while True:
        short = [
            (side, node)
            for side, k in ((0, user_k), (1, item_k))
            for node in {pair[side] for pair in left}
            if sum(pair[side] == node for pair in left) < k
        ]
        if not short:
            return left
        side, node = short[0]
        left = {pair for pair in left if pair[side] != node}


@given(pairs, st.integers(1, 3), st.integers(1, 3))
def test_k_core_equals_dropping_one_node_at_a_time(pairs, user_k, item_k):
    expected = one_at_a_time(pairs, user_k, item_k)
    reviews = reviews_of(sorted(pairs))
    if not expected:
        with pytest.raises(sc.DataError, match="left 0 of"):
            sc.k_core(reviews, user_k, item_k=item_k)
    else:
        core = sc.k_core(reviews, user_k, item_k=item_k)
        assert set(core.table.select("user_id", "item_id").rows()) == expected
        assert core.steps[-1].dropped == len(pairs) - len(expected)


def test_an_empty_core_names_the_largest_k_that_leaves_something():
    square = reviews_of([(u, i) for u in "abc" for i in "123"])
    with pytest.raises(sc.DataError, match=r"k_core\(k=20\) left 0 of 9 reviews. .*at k=3, 9 remain"):
        sc.k_core(square, 20)


def test_an_absurd_k_is_refused_at_once():
    with pytest.raises(sc.DataError, match="at k=1, 1 remain"):
        sc.k_core(reviews_of([("a", "1")]), 10**9)


def test_k_below_one_is_refused():
    with pytest.raises(sc.ConfigError, match="at least 1"):
        sc.k_core(reviews_of([("a", "1")]), 0)
