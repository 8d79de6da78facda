"""Each metric against a slow loop, the conformance value, and trec_eval."""

import math

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given
from hypothesis import strategies as st

from symcere.errors import ConfigError
from symcere.evaluation import measures, metrics


def loop_ndcg(row, n_relevant):
    gain = sum(1 / math.log2(rank + 1) for rank, hit in enumerate(row, start=1) if hit)
    return gain / sum(1 / math.log2(rank + 1) for rank in range(1, min(len(row), n_relevant) + 1))


def loop_average_precision(row, n_relevant):
    total = sum(sum(row[:rank]) / rank for rank, hit in enumerate(row, start=1) if hit)
    return total / min(len(row), n_relevant)


def loop_mrr(row):
    return next((1 / rank for rank, hit in enumerate(row, start=1) if hit), 0.0)


def loop_gini(exposure):
    n, mean = len(exposure), sum(exposure) / len(exposure)
    return sum(abs(x - y) for x in exposure for y in exposure) / (2 * n * n * mean) if mean else 0.0


rows = st.lists(st.tuples(st.lists(st.booleans(), min_size=6, max_size=6), st.integers(0, 8)), min_size=1, max_size=5)


@given(rows)
def test_accuracy_metrics_equal_their_loops(rows):
    hits = np.array([row for row, _ in rows])
    n_relevant = np.array([max(1, sum(row) + more) for row, more in rows])
    pairs = [(list(row), int(n)) for row, n in zip(hits, n_relevant, strict=True)]
    np.testing.assert_allclose(metrics.ndcg(hits, n_relevant), [loop_ndcg(*pair) for pair in pairs])
    np.testing.assert_allclose(metrics.recall(hits, n_relevant), [sum(row) / n for row, n in pairs])
    np.testing.assert_allclose(metrics.precision(hits), [sum(row) / 6 for row, _ in pairs])
    np.testing.assert_allclose(metrics.hit_rate(hits), [float(any(row)) for row, _ in pairs])
    np.testing.assert_allclose(metrics.mrr(hits), [loop_mrr(row) for row, _ in pairs])
    np.testing.assert_allclose(
        metrics.average_precision(hits, n_relevant), [loop_average_precision(*p) for p in pairs]
    )


def test_conformance_value_hits_at_ranks_2_and_5_of_5_with_7_relevant():
    hits = np.array([[False, True, False, False, True]])
    assert metrics.ndcg(hits, np.array([7]))[0] == pytest.approx(0.34519, abs=5e-6)


def test_metrics_equal_trec_eval():
    draws = np.random.default_rng(0)
    n_users, n_items, k = 40, 50, 10
    relevant = draws.random((n_users, n_items)) < 0.1
    relevant[:, 0] |= ~relevant.any(1)
    ranking = np.array([draws.permutation(n_items)[:k] for _ in range(n_users)])
    qrels = {str(u): {str(i): 1 for i in np.flatnonzero(relevant[u])} for u in range(n_users)}
    run = {str(u): {str(i): float(k - r) for r, i in enumerate(ranking[u])} for u in range(n_users)}
    theirs = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10", "recall.10", "P.10", "recip_rank"}).evaluate(run)
    hits = np.take_along_axis(relevant, ranking, axis=1)
    n_relevant = relevant.sum(1)
    ours = {
        "ndcg_cut_10": metrics.ndcg(hits, n_relevant),
        "recall_10": metrics.recall(hits, n_relevant),
        "P_10": metrics.precision(hits),
        "recip_rank": metrics.mrr(hits),
    }
    for name, values in ours.items():
        np.testing.assert_allclose(values, [theirs[str(u)][name] for u in range(n_users)], atol=1e-9, err_msg=name)


def test_arp_is_the_mean_degree_of_the_recommended():
    popularity = np.array([4.0, 1.0, 0.0], dtype=np.float32)
    np.testing.assert_allclose(metrics.arp(np.array([[0, 1], [2, -1], [-1, -1]]), popularity), [2.5, 0, 0])


@given(st.lists(st.lists(st.integers(0, 4), min_size=3, max_size=3, unique=True), min_size=1, max_size=6))
def test_gini_and_coverage_equal_their_loops(lists):
    ranking = np.array(lists)
    exposure = [int((ranking == item).sum()) for item in range(5)]
    assert metrics.gini(ranking, 5) == pytest.approx(loop_gini(exposure))
    assert metrics.coverage(ranking, 5) == sum(x > 0 for x in exposure) / 5


def test_gini_is_zero_when_equal_and_near_one_when_one_takes_all():
    assert metrics.gini(np.array([[0, 1], [2, 3]]), 4) == 0
    assert metrics.gini(np.zeros((50, 1), dtype=int), 100) == pytest.approx(0.99)
    assert metrics.gini(np.array([[-1]]), 3) == 0


def test_popularity_groups_split_interactions_half_and_thirty_percent():
    group = metrics.popularity_group(np.array([1.0, 50.0, 0.0, 30.0, 19.0], dtype=np.float32))
    np.testing.assert_array_equal(group, [2, 0, 2, 1, 2])


def test_group_recall_and_pop_reo():
    ranking, hits = np.array([[0, 3], [1, 2]]), np.array([[True, False], [False, True]])
    recalls = metrics.group_recall(ranking, hits, np.array([0, 1, 2, 2]), np.array([0, 1, 2, 2]))
    np.testing.assert_allclose(recalls, [1, 0, 0.5])
    assert metrics.pop_reo(recalls) == pytest.approx(np.std([1, 0, 0.5]) / 0.5)
    assert metrics.pop_reo(np.zeros(3)) == 0
    assert metrics.pop_reo(recalls[2:]) == metrics.pop_reo(recalls[:0]) == 0


def test_a_group_without_held_out_interactions_is_not_treated_unfairly():
    degree = np.array([50.0, 30.0, 12.0, 8.0], dtype=np.float32)
    assert metrics.popularity_group(degree).tolist() == [0, 1, 2, 2]
    ranking = np.array([[2, 1], [3, 1]])
    found, missed = [True, False], [False, False]
    for relevant, hits, spread in (([2, 3], [found, found], 0), ([2, 1], [found, missed], 1)):
        ranked = measures.Ranked(ranking, np.array(hits), np.ones(2, int), np.array(relevant), degree)
        assert measures.pop_reo(2).compute(ranked) == spread


def test_a_measure_prints_its_label_and_refuses_a_bad_cut():
    assert str(measures.ndcg(10)) == "ndcg@10"
    with pytest.raises(ConfigError, match="at least 1"):
        measures.recall(0)
