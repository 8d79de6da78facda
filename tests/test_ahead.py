"""Reading ahead: the same things in the same order, whoever fails or goes away."""

import gc
import threading
import time

import pytest

from symcere.data.ahead import Ahead


def test_things_come_in_order_and_errors_where_they_arise():
    def three():
        yield from (1, None, 3)
        raise ValueError("fourth")

    things = Ahead(three())
    assert [next(things) for _ in range(3)] == [1, None, 3]
    for _ in range(2):
        with pytest.raises(ValueError, match="fourth"):
            next(things)
    ended = Ahead(iter(()))
    assert list(ended) == list(ended) == []


def test_one_thing_is_made_ahead_and_no_more():
    made = []

    def many():
        for n in range(100):
            made.append(n)
            yield n

    things = Ahead(many())
    next(things)
    time.sleep(0.05)
    assert made == [0, 1]


def test_what_is_dropped_is_closed_and_its_thread_ends():
    closed = threading.Event()

    def endless():
        try:
            while True:
                yield 1
        finally:
            closed.set()

    before = threading.active_count()
    things = Ahead(Ahead(endless()))
    next(things)
    del things
    gc.collect()
    assert closed.wait(5)
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before


def test_the_garbage_collector_may_come_while_a_thread_starts():
    """Cycles of unfinished readers are collected at any allocation; here at nearly every one."""
    threshold = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    try:
        for _ in range(300):
            cycle = [Ahead(Ahead(iter(range(5))))]
            next(cycle[0])
            cycle.append(cycle)
    finally:
        gc.set_threshold(*threshold)
