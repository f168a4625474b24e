import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from skfdan.nn import ADAPTATIONS, AdaptationLoss, cmd, coral, lmmd, memberships, mmd

SIZES = [(6, 6), (7, 3), (2, 5)]


def batch(n_s, n_t, d=4, seed=0):
    g = torch.Generator().manual_seed(seed)
    z_s = torch.randn(n_s, d, generator=g, dtype=torch.float64)
    z_t = 1.5 * torch.randn(n_t, d, generator=g, dtype=torch.float64) + 0.5
    return z_s, z_t


def brute_force_mmd(z_s, z_t, bandwidth=None):
    z_s, z_t = z_s.numpy(), z_t.numpy()
    z = np.concatenate([z_s, z_t])
    n = len(z)
    if bandwidth is None:
        bandwidth = sum(((a - b) ** 2).sum() for a in z for b in z) / (n * n - n)

    def mean_kernel(left, right):
        total = 0.0
        for a in left:
            for b in right:
                distance = ((a - b) ** 2).sum()
                total += sum(math.exp(-distance / (bandwidth * 2.0**i)) for i in range(-2, 3))
        return total / (len(left) * len(right))

    return mean_kernel(z_s, z_s) + mean_kernel(z_t, z_t) - 2 * mean_kernel(z_s, z_t)


def brute_force_coral(z_s, z_t):
    d = z_s.shape[1]
    difference = np.atleast_2d(np.cov(z_s.numpy().T)) - np.atleast_2d(np.cov(z_t.numpy().T))
    return sum(difference[i, j] ** 2 for i in range(d) for j in range(d)) / (4 * d * d)


def brute_force_cmd(z_s, z_t, n_moments=5, span=1.0):
    z_s, z_t = z_s.numpy(), z_t.numpy()
    d = z_s.shape[1]
    total = 0.0
    for k in range(1, n_moments + 1):
        squares = 0.0
        for j in range(d):
            s, t = z_s[:, j], z_t[:, j]
            if k == 1:
                moment_s, moment_t = sum(s) / len(s), sum(t) / len(t)
            else:
                moment_s = sum((x - s.mean()) ** k for x in s) / len(s)
                moment_t = sum((x - t.mean()) ** k for x in t) / len(t)
            squares += (moment_s - moment_t) ** 2
        total += math.sqrt(squares) / span**k
    return total


# ---------------------------------------------------------------------- values


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize(
    ("loss", "expected"),
    [(mmd, brute_force_mmd), (coral, brute_force_coral), (cmd, brute_force_cmd)],
    ids=["mmd", "coral", "cmd"],
)
def test_values(loss, expected, sizes):
    z_s, z_t = batch(*sizes)
    value = expected(z_s, z_t)
    assert value > 1e-3
    assert loss(z_s, z_t).shape == ()
    assert loss(z_s, z_t).item() == pytest.approx(value, rel=1e-10)


@pytest.mark.parametrize("bandwidth", [0.3, 4.0])
def test_mmd_with_a_given_bandwidth(bandwidth):
    z = batch(5, 3)
    expected = brute_force_mmd(*z, bandwidth)
    assert mmd(*z, bandwidth=bandwidth).item() == pytest.approx(expected, rel=1e-10)


def test_mmd_is_lmmd_of_one_class():
    z_s, z_t = batch(5, 3)
    zeros = [torch.zeros(len(z), dtype=torch.long) for z in (z_s, z_t)]
    assert mmd(z_s, z_t).item() == pytest.approx(lmmd(z_s, z_t, *zeros).item(), rel=1e-12)


@pytest.mark.parametrize(("n_moments", "span"), [(1, 1.0), (3, 2.0), (5, 0.5), (6, 1.0)])
def test_cmd_moments_and_span(n_moments, span):
    z = batch(6, 4)
    expected = brute_force_cmd(*z, n_moments, span)
    assert cmd(*z, n_moments, span).item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("loss", [mmd, coral, cmd])
def test_identical_batches_are_at_distance_nought_with_a_finite_gradient(loss):
    z, _ = batch(6, 1)
    source, target = (z.clone().requires_grad_() for _ in range(2))
    value = loss(source, target)
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-12)
    assert torch.isfinite(source.grad).all()
    assert torch.isfinite(target.grad).all()


@pytest.mark.parametrize("loss", [mmd, coral, cmd])
def test_order_and_side_do_not_matter(loss):
    z_s, z_t = batch(7, 5)
    value = loss(z_s, z_t).item()
    assert loss(z_s.flip(0), z_t.roll(2, 0)).item() == pytest.approx(value, rel=1e-10)
    assert loss(z_t, z_s).item() == pytest.approx(value, rel=1e-10)


def test_what_each_distance_sees():
    z, _ = batch(40, 1)
    moved, stretched = z + 1, z * torch.tensor([1.0, 1.0, 1.0, 2.0], dtype=torch.float64)
    assert coral(z, moved).item() == pytest.approx(0, abs=1e-12)
    assert cmd(z, moved).item() == pytest.approx(2.0)  # the means only: sqrt(4)
    assert mmd(z, moved).item() > 0.05
    assert coral(z, stretched).item() > 0.05


@pytest.mark.parametrize("sizes", [(1, 4), (4, 1), (1, 1)])
def test_a_batch_of_one(sizes):
    z_s, z_t = (z.requires_grad_() for z in batch(*sizes))
    losses = {loss: loss(z_s, z_t) for loss in (mmd, coral, cmd)}
    sum(losses.values()).backward()
    assert losses[coral].item() == 0
    assert losses[mmd].item() > 0
    assert losses[cmd].item() == pytest.approx(brute_force_cmd(z_s.detach(), z_t.detach()))
    assert torch.isfinite(z_s.grad).all()
    assert torch.isfinite(z_t.grad).all()


@pytest.mark.parametrize("loss", [mmd, coral, cmd])
def test_an_empty_batch_is_nought_with_a_usable_gradient(loss):
    z_s, z_t = (z.requires_grad_() for z in batch(4, 0))
    value = loss(z_s, z_t)
    (value + z_s.sum()).backward()
    assert value.item() == 0
    assert torch.equal(z_s.grad, torch.ones_like(z_s))


@pytest.mark.parametrize("loss", [mmd, coral, cmd])
def test_widths_must_agree(loss):
    with pytest.raises(ValueError, match=rf"{loss.__name__} needs two matrices of equal width.*3"):
        loss(torch.zeros(4, 3), torch.zeros(4, 2))


# ---------------------------------------------------------------------- gradients


@pytest.mark.parametrize(
    "loss",
    [lambda s, t: mmd(s, t, bandwidth=2.5), coral, cmd, lambda s, t: cmd(s, t, 4, 2.0)],
    ids=["mmd", "coral", "cmd", "cmd, other interval"],
)
@pytest.mark.parametrize("sizes", [(5, 4), (2, 3)])
def test_gradients(loss, sizes):
    assert torch.autograd.gradcheck(loss, tuple(z.requires_grad_() for z in batch(*sizes, d=3)))


@pytest.mark.parametrize("loss", [mmd, coral, cmd])
def test_a_gradient_step_brings_the_batches_together(loss):
    z_s, z_t = (z.requires_grad_() for z in batch(8, 6))
    before = loss(z_s, z_t)
    before.backward()
    with torch.no_grad():
        assert loss(z_s - 1e-3 * z_s.grad, z_t - 1e-3 * z_t.grad) < before


# ---------------------------------------------------------------------- memberships


def test_memberships_are_labels_or_probabilities():
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(7, 3, generator=g, dtype=torch.float64).requires_grad_()
    y = torch.tensor([0, -1, 2, -1, 1, -1, 1])
    expected = []
    for row, label in zip(logits.tolist(), y.tolist(), strict=True):
        weights = [math.exp(v) for v in row] if label < 0 else [float(c == label) for c in range(3)]
        expected.append([w / sum(weights) for w in weights])
    got = memberships(logits, y)
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-12)
    assert not got.requires_grad


def test_a_class_that_no_row_most_probably_belongs_to_is_absent():
    logits = torch.tensor([[0.0, 1.0, 0.9], [0.5, 0.6, 0.0], [9.0, 0.0, 0.0]])
    soft = logits.softmax(1)
    got = memberships(logits, torch.tensor([-1, -1, -1]))
    torch.testing.assert_close(got[:, :2], soft[:, :2])
    assert (got[:, 2] == 0).all()
    # A true label makes the class present.
    got = memberships(logits, torch.tensor([-1, -1, 2]))
    torch.testing.assert_close(got[:2, 1:], soft[:2, 1:])
    assert (got[:, 0] == 0).all()
    assert got[2].tolist() == [0, 0, 1]


# ---------------------------------------------------------------------- the module


def layers_of_batches(n_layers=2):
    return [
        dict(zip(("visual", "audio"), batch(6, 4, seed=i), strict=True)) for i in range(n_layers)
    ]


def make_inputs(y_audio=(0, 1, 2, 0)):
    g = torch.Generator().manual_seed(9)
    logits = {
        "visual": torch.randn(6, 3, generator=g, dtype=torch.float64),
        "audio": torch.randn(4, 3, generator=g, dtype=torch.float64),
    }
    y = {"visual": torch.arange(6) % 3, "audio": torch.tensor(y_audio)}
    return logits, y


def make_loss(name, **kwargs):
    torch.manual_seed(0)
    return AdaptationLoss(name, n_layers=2, n_features=4, n_classes=3, **kwargs).double()


@pytest.mark.parametrize("name", ["mmd", "coral", "cmd"])
def test_layers_are_summed(name):
    layers = layers_of_batches()
    if name == "cmd":  # of the sigmoid, whose interval is (0, 1)
        inside = [{m: 1 / (1 + (-z).exp()) for m, z in layer.items()} for layer in layers]
        expected = sum(brute_force_cmd(z["visual"], z["audio"]) for z in inside)
    else:
        value = {"mmd": brute_force_mmd, "coral": brute_force_coral}[name]
        expected = sum(value(z["visual"], z["audio"]) for z in layers)
    got = make_loss(name)(layers, *make_inputs(), progress=0.3)
    assert got.item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("divide_by_all", [True, False])
def test_lmmd_uses_labels_and_dsan_probabilities_where_labels_lack(divide_by_all):
    layers = layers_of_batches()
    divisor = 3 if divide_by_all else None

    def expected(audio):
        return sum(lmmd(z["visual"], z["audio"], y["visual"], audio, divisor) for z in layers)

    logits, y = make_inputs()
    by_labels = make_loss("lmmd", divide_by_all=divide_by_all)(layers, logits, y, 0.0)
    assert by_labels.item() == pytest.approx(expected(y["audio"]).item(), rel=1e-12)
    dsan = make_loss("dsan", divide_by_all=divide_by_all)
    assert dsan(layers, logits, y, 0.0).item() == pytest.approx(by_labels.item(), rel=1e-12)

    logits, y = make_inputs(y_audio=(-1, 1, -1, -1))
    soft = logits["audio"].softmax(1)
    soft[1] = torch.tensor([0.0, 1.0, 0.0])
    soft[:, [c for c in range(3) if c not in soft.argmax(1).tolist()]] = 0
    got = dsan(layers, logits, y, 0.0)
    assert got.item() == pytest.approx(expected(soft).item(), rel=1e-12)
    assert got.item() != pytest.approx(by_labels.item(), rel=1e-3)


@pytest.mark.parametrize("y_audio", [(0, 1, 2, 0), (2, 0, 0, 2), (1, 1, 1, 1)])
@pytest.mark.parametrize("divide_by_all", [True, False])
def test_memberships_of_known_labels_are_the_labels_to_lmmd(divide_by_all, y_audio):
    # On CUDA lmmd is given them, so that it needs to read no label.
    logits, y = make_inputs(y_audio)
    soft = {m: memberships(logits[m], y[m]) for m in y}
    values = []
    for labels in (y, soft):
        layers = [
            {m: z.requires_grad_() for m, z in layer.items()} for layer in layers_of_batches()
        ]
        loss = make_loss("lmmd", divide_by_all=divide_by_all)(layers, logits, labels, 0.0)
        values.append([loss, *torch.autograd.grad(loss, layers[0].values())])
    for of_labels, of_memberships in zip(*values, strict=True):
        torch.testing.assert_close(of_memberships, of_labels, rtol=1e-12, atol=1e-14)


def test_no_gradient_flows_through_pseudo_labels():
    logits, y = make_inputs(y_audio=(-1, -1, -1, -1))
    logits = {m: v.requires_grad_() for m, v in logits.items()}
    layers = [{m: z.requires_grad_() for m, z in layer.items()} for layer in layers_of_batches()]
    make_loss("dsan")(layers, logits, y, 0.0).backward()
    assert layers[0]["audio"].grad.abs().max() > 0
    assert all(v.grad is None for v in logits.values())


@pytest.mark.parametrize("name", ["lmmd", "dsan", "mmd"])
def test_normalize(name):
    loss, plain = make_loss(name, normalize=True), make_loss(name)
    layers, inputs = layers_of_batches(), make_inputs()
    scaled = [{m: 7 * z for m, z in layer.items()} for layer in layers]
    unit = [{m: F.normalize(z, dim=1) for m, z in layer.items()} for layer in layers]
    expected = plain(unit, *inputs, 0.0).item()
    assert loss(layers, *inputs, 0.0).item() == pytest.approx(expected, rel=1e-10)
    assert loss(scaled, *inputs, 0.0).item() == pytest.approx(expected, rel=1e-10)
    assert plain(layers, *inputs, 0.0).item() != pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("name", ["dann", "daan"])
@pytest.mark.parametrize("progress", [0.0, 0.2, 1.0])
def test_the_reversal_follows_its_schedule(name, progress):
    """The features' gradient is that of an unreversed loss times -(2 / (1 + e^-10p) - 1)."""
    loss = make_loss(name).eval()
    layers = [{m: z.requires_grad_() for m, z in layer.items()} for layer in layers_of_batches()]
    logits, y = make_inputs()
    loss(layers, logits, y, progress).backward()
    step = 1e-6
    coefficient = math.tanh(5 * progress)  # another way to write the schedule
    for layer in (0, 1):
        for modality, (i, j) in {"visual": (3, 1), "audio": (2, 0)}.items():
            values = []
            for sign in (1, -1):
                changed = [{m: z.detach().clone() for m, z in each.items()} for each in layers]
                changed[layer][modality][i, j] += sign * step
                values.append(loss(changed, logits, y, progress).item())
            slope = (values[0] - values[1]) / (2 * step)
            assert abs(slope) > 1e-6
            got = layers[layer][modality].grad[i, j].item()
            assert got == pytest.approx(-coefficient * slope, rel=1e-3, abs=1e-9)


def test_every_layer_has_discriminators_of_its_own():
    for name, n_discriminators in (("dann", 1), ("daan", 4)):
        loss = make_loss(name)
        # Two hidden layers of 4 (DANN) or 16 (DAAN) units on 4 features.
        h = 4 if name == "dann" else 16
        one = (4 * h + h) + (h * h + h) + (h + 1)
        assert sum(p.numel() for p in loss.parameters()) == 2 * n_discriminators * one
        loss(layers_of_batches(), *make_inputs(), progress=0.5).backward()
        assert all(p.grad.abs().max() > 0 for p in loss.parameters())
    for name in set(ADAPTATIONS) - {"dann", "daan"}:
        assert not list(make_loss(name).parameters())


def test_mu_is_daans_alone_and_set_at_the_end_of_an_epoch():
    assert make_loss("dann").mu is None
    loss = make_loss("daan").train()
    layers, inputs = layers_of_batches(), make_inputs()
    loss(layers, *inputs, 0.5)
    loss(layers, *inputs, 0.5)
    assert loss.mu.item() == 0.5
    loss.end_epoch()
    each = [adversary.mu.item() for adversary in loss.adversaries]
    assert loss.mu.item() == pytest.approx(sum(each) / 2)
    assert each != [0.5, 0.5]


def test_unknown_name_and_repr():
    with pytest.raises(ValueError, match=r"'ot' is unknown; choose one of 'lmmd', 'dsan', "):
        make_loss("ot")
    assert repr(make_loss("coral")).startswith("AdaptationLoss(\n  name='coral', normalize=False")


Y = torch.arange(128) % 4
LOSSES = {
    "lmmd": lambda s, t: lmmd(s, t, Y[: len(s)], Y[: len(t)], 4),
    "mmd": mmd,
    "coral": coral,
    "cmd": lambda s, t: cmd(s.sigmoid(), t.sigmoid()),
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(
    ("dtype", "offset"), [(torch.float16, 0.0), (torch.float16, 20.0), (torch.bfloat16, 100.0)]
)
def test_half_precision_is_computed_with_as_single(name, dtype, offset):
    # The squared norms of such features are above 65504, the largest number of float16.
    g = torch.Generator().manual_seed(0)
    source, target = (torch.randn(128, 256, generator=g) + k + offset for k in (0.0, 0.5))
    halves = [z.to(dtype).requires_grad_() for z in (source, target)]
    whole = [z.detach().double().requires_grad_() for z in halves]
    value, expected = LOSSES[name](*halves), LOSSES[name](*whole)
    close = {"rtol": 0.02, "atol": 1e-3} if name == "cmd" else {"rtol": 1e-3, "atol": 0}
    torch.testing.assert_close(value.double(), expected, **close)
    value.backward()
    expected.backward()
    for half, z in zip(halves, whole, strict=True):
        assert half.grad.dtype == dtype
        error, kind = (half.grad.double() - z.grad).norm(), torch.finfo(dtype)
        steps = kind.tiny * kind.eps * z.numel() ** 0.5  # of the least numbers there are
        assert error <= 0.02 * z.grad.norm() + steps


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("n", [6, 128])
@pytest.mark.parametrize("learning", [True, False])
def test_autocast_leaves_the_losses_alone(name, n, learning):
    g = torch.Generator().manual_seed(0)
    source, target = (torch.randn(n, 4, generator=g, requires_grad=learning) for _ in range(2))
    expected = LOSSES[name](source, target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = LOSSES[name](source, target)
    torch.testing.assert_close(value, expected, rtol=0, atol=0)
    if learning:
        value.backward()
        assert source.grad.abs().sum() > 0


@pytest.mark.parametrize("name", ADAPTATIONS)
@pytest.mark.parametrize("empty", ["visual", "audio", "both"])
def test_nothing_is_at_no_distance(name, empty):
    loss = AdaptationLoss(name, n_layers=1, n_features=4, n_classes=3)
    n = {m: 0 if empty in (m, "both") else 5 for m in ("visual", "audio")}
    z = {m: torch.randn(k, 4, requires_grad=True) for m, k in n.items()}
    logits = {m: torch.randn(k, 3) for m, k in n.items()}
    y = {m: torch.arange(k) % 3 for m, k in n.items()}
    value = loss([z], logits, y, progress=0.5)
    value.backward()
    assert value == 0


@pytest.mark.parametrize("span", [1e-30, 1e-8, 1e-6, 1e5, 1e8, 1e30])
def test_cmd_does_not_depend_on_the_unit(span):
    torch.manual_seed(0)
    source, target = torch.rand(50, 4, requires_grad=True), torch.rand(50, 4) ** 2
    wide = (source.detach() * span).requires_grad_()
    expected, found = cmd(source, target), cmd(wide, target * span, span=span)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0.0)
    expected.backward()
    found.backward()
    torch.testing.assert_close(wide.grad * span, source.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["lmmd", "dsan"])
def test_divide_by_all_matters_where_a_class_lacks(name):
    """Of three classes the voices have two: Eq. 8 divides by 3, the released codes by 2."""
    g = torch.Generator().manual_seed(0)
    layers = [{m: torch.randn(n, 4, generator=g) for m, n in (("visual", 6), ("audio", 4))}]
    logits = {m: torch.randn(n, 3, generator=g) for m, n in (("visual", 6), ("audio", 4))}
    y = {"visual": torch.arange(6) % 3, "audio": torch.tensor([0, 1, 1, 0])}
    by_all, by_shared = (
        AdaptationLoss(name, 1, 4, 3, divide_by_all=all_)(layers, logits, y, 0.0).item()
        for all_ in (True, False)
    )
    (z,) = layers
    assert by_all == pytest.approx(lmmd(*z.values(), *y.values(), 3).item(), rel=1e-5)
    assert by_shared == pytest.approx(1.5 * by_all, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_moments_of_half_precision_are_single(dtype):
    z_s, z_t = torch.rand(2, 64, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    value = cmd(z_s, z_t)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(cmd(z_s.double(), z_t.double()).item(), rel=1e-4)
