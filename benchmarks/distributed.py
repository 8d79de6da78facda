"""Does Ray give what one machine gives, at what cost, and whatever dies on the way?

    python benchmarks/distributed.py equal FILE@K     splits, features, rankings, NDCG@10 beside one machine
    python benchmarks/distributed.py overhead         one worker beside the plain run  [--reviews 1e6] [--epochs 10]
    python benchmarks/distributed.py scale            1, 2 and 4 workers, and what they send  [--reviews 3e5]
    python benchmarks/distributed.py rates            what a review costs, for docs/cost.md  [--reviews 1e6]
    python benchmarks/distributed.py kills            a worker killed in each stage  [--rounds 20] [--only STAGE]
    python benchmarks/distributed.py nodes | full | heads    a node lost, a full object store, the head killed

Needs the extra: pip install "symcere[ray]". Everything runs on this machine, on loopback.
"""

import argparse
import contextlib
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # loopback, and nodes that come later must agree

import json
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import ray

import symcere as sc
from symcere.data.ingest import Ingestion, ingest_reviews, load_reviews
from symcere.data.kcore import KCore
from symcere.distributed.cluster import Cluster, connected
from symcere.distributed.encode import encode_reviews
from symcere.distributed.ingestion import ingest, read_table
from symcere.distributed.rank import measure_test, recommend_all
from symcere.distributed.storage import Storage
from symcere.distributed.train import without_words
from symcere.distributed.verbs import _fit
from symcere.errors import SymcereError
from symcere.evaluation.compare import measure_test as measure_here

SETTINGS = sc.SymcereSettings(max_epochs=6, valid_every=3)


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    made = work()
    return time.perf_counter() - began, made


def world(n: int, folder: Path, files: int = 4) -> Path:
    """Reviews of a made-up world, in several files."""
    at = folder / "raw"
    at.mkdir()
    whole = folder / "whole.parquet"
    sc.write_world(whole, n, n_users=n // 8, n_items=max(n // 40, 20), seed=0)
    table = pl.read_parquet(whole)
    whole.unlink()
    size = -(-len(table) // files)
    for number in range(files):
        table[number * size : (number + 1) * size].write_parquet(at / f"part-{number}.parquet")
    return at


def plain_ingest(raw: Path, k: int, folder: Path) -> Any:
    folder.mkdir(parents=True)
    return load_reviews(folder, ingest_reviews(Ingestion(raw, filters=[KCore(k)]), folder))


def ingest_core(raw: str, out: str, k: int) -> Any:
    return ingest(raw, out, filters=[KCore(k)])


def same(a: Any, b: Any) -> dict[str, Any]:
    return {"user": float(np.abs(a.user - b.user).max()), "item": float(np.abs(a.item - b.item).max())}


def equal(word: str) -> None:
    name, _, k = word.rpartition("@")
    raw, core = Path(name).resolve(), int(k)
    with tempfile.TemporaryDirectory() as temporary, connected("local", 2) as cluster:
        folder = Path(temporary)
        here = plain_ingest(raw, core, folder / "here")
        manifest = cluster.run("ingest", ingest_core, str(raw), str(folder / "there"), core)
        there = read_table(str(folder / "there"))
        steps = list(manifest["steps"]) == here.summary()
        say(f"table equal: {there.table.equals(here.table)}, steps equal: {steps}")
        ours, theirs = sc.split_random(here), sc.split_random(read_table(str(folder / "there"), words=False))
        parts = ((ours.train, theirs.train), (ours.valid, theirs.valid), (ours.test, theirs.test))
        pairs = all(
            getattr(a, side).tobytes() == getattr(b, side).tobytes() for a, b in parts for side in ("user", "item")
        )
        say(f"splits equal to the byte: {pairs}, ids too: {ours.train.users == theirs.train.users}")
        encoders = sc.default_encoders(len(ours.train))
        text = sc.encode_reviews(ours.train, *encoders)
        text2 = cluster.run("encode", encode_reviews, theirs.train, str(folder / "there"), *encoders)
        say(f"features, greatest difference: {same(text, text2)}")
        model = sc.fit(ours.train, text, valid=ours.valid)
        values = measure_here(model, ours, sc.standard_measures())
        again = cluster.run("measure", measure_test, model, theirs, sc.standard_measures())
        equal_ = all(np.array_equal(values[label], again[label]) for label in values)
        say(f"measures of the same model equal: {equal_}")
        for n in (1, 2):
            model2 = fit_on(cluster, theirs, text2, str(folder / f"fit{n}"), n, sc.SymcereSettings())
            both = (model, model2)
            ndcg = [float(np.mean(measure_here(each, ours, [sc.ndcg(10)])["ndcg@10"])) for each in both]
            apart = np.abs(model.user_emb - model2.user_emb).max()
            lists = sum(
                [i for i, _ in model.recommend(user, 10)] == [i for i, _ in model2.recommend(user, 10)]
                for user in ours.train.users.ids
            )
            say(f"{n} worker(s): NDCG@10 {ndcg[0]:.5f} here, {ndcg[1]:.5f} there; vectors differ by {apart:.1e}")
            say(f"{n} worker(s): {lists:,} of {len(ours.train.users):,} users have the same ten in the same order")


def fit_on(
    cluster: Cluster,
    split: Any,
    text: Any,
    storage: str,
    n: int,
    settings: Any,
    tell: Callable[[Any], None] = lambda _: None,
    **more: Any,
) -> Any:
    how = {"storage": storage, "settings": settings, "n_workers": n, **more}
    return cluster.run("fit", _fit, without_words(split.train), split.valid, text, how, tell=tell)


def overhead(n: int, epochs: int) -> None:
    """Each stage of one worker of one processor beside the same in this process."""
    settings = sc.SymcereSettings(max_epochs=epochs, valid_every=epochs)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        raw = world(n, folder)
        began = time.perf_counter()
        with connected("local", 1) as cluster:
            cluster.run("warm", nothing)
            say(f"start of Ray: {time.perf_counter() - began:.1f} s")
            warm(cluster, folder)
            total = [0.0, 0.0]

            def both(stage: str, here: Callable[[], Any], there: Callable[[], Any]) -> Any:
                (plain, made), (on_ray, _) = seconds(here), seconds(there)
                total[0] += plain
                total[1] += on_ray
                say(f"{stage}: here {plain:.1f} s, Ray {on_ray:.1f} s, {on_ray / plain:.2f} x")
                return made

            here = both(
                "ingest",
                lambda: plain_ingest(raw, 5, folder / "here"),
                lambda: cluster.run("ingest", ingest_core, str(raw), str(folder / "there"), 5),
            )
            split = sc.split_random(here)
            wordless = sc.split_random(read_table(str(folder / "there"), words=False))
            say(f"{len(here):,} reviews, {len(split.train.users):,} users, {len(split.train.items):,} items")
            encoder = sc.tfidf_encoder(128)
            text = both(
                "encode",
                lambda: sc.encode_reviews(split.train, encoder),
                lambda: cluster.run("encode", encode_reviews, wordless.train, str(folder / "there"), encoder),
            )
            model = both(
                "fit",
                lambda: sc.fit(split.train, text, valid=split.valid, settings=settings),
                lambda: fit_on(cluster, split, text, str(folder / "fit"), 1, settings),
            )
            measures = sc.standard_measures()
            both(
                "measure",
                lambda: measure_here(model, split, measures),
                lambda: cluster.run("measure", measure_test, model, wordless, measures),
            )
            say(f"all: here {total[0]:.1f} s, Ray {total[1]:.1f} s, {total[1] / total[0]:.2f} x")


def nothing() -> None:
    """What costs nothing."""


def warm(cluster: Cluster, folder: Path) -> None:
    """Let workers import what they will need: start-up, stated apart."""
    took, _ = seconds(lambda: small_run(cluster, folder / "warm"))
    say(f"first run of everything on 2,000 reviews (imports of workers, Ray Train's start): {took:.1f} s")


def small_run(cluster: Cluster, folder: Path) -> None:
    folder.mkdir()
    raw = world(2_000, folder, 1)
    cluster.run("ingest", ingest_core, str(raw), str(folder / "t"), 3)
    split = sc.split_random(read_table(str(folder / "t"), words=False))
    text = cluster.run("encode", encode_reviews, split.train, str(folder / "t"), sc.tfidf_encoder(8))
    model = fit_on(cluster, split, text, str(folder / "f"), 1, sc.SymcereSettings(max_epochs=1))
    cluster.run("measure", measure_test, model, split, [sc.ndcg(10)])


def scaled(cluster: Cluster, raw: Path, at: Path, n_workers: int) -> tuple[dict[str, float], Any, Any]:
    """Seconds of each stage, the split, and what the workers told of themselves."""
    table, settings = str(at / "table"), sc.SymcereSettings(max_epochs=3, valid_every=3)
    took = {"ingest": seconds(lambda: cluster.run("ingest", ingest_core, str(raw), table, 5))[0]}
    split = sc.split_random(read_table(table, words=False))
    encoder = sc.tfidf_encoder(64)
    took["encode"], text = seconds(lambda: cluster.run("encode", encode_reviews, split.train, table, encoder))
    epochs: list[Any] = []
    model = fit_on(cluster, split, text, str(at / "fit"), n_workers, settings, tell=epochs.append)
    took["epoch"] = statistics.median(len(split.train) / each.interactions_per_second for each in epochs)
    out = str(at / "r")
    took["recommend_all"], _ = seconds(lambda: cluster.run("recommend", recommend_all, model, out, 10))
    (folder,) = (at / "fit").iterdir()
    return took, split, json.loads((folder / "told.json").read_text())


def scale(n: int) -> None:
    """1, 2 and 4 workers on this machine."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        raw = world(n, folder, 8)
        base: dict[str, float] = {}
        for n_workers in (1, 2, 4):
            at = folder / f"w{n_workers}"
            at.mkdir()
            with connected("local", n_workers) as cluster:
                small_run(cluster, at / "warm")
                took, split, told = scaled(cluster, raw, at, n_workers)
            base = base or took
            each = ", ".join(f"{stage} {s:.1f} s ({base[stage] / s:.2f} x)" for stage, s in took.items())
            say(f"{n_workers} workers: {each}; sent {told['sent_bytes'] / 2**20:,.0f} MiB")
        train, settings = split.train, sc.SymcereSettings(max_epochs=3, valid_every=3)
        nodes = len(train.users) + len(train.items)
        n_batches = -(-len(train) // settings.batch_size)
        steps = 3 * -(-n_batches // settings.batches_per_step(len(train)))
        once = nodes * settings.dim * 4 / 2**20
        propagated = steps * 2 * settings.n_layers * once
        say(
            f"{len(train):,} train interactions, {nodes:,} nodes, {n_batches} batches and {steps // 3} steps an epoch"
        )
        say(f"computed: tables {propagated:,.0f} MiB in 3 epochs (each row given once a layer, there and back)")


def running() -> Iterator[tuple[int, str]]:
    """Processes of Ray that are at work."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                name = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                if name.startswith("ray::") and "IDLE" not in name:
                    yield int(folder.name), name


class Killer(threading.Thread):
    """Kills one process whose name holds a word, within some seconds of the first time that one is seen."""

    def __init__(self, words: tuple[str, ...], within: float, draws: random.Random) -> None:
        super().__init__(daemon=True)
        self.words, self.wait, self.draws = words, draws.uniform(0, within), draws
        self.killed, self.over = "", threading.Event()

    def run(self) -> None:
        """Wait, and kill."""
        while not self.over.is_set():
            if self.seen():
                break
            time.sleep(0.02)
        time.sleep(self.wait)
        found = self.seen()
        if found and not self.over.is_set():
            pid, name = self.draws.choice(found)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                self.killed = name

    def seen(self) -> list[tuple[int, str]]:
        """Who could be killed now."""
        return [(pid, name) for pid, name in running() if any(word in name for word in self.words)]


def kills(rounds: int, only: str) -> None:
    """Kill a worker in each stage; the stage must end with what it gives undisturbed, or say that it did not."""
    draws = random.Random(0)
    with tempfile.TemporaryDirectory() as temporary, connected("local", 2) as cluster:
        folder = Path(temporary)
        raw = world(60_000, folder, 6)
        table = str(folder / "table")
        first = cluster.run("ingest", ingest_core, str(raw), table, 5)["files"]
        split = sc.split_random(read_table(table, words=False))
        encoder = sc.tfidf_encoder(32)
        text = cluster.run("encode", encode_reviews, split.train, table, encoder)
        model = fit_on(cluster, split, text, str(folder / "fit"), 2, SETTINGS)
        listed = cluster.run("recommend", recommend_all, model, str(folder / "all"), 10)["files"]

        def ingest_again(at: Path) -> bool:
            return bool(cluster.run("ingest", ingest_core, str(raw), str(at), 5)["files"] == first)

        def encode_again(at: Path) -> bool:  # noqa: ARG001
            made = cluster.run("encode", encode_reviews, split.train, table, encoder)
            return max(same(text, made).values()) < 1e-6

        def fit_again(at: Path) -> bool:
            made = fit_on(cluster, split, text, str(at), 2, SETTINGS, every=1.0)
            return bool(
                np.array_equal(made.user_emb, model.user_emb) and made.popularity_weight == model.popularity_weight
            )

        def list_again(at: Path) -> bool:
            return bool(cluster.run("recommend", recommend_all, model, str(at), 10)["files"] == listed)

        stages = {
            "ingest": (
                ingest_again,
                ("read_file", "gather", "numbered", "clean", "peel", "places", "write_part", "ingest"),
                3.0,
            ),
            "encode": (
                encode_again,
                ("MapWorker", "_keys", "_raw", "_sum_block", "_profiles", "encode_reviews"),
                4.0,
            ),
            "fit": (fit_again, ("RayTrainWorker", "_work"), 12.0),
            "recommend_all": (list_again, ("MapWorker", "recommend_all"), 1.5),
        }
        for stage, (again, words, within) in stages.items():
            if only and stage not in only:
                continue
            tally = {"killed": 0, "same": 0, "wrong": 0, "said so, same when asked again": 0, "lost": 0}
            round_ = -1
            while tally["killed"] < rounds and round_ < 3 * rounds:
                round_ += 1
                at = folder / f"{stage}-{round_}"
                killer = Killer(words, within, draws)
                killer.start()
                try:
                    good = again(at)
                    tally["same" if good else "wrong"] += 1
                except SymcereError as error:
                    say(f"{stage}: {str(error)[:160]}")
                    tally["said so, same when asked again" if again(at) else "lost"] += 1
                killer.over.set()
                killer.join()
                tally["killed"] += bool(killer.killed)
                shutil.rmtree(at, ignore_errors=True)
                say(f"{stage}, {round_ + 1} rounds: {tally}")


def nodes(rounds: int, only: str) -> None:
    """Two raylets beside the head, of which one dies in the middle of an ingestion, or of a fit."""
    from ray.cluster_utils import Cluster as Raylets

    draws = random.Random(1)
    raylets = Raylets(initialize_head=True, head_node_args={"num_cpus": 0})
    standing = [raylets.add_node(num_cpus=1), raylets.add_node(num_cpus=1)]
    with tempfile.TemporaryDirectory() as temporary, connected(raylets.address) as cluster:
        folder = Path(temporary)
        raw, table = world(60_000, folder, 6), str(folder / "table")
        expected = cluster.run("ingest", ingest_core, str(raw), table, 5)["files"]
        split = sc.split_random(read_table(table, words=False))
        text = cluster.run("encode", encode_reviews, split.train, table, sc.tfidf_encoder(32))
        settings = SETTINGS
        model = fit_on(cluster, split, text, str(folder / "fit"), 1, settings)

        def ingest_again(at: str) -> bool:
            return bool(cluster.run("ingest", ingest_core, str(raw), at, 5)["files"] == expected)

        def fit_again(at: str) -> bool:
            made = fit_on(cluster, split, text, at, 1, settings, every=1.0)
            return bool(np.array_equal(made.user_emb, model.user_emb))

        for stage, again, within in (("ingest", ingest_again, 1.0), ("fit", fit_again, 20.0)):
            if only and stage not in only:
                continue
            tally = {"same": 0, "wrong": 0, "said so, same when asked again": 0}
            for round_ in range(rounds):
                at = str(folder / f"{stage}-{round_}")
                lost = standing.pop(draws.randrange(2))
                timer = threading.Timer(draws.uniform(0, within), raylets.remove_node, (lost, False))
                timer.start()
                try:
                    tally["same" if again(at) else "wrong"] += 1
                except SymcereError as error:
                    say(f"{stage}: {str(error)[:160]}")
                    tally["said so, same when asked again" if again(at) else "wrong"] += 1
                timer.join()
                standing.append(raylets.add_node(num_cpus=1))
                shutil.rmtree(at, ignore_errors=True)
                say(f"a node lost in {stage}, {round_ + 1} rounds: {tally}")
    raylets.shutdown()


def full_store(rounds: int) -> None:
    """An object store of 80 MiB, for more than that."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        raw = world(300_000, folder, 6)
        with connected("local", 2) as cluster:
            expected = cluster.run("ingest", ingest_core, str(raw), str(folder / "table"), 5)["files"]
            split = sc.split_random(read_table(str(folder / "table"), words=False))
            text = cluster.run("encode", encode_reviews, split.train, str(folder / "table"), sc.tfidf_encoder(64))
        tally = {"ingest same": 0, "encode same": 0, "wrong": 0}
        for round_ in range(rounds):
            with small_store(), connected("local", 2) as cluster:
                at = str(folder / f"full-{round_}")
                good = cluster.run("ingest", ingest_core, str(raw), at, 5)["files"] == expected
                tally["ingest same" if good else "wrong"] += 1
                made = cluster.run("encode", encode_reviews, split.train, str(folder / "table"), sc.tfidf_encoder(64))
                tally["encode same" if max(same(text, made).values()) < 1e-6 else "wrong"] += 1
                shutil.rmtree(at)
            say(f"object store of 80 MiB, {round_ + 1} rounds: {tally}")


@contextlib.contextmanager
def small_store() -> Iterator[None]:
    """Ray with an object store that is too small."""
    was = ray.init

    def init(*words: Any, **options: Any) -> Any:
        return was(*words, **options, object_store_memory=80 * 2**20)

    ray.init = init
    try:
        yield
    finally:
        ray.init = was


HEAD = "ray://127.0.0.1:20001"
JOB = """
import sys, json
from symcere.data.kcore import KCore
from symcere.distributed import connected, ingest
from symcere.errors import SymcereError

def work(raw, out):
    return ingest(raw, out, filters=[KCore(5)])["files"]

try:
    with connected(sys.argv[1]) as cluster:
        print(json.dumps(cluster.run("ingest", work, sys.argv[2], sys.argv[3])))
except SymcereError as error:
    print(error)
    sys.exit(2)
"""


def heads(rounds: int) -> None:
    """The head is killed under a job that came by ray://; another head takes up what was finished."""
    draws = random.Random(2)
    tally = {"ended before": 0, "said so, same when asked again": 0, "wrong": 0}
    bin_ = Path(sys.executable).parent
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        raw = world(600_000, folder, 6)

        def job(at: Path) -> subprocess.Popen[str]:
            words = [
                sys.executable,
                "-c",
                JOB,
                HEAD,
                str(raw),
                str(at),
                str(Path(__file__).parent),
            ]
            return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

        def head(action: str) -> None:
            start = ["start", "--head", "--port=6399", "--ray-client-server-port=20001", "--num-cpus=2",
                     "--include-dashboard=false", "--disable-usage-stats"]  # fmt: skip
            words = start if action == "start" else ["stop", "--force"]
            subprocess.run([str(bin_ / "ray"), *words], check=False, capture_output=True)
            time.sleep(3)  # until ports are free
            if action == "start":  # a new head takes some seconds until it answers
                ask = [sys.executable, "-c", f"import ray; ray.init({HEAD!r}, log_to_driver=False)"]
                while subprocess.run(ask, check=False, capture_output=True).returncode:
                    time.sleep(1)

        def result(running_job: subprocess.Popen[str]) -> tuple[int, str]:
            told = running_job.communicate(timeout=300)[0].strip().splitlines()
            return running_job.returncode, told[-1] if told else ""

        head("start")
        code, expected = result(job(folder / "table"))
        assert code == 0, expected
        for round_ in range(rounds):
            at = folder / f"head-{round_}"
            started = job(at)
            while not at.exists() and started.poll() is None:
                time.sleep(0.02)
            time.sleep(draws.uniform(0, 4))
            for folder_ in Path("/proc").iterdir():
                with contextlib.suppress(OSError, ValueError):
                    if folder_.name.isdigit() and b"gcs_server" in (folder_ / "cmdline").read_bytes().split(b"\0")[0]:
                        os.kill(int(folder_.name), signal.SIGKILL)
            code, told = result(started)
            ended = code == 0 and told == expected
            partial = not ended and Storage(str(at)).manifest() is not None
            if not ended:
                say(f"head: exit {code}, {told[:150]}")
            head("stop")
            head("start")
            once_more = result(job(at))
            again = once_more == (0, expected)
            if not again:
                say(f"head, asked again: exit {once_more[0]}, {once_more[1][:150]}")
            told_of = "ended before" if ended else "said so, same when asked again"
            tally[told_of if again and not partial and (ended or code == 2) else "wrong"] += 1
            shutil.rmtree(at, ignore_errors=True)
            say(f"the head killed, {round_ + 1} rounds: {tally}")
        head("stop")


def rates(n: int) -> None:
    """One core's microseconds and bytes a review, stage by stage: what docs/cost.md multiplies."""
    with tempfile.TemporaryDirectory() as temporary, connected("local", 1) as cluster:
        folder = Path(temporary)
        raw = world(n, folder, 8)
        small_run(cluster, folder / "warm")
        table = str(folder / "table")
        took, manifest = seconds(lambda: cluster.run("ingest", ingest_core, str(raw), table, 5))
        left = manifest["steps"][-1]["n_reviews"]
        disk = sum(file.stat().st_size for file in Path(table).iterdir())
        read = sum(file.stat().st_size for file in raw.iterdir())
        say(f"ingest: {1e6 * took / n:.1f} us a review; {read / n:.0f} bytes read, {disk / left:.0f} written")
        took, split = seconds(lambda: sc.split_random(read_table(table, words=False)))
        say(f"split: {1e6 * took / left:.1f} us a review")
        few = sc.split_random(sc.k_core(sc.anchoring_world(400, 100, 8).reviews, 2)).train
        took, _ = seconds(lambda: sc.encode_reviews(few, sc.sentence_encoder()))
        length = few.review["text"].str.len_chars().mean()
        say(f"encode by sentence: {1e6 * took / len(few):.0f} us a review of {length:.0f} characters")
        encoder = sc.tfidf_encoder(384)
        took, text = seconds(lambda: cluster.run("encode", encode_reviews, split.train, table, encoder))
        say(f"encode by tfidf: {1e6 * took / len(split.train):.1f} us a review, fitting included")
        epochs: list[Any] = []
        settings = sc.SymcereSettings(max_epochs=1, valid_every=1)
        model = fit_on(cluster, split, text, str(folder / "fit"), 1, settings, tell=epochs.append)
        say(f"an epoch: {1e6 / epochs[0].interactions_per_second:.1f} us an interaction")
        took, _ = seconds(lambda: cluster.run("recommend", recommend_all, model, str(folder / "r"), 10))
        say(f"recommend_all: {1e6 * took / len(model.users):.1f} us a user of {len(model.items):,} items")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["equal", "overhead", "scale", "kills", "nodes", "full", "heads", "rates"])
    parser.add_argument("file", nargs="?", default="")
    parser.add_argument("--reviews", type=float, default=0)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--only", default="")
    words = parser.parse_args()
    match words.what:
        case "equal":
            equal(words.file)
        case "overhead":
            overhead(int(words.reviews or 1e6), words.epochs)
        case "scale":
            scale(int(words.reviews or 3e5))
        case "kills":
            kills(words.rounds, words.only)
        case "nodes":
            nodes(words.rounds, words.only)
        case "full":
            full_store(words.rounds)
        case "heads":
            heads(words.rounds)
        case "rates":
            rates(int(words.reviews or 1e6))


if __name__ == "__main__":
    main()
