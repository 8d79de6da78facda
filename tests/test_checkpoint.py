"""A fit that is killed goes on from its checkpoint and ends with the same bytes."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

import symcere as sc
from conftest import Silent
from symcere.pipeline.stages import fit_system
from symcere.pipeline.systems import ours
from symcere.pipeline.workspace import Workspace
from symcere.training.adam import Adam
from symcere.training.checkpoint import Checkpoints, checkpointing, current_checkpoints
from test_systems import LEARNED, SYSTEMS, fit_first, reviewed  # noqa: F401  a fixture


class KilledError(Exception):
    """Stands for SIGKILL."""


@contextlib.contextmanager
def killed_at(n, folder):
    """Keep checkpoints after each step, and let the n-th be the last thing that a fit inside does."""
    save, count = Checkpoints.save, []

    def save_and_die(self, key, state):
        save(self, key, state)
        count.append(key)
        if len(count) == n:
            raise KilledError

    with pytest.MonkeyPatch.context() as patch, checkpointing(folder, every=0):
        patch.setattr(Checkpoints, "save", save_and_die)
        with pytest.raises(KilledError):
            yield patch


def told_of(system, split, text):
    """Fit with few epochs; the system and what its epochs told."""
    epochs = []
    return fit_first(system, split, text, epochs.append), epochs


def same(one, other):
    """Whether two recommenders are the same to the byte."""
    return (
        one.user_emb.tobytes() == other.user_emb.tobytes()
        and one.item_emb.tobytes() == other.item_emb.tobytes()
        and (one.temperature, one.popularity_weight) == (other.temperature, other.popularity_weight)
    )


def unlike_time(epoch):
    """All that an epoch told but its seconds and its speed."""
    return {name: value for name, value in vars(epoch).items() if name not in ("seconds", "interactions_per_second")}


QUICK_ONES = ("symcere", "x_sim_gcl", "narre")  # with and without random streams of their own

EACH = [name if name in QUICK_ONES else pytest.param(name, marks=pytest.mark.slow) for name in LEARNED]


@pytest.mark.parametrize("name", EACH)
def test_every_system_goes_on_to_the_same_bytes(split, reviewed, tmp_path, name):  # noqa: F811
    whole, epochs = told_of(SYSTEMS[name], split, reviewed)
    with killed_at(13, tmp_path):  # in the middle of an epoch, after a validation
        told_of(SYSTEMS[name], split, reviewed)
    assert list(tmp_path.iterdir())
    with checkpointing(tmp_path):
        resumed, again = told_of(SYSTEMS[name], split, reviewed)
    assert same(resumed, whole)
    assert [unlike_time(epoch) for epoch in again] == [unlike_time(epoch) for epoch in epochs]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("step", "batches"), [(1, 0), (4, 0), (9, 0), (3, 2)])
def test_wherever_it_is_killed(split, text, quick, tmp_path, monkeypatch, step, batches):
    quick = quick.model_copy(update={"batches_per_propagation": batches})
    whole = sc.fit(split.train, text, valid=split.valid, settings=quick)
    with killed_at(step, tmp_path):
        sc.fit(split.train, text, valid=split.valid, settings=quick)
    steps = []
    original = Adam.step
    monkeypatch.setattr(Adam, "step", lambda self, *more: (steps.append(1), original(self, *more))[1])
    with checkpointing(tmp_path):
        assert same(sc.fit(split.train, text, valid=split.valid, settings=quick), whole)
    resumed, steps[:] = len(steps), []
    sc.fit(split.train, text, valid=split.valid, settings=quick)
    assert resumed == len(steps) - (step - 1)  # the step that was under way is taken again, no other


def test_a_damaged_checkpoint_and_that_of_another_fit_are_not_taken(split, text, quick, tmp_path):
    quick = quick.model_copy(update={"max_epochs": 3})
    whole = sc.fit(split.train, text, valid=split.valid, settings=quick)
    with killed_at(5, tmp_path):
        sc.fit(split.train, text, valid=split.valid, settings=quick)
    (file,) = tmp_path.iterdir()
    raw = file.read_bytes()
    for damaged in (b"", raw[: len(raw) // 2], b"no checkpoint"):
        file.write_bytes(damaged)
        with checkpointing(tmp_path):
            assert same(sc.fit(split.train, text, valid=split.valid, settings=quick), whole)
    file.write_bytes(raw)
    other = quick.model_copy(update={"learning_rate": 2 * quick.learning_rate})
    fresh = sc.fit(split.train, text, valid=split.valid, settings=other)
    with checkpointing(tmp_path):
        assert same(sc.fit(split.train, text, valid=split.valid, settings=other), fresh)
        assert same(sc.fit(split.train, text, valid=split.valid, settings=quick, seed=1),
                    sc.fit(split.train, text, valid=split.valid, settings=quick, seed=1))  # fmt: skip
    assert file.read_bytes() == raw


def test_checkpoints_come_as_often_as_asked_and_cost_little(split, text, quick, tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(Checkpoints, "save", lambda self, key, state: saved.append(key))
    with checkpointing(tmp_path, every=3_600) as checkpoints:
        assert current_checkpoints() is checkpoints
        sc.fit(split.train, text, valid=split.valid, settings=quick)
    assert saved == []
    assert current_checkpoints() is None
    monkeypatch.undo()
    clock = [0.0]
    monkeypatch.setattr("symcere.training.checkpoint.time.monotonic", lambda: clock[0])
    slow = Checkpoints(tmp_path, every=10)
    slow.begin()
    assert not slow.due
    clock[0] = 10
    assert slow.due
    monkeypatch.setattr("symcere.training.checkpoint.write_file", lambda *_: clock.__setitem__(0, clock[0] + 5))
    slow.save("key", {})
    clock[0] = 15 + 99
    assert not slow.due  # five seconds to save: not again before a hundred
    clock[0] = 15 + 100
    assert slow.due


def test_divergence_names_the_last_good_checkpoint(split, text, quick, tmp_path, monkeypatch):
    original, steps = Adam.step, []

    def explode(self, *more):
        original(self, *more)
        steps.append(1)
        if len(steps) == 3:
            for parameter in self.parameters:
                parameter.data.fill_(torch.nan)

    monkeypatch.setattr(Adam, "step", explode)
    with checkpointing(tmp_path, every=0), pytest.raises(sc.DivergedError, match=r"last good checkpoint is .*\.pt"):
        sc.fit(split.train, text, valid=split.valid, settings=quick)
    (file,) = tmp_path.iterdir()
    saved = torch.load(file)
    assert len(saved["steps"]) == 2
    assert all(torch.isfinite(parameter).all() for parameter in saved["parameters"])


def test_a_killed_stage_of_a_run_goes_on_and_tells_every_epoch(split, text, quick, tmp_path):
    def run(folder):
        return fit_system(Workspace(folder, Silent()), ours(quick), split, ["split", "text"], text, 0)

    with killed_at(7, tmp_path / "unused") as patch:
        patch.setattr(Checkpoints, "due", property(lambda _: True))
        run(tmp_path / "killed")
    assert len(list((tmp_path / "killed" / "checkpoints").iterdir())) == 1
    values, _, folder = run(tmp_path / "killed")
    whole, _, unbroken = run(tmp_path / "whole")
    assert not list((tmp_path / "killed" / "checkpoints").iterdir())
    np.testing.assert_array_equal(values["ndcg@10"], whole["ndcg@10"])
    lines = [(each / "history.jsonl").read_text().count("\n") for each in (folder, unbroken)]
    assert lines[0] == lines[1] > 2


PROGRAM = """
import sys
import symcere as sc
from symcere.training.checkpoint import checkpointing
split = sc.split_random(sc.k_core(sc.anchoring_world(150, 60, 6).reviews, 5))
text = sc.encode_reviews(split.train, sc.tfidf_encoder(32))
settings = sc.SymcereSettings(dim=16, batch_size=64, max_epochs=12, patience=100)
with checkpointing(sys.argv[1], every=0.01):
    print("begin", flush=True)
    model = sc.fit(split.train, text, valid=split.valid, settings=settings)
model.save(sys.argv[2])
"""


@pytest.mark.slow
def test_a_fit_survives_sigkill_at_any_moment(tmp_path):
    def start(folder, out):
        words = [sys.executable, "-c", PROGRAM, str(tmp_path / folder), str(tmp_path / out)]
        return subprocess.Popen(words, stdout=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"})

    with start("none", "whole") as process:
        assert process.wait() == 0
    draws, kills = np.random.default_rng(0), 0
    for _ in range(12):
        with start("some", "resumed") as process:
            assert process.stdout.readline() == b"begin\n"
            time.sleep(draws.uniform(0.0, 0.5))
            process.send_signal(signal.SIGKILL)
            kills += process.wait() == -signal.SIGKILL
        if (tmp_path / "resumed").exists():
            break
    assert kills >= 2
    if not (tmp_path / "resumed").exists():
        with start("some", "resumed") as process:
            assert process.wait() == 0
    assert same(sc.Recommender.load(tmp_path / "resumed"), sc.Recommender.load(tmp_path / "whole"))
