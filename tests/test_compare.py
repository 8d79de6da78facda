"""What is ranked, what is left out, and how seeds are joined."""

import numpy as np
import pytest

import symcere as sc
from symcere.evaluation.compare import measure_test, report_of
from symcere.evaluation.measures import mean, standard_measures
from symcere.evaluation.report import Example, to_html, to_markdown
from symcere.training.tuning import valid_ndcg
from test_report import page_of


class Fixed:
    """Scores that are given."""

    def __init__(self, matrix):
        self.matrix = matrix.toarray().astype(np.float32)

    def score(self, user):
        return self.matrix[user]


def test_at_test_the_items_of_train_and_valid_are_not_ranked(split):
    """They have the highest scores; if they were ranked, no user would have a perfect list."""
    scorer = Fixed(100 * split.train.matrix + 100 * split.valid.matrix + split.test.matrix)
    assert mean(measure_test(scorer, split, [sc.ndcg(10)])["ndcg@10"]) == 1


def test_on_valid_the_items_of_train_are_not_ranked_and_those_of_test_are(split):
    assert valid_ndcg(Fixed(100 * split.train.matrix + split.valid.matrix), split.train, split.valid) == 1
    spoiled = Fixed(split.valid.matrix + 100 * split.test.matrix)
    assert valid_ndcg(spoiled, split.train, split.valid) < 1


def test_each_user_counts_once_however_many_seeds(split, model):
    values = {"symcere": measure_test(model, split, standard_measures())}
    higher = {"symcere": {label: value + 1 for label, value in values["symcere"].items()}}
    report = report_of([(split, values), (split, higher)])
    assert len(report.users) == len(np.unique(split.test.user))
    np.testing.assert_allclose(report.values["symcere"]["ndcg@10"], values["symcere"]["ndcg@10"] + 0.5)
    assert report.mean("symcere", "coverage@10") == pytest.approx(values["symcere"]["coverage@10"] + 0.5)
    with pytest.raises(sc.ConfigError, match="values per user"):
        report.against("symcere", "coverage@10")
    with pytest.raises(sc.ConfigError, match="at least one seed"):
        report_of([])


def test_hostile_ids_break_neither_markdown_nor_html(split, model):
    hostile = "a|b\n<script>alert(1)</script>"
    page = page_of(split, model, (Example(hostile, 3, ((hostile, 1.0, True),)),))
    assert "<script>alert" not in to_html(page)
    assert "a\\|b <script>" in to_markdown(page)
