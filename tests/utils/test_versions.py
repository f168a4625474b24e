import pytest
import torch

from skfdan.utils.versions import Version


def weights():
    return [torch.nn.Parameter(torch.arange(4.0)), torch.zeros(2, 3)]


def test_what_is_unchanged_is_the_same():
    tensors = weights()
    version = Version(tensors)
    assert version.is_of(tensors)
    tensors[0].sum().backward()  # a gradient is no change
    assert version.is_of(iter(tensors))
    assert not version.is_of(tensors[:1])
    assert not version.is_of(tensors[::-1])


def in_place(tensors):
    with torch.no_grad():
        tensors[0] += 1.0


def by_an_optimizer(tensors):
    tensors[0].sum().backward()
    torch.optim.SGD(tensors[:1], lr=0.1).step()


def through_a_view(tensors):
    tensors[1][0, 1] = 7.0


def by_another_tensor(tensors):
    tensors[1] = tensors[1].clone()


@pytest.mark.parametrize("change", [in_place, by_an_optimizer, through_a_view, by_another_tensor])
def test_a_change_shows(change):
    tensors = weights()
    version = Version(tensors)
    change(tensors)
    assert not version.is_of(tensors)
    assert Version(tensors).is_of(tensors)


def test_memory_that_is_given_back_is_not_mistaken_for_the_old():
    weight = torch.nn.Parameter(torch.rand(10**6))
    for _ in range(5):
        version = Version([weight])
        weight.data = torch.empty(0)  # the system would give the old memory to the next
        weight.data = torch.rand(10**6)
        assert not version.is_of([weight])
