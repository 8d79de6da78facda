"""Singular vectors against a full decomposition."""

import os
import subprocess
import sys

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.decomposition import TruncatedSVD

from symcere.text.svd import term_directions


@pytest.mark.parametrize("shape", [(60, 200), (200, 60), (80, 80)])  # few texts, few terms, as many
def test_they_are_those_of_the_full_decomposition_where_values_fall(shape):
    draws = np.random.default_rng(0)
    left, right = (np.linalg.qr(draws.normal(size=(size, 40)))[0] for size in shape)
    full = left * 0.8 ** np.arange(40) @ right.T
    found = term_directions(sp.csr_array(full), 12)
    np.testing.assert_allclose(found.T @ found, np.eye(12), atol=1e-5)
    np.testing.assert_allclose(np.abs(np.diag(found.T @ right[:, :12])), 1, atol=1e-4)


@pytest.mark.parametrize("shape", [(300, 900), (900, 300)])
def test_they_hold_as_much_as_those_of_scikit_learn_where_values_are_flat(shape):
    weights = sp.random_array(shape, density=0.03, rng=0, format="csr", dtype=np.float32)
    theirs = TruncatedSVD(50, random_state=0).fit(weights).components_.T
    ours = term_directions(weights, 50)
    held = [np.square(weights @ directions).sum() for directions in (ours, theirs)]
    assert held[0] == pytest.approx(held[1], rel=5e-3)


def test_beyond_the_rank_there_is_nothing():
    weights = sp.csr_array(np.tile([1.0, 2.0, 0.0, 3.0], (5, 1)))
    found = term_directions(weights, 3)
    np.testing.assert_allclose(np.abs(found[:, 0]), np.array([1, 2, 0, 3]) / np.sqrt(14), atol=1e-6)
    assert not found[:, 1:].any()
    assert not term_directions(sp.csr_array((4, 3), dtype=np.float32), 2).any()


def test_each_direction_looks_to_the_side_of_its_large_entries():
    found = term_directions(sp.random_array((300, 4_000), density=0.02, format="csr", rng=1, dtype=np.float32), 40)
    assert ((found.astype(float) ** 3).sum(0) >= 0).all()


_BY_THREADS = """
import sys
import numpy as np, scipy.sparse as sp
from symcere.text.svd import term_directions
np.save(sys.argv[1], term_directions(sp.random_array((3_000, 6_000), density=0.01, rng=0, dtype=np.float32), 96))
"""


@pytest.mark.slow
def test_another_number_of_threads_finds_the_same_sides_of_them(tmp_path):
    found = []
    for threads in ("1", "2"):
        file = tmp_path / f"{threads}.npy"
        how = {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        subprocess.run([sys.executable, "-c", _BY_THREADS, str(file)], check=True, env=os.environ | how)
        found.append(np.load(file))
    cosines = (found[0] * found[1]).sum(0)
    assert (cosines > 0.99).mean() >= 95 / 96  # a direction without a side may take either
    assert ((found[0].astype(float) ** 3).sum(0) >= -1e-9).all()
