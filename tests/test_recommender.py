"""What is saved equals what is loaded; what is damaged is refused."""

import dataclasses
import json

import numpy as np
import pytest

import symcere as sc
from symcere.ids import IdMap
from symcere.recommender import with_unit_spread


def test_saved_and_loaded_recommenders_are_equal(model, tmp_path):
    model.save(tmp_path / "m")
    loaded = sc.Recommender.load(tmp_path / "m")
    for name in ("user_emb", "item_emb", "popularity"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(model, name))
    assert (loaded.users, loaded.items) == (model.users, model.items)
    assert (loaded.temperature, loaded.popularity_weight) == (model.temperature, model.popularity_weight)
    assert (loaded.seen != model.seen).nnz == 0
    assert loaded.recommend(model.users.id(3), 7) == model.recommend(model.users.id(3), 7)


def test_a_folder_of_others_is_never_replaced(model, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(sc.OutputError, match="was not written by symcere"):
        model.save(tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "years of work"


def test_a_changed_recommender_replaces_the_older_one(model, tmp_path):
    model.save(tmp_path / "m")
    model.with_popularity_weight(9.0).save(tmp_path / "m")
    assert sc.Recommender.load(tmp_path / "m").popularity_weight == 9
    with pytest.raises(sc.ConfigError, match="finite"):
        model.with_popularity_weight(float("nan"))


def test_saving_twice_replaces_and_leaves_nothing_else(model, tmp_path):
    model.save(tmp_path / "m")
    model.save(tmp_path / "m")
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


@pytest.mark.parametrize("damage", ["missing", "tensor", "ids", "manifest", "foreign"])
def test_a_damaged_or_foreign_folder_is_refused(model, tmp_path, damage):
    folder = tmp_path / "m"
    model.save(folder)
    if damage == "missing":
        (folder / "ids.json").unlink()
    elif damage == "tensor":
        raw = bytearray((folder / "model.safetensors").read_bytes())
        raw[-1] ^= 1
        (folder / "model.safetensors").write_bytes(raw)
    elif damage == "ids":
        (folder / "ids.json").write_text("{}")
    elif damage == "manifest":
        (folder / "manifest.json").write_text("[")
    else:
        manifest = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps(manifest | {"format": "other"}))
    with pytest.raises(sc.BundleError, match="is no saved recommender"):
        sc.Recommender.load(folder)


def test_similar_items_are_the_nearest_by_cosine_without_the_item_itself(model):
    own = 5
    unit = model.item_emb / np.linalg.norm(model.item_emb, axis=1, keepdims=True)
    cosine = unit @ unit[own]
    expected = [i for i in np.argsort(-cosine, kind="stable") if i != own][:4]
    found = model.similar_items(model.items.id(own), 4)
    assert [item for item, _ in found] == [model.items.id(int(i)) for i in expected]
    assert [value for _, value in found] == pytest.approx(cosine[expected].tolist())


def test_an_only_item_has_no_similar_ones(model):
    small = dataclasses.replace(
        model,
        items=IdMap(("only",), "item"),
        item_emb=model.item_emb[:1],
        popularity=model.popularity[:1],
        seen=model.seen[:, :1],
    )
    assert small.similar_items("only", 3) == []


def test_the_dial_moves_recommendations_towards_the_popular(model, split):
    def mean_degree(weight):
        lists = [model.with_popularity_weight(weight).recommend(u, 10) for u in list(model.users)[:30]]
        return np.mean([model.popularity[model.items.index(item)] for rows in lists for item, _ in rows])

    assert mean_degree(0.0) < mean_degree(1.0) < mean_degree(100.0)


def test_bad_embeddings_are_refused(model):
    with pytest.raises(sc.DataError, match="must be finite"):
        dataclasses.replace(model, user_emb=model.user_emb * np.float32("nan"))
    with pytest.raises(sc.DataError, match="float32 with"):
        dataclasses.replace(model, item_emb=model.item_emb[1:])


@pytest.mark.parametrize("at_once", [1, 7, 10**6])
def test_the_unit_of_affinities_is_their_spread_however_many_are_held(model, monkeypatch, at_once):
    far = dataclasses.replace(model, item_emb=model.item_emb + np.float32(30.0))  # a mean of many spreads
    affinity = far.affinity(np.arange(len(far.users))).astype(np.float64)
    monkeypatch.setattr("symcere.recommender._AT_ONCE", at_once)
    assert with_unit_spread(far).temperature == pytest.approx(affinity.std(), rel=1e-6)


@pytest.mark.parametrize("value", [0.1, 0.3, 0.7, 1.1])
def test_equal_affinities_have_no_spread(model, value):
    level = {name: getattr(model, name) * np.float32(0.0) for name in ("user_emb", "item_emb")}
    for side in level.values():
        side[:, 0] = value
    assert with_unit_spread(dataclasses.replace(model, **level)).temperature == 1.0
