"""What several data sets say together: statistics against loops and other tools, pages against their numbers."""

import csv
import io
import re
import shutil
import subprocess
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

import symcere as sc
from symcere.evaluation.bench import Outcome, against, mean_tests, over_datasets, over_means
from symcere.evaluation.bench_page import BenchPage, Goal, paired_to_csv, to_csv, to_html, to_latex, to_markdown
from symcere.evaluation.bench_tables import POPULARITY, _interval, percent
from symcere.evaluation.compare import Report
from symcere.evaluation.figures import (
    Series,
    cliques,
    critical_difference_figure,
    line_figure,
    pareto_figure,
    pareto_front,
)
from symcere.evaluation.significance import bootstrap, friedman, holm, mean_test, nemenyi, paired_test, paired_tests

BASELINES = ("light_gcn", "sim_gcl", "ease", "item_knn", "popularity")
TWINS = ("symcere:no_mask", "symcere:shuffled_text")
LEVELS = dict(zip(("symcere", *BASELINES, *TWINS), (0.30, 0.25, 0.295, 0.22, 0.2, 0.1, 0.302, 0.24), strict=True))


def outcome_of(dataset, split="random", *, n=300, without=(), seed=0, seeds=(0, 1, 2)) -> Outcome:
    """Per-user values at random around each system's level, with a part that all systems share."""
    draws = np.random.default_rng([seed, len(dataset), *dataset.encode(), *split.encode()])
    shared, values, by_seed = draws.normal(0, 0.15, n), {}, {}
    for name, level in LEVELS.items():
        ndcg = np.clip(level + shared + draws.normal(0, 0.08, n), 0, 1)
        row = {"ndcg@10": ndcg, "recall@20": np.clip(1.5 * ndcg, 0, 1), "arp@10": 100 * (1 - level) + 0 * ndcg}
        row |= {"gini@10": 1 - level, "coverage@10": level, "tail_recall@10": level / 4}
        if name not in without:
            values[name] = row
            by_seed[name] = {label: [float(np.mean(value))] * len(seeds) for label, value in row.items()}
    return Outcome(
        dataset=dataset,
        split=split,
        seeds=seeds,
        report=Report(values, tuple(f"u{i:05d}" for i in range(n)), by_seed),
        settings={name: {"dim": 64, "w_l2": 1e-4} for name in values},
        valid={name: LEVELS[name] for name in values},
        seconds=dict.fromkeys(values, 12.3),
        dials={name: [0.0, 0.5, 0.0] for name in values},
        n_users=n,
        n_items=90,
        n_reviews=9 * n,
        warnings=("The past is drawn from the future.",) if split == "random" else (),
        skipped=dict.fromkeys(without, "more items than fit in memory."),
    )


@pytest.fixture(scope="module")
def outcomes():
    """Three data sets under two splits; one of them lacks EASE."""
    return tuple(
        outcome_of(dataset, split, without=("ease",) if (dataset, split) == ("Big & Odd_|<100%>", "temporal") else ())
        for split in ("random", "temporal")
        for dataset in ("Musical Instruments", "Toys", "Big & Odd_|<100%>")
    )


@pytest.fixture(scope="module")
def page(outcomes):
    """All of it on a page, with a promise kept and one that is not."""
    return BenchPage(
        title="Benchmark <b>of</b> SymCERE",
        command="symcere bench --quick",
        outcomes=outcomes,
        ours="symcere",
        baselines=BASELINES,
        twins=TWINS,
        budget="Every system had 30 trials.",
        goals=(
            Goal("ahead of light_gcn", "3 of 3", reached=True),
            Goal("10 % above the best baseline", "+1.7 %", reached=False),
        ),
    )


# Statistics


@given(arrays(np.float64, (5, 4), elements=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])))
def test_friedman_equals_scipy_ties_and_all(values):
    found = friedman(values)
    if all(len(set(row)) == 1 for row in values.tolist()):
        assert (found.chi_square, found.p) == (0, 1)
        return
    expected = stats.friedmanchisquare(*values.T)
    assert found.chi_square == pytest.approx(expected.statistic, abs=1e-9)
    assert found.p == pytest.approx(expected.pvalue, abs=1e-9)


@given(arrays(np.float64, (4, 5), elements=st.sampled_from([0.0, 0.25, 0.5, 1.0])))
def test_average_ranks_equal_their_loop(values):
    expected = np.zeros(5)
    for row in values:
        for j in range(5):
            better, equal = sum(v > row[j] for v in row), sum(v == row[j] for v in row)
            expected[j] += (better + (equal + 1) / 2) / len(values)
    assert friedman(values).ranks == pytest.approx(tuple(expected))


def test_iman_and_davenport_is_the_analysis_of_variance_of_the_ranks():
    values = np.random.default_rng(0).random((6, 4))
    ranks = stats.rankdata(-values, axis=1)
    systems = 6 * ((ranks.mean(0) - 2.5) ** 2).sum() / 3
    rest = ((ranks - ranks.mean(0)) ** 2).sum() / 15
    assert friedman(values).p_f == pytest.approx(stats.f.sf(systems / rest, 3, 15))


def test_full_agreement_over_data_sets_is_certain_by_f():
    found = friedman(np.tile([3.0, 2.0, 1.0], (4, 1)))
    assert found.ranks == (1, 2, 3)
    assert found.p_f == 0
    assert found.p == pytest.approx(stats.chi2.sf(8, 2))


def test_friedman_needs_two_data_sets():
    with pytest.raises(sc.ConfigError, match="at least 2 data sets and 2 systems; found 1 and 3"):
        friedman(np.ones((1, 3)))


@pytest.mark.parametrize(("k", "q"), [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (10, 3.164)])
def test_nemenyi_has_the_q_of_demsar_table_5(k, q):
    assert nemenyi(k, 7) / np.sqrt(k * (k + 1) / (6 * 7)) == pytest.approx(q, abs=1.1e-3)


def test_nemenyi_at_ten_percent_has_the_q_of_demsar_table_5():
    assert nemenyi(4, 1, alpha=0.1) / np.sqrt(20 / 6) == pytest.approx(2.291, abs=1e-3)


def test_several_paired_tests_equal_one_at_a_time():
    draws = np.random.default_rng(2)
    a, others = draws.random(80), draws.random((80, 3))
    others[:, 1] = a
    together = [vars(test) for test in paired_tests(a, others)]
    assert together == [pytest.approx(vars(paired_test(a, others[:, j]))) for j in range(3)]


def test_the_bootstrap_equals_its_loop():
    values = np.random.default_rng(3).random((40, 2))
    draws = sc.rng.stream(5, "bootstrap")
    means = np.array([values[draws.integers(0, 40, 40)].mean(0) for _ in range(300)])
    low, high = bootstrap(values, level=0.9, seed=5, n_draws=300)
    np.testing.assert_allclose([low, high], np.quantile(means, [0.05, 0.95], axis=0))


def test_the_test_of_a_mean_over_data_sets_is_right_as_often_as_it_says():
    draws = np.random.default_rng(4)
    inside = 0
    for _ in range(300):
        test = mean_test([draws.normal(0.1, s, n) for s, n in ((0.2, 60), (0.5, 200), (0.1, 40))])
        inside += test.low <= 0.1 <= test.high
    assert 0.91 <= inside / 300 <= 0.98
    assert mean_test([np.zeros(5)]).p == 1


# Families, means, ranks, wins


def test_holm_is_over_the_systems_that_were_measured_on_the_data_set():
    outcome = outcome_of("Toys", without=("ease",))
    found = against(outcome, "symcere", BASELINES)
    raw = {
        name: paired_test(outcome.per_user("symcere"), outcome.per_user(name)) for name in BASELINES if name != "ease"
    }
    assert list(found) == list(raw)
    assert {c.family for c in found.values()} == {4}
    assert [c.p_t for c in found.values()] == holm([test.p_t for test in raw.values()])
    assert [c.p_wilcoxon for c in found.values()] == holm([test.p_wilcoxon for test in raw.values()])


def test_twins_are_no_part_of_the_family_of_baselines(page):
    for outcome in page.outcomes:
        assert {c.family for c in page.against_twins[outcome].values()} == {len(TWINS)}
        assert not set(page.against_baselines[outcome]) & set(TWINS)


def test_a_win_is_significant_after_holm_and_ahead(outcomes):
    summary = over_datasets(outcomes[:3], "symcere", BASELINES)
    for name in BASELINES:
        kinds = []
        for outcome in outcomes[:3]:
            raw = [stats.ttest_rel(outcome.per_user("symcere"), outcome.per_user(b)).pvalue for b in BASELINES]
            sure = holm(raw)[BASELINES.index(name)] < 0.05
            ahead = outcome.mean("symcere") > outcome.mean(name)
            kinds.append("tie" if not sure else "win" if ahead else "loss")
        assert summary.win_tie_loss[name] == tuple(kinds.count(kind) for kind in ("win", "tie", "loss"))
    assert summary.win_tie_loss["popularity"] == (3, 0, 0)
    assert sum(summary.total) == 3 * len(BASELINES)


def test_losses_are_counted_too(outcomes):
    summary = over_datasets(outcomes[:3], "popularity", ("symcere", "light_gcn"))
    assert summary.total == (0, 0, 6)


def test_means_ranks_and_gains_equal_their_loops(outcomes):
    chosen = outcomes[:3]
    summary = over_datasets(chosen, "symcere", BASELINES)
    systems = ["symcere", *BASELINES]
    for name in systems:
        assert summary.means[name] == pytest.approx(sum(o.mean(name) for o in chosen) / 3)
        ranks = [1 + sum(o.mean(other) > o.mean(name) for other in systems) for o in chosen]
        assert summary.ranks[name] == pytest.approx(np.mean(ranks))
    assert summary.gain("ease") == pytest.approx(summary.means["symcere"] / summary.means["ease"] - 1)
    assert summary.gains("ease") == pytest.approx([o.mean("symcere") / o.mean("ease") - 1 for o in chosen])
    assert summary.critical_difference == nemenyi(6, 3)
    assert summary.best_baseline == max(BASELINES, key=lambda name: summary.means[name])


def test_a_system_that_is_missing_is_in_no_mean_and_no_rank_and_is_named(outcomes):
    summary = over_datasets(outcomes, "symcere", BASELINES)
    assert summary.missing == {"ease": ("Big & Odd_|<100%> (temporal)",)}
    assert "ease" not in summary.means
    assert "ease" not in summary.ranks
    assert summary.critical_difference == nemenyi(5, 3)
    assert np.isnan(over_means(outcomes, "ease"))
    there = [o for o in outcomes if o.has("ease")]
    assert summary.gain("ease") == pytest.approx(over_means(there, "symcere") / over_means(there, "ease") - 1)
    assert sum(summary.win_tie_loss["ease"]) == 5


def test_a_data_set_counts_once_however_many_splits(outcomes):
    twice = [*outcomes[:3], outcome_of("Toys", "temporal")]
    summary = over_datasets(twice, "symcere", BASELINES)
    assert summary.friedman.n_datasets == 3
    toys = (outcomes[1].mean("symcere") + twice[3].mean("symcere")) / 2
    expected = (outcomes[0].mean("symcere") + toys + outcomes[2].mean("symcere")) / 3
    assert summary.means["symcere"] == pytest.approx(expected)
    test, _ = summary.mean_tests["light_gcn"]
    assert test.difference == pytest.approx(summary.means["symcere"] - summary.means["light_gcn"])
    assert test.n_datasets == 3


def test_a_user_of_two_splits_is_one_user_to_the_test_of_the_mean():
    """The same values under two splits are no new evidence: the interval must not shrink."""
    once = outcome_of("Toys")
    again = outcome_of("Toys", "temporal")
    again = Outcome(**{**vars(again), "report": once.report})
    (one, _), (two, _) = (
        mean_tests(chosen, "symcere", ["light_gcn"])["light_gcn"] for chosen in ([once], [once, again])
    )
    assert vars(two) == pytest.approx(vars(one))


def test_twins_of_fewer_seeds_are_compared_under_those_alone():
    """What a part is worth is told by the seeds that both have; baselines keep all seeds."""
    whole, few = outcome_of("Toys", without=TWINS, seeds=(0, 1, 2, 3)), outcome_of("Toys", seed=1, seeds=(0, 1))
    whole = replace(whole, controls=few, skipped={})
    page = BenchPage("T", "c", (whole,), "symcere", BASELINES, TWINS)
    (found,) = page.against_twins.values()
    expected = few.per_user("symcere") - few.per_user("symcere:no_mask")
    assert found["symcere:no_mask"].test.difference == pytest.approx(expected.mean())
    ablation = next(table for table in page.sections[0].tables if table.key == "random-ablation")
    assert ablation.note.endswith("Both under seeds 0, 1.")
    assert ablation.rows[0][-1].text == f"{few.mean('symcere') - few.mean('symcere:no_mask'):+.4f}"
    without = BenchPage("T", "c", (replace(whole, controls=None),), "symcere", BASELINES, TWINS)
    assert [table.key for table in without.sections[0].tables] == [
        "random-accuracy",
        "random-gains",
        "random-popularity",
    ]
    tables = {table.key: {row[0].text for row in table.rows} for table in page.sections[0].details}
    assert tables["random-1-popularity"] == {"symcere", *BASELINES}
    assert tables["random-1-twins-popularity"] == {"symcere", *TWINS}
    assert TWINS[0] in tables["random-1-twins-settings"]
    (base,) = page.against_baselines.values()
    expected = whole.per_user("symcere") - whole.per_user("light_gcn")
    assert base["light_gcn"].test.difference == pytest.approx(expected.mean())
    assert page.data.rows[0][-2].text == "0, 1, 2, 3; twins 0, 1"
    rows = list(csv.DictReader(io.StringIO(to_csv(page))))
    count = Counter((row["system"], row["seed"]) for row in rows if row["measure"] == "ndcg@10")
    assert set(count.values()) == {1}
    assert {seed for name, seed in count if name == TWINS[0]} == {"0", "1"}
    assert {seed for name, seed in count if name == "symcere"} == {"0", "1", "2", "3"}


def test_one_data_set_has_no_ranks_and_says_so():
    summary = over_datasets([outcome_of("Toys")], "symcere", BASELINES)
    assert summary.friedman is None
    assert summary.ranks == {}
    one = BenchPage("T", "c", (outcome_of("Toys"),), "symcere", BASELINES)
    assert "One data set: no test over data sets." in to_markdown(one)
    assert set(one.pictures) == {"random-dots.svg", "random-pareto.svg"}


def test_a_baseline_at_zero_has_no_relative_gain(outcomes):
    outcome = outcome_of("Toys")
    outcome.report.values["ease"]["ndcg@10"][:] = 0
    outcome.report.by_seed["ease"]["ndcg@10"] = [0.0, 0.0, 0.0]
    summary = over_datasets([outcome], "symcere", BASELINES)
    assert np.isnan(summary.gain("ease"))
    assert "nan" not in to_markdown(BenchPage("T", "c", (outcome,), "symcere", BASELINES))


def test_what_cannot_be_summed_up_is_refused(outcomes):
    with pytest.raises(sc.ConfigError, match="at least one data set"):
        over_datasets([], "symcere", BASELINES)
    with pytest.raises(sc.ConfigError, match=r"Toys \(random\) stands twice"):
        over_datasets([outcomes[1], outcome_of("Toys")], "symcere", BASELINES)
    with pytest.raises(sc.ConfigError, match="symcere must be measured on Toys"):
        over_datasets([outcome_of("Toys", without=("symcere",))], "symcere", BASELINES)
    with pytest.raises(sc.ConfigError, match="one value a user"):
        over_datasets(outcomes[:2], "symcere", BASELINES, "gini@10")
    with pytest.raises(sc.ConfigError, match="ease stands twice"):
        BenchPage("T", "c", outcomes, "symcere", ("ease",), ("ease",))
    with pytest.raises(sc.ConfigError, match="at least one data set"):
        BenchPage("T", "c", (), "symcere", ("ease",))


# Pages


def test_the_long_csv_has_every_number(page):
    rows = list(csv.DictReader(io.StringIO(to_csv(page))))
    n_systems = 6 * len(LEVELS) - 1
    assert len(rows) == n_systems * 6 * 3
    assert list(rows[0]) == ["split", "dataset", "system", "seed", "measure", "value"]
    found = [r for r in rows if (r["split"], r["dataset"], r["system"]) == ("random", "Toys", "ease")]
    value = next(r["value"] for r in found if (r["measure"], r["seed"]) == ("gini@10", "2"))
    assert float(value) == pytest.approx(1 - LEVELS["ease"])


def test_the_csv_of_tests_has_every_pair_and_its_family(page):
    rows = list(csv.DictReader(io.StringIO(paired_to_csv(page))))
    assert len(rows) == 6 * (len(BASELINES) + len(TWINS)) - 1
    row = next(r for r in rows if (r["split"], r["dataset"], r["other"]) == ("random", "Toys", "light_gcn"))
    comparison = page.against_baselines[page.outcomes[1]]["light_gcn"]
    assert float(row["p_wilcoxon_holm"]) == pytest.approx(comparison.p_wilcoxon)
    assert (row["family"], row["n_tests"], row["verdict"]) == ("baselines", "5", comparison.verdict)


def test_every_format_names_what_a_sceptic_asks_for(page):
    html = to_html(page)
    for text in (html, to_markdown(page)):
        for words in (
            "All splits together", "Split: random", "Split: temporal", "not significant", "Holm over", "not reached",
            "Friedman over 3 data sets", "critical difference", "Every system had 30 trials.", "win–tie–loss",
            "was skipped: more items than fit in memory", "tail", "chosen on valid",
        ):  # fmt: skip
            assert words in text, words
    for label in POPULARITY:
        assert label in html
    assert "✗ not reached" in html


def test_a_page_has_one_section_a_split_and_one_over_all(page):
    assert [section.title for section in page.sections] == ["All splits together", "Split: random", "Split: temporal"]
    assert [table.key for table in page.sections[1].tables] == [
        "random-accuracy", "random-gains", "random-ablation", "random-popularity"
    ]  # fmt: skip
    single = BenchPage("T", "c", page.outcomes[:3], "symcere", BASELINES)
    assert [section.title for section in single.sections] == ["Split: random"]


def test_tables_say_the_numbers_of_the_summary(page):
    summary = page.summary("random")
    accuracy, gains, ablation, popularity = page.sections[1].tables
    rows = {row[0].text: row for row in accuracy.rows}
    assert [row[0].text for row in accuracy.rows] == sorted(summary.means, key=lambda name: -summary.means[name])
    assert rows["ease"][-2].text == f"{summary.means['ease']:.4f}"
    assert rows["ease"][-1].text == f"{summary.ranks['ease']:.2f}"
    assert rows["ease"][1].verdict == summary.tests[0]["ease"].verdict
    rows = {row[0].text: row for row in gains.rows}
    assert rows["popularity"][1].text == f"{100 * summary.gain('popularity'):+.1f} %"
    assert rows["popularity"][5].text == "3–0–0"
    rows = {row[0].text: row for row in ablation.rows}
    means = mean_tests(page.of_split("random"), "symcere", TWINS)
    assert rows["symcere:shuffled_text"][1].text == f"{means['symcere:shuffled_text'][0].difference:+.4f}"
    assert rows["symcere:no_mask"][3].text.endswith("not significant")
    assert all(len(row) == len(table.head) for table in page.sections[1].tables for row in table.rows)
    assert popularity.ours == "symcere"


def test_a_skipped_system_is_visible_in_its_cell(page):
    accuracy = page.sections[2].tables[0]
    rows = {row[0].text: [cell.text for cell in row] for row in accuracy.rows}
    assert rows["ease"][3] == "skipped"
    assert rows["ease"][-2:] == ["–", "–"]


def test_the_html_needs_nothing_from_elsewhere_and_escapes_names(page):
    html = to_html(page)
    assert not re.search(r"""(?:src|href)=["'](?!#)|@import|url\((?!#)|<script|<link""", html)
    assert "<b>of</b>" not in html
    assert "Odd_<100%>" not in html
    assert not re.search(r"\bnan\b", re.sub(r"<[^>]*>", " ", html))
    assert html.count("<svg") == 3 + 3 + 2


def test_latex_is_escaped_and_balanced(page):
    tex = to_latex(page)
    assert tex.count(r"\toprule") == tex.count(r"\bottomrule") == tex.count(r"\end{table}") == 3 * 4
    assert r"Big \& Odd\_|\ensuremath{<}100\%\ensuremath{>}" in tex
    assert r"light\_gcn" in tex
    body = [line for line in tex.splitlines() if not line.startswith("%")]
    assert not any(re.search(r"(?<!\\)[%_#](?!$)", re.sub(r"\\label\{[^}]*\}", "", line)) for line in body)
    bare = re.sub(r"\\[{}]", "", "\n".join(body))
    assert bare.count("{") == bare.count("}")
    for block in re.findall(r"\\begin\{tabular\}\{(\w+)\}(.*?)\\end\{tabular\}", tex, re.S):
        lines = [line for line in block[1].splitlines() if line.endswith(r"\\")]
        assert {len(re.findall(r"(?<!\\)&", line)) + 1 for line in lines} == {len(block[0])}


def test_latex_compiles_where_there_is_a_latex(page, tmp_path):
    latex = shutil.which("pdflatex")
    if latex is None:
        pytest.skip("there is no pdflatex")
    source = r"\documentclass{article}\usepackage{booktabs,graphicx,amssymb}\begin{document}"
    (tmp_path / "t.tex").write_text(source + to_latex(page) + r"\end{document}")
    done = subprocess.run([latex, "-interaction=batchmode", "-halt-on-error", "t.tex"], cwd=tmp_path, timeout=120)
    assert done.returncode == 0


def test_the_markdown_tables_are_rectangular(page):
    blocks = re.findall(r"(?:^\|.*\n)+", to_markdown(page), re.M)
    assert len(blocks) == 1 + 3 * 4 + 6 * 3 + 1
    for block in blocks:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1
        assert len(block.splitlines()) > 2


def test_the_same_numbers_give_the_same_bytes(outcomes, page):
    again = BenchPage(**{name: getattr(page, name) for name in page.__dataclass_fields__})
    assert to_html(again) == to_html(page)
    assert again.pictures == page.pictures
    assert to_markdown(again) == to_markdown(page)


# Figures


@given(st.lists(st.floats(1, 8), min_size=1, max_size=7), st.floats(0.1, 8))
def test_two_systems_share_a_bar_if_and_only_if_their_ranks_are_near(ranks, cd):
    ranks = sorted(ranks)
    bars = cliques(ranks, cd)
    for i in range(len(ranks)):
        for j in range(i + 1, len(ranks)):
            joined = any(first <= i and j <= last for first, last in bars)
            assert joined == (ranks[j] - ranks[i] < cd)
    assert not any(a != b and a[0] <= b[0] and b[1] <= a[1] for a in bars for b in bars)


def test_the_front_equals_its_loop():
    points = [tuple(point) for point in np.random.default_rng(6).integers(0, 8, (30, 2)).astype(float).tolist()]
    expected = [not any((x <= p[0] and y >= p[1]) and (x < p[0] or y > p[1]) for x, y in points) for p in points]
    assert pareto_front(points) == expected
    assert pareto_front([]) == []


def test_figures_are_inline_svg_that_follows_the_page():
    ranks = {"symcere": 1.2, "a_b": 2.0, "c<d": 2.8, "e": 4.0}
    lines = [
        Series("symcere", (0.0, 1.0, 2.0), (3.0, 2.0, 1.0), (2.0, 1.0, 0.0), (4.0, 3.0, 2.0)),
        Series("a$b$", (0.0, 1.0, 2.0), (1.0, 1.0, 1.0)),
    ]
    for svg in (
        critical_difference_figure(ranks, 1.1, ours="symcere"),
        line_figure(lines, x_label="noise", y_label="ndcg@10", ours="symcere"),
        pareto_figure({"symcere": [(1.0, 1.0), (2.0, 2.0)], "e": [(1.5, 0.5)]}, x_label="arp@10", y_label="ndcg@10"),
    ):
        assert svg.startswith("<svg ")
        assert svg.endswith("</svg>")
        assert 'role="img"' in svg
        assert "currentColor" in svg
        assert "#010203" not in svg
        ids = re.findall(r' id="([^"]+)"', svg)
        assert len(ids) == len(set(ids))
        assert all(f"#{name}" in svg for name in ids)  # numbered ids would stand twice on a page of several figures
    assert "c&lt;d" in critical_difference_figure(ranks, 1.1, ours="symcere")
    assert "a$b$" in line_figure(lines, x_label="noise", y_label="ndcg@10")


def test_a_line_has_as_many_y_as_x():
    with pytest.raises(sc.ConfigError, match="as many y as x"):
        Series("a", (1.0, 2.0), (1.0,))
    with pytest.raises(sc.ConfigError, match="2 low, 0 high"):
        Series("a", (1.0, 2.0), (1.0, 2.0), low=(0.0, 0.0))


def test_what_rounds_to_nothing_has_no_minus():
    assert _interval(-1e-9, 2e-5) == "+0.0000 to +0.0000"
    assert percent(-1e-9) == "+0.0 %"
    assert _interval(-0.01, 0.01) == "-0.0100 to +0.0100"
