"""Worlds of any size: counts as promised, the same bytes, bounded memory, and text that tells taste."""

import gzip
import os
import subprocess
import sys

import numpy as np
import polars as pl
import pytest

import symcere as sc
from symcere.data.synthetic import FACTS, SENTIMENTS

N = 5_000


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A small streamed world: its file, its truth, and its reviews as read."""
    file = tmp_path_factory.mktemp("world") / "world.json.gz"
    world = sc.write_world(file, N, n_users=400, n_items=150, duplicates=0.02)
    return file, world, sc.read_reviews(file)


def test_a_world_is_read_as_amazon_with_the_counts_promised(written):
    _, world, reviews = written
    assert reviews.source == "amazon-2014"
    assert [(step.name, step.n_reviews, step.dropped) for step in reviews.steps] == [
        ("read", N, 0),
        ("the same review again", N - 100, 100),
    ]
    assert world.n_duplicates == 100
    assert set(reviews.table["user_id"]) == set(world.user_ids)
    assert set(reviews.table["item_id"]) <= set(world.item_ids)
    assert reviews.table["user_id"].str.contains("^A[A-Z2-7]{13}$").all()
    assert reviews.table["item_id"].str.contains("^B[A-Z2-7]{9}$").all()
    assert reviews.n_without_text == reviews.n_without_time == 0
    assert set(reviews.table["rating"]) == {1, 2, 3, 4, 5}


def test_copies_are_exact(written):
    lines = gzip.decompress(written[0].read_bytes()).splitlines()
    assert (len(lines), len(set(lines))) == (N, N - 100)


def test_users_and_items_have_few_reviews_or_many_so_that_a_core_bites(tmp_path):
    sc.write_world(tmp_path / "world.parquet", 20_000)
    reviews = sc.read_reviews(tmp_path / "world.parquet")
    for column in ("user_id", "item_id"):
        counts = reviews.table[column].value_counts()["count"]
        assert counts.max() > 10 * counts.median()
        assert counts.min() < 3
    core = sc.k_core(reviews, 5)
    assert 0.7 < len(core) / len(reviews) < 0.95
    assert 0.2 < core.steps[-1].n_users / 2_500 < 0.7
    assert 0.5 < core.steps[-1].n_items / 1_333 < 0.95


def test_lengths_are_those_of_reviews_and_years_go_by(written):
    words = written[2].table["text"].str.count_matches(" ") + 1
    assert 50 < words.mean() < 70
    assert words.median() < 0.8 * words.mean()
    assert 200 < words.max() < 1_200
    years = written[2].table["timestamp"] / (365 * 86_400)
    assert years.is_sorted()
    assert years.max() - years.min() > 10


def test_the_same_arguments_write_the_same_bytes_whatever_the_threads(tmp_path, monkeypatch):
    monkeypatch.setattr("symcere.data.synthetic.streamed._BLOCK", 300)
    for suffix in ("json.gz", "parquet", "json"):
        made = []
        for seed, threads in ((0, 1), (0, 3), (1, 2)):
            file = tmp_path / f"{seed}{threads}.{suffix}"
            sc.write_world(file, 2_000, duplicates=0.1, seed=seed, threads=threads)
            made.append(file.read_bytes())
        assert made[0] == made[1] != made[2]


def test_blocks_join_to_the_counts_promised(tmp_path, monkeypatch):
    monkeypatch.setattr("symcere.data.synthetic.streamed._BLOCK", 300)
    seen = []
    sc.write_world(tmp_path / "world.json", 2_000, duplicates=0.1, on_progress=seen.append)
    reviews = sc.read_reviews(tmp_path / "world.json")
    assert (len(reviews), reviews.steps[-1].dropped) == (1_800, 200)
    assert len(seen) > 3
    assert seen == sorted(seen)
    assert seen[-1] == 2_000


def test_every_format_holds_the_same_reviews(tmp_path):
    tables = []
    for suffix in ("jsonl", "jsonl.gz", "parquet"):
        sc.write_world(tmp_path / f"world.{suffix}", 1_000, seed=3)
        tables.append(sc.read_reviews(tmp_path / f"world.{suffix}").table)
    assert tables[0].equals(tables[1])
    assert tables[0].equals(tables[2])


def test_a_world_of_one_review_and_a_full_one_can_be_written(tmp_path):
    sc.write_world(tmp_path / "one.json", 1)
    assert len(sc.read_reviews(tmp_path / "one.json")) == 1
    sc.write_world(tmp_path / "full.json", 100 * 23, n_users=100, n_items=50)  # at most 25 a user
    assert len(sc.read_reviews(tmp_path / "full.json")) == 2_300


def test_fact_words_are_those_planted_and_sentiment_follows_the_rating_alone(written):
    _, world, reviews = written
    table = reviews.table
    row = {id_: n for n, id_ in enumerate(world.item_ids)}
    item = np.array([row[id_] for id_ in table["item_id"]])
    planted = np.zeros((150, len(FACTS)), dtype=bool)
    np.put_along_axis(planted, world.has.astype(int), True, axis=1)
    said = np.stack([table["text"].str.contains(rf"\b{fact}\b").to_numpy() for fact in FACTS], axis=1)
    assert not (said & ~planted[item]).any()
    assert said.sum(1).mean() > 1
    for feeling, ratings in zip(SENTIMENTS, ([1, 2], [3], [4, 5]), strict=True):
        spoken = table.filter(pl.col("text").str.contains(rf"\b({'|'.join(feeling)})\b"))
        assert set(spoken["rating"]) == set(ratings)


def test_text_tells_taste(written):
    """TF-IDF profiles of users are nearer to items with the facts they like; and they choose such items."""
    _, world, reviews = written
    split = sc.split_random(sc.k_core(reviews, 5), seed=0)
    rows = {id_: n for n, id_ in enumerate(world.user_ids)}
    likes = world.likes[[rows[id_] for id_ in split.train.users]]
    rows = {id_: n for n, id_ in enumerate(world.item_ids)}
    has = world.has[[rows[id_] for id_ in split.train.items]]
    shared = (likes[:, None, :, None] == has[None, :, None, :]).any((2, 3))
    text = sc.encode_reviews(split.train, sc.tfidf_encoder(128))
    near = text.user @ text.item.T
    assert np.corrcoef(near.ravel(), shared.ravel())[0, 1] > 0.3
    chosen = shared[split.test.user, split.test.item].mean()
    assert chosen > 2 * shared.mean()


@pytest.mark.slow
def test_memory_is_bounded(tmp_path):
    """300,000 reviews are 145 MB of JSON; a writer that held them all would need several times that."""
    code = (
        "import sys, symcere as sc\n"
        "sc.write_world(sys.argv[1], int(sys.argv[2]), threads=1)\n"
        "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))\n"
    )
    peaks = []
    for n_reviews in (60_000, 300_000):
        done = subprocess.run(
            [sys.executable, "-c", code, tmp_path / "world.json", str(n_reviews)],
            capture_output=True, text=True, check=True, timeout=120, env={**os.environ, "POLARS_MAX_THREADS": "2"},
        )  # fmt: skip
        peaks.append(int(done.stdout) / 1024)  # MiB; ru_maxrss would count the peak of this process, too
    assert peaks[1] < 400
    assert peaks[1] - peaks[0] < 80


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({"path": "world.csv"}, "written as .json"),
        ({"n_reviews": 0}, "n_reviews >= 1"),
        ({"seed": -1}, "seed >= 0"),
        ({"duplicates": 0.6}, "share from 0 to 0.5"),
        ({"level": 10}, "level of gzip"),
        ({"n_items": 12}, "half of 12 items"),
        ({"n_users": 1_001}, "at least one of 1,000"),
    ],
)
def test_what_cannot_be_written_is_refused_in_a_sentence(tmp_path, words, sentence):
    arguments = {"path": "world.json", "n_reviews": 1_000, **words}
    path = tmp_path / arguments.pop("path")
    with pytest.raises(sc.ConfigError, match=sentence):
        sc.write_world(path, **arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", ["json", "json.gz", "parquet"])
def test_a_full_disk_is_a_sentence_and_leaves_nothing(tmp_path, suffix):
    code = (
        "import resource, sys, symcere as sc\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "try: sc.write_world(sys.argv[1], 20_000)\n"
        "except sc.OutputError as error: print(error)\n"
    )
    file = tmp_path / f"world.{suffix}"
    done = subprocess.run([sys.executable, "-c", code, file], capture_output=True, text=True, check=True, timeout=60)
    assert f"Cannot write {file}: File too large" in done.stdout
    assert not list(tmp_path.iterdir())


def test_synth_writes_a_world(tmp_path):
    words = [sys.executable, "-m", "symcere", "synth", "world.parquet", "--reviews", "1000", "--duplicates", "0.1"]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60, cwd=tmp_path)
    assert "1,000 reviews (100 copies), 112 users, 60 items" in done.stderr
    assert len(sc.read_reviews(tmp_path / "world.parquet")) == 900
    done = subprocess.run([*words, "--items", "3"], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.returncode == 2
    assert "Change the number of users or items" in done.stderr
