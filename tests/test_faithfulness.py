"""Reasons put to the test: curves begin and end alike, true reasons move the score, made-up ones do not."""

import dataclasses
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

import symcere as sc
from symcere.analysis.faithfulness import ORDERS, SHARES, Curves, _exchanged, curves
from symcere.analysis.faithfulness_page import faithfulness_finding
from symcere.analysis.learned import Learned
from symcere.analysis.why import Explainer
from symcere.text.reader import Reader


class Liar(Explainer):
    """Names the words that matter least first."""

    def word_drops(self, side, node, other):
        profile, drop = super().word_drops(side, node, other)
        return profile, -drop


@pytest.fixture(scope="module")
def parts(split, text, model):
    return Learned(split.train, text, model), Reader.of(split.train, text, [sc.tfidf_encoder(64)])


def found_by(kind, parts, n=25):
    return curves(kind(*parts), {"gasket": 1.0}, lambda words: np.full(len(words), 8), n=n, seed=0)


def test_all_orders_begin_and_end_at_the_same_scores(parts):
    found = found_by(Explainer, parts)
    for kind, ends in ((found.deletion, (-1, 0)), (found.insertion, (0, -1))):
        without, whole = ends
        for order in ORDERS:
            assert kind[order].shape == (len(found.n_words), len(SHARES))
            assert kind[order][:, without] == pytest.approx(0, abs=1e-5)
            assert kind[order][:, whole] == pytest.approx(kind[ORDERS[0]][:, whole], abs=1e-5)
    assert found.deletion[ORDERS[0]][:, 0] == pytest.approx(found.insertion[ORDERS[0]][:, -1], abs=1e-5)


def test_true_reasons_move_the_score_and_lies_do_not(parts):
    true, lie = found_by(Explainer, parts), found_by(Liar, parts)
    for kind in ("deletion", "insertion"):
        assert true.area(kind, ORDERS[0]).mean() > 0
        assert lie.area(kind, ORDERS[0]).mean() < 0
    said = faithfulness_finding(true).answer
    assert "moves the score more than in a random order" in said
    assert "less than" in faithfulness_finding(lie).answer


def test_random_orders_have_the_frequencies_of_the_reasons():
    draws = np.random.default_rng(0)
    order, level = draws.permutation(40), draws.integers(0, 4, 40)
    other = _exchanged(order, level, draws)
    assert sorted(other.tolist()) == list(range(40))
    assert level[other].tolist() == level[order].tolist()
    assert other.tolist() != order.tolist()


def test_the_finding_can_be_read_aloud_and_says_when_there_is_nothing_to_test(parts):
    found = found_by(Explainer, parts)
    finding = faithfulness_finding(found)
    assert (
        "blanked in all train reviews of the item, and the whole score is computed again, exactly" in finding.method
    )
    estimated = faithfulness_finding(dataclasses.replace(found, exact=False)).method
    assert "of more than 200 in as many drawn at random" in estimated
    assert "exactly" not in estimated
    assert len(ElementTree.fromstring(finding.figure).get("aria-label")) > 40
    assert len(finding.data) == 2 * len(ORDERS) * len(SHARES)
    none = {order: np.zeros((0, len(SHARES))) for order in ORDERS}
    assert "Not to be said" in faithfulness_finding(Curves(none, none, np.zeros(0, dtype=np.int64))).answer
