"""Where training runs: the choice of a device, and that everything moves there."""

import numpy as np
import pytest
import torch
from torch import nn

import symcere as sc
from conftest import Silent
from symcere.pipeline.stages import fit_system
from symcere.pipeline.systems import ours
from symcere.pipeline.workspace import Workspace
from symcere.training.device import current_device, multiplies_bfloat16, on_device
from symcere.training.loop import adjacency, multiplies_coarsely
from symcere.training.tuning import valid_ndcg
from test_systems import LEARNED, SYSTEMS, fit_first, reviewed  # noqa: F401  a fixture


def test_training_runs_on_the_processor_unless_told_otherwise():
    assert current_device() == torch.device("cpu")
    with pytest.raises(RuntimeError, match="inside"), on_device("cpu"):
        raise RuntimeError("inside")
    assert current_device() == torch.device("cpu")
    with on_device("auto") as device:
        assert current_device() == device == torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize(
    ("name", "message"),
    [("gpu", "No device 'gpu'. Valid: auto"), ("meta", "Cannot train on 'meta'"), ("cuda:99", "No device 'cuda:99'")],
)
def test_a_device_that_is_not_there_is_a_sentence(name, message):
    with pytest.raises(sc.ConfigError, match=message), on_device(name):
        pass


@pytest.mark.parametrize(
    ("precision", "n", "native", "expected"),
    [
        ("auto", 65_536, True, False), ("auto", 65_537, True, True), ("auto", 65_537, False, False),
        ("float32", 65_537, True, False), ("bfloat16", 9, False, True),
    ],
)  # fmt: skip
def test_products_of_large_data_are_in_bfloat16_where_that_is_fast(precision, n, native, expected, monkeypatch):
    monkeypatch.setattr("symcere.training.loop.multiplies_bfloat16", lambda device: native)
    assert multiplies_coarsely(sc.SymcereSettings(precision=precision), n) == expected
    assert not multiplies_coarsely(
        sc.SymcereSettings(precision=precision, unit=False), n
    )  # inner products know no bound


@pytest.mark.parametrize(
    ("precision", "too_few", "kernels", "expected"),
    [
        ("auto", 1, "AVX512", False), ("auto", 0, "AVX512", True), ("auto", 0, "DEFAULT", False),
        ("float32", 0, "AVX512", False), ("bfloat16", 1, "DEFAULT", True),
    ],
)  # fmt: skip
def test_large_graphs_are_propagated_over_in_bfloat16_where_that_is_fast(
    precision, too_few, kernels, expected, split, monkeypatch
):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: kernels)
    n_nodes = len(split.train.users) + len(split.train.items)
    monkeypatch.setattr("symcere.training.loop._LARGE_GRAPH", n_nodes + too_few)
    assert adjacency(split.train, sc.SymcereSettings(precision=precision)).coarse == expected


GRAPH_SYSTEMS = [name for name in LEARNED if "precision" in type(SYSTEMS[name].candidates[0]).model_fields]


@pytest.mark.parametrize("name", [name for name in GRAPH_SYSTEMS if name != "rgcl"])
def test_every_graph_system_learns_in_the_precision_that_it_is_given(name, split, reviewed):  # noqa: F811
    system = SYSTEMS[name]
    exact, coarse = (
        system.fit(
            split.train,
            split.valid,
            reviewed,
            system.candidates[0].model_copy(update={"max_epochs": 2, "precision": precision}),
            0,
            None,
        )
        for precision in ("float32", "bfloat16")
    )
    assert not np.array_equal(exact.item_emb, coarse.item_emb)
    assert np.abs(exact.item_emb - coarse.item_emb).max() < 0.05 * np.abs(exact.item_emb).max()


def test_rgcl_knows_no_other_precision():
    with pytest.raises(sc.ConfigError, match="precision: Input should be 'float32'"):
        sc.RGCLSettings(precision="bfloat16")


def test_a_processor_multiplies_bfloat16_if_it_says_so(monkeypatch):
    for told, expected in (
        ({"avx512_bf16": True}, True),
        ({"amx_bf16": True}, True),
        ({"avx512_bf16": False}, False),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda told=told: told, raising=False)
        assert multiplies_bfloat16(torch.device("cpu")) == expected
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert not multiplies_bfloat16(torch.device("cpu"))


def tensors_that_stay(module: nn.Module) -> list[str]:
    """Plain tensors of a module and its parts: nothing moves them along."""
    return [
        f"{path}.{name}"
        for path, part in module.named_modules()
        for name, value in vars(part).items()
        if isinstance(value, torch.Tensor)
    ]


QUICK_ONES = ("symcere", "rgcl", "narre")  # those that hold most

EACH = [name if name in QUICK_ONES else pytest.param(name, marks=pytest.mark.slow) for name in LEARNED]


@pytest.mark.parametrize("name", EACH)
def test_every_tensor_of_a_model_moves_with_it(split, reviewed, monkeypatch, name):  # noqa: F811
    moved = []

    def note(self, *args, **kwargs):
        moved.append(self)
        return original(self, *args, **kwargs)

    original = nn.Module.to
    monkeypatch.setattr(nn.Module, "to", note)
    (settings, *_) = SYSTEMS[name].candidates
    once = settings.model_copy(update={"max_epochs": 1})
    SYSTEMS[name].fit(split.train, split.valid, reviewed, once, 0, lambda _: None)
    assert moved
    for model in moved:
        assert tensors_that_stay(model) == []


def test_what_does_not_move_is_found():
    model = nn.Linear(2, 2)
    model.stays = torch.zeros(1)
    assert tensors_that_stay(nn.Sequential(model)) == ["0.stays"]


def test_a_fit_on_another_device_is_a_stage_of_its_own(split, text, quick, tmp_path, monkeypatch):
    once = ours(quick.model_copy(update={"max_epochs": 1}))
    _, _, here = fit_system(Workspace(tmp_path, Silent()), once, split, ["split"], text, 0)
    monkeypatch.setattr("symcere.pipeline.stages.current_device", lambda: torch.device("cuda"))  # said, not done
    _, manifest, there = fit_system(Workspace(tmp_path, Silent()), once, split, ["split"], text, 0)
    assert here != there
    assert manifest["device"] == "cuda"


@pytest.mark.gpu
@pytest.mark.parametrize("name", LEARNED)
def test_the_gpu_learns_the_same(split, reviewed, name):  # noqa: F811
    here = fit_first(SYSTEMS[name], split, reviewed)
    with on_device("cuda"):
        there = fit_first(SYSTEMS[name], split, reviewed)
    ndcg = [valid_ndcg(each, split.train, split.valid) for each in (here, there)]
    assert ndcg[1] == pytest.approx(ndcg[0], abs=0.02)
