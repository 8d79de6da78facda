"""The one place that ranks, against sorting."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.sparse import csr_array

from symcere.ranking import hits, rank, top_k

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
    np.testing.assert_array_equal(rank(Fixed(matrix), np.arange(20), 5, exclude), at_once)


def test_hits_marks_relevant_items_and_never_a_missing_one():
    relevant = csr_array(np.array([[0, 1, 1], [0, 0, 1]], dtype=np.float32))
    found = hits(np.array([[1, 0, 2], [2, -1, -1]]), np.array([0, 1]), relevant)
    np.testing.assert_array_equal(found, [[True, False, True], [True, False, False]])
