"""A fit that holds nothing out, as an earlier one chose: what is served has learned from everything."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import symcere as sc
from conftest import reviews_of
from symcere import ranking
from symcere.cli import main
from symcere.cli.words import encoding_again
from symcere.distributed.rank import measure_test as measure_on_ray
from symcere.pipeline import verbs
from symcere.pipeline.finished import FinishedRun
from symcere.pipeline.refit import refit
from symcere.pipeline.workspace import Unwatched
from symcere.text import choice
from symcere.training import fusion
from symcere.training.checkpoint import current_checkpoints
from symcere.training.progress import Epoch
from test_checkpoint import killed_at, same, unlike_time
from test_fusion import graph_of


def fitted(split, text, settings, valid):
    """A fit, and what its epochs told."""
    return fitted_on(split.train, text, settings, valid)


def fitted_on(train, text, settings, valid):
    """The same on any interactions."""
    told = []
    return sc.fit(train, text, valid=valid, settings=settings, on_epoch=told.append), told


def test_undivided_is_every_review_numbered_as_in_every_split(reviews):
    everything = sc.undivided(reviews)
    assert not len(everything.support)
    for split in (sc.split_random(reviews, seed=1), sc.split_cold_items(reviews)):
        assert (split.train.users, split.train.items) == (everything.users, everything.items)
        parts = split.train.seen + split.valid.matrix + split.test.matrix
        assert (parts - everything.matrix).nnz == 0
    of = {(row["user_id"], row["item_id"]): row["text"] for row in reviews.table.iter_rows(named=True)}
    ids = zip(map(everything.users.id, everything.user), map(everything.items.id, everything.item), strict=True)
    assert [of[pair] for pair in ids] == everything.review["text"].to_list()
    with pytest.raises(sc.DataError, match="at least two users"):
        sc.undivided(reviews_of([("u", "i"), ("u", "j")]))


@pytest.mark.parametrize("batches", [0, 2])
def test_it_learns_as_a_fit_that_is_validated_and_does_not_validate(split, text, quick, monkeypatch, batches):
    quick = quick.model_copy(update={"check_text": False, "batches_per_propagation": batches})
    last = quick.model_copy(update={"max_epochs": 5, "valid_every": 5})
    validated, told = fitted(split, text, last, split.valid)
    monkeypatch.setattr("symcere.training.loop.choose_popularity_weight", None)  # nobody is asked
    found, shown = fitted(split, text, quick, sc.Chosen(5, 0.7))
    np.testing.assert_array_equal(found.user_emb, validated.user_emb)
    np.testing.assert_array_equal(found.item_emb, validated.item_emb)
    assert found.popularity_weight == 0.7
    assert (found.seen - split.train.matrix).nnz == 0  # nothing was held out that should not come back
    assert [epoch.terms for epoch in shown] == [epoch.terms for epoch in told]
    assert {(epoch.valid_ndcg, epoch.popularity_weight, epoch.best_ndcg) for epoch in shown} == {(None, None, None)}
    json.dumps([vars(epoch) for epoch in shown], allow_nan=False)


def test_it_counts_text_as_often_as_was_chosen_whether_or_not_valid_would_be_asked(split, text, quick):
    once, _ = fitted(split, text, quick, sc.Chosen(3, 0.4))
    parts = fusion._parts_of(once.towers, text, graph_of(split))
    for checks in (True, False):
        settings = quick.model_copy(update={"check_text": checks})
        found, _ = fitted(split, text, settings, sc.Chosen(3, 0.4, text_times=0.25))
        expected = fusion._joined(once, once.towers, parts, 0.25)
        np.testing.assert_array_equal(found.user_emb, expected.user_emb)
        np.testing.assert_array_equal(found.item_emb, expected.item_emb)
        assert np.abs(found.item_emb - once.item_emb).max() > 0.01
        assert (found.towers.text_times, found.popularity_weight) == (0.25, 0.4)


def test_what_was_chosen_is_the_best_epoch_the_dial_and_the_weight_of_the_text(split, text, quick, model):
    again, told = fitted(split, text, quick, split.valid)
    chosen = sc.Chosen.of(again, told)
    best = max((epoch.valid_ndcg, -epoch.epoch) for epoch in told if epoch.valid_ndcg is not None)
    assert chosen == sc.Chosen(-best[1], model.popularity_weight, model.towers.text_times)

    def epoch(number, ndcg):
        return Epoch(number, 0.0, 0.0, {}, 0.0, 0.0, 0.0, 0.0, ndcg, None, None)

    shown = [epoch(1, None), epoch(2, 0.1), epoch(3, None), epoch(4, 0.3), epoch(6, 0.3), epoch(8, 0.2)]
    assert sc.Chosen.of(model, shown).epochs == 4  # the earlier wins a tie
    with pytest.raises(sc.ConfigError, match="No epoch of this fit was validated"):
        sc.Chosen.of(model, shown[:1])


def test_it_goes_on_after_a_kill_and_another_choice_is_another_fit(split, text, quick, tmp_path):
    chosen = sc.Chosen(4, 0.4, 0.5)
    whole, told = fitted(split, text, quick, chosen)
    with killed_at(14, tmp_path):  # in the last epoch
        fitted(split, text, quick, chosen)
    (file,) = tmp_path.iterdir()
    raw = file.read_bytes()
    with sc.checkpointing(tmp_path):
        other, shown = fitted(split, text, quick, sc.Chosen(3, 0.4, 0.5))
    assert len(shown) == 3
    assert same(other, fitted(split, text, quick, sc.Chosen(3, 0.4, 0.5))[0])
    file.write_bytes(raw)
    with sc.checkpointing(tmp_path):
        resumed, again = fitted(split, text, quick, chosen)
    assert same(resumed, whole)
    assert list(map(unlike_time, again)) == list(map(unlike_time, told))
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def run(file, tmp_path_factory):
    """Folder of a finished run, its cache beside it."""
    folder = tmp_path_factory.mktemp("refit")
    words = ["run", str(file), "--systems", "none", "--out", str(folder / "run"), "--cache", str(folder / "cache"),
             "--quiet", "--json", "--seed", "3", "--set", "dim=16", "--set", "batch_size=256", "--set",
             "max_epochs=6"]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["symcere", *words])
        with pytest.raises(SystemExit) as stop:
            main()
    assert not stop.value.code
    return folder / "run"


def pairs_of(reviews):
    """All (user id, item id) of a table."""
    return set(reviews.table.select("user_id", "item_id").iter_rows())


def test_a_bundle_that_learned_from_everything_recommends_nothing_that_was_chosen(run, symcere, tmp_path):
    words = ["export", run, "--format", "bundle", "--out", "bundle", "--cache", run.parent / "cache"]
    code, out, said = symcere(*words, "--refit")
    assert code == 0
    assert "as valid chose" in said
    assert "--refit" not in said
    assert "bundle/model/model.safetensors" in out
    finished = FinishedRun.open(run)
    bundle, everything = sc.open_bundle(tmp_path / "bundle"), pairs_of(finished.reviews)
    assert bundle.about["reviews"] == len(bundle.explainer.learned.train) == len(finished.reviews)
    model = bundle.model
    shown = {(user, item) for user in model.users.ids for item, _ in model.recommend(user, len(model.items))}
    assert not shown & everything
    assert len(shown) == len(model.users) * len(model.items) - len(everything)
    chosen = sc.Chosen.of(finished.model, finished.history)
    assert (model.popularity_weight, model.towers.text_times) == (chosen.popularity_weight, chosen.text_times)
    np.testing.assert_array_equal(model.popularity, sc.undivided(finished.reviews).popularity)
    stage = next((run / "stages").glob("symcere-all-seed3-*"))
    assert len((stage / "history.jsonl").read_text().splitlines()) == chosen.epochs
    text = sc.encode_reviews(sc.undivided(finished.reviews), sc.lift_encoder())
    settings = sc.SymcereSettings(dim=16, batch_size=256, max_epochs=6)
    again = sc.fit(sc.undivided(finished.reviews), text, valid=chosen, settings=settings, seed=3)
    np.testing.assert_array_equal(model.user_emb, again.user_emb)
    user = model.users.id(3)
    assert bundle.explainer.why(user, model.recommend(user, 1)[0][0]).score
    assert symcere("recommend", "bundle", user, "-k", 3)[0] == 0

    stages = {path: path.stat().st_mtime_ns for path in (run / "stages").glob("*/manifest.json")}
    code, _, said = symcere(*words, "--refit")
    assert said.count("up to date") == 2  # its text and its fit
    assert {path: path.stat().st_mtime_ns for path in (run / "stages").glob("*/manifest.json")} == stages
    assert FinishedRun.open(run).model.seen.nnz == len(finished.split.train) + len(finished.split.valid)  # untouched


def test_a_bundle_of_what_was_measured_says_what_it_does_not_know(run, symcere):
    words = ["export", run, "--format", "bundle", "--out", "bundle", "--cache", run.parent / "cache"]
    finished = FinishedRun.open(run)
    code, out, said = symcere(*words)
    counts = f"learned from {len(finished.split.train):,} of {len(finished.reviews):,} interactions"
    assert (code, counts in said, "--refit learns from all of them" in said) == (0, True, True)
    assert "Note" not in out
    code, out, said = symcere(*words, "--json")
    assert (code, said) == (0, "")
    assert json.loads(out)["format"] == "bundle"
    assert symcere(*words, "--quiet")[2] == ""


def test_the_encoder_that_was_measured_stays_where_more_reviews_would_get_another(run, tmp_path, monkeypatch):
    finished = FinishedRun.open(run)
    monkeypatch.setattr(choice, "LARGE", len(finished.split.train) + 1)
    assert len(choice.default_encoders(len(finished.reviews))) == 2
    explainer = refit(finished, Unwatched(), encoding_again(finished.encoding), run.parent / "cache")
    assert explainer.learned.text.encoder == finished.text.encoder
    again = FinishedRun.open(shutil.copytree(run, tmp_path / "run"))
    noisy = encoding_again(finished.encoding)
    noisy = type(noisy)(noisy.encoders, noise=[sc.Missing(0.5)])
    other = refit(again, Unwatched(), noisy, run.parent / "cache")  # the noise that a run put in stays in
    n_silent = int((other.learned.train.review["text"] == "").sum())
    assert 0.4 * len(other.learned.train) < n_silent < 0.6 * len(other.learned.train)
    assert not np.array_equal(other.learned.text.item, explainer.learned.text.item)


def test_it_keeps_checkpoints_in_the_run_and_leaves_own_reviews_out_where_the_run_did(file, symcere, monkeypatch):
    words = ["run", file, "--systems", "none", "--out", "out", "--cache", "cache", "--quiet", "--set", "max_epochs=3"]
    assert symcere(*words, "--set", "dim=8", "--set", "leave_one_out=true")[0] == 0
    finished, seen = FinishedRun.open(Path("out")), []

    def fit(train, text, **how):
        seen.append((current_checkpoints().folder, len(text.own)))
        return sc.fit(train, text, **how)

    monkeypatch.setattr(verbs, "fit", fit)
    refit(finished, Unwatched(), encoding_again(finished.encoding), Path("cache"))
    assert seen == [(Path("out/checkpoints"), 1)]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["export", "RUN", "--format", "csv", "--out", "x", "--refit"], "--refit is for --format bundle; csv is"),
        (["export", "RUN", "--format", "trec", "--out", "x", "--half"], "--half is for --format bundle; trec is"),
        (["serve", "BUNDLE", "--refit"], "is a bundle, and --refit learns from a run"),
        (["export", "nothing", "--format", "bundle", "--out", "x", "--refit"], "is no folder of a finished run"),
    ],
)
def test_what_cannot_be_learned_again_is_one_sentence(run, symcere, tmp_path, words, said):
    (tmp_path / "bundle").mkdir()
    words = [{"RUN": run, "BUNDLE": tmp_path / "bundle"}.get(word, word) for word in words]
    code, out, error = symcere(*words)
    assert (code, out) == (2, "")
    assert said in " ".join(error.split())
    assert not (tmp_path / "x").exists()


def test_serve_exports_a_run_that_learned_from_everything_once(run, symcere, monkeypatch):
    import uvicorn

    served = []
    monkeypatch.setattr(uvicorn.Server, "run", lambda self, **_: served.append(self.config.app))
    monkeypatch.setattr("signal.signal", lambda *_: None)
    words = ["serve", run, "--refit", "--port", 0, "--cache", run.parent / "cache"]
    assert symcere(*words)[0] == 0
    made = run / "bundle-refit" / "manifest.json"
    assert json.loads(made.read_text())["reviews"] == len(FinishedRun.open(run).reviews)
    before = made.stat().st_mtime_ns
    assert symcere(*words)[0] == 0
    assert made.stat().st_mtime_ns == before
    assert len(served) == 2
    words.remove("--refit")
    for exported in (True, False):  # the second finds the bundle there, and says it as well
        code, _, said = symcere(*words)
        assert (code, "Exporting" in said, "--refit learns from all of them" in said) == (0, exported, True)


def test_a_fit_on_another_device_or_cluster_is_another_fit(run, monkeypatch):
    finished = FinishedRun.open(run)
    how = encoding_again(finished.encoding), run.parent / "cache"
    refit(finished, Unwatched(), *how)
    stages = set((run / "stages").glob("symcere-all-seed3-*"))
    refit(finished, Unwatched(), *how)
    assert set((run / "stages").glob("symcere-all-seed3-*")) == stages
    monkeypatch.setattr("symcere.pipeline.refit.where_it_runs", lambda: [{"workers": 2}])
    refit(finished, Unwatched(), *how)
    assert set((run / "stages").glob("symcere-all-seed3-*")) != stages


def test_who_knows_test_is_not_measured_on_it(split, reviews, quick, model):
    everything = sc.undivided(reviews)
    text = sc.encode_reviews(everything, sc.tfidf_encoder(16))
    served, _ = fitted_on(everything, text, quick, sc.Chosen(2, 0.0))
    said = f"learned from {len(split.test):,} of {len(split.test):,} test interactions and cannot be measured"
    with pytest.raises(sc.ConfigError, match=said):
        sc.compare({"measured": model, "served": served}, split, [sc.ndcg(10)])
    with pytest.raises(sc.ConfigError, match="cannot be measured"):  # fitted under another seed
        sc.compare({"measured": model}, sc.split_random(reviews, seed=1), [sc.ndcg(10)])
    assert sc.compare({"measured": model}, split, [sc.ndcg(10)]).systems == ["measured"]
    with pytest.raises(sc.ConfigError, match=said):  # before anybody is asked to rank
        measure_on_ray(served, split, [sc.ndcg(10)])


def test_seen_and_ranked_agree(split, text, quick):
    """The list of a user leaves out what the fit knows, and nothing else."""
    found, _ = fitted(split, text, quick, sc.Chosen(2, 0.0))
    user = np.arange(len(split.train.users))
    listed = ranking.rank(found, user, len(split.train.items), found.seen)
    assert ((listed >= 0).sum(axis=1) == len(split.train.items) - np.bincount(split.train.user)).all()
