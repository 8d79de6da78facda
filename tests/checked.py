"""Run-time shape checks that end where they would say the same again."""

import functools
import os
import sys

from beartype import beartype

CHECKS_ALL = os.environ.get("SYMCERE_CHECK") == "all"
"""Whether every call and as many examples as ever are checked, as `make test` does; the fast suite checks fewer."""

CALLS = 20
"""How many calls of a function a process checks; a fit has thousands, of the same shapes."""


def first_calls(fn):
    """Check the first calls of a function as beartype does. jaxtyping hands over the signatures of what it wraps."""
    strict, left = None, CALLS

    @functools.wraps(fn)
    def check(*args, **kwargs):
        nonlocal strict, left
        if left:
            left -= 1
            strict = strict or beartype(fn)  # made where it is called: half of the functions never are
            return strict(*args, **kwargs)
        wrapped = sys._getframe(1).f_locals.get("fn")
        if wrapped is not None:
            wrapped.__no_type_check__ = True  # jaxtyping binds no arguments of it any more
        return None

    return check
