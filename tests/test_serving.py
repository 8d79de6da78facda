"""The service: answers equal the recommender's, errors have one shape, limits hold, strangers' words stay words."""

import asyncio
import dataclasses
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote

import anyio
import httpx
import numpy as np
import polars as pl
import pytest
from prometheus_client import CollectorRegistry

import symcere as sc
from symcere.data.items import items_of
from symcere.ids import IdMap
from symcere.serving.app import Holder, create_app
from symcere.serving.feedback import Event
from symcere.serving.guard import Guard, Limits
from symcere.serving.service import Service, Wish, _Lines

HOSTILE = "<script>document.title='stolen'</script><img src=x onerror=\"document.title='stolen'\">"


@pytest.fixture(scope="module")
def folder(split, quick, tmp_path_factory):
    """A bundle whose titles and reviews are hostile."""
    from dataclasses import replace

    review = split.train.review.with_columns(text=pl.lit(HOSTILE + " ") + pl.col("text"))
    train = replace(split.train, review=review)
    text = sc.encode_reviews(train, sc.tfidf_encoder(16))
    model = sc.fit(train, text, valid=split.valid, settings=quick, seed=0)
    ids = list(train.items)
    rows = {
        "item_id": ids,
        "title": [f"{HOSTILE} {item}" for item in ids],
        "category": ["Music > Drums" if n % 2 else "Garden" for n in range(len(ids))],
    }
    folder = tmp_path_factory.mktemp("served") / "bundle"
    sc.write_bundle(sc.Explainer.of(train, text, model, sc.tfidf_encoder(16)), items_of(pl.DataFrame(rows)), folder)
    return folder


@pytest.fixture(scope="module")
def holder(folder):
    return Holder(folder)


def client_of(holder, limits=None, token=None):
    from starlette.testclient import TestClient

    return TestClient(create_app(holder, limits, token), raise_server_exceptions=False)


@pytest.fixture(scope="module")
def client(holder):
    return client_of(holder, Limits(rate=0))


def test_a_user_gets_what_the_recommender_recommends(client, holder):
    model = holder.service.model
    user_id = model.users.id(3)
    answer = client.get("/v1/recommend", params={"user_id": user_id, "k": 7})
    assert answer.status_code == 200
    found = [(item["item_id"], pytest.approx(item["score"], abs=1e-5)) for item in answer.json()["items"]]
    assert found == model.recommend(user_id, 7)
    assert answer.json()["fallback"] is None
    dial = client.get("/v1/recommend", params={"user_id": user_id, "k": 7, "dial": 0}).json()["items"]
    assert [item["item_id"] for item in dial] == [
        i for i, _ in model.with_popularity_weight(0.0).recommend(user_id, 7)
    ]


def test_an_unknown_user_gets_what_most_chose_and_is_told_so(client, holder):
    answer = client.get("/v1/recommend", params={"user_id": "nobody", "k": 3})
    assert answer.status_code == 200
    assert "nobody" in answer.json()["fallback"]
    model = holder.service.model
    best = np.argsort(-model.popularity, kind="stable")[:3]
    assert [item["item_id"] for item in answer.json()["items"]] == [model.items.id(int(item)) for item in best]


def test_filters_by_category_and_exclusion_hold(client, holder):
    user_id = holder.service.model.users.id(0)
    ask = {"user_id": user_id, "k": 100, "category": "drums"}
    drums = client.get("/v1/recommend", params=ask).json()["items"]
    assert drums
    assert {item["category"] for item in drums} == {"Music > Drums"}
    gone = [drums[0]["item_id"], "no such item"]
    left = client.get("/v1/recommend", params={**ask, "exclude": gone}).json()["items"]
    assert [item["item_id"] for item in left] == [item["item_id"] for item in drums[1:]]
    assert client.get("/v1/recommend", params={**ask, "category": "nothing"}).json()["items"] == []


def test_diversity_keeps_the_first_and_spreads_the_rest(client, holder):
    model = holder.service.model
    ask = {"user_id": model.users.id(0), "k": 8, "dial": 0}
    unit = model.item_emb / np.linalg.norm(model.item_emb, axis=1, keepdims=True)

    def nearness(diversity):
        items = client.get("/v1/recommend", params={**ask, "diversity": diversity}).json()["items"]
        rows = unit[[model.items.index(item["item_id"]) for item in items]]
        return items[0]["item_id"], (rows @ rows.T)[np.triu_indices(8, 1)].mean()

    plain, diverse = nearness(0), nearness(0.7)
    assert plain[0] == diverse[0]
    assert diverse[1] < plain[1]


def test_somebody_new_is_served_by_items_and_by_words(client, holder):
    bundle = holder.service.bundle
    items = [bundle.model.items.id(place) for place in (1, 4)]
    answer = client.post("/v1/recommend", json={"items": items, "text": "a gasket of steel", "k": 5})
    assert answer.status_code == 200
    found = [(item["item_id"], pytest.approx(item["score"], abs=1e-5)) for item in answer.json()["items"]]
    assert found == bundle.recommend_to(bundle.taste(items, "a gasket of steel"), 5, without=items)
    for nothing in ({"text": "zzz"}, {}, {"text": " "}):
        answer = client.post("/v1/recommend", json={**nothing, "k": 3})
        assert answer.status_code == 200
        assert "most users chose" in answer.json()["fallback"]
    assert client.post("/v1/recommend", json={"items": ["nothing"]}).status_code == 404


@pytest.mark.parametrize(
    "more",
    [{}, {"dial": 0.5, "diversity": 0.4}, {"category": "drums"}, {"exclude": ["item00001", "item00004", "nothing"]}],
)
def test_a_batch_is_its_single_answers(client, holder, more):
    users = [holder.service.model.users.id(n) for n in (5, 0, 1)] + ["nobody", holder.service.model.users.id(5)]
    batch = client.post("/v1/batch", json={"user_ids": users, "k": 4, **more}).json()["results"]
    assert [answer["user_id"] for answer in batch] == users
    alone = [client.get("/v1/recommend", params={"user_id": user, "k": 4, **more}).json() for user in users]
    for one, other in zip(batch, alone, strict=True):
        assert [item["item_id"] for item in one["items"]] == [item["item_id"] for item in other["items"]]
        assert one["fallback"] == other["fallback"]
        scores = [item["score"] for item in other["items"]]
        np.testing.assert_allclose([item["score"] for item in one["items"]], scores, rtol=1e-5)
    nobody = client.post("/v1/batch", json={"user_ids": ["nobody"], "k": 4, **more}).json()["results"]
    assert nobody[0]["items"] == batch[3]["items"]


def test_an_approximate_index_answers_large_catalogues_alike(client, folder, monkeypatch):
    assert (
        Holder(folder, approximate=True).service.about()["index"] == "exact"
    )  # for so few, looking at all is faster
    monkeypatch.setattr("symcere.serving.service.LARGE", 10)
    holder = Holder(folder, approximate=True)
    assert holder.service.about()["index"] == "approximate"
    near = client_of(holder, Limits(rate=0))
    for n in range(20):
        asked = {"user_id": holder.service.model.users.id(n), "k": 5}
        ids = [
            [item["item_id"] for item in each.get("/v1/recommend", params=asked).json()["items"]]
            for each in (client, near)
        ]
        assert ids[0] == ids[1]


def test_reasons_come_with_the_list_or_alone_and_sum_to_the_score(client, holder):
    user_id = holder.service.model.users.id(2)
    (item,) = client.get("/v1/recommend", params={"user_id": user_id, "k": 1, "why": True}).json()["items"]
    alone = client.get("/v1/explain", params={"user_id": user_id, "item_id": item["item_id"]}).json()
    assert item["why"] == alone
    assert sum(alone["parts"].values()) == pytest.approx(item["score"], abs=1e-4)
    assert client.get("/v1/explain", params={"user_id": "nobody", "item_id": item["item_id"]}).status_code == 404


def test_reasons_for_somebody_new_come_with_the_list_or_alone(client, holder):
    model = holder.service.model
    who = {"items": [model.items.id(place) for place in (1, 4)], "text": "a gasket of steel"}
    (item,) = client.post("/v1/recommend", json={**who, "k": 1, "why": True}).json()["items"]
    alone = client.post("/v1/explain", json={**who, "item_id": item["item_id"]})
    assert alone.status_code == 200
    assert item["why"] == alone.json()
    assert alone.json()["user_id"] == ""
    assert sum(alone.json()["parts"].values()) == pytest.approx(item["score"], abs=1e-4)
    assert {name for name, _, _ in alone.json()["because"]} <= set(who["items"])
    assert client.post("/v1/explain", json={"item_id": item["item_id"], "text": "zzz"}).status_code == 422
    assert client.post("/v1/explain", json={**who, "item_id": "nothing"}).status_code == 404
    (popular,) = client.post("/v1/recommend", json={"text": "zzz", "k": 1, "why": True}).json()["items"]
    assert "why" not in popular


def test_reasons_know_what_a_user_did_since(folder):
    holder = Holder(folder)
    client, model = client_of(holder, Limits(rate=0)), holder.service.model
    for user_id in (model.users.id(2), "newcomer"):
        holder.service.take(Event(user_id, model.items.id(7), None, "", "a gasket of steel"))
        items = client.get("/v1/recommend", params={"user_id": user_id, "k": 5, "why": True}).json()["items"]
        alone = [
            client.get("/v1/explain", params={"user_id": user_id, "item_id": item["item_id"]}).json()
            for item in items
        ]
        for item, reason in zip(items, alone, strict=True):
            assert item["why"] == reason
            assert reason["user_id"] == user_id
            assert sum(reason["parts"].values()) == pytest.approx(item["score"], abs=1e-4)
    assert {name for reason in alone for name, _, _ in reason["because"]} == {model.items.id(7)}
    assert {word for reason in alone for word, _ in reason["user_words"]} == {"gasket", "steel"}


@pytest.mark.parametrize("dial", [0.0, 2.0])
def test_reasons_are_those_of_the_score_at_the_dial_that_is_asked_for(client, holder, dial):
    model = holder.service.model
    user, item = model.users.id(1), model.items.id(2)
    for answer in (
        client.get("/v1/recommend", params={"user_id": user, "k": 2, "why": 1, "dial": dial}),
        client.post("/v1/recommend", json={"items": [item], "k": 2, "why": True, "dial": dial}),
    ):
        for found in answer.json()["items"]:
            assert found["why"]["score"] == pytest.approx(found["score"], abs=1e-5)
            assert sum(found["why"]["parts"].values()) == pytest.approx(found["score"], abs=1e-5)


def test_what_the_bundle_has_learned_from_is_not_folded_in_again(holder):
    bundle, train = holder.service.bundle, holder.service.bundle.explainer.learned.train
    user, item = train.users.id(int(train.user[0])), train.items.id(int(train.item[0]))
    when = train.review["timestamp"][0]
    learned = Event(user, item, text=train.review["text"][0], timestamp=when)
    later = dataclasses.replace(learned, timestamp=when + 1)
    stranger = dataclasses.replace(learned, user_id="nobody yet")
    gone = dataclasses.replace(learned, item_id="no such item")
    service = Service(bundle, [learned, later, stranger, gone])
    assert service.since == {user: (later,), "nobody yet": (stranger,)}
    assert Service(bundle, [learned]).for_user(user, Wish()) == holder.service.for_user(user, Wish())


def test_search_finds_ids_titles_categories_and_what_reviews_speak_of(client):
    found = client.get("/v1/search", params={"q": "USER0000", "k": 3}).json()
    assert len(found["users"]) == 3
    assert client.get("/v1/search", params={"q": "item00007"}).json()["items"][0]["item_id"] == "item00007"
    assert client.get("/v1/search", params={"q": "garden"}).json()["items"]
    assert len(client.get("/v1/search", params={"q": "gasket", "k": 5}).json()["by_text"]) == 5
    assert client.get("/v1/search", params={"q": "zzzz"}).json() == {"users": [], "items": [], "by_text": []}


def test_the_map_shows_the_most_popular_items_and_keeps_what_is_alike_together(client, holder):
    model = holder.service.model
    items = client.get("/v1/map", params={"k": 30}).json()["items"]
    best = np.argsort(-model.popularity, kind="stable")[:30]
    assert [item["item_id"] for item in items] == [model.items.id(int(item)) for item in best]
    xy = np.array([[item["x"], item["y"]] for item in items])
    assert np.abs(xy).max() <= 1
    emb = model.item_emb - model.item_emb.mean(0)
    u, size, _ = np.linalg.svd(emb, full_matrices=False)
    plane = (u * size)[best, :2]
    assert np.abs(np.corrcoef(np.concatenate([xy, plane], axis=1).T)[[0, 1], [2, 3]]).min() > 0.99


def test_items_and_similar_items(client, holder):
    known = client.get("/v1/items/item00003").json()
    assert (
        known["train_interactions"] == holder.service.model.popularity[holder.service.model.items.index("item00003")]
    )
    near = client.get("/v1/similar", params={"item_id": "item00003", "k": 4}).json()["items"]
    expected = holder.service.model.similar_items("item00003", 4)
    assert [item["item_id"] for item in near] == [item for item, _ in expected]


def test_an_item_is_found_by_an_id_of_any_characters(split, text, model, tmp_path):
    strange = ["music/drums", "/", "a/b\n", "a/b", "50% off?", "é ü", "a", "a\n", "b/"]
    items = IdMap((*strange, *model.items.ids[len(strange) :]), "item")
    train, model = dataclasses.replace(split.train, items=items), dataclasses.replace(model, items=items)
    sc.write_bundle(sc.Explainer.of(train, text, model, sc.tfidf_encoder(64)), sc.Items(), tmp_path / "b")
    client = client_of(Holder(tmp_path / "b"), Limits(rate=0))
    for item_id in strange:
        assert client.get(f"/v1/items/{quote(item_id, safe='')}").json().get("item_id") == item_id
    assert client.get("/v1/items/music/drums").json()["item_id"] == "music/drums"
    assert client.get("/v1/items/music/nothing").status_code == client.get("/v1/items/").status_code == 404
    assert 'path="/v1/items/{item_id}",status="200"' in client.get("/metrics").text


@pytest.mark.parametrize(
    ("status", "method", "path", "more"),
    [
        (404, "GET", "/v1/items/nothing", {}),
        (404, "GET", "/v1/nothing", {}),
        (404, "GET", "/v1/similar?item_id=nothing", {}),
        (405, "DELETE", "/v1/recommend", {}),
        (422, "GET", "/v1/recommend", {}),
        (422, "GET", "/v1/recommend?user_id=a&k=0", {}),
        (422, "GET", "/v1/recommend?user_id=a&k=101", {}),
        (422, "GET", "/v1/recommend?user_id=a&dial=nan", {}),
        (422, "GET", "/v1/recommend?user_id=a&dial=inf", {}),
        (422, "GET", "/v1/recommend?user_id=", {}),
        (422, "GET", "/v1/search?q=%20", {}),
        (422, "POST", "/v1/recommend", {"content": b"{not json", "headers": {"content-type": "application/json"}}),
        (422, "POST", "/v1/recommend", {"json": {"magic": 1, "text": "a"}}),
        (422, "POST", "/v1/recommend", {"json": {"text": "a", "diversity": True}}),
        (400, "POST", "/v1/recommend", {"content": b"\x19\xff{", "headers": {"content-type": "application/json"}}),
        (422, "POST", "/v1/recommend", {"json": {"text": "x" * 10_001}}),
        (422, "POST", "/v1/batch", {"json": {"user_ids": ["a"] * 257}}),
        (413, "POST", "/v1/recommend", {"content": b"x" * 70_000}),
        (413, "POST", "/v1/recommend", {"content": (b"x" * 10_000 for _ in range(8))}),
    ],
)
def test_every_error_has_one_shape(client, status, method, path, more):
    answer = client.request(method, path, **more)
    assert answer.status_code == status
    if status == 405:
        assert answer.headers["allow"] == "GET, POST"
    error = answer.json()["error"]
    assert error.keys() == {"code", "message"}
    assert error["message"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_hostile_inputs_are_never_a_fault_of_ours(client, holder):
    draws = np.random.default_rng(0)
    words = [
        "'; DROP TABLE",
        "../../etc/passwd",
        "\x00",
        "%00",
        "𝕳𝖎",
        HOSTILE,
        "a" * 400,
        "{{7*7}}",
        "nan",
        "-1",
        "‮",
        "\ud7ff",
    ]
    paths = [
        "/v1/recommend",
        "/v1/similar",
        "/v1/explain",
        "/v1/search",
        "/v1/items/x",
        "/../../pyproject.toml",
        "/%2e%2e/x",
    ]
    keys = ["user_id", "item_id", "q", "k", "dial", "category", "exclude", "diversity", "why"]
    for _ in range(300):
        some = draws.choice(keys, 4, replace=False)
        answer = client.get(str(draws.choice(paths)), params={key: words[draws.integers(len(words))] for key in some})
        assert answer.status_code < 500
        body = {
            str(key): words[draws.integers(len(words))] for key in draws.choice(["items", "text", "k", "dial"], 2)
        }
        assert client.post("/v1/recommend", json=body).status_code < 500
    assert client.get("/../../pyproject.toml").status_code == 404


def test_a_client_that_asks_too_often_waits(holder):
    client = client_of(holder, Limits(rate=2))
    statuses = [client.get("/v1/items/item00003").status_code for _ in range(8)]
    assert statuses[:4] == [200] * 4
    assert 429 in statuses
    refused = client.get("/v1/items/item00003")
    assert refused.headers["retry-after"] == "1"
    assert refused.json()["error"]["code"] == "too_many_requests"
    assert client.get("/health").status_code == 200


def test_a_body_has_one_time_limit_and_not_one_a_chunk(holder):
    app = create_app(holder, Limits(rate=0, seconds=0.1))
    headers = [(b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/v1/recommend", "query_string": b"", "headers": headers}
    body, sent = list(b'{"text": "a gasket of steel"}'), []

    async def receive():
        await asyncio.sleep(0.02)
        chunk = bytes([body.pop(0)])
        return {"type": "http.request", "body": chunk, "more_body": bool(body)}

    async def send(message):
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    assert sent[0]["status"] == 408
    assert json.loads(sent[1]["body"])["error"]["code"] == "request_timeout"
    assert body


def test_there_is_time_for_what_comes_after_a_body():
    messages, got = [{"type": "http.request"}, {"type": "http.disconnect"}], []

    async def receive():
        await asyncio.sleep(0.1 if got else 0)
        got.append(messages.pop(0))
        return got[-1]

    async def app(scope, receive, send):
        await receive()
        await receive()

    guard = Guard(app, Limits(seconds=0.05), None, CollectorRegistry())
    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    asyncio.run(guard(scope, receive, None))
    assert [message["type"] for message in got] == ["http.request", "http.disconnect"]


def test_health_is_told_also_while_every_thread_is_taken(holder):
    async def statuses():
        threads = anyio.to_thread.current_default_thread_limiter()
        threads.total_tokens = 1
        threads.acquire_on_behalf_of_nowait("somebody else")
        web = httpx.ASGITransport(create_app(holder, Limits(rate=0)))
        async with httpx.AsyncClient(transport=web, base_url="http://served") as client:
            with anyio.fail_after(2):
                return [(await client.get(path)).status_code for path in ("/health", "/ready")]

    assert asyncio.run(statuses()) == [200, 200]


def test_more_requests_in_hand_than_allowed_are_turned_away(holder):
    client = client_of(holder, Limits(concurrent=0, rate=0))
    assert client.get("/v1/items/item00003").status_code == 503
    assert client.get("/ready").status_code == 200


def test_a_token_is_wanted_where_there_is_one(holder):
    client = client_of(holder, Limits(rate=0), token="secret")
    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "secret"}):
        for path in ("/v1/items/item00003", "/metrics"):
            refused = client.get(path, headers=headers)
            assert refused.status_code == 401
            assert refused.headers["www-authenticate"] == "Bearer"
    assert client.get("/v1/items/item00003", headers={"authorization": "Bearer secret"}).status_code == 200
    assert client.get("/health").status_code == client.get("/").status_code == 200


def test_requests_are_counted_and_logged_without_what_was_asked(holder, caplog):
    client = client_of(holder, Limits(rate=0))
    with caplog.at_level(logging.INFO, logger="symcere.serving"):
        client.get("/v1/search", params={"q": "a private wish"})
    line = json.loads(caplog.messages[-1])
    assert line["path"] == "/v1/search"
    assert line["status"] == 200
    assert "private" not in caplog.text
    assert 'symcere_requests_total{path="/v1/search",status="200"} 1.0' in client.get("/metrics").text


def test_another_bundle_takes_its_place_and_a_broken_one_does_not(holder, folder, split, text, model, tmp_path):
    shutil.copytree(folder, tmp_path / "b")
    mine = Holder(tmp_path / "b")
    client = client_of(mine, Limits(rate=0))
    before = client.get("/ready").json()["bundle"]
    assert before == holder.service.about()["bundle"]
    sc.write_bundle(sc.Explainer.of(split.train, text, model, sc.tfidf_encoder(64)), sc.Items(), tmp_path / "b")
    assert mine.reload()
    after = client.get("/ready").json()["bundle"]
    assert after != before
    (tmp_path / "b" / "reviews.arrow").write_bytes(b"broken")
    assert not mine.reload()
    assert client.get("/ready").json()["bundle"] == after
    assert client.get("/v1/items/item00003").status_code == 200


def test_the_openapi_document_names_every_route(client):
    paths = client.get("/openapi.json").json()["paths"]
    (parameter,) = paths["/v1/items/{item_id}"]["get"]["parameters"]
    assert (parameter["name"], parameter["in"], parameter["schema"]["type"]) == ("item_id", "path", "string")
    assert {
        "/v1/recommend",
        "/v1/batch",
        "/v1/similar",
        "/v1/explain",
        "/v1/search",
        "/v1/items/{item_id}",
        "/health",
    } <= set(paths)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "or give --demo"),
        (["b", "--demo"], "or give --demo"),
        (["nowhere", "--port", "0"], "is no bundle"),
        (["b", "--host", "0.0.0.0"], "SYMCERE_TOKEN"),
    ],
)
def test_what_cannot_be_served_is_one_sentence(symcere, words, said):
    code, _, err = symcere("serve", *words)
    assert code == 2
    assert said in err.replace("\n", " ")


@pytest.mark.parametrize("large", [1, 10**6])
def test_the_command_says_so_where_approximate_changes_nothing(symcere, folder, monkeypatch, large):
    monkeypatch.setattr("uvicorn.Server.run", lambda _, sockets: None)
    monkeypatch.setattr("symcere.serving.service.LARGE", large)
    signals = signal.getsignal(signal.SIGHUP)
    code, _, err = symcere("serve", folder, "--approximate", "--port", "0")
    signal.signal(signal.SIGHUP, signals)
    assert code == 0
    assert f"Serving {folder}" in err
    assert ("items are looked at, also with --approximate" in err) == (large > 1)


@pytest.mark.parametrize("listens", [True, False])
def test_a_port_that_is_taken_is_one_sentence_and_nothing_is_served(symcere, folder, monkeypatch, listens):
    """Also where both are bound already, and the other is the first to listen."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", 0))
        if listens:
            other.listen()
        else:
            monkeypatch.setattr("symcere.serving.app.Holder.__init__", _also(Holder.__init__, other.listen))
        at = other.getsockname()[1]
        signals = signal.getsignal(signal.SIGHUP)
        code, out, err = symcere("serve", folder, "--port", at)
        signal.signal(signal.SIGHUP, signals)
    said = f"Error Port {at} of 127.0.0.1 is taken (Address already in use). Choose another with --port.\n"
    assert (code, out, err) == (2, "", said)


def _also(call, other):
    def both(*words, **more):
        other()
        return call(*words, **more)

    return both


def test_an_address_of_somebody_else_is_one_sentence(symcere, folder, monkeypatch):
    monkeypatch.setenv("SYMCERE_TOKEN", "secret")
    code, _, err = symcere("serve", folder, "--host", "192.0.2.1", "--port", "0")
    assert code == 2
    assert "cannot be listened at" in err
    assert "--host" in err


def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture
def served(folder, tmp_path):
    """The command itself, in a process of its own."""
    import httpx

    at = port()
    with (tmp_path / "log").open("w") as log:
        command = [sys.executable, "-m", "symcere", "serve", str(folder), "--port", str(at), "--rate", "0"]
        process = subprocess.Popen(command, stderr=log, stdout=log, cwd=tmp_path)
    for _ in range(200):
        time.sleep(0.1)
        try:
            httpx.get(f"http://127.0.0.1:{at}/health")
            break
        except httpx.HTTPError:
            assert process.poll() is None, (tmp_path / "log").read_text()
    yield process, f"http://127.0.0.1:{at}"
    process.kill()
    process.wait()


@pytest.mark.slow
def test_the_command_serves_reloads_and_ends_gracefully_without_torch(served):
    import httpx

    process, url = served
    maps = Path(f"/proc/{process.pid}/maps")
    assert httpx.get(f"{url}/v1/recommend", params={"user_id": "user00001"}).status_code == 200
    if maps.exists():
        assert "libtorch" not in maps.read_text()
    for _ in range(3):
        os.kill(process.pid, signal.SIGHUP)
        assert [httpx.get(f"{url}/v1/items/item00003").status_code for _ in range(20)] == [200] * 20
    process.terminate()
    assert process.wait(20) in (0, -signal.SIGTERM)


@pytest.mark.slow
def test_the_page_works_in_a_browser_and_shows_strangers_words_as_words(served):
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium")
    if not chromium:
        pytest.skip("no chromium: apt-get install chromium")
    _, url = served
    said, asked = [], []
    with api.sync_playwright() as play:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
        browser = play.chromium.launch(executable_path=chromium, args=flags)
        view = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme="dark")
        view.on("console", lambda message: said.append(message.text))
        view.on("pageerror", lambda error: said.append(str(error)))
        view.on("request", lambda request: asked.append(request.url))
        view.goto(url)
        view.fill("#words", "user00001")
        view.keyboard.press("Enter")
        view.wait_for_selector(".card")
        assert view.locator(".card").count() == 12
        assert HOSTILE in view.locator(".card h2").first.inner_text()
        view.locator(".card button").first.click()
        view.wait_for_selector(".why .parts")
        assert view.locator(".card button").first.get_attribute("aria-expanded") == "true"
        first = view.locator(".card h2").all_inner_texts()
        view.evaluate("dial.value = -0.5; dial.dispatchEvent(new Event('input'))")
        view.locator("#said", has_text="dial -0.5").wait_for()
        assert view.locator(".card h2").all_inner_texts() != first
        view.check("input[value=text]")
        view.fill("#words", "a gasket of steel")
        view.click("button[type=submit]")
        view.locator("#said", has_text="12 recommendations").wait_for()
        view.locator(".card button").first.click()
        view.wait_for_selector(".why .parts")
        view.check("input[value=items]")
        view.fill("#words", "no such thing at all")
        view.click("button[type=submit]")
        view.wait_for_selector("#said.error")
        view.locator("summary").click()
        view.wait_for_selector("#map circle")
        before = view.locator("#map").get_attribute("viewBox")
        view.click("#closer")
        assert view.locator("#map").get_attribute("viewBox") != before
        view.locator("#map circle").first.dispatch_event("pointerdown")
        view.locator("#map circle").first.dispatch_event("pointerup")
        view.locator("#said", has_text="12 recommendations").wait_for()
        assert view.locator("#map circle.on").count() == 12
        assert view.evaluate("document.documentElement.scrollWidth") <= 390
        assert view.title() == "SymCERE: recommendations that say why"
        browser.close()
    assert said == []
    assert all(each.startswith((url, "data:")) for each in asked)


def test_lines_are_found_as_a_loop_finds_them():
    texts = ["Alpha", "", "beta\nalpha", "ALPHAbet ALPHA", "gamma", "al", "pha"]
    lines = _Lines(texts)
    for words in ("alpha", "a", "al", "pha", "gamma", "nothing", "beta alpha"):
        expected = [place for place, text in enumerate(texts) if words in text.casefold().replace("\n", " ")]
        assert lines.containing(words, 10) == expected
        assert lines.containing(words, 1) == expected[:1]
    assert lines.containing("alpha\n\nbeta", 10) == []
    assert _Lines([]).containing("a", 3) == []
