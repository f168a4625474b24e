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
    (weight, _) = weights()
    addresses = set()
    for _ in range(20):
        version = Version([weight])
        addresses.add(weight.data_ptr())
        weight.data = torch.ones(1000)  # the old memory would be free for the next
        weight.data = torch.rand(4)
        assert not version.is_of([weight])
