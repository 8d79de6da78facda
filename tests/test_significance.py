"""Tests of significance against SciPy's own words and known cases."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from symcere.evaluation.significance import gain_interval, holm, paired_test


def loop_holm(p_values):
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, worst = [0.0] * len(p_values), 0.0
    for step, i in enumerate(order):
        worst = max(worst, min(1.0, (len(p_values) - step) * p_values[i]))
        adjusted[i] = worst
    return adjusted


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_equals_its_loop(p_values):
    assert holm(p_values) == pytest.approx(loop_holm(p_values))


def test_paired_test_finds_a_difference_and_its_interval():
    draws = np.random.default_rng(0)
    b = draws.random(400)
    a = b + draws.normal(0.05, 0.1, 400)
    test = paired_test(a, b)
    d = a - b
    t = d.mean() / (d.std(ddof=1) / np.sqrt(len(d)))
    assert test.p_t == pytest.approx(2 * stats.t.sf(abs(t), len(d) - 1))
    assert test.low < test.difference < test.high
    half_width = 1.96 * d.std(ddof=1) / np.sqrt(len(d))
    assert test.high - test.low == pytest.approx(2 * half_width, rel=0.1)
    assert test.p_wilcoxon < 1e-6


def test_equal_systems_have_p_one():
    values = np.random.default_rng(0).random(50)
    test = paired_test(values, values.copy())
    assert (test.p_t, test.p_wilcoxon, test.difference) == (1, 1, 0)


def test_the_same_gain_for_everyone_is_certain():
    assert paired_test(np.ones(20), np.zeros(20)).p_t == 0


@pytest.mark.slow
def test_noise_is_rarely_significant():
    draws = np.random.default_rng(1)
    p = [paired_test(*draws.random((2, 60))).p_t for _ in range(100)]
    assert np.mean(np.array(p) < 0.05) < 0.15


def test_the_interval_of_a_gain_is_that_of_resampled_users():
    draws = np.random.default_rng(0)
    own, base = [], []
    for n, level in ((900, 0.2), (400, 0.9)):
        user = draws.random(n) * level
        own.append(user + 0.05 + 0.1 * draws.random(n))
        base.append(user)
    low, high = gain_interval(own, base)
    ratios = []
    for seed in range(400):
        again = np.random.default_rng(seed)
        rows = [again.integers(0, len(side), len(side)) for side in own]
        means = [np.mean([v[r].mean() for v, r in zip(side, rows, strict=True)]) for side in (own, base)]
        ratios.append(means[0] / means[1] - 1)
    np.testing.assert_allclose([low, high], np.quantile(ratios, [0.025, 0.975]), atol=0.004)
    assert low < np.mean([v.mean() for v in own]) / np.mean([v.mean() for v in base]) - 1 < high
    assert gain_interval(own, own) == (0, 0)
    assert gain_interval([np.zeros(3)], [np.ones(3)]) == (-1, -1)
