"""Feedback: kept before it counts, folded in at once, there after any kill, and read by the next training."""

import os
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from tests.test_serving import client_of

import symcere as sc
from symcere.errors import ConfigError, OutputError, UnknownIdError
from symcere.ids import IdMap
from symcere.serving.app import Holder
from symcere.serving.feedback import Event, Feedback, export
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


def writer_to(pipe):
    """The writing end of a named pipe, once somebody reads."""
    for _ in range(2_000):
        try:
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            time.sleep(0.005)
    raise AssertionError("Nobody reads.")


def reloaded_while(holder, act, content=None):
    """What a reload that waits for its manifest returned, what `act` did meanwhile, and whether it was in time.

    The manifest is a named pipe, slow as a slow disk; what comes out of it at last is `content`, or what it held.
    """
    manifest = holder.folder / "manifest.json"
    real = manifest.read_bytes()
    manifest.unlink()
    os.mkfifo(manifest)
    with ThreadPoolExecutor(2) as threads:
        reload = threads.submit(holder.reload)
        pipe = writer_to(manifest)
        acting = threads.submit(act)
        in_time = bool(wait([acting], timeout=1).done)
        manifest.unlink()
        manifest.write_bytes(real)
        os.write(pipe, real if content is None else content)
        os.close(pipe)
        return reload.result(), acting.result(), in_time


def items_since(holder):
    return [event.item_id for event in holder.service.since["user00001"]]


@pytest.mark.parametrize("content", [None, b"broken"])
def test_a_reload_holds_up_no_feedback_and_folds_each_event_in_once(folder, tmp_path, content):
    shutil.copytree(folder, tmp_path / "bundle")
    holder = Holder(tmp_path / "bundle", Feedback(tmp_path / "store.db"))
    client = client_of(holder, Limits(rate=0))

    def tell(item_id):
        client.post("/v1/feedback", json={"user_id": "user00001", "item_id": item_id})
        return items_since(holder)

    first, second, third = holder.service.model.items.ids[:3]
    tell(first)
    told = reloaded_while(holder, lambda: tell(second), content)
    assert told == (content is None, [first, second], True)
    assert tell(third) == [first, second, third]
    assert holder.reload()
    assert items_since(holder) == [first, second, third]
    assert items_since(Holder(folder, Feedback(tmp_path / "store.db"))) == [first, second, third]


def test_an_event_during_a_reload_is_kept_also_where_the_new_bundle_lacks_its_item(split, text, model, tmp_path):
    gone, stays = model.items.ids[:2]
    for name, items in (("old", model.items), ("new", IdMap(("another", *model.items.ids[1:]), "item"))):
        train, same = replace(split.train, items=items), replace(model, items=items)
        explainer = sc.Explainer.of(train, text, same, sc.tfidf_encoder(64))
        sc.write_bundle(explainer, sc.Items(), tmp_path / name)
    store = Feedback(tmp_path / "store.db")
    holder = Holder(tmp_path / "old", store)
    holder.folder = tmp_path / "new"
    events = [Event("user00001", item_id) for item_id in (gone, stays)]
    assert reloaded_while(holder, lambda: [holder.keep(event) for event in events]) == (True, [1, 2], True)
    assert items_since(holder) == [stays]
    with pytest.raises(UnknownIdError):
        holder.keep(events[0])
    assert len(list(store)) == 2


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


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("journal", ["DELETE", "WAL"])
def test_what_is_no_store_is_left_as_it_is(tmp_path, symcere, journal):
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("not a database, but long enough to be looked at" * 40)
    with closing(sqlite3.connect(tmp_path / "theirs.db")) as theirs:
        theirs.execute(f"PRAGMA journal_mode={journal}")
        theirs.execute("CREATE TABLE orders (x)")
    before = contents(tmp_path)
    for name in before:
        code, out, err = symcere("feedback", name, "--out", "since.jsonl")
        assert (code, out) == (2, "")
        assert f"{name} holds no feedback" in err
    for name in ("text", "theirs.db"):
        with pytest.raises(OutputError, match="cannot keep feedback"):
            Feedback(tmp_path / name)
    assert contents(tmp_path) == before
    with closing(Feedback(tmp_path / "empty")) as store:
        assert store.add(Event("a", "b")) == 1


def test_a_store_is_read_while_it_is_in_use_and_stays_as_it_is(tmp_path):
    path, link = tmp_path / "kept" / "store #1?.db", tmp_path / "link.db"
    with closing(Feedback(path)) as store:
        store.add(Event("a", "b"))
        link.symlink_to(path)
        before = contents(path.parent)["store #1?.db"]
        assert export(path, tmp_path / "since.jsonl") == export(link, tmp_path / "since.jsonl") == 1
        assert store.add(Event("a", "c")) == 2
        assert contents(path.parent)["store #1?.db"] == before
    after = contents(path.parent)
    assert export(path, tmp_path / "since.jsonl") == export(link, tmp_path / "since.jsonl") == 2
    assert contents(path.parent) == after
    assert after.keys() == {"store #1?.db"}


def test_a_damaged_store_is_a_sentence(tmp_path):
    path = tmp_path / "store.db"
    with closing(Feedback(path)) as store:
        for n in range(200):
            store.add(Event(f"user{n}", "item", 5.0, "", "words " * 50))
    whole = path.read_bytes()
    path.write_bytes(whole[:8_192] + b"\xff" * (len(whole) - 8_192))
    with pytest.raises(ConfigError, match="holds no feedback that can be read"):
        export(path, tmp_path / "since.jsonl")


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


def test_a_store_is_not_written_over_by_its_own_export(tmp_path):
    Feedback(tmp_path / "store.db").add(Event("ann", "strap"))
    with pytest.raises(sc.ConfigError, match="is the store itself"):
        export(tmp_path / "store.db", tmp_path / "store.db")
    assert export(tmp_path / "store.db", tmp_path / "since.jsonl") == 1
