"""`symcere bench` as a user meets it: data sets by name, tuned settings, pages, notes, exit codes."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

import symcere as sc
from symcere.cli.words import bench_data_of
from symcere.data.kcore import KCore
from symcere.pipeline.tune import write_tuned

SMALL = {"dim": 8, "max_epochs": 3, "batch_size": 256}


def tuned(folder, slug, *, sizes=(), **systems):
    """Write tuned settings where bench looks for them; SymCERE's are quick to fit."""
    about = {"dataset": slug, "split": "random", "seeds": [0, 1], "trials": 5, "encoder": "tfidf"} | dict(sizes)
    found = {name: {"settings": settings} for name, settings in {"symcere": SMALL, **systems}.items()}
    write_tuned(folder / "runs" / "tuned" / f"{slug}.json", found, about)


def manifests(folder, system):
    return [json.loads(path.read_text()) for path in folder.glob(f"stages/{system}-seed*/manifest.json")]


FEW = ["--systems", "popularity,ease", "--no-ablation", "--seeds", "1", "--encoder", "tfidf"]


def test_pages_are_written_and_a_second_run_finds_all_up_to_date(file, symcere, tmp_path):
    tuned(tmp_path, "world", ease={"l2": 7.0})
    words = ["bench", f"World={file}@5", *FEW, "--splits", "random,cold-items"]
    code, out, err = symcere(*words, "--json")
    assert code == 0, err
    told = json.loads(out)
    assert set(told["means"]) == {"symcere", "ease", "popularity"}
    assert told["impossible"] == []
    folder = tmp_path / "runs" / "bench"
    assert Path(told["page"]) == Path("runs/bench/bench.html")
    for name in ("bench.html", "bench.md", "bench.tex"):
        assert all(system in (folder / name).read_text().replace("\\", "") for system in ("symcere", "popularity"))
    for name in ("results.csv", "paired.csv"):
        with (folder / name).open(newline="") as table:
            assert {row["split"] for row in csv.DictReader(table)} == {"random", "cold-items"}
    figures = list((folder / "figures").iterdir())
    assert figures
    assert all(figure.name in (folder / "bench.md").read_text() for figure in figures)
    fitted = manifests(folder / "world", "ease")
    assert {manifest["settings"]["l2"] for manifest in fitted} == {7.0}
    assert len(fitted) == 2  # one for each split
    before = {path: path.stat().st_mtime_ns for path in folder.glob("world/stages/*/manifest.json")}
    code, out, err = symcere(*words)
    assert code == 0
    assert "Page: runs/bench/bench.html" in out
    assert {path: path.stat().st_mtime_ns for path in folder.glob("world/stages/*/manifest.json")} == before
    assert err.count("up to date") == len(err.splitlines()) == len(before)


@pytest.mark.slow
def test_twins_may_have_fewer_seeds_than_the_rest(file, symcere, tmp_path):
    tuned(tmp_path, "world")
    quick = ["--systems", "popularity", "--encoder", "tfidf", "--quiet"]
    code, _, err = symcere("bench", f"World={file}@5", *quick, "--seeds", 2, "--twin-seeds", 1)
    assert code == 0, err
    folder = tmp_path / "runs" / "bench"
    rows = pl.read_csv(folder / "results.csv").filter(pl.col("measure") == "ndcg@10")
    seeds = {name: set(mine["seed"]) for (name,), mine in rows.group_by("system")}
    assert seeds["symcere"] == seeds["popularity"] == {0, 1}
    assert {tuple(of_one) for name, of_one in seeds.items() if ":" in name} == {(0,)}
    assert len(manifests(folder / "world", "symcere")) == 2, (
        "SymCERE is fitted once a seed, not once more beside twins"
    )
    assert "Both under seeds 0." in (folder / "bench.md").read_text()


@pytest.mark.slow
def test_the_page_says_that_seeds_repeat_a_split_that_has_none(file, symcere, tmp_path):
    tuned(tmp_path, "world")
    words = [f"World={file}", "--systems", "popularity", "--no-ablation", "--encoder", "tfidf"]
    code, _, err = symcere("bench", *words, "--seeds", "2", "--splits", "random,temporal")
    assert code == 0, err
    page = (tmp_path / "runs" / "bench" / "bench.md").read_text()
    assert page.count("The temporal split is the same under every seed: 2 seeds repeat only the training") == 1


def test_the_page_says_what_was_tuned_and_what_was_not(file, symcere, tmp_path):
    tuned(tmp_path, "one", ease={"l2": 7.0})
    tuned(tmp_path, "two")
    code, _, err = symcere("bench", f"One={file}", f"Two={file}", *FEW)
    assert code == 0, err
    page = " ".join((tmp_path / "runs" / "bench" / "bench.md").read_text().replace("\\", "").split())
    assert "Tuned with 5 trials a system" in page
    assert (
        "on the random split of seeds 0, 1 with the encoder tfidf, and kept for all splits: ease, symcere on one."
        in page
    )
    assert "kept for all splits: symcere on two." in page
    assert "Not tuned, defaults: ease on two." in page
    assert "pairs of another's test part" in page
    (one,), (two,) = (manifests(tmp_path / "runs" / "bench" / slug, "ease") for slug in ("one", "two"))
    assert one["settings"]["l2"] == 7.0
    assert one["n_candidates"] == 1
    assert two["n_candidates"] > 1  # untuned, the best of its own list


@pytest.mark.slow
def test_settings_tuned_on_other_data_are_named(file, symcere, tmp_path):
    tuned(tmp_path, "one", sizes={"users": 7_000, "items": 3})
    table = sc.k_core(sc.read_reviews(file), 5).table
    tuned(tmp_path, "two", sizes={"users": table["user_id"].n_unique(), "items": table["item_id"].n_unique()})
    code, _, err = symcere("bench", f"One={file}", f"Two={file}", *FEW)
    assert code == 0, err
    page = " ".join((tmp_path / "runs" / "bench" / "bench.md").read_text().split())
    assert "The settings of one were tuned on other data: 7,000 users and 3 items there" in page
    assert page.count("were tuned on other data") == 1


@pytest.mark.slow
def test_twins_and_controls_stand_on_the_page_under_the_tuned_settings(file, symcere, tmp_path):
    tuned(tmp_path, "world")
    code, _, err = symcere("bench", f"World={file}", "--systems", "popularity", "--seeds", 1, "--encoder", "tfidf")
    assert code == 0, err
    folder = tmp_path / "runs" / "bench"
    for name in ("symcere:shuffled_text", "symcere:no_mask", "symcere:leave_one_out"):
        assert name in (folder / "bench.html").read_text()
        (manifest,) = manifests(folder / "world", name.replace(":", "-"))
        assert {key: manifest["settings"][key] for key in SMALL} == SMALL


def test_a_split_that_the_data_do_not_allow_is_a_note(file, symcere, tmp_path):
    undated = tmp_path / "undated.parquet"
    sc.read_reviews(file).table.drop("timestamp").write_parquet(undated)
    tuned(tmp_path, "undated")
    words = ["bench", undated, *FEW, "--systems", "popularity", "--splits"]
    code, out, err = symcere(*words, "random,temporal")
    assert code == 0, err
    assert "Note undated, temporal:" in " ".join(err.split())
    assert "symcere" in out
    code, out, err = symcere(*words, "random,temporal", "--json", "--quiet")
    assert (code, err) == (0, "")
    (sentence,) = json.loads(out)["impossible"]
    assert all(sentence in (tmp_path / "runs" / "bench" / page).read_text() for page in ("bench.md", "bench.html"))
    assert sentence.startswith("undated, temporal: ")
    code, out, err = symcere(*words, "temporal", "--json")
    assert (code, out) == (2, "")
    assert "Nothing could be measured. undated, temporal:" in " ".join(err.split())


@pytest.mark.parametrize(
    ("word", "name", "path", "k"),
    [
        ("{file}", "re@views=5", "{file}", 5),
        ("{file}@3", "re@views=5", "{file}", 3),
        ("My Set={file}", "My Set", "{file}", 5),
        ("My Set={file}@12", "My Set", "{file}", 12),
        ("a@b={file}@2", "a@b", "{file}", 2),
        ("music.json.gz", "music", "music.json.gz", 5),
        ("music.json.gz@2", "music", "music.json.gz", 2),
        ("M=music@home.csv", "M", "music@home.csv", 5),
        ("M=a=b.csv@2", "M", "a=b.csv", 2),
        ("M=music.csv@²", "M", "music.csv@²", 5),
    ],
)
def test_words_of_data_sets_have_a_name_a_file_and_a_k_core(file, word, name, path, k):
    (data,) = bench_data_of([word.format(file=file)], 5, [], None, skip_bad=False)
    assert data.name == name
    assert data.what.path == Path(path.format(file=file))
    assert [repr(each) for each in data.what.filters] == [repr(KCore(k, None))]


def test_a_file_whose_name_ends_like_a_k_core_is_that_file(tmp_path):
    for path in (tmp_path / "data@5", tmp_path / "x=y"):
        path.touch()
        for word in (str(path), f"N={path}"):
            (data,) = bench_data_of([word], 7, [], None, skip_bad=False)
            assert data.what.path == path
            assert [repr(each) for each in data.what.filters] == [repr(KCore(7, None))]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["A={file}", "--splits", "magic"],
            "Unknown split 'magic' in --splits. Known: random, leave-last-out, temporal",
        ),
        (["A={file}", "--splits", "k-fold"], "Unknown split 'k-fold' in --splits"),
        (["A={file}", "--splits", ","], "--splits names at least one split. Known: random"),
        (["A={file}", "A={file}"], "Each data set needs a name of its own; found A, A. Write NAME=FILE."),
        (["a b={file}", "A-B={file}"], "Each data set needs a name of its own"),
        (["A={file}@0"], "The k-core of a data set is at least 1"),
        (["={file}"], "needs a letter or a digit"),
        (["?={file}"], "needs a letter or a digit"),
        (["A=nowhere.json"], "does not exist"),
        (["x" * 300], "cannot be read"),
        (["A={file}@500"], "left 0 of"),
        (["A={file}", "--systems", "magic"], "Unknown system 'magic' in --systems"),
        (["A={file}", "--out", "{file}"], "Cannot write"),
        ([], "Missing argument"),
    ],
)
def test_bad_words_are_sentences(file, symcere, words, sentence):
    code, out, err = symcere("bench", *[word.replace("{file}", str(file)) for word in words])
    assert (code, out) == (2, "")
    assert sentence in " ".join(err.replace("│", " ").split())
    assert "Traceback" not in err


def test_damaged_settings_stop_a_benchmark_before_it_fits_anything(file, symcere, tmp_path):
    tuned(tmp_path, "one")
    (tmp_path / "runs" / "tuned" / "two.json").write_text("{}")
    code, _, err = symcere("bench", f"One={file}", f"Two={file}", *FEW)
    assert code == 2
    assert "two.json must be a file of tuned settings" in " ".join(err.split())
    assert not (tmp_path / "runs" / "bench").exists()


def test_help_reads_well(symcere):
    code, out, _ = symcere("bench", "--help")
    assert code == 0
    for word in (
        "[NAME=]FILE[@K]",
        "--splits",
        "--ablation",
        "--tuned",
        "cold-users",
        "the page says so",
        "Examples",
    ):
        assert word in " ".join(out.replace("│", " ").split())


@pytest.mark.slow
def test_an_interrupted_benchmark_says_so_and_goes_on(file, symcere, tmp_path):
    tuned(tmp_path, "world")
    words = ["bench", f"World={file}", *FEW, "--systems", "light_gcn"]
    process = subprocess.Popen(
        [sys.executable, "-m", "symcere", *words], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    stages = tmp_path / "runs" / "bench" / "world" / "stages"
    began = time.monotonic()
    while not list(stages.glob(".light_gcn-*")) and time.monotonic() - began < 120:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    # 130, or dead of the signal where CPython saw it in native code; a shell shows 130 for both
    assert process.returncode in (130, -signal.SIGINT)
    assert out == ""
    assert "Interrupted. Finished stages are kept; the same command goes on from there." in " ".join(err.split())
    assert "Traceback" not in err
    assert not list(stages.glob("light_gcn-*"))
    code, _, err = symcere(*words)
    assert code == 0
    assert err.count("up to date") == 3  # ingest, split, encode
