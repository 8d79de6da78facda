"""Feedback: kept before it counts, folded in at once, there after any kill, and read by the next training."""

import random
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import numpy as np
import pytest
from tests.test_serving import client_of

import symcere as sc
from symcere.errors import OutputError
from symcere.serving.app import Holder
from symcere.serving.feedback import Event, Feedback
from symcere.serving.guard import Limits
from symcere.serving.service import Service, Wish


@pytest.fixture(scope="module")
def folder(split, text, model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fed") / "bundle"
    sc.write_bundle(sc.Explainer.of(split.train, text, model, sc.tfidf_encoder(64)), sc.Items(), folder)
    return folder


@pytest.fixture
def client(folder, tmp_path):
    return client_of(Holder(folder, Feedback(tmp_path / "store.db")), Limits(rate=0))


def test_what_a_user_does_changes_what_they_get_at_once(client):
    before = client.get("/v1/recommend", params={"user_id": "user00001", "k": 5}).json()["items"]
    first = before[0]["item_id"]
    answer = client.post("/v1/feedback", json={"user_id": "user00001", "item_id": first, "text": "a gasket of steel"})
    assert answer.json() == {"number": 1}
    after = client.get("/v1/recommend", params={"user_id": "user00001", "k": 5}).json()["items"]
    assert first not in [item["item_id"] for item in after]
    assert [item["score"] for item in after] != [item["score"] for item in before[1:]]


def test_an_unknown_user_is_known_from_the_first_event_on(client):
    ask = {"user_id": "somebody new", "k": 3}
    assert client.get("/v1/recommend", params=ask).json()["fallback"]
    client.post("/v1/feedback", json={"user_id": "somebody new", "item_id": "item00003"})
    found = client.get("/v1/recommend", params=ask).json()
    assert found["fallback"] is None
    by_item = client.post("/v1/recommend", json={"items": ["item00003"], "k": 3}).json()["items"]
    assert found["items"] == by_item


def test_a_user_without_new_events_folds_into_their_own_vector(folder, split):
    bundle = sc.open_bundle(folder)
    learned = bundle.explainer.learned
    for user in (0, 9):
        folded = bundle.taste(user_id=bundle.model.users.id(user))
        assert np.abs(folded - learned.final[user]).max() < 1e-4


def test_events_are_there_after_a_new_start_and_a_reload(folder, tmp_path):
    store = tmp_path / "store.db"
    first = Holder(folder, Feedback(store))
    first.keep(Event("user00001", "item00003"))
    second = Holder(folder, Feedback(store))
    assert second.service.since.keys() == {"user00001"}
    assert second.reload()
    wish = Wish(k=5)
    assert second.service.for_user("user00001", wish) == first.service.for_user("user00001", wish)


def test_events_of_items_that_a_bundle_lacks_are_kept_and_not_folded(folder, tmp_path):
    store = Feedback(tmp_path / "store.db")
    store.add(Event("user00001", "gone from the catalogue"))
    assert Service(sc.open_bundle(folder), store).since == {}


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, {"user_id": "a", "item_id": "nothing"}),
        (422, {"user_id": "a"}),
        (422, {"user_id": "a", "item_id": "item00003", "rating": "nan"}),
        (422, {"user_id": "a", "item_id": "item00003", "text": "x" * 10_001}),
        (422, {"user_id": "a", "item_id": "item00003", "more": 1}),
    ],
)
def test_what_does_not_fit_is_not_kept(client, status, body):
    assert client.post("/v1/feedback", json=body).status_code == status


def test_a_service_without_a_store_takes_none(folder):
    answer = client_of(Holder(folder), Limits(rate=0)).post(
        "/v1/feedback", json={"user_id": "a", "item_id": "item00003"}
    )
    assert answer.status_code == 422
    assert "--feedback" in answer.json()["error"]["message"]


def test_a_file_that_is_no_store_is_refused(tmp_path):
    (tmp_path / "text").write_text("not a database, but long enough to be looked at" * 40)
    with pytest.raises(OutputError, match="cannot keep feedback"):
        Feedback(tmp_path / "text")
    with closing(sqlite3.connect(tmp_path / "other.db")) as other:
        other.execute("CREATE TABLE events (x)")
    with pytest.raises(OutputError, match="cannot keep feedback"):
        Feedback(tmp_path / "other.db")


def test_the_next_training_reads_what_was_kept(tmp_path, symcere):
    store = Feedback(tmp_path / "store.db")
    events = [
        Event(f"u{n % 6}", f"i{n % 7}", 4.0, "ein Titel", f"steel «{n}»\nbolt", 1_700_000_000 + n) for n in range(42)
    ]
    assert [store.add(event) for event in events] == list(range(1, 43))
    assert list(store) == events
    code, out, err = symcere("feedback", tmp_path / "store.db", "--out", "since.jsonl")
    assert code == 0, err
    assert "42 events" in out
    table = sc.read_reviews(tmp_path / "since.jsonl").table
    assert table.height == 42
    assert set(table["text"]) == {event.text for event in events}
    assert table["timestamp"].min() == 1_700_000_000
    code, _, err = symcere("feedback", "nowhere.db", "--out", "x.jsonl")
    assert code == 2
    assert "is not there" in err


WRITE = """
import sys
from symcere.serving.feedback import Event, Feedback
from pathlib import Path
store = Feedback(Path(sys.argv[1]))
n = 0
while True:
    number = store.add(Event(f"user{n}", "item", 5.0, "", "words " * 50))
    print(number, flush=True)
    n += 1
"""


def acknowledged_after_a_kill(path, wait):
    """Numbers that a writer was told before it was killed."""
    command = [sys.executable, "-c", WRITE, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        told = [int(writer.stdout.readline())]
        time.sleep(wait)
        writer.kill()
        return told + [int(line) for line in writer.stdout.read().split("\n")[:-1]]


@pytest.mark.slow
def test_an_event_that_was_acknowledged_survives_any_kill(tmp_path):
    draws = random.Random(0)
    path = tmp_path / "store.db"
    last = 0
    for _ in range(12):
        told = acknowledged_after_a_kill(path, draws.uniform(0, 0.08))
        assert told[0] > last
        last = told[-1]
        with closing(sqlite3.connect(path)) as store:
            there = {number for (number,) in store.execute("SELECT id FROM events")}
            assert store.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert set(told) <= there
