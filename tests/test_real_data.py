"""Real reviews: counts that are known, and the main job on a real file."""

import json
import subprocess
import sys

import pytest

import symcere as sc

KNOWN = {
    "amazon-2014/reviews_Musical_Instruments_5.json.gz": (5, "amazon-2014", 10_254, 10_222, 1_423, 898),
    "amazon-2018/Gift_Cards_5.json.gz": (5, "amazon-2018", 2_972, 2_941, 453, 147),
    "amazon-2018/All_Beauty_5.json.gz": (3, "amazon-2018", 5_269, 4_015, 965, 53),
    "tripadvisor/reviews_core3.parquet": (3, "parquet", 19_253, 19_253, 5_187, 1_420),
    "yelp/yelp_academic_dataset_review.json.gz": (3, "yelp", 5_974, 302, 81, 60),
    "zomato/reviews.parquet": (3, "parquet", 9_962, 1_608, 385, 96),
}


@pytest.mark.parametrize("name", KNOWN)
def test_counts_of_real_files_are_those_published(shared, name):
    k, source, n_read, n_reviews, n_users, n_items = KNOWN[name]
    reviews = sc.k_core(sc.read_reviews(shared / name), k)
    last = reviews.steps[-1]
    assert (reviews.source, reviews.steps[0].n_reviews) == (source, n_read)
    assert (last.n_reviews, last.n_users, last.n_items) == (n_reviews, n_users, n_items)


def test_all_beauty_holds_4092_distinct_pairs(shared):
    reviews = sc.read_reviews(shared / "amazon-2018/All_Beauty_5.json.gz")
    counts = [(step.name, step.n_reviews, step.dropped) for step in reviews.steps]
    assert counts == [
        ("read", 5_269, 0),
        ("the same review again", 4_216, 5_269 - 4_216),
        ("duplicate (user, item)", 4_092, 4_216 - 4_092),
    ]


@pytest.mark.slow
def test_symcere_is_ahead_of_every_baseline_on_musical_instruments(shared, tmp_path):
    file = shared / "amazon-2014/reviews_Musical_Instruments_5.json.gz"
    done = subprocess.run(
        [sys.executable, "-m", "symcere", "run", file, "--json", "--out", tmp_path / "o", "--cache", tmp_path / "c"],
        capture_output=True, text=True, check=True, timeout=900,
    )  # fmt: skip
    systems = json.loads(done.stdout)["systems"]
    for label in ("ndcg@10", "recall@20"):
        assert systems["symcere"][label] > max(v[label] for name, v in systems.items() if name != "symcere")
    assert systems["light_gcn"]["ndcg@10"] > 0.08  # no weak baseline
