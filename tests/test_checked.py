"""Shapes are checked while tests run: the first calls of everything, or all of them."""

import numpy as np
import pytest
from beartype import beartype
from jaxtyping import Float, TypeCheckError, jaxtyped
from numpy import ndarray

from checked import CALLS, first_calls


def rows(x: Float[ndarray, "rows dim"], y: Float[ndarray, "rows dim"]) -> Float[ndarray, " rows"]:
    return (x + y)[0] if len(x) == 3 else (x + y)[:, 0]


@pytest.mark.parametrize("checker", [first_calls, beartype])
def test_wrong_shapes_are_found_in_arguments_and_results(checker):
    checked = jaxtyped(rows, typechecker=checker)
    x = np.zeros((2, 2), np.float32)
    assert checked(x, x).shape == (2,)
    with pytest.raises(TypeCheckError, match="parameters"):
        checked(x, x[:, :1])
    with pytest.raises(TypeCheckError, match="return value"):
        checked(np.zeros((3, 2), np.float32), np.zeros((3, 2), np.float32))


def test_they_end_after_the_first_calls_if_so_wished():
    x = np.zeros((2, 2), np.float32)
    checked, always = (jaxtyped(rows_of(), typechecker=checker) for checker in (first_calls, beartype))
    for each in (checked, always):
        for _ in range(CALLS - 1):
            each(x, x)
    for each in (checked, always):
        with pytest.raises(TypeCheckError):
            each(x, x[:, :1])
        each(x, x)
    assert checked(x, x[:, :1]).shape == (2,)
    with pytest.raises(TypeCheckError):
        always(x, x[:, :1])


def rows_of():
    """The same function, made anew: what is checked no more says so of itself."""

    def again(x: Float[ndarray, "rows dim"], y: Float[ndarray, "rows dim"]) -> Float[ndarray, " rows"]:
        return rows(x, y)

    return again
