"""Splits for other tools and rankings from them: what is written is read back, and measured the same."""

import csv
import gzip
import json
import sys
from urllib.parse import unquote

import numpy as np
import polars as pl
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

import symcere as sc
from conftest import reviews_of
from symcere.cli import main
from symcere.data.interchange import one_word
from symcere.data.reviews import Reviews
from test_splits import pairs_of, support_pairs

HOSTILE = ['blue "note"', "50%", "a,b", "tab\there", " x ", "%20", "ü\u3000ß", "line\nbreak"]
FAST = ["--set", "dim=8", "--set", "max_epochs=4", "--set", "batch_size=256", "--systems", "popularity"]


@pytest.fixture(scope="module")
def hostile():
    """A split whose ids hold blanks, quotes, commas, tabs and percent signs."""
    pairs = [(f"{user}{n}", f"{item}{n % 3}") for user in HOSTILE for item in HOSTILE for n in range(2)]
    texts = [f'said "{user}",\n{item}' for user, item in pairs]
    return sc.split_random(reviews_of(pairs, text=texts), seed=0)


@pytest.fixture(scope="module")
def popularity(split):
    return sc.fit_popularity(split.train, valid=split.valid)


def read_pairs(path, delimiter, columns=(0, 1), header=True, quoting=csv.QUOTE_NONE):
    """Pairs as another program would read them."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file, delimiter=delimiter, quoting=quoting))[header:]
    assert len({len(row) for row in rows}) == 1
    return [tuple(row[column] for column in columns) for row in rows]


def test_csv_parts_are_read_back_and_train_by_read_reviews(hostile, tmp_path):
    sc.export_split(hostile, tmp_path / "e", "csv")
    train = sc.read_reviews(tmp_path / "e" / "train.csv")
    known = {(user, item): row for user, item, *row in train.table.rows()}
    assert set(known) == pairs_of(hostile.train)
    assert sorted(known.values()) == sorted(map(list, hostile.train.review.rows()))
    for part in ("valid", "test"):
        found = read_pairs(tmp_path / "e" / f"{part}.csv", ",", quoting=csv.QUOTE_MINIMAL)
        assert set(found) == pairs_of(getattr(hostile, part))
    assert not (tmp_path / "e" / "support.csv").exists()


def test_csv_has_the_support_of_a_cold_split(reviews, tmp_path):
    split = sc.split_cold_items(reviews)
    sc.export_split(split, tmp_path / "e", "csv")
    support = sc.read_reviews(tmp_path / "e" / "support.csv").table
    assert set(support.select("user_id", "item_id").rows()) == support_pairs(split)
    about = json.loads((tmp_path / "e" / "manifest.json").read_text())
    assert about["support"] == {"side": "item", "reviews": len(split.train.support)}
    assert about["warnings"] == list(split.warnings)


def test_judgements_have_four_words_a_line(hostile, tmp_path):
    sc.export_split(hostile, tmp_path / "e", "trec")
    for part in ("valid", "test"):
        lines = (tmp_path / "e" / f"{part}.qrels").read_text(encoding="utf-8").split("\n")[:-1]
        words = [line.split() for line in lines]
        assert {tuple(word[1::2]) for word in words} == {("0", "1")}
        assert {(unquote(user), unquote(item)) for user, _, item, _ in words} == pairs_of(getattr(hostile, part))


def test_recbole_files_are_typed_and_split(hostile, tmp_path):
    sc.export_split(hostile, tmp_path / "hotels", "recbole")
    folder = tmp_path / "hotels"
    head = folder.joinpath("hotels.train.inter").read_text(encoding="utf-8").split("\n")[0]
    assert head == "user_id:token\titem_id:token\trating:float\ttimestamp:float"
    for part in ("train", "valid", "test"):
        found = read_pairs(folder / f"hotels.{part}.inter", "\t")
        assert {(unquote(user), unquote(item)) for user, item in found} == pairs_of(getattr(hostile, part))
    said = read_pairs(folder / "hotels.train.inter", "\t", columns=(2, 3))
    assert [(float(rating), int(float(time))) for rating, time in said] == hostile.train.review.select(
        "rating", "timestamp"
    ).rows()
    assert "benchmark_filename: [train, valid, test]" in (folder / "hotels.yaml").read_text()


def test_recbole_files_have_no_column_that_the_reviews_lack(reviews, tmp_path):
    bare = Reviews(reviews.table.with_columns(rating=pl.lit(None, dtype=pl.Float32)), "test")
    sc.export_split(sc.split_random(bare), tmp_path / "bare", "recbole")
    head = (tmp_path / "bare" / "bare.train.inter").read_text().split("\n")[0]
    assert head == "user_id:token\titem_id:token\ttimestamp:float"


@settings(deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8")), unique=True))
def test_an_id_as_one_word_has_no_blank_and_is_got_back(ids):
    words = one_word(ids).to_list()
    assert [unquote(word) for word in words] == ids
    assert all(len(word.split()) == 1 for word, id_ in zip(words, ids, strict=True) if id_)


def test_an_export_is_replaced_and_other_files_are_not(split, tmp_path):
    sc.export_split(split, tmp_path / "e", "csv")
    sc.export_split(split, tmp_path / "e", "trec")
    assert {path.name for path in (tmp_path / "e").iterdir()} == {"manifest.json", "test.qrels", "valid.qrels"}
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(sc.OutputError, match="stands in the way"):
        sc.export_split(split, tmp_path / "mine", "csv")


def test_unknown_formats_and_names_are_refused(split, tmp_path):
    with pytest.raises(sc.ConfigError, match="RecBole names a data set like its folder"):
        sc.export_split(split, tmp_path / "two words", "recbole")


@pytest.mark.parametrize("name", ["own.run", "own.run.gz"])
def test_a_run_written_and_read_back_is_measured_the_same(split, model, tmp_path, name):
    sc.write_run(model, split, tmp_path / name)
    run = sc.read_run(tmp_path / name, split)
    assert (run.n_seen, run.n_missing, run.note) == (0, 0, "")
    report = sc.compare({"ours": model, "theirs": run}, split, sc.standard_measures())
    for label, values in report.values["ours"].items():
        np.testing.assert_array_equal(values, report.values["theirs"][label], err_msg=label)
    assert report.against("ours", "ndcg@10")["theirs"][0].difference == 0


def test_a_run_of_hostile_ids_is_read_back(hostile, tmp_path):
    system = sc.fit_popularity(hostile.train, valid=hostile.valid)
    sc.write_run(system, hostile, tmp_path / "run", k=5)
    report = sc.compare({"a": system, "b": sc.read_run(tmp_path / "run", hostile)}, hostile, [sc.ndcg(5)])
    np.testing.assert_array_equal(report.values["a"]["ndcg@5"], report.values["b"]["ndcg@5"])


def test_trec_eval_gives_our_values_from_our_files(split, model, tmp_path):
    sc.export_split(split, tmp_path / "e", "trec")
    sc.write_run(model, split, tmp_path / "run")
    with (tmp_path / "e" / "test.qrels").open() as qrels, (tmp_path / "run").open() as run:
        evaluator = pytrec_eval.RelevanceEvaluator(pytrec_eval.parse_qrel(qrels), {"ndcg_cut.10", "recall.20"})
        theirs = evaluator.evaluate(pytrec_eval.parse_run(run))
    report = sc.compare({"symcere": model}, split, [sc.ndcg(10), sc.recall(20)])
    for ours, name in (("ndcg@10", "ndcg_cut_10"), ("recall@20", "recall_20")):
        expected = [theirs[user][name] for user in report.users]
        np.testing.assert_allclose(report.values["symcere"][ours], expected, atol=1e-9)


@pytest.mark.parametrize("by", ["score", "rank"])
def test_csv_is_ordered_by_score_or_rank_and_ties_by_item_index(split, tmp_path, by):
    user = int(split.test.user[0])
    known = split.train.matrix + split.valid.matrix
    items = [n for n in range(len(split.train.items)) if not known[[user], :].toarray()[0, n]][:4]
    value = [1, 2.5, 2.5, 9] if by == "score" else [9, 2.5, 2.5, 1]
    rows = [f"{split.train.items.id(n)},{v},{split.train.users.id(user)}" for n, v in zip(items, value, strict=True)]
    file = tmp_path / "run.csv"
    file.write_text("\n".join([f"item_id,{by},user_id", *rows[::-1]]) + "\n")
    scores = sc.read_run(file, split).score(np.array([user]))[0]
    assert np.argsort(-scores, kind="stable")[:4].tolist() == [items[3], items[1], items[2], items[0]]
    assert np.isneginf(np.delete(scores, items)).all()


def test_seen_items_are_left_out_and_missing_users_count_as_zero(split, tmp_path):
    users, items = split.train.users, split.train.items
    user, seen = int(split.train.user[0]), int(split.train.item[0])
    relevant = int(split.test.item[split.test.user == user][0])
    lines = [f"{users.id(user)} Q0 {items.id(item)} 0 {9 - n} x" for n, item in enumerate((seen, relevant))]
    (tmp_path / "run").write_text("\n\n".join(lines))
    run = sc.read_run(tmp_path / "run", split)
    report = sc.compare({"them": run}, split, [sc.mrr(10)])
    n_tested = len(np.unique(split.test.user))
    assert (run.n_seen, run.n_missing, run.n_tested) == (1, n_tested - 1, n_tested)
    assert run.note == (
        f"{n_tested - 1} of {n_tested} test users are not in it and count as 0; items left out because their users "
        "had seen them: 1"
    )
    values = dict(zip(report.users, report.values["them"]["mrr@10"], strict=True))
    assert values.pop(users.id(user)) == 1  # first, now that the seen item is gone
    assert not any(values.values())


GOOD = "user00001 Q0 item00001 1 0.5 x\n"


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b"\x00\x01\x02\x03", "is binary"),
        (gzip.compress(GOOD.encode(), mtime=0)[:-9], "damaged gzip"),
        (b"user00001 item00001 0.5\n", "must be a TREC run"),
        (b"user,item,score\na,b,1\n", "must be a TREC run"),
        (f"{GOOD}user00001 Q0 item00002 2 0.4\n".encode(), "line 2: a TREC run has six words"),
        (
            f"{GOOD}\nuser00001 Q0 item00002 2 nan x\n".encode(),
            "line 3: a score must be a finite number; found 'nan'",
        ),
        (f"{GOOD}user00001 Q0 item00002 2 best x\n".encode(), "line 2: a score must be .* found 'best'"),
        (f"{GOOD}user00001 Q0 item00002 2 inf x\n".encode(), "line 2: a score must be a finite number"),
        (f"{GOOD}nobody Q0 item00002 2 0.4 x\n".encode(), "line 2: unknown user id 'nobody' among 150"),
        (f"{GOOD}user00001 Q0 nothing 2 0.4 x\n".encode(), "line 2: unknown item id 'nothing'"),
        (GOOD.encode() * 2, "line 2: item 'item00001' stands twice in the ranking of user 'user00001'"),
        (b"user_id,item_id\nuser00001,item00001\n", "needs a column score or rank"),
        (b"user_id,item_id,score\nuser00001,item00001\n", "line 2: a score must be a finite number; found ''"),
        (b"user_id,item_id,rank\nuser00001,item00001,NaN\n", "line 2: a rank must be a finite number; found 'NaN'"),
        (b"user_id,item_id,score\nuser00001,item00001,1,2\n", "is no proper CSV"),
        (b"user_id,item_id,score\n", "ranks nothing"),
    ],
)
def test_bad_run_files_are_a_sentence(split, tmp_path, raw, sentence):
    file = tmp_path / "bad"
    file.write_bytes(raw)
    with pytest.raises(sc.DataError, match=sentence) as error:
        sc.read_run(file, split)
    assert str(file) in str(error.value)


def test_a_run_that_is_no_file_is_a_sentence(split, tmp_path):
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(sc.DataError, match="cannot be read"):
            sc.read_run(path, split)


def test_a_run_needs_a_cut_and_a_name_of_one_word(split, popularity, tmp_path):
    with pytest.raises(sc.ConfigError, match="at least 1"):
        sc.write_run(popularity, split, tmp_path / "run", k=0)
    with pytest.raises(sc.ConfigError, match="one word"):
        sc.write_run(popularity, split, tmp_path / "run", name="two words")
    with pytest.raises(sc.OutputError, match="Cannot write"):
        sc.write_run(popularity, split, "/proc/nowhere/run")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of three folds, and the words that made it."""
    folder = tmp_path_factory.mktemp("interchange")
    sc.write_amazon(sc.anchoring_world(n_users=80, n_items=40, reviews_per_user=6), folder / "reviews.json.gz")
    words = ["run", folder / "reviews.json.gz", "-o", folder / "o", "--cache", folder / "c", *FAST]
    words += ["--split", "k-fold", "--folds", "3"]
    assert call(words) == 0
    return folder, words


def call(words):
    """Call the command line; returns its exit code."""
    before = sys.argv
    sys.argv = ["symcere", *map(str, words)]
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    finally:
        sys.argv = before
    return 0


def test_what_is_exported_from_every_fold_comes_back_as_a_row_of_the_report(finished, capsys):
    folder, words = finished
    for seed in range(3):
        assert call(["export", folder / "o", "--format", "trec", "-o", folder / f"trec{seed}", "--seed", seed]) == 0
    assert "symcere.run" in capsys.readouterr().out
    assert call([*words, "--import-run", f"mirror={folder}/trec{{seed}}/symcere.run", "--json"]) == 0
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert result["split"] == "k-fold"
    assert result["seeds"] == [0, 1, 2]
    ours, theirs = result["systems"]["symcere"], result["systems"]["mirror"]
    assert theirs["seconds"] is theirs["valid_ndcg@10"] is None
    assert {label: ours[label] for label in ("ndcg@10", "recall@20", "gini@10")}.items() <= theirs.items()
    assert result["by_seed"]["mirror"]["ndcg@10"] == result["by_seed"]["symcere"]["ndcg@10"]
    assert result["tests"]["mirror"]["difference"] == 0
    (warning,) = result["warnings"]
    assert "draws the past from the future" in warning
    assert err.count("draws the past from the future") == 1
    for page in ("report.md", "report.html"):
        text = (folder / "o" / page).read_text(encoding="utf-8")
        assert "mirror" in text
        assert text.count("draws the past from the future") == 1
    read = json.loads((folder / "o" / "manifest.json").read_text())["input"]["imported_runs"]["mirror"]
    assert len(set(read.values())) == 3


def test_exported_csv_holds_the_split_of_the_run(finished, capsys):
    folder, _ = finished
    assert call(["export", folder / "o", "--format", "csv", "-o", folder / "csv", "--json"]) == 0
    files = [name.rsplit("/", 1)[1] for name in json.loads(capsys.readouterr().out)["files"]]
    assert files == ["test.csv", "train.csv", "valid.csv"]
    reviews = sc.k_core(sc.read_reviews(folder / "reviews.json.gz"), 5)
    split = sc.split_k_fold(reviews, 3, fold=0)
    assert set(read_pairs(folder / "csv" / "test.csv", ",")) == pairs_of(split.test)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["export", "{folder}", "--format", "csv", "-o", "{folder}/x"], "is no folder of a finished run"),
        (["export", "{folder}/o", "--format", "csv", "-o", "{folder}/x", "--seed", "7"], "has no seed 7"),
        (["export", "{folder}/o", "--format", "csv", "-o", "/proc/x"], "Cannot write"),
        (["export", "{folder}/o", "--format", "sparql", "-o", "{folder}/x"], "sparql"),
        (["{run}", "--import-run", "popularity={folder}/{{seed}}"], "a name of its own"),
        (["{run}", "--import-run", "mirror={folder}/one.run"], "write {{seed}} where"),
        (["{run}", "--import-run", "mirror={folder}/{{seed}}.run"], "cannot be read"),
        (["{run}", "--import-run", "mirror"], "--import-run takes KEY=VALUE"),
        (["{run}", "--seeds", "2"], "every fold is a seed"),
    ],
)
def test_bad_words_about_exports_and_imports_are_sentences(finished, capsys, words, sentence):
    folder, run = finished
    words = [
        part for word in words for part in (run if word == "{run}" else [word.format(folder=folder)])
    ]  # the words of the finished run, then more
    assert call(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert sentence.format() in " ".join(err.split())


def test_several_seeds_of_one_split_are_warned_of(finished, capsys):
    folder, words = finished
    words = [*words[:6], *FAST, "--split", "leave-last-out", "--seeds", "2", "--json"]
    words[3] = folder / "last"
    assert call(words) == 0
    out, _ = capsys.readouterr()
    assert "2 seeds repeat only the training" in json.loads(out)["warnings"][1]
