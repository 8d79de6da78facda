"""The command line as a user meets it: results, files, sentences, exit codes."""

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file

import symcere as sc
from symcere.cli.screen import ScreenWatch, interruptible
from symcere.evaluation.report import COLUMNS
from symcere.manifest import digest_file
from symcere.pipeline.stages import Encoding, encode
from symcere.pipeline.workspace import Workspace, remove_unfinished

FAST = ["--set", "dim=8", "--set", "max_epochs=6", "--set", "batch_size=256"]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A small review file in the Amazon format."""
    path = tmp_path_factory.mktemp("data") / "reviews_Small_5.json.gz"
    sc.write_amazon(sc.anchoring_world(n_users=120, n_items=50, reviews_per_user=6), path)
    return path


@pytest.fixture(scope="module")
def finished(file, tmp_path_factory):
    """A finished run of two seeds: its folder and its JSON."""
    folder = tmp_path_factory.mktemp("runs") / "small"
    cache = folder.parent / "cache"
    words = ["run", file, "--seeds", 2, "--out", folder, "--cache", cache, "--json", *FAST]
    done = subprocess.run(
        [sys.executable, "-m", "symcere", *map(str, words)], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout), words


def test_json_is_one_object_with_every_promised_key(finished):
    _, result, _ = finished
    assert set(result["dataset"]) >= {"n_users", "n_items", "n_reviews"}
    assert result["split"] == "random"
    assert set(result["systems"]) == {"popularity", "item_knn", "ease", "light_gcn", "symcere"}
    for values in result["systems"].values():
        assert {"ndcg@10", "recall@10", "recall@20", "arp@10", "coverage@10", "seconds"} <= set(values)
    others = {name: values["ndcg@10"] for name, values in result["systems"].items() if name != "symcere"}
    assert result["best_baseline"] == max(others, key=others.get)
    assert 0 <= result["p_value"] <= 1
    assert result["p_value"] == result["tests"][result["best_baseline"]]["p_t"]
    assert {"ingest", "split-seed0", "encode-seed1", "symcere-seed1"} <= set(result["seconds"])
    assert len(result["recommendations"]) == 3


def test_the_folder_holds_manifest_model_per_user_values_and_reports(finished):
    folder, result, _ = finished
    manifest = json.loads((folder / "manifest.json").read_text())
    assert all((folder / name).is_file() for name in manifest["files"])
    per_user = pl.read_csv(folder / "per_user.csv")
    for system, values in result["systems"].items():
        mean = per_user.filter(pl.col("system") == system)["ndcg@10"].mean()
        assert mean == pytest.approx(values["ndcg@10"], abs=1e-3)  # users tested in one seed only weigh more
    for name in ("report.md", "report.html"):
        page = (folder / name).read_text()
        assert all(label in page for label in COLUMNS)
        assert f"{result['systems']['symcere']['ndcg@10']:.4f}" in page
        assert all(f"{value:.4f}" in page for value in result["by_seed"]["ease"]["ndcg@10"])
    model = sc.Recommender.load(folder / "model")
    user_id, rows = next(iter(result["recommendations"].items()))
    assert model.recommend(user_id, 5) == [(row["item_id"], row["score"]) for row in rows]


def test_a_second_run_finds_every_stage_up_to_date_and_says_so(finished, symcere):
    _, result, words = finished
    code, out, err = symcere(*words)
    again = json.loads(out)
    assert code == 0
    assert set(again["up_to_date"]) == set(again["seconds"]) == set(result["seconds"])
    assert again["systems"] == result["systems"]
    assert err.count("up to date") == len(again["seconds"])


def test_another_setting_remakes_only_what_depends_on_it(finished, symcere):
    _, _, words = finished
    again = json.loads(symcere(*words, "--set", "dim=9")[1])
    assert set(again["seconds"]) - set(again["up_to_date"]) == {"symcere-seed0", "symcere-seed1"}


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (["--k-core", "4"], set()),
        (["--skip-bad"], set()),
        (["--columns", "title=reviewText"], set()),
        (["--split", "leave-last-out"], {"ingest"}),
        (["--ask-from", "9"], {"ingest"}),
        (["--seed", "1"], {"ingest", "split-seed1", "encode-seed1", "popularity-seed1", "symcere-seed1"}),
    ],
)
def test_every_option_that_matters_is_in_the_key_of_its_stage(finished, symcere, tmp_path, words, kept):
    """On a copy of the finished run, with one option changed, only what does not depend on it is up to date."""
    folder, _, before = finished
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    common = ["run", before[1], "--out", copy, "--cache", folder.parent / "cache", "--json", *FAST]
    code, out, err = symcere(*common, "--systems", "popularity", *words)
    assert code == 0, err
    assert set(json.loads(out)["up_to_date"]) == kept


def test_the_encoder_is_in_the_key_of_its_stage(split, tmp_path):
    workspace = Workspace(tmp_path, ScreenWatch(quiet=True))
    keys = []
    for how in (
        Encoding(lambda _: [sc.tfidf_encoder(8)]),
        Encoding(lambda _: [sc.tfidf_encoder(4)]),
        Encoding(lambda _: [sc.tfidf_encoder(4)], parts=("title", "body")),
        Encoding(lambda _: [sc.tfidf_encoder(4)], weightings=[sc.Length()]),
        Encoding(lambda _: [sc.tfidf_encoder(4)], weightings=[sc.Recency(10)]),
        Encoding(lambda _: [sc.tfidf_encoder(4)], leave_one_out=True),
    ):
        text, key = encode(workspace, split.train, "k", how, tmp_path / "c", 0)
        again, same = encode(workspace, split.train, "k", how, tmp_path / "c", 0)
        assert key == same
        assert again.user.tobytes() == text.user.tobytes()
        assert len(again.own) == how.leave_one_out
        keys.append(key)
    assert len(set(keys)) == len(keys)
    assert workspace.up_to_date == ["encode-seed0"] * len(keys)


@pytest.mark.parametrize(
    ("words", "width"),
    [
        (["--text-dim", "8"], 8),
        (["--text-dim", "8", "--conditioning", "whiten"], 8),
        (["--text-dim", "8", "--profile", "title-body,recency,leave-one-out"], 16),
        (["--encoder", "{vectors}", "--text-dim", "2"], 2),
        (["--encoder", "tfidf+{vectors}", "--conditioning", "none", "--text-dim", "5"], 8),
    ],
)
def test_words_about_text_reach_the_features(file, symcere, tmp_path, words, width):
    items = sc.read_reviews(file).table["item_id"].unique(maintain_order=True)
    vectors = pl.DataFrame({"item_id": items, "v": np.random.default_rng(0).normal(size=(len(items), 3))})
    vectors.with_columns(pl.col("v").arr.to_list()).write_parquet(tmp_path / "v.parquet")
    words = [word.format(vectors=tmp_path / "v.parquet") for word in words]
    code, _, err = symcere("run", file, "-o", tmp_path / "o", "--systems", "none", *FAST, *words)
    assert code == 0, err
    (features,) = (tmp_path / "o").glob("stages/encode-*/features.safetensors")
    assert load_file(features)["user"].shape[1] == width


def test_a_baseline_that_cannot_be_fitted_is_left_out_by_name(file, symcere, tmp_path, monkeypatch):
    monkeypatch.setattr("symcere.baselines.item_model.MAX_ITEMS", 10)
    words = ["run", file, "-o", tmp_path / "o", "--systems", "ease,popularity", *FAST]
    result = json.loads(symcere(*words, "--json")[1])
    assert set(result["systems"]) == {"popularity", "symcere"}
    assert "at most 10 items" in result["skipped"]["ease"]
    assert "Left out: ease" in symcere(*words)[1]
    assert "at most 10 items" in (tmp_path / "o" / "report.html").read_text()


def test_leftovers_of_killed_runs_are_removed_once_they_are_old(tmp_path):
    old, young = (tmp_path / "stages" / name for name in (".old", ".young"))
    for folder in (old, young):
        folder.mkdir(parents=True)
    os.utime(old, (0, 0))
    remove_unfinished(tmp_path)
    assert [path.name for path in (tmp_path / "stages").iterdir()] == [".young"]


@pytest.mark.slow
def test_a_disk_that_fills_up_is_a_sentence(file, tmp_path):
    """The operating system refuses files above 100 KB, as it refuses any on a full disk."""
    limited = f"ulimit -f 100; exec {sys.executable} -m symcere run {file} -o {tmp_path / 'o'} --systems none"
    done = subprocess.run(
        ["bash", "-c", f"trap '' XFSZ; {limited}"], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 2, done.stderr
    assert "Cannot write" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_demo_knows_the_right_answer(symcere, tmp_path):
    code, out, _ = symcere("demo", "--out", tmp_path / "demo", "--json")
    result = json.loads(out)
    ndcg = {name: values["ndcg@10"] for name, values in result["systems"].items()}
    assert code == 0
    assert 1.2 * ndcg[result["best_baseline"]] < ndcg["symcere"] < result["ceiling"]["ndcg@10"]
    assert result["p_value"] < 0.001


def test_a_damaged_stage_is_made_again(finished, symcere):
    folder, result, words = finished
    (damaged,) = folder.glob("stages/ease-seed1-*/per_user.parquet")
    damaged.write_bytes(b"torn")
    again = json.loads(symcere(*words)[1])
    assert set(again["seconds"]) - set(again["up_to_date"]) == {"ease-seed1"}
    assert again["systems"]["ease"]["ndcg@10"] == result["systems"]["ease"]["ndcg@10"]


def test_the_table_the_verdict_and_three_users_are_printed(finished, symcere):
    folder, _, words = finished
    code, out, _ = symcere(*[word for word in words if word != "--json"], "--quiet")
    assert code == 0
    for word in ("ndcg@10", "popularity", "light_gcn", "symcere", "best baseline", "paired t", "report.html"):
        assert word in out
    assert out.count("Recommended to") == 3
    command = out.splitlines()[-1].partition(": ")[2]  # what to do next, ready to be given
    assert shlex.split(command) == ["symcere", "serve", str(folder), "--refit"]


def test_quiet_prints_nothing_on_standard_error(finished, symcere):
    assert symcere(*finished[2], "--quiet")[2] == ""


def test_recommend_and_similar_answer_from_a_run(finished, symcere):
    folder, result, _ = finished
    user_id = next(iter(result["recommendations"]))
    code, out, _ = symcere("recommend", folder, user_id, "-k", 3, "--json")
    rows = json.loads(out)
    assert (code, len(rows)) == (0, 3)
    code, out, _ = symcere("similar", folder, rows[0]["item_id"], "-k", 2)
    assert code == 0
    assert "cosine" in out
    code, out, err = symcere("recommend", folder, "nobody")
    assert code == 2
    assert "Unknown user id 'nobody'" in err


def test_a_finished_run_is_asked_without_loading_what_fits_it(finished):
    folder, result, _ = finished
    words = ["symcere", "recommend", str(folder), next(iter(result["recommendations"]))]
    code = (
        f"import sys; sys.argv = {words!r}; from symcere.cli.app import main\ntry: main()\nexcept SystemExit: pass\n"
        "print({'torch', 'sklearn', 'scipy.stats'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert "Recommended to" in done.stdout
    assert done.stdout.splitlines()[-1] == "set()"


@pytest.mark.parametrize("split", ["leave-last-out", "temporal"])
def test_the_other_splits_run(file, symcere, tmp_path, split):
    code, out, err = symcere(
        "run", file, "--split", split, "--systems", "popularity", "--json", "--out", tmp_path / "o", *FAST
    )
    assert code == 0, err
    assert json.loads(out)["split"] == split


def test_most_reviews_dropped_by_a_core_are_told_and_can_be_learned_from(symcere, tmp_path):
    often = sc.anchoring_world(n_users=60, n_items=30, reviews_per_user=6).table
    once = pl.concat([often.with_columns(user_id=f"{n}-" + pl.int_range(pl.len()).cast(pl.String)) for n in "ab"])
    pl.concat([often, once]).write_csv(tmp_path / "mine.csv")
    words = ["run", tmp_path / "mine.csv", "--systems", "none", "--json", *FAST]
    core = json.loads(symcere(*words, "-o", tmp_path / "core")[1])
    *_, before, after = core["dataset"]["steps"]
    counted = f"keeps {after['n_reviews']:,} of {before['n_reviews']:,} reviews and 60 of {before['n_users']:,} users"
    assert (before["n_reviews"], before["n_users"]) == (3 * len(often), 60 + 2 * len(often))
    assert sum(counted in warning for warning in core["warnings"]) == 1
    code, out, err = symcere(*words, "--k-core", 1, "--item-k", 5, "--ask-from", 5, "-o", tmp_path / "all")
    assert code == 0, err
    every = json.loads(out)
    assert every["dataset"]["n_users"] == before["n_users"]
    assert not any("keeps" in warning for warning in every["warnings"])
    assert sum("users have fewer than 5 interactions" in warning for warning in every["warnings"]) == 1


def test_without_baselines_there_is_no_p_value(file, symcere, tmp_path):
    code, out, _ = symcere("run", file, "--systems", "none", "--json", "-o", tmp_path / "o", *FAST)
    result = json.loads(out)
    assert code == 0
    assert result["p_value"] is None
    assert result["best_baseline"] is None


def test_a_csv_with_a_column_map_runs_and_hostile_ids_stay_data(symcere, tmp_path):
    world = sc.anchoring_world(n_users=60, n_items=30, reviews_per_user=6)
    hostile = '<script>alert(1)</script>|`[bold]`, "ü"' + "y" * 10_000
    table = world.table.with_columns(pl.col("user_id").replace("user00003", hostile))
    csv = tmp_path / "mine.csv"
    table.rename({"user_id": "kunde", "item_id": "ware", "text": "kommentar"}).write_csv(csv)
    words = ["--columns", "user_id=kunde,item_id=ware", "--columns", "text=kommentar", "--systems", "popularity"]
    code, _, err = symcere("run", csv, *words, "-o", tmp_path / "o", *FAST)
    assert code == 0, err
    assert "<script>alert" not in (tmp_path / "o" / "report.html").read_text()
    assert symcere("recommend", tmp_path / "o", hostile)[0] == 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["run", "nowhere.json"], "does not exist"),
        (["run", "."], "is a folder"),
        (["run", "{file}", "--k-core", "500"], "left 0 of"),
        (
            ["run", "{file}", "--encoder", "magic"],
            "Unknown --encoder 'magic'. Known: auto, lift, tfidf, distilled, sentence",
        ),
        (["run", "{file}", "--encoder", "none.npy"], "does not exist"),
        (["run", "{file}", "--profile", "magic"], "Unknown --profile 'magic'. Known: mean, recency"),
        (["run", "{file}", "--profile", "helpfulness", "--columns", "helpful=summary"], "'helpful', which is"),
        (["run", "{file}", "--max-tokens", "1"], "max-tokens"),
        (["run", "{file}", "--systems", "magic"], "Unknown system 'magic'"),
        (["run", "{file}", "--device", "gpu"], "No device 'gpu'. Valid: auto, cpu, cuda"),
        (["run", "{file}", "--source", "magic"], "Unknown --source 'magic'"),
        (["run", "{file}", "--columns", "colour=x"], "--columns maps one of user_id"),
        (["run", "{file}", "--columns", "user_id"], "--columns takes KEY=VALUE"),
        (["run", "{file}", "--set", "tau=1"], "Unknown setting 'tau'"),
        (["run", "{file}", "--set", "dim=many"], "Setting dim"),
        (["run", "{file}", "--out", "{file}"], "Cannot write"),
        (["run", "{file}", "--set", "popularity_weights=[]"], "Setting popularity_weights"),
        (["run", "/dev/null"], "is no regular file"),
        (["run", "x" * 300], "cannot be read"),
        (["recommend", "nowhere", "user"], "is no saved recommender"),
        (["run", "{file}", "--split", "sideways"], "sideways"),
    ],
)
def test_bad_words_are_one_sentence_and_exit_code_two(symcere, file, words, sentence):
    code, out, err = symcere(*[word.format(file=file) for word in words])
    assert code == 2
    assert out == ""
    assert sentence in " ".join(err.split())
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "raw", [b"", b"user_id,item_id,text\na,b,c\n", b"user_id,item_id,text\na,1,c\na,2,c\n", b"{]\n"]
)
def test_bad_files_are_one_sentence_and_leave_no_stage(symcere, tmp_path, raw):
    path = tmp_path / "bad.csv"
    path.write_bytes(raw)
    code, out, err = symcere("run", path, "-o", tmp_path / "o", "--json", "--k-core", 1)
    assert code == 2
    assert out == ""
    assert "Error" in err
    assert "Traceback" not in err
    assert not [p for p in (tmp_path / "o").rglob("*") if p.name.startswith((".", "symcere"))]


def test_a_read_only_folder_is_a_sentence(symcere, file, tmp_path):
    locked = Path("/proc/symcere-cannot-write-here") if os.geteuid() == 0 else tmp_path / "locked"
    if os.geteuid() != 0:
        locked.mkdir(mode=0o500)
    code, _, err = symcere("run", file, "-o", locked / "o", "--systems", "none", *FAST)
    assert code == 2
    assert "Cannot write" in err


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_run_leaves_no_half_written_artefact_and_goes_on(file, tmp_path, how):
    words = ["run", file, "-o", tmp_path / "o", "--cache", tmp_path / "c", "--systems", "popularity", "--json"]
    endless = ["--set", "dim=8", "--set", "max_epochs=100000", "--set", "patience=100000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "symcere", *map(str, words), *endless], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 120
    while not list((tmp_path / "o").glob("stages/.symcere-*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(how)
    out, err = process.communicate(timeout=60)
    assert out == b""
    if how == signal.SIGINT:
        # 130, or dead of the signal where CPython saw it in native code; a shell shows 130 for both
        assert process.returncode in (130, -signal.SIGINT), err
        assert b"goes on from there" in err
    stages = [p.name for p in (tmp_path / "o" / "stages").iterdir() if not p.name.startswith(".")]
    assert not any(name.startswith("symcere") for name in stages)
    done = subprocess.run(
        [sys.executable, "-m", "symcere", *map(str, words), *FAST],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert set(json.loads(done.stdout)["up_to_date"]) == {"ingest", "split-seed0", "encode-seed0", "popularity-seed0"}


def test_an_interrupt_while_python_makes_a_class_is_one_too():
    class Slow:
        def __set_name__(self, owner, name):
            raise KeyboardInterrupt

    with pytest.raises(SystemExit) as stop, interruptible():
        type("Made", (), {"field": Slow()})  # a RuntimeError of Python 3.11
    assert stop.value.code == 130
    with pytest.raises(RuntimeError, match="of its own"), interruptible():
        raise RuntimeError("of its own")


def test_an_interrupt_that_passed_an_exec_is_an_exit_code_too(tmp_path):
    """CPython notes it, and under -m would die of the signal at its end."""
    code = "with interruptible('Stopped.'):\n    exec('raise KeyboardInterrupt')\n"
    (tmp_path / "stopped.py").write_text(f"from symcere.cli.screen import interruptible\n{code}")
    done = subprocess.run(
        [sys.executable, "-m", "stopped"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (130, "Error Stopped.\n")


INTERRUPTED = """
import os, runpy, signal, sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == at:
            os.kill(os.getpid(), signal.SIGINT)

at = sys.argv.pop(1)
sys.meta_path.insert(0, Interrupt())
runpy.run_module("symcere", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize(
    ("at", "words", "sentence"),
    [
        ("symcere.cli", ["run", "x"], "Interrupted."),
        ("typer", ["run", "x"], "Interrupted."),
        ("symcere.data.ingest", ["run", "x"], "Interrupted. Finished stages are kept"),
        ("symcere.recommender", ["recommend", "x", "y"], "Interrupted."),
    ],
)
def test_an_interrupt_of_any_import_is_one_sentence(tmp_path, at, words, sentence):
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, at, *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 130
    assert done.stdout == ""
    assert done.stderr.startswith(f"Error {sentence}")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("as_json", [[], ["--json"]])
@pytest.mark.parametrize("command", ["recommend", "run"])
def test_standard_output_that_cannot_be_written_is_one_sentence(finished, symcere, monkeypatch, command, as_json):
    folder, result, words = finished
    words = [word for word in words if word != "--json"]
    if command == "recommend":
        words = ["recommend", folder, next(iter(result["recommendations"])), "-k", 50]
    else:
        words.append("--quiet")
    with Path("/dev/full").open("w") as full, contextlib.suppress(OSError):
        monkeypatch.setattr(sys, "stdout", full)
        code, _, err = symcere(*words, *as_json)
    assert code == 2
    assert err == (
        "Error Standard output cannot be written: No space left on device. Free space, or send it elsewhere.\n"
    )


@pytest.mark.parametrize("word", ["--help", "--version"])
def test_python_adds_nothing_at_its_end_about_output_that_cannot_be_written(word):
    command = [sys.executable, "-m", "symcere", word]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("Error Standard output cannot be written")
    assert done.stderr.count("\n") == 1
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False, timeout=60)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


def test_help_reads_well(symcere):
    code, out, _ = symcere("--help")
    assert code == 0
    for word in ("run", "demo", "recommend", "similar", "raw reviews"):
        assert word in out
    code, out, _ = symcere("run", "--help")
    for word in (
        "--k-core",
        "--split",
        "--seed",
        "--seeds",
        "--encoder",
        "--systems",
        "--columns",
        "--out",
        "Examples",
    ):
        assert word in out
    assert symcere("--version")[1].strip() == f"symcere {sc.__version__}"


def test_ingest_counts_every_step_and_a_run_goes_on_from_it(file, symcere, tmp_path):
    words = (
        file,
        "--out",
        tmp_path / "r",
        "--min-rating",
        3,
        "--min-chars",
        10,
        "--sample",
        0.9,
        "--k-core",
        3,
        "--item-k",
        2,
    )
    code, out, _ = symcere("ingest", *words, "--json", "--quiet")
    told = json.loads(out)
    assert code == 0
    assert [step["name"] for step in told["steps"]] == [
        "read", "rating at least 3", "10 to any number of characters", "0.9 of the users, seed 0", "(3, 2)-core",
    ]  # fmt: skip
    left = [step["n_reviews"] for step in told["steps"]]
    assert left == sorted(left, reverse=True)
    assert set(told["files"]) == {"reviews-00000.arrow", "items.arrow"}
    code, out, _ = symcere("run", *words, "--systems", "none", "--json", "--quiet")
    assert "ingest" in json.loads(out)["up_to_date"]
    code, out, _ = symcere("ingest", file, "--out", tmp_path / "r")
    assert code == 0
    assert "5-core" in out


def test_verify_rebuilds_and_compares_to_the_byte(file, symcere, tmp_path):
    words = ("ingest", file, "--out", tmp_path / "r", "--quiet")
    code, _, err = symcere(*words, "--verify")
    assert code == 2
    assert "without --verify first" in err
    symcere(*words)
    code, out, _ = symcere(*words, "--verify")
    assert (code, "Identical to the byte: 2 files" in out) == (0, True)
    (stage,) = (tmp_path / "r" / "stages").glob("ingest-*")
    manifest = json.loads((stage / "manifest.json").read_text())
    part = stage / "reviews-00000.arrow"
    raw = bytearray(part.read_bytes())
    raw[len(raw) // 2] ^= 1
    part.write_bytes(raw)
    manifest["files"][part.name] = digest_file(part)  # as if another version had made it
    (stage / "manifest.json").write_text(json.dumps(manifest))
    code, out, _ = symcere(*words, "--verify", "--json")
    assert (code, json.loads(out)["differing"]) == (1, [part.name])


def test_titles_stand_in_reports_and_recommendations(file, symcere, tmp_path):
    items = sorted(set(sc.read_reviews(file).table["item_id"]))
    rows = "".join(f"{item},Title <b> of {item},Straps\n" for item in items)
    (tmp_path / "items.csv").write_text("item_id,title,category\n" + rows)
    run = ("run", file, "--out", tmp_path / "r", "--items", tmp_path / "items.csv", "--systems", "none", "--quiet")
    _, out, _ = symcere(*run, "--json")
    user, ranked = next(iter(json.loads(out)["recommendations"].items()))
    assert ranked[0]["title"] == f"Title <b> of {ranked[0]['item_id']}"
    page = (tmp_path / "r" / "report.html").read_text()
    assert f"Title &lt;b&gt; of {ranked[0]['item_id']}" in page
    assert "Title <b>" not in page
    assert f"Title <b> of {ranked[0]['item_id']}" in (tmp_path / "r" / "report.md").read_text()
    _, out, _ = symcere("recommend", tmp_path / "r", user, "-k", 1, "--json")
    assert json.loads(out)[0]["title"] == ranked[0]["title"]
    _, out, _ = symcere("similar", tmp_path / "r", items[0])
    assert "Title <b> of" in out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--since", "2020-02-30"), "A day is written as"),
        (("--since", "2020-02-02", "--until", "2020-02-01"), "must begin before it ends"),
        (("--sample", "0"), "a share of the users"),
        (("--min-chars", "9", "--max-chars", "3"), "No text has"),
        (("--min-rating", "99"), "left 0 of"),
        (("--items", "nowhere.csv"), "does not exist"),
    ],
)
def test_bad_filters_are_one_sentence(file, symcere, tmp_path, words, sentence):
    code, out, err = symcere("ingest", file, "--out", tmp_path / "r", *words)
    assert (code, out) == (2, "")
    assert sentence in err
    assert not list((tmp_path / "r" / "stages").glob("*")) if (tmp_path / "r").exists() else True
