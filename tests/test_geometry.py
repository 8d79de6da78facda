"""Numbers of the space against closed forms; figures that parse, and answers that are computed."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

import symcere as sc
from symcere.analysis.exposure import exposure_finding
from symcere.analysis.geometry import (
    alignment,
    effective_rank,
    modality_gap,
    participation_ratio,
    probe_accuracy,
    rank_correlation,
    shape_of,
    spectrum,
    uniformity,
)
from symcere.analysis.geometry_page import geometry_findings
from symcere.analysis.learned import Learned
from symcere.analysis.mechanism import learn, mechanism_finding
from symcere.evaluation.compare import measure_test
from symcere.evaluation.measures import mean, ndcg

DRAWS = np.random.default_rng(0)


@pytest.fixture(scope="module")
def learned(split, text, model):
    return Learned(split.train, text, model)


@pytest.fixture(scope="module")
def free(split, text, quick):
    settings = quick.model_copy(update={"unit": False, "max_epochs": 6})
    return Learned(split.train, text, sc.fit(split.train, text, valid=split.valid, settings=settings))


def test_a_gap_is_the_distance_of_the_means():
    x = DRAWS.normal(size=(50, 4))
    assert modality_gap(x, x[::-1]) == pytest.approx(0, abs=1e-12)
    assert modality_gap(x, x + np.array([3, 0, 4, 0])) == pytest.approx(5)


def test_a_probe_cannot_tell_the_same_cloud_and_can_tell_two():
    x, y = DRAWS.normal(size=(2, 600, 8))
    assert probe_accuracy(x, y) == pytest.approx(0.5, abs=0.06)
    assert probe_accuracy(x, y + 6) == 1


def test_ranks_count_directions():
    even = DRAWS.permutation(np.repeat(np.eye(6), 10, axis=0)) * DRAWS.choice([-1, 1], (60, 1))
    even = np.concatenate([even, -even])
    assert effective_rank(spectrum(even)) == pytest.approx(6)
    assert participation_ratio(spectrum(even)) == pytest.approx(6)
    line = np.outer(DRAWS.normal(size=40), np.ones(5))
    assert effective_rank(spectrum(line)) == pytest.approx(1, abs=1e-6)
    assert participation_ratio(spectrum(line)) == pytest.approx(1, abs=1e-6)
    x = DRAWS.normal(size=(200, 5)) * np.array([4, 2, 1, 1, 0.1])
    variance = np.linalg.eigvalsh(np.cov(x.T))[::-1]
    assert spectrum(x) == pytest.approx(variance / variance.sum())


def test_alignment_and_uniformity_have_their_closed_forms():
    x = DRAWS.normal(size=(30, 3))
    assert alignment(x, 5 * x) == pytest.approx(0, abs=1e-6)
    assert alignment(np.array([[1.0, 0.0]]), np.array([[0.0, 2.0]])) == pytest.approx(2)
    assert uniformity(np.ones((20, 3))) == pytest.approx(0, abs=1e-6)
    many = DRAWS.normal(size=(4_000, 64))
    unit = many / np.linalg.norm(many, axis=1, keepdims=True)
    distance = 2 - 2 * unit[:600] @ unit[:600].T
    every = np.log(np.exp(-2 * distance[np.triu_indices(600, 1)]).mean())
    assert uniformity(many) == pytest.approx(every, abs=0.02)


def test_a_rank_correlation_is_that_of_scipy_and_has_an_interval():
    from scipy.stats import spearmanr

    x = DRAWS.normal(size=300)
    assert rank_correlation(x, np.exp(x)).value == pytest.approx(1)
    assert rank_correlation(x, np.ones(300)).value == 0
    y = x + DRAWS.normal(size=300)
    found = rank_correlation(x, y)
    assert found.value == pytest.approx(spearmanr(x, y).statistic)
    assert found.low < found.value < found.high


def test_the_numbers_of_a_fit_are_the_same_twice_and_in_their_ranges(learned):
    shape, again = shape_of(learned), shape_of(learned)
    assert shape == again
    assert 0 <= shape.gap_unit <= 2
    assert 1 <= shape.participation_graph <= shape.rank_graph <= learned.graph.shape[1]
    assert shape.graph < 2  # train pairs are nearer than strangers


@pytest.mark.parametrize("with_free", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_findings_have_a_question_an_answer_and_a_figure_that_can_be_read_aloud(learned, free, with_free):
    findings = geometry_findings(learned, free if with_free else None, umap=False, seed=0)
    assert [each.name for each in findings] == ["map", "spectrum", "lengths", "numbers"]
    assert len({each.question for each in findings}) == len(findings)
    for each in findings:
        assert each.question.rstrip(")").split(" (")[0].endswith("?")
        assert each.answer.endswith(".")
        assert "nan" not in each.answer
        assert len(each.data)
        if each.figure:
            svg = ElementTree.fromstring(each.figure)
            assert len(svg.get("aria-label")) > 40
            assert len(each.figure) < 400_000
    assert "no sphere" in str(findings[-1].data.columns) or not with_free
    again = geometry_findings(learned, free if with_free else None, umap=False, seed=0)
    assert [each.figure for each in again] == [each.figure for each in findings]


def test_a_map_by_umap_is_drawn_or_says_what_is_missing(learned, monkeypatch):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    finding = geometry_findings(learned, None, umap=True, seed=0)[1]
    assert finding.name == "map-umap"
    assert "symcere[umap]" in finding.answer


@pytest.mark.slow
def test_umap_draws_the_same_map_twice(learned):
    pytest.importorskip("umap", reason="umap-learn is not installed")
    one, other = (geometry_findings(learned, None, umap=True, seed=0)[1] for _ in range(2))
    assert one.figure == other.figure
    assert "of the other modality" in one.answer


def test_exposure_shows_dial_0_and_the_chosen_one(learned, split):
    finding = exposure_finding(learned, split)
    dial = learned.model.popularity_weight
    assert finding.shown == (2 if dial else 1)
    assert finding.data["dial"].to_list()[: finding.shown] == ([0.0, dial] if dial else [0.0])
    for place in range(finding.shown):
        system = learned.model.with_popularity_weight(finding.data["dial"][place])
        expected = mean(measure_test(system, split, [ndcg(10)])["ndcg@10"])
        assert finding.data["ndcg@10"][place] == pytest.approx(expected)
    assert "chose" in finding.answer
    ElementTree.fromstring(finding.figure)


def test_a_dial_at_0_is_said_to_be_there(learned, split, text):
    at_0 = Learned(split.train, text, learned.model.with_popularity_weight(0.0))
    finding = exposure_finding(at_0, split)
    assert finding.shown == 1
    assert "dial at 0" in finding.answer


def test_in_the_simulation_cosines_have_one_length_and_inner_products_grow():
    unit, free = learn(0.5, unit=True), learn(0.5, unit=False)
    assert unit.share[0] == free.share[0] == pytest.approx(0.5)
    assert unit.share[-1] > 0.9
    assert free.length[-1] > 1.5
    # the gradient of a cosine is at right angles to the vector: its length can only creep up by the steps themselves
    assert unit.length[-1] < 1.2
    finding = mechanism_finding(0.5)
    assert "faster" in finding.answer or "no difference" in finding.answer
    assert len(finding.data) == len(unit.share)
