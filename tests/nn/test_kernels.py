import numpy as np
import pytest
import torch

from skfdan.nn import kernels, lmmd
from skfdan.nn.kernels import kernel_discrepancy


def batch(n_s, n_t, d=5, n_classes=3, offset=0.0, dtype=torch.float64, seed=0):
    g = torch.Generator().manual_seed(seed)
    z_s = torch.randn(n_s, d, generator=g, dtype=dtype) + offset
    z_t = 1.5 * torch.randn(n_t, d, generator=g, dtype=dtype) + offset + 0.5
    weights = torch.rand(n_s + n_t, n_classes, generator=g, dtype=dtype)
    weights[n_s:] *= -1
    return z_s, z_t, weights


def brute_force(z_s, z_t, weights, bandwidth=None):
    """Sum over all pairs, from numpy's loops, and the gradient by the chain rule."""
    z, w = np.vstack([z_s, z_t]), np.asarray(weights)
    n = len(z)
    distance = np.array([[((a - b) ** 2).sum() for b in z] for a in z])
    b = distance.sum() / (n * n - n) if bandwidth is None else bandwidth
    value, gradient = 0.0, np.zeros_like(z)
    for i in range(n):
        for j in range(n):
            share = (w[i] * w[j]).sum()
            for q in range(-2, 3):
                kernel = np.exp(-distance[i, j] / (b * 2.0**q))
                value += share * kernel
                # z_i and z_j both move the distance; each pair comes twice.
                gradient[i] += 4 * share * kernel * -(z[i] - z[j]) / (b * 2.0**q)
    return value, gradient


def value_and_gradient(z_s, z_t, weights, bandwidth=None):
    z_s, z_t = z_s.clone().requires_grad_(), z_t.clone().requires_grad_()
    value = kernel_discrepancy(z_s, z_t, weights, bandwidth)
    value.backward()
    return value.item(), torch.cat([z_s.grad, z_t.grad]).numpy()


def by_class(n_s, n_t, counts, seed=0, dtype=torch.float64):
    """A batch whose rows have a weight in one column each, in mixed order."""
    g = torch.Generator().manual_seed(seed)
    z_s, z_t, _ = batch(n_s, n_t, seed=seed, dtype=dtype)
    classes = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    classes = classes[torch.randperm(n_s + n_t, generator=g)]
    weights = torch.nn.functional.one_hot(classes, len(counts)).to(dtype)
    weights *= torch.rand(n_s + n_t, 1, generator=g, dtype=dtype)
    weights[n_s:] *= -1
    return z_s, z_t, weights, classes


@pytest.fixture(params=["whole", "tiled"])
def tiling(request, monkeypatch):
    if request.param == "tiled":
        monkeypatch.setattr(kernels, "_WHOLE", 1)
        monkeypatch.setattr(kernels, "_TILE", 4)


@pytest.mark.parametrize("bandwidth", [None, 2.0])
@pytest.mark.usefixtures("tiling")
def test_several_problems_at_once_are_each_its_own(bandwidth):
    several = [batch(5, 7, offset=3.0 * i, seed=i) for i in range(3)]
    weights = several[0][2]
    z_s, z_t = (torch.stack([b[side] for b in several]).requires_grad_() for side in (0, 1))
    values = kernel_discrepancy(z_s, z_t, weights, bandwidth)
    scale = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    (values * scale).sum().backward()
    for i, (a, b, _) in enumerate(several):
        value, gradient = value_and_gradient(a, b, weights, bandwidth)
        assert values[i].item() == pytest.approx(value, rel=1e-12)
        found = torch.cat([z_s.grad[i], z_t.grad[i]]).numpy()
        np.testing.assert_allclose(found, scale[i].item() * gradient, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("sizes", [(1, 1), (4, 4), (5, 8), (9, 2)])
@pytest.mark.parametrize("bandwidth", [None, 2.0])
@pytest.mark.usefixtures("tiling")
def test_value_and_gradient_are_those_of_all_pairs(sizes, bandwidth):
    args = batch(*sizes)
    value, gradient = value_and_gradient(*args, bandwidth)
    expected, expected_gradient = brute_force(*args, bandwidth)
    assert value == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("counts", [(3, 4, 0, 3, 3), (10, 1, 1, 0, 1)])
@pytest.mark.parametrize("bandwidth", [None, 2.0])
@pytest.mark.parametrize("tile", [2, 100])
def test_pairs_of_different_classes_are_left_out_and_nothing_else_changes(
    counts, bandwidth, tile, monkeypatch
):
    monkeypatch.setattr(kernels, "_WHOLE", 3 if tile == 2 else 12)
    monkeypatch.setattr(kernels, "_TILE", tile)
    sorted_, of = [], kernels._ByClass.of
    monkeypatch.setattr(
        kernels._ByClass, "of", lambda *args: sorted_.append(of(*args)) or sorted_[-1]
    )
    *args, classes = by_class(6, 7, counts)
    z_s, z_t = (z.clone().requires_grad_() for z in args[:2])
    value = kernel_discrepancy(z_s, z_t, args[2], bandwidth, classes)
    value.backward()
    # One large class is not worth the empty places of the others.
    assert [found is not None for found in sorted_] == [max(counts) < 10]
    expected, expected_gradient = brute_force(*args, bandwidth)
    assert value.item() == pytest.approx(expected, rel=1e-12)
    gradient = torch.cat([z_s.grad, z_t.grad]).numpy()
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-10, atol=1e-12)


def test_classes_of_several_problems_at_once(monkeypatch):
    monkeypatch.setattr(kernels, "_WHOLE", 6)
    several = [by_class(6, 7, (3, 4, 0, 3, 3), seed=i)[:2] for i in range(3)]
    *_, weights, classes = by_class(6, 7, (3, 4, 0, 3, 3))
    z_s, z_t = (torch.stack([b[side] for b in several]).requires_grad_() for side in (0, 1))
    values = kernel_discrepancy(z_s, z_t, weights, None, classes)
    (values * torch.tensor([1.0, -2.0, 0.5])).sum().backward()
    for i, (a, b) in enumerate(several):
        value, gradient = brute_force(a, b, weights)
        assert values[i].item() == pytest.approx(value, rel=1e-12)
        found = torch.cat([z_s.grad[i], z_t.grad[i]]).numpy()
        np.testing.assert_allclose(found, [1.0, -2.0, 0.5][i] * gradient, rtol=1e-10, atol=1e-12)


@pytest.mark.usefixtures("tiling")
def test_gradcheck():
    z_s, z_t, weights = batch(4, 5)
    assert torch.autograd.gradcheck(
        lambda a, b: kernel_discrepancy(a, b, weights, bandwidth=3.0),
        (z_s.requires_grad_(), z_t.requires_grad_()),
    )


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_the_tiles_of_large_batches_agree_with_the_whole(offset, monkeypatch):
    args = batch(150, 171, d=16, offset=offset, dtype=torch.float32)
    tiled = value_and_gradient(*args)
    monkeypatch.setattr(kernels, "_WHOLE", 10**6)
    whole = value_and_gradient(*args)
    exact = value_and_gradient(*(a.double() for a in args))
    assert tiled[0] == pytest.approx(exact[0], rel=1e-4)
    for _, gradient in (tiled, whole):
        np.testing.assert_allclose(gradient, exact[1], atol=1e-4 * np.abs(exact[1]).max())


def test_nothing_of_the_size_of_the_gram_matrix_is_kept():
    z_s, z_t, weights = batch(300, 300, d=8)
    kept = []
    hooks = torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: kept.append(tensor.numel()) or tensor, lambda tensor: tensor
    )
    with hooks:
        kernel_discrepancy(z_s.requires_grad_(), z_t, weights)
    assert sum(kept) <= 3 * 600 * 8


def test_without_gradient_the_value_is_the_same():
    args = batch(6, 7)
    with torch.no_grad():
        value = kernel_discrepancy(*args).item()
    assert value == value_and_gradient(*args)[0]


def test_a_second_derivative_is_refused_in_words():
    z_s, z_t, weights = batch(3, 3)
    z_s.requires_grad_()
    value = kernel_discrepancy(z_s, z_t, weights)
    with pytest.raises(RuntimeError, match="can't be differentiated again"):
        torch.autograd.grad(value, z_s, create_graph=True)


# To read an autograd function, the compiler of torch 2.11 makes an instance of it, of which torch
# itself warns.
@pytest.mark.filterwarnings("ignore:.* should not be instantiated:DeprecationWarning")
def test_torch_compile_takes_it_whole():
    z_s, z_t, weights = batch(6, 7)

    def loss(a, b):
        return kernel_discrepancy(a, b, weights)

    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    z_s.requires_grad_()
    value = compiled(z_s, z_t)
    (gradient,) = torch.autograd.grad(value, z_s)
    expected = loss(z_s, z_t)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, z_s)[0])


def far_apart(n, copies):
    """Single-precision rows whose squared norms round by more than the bandwidth 0.01."""
    z = 1000 * torch.randn(n, 64, generator=torch.Generator().manual_seed(0))
    return torch.cat([z, z]) if copies else z


def test_a_row_is_at_distance_nought_from_itself():
    z_s, z_t = far_apart(16, copies=False).split(8)
    weights = torch.eye(16)  # nothing but the diagonal
    value = kernel_discrepancy(z_s, z_t, weights, bandwidth=0.01)
    assert value.item() == pytest.approx(16 * 5)  # five kernels of distance nought


def test_no_distance_is_negative():
    z_s, z_t = far_apart(64, copies=True).split(64)
    value = kernel_discrepancy(z_s, z_t, torch.full((128, 1), 1.0), bandwidth=0.01)
    # Each kernel is at most 1; of the 128^2 pairs, only a row, its copy and they are near.
    assert value.item() <= 128 * 2 * 5 * (1 + 1e-5)


def test_rounding_is_no_distance():
    """Rows that differ in their last bit alone are the same row."""
    value = torch.tensor(1000.0)
    z_v = torch.full((6, 16), value.item())
    z_a = torch.full((6, 16), torch.nextafter(value, torch.tensor(2000.0)).item())
    y = torch.arange(6) % 2
    assert lmmd(z_v, z_a, y, y).item() < 1.0
