"""Arrays of safetensors files: the same bytes as the library writes, and the same arrays back."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from safetensors.numpy import save

from symcere.mapped import map_tensors, write_tensors

ARRAYS = st.sampled_from(["<f2", "<f4", "<f8", "<i4", "<i8"]).flatmap(
    lambda kind: arrays(np.dtype(kind), array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
)


@given(
    st.dictionaries(st.text(min_size=1, max_size=9).filter(lambda name: name != "__metadata__"), ARRAYS, max_size=5)
)
def test_what_is_written_is_what_the_library_writes(tmp_path_factory, tensors):
    path = tmp_path_factory.getbasetemp() / "tensors.safetensors"
    write_tensors(path, tensors)
    assert path.read_bytes() == save(tensors)
    if all(array.size for array in tensors.values()):
        mapped = map_tensors(path)
        assert mapped.keys() == tensors.keys()
        for name, array in tensors.items():
            np.testing.assert_array_equal(mapped[name], array)


def test_columns_and_every_other_row_are_written_as_they_are_read(tmp_path):
    whole = np.arange(24.0).reshape(4, 6)
    tensors = {"columns": whole.T, "rows": whole[::2]}
    write_tensors(tmp_path / "some.safetensors", tensors)
    for name, array in map_tensors(tmp_path / "some.safetensors").items():
        np.testing.assert_array_equal(array, tensors[name])
