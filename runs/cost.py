"""docs/cost.md: what a run of 10^8, 10^9 and 10^10 reviews costs, from rates measured on one core.

    python runs/cost.py [--core-hour 0.04] [--node-cores 16] [--gbit 10] [--epochs 20]

Rates are those of `python benchmarks/distributed.py rates` (docs/log.md has the readings); prices are assumptions
that the options change.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

from symcere.manifest import write_file

ROOT = Path(__file__).resolve().parent.parent
SIZES = (10**8, 10**9, 10**10)
DIM, TEXT_DIM, N_LAYERS, VECTORS, BATCH, STEPS = 64, 384, 2, 4, 1_024, 64
USERS, ITEMS = 1 / 10, 1 / 200  # nodes a review, of what a k-core leaves
TRAIN = 0.8

INGEST, SPLIT, TFIDF, SENTENCE, EPOCH, SCORED = 7.8, 1.2, 143.0, 1_600.0, 42.0, 5.5e-3
"""Microseconds of one core: a review ingested, split, encoded by TF-IDF, by the sentence encoder in 8 bits; an
interaction of an epoch (read at ten million, docs/log.md); an item scored for a user, by vectors of 128 numbers, and
looked at for the ten best."""
RAW, WORDS, DEALT = 80, 91, 44
"""Bytes of a review: as it was read, its words as Parquet, all else on its way to a bucket."""
CHARACTERS = 75
"""Of the reviews that were measured."""


@dataclass(frozen=True)
class Prices:
    """What is paid, and how fast the network is.

    Args:
        core_hour: Of one core, with its memory.
        node_cores: Cores of a node.
        gbit: Of the network of a node.
        epochs: Until patience ends.
    """

    core_hour: float
    node_cores: int
    gbit: float
    epochs: int


@dataclass(frozen=True)
class Stage:
    """A stage at some size.

    Args:
        name: Of it.
        core_seconds: Work.
        network: Bytes that leave or enter a node, of all nodes together.
        holds: What limits it, in words.
    """

    name: str
    core_seconds: float
    network: float
    holds: str


def stages(n: int, n_nodes: int, prices: Prices) -> list[Stage]:
    """All stages of a run of `n` reviews on `n_nodes` machines."""
    users, items, train = n * USERS, n * ITEMS, n * TRAIN
    nodes = users + items
    away = 1 - 1 / n_nodes
    table = nodes * DIM * 2  # rows go over the network in bfloat16
    batches = train / BATCH
    rows = 3 * BATCH * DIM * 4
    a_step = 2 * N_LAYERS * table * n_nodes * away  # everybody's rows to everybody, there and back
    sent = VECTORS * 2 * rows  # of a batch: read, and sent back
    an_epoch = STEPS * a_step + batches * sent * 2 * n_nodes * away
    split_bytes = 20 * n
    own = (3 * DIM + 2 * TEXT_DIM) * 4 * nodes / n_nodes  # layer 0, its optimiser, profiles, their averages
    pairs = 32 * train
    return [
        Stage("ingest, 5-core", n * INGEST / 1e6, n * (RAW + WORDS + DEALT * away), "reading; a task a file"),
        Stage("split", n * SPLIT / 1e6, split_bytes, f"one process, {gib(split_bytes)}"),
        Stage("encode, TF-IDF", train * TFIDF / 1e6, train * (WORDS + 2 * TEXT_DIM * 8 * away), "in parallel"),
        Stage(
            "encode, sentence, 8 bits on processors",
            train * SENTENCE / 1e6,
            train * (WORDS + 2 * 256 * 8 * away),
            "in parallel",
        ),
        Stage(
            f"fit, {prices.epochs} epochs",
            prices.epochs * train * EPOCH / 1e6,
            prices.epochs * an_epoch,
            f"a worker holds pairs and graph, {gib(pairs)}, and its rows, {gib(own)}",
        ),
        Stage(
            "recommend_all, exact",
            users * items * SCORED / 1e6,
            users * 300,
            f"{users:.0e} users x {items:.0e} items",
        ),
    ]


def gib(n: float) -> str:
    """Bytes."""
    return f"{n / 2**30:,.0f} GiB"


def spelled(seconds: float) -> str:
    """A time."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.0f} {unit}"
    return f"{seconds:,.0f} s"


def page(prices: Prices) -> str:
    """The page."""
    lines = [
        "# What a run costs at size",
        "",
        "Computed, not run: seconds of one core of this machine (`python benchmarks/distributed.py rates`; "
        "docs/log.md) times the number of reviews, and bytes from the data path. "
        f"Assumed: {USERS:g} users and {ITEMS:g} items a review that stays, {prices.core_hour:g} EUR a core-hour, "
        f"nodes of {prices.node_cores} cores with {prices.gbit:g} Gbit/s, {prices.epochs} epochs of {STEPS} steps, "
        f"{VECTORS} vectors of {DIM} dimensions for a node of a batch, a worker a node. "
        "`python runs/cost.py --help` names the options. "
        "A stage takes the longer of its work and its network; they are not added, for Ray overlaps them. Reviews "
        f"that were measured have {CHARACTERS} characters: ingesting and encoding longer ones costs in proportion.",
        "",
    ]
    for n, n_nodes in zip(SIZES, (1, 8, 64), strict=True):
        cores = n_nodes * prices.node_cores
        lines += [
            f"## 10^{len(str(n)) - 1} reviews, {n_nodes} node{'s' if n_nodes > 1 else ''} ({cores:,} cores)",
            "",
            "| stage | core-hours | EUR | work | over the network, a node | its seconds | limited by |",
            "|---|---:|---:|---:|---:|---:|---|",
        ]
        for stage in stages(n, n_nodes, prices):
            alone = stage.name == "split"
            work = stage.core_seconds / (1 if alone else cores)
            sent = stage.network / n_nodes
            wire = sent * 8 / (prices.gbit * 1e9) if n_nodes > 1 else 0.0
            paid = (max(work, wire) * cores) / 3_600 * prices.core_hour
            which = "the network" if wire > work else "work"
            lines.append(
                f"| {stage.name} | {stage.core_seconds / 3_600:,.1f} | {paid:,.2f} | {spelled(work)} "
                f"| {sent / 2**30:,.0f} GiB | {spelled(wire)} | {which}; {stage.holds} |"
            )
        lines.append("")
    return "\n".join(lines) + FOUND


FOUND = """## What it says

- Up to 10^9 reviews, ingesting, splits and encoding by TF-IDF (or, at its price, the distilled encoder) are minutes
  on some nodes. The sentence encoder on processors is ten times as dear: take GPUs, or distil.
- **The fit waits for the network.** A step lets the whole table pass by every worker twice a layer, so bytes grow
  with nodes of the graph times workers, and more workers do not help. What does: a faster network
  (at 100 Gbit/s a tenth of those seconds). Rows that are propagated go in bfloat16 already; fewer steps an epoch only
  ask for more epochs (docs/log.md, 2026-11-28).
- On one node of enough memory there is no network: 10^8 reviews need 40 GiB of it.
- **At 10^10 the pairs and the graph no longer fit a worker.** Edges are held by the owner of their row already; the
  list of pairs that batches are drawn from, and the mask, are what is left to partition.
- Exact `recommend_all` is users times items. From 10^9 reviews on, rank for those who come (the service does so in
  milliseconds), or for a share of the catalogue.
- Splits are drawn by one process: at 10^10 its memory, not its hours, is what ends first.

Checked on 1, 2 and 4 workers of a machine of two cores: docs/log.md.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--core-hour", type=float, default=0.04)
    parser.add_argument("--node-cores", type=int, default=16)
    parser.add_argument("--gbit", type=float, default=10)
    parser.add_argument("--epochs", type=int, default=20)
    words = parser.parse_args()
    text = page(Prices(words.core_hour, words.node_cores, words.gbit, words.epochs))
    write_file(ROOT / "docs" / "cost.md", text)


if __name__ == "__main__":
    main()
