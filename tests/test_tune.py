"""The search: equal trials, published settings among them, valid alone, nothing lost; and the benchmark it feeds."""

import dataclasses
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time

import numpy as np
import pytest

import symcere as sc
from symcere.cli import main
from symcere.errors import ConfigError, DataError
from symcere.pipeline.systems import System, baselines
from symcere.pipeline.tune import Seeded, read_tuned, tune, tuned_system, write_tuned
from symcere.training.config import Settings
from symcere.training.space import Choice, Real, Whole
from symcere.training.tuning import valid_ndcg


class Silent:
    """Nobody watches; what was said is kept."""

    def __init__(self):
        self.said = []

    def begin(self, stage): ...

    def progress(self, phase, share, note): ...

    def end(self, stage, note, seconds, *, up_to_date):
        self.said.append((stage, note, up_to_date))


class ToySettings(Settings):
    """Of a system that blends popularity with noise."""

    weight: float = 0.0
    noise: int = 0
    kind: str = "plain"


def toy(fail=None):
    """A system whose quality rises with `weight`, without training; `fail` raises under some settings."""

    def fit(train, valid, text, settings, seed, on_epoch):
        if fail:
            fail(settings)
        return sc.fit_popularity(train, valid=valid).with_popularity_weight(settings.weight)

    space = {"weight": Real(-1.0, 1.0), "noise": Whole(0, 9), "kind": Choice(("plain", "other"))}
    return System("toy", fit, (ToySettings(),), space, (ToySettings(weight=-0.5), ToySettings(weight=-0.25, noise=3)))


@pytest.fixture(scope="module")
def data(reviews, text):
    """Two seeds; the text features matter to none of these systems."""
    return [Seeded(seed, sc.split_random(reviews, seed=seed), text) for seed in (0, 1)]


def without_seconds(found):
    whole = json.loads(json.dumps(found))
    for entry in whole.values():
        for trial in entry["trials"]:
            del trial["seconds"]
    return whole


def test_every_system_gets_the_same_number_of_trials_and_its_published_settings_first(data, tmp_path):
    ease = next(system for system in baselines() if system.name == "ease")
    found = tune("world", data, [toy(), ease, baselines()[0]], 7, tmp_path / "trials.db", Silent())
    assert set(found) == {"toy", "ease"}  # popularity has nothing to tune
    assert [len(entry["trials"]) for entry in found.values()] == [7, 7]
    assert found["ease"]["trials"][0]["settings"] == {"l2": 500.0}
    first = [trial["settings"]["weight"] for trial in found["toy"]["trials"]]
    assert first[:2] == [-0.5, -0.25]
    assert len(set(first)) == 7


def test_the_best_on_valid_is_taken_and_its_value_can_be_had_again(data, tmp_path):
    found = tune("world", data, [toy()], 6, tmp_path / "trials.db", Silent())["toy"]
    complete = [trial for trial in found["trials"] if trial["state"] == "complete"]
    means = [float(np.mean(trial["valid_ndcg@10"])) for trial in complete]
    assert found["valid_ndcg@10"] == pytest.approx(max(means), abs=1e-6)
    system = tuned_system(toy(), {"systems": {"toy": found}})
    (settings,) = system.candidates
    again = [
        valid_ndcg(system.fit(train, valid, each.text, settings, each.seed, None), train, valid)
        for each in data
        for train, valid in [(each.split.train, each.split.valid)]
    ]
    assert found["valid_ndcg@10"] == pytest.approx(float(np.mean(again)))


def test_a_search_in_two_sittings_is_a_search_in_one(data, tmp_path):
    whole = tune("world", data, [toy()], 8, tmp_path / "one.db", Silent())
    for n in (1, 3, 8):
        parts = tune("world", data, [toy()], n, tmp_path / "two.db", Silent())
    assert without_seconds(parts) == without_seconds(whole)
    watch = Silent()
    assert without_seconds(tune("world", data, [toy()], 8, tmp_path / "two.db", watch)) == without_seconds(whole)
    assert watch.said[0][2]  # up to date


def test_a_trial_cut_off_by_a_kill_is_done_again(data, tmp_path):
    whole = tune("world", data, [toy()], 5, tmp_path / "one.db", Silent())
    left = []

    def killed(settings):
        left.append(settings)
        if len(left) == 4:  # in the second trial, under its second seed
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune("world", data, [toy(killed)], 5, tmp_path / "two.db", Silent())
    again = tune("world", data, [toy()], 5, tmp_path / "two.db", Silent())
    assert without_seconds(again) == without_seconds(whole)


def test_test_is_never_looked_at(data, tmp_path):
    one = tune("world", data, [toy()], 5, tmp_path / "one.db", Silent())
    blind = []
    for each in data:
        test = each.split.test
        half = dataclasses.replace(test, user=test.user[::2], item=test.item[::2])
        blind.append(dataclasses.replace(each, split=dataclasses.replace(each.split, test=half)))
    other = tune("world", blind, [toy()], 5, tmp_path / "two.db", Silent())
    assert without_seconds(one) == without_seconds(other)


def test_settings_below_the_median_are_cut_short_and_counted(data, tmp_path):
    found = tune("world", data, [toy()], 20, tmp_path / "trials.db", Silent())["toy"]
    states = [trial["state"] for trial in found["trials"]]
    assert len(states) == 20
    assert "pruned" in states
    assert all(len(trial["valid_ndcg@10"]) == (2 if trial["state"] == "complete" else 1) for trial in found["trials"])
    pruned = [trial["valid_ndcg@10"][0] for trial in found["trials"] if trial["state"] == "pruned"]
    assert max(pruned) < max(trial["valid_ndcg@10"][0] for trial in found["trials"])


def test_a_trial_that_diverges_counts_as_nothing_found(data, tmp_path):
    def diverges(settings):
        if settings.weight == -0.5:
            raise ConfigError("Training diverged in epoch 1.")

    found = tune("world", data, [toy(diverges)], 4, tmp_path / "trials.db", Silent())["toy"]
    assert len(found["trials"]) == 4
    assert found["trials"][0]["valid_ndcg@10"] == [0.0, 0.0]


def test_a_system_that_cannot_be_fitted_is_left_out_with_its_sentence(data, tmp_path):
    def refuses(settings):
        raise ConfigError("Too large a catalogue.")

    watch = Silent()
    assert tune("world", data, [toy(refuses)], 4, tmp_path / "trials.db", watch) == {}
    assert watch.said[0][:2] == ("toy on world", "left out: Too large a catalogue.")


def test_results_join_by_system_and_begin_anew_for_other_data(tmp_path):
    path = tmp_path / "tuned" / "world.json"
    write_tuned(path, {"a": {"settings": {}}}, {"trials": 3})
    write_tuned(path, {"b": {"settings": {}}}, {"trials": 3})
    assert set(read_tuned(path)["systems"]) == {"a", "b"}
    write_tuned(path, {"c": {"settings": {}}}, {"trials": 4})
    assert set(read_tuned(path)["systems"]) == {"c"}


@pytest.mark.parametrize("raw", [b"", b"[]", b"{}", b'{"systems": 3}', b"\xff\xfe", None])
def test_a_damaged_file_of_tuned_settings_is_a_sentence(tmp_path, raw):
    if raw is not None:
        (tmp_path / "t.json").write_bytes(raw)
    with pytest.raises(DataError, match="must be a file of tuned settings"):
        read_tuned(tmp_path / "t.json")


def test_settings_of_another_version_are_a_sentence():
    with pytest.raises(ConfigError, match="Unknown setting 'magic'"):
        tuned_system(toy(), {"systems": {"toy": {"settings": {"magic": 1}}}})


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A small review file, with a name that is hard to parse."""
    path = tmp_path_factory.mktemp("data") / "re@views=5.json.gz"
    sc.write_amazon(sc.anchoring_world(n_users=100, n_items=40, reviews_per_user=6), path)
    return path


@pytest.fixture
def symcere(capsys, monkeypatch, tmp_path):
    """Call the command line in a folder of its own; returns (exit code, standard output, standard error)."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["symcere", *map(str, words)])
        monkeypatch.chdir(tmp_path)
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        return code, *capsys.readouterr()

    return call


SMALL = {"dim": 8, "max_epochs": 3, "batch_size": 256}


def test_bench_takes_what_tune_found_and_writes_its_pages(file, symcere, tmp_path):
    words = [f"World={file}@5", "--systems", "popularity,ease", "--encoder", "tfidf"]
    tuned = tmp_path / "runs" / "tuned" / "world.json"
    about = {"dataset": "World", "split": "random", "seeds": [0, 1], "trials": 5, "encoder": "tfidf"}
    found = {"symcere": {"settings": SMALL}, "ease": {"settings": {"l2": 7.0}}}
    write_tuned(tuned, found, about)
    code, out, err = symcere("bench", *words, "--seeds", 1, "--splits", "random,cold-items", "--json")
    assert code == 0, err
    assert set(json.loads(out)["means"]) == {"symcere", "ease", "popularity"}
    folder = tmp_path / "runs" / "bench"
    page = (folder / "bench.html").read_text()
    assert "Tuned with 5 trials a system" in page
    assert "symcere:shuffled_text" in page
    for name in ("bench.md", "bench.tex", "results.csv", "paired.csv"):
        assert (folder / name).stat().st_size > 300
    manifests = [json.loads(path.read_text()) for path in (folder / "world").glob("stages/ease-*/manifest.json")]
    assert {manifest["settings"]["l2"] for manifest in manifests} == {7.0}
    assert len(manifests) == 2  # one for each split
    before = {path: path.stat().st_mtime_ns for path in folder.glob("world/stages/*/manifest.json")}
    code, out, _ = symcere("bench", *words, "--seeds", 1, "--splits", "random,cold-items")
    assert code == 0
    assert "Page: " in out
    assert {path: path.stat().st_mtime_ns for path in folder.glob("world/stages/*/manifest.json")} == before


def test_tune_writes_settings_and_shows_them(file, symcere, tmp_path):
    words = ["tune", f"A B={file}", "--systems", "none", "--trials", 1, "--seeds", 1, "--encoder", "tfidf"]
    code, out, err = symcere(*words, "--json")
    assert code == 0, err
    (found,) = json.loads(out).values()
    assert found["about"] == {"dataset": "A B", "split": "random", "seeds": [0], "trials": 1, "encoder": "tfidf"}
    assert (tmp_path / "runs" / "tuned" / "a-b.json").exists()
    code, out, _ = symcere(*words)
    assert code == 0
    assert "learning_rate=0.004" in " ".join(out.split())


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["bench", "{file}", "--splits", "magic"], "Unknown split 'magic' in --splits. Known: random"),
        (["bench", "A={file}", "A={file}"], "Each data set needs a name of its own"),
        (["bench", "A=nowhere.json"], "does not exist"),
        (["tune", "{file}", "--systems", "magic"], "Unknown system 'magic' in --systems. Known: popularity"),
        (["tune", "{file}", "--trials", "0"], "trials"),
    ],
)
def test_bad_words_are_sentences(file, symcere, words, sentence):
    code, _, err = symcere(*[word.replace("{file}", str(file)) for word in words])
    assert code == 2
    assert sentence in " ".join(err.replace("│", " ").split())


def test_a_split_that_the_data_do_not_allow_is_a_note(file, symcere, tmp_path):
    world = sc.read_reviews(file).table.drop("timestamp")
    world.write_parquet(tmp_path / "undated.parquet")
    words = ["--systems", "popularity", "--no-ablation", "--seeds", "1", "--splits", "random,temporal"]
    write_tuned(tmp_path / "runs/tuned/undated.json", {"symcere": {"settings": SMALL}},
                {"trials": 1, "split": "random", "seeds": [0]})  # fmt: skip
    code, out, err = symcere("bench", tmp_path / "undated.parquet", *words)
    assert code == 0, err
    assert "undated, temporal:" in " ".join(err.split())
    assert "symcere" in out


@pytest.mark.slow
def test_a_search_killed_at_any_moment_goes_on_to_the_same_trials(file, tmp_path):
    words = [sys.executable, "-m", "symcere", "tune", f"W={file}", "--systems", "light_gcn", "--trials", "5",
             "--seeds", "1", "--encoder", "tfidf", "--quiet", "--threads", "1"]  # fmt: skip

    def run(folder):
        folder.mkdir(exist_ok=True)
        return subprocess.Popen(words, cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"},
                                stdout=subprocess.DEVNULL)  # fmt: skip

    assert run(tmp_path / "whole").wait(timeout=600) == 0
    for n_trials in (1, 3, 6):  # light_gcn has five trials, then SymCERE's begin
        process = run(tmp_path / "killed")
        began = time.monotonic()
        while process.poll() is None and time.monotonic() - began < 300:
            time.sleep(0.2)
            database = tmp_path / "killed" / "runs" / "bench" / "trials.db"
            if database.exists() and _n_trials(database) >= n_trials:
                process.send_signal(signal.SIGKILL)
                process.wait()
    assert run(tmp_path / "killed").wait(timeout=600) == 0
    whole, killed = (
        without_seconds(read_tuned(tmp_path / name / "runs" / "tuned" / "w.json")["systems"])
        for name in ("whole", "killed")
    )
    assert killed == whole


def _n_trials(database):
    try:
        with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
            return connection.execute("select count(*) from trials").fetchone()[0]
    except sqlite3.Error:
        return 0
