"""Memory that is taken again."""

import gc

import pytest
import torch

from symcere.memory import Spare


def test_memory_is_taken_again_once_neither_a_matrix_nor_a_view_of_it_is_left():
    spare, x = Spare(), torch.ones(4, 3)
    first = spare.empty_like(x)
    place, view = first.data_ptr(), first.t()[1:]
    assert first.shape == (4, 3)
    assert first.is_contiguous()
    assert spare.empty_like(x).data_ptr() != place
    del first
    assert spare.empty_like(x).data_ptr() != place  # the view still reads it
    del view
    assert spare.empty_like(x).data_ptr() == place


def test_the_least_memory_that_is_large_enough_is_taken_whatever_it_held():
    spare, wide, narrow = Spare(), torch.ones(4, 8), torch.ones(4, 2)
    large, small = spare.empty_like(wide), spare.empty_like(narrow)
    places = large.data_ptr(), small.data_ptr()
    del large, small
    again = spare.empty_like(narrow.bfloat16()), spare.empty_like(narrow), spare.empty_like(narrow)
    assert (again[1].data_ptr(), again[0].data_ptr()) == places  # the second is too large for what is left of small
    assert again[2].data_ptr() not in places
    assert [one.dtype for one in again] == [torch.bfloat16, torch.float32, torch.float32]
    assert spare.empty_like(wide, torch.float64).dtype == torch.float64


def test_what_autograd_still_needs_is_not_written_over():
    spare = Spare()
    x = torch.full((2, 2), 3.0, requires_grad=True)
    kept = spare.empty_like(x).fill_(5.0)
    product = (x * kept).sum()  # its way back reads `kept`
    del kept
    gc.collect()
    spare.empty_like(x).fill_(7.0)
    product.backward()
    assert x.grad.tolist() == [[5.0, 5.0], [5.0, 5.0]]


def test_a_gradient_lies_in_the_memory_that_was_given_and_is_free_when_it_is_dropped():
    spare, x = Spare(), torch.ones(2, 2, requires_grad=True)
    room = spare.empty_like(x)
    place = room.data_ptr()

    class Twice(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return 2 * x

        @staticmethod
        def backward(ctx, grad):
            return torch.mul(grad, 2, out=spare.empty_like(grad))

    del room
    Twice.apply(x).sum().backward()
    assert x.grad.data_ptr() == place  # autograd took it, and copied nothing
    assert spare.empty_like(x).data_ptr() != place
    x.grad = None
    assert spare.empty_like(x).data_ptr() == place


def test_memory_that_is_given_back_stays_with_who_reads_it():
    spare, x = Spare(), torch.ones(2, 2)
    held = spare.empty_like(x).fill_(4.0)
    spare.clear()
    spare.empty_like(x).fill_(0.0)
    assert held.tolist() == [[4.0, 4.0], [4.0, 4.0]]


def test_a_matrix_without_rows_and_another_device_are_served():
    spare = Spare()
    assert spare.empty_like(torch.ones(0, 3)).shape == (0, 3)
    assert spare.empty_like(torch.empty(2, 3, device="meta"), torch.float64).device.type == "meta"
    assert len(spare._rooms) == 1


@pytest.mark.gpu
def test_memory_of_a_gpu_is_left_to_torch():
    spare = Spare()
    assert spare.empty_like(torch.ones(2, 3, device="cuda")).is_cuda
    assert not spare._rooms
