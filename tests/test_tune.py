"""The search: equal trials, published settings first, valid alone, nothing lost, several processes at once."""

import contextlib
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
from conftest import Silent
from symcere.errors import ConfigError, DataError, DivergedError, OutputError
from symcere.pipeline.systems import System, baselines
from symcere.pipeline.tune import Seeded, read_tuned, tune, tuned_system, write_tuned
from symcere.training.config import Settings
from symcere.training.space import Choice, Real, Whole
from symcere.training.tuning import valid_ndcg


class ToySettings(Settings):
    """Of a system that blends popularity with noise."""

    weight: float = 0.0
    noise: int = 0
    kind: str = "plain"
    fixed: int = 0  # no search moves it


def toy(fail=None):
    """A system whose quality rises with `weight`, without training; `fail` raises under some settings."""

    def fit(train, valid, text, settings, seed, on_epoch):
        if fail:
            fail(settings)
        return sc.fit_popularity(train, valid=valid).with_popularity_weight(settings.weight)

    space = {"weight": Real(-1.0, 1.0), "noise": Whole(0, 9), "kind": Choice(("plain", "other"))}
    published = (ToySettings(weight=-0.5), ToySettings(weight=-0.25, noise=3), ToySettings(weight=0.1, kind="other"))
    return System("toy", fit, (ToySettings(),), space, published)


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


def test_every_system_gets_the_same_number_of_trials_and_what_is_known_of_it_first(data, tmp_path):
    ease = next(system for system in baselines() if system.name == "ease")
    found = tune("world", data, [toy(), ease, baselines()[0]], 7, tmp_path / "trials.db", Silent())
    assert set(found) == {"toy", "ease"}  # popularity has nothing to tune
    assert [len(entry["trials"]) for entry in found.values()] == [7, 7]
    assert found["ease"]["trials"][0]["settings"] == {"l2": 500.0}
    first = [trial["settings"]["weight"] for trial in found["toy"]["trials"]]
    assert first[:4] == [-0.5, -0.25, 0.1, ToySettings().weight]  # published, then what it has untuned
    assert len(set(first)) == 7


@pytest.mark.slow
def test_what_won_an_earlier_search_is_tried_again_where_it_still_can_be(data, tmp_path):
    def first(name, settings):
        earlier = {"toy": {"settings": settings}}
        found = tune("world", data, [toy()], 6, tmp_path / f"{name}.db", Silent(), earlier=earlier)["toy"]
        again = tune("world", data, [toy()], 6, tmp_path / f"{name}.db", Silent(), earlier={"toy": found})["toy"]
        assert again["trials"] == found["trials"]  # what it found itself is not tried once more
        return [trial["settings"] for trial in found["trials"]]

    winner = {"weight": 0.75, "noise": 4, "kind": "other"}
    plain = first("plain", ToySettings().model_dump())  # what it has untuned, which is tried anyway
    found = first("winner", {**winner, "fixed": 1})
    assert found[:4] == plain[:4]
    assert found[4] == winner != plain[4]
    assert first("outside", {**winner, "weight": 1.5}) == plain
    assert first("no number", {**winner, "kind": "gone"}) == plain
    assert first("another version", {**winner, "unheard": 1}) == plain


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


@pytest.mark.slow
def test_a_search_in_two_sittings_is_a_search_in_one(data, tmp_path):
    whole = tune("world", data, [toy()], 8, tmp_path / "one.db", Silent())
    for n in (1, 3, 8):
        parts = tune("world", data, [toy()], n, tmp_path / "two.db", Silent())
    assert without_seconds(parts) == without_seconds(whole)
    watch = Silent()
    assert without_seconds(tune("world", data, [toy()], 8, tmp_path / "two.db", watch)) == without_seconds(whole)
    assert watch.said[0][2]  # up to date


@pytest.mark.parametrize("fits", [1, 4, 8], ids=["first published", "second published", "proposed"])
def test_a_trial_cut_off_by_a_kill_is_done_again_in_its_place(data, tmp_path, fits):
    whole = tune("world", data, [toy()], 5, tmp_path / "one.db", Silent())
    begun = []

    def killed(settings):
        begun.append(settings)
        if len(begun) == fits:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune("world", data, [toy(killed)], 5, tmp_path / "two.db", Silent())
    again = tune("world", data, [toy()], 5, tmp_path / "two.db", Silent())
    assert without_seconds(again) == without_seconds(whole)
    with contextlib.closing(sqlite3.connect(tmp_path / "two.db")) as connection:
        states = [state for (state,) in connection.execute("select state from trials")]
    assert len(states) == 6
    assert set(states) <= {"COMPLETE", "PRUNED", "FAIL"}  # what was cut off is not left running


def test_what_a_longer_search_found_is_no_part_of_a_shorter_one(data, tmp_path):
    short = tune("world", data, [toy()], 4, tmp_path / "one.db", Silent())
    tune("world", data, [toy()], 9, tmp_path / "two.db", Silent())
    assert without_seconds(tune("world", data, [toy()], 4, tmp_path / "two.db", Silent())) == without_seconds(short)


def test_trials_under_another_setting_that_no_trial_moves_are_no_part_of_a_search(data, tmp_path):
    system = toy()
    for fixed in (0, 1):
        found = tune("world", data, [system.under(ToySettings(fixed=fixed))], 3, tmp_path / "trials.db", Silent())
        assert found["toy"]["settings"]["fixed"] == fixed


def test_a_damaged_file_of_trials_is_a_sentence(data, tmp_path):
    (tmp_path / "trials.db").write_bytes(b"torn" * 1000)
    with pytest.raises(OutputError, match=r"Cannot keep trials in .*trials.db: file is not a database"):
        tune("world", data, [toy()], 1, tmp_path / "trials.db", Silent())


def test_test_is_never_looked_at(data, tmp_path):
    one = tune("world", data, [toy()], 5, tmp_path / "one.db", Silent())
    blind = []
    for each in data:
        test = each.split.test
        half = dataclasses.replace(test, user=test.user[::2], item=test.item[::2])
        blind.append(dataclasses.replace(each, split=dataclasses.replace(each.split, test=half)))
    other = tune("world", blind, [toy()], 5, tmp_path / "two.db", Silent())
    assert without_seconds(one) == without_seconds(other)
    watch = Silent()
    tune("world", blind, [toy()], 5, tmp_path / "one.db", watch)
    assert watch.said[0][2]  # the same search, up to date: its name does not depend on test either


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
            raise DivergedError("Training diverged in epoch 1.")

    found = tune("world", data, [toy(diverges)], 4, tmp_path / "trials.db", Silent())["toy"]
    assert len(found["trials"]) == 4
    assert found["trials"][0]["valid_ndcg@10"] == [0.0, 0.0]


def test_a_system_that_cannot_be_fitted_is_left_out_with_its_sentence(data, tmp_path):
    def refuses(settings):
        raise ConfigError("Too large a catalogue.")

    watch = Silent()
    assert tune("world", data, [toy(refuses)], 4, tmp_path / "trials.db", watch) == {}
    assert watch.said[0][:2] == ("toy on world", "left out: Too large a catalogue.")


def about(**changes):
    return {"dataset": "w", "split": "random", "seeds": [0], "trials": 3, "encoder": "tfidf", **changes}


def test_results_join_by_system_and_begin_anew_for_another_search(tmp_path):
    path = tmp_path / "tuned" / "world.json"
    write_tuned(path, {"a": {"settings": {}}}, about())
    write_tuned(path, {"b": {"settings": {}}}, about())
    assert set(read_tuned(path)["systems"]) == {"a", "b"}
    write_tuned(path, {"b": {"settings": {"x": 1}}}, about())
    assert read_tuned(path)["systems"] == {"a": {"settings": {}}, "b": {"settings": {"x": 1}}}
    for n, change in enumerate(({"trials": 4}, {"seeds": [1]}, {"split": "temporal"})):
        write_tuned(path, {f"c{n}": {"settings": {}}}, about(**change))
        assert set(read_tuned(path)["systems"]) == {f"c{n}"}
        assert read_tuned(path)["about"] == about(**change)


def test_what_was_searched_with_another_encoder_stays_and_says_so(tmp_path):
    path = tmp_path / "world.json"
    write_tuned(path, {"a": {"settings": {}}, "b": {"settings": {}}, "c": {"settings": {}}}, about())
    write_tuned(path, {"b": {"settings": {"x": 1}}}, about(encoder="lift"))
    write_tuned(path, {"c": {"settings": {}}}, about(encoder="own"))
    whole = read_tuned(path)
    assert whole["about"]["encoder"] == "own"
    assert {name: entry.get("encoder") for name, entry in whole["systems"].items()} == {
        "a": "tfidf", "b": "lift", "c": None,
    }  # fmt: skip
    assert whole["systems"]["b"]["settings"] == {"x": 1}


ABOUT = json.dumps(about()).encode()


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"[]", b"3", b"null", b"{}", b'{"systems": 3}', b"\xff\xfe", None, b'{"systems": {}}',
        b'{"about": {}, "systems": {}}', b'{"about": ' + ABOUT + b"}", b'{"about": ' + ABOUT + b', "systems": []}',
        b'{"about": ' + ABOUT + b', "systems": {"ease": 3}}', b'{"about": ' + ABOUT + b', "systems": {"ease": {}}}',
        b'{"about": ' + ABOUT + b', "systems": {"ease": {"settings": 3}}}',
    ],
)  # fmt: skip
def test_a_damaged_file_of_tuned_settings_is_a_sentence(tmp_path, raw):
    if raw is not None:
        (tmp_path / "t.json").write_bytes(raw)
    with pytest.raises(DataError, match=r"must be a file of tuned settings.*Remove it, or tune again"):
        read_tuned(tmp_path / "t.json")


def test_settings_of_another_version_are_a_sentence():
    with pytest.raises(ConfigError, match="Unknown setting 'magic'"):
        tuned_system(toy(), {"systems": {"toy": {"settings": {"magic": 1}}}})


def test_tune_writes_settings_and_shows_them(file, symcere, tmp_path):
    words = ["tune", f"A B={file}", "--systems", "none", "--trials", 1, "--seeds", 1, "--encoder", "tfidf"]
    code, out, err = symcere(*words, "--json")
    assert code == 0, err
    (found,) = json.loads(out).values()
    sizes = {side: found["about"].pop(side) for side in ("users", "items")}
    assert all(n > 1 for n in sizes.values())
    assert found["about"] == {"dataset": "A B", "split": "random", "seeds": [0], "trials": 1, "encoder": "tfidf"}
    assert (tmp_path / "runs" / "tuned" / "a-b.json").exists()
    code, out, _ = symcere(*words)
    assert code == 0
    assert "learning_rate=0.004" in " ".join(out.split())


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--systems", "magic"], "Unknown system 'magic' in --systems. Known: popularity"),
        (["--trials", "0"], "trials"),
        (["A b={file}"], "Each data set needs a name of its own; found a-b, A b"),
        (["--split", "k-fold"], "--seeds does not go with --split k-fold"),
    ],
)
def test_bad_words_are_sentences(file, symcere, words, sentence):
    code, out, err = symcere("tune", f"a-b={file}", *[word.replace("{file}", str(file)) for word in words])
    assert (code, out) == (2, "")
    assert sentence in " ".join(err.replace("│", " ").split())


def test_a_folder_that_cannot_be_written_is_a_sentence(file, symcere):
    code, _, err = symcere("tune", f"W={file}", "--tuned", file, "--systems", "none", "--trials", 1, "--seeds", 1)
    assert code == 2
    assert "Cannot write" in err
    assert "Traceback" not in err


def test_help_reads_well(symcere):
    code, out, _ = symcere("tune", "--help")
    assert code == 0
    for word in ("[NAME=]FILE[@K]", "--trials", "--systems", "--tuned", "same number of trials", "Examples"):
        assert word in " ".join(out.replace("│", " ").split())


def start(file, folder, *words):
    """A search in a process and a folder of its own."""
    folder.mkdir(exist_ok=True)
    call = [
        sys.executable,
        "-m",
        "symcere",
        "tune",
        f"W={file}",
        "--seeds",
        "1",
        "--encoder",
        "tfidf",
        "--threads",
        "1",
    ]
    return subprocess.Popen([*call, *words], cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"},
                            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)  # fmt: skip


def finish(process):
    said = process.communicate(timeout=600)[1]
    assert process.returncode == 0, said


def result_of(folder):
    return without_seconds(read_tuned(folder / "runs" / "tuned" / "w.json")["systems"])


def stop_at(process, folder, n_trials, how):
    """Send a signal once so many trials have begun."""
    database = folder / "runs" / "bench" / "trials.db"
    began = time.monotonic()
    while process.poll() is None and time.monotonic() - began < 300:
        if database.exists() and _n_trials(database) >= n_trials:
            process.send_signal(how)
            break
        time.sleep(0.05)
    return process.communicate(timeout=60)[1]


@pytest.mark.slow
def test_a_search_killed_at_any_moment_goes_on_to_the_same_trials(file, tmp_path):
    words = ("--systems", "ease", "--trials", "5")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish(start(file, whole, *words))
    for n_trials in (2, 7, 9):  # ease has five trials, then SymCERE's begin
        process = start(file, killed, *words)
        stop_at(process, killed, n_trials, signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
    finish(start(file, killed, *words))
    assert result_of(killed) == result_of(whole)


@pytest.mark.slow
def test_an_interrupted_search_says_so_and_goes_on(file, tmp_path):
    words = ("--systems", "none", "--trials", "3")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    finish(start(file, whole, *words))
    process = start(file, broken, *words)
    said = stop_at(process, broken, 2, signal.SIGINT)
    # 130, or dead of the signal where CPython saw it in native code; a shell shows 130 for both
    assert process.returncode in (130, -signal.SIGINT)
    assert "Finished trials are kept; the same command goes on from there." in " ".join(said.split())
    assert "Traceback" not in said
    finish(start(file, broken, *words))
    assert result_of(broken) == result_of(whole)


@pytest.mark.slow
def test_several_processes_share_one_file_of_trials(file, tmp_path):
    """All three search SymCERE as well: one does, the others wait and find it done."""
    processes = [start(file, tmp_path, "--systems", name, "--trials", "2") for name in ("ease", "item_knn", "none")]
    for process in processes:
        finish(process)
    found = result_of(tmp_path)
    assert set(found) == {"ease", "item_knn", "symcere"}
    assert all(len(entry["trials"]) == 2 for entry in found.values())
    assert _n_trials(tmp_path / "runs" / "bench" / "trials.db") == 6


def _n_trials(database):
    try:
        with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
            return connection.execute("select count(*) from trials").fetchone()[0]
    except sqlite3.Error:
        return 0
