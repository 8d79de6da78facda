"""Tests of significance against SciPy's own words and known cases."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from symcere.evaluation.significance import holm, paired_test


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
