"""Fixtures, and run-time shape checks of everything that carries shape annotations: of the first calls, or of all."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy is there; on data so small, threads wait for one another

import sys
from pathlib import Path

from hypothesis import settings
from jaxtyping import install_import_hook

from checked import CHECKS_ALL

# the first call imports, and other work shares the machine
settings.register_profile("patient", deadline=None, max_examples=100 if CHECKS_ALL else 40)
settings.load_profile("patient")

install_import_hook(
    [
        f"symcere.{name}"
        for name in (
            "analysis baselines data evaluation graph index losses models ranking text towers training.batches "
            "training.known training.fusion training.loop training.progress training.text training.tuning".split()
        )
    ],
    "beartype.beartype" if CHECKS_ALL else "checked.first_calls",
)

import polars as pl  # noqa: E402
import pytest  # noqa: E402

import symcere as sc  # noqa: E402
from symcere.cli import main  # noqa: E402
from symcere.data.reviews import Reviews  # noqa: E402
from symcere.data.synthetic import World  # noqa: E402
from symcere.data.typed import SCHEMA  # noqa: E402

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def reviews_of(pairs, text="words here", time=None) -> Reviews:
    """Reviews of (user_id, item_id) pairs, in order, one second apart."""
    users, items = zip(*pairs, strict=True)
    table = pl.DataFrame(
        {
            "user_id": users,
            "item_id": items,
            "rating": [4.0] * len(pairs),
            "timestamp": time if time is not None else list(range(len(pairs))),
            "helpful": [None] * len(pairs),
            "title": [""] * len(pairs),
            "text": [text] * len(pairs) if isinstance(text, str) else text,
        },
        schema=SCHEMA,
    )
    return Reviews(table, "test")


class Silent:
    """Nobody watches; what was said is kept."""

    def __init__(self):
        self.said = []

    def begin(self, stage): ...

    def progress(self, phase, share, note): ...

    def end(self, stage, note, seconds, *, up_to_date):
        self.said.append((stage, note, up_to_date))


def pytest_runtest_setup(item):
    """Skip what needs a GPU where there is none."""
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("there is no GPU that torch can use")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real reviews; tests that need it skip visibly when it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"real reviews are not at {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def world() -> World:
    """A small anchoring world."""
    return sc.anchoring_world(n_users=150, n_items=60, reviews_per_user=6, seed=0)


@pytest.fixture(scope="session")
def reviews(world, tmp_path_factory) -> Reviews:
    """Its reviews, read back from a file."""
    file = tmp_path_factory.mktemp("world") / "reviews.json.gz"
    sc.write_amazon(world, file)
    return sc.k_core(sc.read_reviews(file), k=5)


@pytest.fixture(scope="session")
def split(reviews) -> sc.Split:
    """A random split of it."""
    return sc.split_random(reviews, seed=0)


@pytest.fixture(scope="session")
def text(split) -> sc.TextFeatures:
    """TF-IDF profiles of its train part."""
    return sc.encode_reviews(split.train, sc.tfidf_encoder(64))


@pytest.fixture(scope="session")
def quick() -> sc.SymcereSettings:
    """Settings for a fit of a second."""
    return sc.SymcereSettings(dim=16, batch_size=256, max_epochs=12, valid_every=3)


@pytest.fixture(scope="session")
def model(split, text, quick) -> sc.Recommender:
    """SymCERE fitted on it."""
    return sc.fit(split.train, text, valid=split.valid, settings=quick, seed=0)


@pytest.fixture(scope="session")
def file(tmp_path_factory):
    """A small review file in the Amazon format, with a name that is hard to parse."""
    path = tmp_path_factory.mktemp("data") / "re@views=5.json.gz"
    sc.write_amazon(sc.anchoring_world(n_users=100, n_items=40, reviews_per_user=6), path)
    return path


@pytest.fixture
def symcere(capsys, monkeypatch, tmp_path):
    """Call the command line in a folder of its own; returns (exit code, standard output, standard error)."""

    import torch

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["symcere", *map(str, words)])
        monkeypatch.chdir(tmp_path)
        threads = torch.get_num_threads()
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        finally:
            torch.set_num_threads(threads)  # of this process, where tests after this one fit too
        return code, *capsys.readouterr()

    return call
