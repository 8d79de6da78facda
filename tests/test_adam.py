"""Adam against torch's own."""

import copy

import torch

from symcere.training.adam import Adam


def parameters():
    return [
        torch.nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(0))) for shape in ((7, 3), (2,))
    ]


def gradients(step):
    draws = torch.Generator().manual_seed(step)
    first, second = torch.randn((7, 3), generator=draws), torch.randn((2,), generator=draws)
    return [first * 10**-step, None if step == 2 else second]


def moved(optimiser, steps, ours):
    for step in steps:
        optimiser.zero_grad()
        for parameter, gradient in zip(ours, gradients(step), strict=True):
            parameter.grad = gradient
        optimiser.step()
    return ours


def test_it_is_that_of_torch_bit_for_bit_also_where_a_gradient_is_missing():
    ours, theirs = parameters(), parameters()
    moved(Adam(ours, 0.1), range(6), ours)
    moved(torch.optim.Adam(theirs, lr=0.1, fused=True), range(6), theirs)
    for one, other, begun in zip(ours, theirs, parameters(), strict=True):
        assert torch.equal(one, other)
        assert not torch.equal(one, begun)


def test_restored_it_goes_on_as_if_never_stopped():
    whole, halves = parameters(), parameters()
    moved(Adam(whole, 0.1), range(6), whole)
    first = Adam(halves, 0.1)
    moved(first, range(3), halves)
    second = Adam(halves, 0.1)
    second.restore(copy.deepcopy(first.state()))
    moved(second, range(3, 6), halves)
    assert all(torch.equal(one, other) for one, other in zip(whole, halves, strict=True))


def test_without_any_gradient_nothing_moves():
    ours = parameters()
    Adam(ours, 0.1).step()
    assert all(torch.equal(one, other) for one, other in zip(ours, parameters(), strict=True))
