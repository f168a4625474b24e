import numpy as np
import pytest
import torch

from skfdan.nn import GMTCNet, InputSpec


@pytest.fixture
def net():
    torch.manual_seed(0)
    return GMTCNet(7).double()


def test_number_of_parameters(net):
    assert sum(p.numel() for p in net.parameters()) == 260_644
    # Layer by layer, as Keras counts: kernel times channels times filters, and biases.
    first, dense, gated = 39 * 39 + 39, 39 * 7 + 7, 2 * 39 * 39 + 39
    assert first + dense + 7 * 2 * 3 * 2 * gated == 260_644


def gated_unit(x, weight, bias, gate_weight, gate_bias, dilation):
    """ReLU(conv) · σ(ReLU(conv)) of one sequence (F, T), one output at a time."""
    out = np.empty_like(x)
    for f in range(x.shape[0]):
        for t in range(x.shape[1]):
            before = x[:, t - dilation] if t >= dilation else np.zeros(x.shape[0])
            value = weight[f, :, 0] @ before + weight[f, :, 1] @ x[:, t] + bias[f]
            gate = gate_weight[f, :, 0] @ before + gate_weight[f, :, 1] @ x[:, t] + gate_bias[f]
            out[f, t] = max(value, 0) / (1 + np.exp(-max(gate, 0)))
    return out


def level(x, conv, dilation):
    """Mean of three units; the filters of ``conv`` are three values, then three gates."""
    weight, bias = conv.weight.detach().numpy(), conv.bias.detach().numpy()
    n = x.shape[0]
    units = []
    for k in range(3):
        value, gate = slice(k * n, (k + 1) * n), slice((3 + k) * n, (4 + k) * n)
        units.append(gated_unit(x, weight[value], bias[value], weight[gate], bias[gate], dilation))
    return sum(units) / 3


def test_network_equals_loops():
    torch.manual_seed(1)
    net = GMTCNet(4, n_channels=5, n_filters=3, n_blocks=4).double()
    for name, p in net.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(p, std=0.5)
    cells = torch.randn(2, 1, 5, 17, dtype=torch.float64)
    out = net(audio=cells)
    for i in range(2):
        stem = net.stem.weight.detach().numpy()[:, :, 0]
        x = stem @ cells[i, 0].numpy() + net.stem.bias.detach().numpy()[:, None]
        skips = 0
        for block, dilation in zip(net.blocks, [1, 2, 4, 8], strict=True):
            o = level(level(x, block[0].conv, dilation), block[1].conv, 2 * dilation)
            x = x + o
            skips = skips + o
        features = np.where(skips > 0, skips, 0.05 * skips).mean(1)
        np.testing.assert_allclose(out.layers["audio"][-1][i].detach(), features, rtol=1e-10)
        head = net.classifier
        logits = head.weight.detach().numpy() @ features + head.bias.detach().numpy()
        np.testing.assert_allclose(out.logits["audio"][i].detach(), logits, rtol=1e-10)


def test_block_outputs_never_see_the_future(net):
    x = torch.randn(1, 39, 200, dtype=torch.float64)
    changed = x.clone()
    changed[0, :, 120] += 10
    with torch.no_grad():
        for before, after in zip(net.block_outputs(x), net.block_outputs(changed), strict=True):
            assert torch.equal(before[..., :120], after[..., :120])
            assert not torch.equal(before[..., 120], after[..., 120])


def test_receptive_field_is_382_frames(net):
    x = torch.randn(1, 39, 500, dtype=torch.float64, requires_grad=True)
    last = sum(net.block_outputs(x))[..., -1].sum()
    (gradient,) = torch.autograd.grad(last, x)
    seen = np.flatnonzero(gradient.abs().sum((0, 1)).numpy())
    assert seen.max() == 499
    # Frame 500 - 382 is the earliest; one more step back and nothing arrives.
    assert seen.min() == 500 - 382


def test_every_parameter_learns(net):
    out = net(audio=torch.randn(8, 1, 39, 188, dtype=torch.float64) * 20)
    torch.nn.functional.cross_entropy(out.logits["audio"], torch.arange(8) % 7).backward()
    for p in net.parameters():
        assert p.grad.abs().sum() > 0
    # Every unit on its own, also of the block whose sum with its input is not used.
    for block in net.blocks:
        for part in block:
            for unit in part.conv.weight.grad.split(39):
                assert unit.abs().sum() > 0


def test_weights_are_glorot_uniform_and_biases_zero(net):
    limits = {"stem": np.sqrt(6 / 78), "classifier": np.sqrt(6 / 46)}
    for name, p in net.named_parameters():
        if name.endswith("bias"):
            assert (p == 0).all()
            continue
        # The fans of one convolution: kernel 2 times 39 channels or filters.
        limit = limits.get(name.split(".")[0], np.sqrt(6 / (78 + 78)))
        assert p.abs().max() <= limit
        assert p.abs().max() > 0.97 * limit
        assert p.std().item() == pytest.approx(limit / np.sqrt(3), rel=0.1)


def test_gates_and_block_outputs_are_as_documented(net):
    """Outputs are not negative, so that the LeakyReLU changes nothing."""
    x = torch.randn(2, 39, 50, dtype=torch.float64)
    with torch.no_grad():
        outputs = net.block_outputs(x)
        features = net(audio=x[:, None]).layers["audio"][-1]
    assert all((o >= 0).all() for o in outputs)
    torch.testing.assert_close(features, sum(outputs).mean(2))


def test_cells_are_not_normalised_and_vectors_are():
    torch.manual_seed(0)
    spec = InputSpec("image", mean=100.0, std=7.0)
    net = GMTCNet(3, 6, spec, n_filters=4, n_blocks=2)
    cells = torch.randn(5, 1, 6, 9)
    torch.manual_seed(0)
    plain = GMTCNet(3, 6, n_filters=4, n_blocks=2)
    assert torch.equal(net(audio=cells).logits["audio"], plain(audio=cells).logits["audio"])

    mean, std = np.arange(6.0), np.arange(1.0, 7.0)
    torch.manual_seed(0)
    of_vectors = GMTCNet(3, 6, InputSpec("vector", False, 6, mean, std), n_filters=4, n_blocks=2)
    vectors = torch.randn(5, 6)
    frames = ((vectors - torch.from_numpy(mean)) / torch.from_numpy(std)).float()[:, None, :, None]
    torch.testing.assert_close(
        of_vectors(audio=vectors).logits["audio"], plain(audio=frames).logits["audio"]
    )
