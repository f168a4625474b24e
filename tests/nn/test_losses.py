import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skfdan.nn import LMMDLoss, dsan_ramp, lmmd, mmd


def mean_squared_distance(z):
    """b: the sum of all pairwise squared distances over N^2 - N."""
    n = len(z)
    total = sum(((z[i] - z[j]) ** 2).sum() for i in range(n) for j in range(n))
    return total / (n * n - n)


def brute_force(z_v, z_a, m_v, m_a, n_classes=None, bandwidth=None):
    """Eq. 8 as it stands in the paper, for class memberships m of shape (n, C)."""
    z_v, z_a, m_v, m_a = (np.asarray(x, dtype=np.float64) for x in (z_v, z_a, m_v, m_a))
    b = mean_squared_distance(np.concatenate([z_v, z_a])) if bandwidth is None else bandwidth

    def k(x, y):
        d = ((x - y) ** 2).sum()
        return sum(math.exp(-d / width) for width in (b / 4, b / 2, b, 2 * b, 4 * b))

    total, shared = 0.0, 0
    for c in range(m_v.shape[1]):
        sum_v, sum_a = m_v[:, c].sum(), m_a[:, c].sum()
        if sum_v == 0 or sum_a == 0:
            continue
        shared += 1
        w_v, w_a = m_v[:, c] / sum_v, m_a[:, c] / sum_a
        for m in range(len(z_v)):
            for n in range(len(z_v)):
                total += w_v[m] * w_v[n] * k(z_v[m], z_v[n])
        for m in range(len(z_a)):
            for n in range(len(z_a)):
                total += w_a[m] * w_a[n] * k(z_a[m], z_a[n])
        for m in range(len(z_v)):
            for n in range(len(z_a)):
                total -= 2 * w_v[m] * w_a[n] * k(z_v[m], z_a[n])
    if shared == 0:
        return 0.0
    return total / (shared if n_classes is None else n_classes)


def batch(n_v, n_a, d=5, shift=0.5, seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    z_v = torch.randn(n_v, d, generator=g, dtype=torch.float64)
    z_a = 1.5 * torch.randn(n_a, d, generator=g, dtype=torch.float64) + shift
    return z_v.to(dtype), z_a.to(dtype)


def one_hot(y, n):
    return np.eye(n)[np.asarray(y)]


LABELS = {
    "equal sizes": ([0, 1, 2, 0, 1, 2], [2, 1, 0, 0, 1, 2]),
    "more faces": ([0, 1, 2, 0, 1, 2, 2, 2], [2, 1, 0]),
    "more voices": ([1, 0], [0, 1, 0, 0, 1, 0, 1]),
    "no face of class 2": ([0, 1, 0, 1, 1], [2, 2, 1, 0]),
    "no voice of class 0 and 3": ([0, 1, 2, 3], [1, 2, 2]),
    "one class in common": ([0, 0, 3, 3], [1, 3, 3, 1, 1]),
    "one sample each": ([1], [1]),
}


@pytest.mark.parametrize("n_classes", [None, 4, 7])
@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS.keys())
def test_lmmd_is_equation_8(labels, n_classes):
    y_v, y_a = labels
    z_v, z_a = batch(len(y_v), len(y_a))
    expected = brute_force(z_v, z_a, one_hot(y_v, 4), one_hot(y_a, 4), n_classes)
    got = lmmd(z_v, z_a, torch.tensor(y_v), torch.tensor(y_a), n_classes)
    assert got.shape == ()
    assert expected > 1e-3
    assert got.item() == pytest.approx(expected, rel=0, abs=1e-10)


@pytest.mark.parametrize("n_classes", [None, 3])
def test_lmmd_with_soft_labels(n_classes):
    z_v, z_a = batch(7, 4)
    rng = np.random.default_rng(0)
    m_v, m_a = rng.dirichlet([0.5] * 3, 7), rng.dirichlet([0.5] * 3, 4)
    expected = brute_force(z_v, z_a, m_v, m_a, n_classes)
    got = lmmd(z_v, z_a, torch.tensor(m_v), torch.tensor(m_a), n_classes)
    assert got.item() == pytest.approx(expected, rel=0, abs=1e-10)


def test_hard_and_soft_labels_mix():
    z_v, z_a = batch(6, 4)
    y_v = [0, 1, 1, 0, 1, 0]
    m_a = np.random.default_rng(0).dirichlet([1.0] * 3, 4)
    expected = brute_force(z_v, z_a, one_hot(y_v, 3), m_a)
    assert lmmd(z_v, z_a, torch.tensor(y_v), torch.tensor(m_a)).item() == pytest.approx(
        expected, rel=0, abs=1e-10
    )
    swapped = lmmd(z_a, z_v, torch.tensor(m_a), torch.tensor(y_v))
    assert swapped.item() == pytest.approx(expected, rel=0, abs=1e-10)


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.float32, torch.float64])
def test_labels_of_any_type_mean_the_same(dtype):
    z_v, z_a = batch(4, 3)
    y_v, y_a = torch.tensor([0, 1, 2, 1]), torch.tensor([2, 0, 1])
    expected = lmmd(z_v, z_a, y_v, y_a).item()
    if dtype.is_floating_point:
        y_v, y_a = torch.eye(3)[y_v], torch.eye(3)[y_a]
    got = lmmd(z_v, z_a, y_v.to(dtype), y_a.to(dtype))
    assert got.dtype == torch.float64
    assert got.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("bandwidth", [0.3, 2.0, torch.tensor(11.0, dtype=torch.float64)])
def test_lmmd_with_a_given_bandwidth(bandwidth):
    y_v, y_a = [0, 1, 2, 0, 1], [1, 2, 0]
    z_v, z_a = batch(5, 3)
    expected = brute_force(z_v, z_a, one_hot(y_v, 3), one_hot(y_a, 3), bandwidth=float(bandwidth))
    got = lmmd(z_v, z_a, torch.tensor(y_v), torch.tensor(y_a), bandwidth=bandwidth)
    assert got.item() == pytest.approx(expected, rel=0, abs=1e-10)


def test_gradcheck_with_a_fixed_bandwidth():
    z_v, z_a = (z.requires_grad_() for z in batch(5, 4, d=3))
    y_v, y_a = torch.tensor([0, 1, 2, 0, 3]), torch.tensor([1, 2, 0, 0])
    assert torch.autograd.gradcheck(lambda v, a: lmmd(v, a, y_v, y_a, bandwidth=2.5), (z_v, z_a))
    assert torch.autograd.gradcheck(lambda v, a: lmmd(v, a, y_v, y_a, 9, bandwidth=0.7), (z_v, z_a))


def test_no_gradient_flows_through_the_adaptive_bandwidth():
    y_v, y_a = torch.tensor([0, 1, 2, 0, 1]), torch.tensor([1, 2, 0])
    z = torch.cat(batch(5, 3)).requires_grad_()
    fixed = mean_squared_distance(z.detach().numpy())

    def gradient(bandwidth):
        return torch.autograd.grad(lmmd(z[:5], z[5:], y_v, y_a, bandwidth=bandwidth), z)[0]

    adaptive = gradient(None)
    assert adaptive.abs().max() > 1e-3
    torch.testing.assert_close(adaptive, gradient(fixed), rtol=1e-10, atol=1e-12)

    # The full derivative of the adaptive loss is another one, so the comparison means something.
    step = 1e-6 * torch.eye(8 * 5, dtype=torch.float64)[0].reshape(8, 5)
    with torch.no_grad():
        up, down = (lmmd((z + s)[:5], (z + s)[5:], y_v, y_a) for s in (step, -step))
    assert abs((up - down).item() / 2e-6 - adaptive[0, 0].item()) > 1e-4


def test_a_gradient_step_brings_the_batches_together():
    y_v, y_a = torch.tensor([0, 1, 0, 1]), torch.tensor([1, 0, 1])
    z_v, z_a = (z.requires_grad_() for z in batch(4, 3))
    before = lmmd(z_v, z_a, y_v, y_a, bandwidth=3.0)
    before.backward()
    with torch.no_grad():
        after = lmmd(z_v - 0.05 * z_v.grad, z_a - 0.05 * z_a.grad, y_v, y_a, bandwidth=3.0)
    assert after < before


@pytest.mark.parametrize("offset", [0.0, 1000.0])
@pytest.mark.parametrize("soft", [False, True])
def test_identical_labelled_batches_are_at_distance_nought(offset, soft):
    z, _ = batch(12, 1)
    y = torch.arange(12) % 4
    if soft:
        y = torch.softmax(torch.randn(12, 4, generator=torch.Generator().manual_seed(0)), 1)
    assert 0 <= lmmd(z + offset, z + offset, y, y).item() <= 1e-12


def test_swapped_labels_are_not_at_distance_nought():
    z, _ = batch(12, 1)
    y = torch.arange(12) % 2
    assert lmmd(z, z, y, 1 - y).item() > 1e-2


def test_only_the_distributions_within_classes_count():
    """Both batches hold the same points, each labelled by its cluster in one and not the other."""
    points = torch.tensor([[0.0], [10.0]]).repeat_interleave(4, 0)
    clusters = torch.arange(8) // 4
    assert lmmd(points, points, clusters, clusters).item() <= 1e-6
    assert lmmd(points, points, clusters, torch.arange(8) % 2).item() > 0.1


def test_permuting_the_rows_changes_nothing():
    y_v, y_a = torch.tensor([0, 1, 2, 0, 1, 1]), torch.tensor([1, 2, 0, 2])
    z_v, z_a = batch(6, 4)
    expected = lmmd(z_v, z_a, y_v, y_a).item()
    for seed in range(5):
        g = torch.Generator().manual_seed(seed)
        v, a = torch.randperm(6, generator=g), torch.randperm(4, generator=g)
        got = lmmd(z_v[v], z_a[a], y_v[v], y_a[a]).item()
        assert got == pytest.approx(expected, rel=1e-12)
    assert lmmd(z_v, z_a, y_v[torch.tensor([1, 2, 3, 4, 5, 0])], y_a).item() != pytest.approx(
        expected, rel=1e-3
    )


def test_the_modalities_play_the_same_part():
    y_v, y_a = torch.tensor([0, 1, 2, 0, 1, 1]), torch.tensor([1, 2, 0, 2])
    z_v, z_a = batch(6, 4)
    assert lmmd(z_v, z_a, y_v, y_a).item() == pytest.approx(
        lmmd(z_a, z_v, y_a, y_v).item(), rel=1e-12
    )


@pytest.mark.parametrize("d", [2, 64])
def test_float32_far_from_the_origin_agrees_with_float64(d):
    y_v, y_a = torch.arange(30) % 4, torch.arange(20) % 4
    z_v, z_a = batch(30, 20, d)
    z_v, z_a = (z_v + 1000).float(), (z_a + 1000).float()
    expected = lmmd(z_v.double(), z_a.double(), y_v, y_a).item()
    got = lmmd(z_v, z_a, y_v, y_a)
    assert got.dtype == torch.float32
    assert expected > 0.05
    assert got.item() == pytest.approx(expected, rel=1e-4)


@settings(max_examples=80, deadline=None)
@given(
    n_v=st.integers(1, 20),
    n_a=st.integers(1, 20),
    d=st.integers(1, 12),
    n_labels=st.integers(1, 5),
    log_scale=st.floats(-8, 3),
    log_shift=st.floats(-8, 3),
    offset=st.floats(-1000, 1000),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    n_classes=st.sampled_from([None, 5]),
    copies=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_lmmd_is_never_negative_and_always_finite(
    n_v, n_a, d, n_labels, log_scale, log_shift, offset, dtype, n_classes, copies, seed
):
    g = torch.Generator().manual_seed(seed)
    z_v = torch.randn(n_v, d, generator=g, dtype=torch.float64) * 10**log_scale
    z_a = torch.randn(n_a, d, generator=g, dtype=torch.float64) * 10**log_scale + 10**log_shift
    if copies:
        z_a[: min(n_a, n_v)] = z_v[: min(n_a, n_v)]
    z_v, z_a = ((z + offset).to(dtype).requires_grad_() for z in (z_v, z_a))
    y_v = torch.randint(0, n_labels, (n_v,), generator=g)
    y_a = torch.randint(0, n_labels, (n_a,), generator=g)
    loss = lmmd(z_v, z_a, y_v, y_a, n_classes)
    loss.backward()
    assert torch.isfinite(loss)
    assert loss.item() >= 0.0
    # Four is the largest squared distance of two means of unit vectors, times five kernels.
    assert loss.item() <= 20.0
    for z in (z_v, z_a):
        assert torch.isfinite(z.grad).all()


@pytest.mark.parametrize("value", [0.0, 1.1, 1000.1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_identical_rows_give_a_finite_loss_and_gradient(dtype, value):
    row = torch.linspace(value, value + 1, 16, dtype=dtype)
    z_v, z_a = (row.repeat(n, 1).requires_grad_() for n in (7, 5))
    loss = lmmd(z_v, z_a, torch.arange(7) % 3, torch.arange(5) % 3)
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-5)
    assert torch.isfinite(z_v.grad).all()
    assert torch.isfinite(z_a.grad).all()


def test_one_sample_a_side():
    z_v = torch.tensor([[0.0, 3.0]], dtype=torch.float64, requires_grad=True)
    z_a = torch.tensor([[4.0, 0.0]], dtype=torch.float64, requires_grad=True)
    y = torch.tensor([0])
    loss = lmmd(z_v, z_a, y, y)
    loss.backward()
    # D = b = 25, so k is the sum of exp(-4), exp(-2), exp(-1), exp(-1/2), exp(-1/4).
    k = sum(math.exp(-x) for x in (4, 2, 1, 0.5, 0.25))
    assert loss.item() == pytest.approx(2 * 5 - 2 * k, rel=1e-12)
    assert torch.isfinite(z_v.grad).all()
    assert z_v.grad.abs().max() > 0
    torch.testing.assert_close(z_v.grad, -z_a.grad)


@pytest.mark.parametrize(
    ("y_v", "y_a"),
    [([0, 0, 1], [2, 3]), ([0, 1, 1], []), ([], [])],
    ids=["no class", "no voice", "nothing"],
)
def test_no_common_class_is_nought_with_a_usable_gradient(y_v, y_a):
    z_v, z_a = (z.requires_grad_() for z in batch(len(y_v), len(y_a)))
    labels = (torch.tensor(y, dtype=torch.long) for y in (y_v, y_a))
    loss = lmmd(z_v, z_a, *labels)
    assert loss.item() == 0.0
    (loss + z_v.sum()).backward()
    torch.testing.assert_close(z_v.grad, torch.ones_like(z_v))
    torch.testing.assert_close(z_a.grad, torch.zeros_like(z_a))


def test_a_class_of_one_side_gets_no_gradient():
    z_v, z_a = (z.requires_grad_() for z in batch(4, 3))
    y_v, y_a = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 2, 2])
    lmmd(z_v, z_a, y_v, y_a).backward()
    assert z_v.grad[:2].abs().max() > 1e-3
    assert z_v.grad[2:].abs().max() <= 1e-12
    assert z_a.grad[1:].abs().max() <= 1e-12


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((4, 3), (4, 2), (4,), (4,)), r"equal width; got shapes \(4, 3\) and \(4, 2\)"),
        (((4, 3, 1), (4, 3, 1), (4,), (4,)), "two matrices of equal width"),
        (((3,), (3,), (3,), (3,)), "two matrices of equal width"),
        (((4, 3), (2, 3), (3,), (2,)), "4 visual rows but 3 visual labels"),
        (((4, 3), (2, 3), (4,), (4,)), "2 audio rows but 4 audio labels"),
        (((4, 3), (2, 3), (4, 1), (2,)), r"visual has torch.int64 of shape \(4, 1\)"),
    ],
)
def test_shape_errors(shapes, message):
    z_v, z_a = torch.zeros(shapes[0]), torch.zeros(shapes[1])
    y_v, y_a = (torch.zeros(s, dtype=torch.long) for s in shapes[2:])
    with pytest.raises(ValueError, match=message):
        lmmd(z_v, z_a, y_v, y_a)


def test_soft_label_errors():
    z = torch.zeros(4, 3)
    with pytest.raises(ValueError, match="3 visual classes but 2 audio classes"):
        lmmd(z, z, torch.ones(4, 3), torch.ones(4, 2))
    # Labels that became floats by mistake are not memberships.
    with pytest.raises(ValueError, match=r"audio has torch.float32 of shape \(4,\)"):
        lmmd(z, z, torch.zeros(4, dtype=torch.long), torch.zeros(4))


# the module


def test_module_hands_on_its_parameters():
    y_v, y_a = torch.tensor([0, 1, 2, 0]), torch.tensor([1, 2, 0])
    z_v, z_a = batch(4, 3)
    for n_classes in (None, 6):
        expected = brute_force(z_v, z_a, one_hot(y_v, 3), one_hot(y_a, 3), n_classes)
        assert LMMDLoss(n_classes)(z_v, z_a, y_v, y_a).item() == pytest.approx(expected, abs=1e-10)
    assert repr(LMMDLoss(6, normalize=True)) == "LMMDLoss(n_classes=6, normalize=True)"
    assert not list(LMMDLoss().parameters())


def test_normalize_divides_every_row_by_its_norm():
    y_v, y_a = torch.tensor([0, 1, 2, 0]), torch.tensor([1, 2, 0])
    z_v, z_a = batch(4, 3)
    unit_v, unit_a = (z.numpy() / np.sqrt((z.numpy() ** 2).sum(1))[:, None] for z in (z_v, z_a))
    expected = brute_force(unit_v, unit_a, one_hot(y_v, 3), one_hot(y_a, 3))
    loss = LMMDLoss(normalize=True)
    assert loss(z_v, z_a, y_v, y_a).item() == pytest.approx(expected, abs=1e-10)
    # Each row may be scaled on its own.
    scales = torch.tensor([[0.01], [3.0], [500.0], [1.0]], dtype=torch.float64)
    assert loss(scales * z_v, 7 * z_a, y_v, y_a).item() == pytest.approx(expected, abs=1e-10)
    assert LMMDLoss()(scales * z_v, 7 * z_a, y_v, y_a).item() != pytest.approx(expected, rel=0.01)


def test_normalize_survives_dead_features():
    z_v, z_a = (torch.zeros(3, 4, requires_grad=True) for _ in range(2))
    loss = LMMDLoss(normalize=True)(z_v, z_a, torch.arange(3), torch.arange(3))
    loss.backward()
    assert loss.item() == 0.0
    assert torch.isfinite(z_v.grad).all()


# the ramp


@pytest.mark.parametrize("gamma", [1.0, 10.0])
def test_ramp_is_a_rescaled_logistic(gamma):
    for progress in (0.0, 0.1, 0.5, 1.0):
        # 2 / (1 + exp(-x)) - 1 = tanh(x / 2)
        assert dsan_ramp(progress, gamma) == pytest.approx(math.tanh(gamma * progress / 2))


def test_ramp_values():
    assert dsan_ramp(0.0) == 0.0
    assert dsan_ramp(1.0) == pytest.approx(0.9999, abs=1e-5)
    assert dsan_ramp(0.5) == pytest.approx(0.98661, abs=1e-5)
    assert dsan_ramp(1.0, gamma=1.0) == pytest.approx(0.46212, abs=1e-5)


@pytest.mark.parametrize("bad", [-1, 3])
@pytest.mark.parametrize("side", [0, 1])
def test_labels_that_are_no_class_are_refused(bad, side):
    # Soft labels say how many classes there are; whole ones alone only that none is negative.
    z, whole = torch.rand(4, 2), torch.tensor([0, 1, bad, 2])
    y = [torch.full((4, 3), 1 / 3), torch.full((4, 3), 1 / 3)]
    y[side] = whole
    with pytest.raises(ValueError, match=r"class indices go from -?\d to [23]"):
        lmmd(z, z, *y)
    if bad < 0:
        with pytest.raises(ValueError, match="class indices go from -1 to 2"):
            lmmd(z, z, whole, whole)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.uint8, torch.bool])
@pytest.mark.parametrize("n", [20, 100])
def test_integers_of_any_size_are_labels(n, dtype):
    g = torch.Generator().manual_seed(0)
    z_v, z_a = torch.randn(n, 3, generator=g), torch.randn(n, 3, generator=g)
    y = torch.arange(n) % 2
    torch.testing.assert_close(
        lmmd(z_v, z_a, y.to(dtype), y.to(dtype)), lmmd(z_v, z_a, y, y), rtol=0, atol=0
    )


@pytest.mark.parametrize("bandwidth", [0, -1.0, math.inf, math.nan])
@pytest.mark.parametrize("loss", [lmmd, mmd])
def test_a_bandwidth_is_positive(loss, bandwidth):
    z, y = torch.randn(4, 2), torch.arange(4) % 2
    labels = (y, y) if loss is lmmd else ()
    with pytest.raises(ValueError, match=f"bandwidth={bandwidth!r} must be positive"):
        loss(z, z, *labels, bandwidth=bandwidth)


def test_labels_are_of_as_many_classes_as_are_said():
    z, y = torch.randn(5, 2), torch.arange(5)
    for labels in (y, torch.nn.functional.one_hot(y).float()):
        with pytest.raises(ValueError, match="n_classes=2, but the labels are of 5 classes"):
            lmmd(z, z, labels, labels, 2)
    with pytest.raises(ValueError, match="n_classes=0 must be at least 1"):
        lmmd(z, z, y, y, 0)
