"""The report page: computed sentences, and what they say when there is little to say."""

import pytest

import symcere as sc
from symcere.data.interactions import Step
from symcere.evaluation.measures import standard_measures
from symcere.evaluation.report import Example, Page, p_text, to_html, to_markdown


def page_of(split, model, examples: tuple[Example, ...] = (), others=("popularity",)) -> Page:
    systems = {name: sc.fit_popularity(split.train) for name in others} | {"symcere": model}
    report = sc.compare(systems, split, standard_measures())
    one = dict.fromkeys(systems, 1.0)
    return Page(
        title="reviews.csv",
        command="symcere run reviews.csv",
        split="random",
        seeds=(0,),
        steps=(Step("read", 10, 5, 5),),
        n_without_text=1,
        n_without_time=2,
        n_users=5,
        n_items=5,
        report=report,
        ours="symcere",
        seconds=one,
        valid=one,
        settings={name: {} for name in systems},
        dials={name: [0.0] for name in systems},
        skipped={},
        examples=examples,
        encoder="tfidf",
    )


def test_the_verdict_is_computed(split, model):
    page = page_of(split, model)
    test, holm = page.tests["popularity"]
    assert page.best_baseline == "popularity"
    assert holm == test.p_t  # one baseline: nothing to correct
    side = "ahead of" if test.difference > 0 else "behind"
    assert f"symcere is {side} the best baseline, popularity" in page.verdict
    assert page.verdict.endswith("significant.")
    assert page.verdict in to_markdown(page)
    assert "nothing was compared" in page_of(split, model, others=()).verdict


def test_a_page_without_baselines_is_still_a_page(split, model):
    page = page_of(split, model, others=())
    assert "<html" in to_html(page)
    assert "symcere" in to_markdown(page)


@pytest.mark.parametrize(("p", "text"), [(0.5, "0.500"), (0.0009, "< 0.001"), (0.0, "< 0.001"), (1.0, "1.000")])
def test_p_values_are_printed_with_a_bound(p, text):
    assert p_text(p) == text
