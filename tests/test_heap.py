"""Memory that is given back to the system."""

import subprocess
import sys

import pytest

from symcere.heap import give_back

HOLES = """
import os
from symcere.heap import give_back

def held():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

many = [bytes(5_000) for _ in range(40_000)]  # 190 MiB, and what comes after them stays
last = bytes(5_000)
before = held()
del many
freed = held()
give_back()
print(before - freed, freed - held())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_what_is_free_between_what_is_used_is_given_back():
    out = subprocess.run([sys.executable, "-c", HOLES], check=True, capture_output=True, text=True).stdout
    by_itself, by_us = map(float, out.split())
    assert by_itself < 50 < 150 < by_us


def test_another_c_library_keeps_what_it_keeps(monkeypatch):
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    give_back()
