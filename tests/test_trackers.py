"""Epochs told to TensorBoard and MLflow; each test skips where its extra is not installed."""

import contextlib
import json
import sys

import pytest

import symcere as sc
from symcere.pipeline.trackers import TRACKERS, scalars, tracked


def test_what_is_drawn_is_every_number_of_an_epoch(split, text, quick):
    told = []
    sc.fit(split.train, text, valid=split.valid, settings=quick, on_epoch=told.append)
    drawn = scalars(told[2])
    assert drawn["terms/cross"] == told[2].terms["cross"]
    assert drawn["valid_ndcg"] == told[2].valid_ndcg
    assert "valid_ndcg" not in scalars(told[0])  # it was not validated
    assert all(isinstance(value, float) for value in drawn.values())


def test_every_tracker_is_told_and_closed_also_when_a_fit_fails():
    told = []

    @contextlib.contextmanager
    def listening(name, settings):
        told.append((name, settings))
        try:
            yield told.append
        finally:
            told.append("closed")

    def fit():
        with tracked((listening, listening), "one", {"dim": 2}) as tell:
            tell("epoch")
            raise KeyError

    with pytest.raises(KeyError):
        fit()
    assert told == [("one", {"dim": 2})] * 2 + ["epoch"] * 2 + ["closed"] * 2


@pytest.mark.parametrize("name", TRACKERS)
def test_a_missing_extra_is_a_sentence_that_names_it(name, tmp_path, monkeypatch):
    for module in ("torch.utils.tensorboard", "mlflow.entities", "mlflow.tracking"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(sc.ConfigError, match=rf"pip install 'symcere\[{name}\]'"):
        TRACKERS[name](tmp_path)


def test_an_unknown_tracker_is_refused(symcere, file):
    code, _, said = symcere("run", file, "--log", "wandb")
    assert code == 2
    assert "Unknown tracker 'wandb' in --log. Known: tensorboard, mlflow." in said


def run(symcere, file, name):
    words = ("--systems", "none", "--log", name, "--quiet", "--set", "max_epochs=6", "--set", "dim=8")
    code, _, said = symcere("run", file, *words, "--encoder", "tfidf", "--text-dim", 16, "--out", "out")
    assert code == 0, said


def history(folder):
    (file,) = (folder / "out").glob("stages/symcere-*/history.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.filterwarnings("ignore")
def test_tensorboard_draws_what_the_history_holds(symcere, file, tmp_path):
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(symcere, file, "tensorboard")
    events = EventAccumulator(str(tmp_path / "out" / "tensorboard" / "symcere-seed0"))
    events.Reload()
    drawn = [event.value for event in events.Scalars("loss")]
    assert drawn == pytest.approx([epoch["loss"] for epoch in history(tmp_path)], rel=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_mlflow_keeps_settings_and_epochs(symcere, file, tmp_path, monkeypatch):
    pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    from mlflow.tracking import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run(symcere, file, "mlflow")
    client = MlflowClient(f"sqlite:///{tmp_path / 'out' / 'mlflow' / 'mlflow.db'}")
    (kept,) = client.search_runs([client.get_experiment_by_name("out").experiment_id])
    assert kept.info.status == "FINISHED"
    assert kept.data.tags["setting.dim"] == "8"
    drawn = [metric.value for metric in client.get_metric_history(kept.info.run_id, "loss")]
    assert drawn == pytest.approx([epoch["loss"] for epoch in history(tmp_path)])
