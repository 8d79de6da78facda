"""Does Ray give what one machine gives, at what cost, and whatever dies on the way?

    python benchmarks/distributed.py equal FILE@K            splits, features, rankings, NDCG@10 beside one machine
    python benchmarks/distributed.py overhead [--reviews 1e6] [--epochs 2]   one worker beside the plain run
    python benchmarks/distributed.py scale [--reviews 3e5]   1, 2 and 4 workers; what is sent, beside what was computed
    python benchmarks/distributed.py kills [--rounds 20]     a worker killed in each stage, a node lost, a full store
    python benchmarks/distributed.py rates [--reviews 1e6]   microseconds and bytes a review of each stage, for the cost page

Needs the extra: pip install "symcere[ray]". Everything runs on this machine, on loopback.
"""

import argparse
import contextlib
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import random
import shutil
import signal
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import ray

import symcere as sc
from symcere.data.ingest import Ingestion, ingest_reviews, load_reviews
from symcere.data.kcore import KCore
from symcere.distributed.cluster import Cluster, connected
from symcere.distributed.encode import encode_reviews
from symcere.distributed.ingest import ingest, ingest_into, read_table
from symcere.distributed.rank import measure_test, recommend_all
from symcere.distributed.storage import Storage
from symcere.distributed.train import fit
from symcere.errors import SymcereError
from symcere.evaluation.compare import measure_test as measure_here

SETTINGS = sc.SymcereSettings(max_epochs=12, valid_every=3)


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
    for number in range(files):
        sc.write_world(
            at / f"part-{number}.parquet",
            n // files,
            n_users=n // 8,
            n_items=n // 40,
            seed=0 if files == 1 else number,
        )
    return at


def plain_ingest(raw: Path, k: int, folder: Path) -> Any:
    folder.mkdir(parents=True)
    return load_reviews(folder, ingest_reviews(Ingestion(raw, filters=[KCore(k)]), folder))


def same(a: Any, b: Any) -> dict[str, Any]:
    return {"user": float(np.abs(a.user - b.user).max()), "item": float(np.abs(a.item - b.item).max())}


def equal(word: str) -> None:
    name, _, k = word.rpartition("@")
    raw, core = Path(name).resolve(), int(k)
    with tempfile.TemporaryDirectory() as temporary, connected("local", 2) as cluster:
        folder = Path(temporary)
        here = plain_ingest(raw, core, folder / "here")
        manifest = cluster.run(
            "ingest", ingest, str(raw), str(folder / "there"), Ingestion(raw, filters=[KCore(core)])
        )
        there = read_table(str(folder / "there"))
        say(
            f"table equal: {there.table.equals(here.table)}, steps equal: {list(manifest['steps']) == here.summary()}"
        )
        ours, theirs = sc.split_random(here), sc.split_random(read_table(str(folder / "there"), words=False))
        parts = ((ours.train, theirs.train), (ours.valid, theirs.valid), (ours.test, theirs.test))
        say(
            f"splits equal to the byte: {all(a.user.tobytes() == b.user.tobytes() and a.item.tobytes() == b.item.tobytes() for a, b in parts)}, ids too: {ours.train.users == theirs.train.users}"
        )
        encoders = sc.default_encoders(len(ours.train))
        text = sc.encode_reviews(ours.train, *encoders)
        text2 = cluster.run("encode", encode_reviews, theirs.train, str(folder / "there"), *encoders)
        say(f"features, greatest difference: {same(text, text2)}")
        model = sc.fit(ours.train, text, valid=ours.valid)
        values = measure_here(model, ours, sc.standard_measures())
        again = cluster.run("measure", measure_test, model, theirs, sc.standard_measures())
        say(
            f"measures of the same model equal: {all(np.array_equal(values[label], again[label]) for label in values)}"
        )
        for n in (1, 2):
            model2 = fit_on(cluster, theirs, text2, str(folder / f"fit{n}"), n, sc.SymcereSettings())
            ndcg = [float(np.mean(measure_here(each, ours, [sc.ndcg(10)])["ndcg@10"])) for each in (model, model2)]
            rank = [each.recommend(ours.train.users.id(0), 10) for each in (model, model2)]
            say(
                f"{n} worker(s): NDCG@10 {ndcg[0]:.5f} here, {ndcg[1]:.5f} there; vectors differ by {np.abs(model.user_emb - model2.user_emb).max():.1e}; first user's list equal: {[i for i, _ in rank[0]] == [i for i, _ in rank[1]]}"
            )


def fit_on(cluster: Cluster, split: Any, text: Any, storage: str, n: int, settings: Any, **more: Any) -> Any:
    from symcere.distributed.verbs import _fit, without_words

    how = {"storage": storage, "settings": settings, "n_workers": n, **more}
    return cluster.run("fit", _fit, without_words(split.train), split.valid, text, how, tell=lambda _: None)


def overhead(n: int, epochs: int) -> None:
    """Each stage of one worker of one processor beside the same in this process."""
    settings = sc.SymcereSettings(max_epochs=epochs, valid_every=epochs)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        raw = world(n, folder)
        began = time.perf_counter()
        with connected("local", 1) as cluster:
            cluster.run("warm", len, [])
            say(f"start of Ray: {time.perf_counter() - began:.1f} s")
            warm(cluster, folder)
            total = [0.0, 0.0]

            def both(stage: str, here: Callable[[], Any], there: Callable[[], Any]) -> tuple[Any, Any]:
                (plain, a), (on_ray, b) = seconds(here), seconds(there)
                total[0] += plain
                total[1] += on_ray
                say(f"{stage}: here {plain:.1f} s, Ray {on_ray:.1f} s, {on_ray / plain:.2f} x")
                return a, b

            what = Ingestion(raw, filters=[KCore(5)])
            here, _ = both(
                "ingest",
                lambda: plain_ingest(raw, 5, folder / "here"),
                lambda: cluster.run("ingest", ingest, str(raw), str(folder / "there"), what),
            )
            split = sc.split_random(here)
            wordless = sc.split_random(read_table(str(folder / "there"), words=False))
            say(f"{len(here):,} reviews, {len(split.train.users):,} users, {len(split.train.items):,} items")
            encoder = sc.tfidf_encoder(128)
            text, _ = both(
                "encode",
                lambda: sc.encode_reviews(split.train, encoder),
                lambda: cluster.run("encode", encode_reviews, wordless.train, str(folder / "there"), encoder),
            )
            model, _ = both(
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


def warm(cluster: Cluster, folder: Path) -> None:
    """Let workers import what they will need: start-up, stated apart."""
    took, _ = seconds(lambda: small_run(cluster, folder / "warm"))
    say(f"first run of everything on 2,000 reviews (imports of workers, Ray Train's start): {took:.1f} s")


def small_run(cluster: Cluster, folder: Path) -> None:
    folder.mkdir()
    raw = world(2_000, folder, 1)
    cluster.run("ingest", ingest, str(raw), str(folder / "t"), Ingestion(raw, filters=[KCore(3)]))
    split = sc.split_random(read_table(str(folder / "t"), words=False))
    text = cluster.run("encode", encode_reviews, split.train, str(folder / "t"), sc.tfidf_encoder(8))
    model = fit_on(cluster, split, text, str(folder / "f"), 1, sc.SymcereSettings(max_epochs=1))
    cluster.run("measure", measure_test, model, split, [sc.ndcg(10)])


def scale(n: int) -> None:
    """1, 2 and 4 workers on this machine."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        raw = world(n, folder, 8)
        base: dict[str, float] = {}
        for n_workers in (1, 2, 4):
            with connected("local", n_workers) as cluster:
                at = folder / f"w{n_workers}"
                at.mkdir()
                small_run(cluster, at / "warm")
                table = str(at / "table")
                took = {}
                took["ingest"], _ = seconds(
                    lambda: cluster.run("ingest", ingest, str(raw), table, Ingestion(raw, filters=[KCore(5)]))
                )
                split = sc.split_random(read_table(table, words=False))
                took["encode"], text = seconds(
                    lambda: cluster.run("encode", encode_reviews, split.train, table, sc.tfidf_encoder(64))
                )
                epochs: list[Any] = []
                settings = sc.SymcereSettings(max_epochs=3, valid_every=3)
                from symcere.distributed.verbs import _fit, without_words

                how = {"storage": str(at / "fit"), "settings": settings, "n_workers": n_workers}
                model = cluster.run(
                    "fit", _fit, without_words(split.train), split.valid, text, how, tell=epochs.append
                )
                took["epoch"] = statistics.median(len(split.train) / each.interactions_per_second for each in epochs)
                took["recommend_all"], _ = seconds(
                    lambda: cluster.run("recommend", recommend_all, model, str(at / "r"), 10)
                )
                base = base or took
                say(
                    f"{n_workers} workers: "
                    + ", ".join(f"{stage} {s:.1f} s ({base[stage] / s:.2f} x)" for stage, s in took.items())
                )
        nodes, dim, layers = len(split.train.users) + len(split.train.items), SETTINGS.dim, SETTINGS.n_layers
        steps = -(-len(split.train) // SETTINGS.batch_size)
        share = settings.batches_per_step(len(split.train))
        say(
            f"{len(split.train):,} train interactions, {nodes:,} nodes; propagation of one step sends {2 * layers * nodes * dim * 4 / 2**20:.1f} MiB a receiver, {-(-steps // share)} steps an epoch"
        )


def running() -> Iterator[tuple[int, str]]:
    """Processes of Ray that are at work."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                name = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                if name.startswith("ray::") and "IDLE" not in name:
                    yield int(folder.name), name


class Killer(threading.Thread):
    """Kills one process whose name holds a word, at a moment drawn within some seconds of the first time it is seen."""

    def __init__(self, words: tuple[str, ...], within: float, draws: random.Random) -> None:
        super().__init__(daemon=True)
        self.words, self.wait, self.draws = words, draws.uniform(0, within), draws
        self.killed, self.over = "", threading.Event()

    def run(self) -> None:
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
        return [(pid, name) for pid, name in running() if any(word in name for word in self.words)]


def kills(rounds: int, only: str) -> None:
    """Kill a worker in each stage; the stage must end with what it gives undisturbed, or say that it did not."""
    draws = random.Random(0)
    with tempfile.TemporaryDirectory() as temporary, connected("local", 2) as cluster:
        folder = Path(temporary)
        raw = world(60_000, folder, 6)
        what = Ingestion(raw, filters=[KCore(5)])
        table = str(folder / "table")
        first = cluster.run("ingest", ingest, str(raw), table, what)["files"]
        split = sc.split_random(read_table(table, words=False))
        encoder = sc.tfidf_encoder(32)
        text = cluster.run("encode", encode_reviews, split.train, table, encoder)
        model = fit_on(cluster, split, text, str(folder / "fit"), 2, SETTINGS)
        listed = cluster.run("recommend", recommend_all, model, str(folder / "all"), 10)["files"]

        def ingest_again(at: Path) -> bool:
            return bool(cluster.run("ingest", ingest, str(raw), str(at), what)["files"] == first)

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
            "recommend_all": (list_again, ("MapWorker", "recommend_all"), 2.0),
        }
        for stage, (again, words, within) in stages.items():
            if only and stage not in only:
                continue
            tally = {"killed": 0, "same": 0, "wrong": 0, "said so, same when asked again": 0, "lost": 0}
            for round_ in range(rounds):
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
            say(f"{stage}, {rounds} rounds: {tally}")


def nodes(rounds: int) -> None:
    """Two raylets, of which one dies in the middle of an ingestion and of a fit; then a full object store; then the head."""
    from ray.cluster_utils import Cluster as Raylets

    draws = random.Random(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        raw = world(60_000, folder, 6)
        what = Ingestion(raw, filters=[KCore(5)])
        expected: Any = None
        model: Any = None
        tally = {"ingest same": 0, "fit same": 0, "said so, same when asked again": 0, "wrong": 0}
        for round_ in range(rounds):
            raylets = Raylets(initialize_head=True, head_node_args={"num_cpus": 1})
            other = raylets.add_node(num_cpus=1)
            try:
                with connected(raylets.address) as cluster:
                    if expected is None:
                        expected = cluster.run("ingest", ingest, str(raw), str(folder / "table"), what)["files"]
                        split = sc.split_random(read_table(str(folder / "table"), words=False))
                        text = cluster.run(
                            "encode", encode_reviews, split.train, str(folder / "table"), sc.tfidf_encoder(32)
                        )
                        model = fit_on(cluster, split, text, str(folder / "fit"), 1, SETTINGS)
                    timer = threading.Timer(draws.uniform(0, 2.5), raylets.remove_node, (other, False))
                    timer.start()
                    at = str(folder / f"node-{round_}")
                    try:
                        good = cluster.run("ingest", ingest, str(raw), at, what)["files"] == expected
                        tally["ingest same" if good else "wrong"] += 1
                    except SymcereError as error:
                        say(f"ingest: {str(error)[:160]}")
                        again = cluster.run("ingest", ingest, str(raw), at, what)["files"] == expected
                        tally["said so, same when asked again" if again else "wrong"] += 1
                    timer.join()
                    other = raylets.add_node(num_cpus=1)
                    timer = threading.Timer(draws.uniform(0, 8), raylets.remove_node, (other, False))
                    timer.start()
                    try:
                        made = fit_on(cluster, split, text, at + "-fit", 1, SETTINGS, every=1.0)
                        tally["fit same" if np.array_equal(made.user_emb, model.user_emb) else "wrong"] += 1
                    except SymcereError as error:
                        say(f"fit: {str(error)[:160]}")
                        made = fit_on(cluster, split, text, at + "-fit", 1, SETTINGS, every=1.0)
                        tally[
                            "said so, same when asked again"
                            if np.array_equal(made.user_emb, model.user_emb)
                            else "wrong"
                        ] += 1
                    timer.join()
            finally:
                raylets.shutdown()
                shutil.rmtree(folder / f"node-{round_}", ignore_errors=True)
        say(f"a node lost, {rounds} rounds: {tally}")


def full_store(rounds: int) -> None:
    """An object store of 80 MiB, for more than that."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        raw = world(300_000, folder, 6)
        what = Ingestion(raw, filters=[KCore(5)])
        with connected("local", 2) as cluster:
            expected = cluster.run("ingest", ingest, str(raw), str(folder / "table"), what)["files"]
            split = sc.split_random(read_table(str(folder / "table"), words=False))
            text = cluster.run("encode", encode_reviews, split.train, str(folder / "table"), sc.tfidf_encoder(64))
        tally = {"ingest same": 0, "encode same": 0, "wrong": 0}
        for round_ in range(rounds):
            with small_store(), connected("local", 2) as cluster:
                at = str(folder / f"full-{round_}")
                good = cluster.run("ingest", ingest, str(raw), at, what)["files"] == expected
                tally["ingest same" if good else "wrong"] += 1
                made = cluster.run("encode", encode_reviews, split.train, str(folder / "table"), sc.tfidf_encoder(64))
                tally["encode same" if max(same(text, made).values()) < 1e-6 else "wrong"] += 1
                shutil.rmtree(at)
        say(f"object store of 80 MiB, {rounds} rounds: {tally}")


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


def heads(rounds: int) -> None:
    """The head dies in the middle; another one takes up what was finished."""
    from ray.cluster_utils import Cluster as Raylets

    draws = random.Random(2)
    tally = {"ended before": 0, "said so, same when asked again": 0, "wrong": 0}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        raw = world(60_000, folder, 6)
        what = Ingestion(raw, filters=[KCore(5)])
        expected = ingest_alone(raw, what, folder / "table")
        for round_ in range(rounds):
            at = str(folder / f"head-{round_}")
            raylets = Raylets(initialize_head=True, head_node_args={"num_cpus": 2})
            timer = threading.Timer(draws.uniform(0, 3), raylets.head_node.kill_gcs_server, (False,))
            ended = False
            with contextlib.suppress(SymcereError), connected(raylets.address) as cluster:
                timer.start()
                ended = cluster.run("ingest", ingest, str(raw), at, what)["files"] == expected
            timer.join()
            with contextlib.suppress(Exception):
                raylets.shutdown()
            partial = Storage(at).manifest() is not None and not ended
            again = ingest_alone(raw, what, Path(at)) == expected
            tally[
                "wrong" if partial or not again else "ended before" if ended else "said so, same when asked again"
            ] += 1
            shutil.rmtree(at, ignore_errors=True)
    say(f"the head killed, {rounds} rounds: {tally}")


def ingest_alone(raw: Path, what: Ingestion, at: Path) -> Any:
    with connected("local", 2) as cluster:
        return cluster.run("ingest", ingest, str(raw), str(at), what)["files"]


def rates(n: int) -> None:
    """One core's microseconds and bytes a review, stage by stage: what docs/cost.md multiplies."""
    with tempfile.TemporaryDirectory() as temporary, connected("local", 1) as cluster:
        folder = Path(temporary)
        raw = world(n, folder, 8)
        small_run(cluster, folder / "warm")
        table = str(folder / "table")
        took, manifest = seconds(
            lambda: cluster.run("ingest", ingest, str(raw), table, Ingestion(raw, filters=[KCore(5)]))
        )
        left = manifest["steps"][-1]["n_reviews"]
        disk = sum(file.stat().st_size for file in Path(table).iterdir())
        read = sum(file.stat().st_size for file in raw.iterdir())
        say(
            f"ingest: {1e6 * took / n:.1f} us a review, {read / n:.0f} bytes read, {disk / left:.0f} written; {left:,} left"
        )
        took, split = seconds(lambda: sc.split_random(read_table(table, words=False)))
        say(f"split: {1e6 * took / left:.1f} us a review")
        for name, encoder in (("tfidf", sc.tfidf_encoder(384)), ("sentence", sc.sentence_encoder())):
            if name == "sentence":
                few = sc.split_random(sc.k_core(sc.anchoring_world(400, 100, 8).reviews, 2))
                took, _ = seconds(lambda: sc.encode_reviews(few.train, encoder))  # noqa: B023
                say(
                    f"encode by {name}: {1e6 * took / len(few.train):.0f} us a review of {few.train.review['text'].str.len_chars().mean():.0f} characters"
                )
                continue
            took, text = seconds(lambda: cluster.run("encode", encode_reviews, split.train, table, encoder))  # noqa: B023
            say(f"encode by {name}: {1e6 * took / len(split.train):.1f} us a review, fitting included")
        epochs: list[Any] = []
        from symcere.distributed.verbs import _fit, without_words

        how = {
            "storage": str(folder / "fit"),
            "settings": sc.SymcereSettings(max_epochs=1, valid_every=1),
            "n_workers": 1,
        }
        model = cluster.run("fit", _fit, without_words(split.train), split.valid, text, how, tell=epochs.append)
        say(f"an epoch: {1e6 / epochs[0].interactions_per_second:.1f} us an interaction")
        took, _ = seconds(lambda: cluster.run("recommend", recommend_all, model, str(folder / "r"), 10))
        say(f"recommend_all: {1e6 * took / len(model.users):.1f} us a user of {len(model.items):,} items")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["equal", "overhead", "scale", "kills", "nodes", "full", "heads", "rates"])
    parser.add_argument("file", nargs="?", default="")
    parser.add_argument("--reviews", type=float, default=0)
    parser.add_argument("--epochs", type=int, default=2)
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
            nodes(words.rounds)
        case "full":
            full_store(words.rounds)
        case "heads":
            heads(words.rounds)
        case "rates":
            rates(int(words.reviews or 1e6))


if __name__ == "__main__":
    main()
