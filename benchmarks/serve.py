"""How fast is the service, and does it keep what it says?

    python benchmarks/serve.py topk [--items 1e6] [--implicit PYTHON]
    python benchmarks/serve.py http [--items 2e5] [--requests 100000]
    python benchmarks/serve.py kills [--rounds 200]
    python benchmarks/serve.py recall FILE...

topk: exact top-10 of one taste and of 64 against all items, against the seconds to read the matrix once at the
bandwidth measured beside it; PYTHON is an interpreter with implicit. http: saturation and latency over loopback at
half of it, of a bundle of that size. kills: a writer of feedback is killed at random moments; every event that
was acknowledged must be there. recall: of what the exact index finds, the share that the approximate one finds,
on vectors of real text (the sentences of all files stand for items, each with the popularity of its item, and users'
profiles are the tastes), and on the items of SymCERE fitted to each file.
"""

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import json
import random
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np

from symcere.index.search import ApproximateIndex, Index
from symcere.ranking import top_k
from symcere.recommender import unit_rows

DIM, K = 64, 10
IMPLICIT = """
import sys, time, json
import numpy as np, scipy.sparse as sp
from implicit.cpu.als import AlternatingLeastSquares
items = np.load(sys.argv[1])
taste = np.load(sys.argv[2])
model = AlternatingLeastSquares(factors=items.shape[1], num_threads=1)
model.item_factors, model.user_factors = items, taste
seen = sp.csr_matrix((len(taste), len(items)), dtype=np.float32)
found, seconds = [], []
for user in range(len(taste)):
    began = time.perf_counter()
    ids, _ = model.recommend(user, seen[user], N=10, filter_already_liked_items=False)
    seconds.append(time.perf_counter() - began)
    found.append(ids.tolist())
print(json.dumps({"seconds": sorted(seconds)[len(seconds) // 2], "found": found}))
"""


def median(work: Callable[[], object], repeats: int = 9) -> float:
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def topk(n_items: int, implicit: str | None) -> None:
    draws = np.random.default_rng(0)
    items = draws.normal(size=(n_items, DIM)).astype(np.float32)
    tastes = draws.normal(size=(64, DIM)).astype(np.float32)
    flat, index = items.reshape(-1), Index(items, np.zeros(n_items, dtype=np.float32))
    hidden = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    built = median(index.prepare, 1)
    read = median(lambda: np.add.reduce(flat))  # one pass over the matrix, nothing written
    product = median(lambda: items @ tastes[0])
    compared = median(lambda: top_k((items @ tastes[0])[None], K))
    each = iter(tastes)
    one = median(lambda: index.best(next(each)[None], 0.0, K, hidden), len(tastes))
    many = median(lambda: index.best(tastes, 0.0, K, hidden))
    both = median(lambda: index.best(tastes, 0.0, K, hidden, n_threads=2))
    all_scores = median(lambda: top_k(tastes @ items.T, K), 3)
    exact = top_k(tastes @ items.T, K)
    same = np.mean(index.best(tastes, 0.0, K, hidden)[0] == exact)
    print(f"{n_items:,} x {DIM}: {items.nbytes / read / 1e9:.1f} GB/s read; reading once {read * 1e3:.1f} ms")
    same = min(
        same, np.mean([index.best(tastes[row : row + 1], 0.0, K, hidden)[0] == exact[row] for row in range(64)])
    )
    print(f"rounding to four and eight bits, once: {built:.2f} s; same items at the same places {same:.0%}")
    print(
        f"one taste: product {product * 1e3:.1f} ms, all compared {compared * 1e3:.1f} ms, "
        f"index {one * 1e3:.1f} ms, {one / read:.2f} x reading (bar 1.5)"
    )
    print(
        f"64 tastes: all compared {all_scores * 1e3:.1f} ms, index {many * 1e3:.1f} ms, by two threads "
        f"{both * 1e3:.1f} ms: {64 * compared / many:.1f} and {64 * compared / both:.1f} x the throughput of "
        f"one taste compared with all (bar 10), {64 * one / many:.1f} and {64 * one / both:.1f} x that of one "
        "by the index"
    )
    if implicit:
        with tempfile.TemporaryDirectory() as folder:
            np.save(f"{folder}/items.npy", items)
            np.save(f"{folder}/tastes.npy", tastes)
            command = [implicit, "-c", IMPLICIT, f"{folder}/items.npy", f"{folder}/tastes.npy"]
            theirs = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        same = np.mean([set(a) == set(b) for a, b in zip(theirs["found"], exact.tolist(), strict=True)])
        print(f"implicit {theirs['seconds'] * 1e3:.1f} ms, {theirs['seconds'] / one:.1f} x ours; equal {same:.0%}")


def bundle_of(n_items: int, folder: Path) -> None:
    """A bundle of the wanted size, fitted for one epoch on a made world of short texts."""
    import polars as pl

    import symcere as sc
    from symcere.data.dataset import REVIEW, Dataset, HeldOut
    from symcere.data.typed import SCHEMA
    from symcere.ids import IdMap

    draws, n_users = np.random.default_rng(0), n_items // 10
    pairs = np.unique(draws.integers(0, n_users * n_items, n_items * 3 // 2))
    user, item = np.divmod(draws.permutation(pairs), n_items)
    users, items = (
        IdMap(tuple(f"{kind}{n}" for n in range(size)), kind) for kind, size in (("user", n_users), ("item", n_items))
    )
    words = np.array("oem gasket steel brass bolt torque leather strap reverb pedal string amp".split())
    order = np.lexsort((item[1_000:], user[1_000:]))
    texts = [" ".join(row) for row in words[draws.integers(0, len(words), (len(order), 3))]]
    columns = {name: pl.Series([None] * len(order), dtype=SCHEMA[name]) for name in REVIEW}
    columns |= {"title": pl.Series([""] * len(order)), "text": pl.Series(texts)}
    train = Dataset(users, items, user[1_000:][order], item[1_000:][order], pl.DataFrame(columns))
    valid = HeldOut(users, items, user[:1_000], item[:1_000])
    text = sc.encode_reviews(train, sc.tfidf_encoder(8))
    model = sc.fit(train, text, valid=valid, settings=sc.SymcereSettings(max_epochs=1, batch_size=8_192, mask="none"))
    sc.write_bundle(sc.Explainer.of(train, text, model, sc.tfidf_encoder(8)), sc.Items(), folder)


class Load:
    """Threads with a connection each that ask for random users."""

    def __init__(self, port: int, n_users: int, threads: int = 8) -> None:
        self.port, self.n_users, self.threads = port, n_users, threads

    def run(self, requests: int, interval: float | None) -> tuple[float, list[float], int]:
        """Ask so often; with an interval, one each so many seconds, and answers count from when they were due."""
        import http.client
        import threading

        seconds: list[float] = []
        errors = [0]
        begin = time.perf_counter() + 0.1

        def ask(thread: int) -> None:
            draws = random.Random(thread)
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
            for number in range(thread, requests, self.threads):
                due = begin + number * interval if interval else time.perf_counter()
                time.sleep(max(0.0, due - time.perf_counter()))
                try:
                    connection.request("GET", f"/v1/recommend?user_id=user{draws.randrange(self.n_users)}&k=10")
                    answer = connection.getresponse()
                    answer.read()
                    errors[0] += answer.status != 200
                except OSError:
                    errors[0] += 1
                    connection.close()
                seconds.append(time.perf_counter() - due)

        workers = [threading.Thread(target=ask, args=(n,)) for n in range(self.threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return requests / (time.perf_counter() - begin), seconds, errors[0]


def http(n_items: int, requests: int) -> None:
    import socket

    with tempfile.TemporaryDirectory() as folder:
        bundle_of(n_items, Path(folder) / "b")
        with closing(socket.socket()) as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "symcere", "serve", f"{folder}/b", "--port", str(port), "--rate", "0"]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as server:
            try:
                for _ in range(600):
                    time.sleep(0.1)
                    with closing(socket.socket()) as probe:
                        if probe.connect_ex(("127.0.0.1", port)) == 0:
                            break
                load = Load(port, n_items // 10)
                load.run(500, None)
                rss = [_rss(server.pid)]
                most, seconds, errors = load.run(min(requests, 4_000), None)
                print(
                    f"{n_items:,} items: {most:.0f} requests/s at saturation, median "
                    f"{1e3 * statistics.median(seconds):.1f} ms, {errors} errors"
                )
                _, seconds, errors = load.run(requests, 2 / most)
                rss.append(_rss(server.pid))
                cuts = statistics.quantiles(seconds, n=100)
                print(
                    f"at half of it, {requests:,} requests: p50 {1e3 * cuts[49]:.1f}, p95 {1e3 * cuts[94]:.1f}, "
                    f"p99 {1e3 * cuts[98]:.1f} ms, {errors} errors"
                )
                print(f"memory of the server {rss[0]:.0f} MiB before, {rss[1]:.0f} MiB after")
            finally:
                server.terminate()


def _rss(pid: int) -> float:
    words = Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()
    return int(words[0]) / 1024


def kills(rounds: int) -> None:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from tests.test_feedback import acknowledged_after_a_kill

    draws, lost, total = random.Random(0), 0, 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store.db"
        for _ in range(rounds):
            told = acknowledged_after_a_kill(path, draws.uniform(0, 0.15))
            with closing(sqlite3.connect(path)) as store:
                there = {number for (number,) in store.execute("SELECT id FROM events")}
            total, lost = total + len(told), lost + len(set(told) - there)
    print(f"{rounds} kills, {total:,} acknowledged events, {lost} lost")


def recall(files: list[str]) -> None:
    import re

    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    import symcere as sc

    sentences: dict[str, tuple[int, str]] = {}
    for file in files:
        reviews = sc.k_core(sc.read_reviews(file), 3)
        degree = dict(reviews.table.group_by("item_id").len().iter_rows())
        for user, item, text in reviews.table.select("user_id", "item_id", "text").iter_rows():
            for sentence in re.split(r"(?<=[.!?])\s+", text):
                if len(sentence) > 20:
                    sentences.setdefault(sentence, (degree[item], file + user))
        split = sc.split_random(reviews)
        model = sc.fit(split.train, sc.encode_reviews(split.train, sc.tfidf_encoder(128)), valid=split.valid)
        tastes = model.tastes(np.arange(min(len(model.users), 500)))
        recalled(Path(file).name, model.item_emb, model.log_popularity, tastes, model.temperature)
    counts = TfidfVectorizer(sublinear_tf=True, min_df=3, stop_words="english").fit_transform(sentences)
    emb = TruncatedSVD(DIM, random_state=0).fit_transform(counts).astype(np.float32)
    owner = np.unique([user for _, user in sentences.values()], return_inverse=True)[1]
    profiles = np.zeros((owner.max() + 1, DIM), dtype=np.float32)
    emb = unit_rows(emb)
    np.add.at(profiles, owner, emb)
    popularity = np.log1p(np.array([degree for degree, _ in sentences.values()], dtype=np.float32))
    draws = np.random.default_rng(0)
    tastes = 5 * unit_rows(profiles[draws.choice(len(profiles), 500, replace=False)])
    for n in (50_000, 200_000, len(emb)):
        some = draws.permutation(len(emb))[:n]
        recalled("sentences", emb[some], popularity[some], tastes, 0.2)


def recalled(name: str, emb: np.ndarray, popularity: np.ndarray, tastes: np.ndarray, temperature: float) -> None:
    """Print recall and milliseconds of both indexes at two dials."""
    exact = Index(emb, popularity)
    nothing = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    linked = ApproximateIndex(emb, popularity, 0.3 * temperature)
    began = time.perf_counter()
    linked.prepare(2)
    built = time.perf_counter() - began
    for dial in (0.0, 0.3):
        least = exact.best(tastes, dial, K, nothing)[1][:, -1:]  # what it takes to be among the best, ties included
        ms = []
        for index in (exact, linked):
            began = time.perf_counter()
            found = np.concatenate([index.best(taste[None], dial, K, nothing)[1] for taste in tastes])
            ms.append(1e3 * (time.perf_counter() - began) / len(tastes))
        share = np.mean(found >= least - 1e-5)
        print(
            f"{name}, {len(emb):,} items, dial {dial}: recall {share:.4f}; exact {ms[0]:.2f} ms, approximate "
            f"{ms[1]:.2f} ms, linked in {built:.0f} s",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["topk", "http", "kills", "recall"])
    parser.add_argument("files", nargs="*")
    parser.add_argument("--items", type=float, default=None)
    parser.add_argument("--implicit", default=None, help="an interpreter with implicit")
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=200)
    given = parser.parse_args()
    if given.what == "topk":
        topk(int(given.items or 1e6), given.implicit)
    elif given.what == "recall":
        recall(given.files)
    elif given.what == "kills":
        kills(given.rounds)
    else:
        http(int(given.items or 2e5), given.requests)


if __name__ == "__main__":
    main()
