"""Noise: only train's text changes, at the rate asked for, the same for the same seed, nested over rates."""

import contextlib
import io
import json
import sys
import unicodedata

import numpy as np
import polars as pl
import pytest

import symcere as sc
from symcere.cli import main
from symcere.data.noise import KINDS, SPAM
from symcere.data.synthetic import FACTS, FILLERS, SENTIMENTS

OF_REVIEWS = (sc.Truncation, sc.Shuffled, sc.Missing, sc.Spam)
SCRIPTS = [
    "Отличный звук, беру ещё",
    "日本語の弦が切れた。",
    "हिन्दी में लिखा",
    "안녕 하세요",
    "naïve 👩‍👩‍👧 café\n\nÜber",
    "x",
    "12 !",
    "",
]


def train_of(texts, titles=None):
    """A train part of one user with these texts."""
    n = len(texts)
    items = sc.IdMap(tuple(f"i{i:06d}" for i in range(n)), "item")
    schema = {
        "rating": pl.Float32,
        "timestamp": pl.Int64,
        "helpful": pl.Float32,
        "title": pl.String,
        "text": pl.String,
    }
    review = pl.DataFrame(
        {
            "rating": [5.0] * n,
            "timestamp": list(range(n)),
            "helpful": None,
            "title": titles or [""] * n,
            "text": texts,
        },
        schema=schema,
    )
    return sc.Dataset(sc.IdMap(("u",), "user"), items, np.zeros(n, dtype=np.int64), np.arange(n), review)


@pytest.fixture(scope="module")
def train():
    """Train with 4,000 different texts."""
    draws = np.random.default_rng(0)
    words = [" ".join(draws.choice(FILLERS, draws.integers(5, 40))) for _ in range(4_000)]
    return train_of([f"review{n} {text}" for n, text in enumerate(words)], [f"title{n}" for n in range(4_000)])


def changed(train, noise, seed=0):
    """Which texts a noise changes."""
    return (sc.apply_noise(train, [noise], seed=seed).review["text"] != train.review["text"]).to_numpy()


@pytest.mark.parametrize("kind", KINDS)
def test_rate_0_changes_nothing_and_any_rate_changes_nothing_but_text(train, kind):
    before = train.review.clone()
    assert sc.apply_noise(train, [kind(0)]).review.equals(before)
    noisy = sc.apply_noise(train, [kind(0.5)])
    assert train.review.equals(before)
    for column in ("rating", "timestamp", "helpful"):
        assert noisy.review[column].equals(before[column])
    assert (noisy.users, noisy.items) == (train.users, train.items)
    assert noisy.matrix.toarray().tobytes() == train.matrix.toarray().tobytes()
    assert not noisy.review["text"].equals(before["text"])


@pytest.mark.parametrize("kind", OF_REVIEWS)
def test_the_share_asked_for_is_hit_and_all_at_rate_1(train, kind):
    for rate in (0.1, 0.5):
        assert changed(train, kind(rate)).mean() == pytest.approx(rate, abs=0.03)
    assert changed(train, kind(1)).all()


@pytest.mark.parametrize("kind", OF_REVIEWS)
def test_reviews_hit_at_a_lower_rate_are_hit_at_a_higher_one(train, kind):
    few, many = changed(train, kind(0.1)), changed(train, kind(0.5))
    assert (few <= many).all()
    assert (changed(train, kind(0.1), seed=1) != few).any()


def test_typos_hit_the_share_of_words_and_the_same_ones_alike_at_a_higher_rate(train):
    def words(rate):
        return sc.apply_noise(train, [sc.Typos(rate)]).review["text"].str.split(" ").explode()

    clean, few, many, all_ = (words(rate) for rate in (0, 0.1, 0.5, 1))
    assert (few != clean).mean() == pytest.approx(0.1, abs=0.01)
    assert (many != clean).mean() == pytest.approx(0.5, abs=0.01)
    assert (all_ != clean).all()
    hit = few != clean
    assert few.filter(hit).equals(many.filter(hit))
    difference = all_.str.len_chars().cast(pl.Int64) - clean.str.len_chars().cast(pl.Int64)
    assert set(difference) == {-1, 0, 1}
    sorted_letters = [words.head(9_000).str.split("").list.sort().list.join("") for words in (all_, clean)]
    same_letters = sorted_letters[0] == sorted_letters[1]
    assert 0.1 < same_letters.mean() < 0.25  # two letters have changed places


def test_typos_hit_titles_too(train):
    assert (sc.apply_noise(train, [sc.Typos(1)]).review["title"] != train.review["title"]).all()


def test_every_script_survives_typos():
    texts = SCRIPTS * 50
    noisy = sc.apply_noise(train_of(texts), [sc.Typos(1)]).review["text"].to_list()
    for before, after in zip(texts, noisy, strict=True):
        assert after.encode().decode() == after
        assert (after == before) is (not any(sign.isalpha() for sign in before))
        assert [sign for sign in after if not sign.isalpha()].count("\n") == before.count("\n")
        assert after.count("👩‍👩‍👧") == before.count("👩‍👩‍👧")
        assert len(after.split()) == len(before.split())
    letters = {sign for text in noisy[:: len(SCRIPTS)] for sign in text if sign.isalpha()}
    assert all(unicodedata.name(sign).startswith("CYRILLIC") for sign in letters)


def test_blocks_and_signs_at_the_end_of_unicode_join_as_they_were(monkeypatch):
    texts = ["a\U0010ffff", "\U0010fffe\x00", "\n", "", "b"]
    monkeypatch.setattr("symcere.data.noise._BLOCK", 2)
    assert sc.apply_noise(train_of(texts), [sc.Typos(0)]).review["text"].to_list() == texts
    noisy = sc.apply_noise(train_of(texts), [sc.Typos(1)]).review["text"].to_list()
    assert all((before == after) is (before in texts[1:4]) for before, after in zip(texts, noisy, strict=True))
    assert noisy[0].endswith("\U0010ffff")
    assert len(sc.apply_noise(train_of([]), [kind(1) for kind in KINDS])) == 0


def test_truncation_leaves_a_beginning(train):
    texts = [*train.review["text"], *SCRIPTS]
    cut = sc.apply_noise(train_of(texts), [sc.Truncation(1)]).review["text"].to_list()
    assert all(before.startswith(after) for before, after in zip(texts, cut, strict=True))
    assert all(
        after.split() == before.split()[: len(after.split())]
        for before, after in zip(texts[:4_000], cut[:4_000], strict=True)
    )
    kept = [
        len(after.split()) / len(before.split()) for before, after in zip(texts[:4_000], cut[:4_000], strict=True)
    ]
    assert min(kept) > 0
    assert max(kept) < 1
    assert np.mean(kept) == pytest.approx(0.5, abs=0.05)


def test_shuffled_reviews_are_exchanged_among_each_other_with_their_titles(train):
    noisy = sc.apply_noise(train, [sc.Shuffled(0.4)]).review
    hit = (noisy["text"] != train.review["text"]).to_numpy()
    assert sorted(noisy["text"].filter(hit)) == sorted(train.review["text"].filter(hit))
    assert noisy["text"].str.extract(r"review(\d+)").equals(noisy["title"].str.extract(r"title(\d+)").alias("text"))


def test_missing_reviews_have_neither_title_nor_text(train):
    noisy = sc.apply_noise(train, [sc.Missing(0.4)]).review
    assert noisy["title"].eq("").equals(noisy["text"].eq("").alias("title"))
    assert noisy["text"].eq("").mean() == pytest.approx(0.4, abs=0.03)


def test_spam_is_made_of_its_own_words(train):
    noisy = sc.apply_noise(train, [sc.Spam(1)]).review
    assert set(noisy["text"].str.split(" ").explode()) == set(SPAM)
    assert noisy["title"].equals(train.review["title"])
    assert not set(SPAM) & {*FACTS, *FILLERS, *(word for words in SENTIMENTS for word in words)}


def test_noises_add_up_and_one_more_never_changes_what_another_hits(train):
    both = sc.apply_noise(train, [sc.Missing(0.3), sc.Spam(0.2)]).review["text"]
    spam = both.str.split(" ").list.first().is_in(SPAM)
    assert spam.to_numpy().tolist() == changed(train, sc.Spam(0.2)).tolist()
    assert (both == "").to_numpy().tolist() == (changed(train, sc.Missing(0.3)) & ~spam.to_numpy()).tolist()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
def test_a_rate_that_is_no_share_is_refused(kind, rate):
    with pytest.raises(sc.ConfigError, match=f"rate of {kind.name} must be a share from 0 to 1"):
        kind(rate)


def test_a_kind_that_is_there_twice_is_refused(train):
    with pytest.raises(sc.ConfigError, match="found spam 2 times"):
        sc.apply_noise(train, [sc.Spam(0.1), sc.Spam(0.2)])


def test_features_of_noisy_reviews_differ_and_those_of_zero_noise_are_the_clean_ones(split, text):
    zero, noisy = (
        sc.encode_reviews(sc.apply_noise(split.train, [kind(rate) for kind in KINDS]), sc.tfidf_encoder(64))
        for rate in (0, 0.3)
    )
    assert zero.fingerprint == text.fingerprint
    assert zero.user.tobytes() == text.user.tobytes()
    assert zero.item.tobytes() == text.item.tobytes()
    assert noisy.fingerprint != text.fingerprint


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Results of `symcere run` by --noise, in one folder, one after the other."""
    folder = tmp_path_factory.mktemp("noise")
    file, out = folder / "reviews.json.gz", folder / "out"
    sc.write_amazon(sc.anchoring_world(n_users=120, n_items=50, reviews_per_user=6), file)
    options = f"--out {out} --cache {out} --systems popularity --set dim=8 --set max_epochs=6 --json --quiet"
    made = {}
    for noise in ("", "spam=0,typos=0", "typos=0.3,spam=0.1"):
        printed = io.StringIO()
        words = ["symcere", "run", str(file), *options.split(), "--noise", noise]
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
            patch.setattr(sys, "argv", words)
            with pytest.raises(SystemExit, match="0"):
                main()
        made[noise] = json.loads(printed.getvalue())
    return folder, made


def test_a_noisy_run_differs_a_zero_noise_run_equals_the_clean_one_and_the_data_stay(results):
    folder, made = results
    clean, zero, noisy = made.values()
    values = [
        {
            name: {label: value for label, value in system.items() if label != "seconds"}
            for name, system in run.items()
        }
        for run in (clean["systems"], zero["systems"], noisy["systems"])
    ]
    assert values[0] == values[1]
    assert values[0]["symcere"] != values[2]["symcere"]
    assert values[0]["popularity"] == values[2]["popularity"]
    assert set(noisy["up_to_date"]) == {"ingest", "split-seed0", "popularity-seed0"}
    assert noisy["dataset"] == clean["dataset"]
    assert len(list((folder / "out" / "stages").glob("encode-*"))) == 3


def test_results_and_report_say_which_noise_there_was(results):
    folder, made = results
    assert [run["noise"] for run in made.values()] == [{}, {"spam": 0.0, "typos": 0.0}, {"typos": 0.3, "spam": 0.1}]
    for name in ("report.md", "report.html"):
        assert "noise in the train texts: typos 0.3, spam 0.1." in (folder / "out" / name).read_text()
    for name in ("results.json", "manifest.json"):
        assert json.loads((folder / "out" / name).read_text())["noise"] == {"typos": 0.3, "spam": 0.1}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("fog=0.1", "Unknown --noise 'fog'. Known: typos, truncation, shuffled, missing, spam."),
        ("typos", "--noise takes KEY=VALUE; found 'typos'."),
        ("typos=much", "The rate of typos in --noise must be a number from 0 to 1; found 'much'."),
        ("typos=2", "must be a number from 0 to 1; found '2'."),
        ("typos=0.1,typos=0.2", "--noise takes each kind once"),
    ],
)
def test_noise_that_is_not_understood_is_refused(words, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["symcere", "run", str(tmp_path / "no.json"), "--noise", words])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert sentence in " ".join(capsys.readouterr().err.split())
