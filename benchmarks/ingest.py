"""How fast are reviews read, cored and split, in how much memory?

    python benchmarks/ingest.py speed --peer PYTHON [--reviews 2000000]   against pandas' read and group-by k-core
    python benchmarks/ingest.py memory [--reviews 10000000]               peak of ingesting, coring and splitting

Files are made by the synthetic writer in the Amazon format, gzipped. PYTHON is an interpreter that has pandas, the
peer; it is no dependency of ours. Both sides read the same file in processes of their own, one after the other, and
must agree on the reviews that are left.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PEER = """
import json, sys, time
import pandas as pd
began, cpu = time.perf_counter(), time.process_time()
table = pd.read_json(sys.argv[1], lines=True)
read = time.perf_counter() - began
table = table.sort_values("unixReviewTime", kind="stable").drop_duplicates(["reviewerID", "asin"]).sort_index()
while True:
    n = len(table)
    table = table[table.groupby("reviewerID")["asin"].transform("size") >= 5]
    table = table[table.groupby("asin")["reviewerID"].transform("size") >= 5]
    if len(table) == n:
        break
print(json.dumps({"seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu, "read": read, "n": n}))
"""


def speed(peer: str, n_reviews: int, repeats: int) -> None:
    """Seconds of both, alternating; the ratio of each pair, and their median."""
    with tempfile.TemporaryDirectory() as folder:
        file = _world(Path(folder), n_reviews)
        ratios = []
        for number in range(repeats):
            ours = _told([sys.executable, __file__, "ours", str(file), str(Path(folder) / f"run{number}")])
            theirs = _told([peer, "-c", PEER, str(file)])
            assert ours["n"] == theirs["n"], (ours, theirs)
            ratios.append(theirs["seconds"] / ours["seconds"])
            print(
                f"{n_reviews:,} reviews, 5-core {ours['n']:,}. To memory: {ours['seconds']:.1f} s ({ours['cpu']:.1f} "
                f"CPU-s); to disk, with hashes: {ours['disk']:.1f} s; pandas: {theirs['seconds']:.1f} s "
                f"({theirs['cpu']:.1f} CPU-s), reading alone {theirs['read']:.1f} s. Ratios {ratios[-1]:.1f}x and "
                f"{theirs['seconds'] / ours['disk']:.1f}x",
                flush=True,
            )
        print(f"median {statistics.median(ratios):.1f}x")


def memory(n_reviews: int) -> None:
    """Ingest, core and split in one process; print seconds and peak memory of each."""
    with tempfile.TemporaryDirectory() as folder:
        file = _world(Path(folder), n_reviews)
        told = _told([sys.executable, __file__, "pipeline", str(file), str(Path(folder) / "run")])
        print(json.dumps(told, indent=2))


def ours(file: Path, out: Path) -> None:
    """What is timed: file to the 5-core in memory; and the stage that writes it, with its manifest."""
    from symcere import KCore, read_reviews  # imported before the clock starts, as pandas is

    began, cpu = time.perf_counter(), time.process_time()
    n = len(read_reviews(file, filters=[KCore(5)]))
    told = {"seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu, "n": n}
    began = time.perf_counter()
    _ingest(file, out)
    print(json.dumps(told | {"disk": time.perf_counter() - began}))


def pipeline(file: Path, out: Path) -> None:
    """What is measured: the stages ingest and split as `symcere run` takes them."""
    import symcere as sc
    from symcere.pipeline.stages import Splitting, divide

    told = {"file_gib": file.stat().st_size / 2**30, "peak_before_gib": _peak()}
    began = time.perf_counter()
    reviews, manifest, workspace = _ingest(file, out)
    told |= {"ingest_s": time.perf_counter() - began, "ingest_peak_gib": _peak(), "steps": manifest["steps"]}
    began = time.perf_counter()
    split, _ = divide(
        workspace, reviews, manifest["key"], Splitting("random", lambda r, s: sc.split_random(r, seed=s)), 0
    )
    told |= {"split_s": time.perf_counter() - began, "peak_gib": _peak(), "n_train": len(split.train)}
    print(json.dumps(told))


def _ingest(file, out):  # noqa: ANN001, ANN202
    import symcere as sc
    from symcere.data.ingest import Ingestion
    from symcere.pipeline.stages import ingest
    from symcere.pipeline.workspace import Workspace

    workspace = Workspace(out, _Silent())
    return *ingest(workspace, Ingestion(file, filters=[sc.KCore(5)])), workspace


class _Silent:
    """Nobody watches."""

    def begin(self, stage: str) -> None:
        """Nothing."""

    def progress(self, phase: str, share: float, note: str) -> None:
        """Nothing."""

    def end(self, stage: str, note: str, seconds: float, *, up_to_date: bool) -> None:
        """Nothing."""


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _world(folder: Path, n_reviews: int) -> Path:
    file = folder / "reviews.json.gz"
    write = "import sys, symcere; symcere.write_world(sys.argv[1], int(sys.argv[2]), duplicates=0.02)"
    subprocess.run([sys.executable, "-c", write, str(file), str(n_reviews)], check=True)
    return file


def _told(words: list[str]) -> dict:
    return json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("speed")
    command.add_argument("--peer", required=True)
    command.add_argument("--reviews", type=int, default=2_000_000)
    command.add_argument("--repeats", type=int, default=3)
    commands.add_parser("memory").add_argument("--reviews", type=int, default=10_000_000)
    for name in ("ours", "pipeline"):
        command = commands.add_parser(name)
        command.add_argument("file", type=Path)
        command.add_argument("out", type=Path)
    asked = parser.parse_args()
    if asked.command == "speed":
        speed(asked.peer, asked.reviews, asked.repeats)
    elif asked.command == "memory":
        memory(asked.reviews)
    else:
        {"ours": ours, "pipeline": pipeline}[asked.command](asked.file, asked.out)


if __name__ == "__main__":
    main()
