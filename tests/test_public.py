"""The public names, and what a fresh process loads for them."""

import subprocess
import sys

import pytest

import symcere as sc


def loaded(code):
    """Top-level modules in a fresh process after running `code`."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint(*{{name.split('.')[0] for name in sys.modules}})"],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    return set(done.stdout.split())


def test_every_public_name_resolves():
    assert all(getattr(sc, name) is not None for name in sc.__all__)
    assert set(sc.__all__) <= set(dir(sc))
    with pytest.raises(AttributeError, match="no attribute 'magic'"):
        _ = sc.magic


def test_a_saved_recommender_is_loaded_and_asked_without_torch_or_polars(model, tmp_path):
    model.save(tmp_path / "m")
    code = f"import symcere as sc; print(sc.Recommender.load({str(tmp_path / 'm')!r}).recommend('user00001', 3))"
    assert not {"torch", "polars", "sklearn", "pydantic"} & loaded(code)


def test_help_does_not_load_torch():
    assert not {"torch", "polars", "sklearn"} & loaded("import symcere.cli")


def test_importing_symcere_loads_nothing_heavy():
    assert not {"numpy", "torch", "polars"} & loaded("import symcere")


def test_from_reviews_to_a_fitted_system_nothing_is_loaded_that_it_does_not_need():
    code = (
        "import symcere as sc\n"
        "split = sc.split_random(sc.k_core(sc.anchoring_world(60, 30, 5).reviews, 2))\n"
        "text = sc.encode_reviews(split.train, sc.lift_encoder(8))\n"
        "settings = sc.SymcereSettings(dim=8, max_epochs=1)\n"
        "sc.fit(split.train, text, valid=split.valid, settings=settings)"
    )
    assert not {"sympy", "sklearn", "pandas"} & loaded(code)  # each takes half a second to two
