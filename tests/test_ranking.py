"""The one place that ranks, against sorting."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.sparse import csr_array

import symcere as sc
from symcere.ranking import hits, places, rank, top_k

scores = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 4), st.integers(1, 9)),
    elements=st.sampled_from([-np.inf, -2, -0.0, 0, 1, 3.5]),
)


class Fixed:
    """Scores that are given."""

    def __init__(self, matrix):
        self.matrix = np.asarray(matrix, dtype=np.float32)

    def score(self, user):
        return self.matrix[user]


@given(scores, st.integers(1, 9))
def test_top_k_equals_a_stable_sort_ties_by_index(values, k):
    k = min(k, values.shape[1])
    expected = [sorted(range(len(row)), key=lambda item: (-row[item], item))[:k] for row in values]
    np.testing.assert_array_equal(top_k(values, k), expected)


def test_rank_leaves_out_excluded_items_and_marks_missing_ones():
    exclude = csr_array(np.array([[1, 0, 0], [0, 1, 1]], dtype=np.float32))
    ranking = rank(Fixed([[3, 1, 2], [3, 1, 2]]), np.array([0, 1]), 3, exclude)
    np.testing.assert_array_equal(ranking, [[2, 1, -1], [0, -1, -1]])


def test_a_score_that_is_no_number_is_refused_not_taken_for_the_next_users():
    scores = [[3, 1, 2], [np.nan, 1, 2], [1, 2, 3]]
    with pytest.raises(sc.DataError, match="Fixed scores an item of user 1 as NaN"):
        rank(Fixed(scores), np.arange(3), 2, csr_array((3, 3)))
    infinite = [[np.inf, -np.inf, 0]]
    np.testing.assert_array_equal(rank(Fixed(infinite), np.array([0]), 3, csr_array((1, 3))), [[0, 2, -1]])


def test_a_ranking_longer_than_the_catalogue_is_filled_up_with_none():
    np.testing.assert_array_equal(rank(Fixed([[1, 2]]), np.array([0]), 4, csr_array((1, 2))), [[1, 0, -1, -1]])


def test_rank_of_a_batch_equals_rank_one_by_one_and_does_not_touch_the_scores():
    matrix = np.random.default_rng(0).normal(size=(50, 30)).astype(np.float32)
    scorer, exclude = Fixed(matrix), csr_array((50, 30), dtype=np.float32)
    before = scorer.matrix.copy()
    batch = rank(scorer, np.arange(50), 7, exclude)
    single = [rank(scorer, np.array([user]), 7, exclude)[0] for user in range(50)]
    np.testing.assert_array_equal(batch, single)
    np.testing.assert_array_equal(scorer.matrix, before)


def test_rank_in_blocks_equals_rank_at_once(monkeypatch):
    matrix = np.random.default_rng(0).normal(size=(20, 10)).astype(np.float32)
    exclude = csr_array((20, 10), dtype=np.float32)
    at_once = rank(Fixed(matrix), np.arange(20), 5, exclude)
    monkeypatch.setattr("symcere.ranking._BLOCK", 30)
    monkeypatch.setattr("symcere.ranking._USERS", 1)
    np.testing.assert_array_equal(rank(Fixed(matrix), np.arange(20), 5, exclude), at_once)


def test_hits_marks_relevant_items_and_never_a_missing_one():
    relevant = csr_array(np.array([[0, 1, 1], [0, 0, 1]], dtype=np.float32))
    found = hits(np.array([[1, 0, 2], [2, -1, -1]]), np.array([0, 1]), relevant)
    np.testing.assert_array_equal(found, [[True, False, True], [True, False, False]])


@given(scores, st.data())
def test_places_are_those_of_the_whole_ranking_under_every_view(values, data):
    n_users, n_items = values.shape
    hidden = data.draw(hnp.arrays(np.bool_, values.shape))
    pairs = sorted(
        data.draw(st.sets(st.tuples(st.integers(0, n_users - 1), st.integers(0, n_items - 1)), min_size=1))
    )
    user, item = np.array(pairs).T
    views = [values, -values, np.zeros_like(values)]
    finite = [np.where(np.isfinite(view), view, -9).astype(np.float32) for view in views]
    exclude = csr_array(hidden.astype(np.float32))
    found = places(lambda some: [view[some] for view in finite], user, item, exclude)
    for view, place in zip(finite, found, strict=True):
        ranking = rank(Fixed(view), np.arange(n_users), n_items, exclude).tolist()
        expected = [ranking[u].index(i) if i in ranking[u] else n_items for u, i in pairs]
        np.testing.assert_array_equal(place, expected)


@pytest.mark.parametrize("n_items", [400, 70_000])
def test_places_beyond_what_a_byte_counts(n_items):
    scores = -np.arange(n_items, dtype=np.float32)[None]
    user, item = np.zeros(3, dtype=np.int64), np.array([255, 300, n_items - 1])
    found = places(lambda user: [scores[user], np.zeros_like(scores)[user]], user, item, csr_array((1, n_items)))
    np.testing.assert_array_equal(found, [item, item])


def test_places_in_blocks_equal_places_at_once_and_do_not_touch_the_scores(monkeypatch):
    matrix = np.random.default_rng(0).integers(0, 4, (20, 10)).astype(np.float32)
    before, exclude = matrix.copy(), csr_array(np.eye(20, 10, dtype=np.float32))
    user, item = np.repeat(np.arange(20), 2), np.arange(40) % 10
    at_once = places(lambda some: [matrix[some]], user, item, exclude)
    monkeypatch.setattr("symcere.ranking._BLOCK", 30)
    monkeypatch.setattr("symcere.ranking._USERS", 1)
    np.testing.assert_array_equal(places(lambda some: [matrix[some]], user, item, exclude), at_once)
    np.testing.assert_array_equal(matrix, before)


@pytest.mark.parametrize("n_items", [3, 40, 319, 320, 321, 2_000, 5_001])
def test_the_best_are_those_of_a_full_sort_whatever_the_groups(n_items):
    draws = np.random.default_rng(n_items)
    scores = draws.integers(-20, 20, (7, n_items)).astype(np.float32)  # full of ties
    scores[draws.random(scores.shape) < 0.3] = -np.inf
    for k in (1, 2, 10):
        k = min(k, n_items)
        expected = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        assert np.array_equal(top_k(scores, k), expected)
