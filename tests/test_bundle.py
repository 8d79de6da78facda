"""A bundle is what a service needs: equal to what it was made of, torch-free, and refused where it is damaged."""

import dataclasses
import json
import shutil
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import polars as pl
import pytest
from tests.test_encoders import TEACHER

import symcere as sc
from symcere.data.items import items_of
from symcere.mapped import map_tensors
from symcere.text.distilled import DistilledEncoder


@pytest.fixture(scope="module")
def explainer(split, text, model):
    return sc.Explainer.of(split.train, text, model, sc.tfidf_encoder(64))


@pytest.fixture(scope="module")
def folder(explainer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles") / "bundle"
    sc.write_bundle(explainer, sc.Items(), folder)
    return folder


@pytest.fixture(scope="module")
def bundle(folder):
    return sc.open_bundle(folder)


def test_a_bundle_recommends_explains_and_reads_as_what_it_was_made_of(bundle, explainer):
    model = explainer.learned.model
    user_id = model.users.id(5)
    assert bundle.model.recommend(user_id, 7) == model.recommend(user_id, 7)
    item_id = model.recommend(user_id, 1)[0][0]
    one, other = (asdict(each.why(user_id, item_id)) for each in (bundle.explainer, explainer))
    assert one.keys() == other.keys()
    assert one["score"] == pytest.approx(other["score"])
    assert [word for word, _ in one["item_words"]] == [word for word, _ in other["item_words"]]
    assert [text for text, _ in one["snippets"]] == [text for text, _ in other["snippets"]]
    texts = ["a gasket of steel", "nobody knows zzz", ""]
    assert np.abs(bundle.explainer.reader.encode(texts) - explainer.reader.encode(texts)).max() < 1e-5


def test_somebody_with_the_items_of_a_user_has_all_of_that_user_but_the_own_text(bundle, split):
    user = 8
    items = [split.train.items.id(int(item)) for item in split.train.item[split.train.user == user]]
    learned = bundle.explainer.learned
    assert learned.towers.propagated_weight
    graph, _, heard = (part[user] for part in learned.joined)
    near = learned.near[user] - learned.near_texts[user] / learned.n_averaged
    expected = learned.towers.beside(*(x[None] / np.linalg.norm(x) for x in (graph + heard, near)))[0]
    assert np.abs(bundle.taste(items) - expected).max() < 1e-5
    assert np.abs(bundle.taste([*items, items[0]]) - bundle.taste(items)).max() == 0


def test_what_one_writes_moves_what_one_gets(bundle, world):
    from symcere.data.synthetic import FACTS

    found = bundle.recommend_to(bundle.taste(text="gasket gasket gasket"), 10, dial=0.0)
    has = dict(zip(world.item_ids, world.has[:, FACTS.index("gasket")], strict=True))
    assert np.mean([has[item] for item, _ in found]) > 2 * world.has[:, FACTS.index("gasket")].mean()
    assert bundle.recommend_to(bundle.taste(text="gasket"), 3) != bundle.recommend_to(bundle.taste(text="leather"), 3)


def test_items_left_out_do_not_come_and_the_dial_is_the_scores(bundle):
    taste = bundle.taste(text="steel")
    best = [item for item, _ in bundle.recommend_to(taste, 5)]
    rest = [item for item, _ in bundle.recommend_to(taste, 1_000, without=[*best[:2], "no such item"])]
    assert len(rest) == len(bundle.model.items) - 2
    assert rest[:3] == best[2:]
    popular = dict(bundle.recommend_to(taste, 1_000, dial=2.0))
    plain = dict(bundle.recommend_to(taste, 1_000, dial=0.0))
    item = best[0]
    expected = 2.0 * bundle.model.log_popularity[bundle.model.items.index(item)]
    assert popular[item] - plain[item] == pytest.approx(expected, abs=1e-4)
    with pytest.raises(sc.ConfigError, match="at least 1"):
        bundle.recommend_to(taste, 0)


def test_a_bundle_takes_the_place_of_one_with_other_titles_or_another_dial(explainer, split, tmp_path):
    titled = items_of(pl.DataFrame({"item_id": [split.train.items.id(0)], "title": ["Strap"], "category": [""]}))
    turned = dataclasses.replace(explainer.learned, model=explainer.learned.model.with_popularity_weight(3.5))
    for made, items in (
        (explainer, sc.Items()),
        (explainer, titled),
        (dataclasses.replace(explainer, learned=turned), titled),
        (explainer, sc.Items()),
    ):
        sc.write_bundle(made, items, tmp_path / "bundle")
        opened = sc.open_bundle(tmp_path / "bundle")
        assert len(opened.items) == len(items)
        assert opened.model.popularity_weight == made.learned.model.popularity_weight


def test_texts_of_somebody_new_are_cleaned_as_those_of_reviews_are(explainer, split):
    words = " ".join(split.train.review["text"][0].split()[:4])
    clean, raw = (explainer.taste(texts=[text]) for text in (words, f" {words}<br />&nbsp;"))
    np.testing.assert_array_equal(raw.vector, clean.vector)
    assert raw.texts == clean.texts == (words,)
    with pytest.raises(sc.ConfigError, match="Name at least one item"):
        explainer.taste(texts=["<br />"])


def test_nonsense_is_no_taste_for_an_encoder_that_has_a_vector_for_any_text(split, quick):
    encoders = [sc.tfidf_encoder(8), DistilledEncoder(teacher=TEACHER)]
    text = sc.encode_reviews(split.train, *encoders)
    explainer = sc.Explainer.of(
        split.train, text, sc.fit(split.train, text, valid=split.valid, settings=quick), *encoders
    )
    user_id = split.train.users.id(0)
    served = explainer.taste(user_id=user_id).vector
    for said in ("zzz qqq", "..."):
        with pytest.raises(sc.ConfigError, match="Name at least one item"):
            explainer.taste(texts=[said])
        np.testing.assert_array_equal(explainer.taste(texts=[said], user_id=user_id).vector, served)


@pytest.mark.parametrize("said", ["", "   ", "zzz qqq"])
def test_a_taste_of_nothing_is_refused(bundle, said):
    with pytest.raises(sc.ConfigError, match="at least one item"):
        bundle.taste(text=said)
    with pytest.raises(sc.UnknownIdError):
        bundle.taste(["no such item"])


def test_half_the_size_and_nearly_the_same_scores(explainer, folder, tmp_path):
    sc.write_bundle(explainer, sc.Items(), tmp_path / "half", half=True)
    half = sc.open_bundle(tmp_path / "half")
    assert half.model.user_emb.dtype == np.float32
    user = np.arange(5)
    assert np.abs(half.model.score(user) - explainer.learned.model.score(user)).max() < 0.02
    size = [(at / "model" / "model.safetensors").stat().st_size for at in (tmp_path / "half", folder)]
    assert size[0] < size[1]


def test_conditioned_and_several_encoders_are_kept(split, quick, tmp_path):
    encoders = [sc.tfidf_encoder(8), DistilledEncoder(teacher=TEACHER)]
    text = sc.encode_reviews(split.train, *encoders, parts=("title", "body"))
    model = sc.fit(split.train, text, valid=split.valid, settings=quick.model_copy(update={"max_epochs": 2}))
    explainer = sc.Explainer.of(split.train, text, model, *encoders, parts=("title", "body"))
    sc.write_bundle(explainer, sc.Items(), tmp_path / "b")
    again = sc.open_bundle(tmp_path / "b").explainer
    texts = ["great gasket", "steel bolt of brass"]
    assert np.abs(again.reader.encode(texts) - explainer.reader.encode(texts)).max() < 1e-5
    user_id, item_id = model.users.id(0), model.items.id(1)
    assert again.why(user_id, item_id).parts == pytest.approx(explainer.why(user_id, item_id).parts)


def test_an_encoder_that_is_a_function_cannot_be_kept(split, quick, tmp_path):
    text = sc.encode_reviews(split.train, TEACHER)
    model = sc.fit(split.train, text, valid=split.valid, settings=quick.model_copy(update={"max_epochs": 2}))
    with pytest.raises(sc.ConfigError, match="cannot be written"):
        sc.write_bundle(sc.Explainer.of(split.train, text, model, TEACHER), sc.Items(), tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_a_cold_nodes_support_reviews_travel_along(reviews, quick, tmp_path):
    split = sc.split_cold_items(reviews, seed=0)
    text = sc.encode_reviews(split.train, sc.tfidf_encoder(16))
    model = sc.fit(split.train, text, valid=split.valid, settings=quick.model_copy(update={"max_epochs": 2}))
    sc.write_bundle(sc.Explainer.of(split.train, text, model, sc.tfidf_encoder(16)), sc.Items(), tmp_path / "b")
    again = sc.open_bundle(tmp_path / "b")
    cold = split.train.support.item[0]
    reason = again.explainer.why(model.users.id(0), model.items.id(int(cold)))
    assert reason.item_words
    assert not reason.alike


@pytest.mark.parametrize(
    "name", ["model/model.safetensors", "reviews.arrow", "reader/reader.json", "text/features.safetensors"]
)
def test_a_damaged_bundle_is_refused_in_one_sentence(folder, tmp_path, name):
    shutil.copytree(folder, tmp_path / "b")
    file = tmp_path / "b" / name
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(sc.BundleError, match="is no bundle"):
        sc.open_bundle(tmp_path / "b")


def test_what_is_no_bundle_of_this_format_is_refused(folder, model, tmp_path):
    for other in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(sc.BundleError, match="symcere export"):
            sc.open_bundle(other)
    model.save(tmp_path / "m")
    with pytest.raises(sc.BundleError, match="is no bundle"):
        sc.open_bundle(tmp_path / "m")
    shutil.copytree(folder, tmp_path / "b")
    about = json.loads((tmp_path / "b" / "manifest.json").read_text())
    (tmp_path / "b" / "manifest.json").write_text(json.dumps(about | {"format": "symcere-bundle-99"}))
    with pytest.raises(sc.BundleError, match="symcere-bundle-1"):
        sc.open_bundle(tmp_path / "b")


def test_the_arrays_of_a_bundle_are_mapped_and_cannot_be_written(folder):
    tensors = map_tensors(folder / "model" / "model.safetensors")
    assert isinstance(tensors["item_emb"].base, np.memmap) or isinstance(tensors["item_emb"], np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        tensors["item_emb"][0] = 0


def test_a_service_loads_no_torch(folder):
    code = (
        f"import sys, symcere as sc; b = sc.open_bundle({str(folder)!r}); u = b.model.users.id(0); "
        "b.explainer.why(u, b.model.recommend(u, 1)[0][0]); b.recommend_to(b.taste(text='steel')); "
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "False"


def test_the_command_line_exports_a_bundle_and_asks_it(file, symcere, tmp_path):
    run = ["run", file, "--systems", "none", "--set", "dim=8", "--set", "max_epochs=2", "--out", "out", "--quiet"]
    assert symcere(*run)[0] == 0
    code, out, err = symcere("export", "out", "--format", "bundle", "--out", "b", "--half", "--json")
    assert code == 0, err
    assert "b/model/model.safetensors" in json.loads(out)["files"]
    for words in (["recommend"], ["explain"]):
        code, out, err = symcere(*words, "b", "user00001", "--json")
        assert code == 0, err
    assert json.loads(out)[0]["parts"]
    assert symcere("similar", "b", "item00001", "-k", 2)[0] == 0
    code, _, err = symcere("explain", "b", "nobody")
    assert code == 2
    assert "nobody" in err
