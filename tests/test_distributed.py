"""On Ray: what one machine gives, from many files, and a sentence where it cannot."""

import contextlib
import dataclasses
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

import symcere as sc
from symcere.data.filters import MinRating, Period, Sample
from symcere.data.ingest import Ingestion, ingest_reviews, load_reviews
from symcere.data.kcore import KCore
from symcere.distributed import cluster as cluster_module
from symcere.distributed import connected, encode_reviews, fit, ingest, measure_test, read_table, recommend_all
from symcere.distributed.cluster import _connect
from symcere.distributed.storage import Storage, fetched, files_of
from symcere.distributed.train import dealt_anew
from symcere.errors import ClusterError, ConfigError, DataError
from symcere.evaluation.compare import measure_test as measure_here
from symcere.graph import norm_adj, shard_of
from symcere.training.adam import Adam
from symcere.workers import Workers
from test_fusion import NOISY, long_histories, noise_of  # noqa: F401  a fixture

pytestmark = pytest.mark.filterwarnings("ignore")  # of Ray and what it brings along


@pytest.fixture(scope="module")
def cluster():
    ray = pytest.importorskip("ray", reason="needs the extra: pip install 'symcere[ray]'")
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import tests
    with connected("local", 2) as connection:
        yield connection


def _files(folder: Path, seed: int = 0, n: int = 4_000, n_files: int = 3) -> Path:
    """Files of reviews with copies, repeated pairs, rows without an id, and ratings that are none."""
    draws = np.random.default_rng(seed)
    rows = {
        "user_id": [f"u{each}" if each else "" for each in draws.integers(0, 300, n)],
        "item_id": [f"i{each}" for each in draws.zipf(1.3, n) % 90],
        "rating": [str(each) if each < 6 else "many" for each in draws.integers(1, 7, n)],
        "timestamp": [str(each) if each % 5 else None for each in draws.integers(10**9, 10**9 + 500, n)],
        "title": [f"title {each}" for each in draws.integers(0, 40, n)],
        "text": [f"word{each} word{each % 7} strap" if each % 11 else "" for each in draws.integers(0, 400, n)],
    }
    table = pl.DataFrame(rows)
    table = pl.concat([table, table[draws.integers(0, n, n // 10)]])
    folder.mkdir()
    for number, cut in enumerate(np.array_split(np.arange(len(table)), n_files)):
        table[cut].write_ndjson(folder / f"part-{number}.jsonl")
    return folder


def _here(raw: Path, folder: Path, filters) -> sc.Reviews:
    folder.mkdir()
    return load_reviews(folder, ingest_reviews(Ingestion(raw, filters=filters), folder))


def _core(raw: str, out: str, filters):
    return ingest(raw, out, filters=filters)


FILTERS = {
    "none": (),
    "all": (MinRating(2), Period("2001-09-09", "2001-09-10"), Sample(0.8, 3), KCore(3, 4)),
    "core first": (KCore(4), Sample(0.9)),
}


@pytest.mark.slow
def test_feedback_stands_beside_other_files_and_items_of_nobody_are_none_on_ray_as_here(cluster, tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    rows = [f"u{n % 9},i{n % 4},5,word{n},Title {n % 4}" for n in range(40)]
    lost = [",ghost,5,nobody,Ghost"]
    (raw / "old.csv").write_text("\n".join(["user_id,item_id,rating,text,item_title", *rows, *lost]))
    (raw / "since.jsonl").write_text('{"user_id": "u1", "item_id": "new", "rating": 4, "text": "since"}\n')
    here = _here(raw, tmp_path / "here", ())
    cluster.run("ingest", _core, str(raw), str(tmp_path / "there"), ())
    there = read_table(str(tmp_path / "there"))
    assert there.table.sort("user_id", "item_id").equals(here.table.sort("user_id", "item_id"))
    assert there.source == here.source == "csv"
    titled = [set(each.items.table.filter(pl.col("title") != "")["item_id"]) for each in (here, there)]
    assert titled == [{"i0", "i1", "i2", "i3"}] * 2


@pytest.mark.slow
@pytest.mark.parametrize("name", FILTERS)
def test_many_files_on_ray_are_the_table_that_one_machine_makes(cluster, tmp_path, name):
    raw = _files(tmp_path / "raw")
    here = _here(raw, tmp_path / "here", FILTERS[name])
    manifest = cluster.run("ingest", _core, str(raw), str(tmp_path / "there"), FILTERS[name])
    there = read_table(str(tmp_path / "there"))
    assert there.table.equals(here.table)
    assert there.steps == here.steps
    assert manifest["n_without_text"] == here.n_without_text
    assert manifest["n_without_time"] == here.n_without_time
    assert there.source == here.source
    names = [file.name for file in (tmp_path / "there").iterdir()]
    assert not [left for left in names if left.startswith("raw-")]
    for split in (sc.split_random, sc.split_leave_last_out) if not here.n_without_time else (sc.split_random,):
        ours, theirs = split(here), split(read_table(str(tmp_path / "there"), words=False))
        assert ours.train.user.tobytes() == theirs.train.user.tobytes()
        assert ours.train.item.tobytes() == theirs.train.item.tobytes()
        assert ours.test.item.tobytes() == theirs.test.item.tobytes()
        assert ours.train.items == theirs.train.items


@pytest.mark.slow
def test_a_folder_is_made_once_and_never_read_before_it_is_whole(cluster, tmp_path):
    raw, out = _files(tmp_path / "raw"), str(tmp_path / "out")
    first = cluster.run("ingest", _core, str(raw), out, (KCore(3),))
    age = (tmp_path / "out" / "reviews-00000.parquet").stat().st_mtime_ns
    assert cluster.run("ingest", _core, str(raw), out, (KCore(3),)) == first
    assert (tmp_path / "out" / "reviews-00000.parquet").stat().st_mtime_ns == age
    (tmp_path / "out" / "manifest.json").unlink()
    with pytest.raises(DataError, match="not a whole one"):
        read_table(out)
    assert cluster.run("ingest", _core, str(raw), out, (KCore(3),))["files"] == first["files"]


@pytest.mark.slow
def test_what_one_machine_refuses_is_refused_in_the_same_sentence(cluster, tmp_path):
    raw = _files(tmp_path / "raw", n=300)
    with pytest.raises(DataError) as here:
        _here(raw, tmp_path / "here", (KCore(50),))
    with pytest.raises(DataError) as there:
        cluster.run("ingest", _core, str(raw), str(tmp_path / "out"), (KCore(50),))
    assert str(there.value) == str(here.value)
    (raw / "part-1.jsonl").write_text('{"user_id": broken\n')
    with pytest.raises(DataError, match=r"part-1\.jsonl"):
        cluster.run("ingest", _core, str(raw), str(tmp_path / "out"), ())
    with pytest.raises(DataError, match="Check the address"):
        cluster.run("ingest", _core, str(tmp_path / "nowhere"), str(tmp_path / "out"), ())


@pytest.fixture(scope="module")
def table(cluster, tmp_path_factory):
    """A table on Ray, and the same reviews here."""
    folder = tmp_path_factory.mktemp("table")
    raw = _files(folder / "raw")
    here = _here(raw, folder / "here", (KCore(3),))
    cluster.run("ingest", _core, str(raw), str(folder / "there"), (KCore(3),))
    return str(folder / "there"), here


@pytest.mark.slow
def test_a_damaged_part_is_found_by_whoever_reads_it(cluster, tmp_path):
    raw, url = _files(tmp_path / "raw"), str(tmp_path / "out")
    made = cluster.run("ingest", _core, str(raw), url, (KCore(3),))
    train = sc.split_random(read_table(url, words=False)).train
    part = tmp_path / "out" / "reviews-00001.parquet"
    whole = part.read_bytes()
    part.write_bytes((tmp_path / "out" / "reviews-00000.parquet").read_bytes())  # reads well, and is another
    for read in (lambda: read_table(url, words=False), lambda: cluster.run("read", read_table, url)):
        with pytest.raises(DataError, match=r"reviews-00001\.parquet is damaged"):
            read()
    with pytest.raises(DataError, match=r"reviews-00001\.parquet is damaged"):
        cluster.run("encode", _encode, train, url, (sc.tfidf_encoder(4),), {})
    assert cluster.run("ingest", _core, str(raw), url, (KCore(3),)) == made
    assert part.read_bytes() == whole


def _length(texts):
    return [[len(text), text.count("strap"), 1.0] for text in texts]


def _encode(train, url, encoders, how):
    return encode_reviews(train, url, *encoders, **how)


@pytest.mark.slow
@pytest.mark.parametrize("cold", [False, True])
def test_profiles_are_those_of_one_machine(cluster, table, cold):
    url, here = table
    split = sc.split_cold_items if cold else sc.split_random
    ours, theirs = split(here), split(read_table(url, words=False))
    encoders = (sc.tfidf_encoder(16), sc.lift_encoder(16), sc.function_encoder(_length, version="1"))
    how = {"parts": ("title", "body"), "weightings": (sc.Recency(30),)}
    mine = sc.encode_reviews(ours.train, *encoders, **how)
    made = cluster.run("encode", _encode, theirs.train, url, encoders, how)
    np.testing.assert_allclose(made.user, mine.user, atol=1e-6)
    np.testing.assert_allclose(made.item, mine.item, atol=1e-6)
    assert made.encoder == mine.encoder
    assert not made.own


@pytest.mark.slow
def test_what_needs_all_texts_at_once_is_refused(cluster, table, tmp_path):
    url, here = table
    train = sc.split_random(here).train
    with pytest.raises(ConfigError, match="recency and helpfulness"):
        cluster.run("encode", _encode, train, url, (sc.tfidf_encoder(4),), {"weightings": (sc.InverseFrequency(),)})
    vectors = tmp_path / "vectors.npy"
    np.save(vectors, np.ones((len(here), 3), dtype=np.float32))
    here.table.select("user_id", "item_id").write_csv(tmp_path / "vectors.keys.csv")
    with pytest.raises(ConfigError, match="read text"):
        cluster.run("encode", _encode, train, url, (sc.precomputed(vectors),), {})


def _fit(train, text, valid, how):
    return fit(train, text, valid=valid, **how)


SETTINGS = sc.SymcereSettings(dim=8, max_epochs=6, batch_size=256)


@pytest.fixture(scope="module")
def fitted(table):
    _, here = table
    split = sc.split_random(here)
    text = sc.encode_reviews(split.train, sc.tfidf_encoder(16))
    return split, text, sc.fit(split.train, text, valid=split.valid, settings=SETTINGS)


@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 2])
def test_a_fit_on_ray_is_a_fit_here(cluster, fitted, tmp_path, n):
    split, text, model = fitted
    how = {"storage": str(tmp_path), "settings": SETTINGS, "n_workers": n}
    made = cluster.run("fit", _fit, split.train, text, split.valid, how)
    np.testing.assert_allclose(made.user_emb, model.user_emb, atol=0 if n == 1 else 1e-4)
    assert made.popularity_weight == model.popularity_weight
    ndcg = [np.mean(measure_here(each, split, [sc.ndcg(10)])["ndcg@10"]) for each in (made, model)]
    assert ndcg[0] == pytest.approx(ndcg[1], abs=1e-3)
    again = cluster.run("fit", _fit, split.train, text, split.valid, how)
    np.testing.assert_array_equal(again.user_emb, made.user_emb)


@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 2])
def test_what_valid_chose_is_learned_on_ray_as_it_is_here(cluster, fitted, tmp_path, n):
    split, text, _ = fitted
    how = {"storage": str(tmp_path), "settings": SETTINGS, "n_workers": n}
    for chosen in (sc.Chosen(4, 0.6, 0.5), sc.Chosen(3, 0.6, 0.5)):  # each is a fit of its own in the same storage
        made = cluster.run("fit", _fit, split.train, text, chosen, how)
        here = sc.fit(split.train, text, valid=chosen, settings=SETTINGS)
        np.testing.assert_allclose(made.user_emb, here.user_emb, atol=0 if n == 1 else 1e-4)
        assert (made.popularity_weight, made.towers.text_times) == (0.6, 0.5)
        assert made.seen.nnz == len(split.train)


@pytest.mark.slow
def test_what_text_is_in_the_way_of_is_learned_once_more_on_ray_as_it_is_here(cluster, long_histories, tmp_path):  # noqa: F811
    split, text = long_histories, noise_of(long_histories)
    how = {"storage": str(tmp_path), "settings": NOISY, "n_workers": 2}
    made = cluster.run("fit", _fit, split.train, text, split.valid, how)
    here = sc.fit(split.train, text, valid=split.valid, settings=NOISY)
    assert made.towers.apart
    assert (made.towers.about, made.popularity_weight) == (here.towers.about, here.popularity_weight)
    np.testing.assert_allclose(made.user_emb, here.user_emb, atol=1e-4)


@pytest.mark.slow
def test_support_pairs_are_not_ranked_after_a_fit_on_ray_either(cluster, table, tmp_path):
    _, here = table
    split = sc.split_cold_items(here)
    text = sc.encode_reviews(split.train, sc.tfidf_encoder(16))
    model = sc.fit(split.train, text, valid=split.valid, settings=SETTINGS)
    how = {"storage": str(tmp_path), "settings": SETTINGS, "n_workers": 1}
    made = cluster.run("fit", _fit, split.train, text, split.valid, how)
    assert len(split.train.support)
    np.testing.assert_array_equal(made.seen.toarray(), model.seen.toarray())
    np.testing.assert_array_equal(made.user_emb, model.user_emb)
    assert made.popularity_weight == model.popularity_weight


@pytest.mark.slow
def test_a_fit_whose_worker_is_killed_ends_where_it_would_have(cluster, fitted, tmp_path):
    split, text, _ = fitted
    settings = SETTINGS.model_copy(update={"max_epochs": 24, "patience": 24})
    how = {"settings": settings, "n_workers": 2, "every": 0.5}
    whole = cluster.run("fit", _fit, split.train, text, split.valid, how | {"storage": str(tmp_path / "whole")})
    killed = []

    def kill():
        while not killed:
            if list(tmp_path.glob("killed/*/checkpoints/checkpoint_*")):
                killed.extend(_workers()[:1])
                for pid in killed:
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)

    threading.Thread(target=kill, daemon=True).start()
    made = cluster.run("fit", _fit, split.train, text, split.valid, how | {"storage": str(tmp_path / "killed")})
    assert killed
    np.testing.assert_array_equal(made.user_emb, whole.user_emb)


def _workers():
    """Processes that fit."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                name = (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if name.startswith(b"ray::") and b"RayTrainWorker" in name:
                found.append(int(folder.name))
    return found


@pytest.mark.slow
def test_a_diverging_fit_says_so_and_more_workers_than_processors_too(cluster, fitted, tmp_path):
    split, text, _ = fitted
    text = dataclasses.replace(text, user=text.user * np.float32(1e30), item=text.item * np.float32(1e30))
    settings = sc.SymcereSettings(dim=8, learning_rate=1.0, unit=False, max_epochs=30)
    with pytest.raises(ConfigError):
        cluster.run(
            "fit",
            _fit,
            split.train,
            text,
            split.valid,
            {"storage": str(tmp_path), "settings": settings, "n_workers": 2},
        )
    with pytest.raises(ClusterError, match="fewer workers"):
        cluster.run("fit", _fit, split.train, text, split.valid, {"storage": str(tmp_path), "n_workers": 99})


@pytest.mark.slow
def test_rankings_and_measures_of_all_users_are_those_of_one_machine(cluster, fitted, tmp_path):
    split, _, model = fitted
    values, theirs = (
        measure_here(model, split, sc.standard_measures()),
        cluster.run("measure", measure_test, model, split, sc.standard_measures()),
    )
    assert values.keys() == theirs.keys()
    for label in values:
        np.testing.assert_array_equal(theirs[label], values[label])
    manifest = cluster.run("recommend", recommend_all, model, str(tmp_path / "all"), 5)
    listed = pl.concat([pl.read_parquet(tmp_path / "all" / name) for name in manifest["files"]])
    assert manifest["n_users"] == len(model.users)
    for user in model.users.ids[:20]:
        rows = listed.filter(pl.col("user_id") == user).sort("rank")
        expected = model.recommend(user, 5)
        assert rows["item_id"].to_list() == [item for item, _ in expected]
        np.testing.assert_allclose(rows["score"].to_numpy(), [score for _, score in expected], rtol=1e-6)


def _reversed(texts):
    raise DataError("This encoder reads nothing.")


@pytest.mark.slow
def test_an_error_on_a_node_arrives_as_it_was_raised(cluster, table):
    url, here = table
    train = sc.split_random(here).train
    with pytest.raises(DataError, match="This encoder reads nothing"):
        cluster.run("encode", _encode, train, url, (sc.function_encoder(_reversed, version="1"),), {})


@pytest.mark.parametrize("refused", [2, 99])
def test_a_head_that_answers_is_asked_again(monkeypatch, refused):
    ray = pytest.importorskip("ray", reason="needs the extra: pip install 'symcere[ray]'")
    asked = []

    def init(*_, **__):
        asked.append(1)
        if len(asked) <= refused:
            raise ConnectionAbortedError("Initialization failure from server:")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(cluster_module, "_PAUSE", 0)
    if refused > 5:
        with pytest.raises(ConfigError, match="No Ray answers"):
            _connect("ray://nowhere:1", None)
        assert len(asked) == 5
    else:
        _connect("ray://somewhere:1", None)
        assert len(asked) == 3


def test_workers_without_a_ray_are_refused(symcere):
    code, _, error = symcere("--workers", 2, "run", "nothing.json")
    assert code == 2
    assert "--on local" in error


@pytest.mark.slow
def test_from_outside_a_cluster_a_run_is_the_same(symcere, tmp_path):
    pytest.importorskip("grpc", reason="needs the extra: pip install 'symcere[ray]'")
    port, client_port = _free_ports(2)
    env = os.environ | {"RAY_AUTH_MODE": "disabled"}
    head = ["start", "--head", f"--port={port}", f"--ray-client-server-port={client_port}", "--num-cpus=2",
            "--include-dashboard=false", "--disable-usage-stats", "--block"]  # fmt: skip
    words = ["run", str(_files(tmp_path / "raw", n=2_000, n_files=2)), "--k-core", "3", "--systems", "popularity",
             "--set", "max_epochs=2", "--quiet", "--encoder", "tfidf", "--text-dim", "8"]  # fmt: skip
    assert symcere(*words, "--out", tmp_path / "here", "--cache", tmp_path / "cache")[0] == 0
    bin_ = Path(sys.executable).parent
    with subprocess.Popen(
        [bin_ / "ray", *head], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as ray:
        try:
            on = [bin_ / "symcere", "--on", f"ray://127.0.0.1:{client_port}", *words, "--out", tmp_path / "there"]
            for _ in range(20):  # until the head answers
                done = subprocess.run(on, env=env, check=False, capture_output=True, text=True)
                if "No Ray answers" not in done.stderr:
                    break
                time.sleep(1)
        finally:
            ray.terminate()
    assert done.returncode == 0, done.stderr
    here, there = ((tmp_path / side / "per_user.csv").read_bytes() for side in ("here", "there"))
    assert here == there


def _free_ports(n):
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(n)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def test_a_storage_is_whole_or_not_there(tmp_path):
    for url in (str(tmp_path / "folder"), "memory://folder"):
        storage = Storage(url)
        assert storage.names() == []
        assert storage.manifest() is None
        sha = storage.write("a.bin", b"words")
        assert storage.read("a.bin") == b"words"
        storage.finish("key", {"note": "n"}, {"a.bin": sha})
        assert storage.manifest("key")["note"] == "n"
        assert storage.manifest("another") is None
        storage.write("a.bin", b"other")
        assert storage.manifest() is None
        storage.remove("a.bin")
        storage.remove("a.bin")
        with pytest.raises(DataError, match="cannot be read"):
            storage.read("a.bin")
    with pytest.raises(ConfigError, match="cannot be opened"):
        Storage("nosuch://folder").names()


def test_files_are_found_behind_paths_and_addresses(tmp_path):
    (tmp_path / "b.json").write_text("b")
    (tmp_path / "a.json").write_text("a")
    (tmp_path / ".hidden").write_text("h")
    assert files_of(str(tmp_path)) == [f"{tmp_path}/a.json", f"{tmp_path}/b.json"]
    assert files_of(f"{tmp_path}/a.json") == [f"{tmp_path}/a.json"]
    Storage("memory://raw").write("c.json", b"c")
    assert files_of("memory://raw") == ["memory://raw/c.json"]
    assert files_of("memory://raw/c.json") == ["memory://raw/c.json"]
    with fetched("memory://raw/c.json") as path:
        assert path.name == "c.json"
        assert path.read_bytes() == b"c"
    with fetched(f"{tmp_path}/a.json") as path:
        assert path == tmp_path / "a.json"
    with pytest.raises(DataError, match="no file and no folder"):
        files_of(str(tmp_path / "nowhere"))


def test_rows_are_dealt_anew_when_another_number_of_workers_goes_on():
    train = sc.split_random(sc.k_core(sc.anchoring_world(60, 30, 5).reviews, 2)).train
    adj = norm_adj(train.user, train.item, len(train.users), len(train.items))
    ego = torch.arange(adj.n_nodes, dtype=torch.float32)[:, None]

    def state(rank, size):
        own = shard_of(adj, Workers(rank, size)).own
        optimiser = Adam([torch.nn.Parameter(ego[own]), torch.nn.Parameter(torch.ones(2))], 0.1)
        optimiser.restore(
            {
                "mean": [ego[own] * 2, torch.ones(2)],
                "square": [ego[own] * 3, torch.ones(2)],
                "steps": [torch.tensor(4.0)] * 2,
            }
        )
        return {"parameters": [ego[own], torch.ones(2)], "optimiser": optimiser.state()}

    before = [state(rank, 3) for rank in range(3)]
    for rank in range(2):
        made = dealt_anew(before, train, Workers(rank, 2))
        expected = state(rank, 2)
        assert torch.equal(made["parameters"][0], expected["parameters"][0])
        assert torch.equal(made["parameters"][1], torch.ones(2))
        for name in ("mean", "square", "steps"):
            for one, other in zip(made["optimiser"][name], expected["optimiser"][name], strict=True):
                assert torch.equal(one, other)


@pytest.mark.slow
def test_a_run_on_ray_writes_what_a_run_here_writes(symcere, tmp_path):
    pytest.importorskip("ray", reason="needs the extra: pip install 'symcere[ray]'")
    raw = _files(tmp_path / "raw", n=3_000, n_files=2)
    words = [
        "run",
        str(raw),
        "--k-core",
        "3",
        "--systems",
        "popularity",
        "--set",
        "max_epochs=3",
        "--quiet",
        "--json",
    ]
    more = ["--cache", str(tmp_path / "cache"), "--encoder", "tfidf", "--text-dim", "16"]
    assert symcere(*words, *more, "--out", tmp_path / "here")[0] == 0
    assert symcere("--on", "local", *words, *more, "--out", tmp_path / "there")[0] == 0
    for name in ("train", "valid", "test", "users", "items"):
        (here,), (there,) = (
            list((tmp_path / side / "stages").glob(f"split-*/{name}.arrow")) for side in ("here", "there")
        )
        assert here.read_bytes() == there.read_bytes()
    here, there = ((tmp_path / side / "per_user.csv").read_bytes() for side in ("here", "there"))
    assert here == there
