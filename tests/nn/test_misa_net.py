import itertools

import numpy as np
import pytest
import torch
from torch.func import functional_call

from skfdan.nn import InputSpec, MISANet, difference_loss, misa_losses

INPUTS = {
    "visual": InputSpec("vector", n_features=7),
    "audio": InputSpec("vector", n_features=5),
}
#: Five rows: both, audio alone, both, visual alone, both.
INDEX = {"visual": torch.tensor([2, -1, 0, 1, 3]), "audio": torch.tensor([1, 3, 0, -1, 2])}


def make_net(inputs=INPUTS, **parameters):
    torch.manual_seed(0)
    return MISANet(3, inputs, **{"hidden": 8, "ffn_dim": 12} | parameters)


def cells(n=4, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return {m: torch.randn(n, s.n_features, generator=rng) for m, s in INPUTS.items()}


def double(net, **kwargs):
    """Run the network as predictions do: its parameters in float64."""
    parameters = {k: p.detach().double() for k, p in net.named_parameters()}
    return functional_call(net, parameters, kwargs=kwargs)


# ---------------------------------------------------------------------- losses


def difference_by_loops(x, y):
    def prepare(z):
        z = np.array([[v - z[:, j].mean() for j, v in enumerate(row)] for row in z])
        return [row / (np.sqrt((row**2).sum()) + 1e-6) for row in z]

    a, b = prepare(x), prepare(y)
    total = 0.0
    for j, k in itertools.product(range(x.shape[1]), range(y.shape[1])):
        total += sum(ra[j] * rb[k] for ra, rb in zip(a, b, strict=True)) ** 2
    return total / (x.shape[1] * y.shape[1])


def test_difference_loss_is_the_formula():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, 3)), rng.normal(size=(6, 4))
    value = difference_loss(torch.from_numpy(x), torch.from_numpy(y))
    assert float(value) == pytest.approx(difference_by_loops(x, y), rel=1e-12)


def test_no_gradient_flows_through_the_lengths_of_the_rows():
    rng = np.random.default_rng(1)
    x, y = (torch.from_numpy(rng.normal(size=(6, 3))).requires_grad_() for _ in range(2))
    difference_loss(x, y).backward()
    fixed = []
    for z in (x.detach(), y.detach()):
        fixed.append((z - z.mean(0)).norm(dim=1, keepdim=True) + 1e-6)
    u = x.detach().clone().requires_grad_()
    a, b = (u - u.mean(0)) / fixed[0], (y.detach() - y.detach().mean(0)) / fixed[1]
    ((a.T @ b) ** 2).mean().backward()
    torch.testing.assert_close(x.grad, u.grad)


def test_difference_loss_of_too_few_rows():
    x = torch.ones(1, 3, requires_grad=True)
    assert difference_loss(x, x) == 0
    assert difference_loss(x[:0], x[:0]) == 0
    constant = difference_loss(torch.ones(4, 3, requires_grad=True), torch.ones(4, 3))
    constant.backward()
    assert constant == 0
    with pytest.raises(ValueError, match="equal numbers of rows; got 1, 2"):
        difference_loss(x, torch.ones(2, 3))


def test_what_rounding_leaves_of_equal_rows_is_no_difference():
    g = torch.Generator().manual_seed(0)
    x = torch.rand(16, generator=g).expand(31, 16).clone().requires_grad_()
    other = torch.rand(31, 16, generator=g)
    assert 0 < (x - x.mean(0)).abs().max() < 1e-6
    loss = difference_loss(x, other)
    loss.backward()
    assert loss < 0.01 * difference_loss(torch.rand(31, 16, generator=g), other)
    assert difference_loss(x, x) < 0.01


def test_losses_are_the_formulas():
    net = make_net().eval()
    out = net(**cells(), index=INDEX)
    losses = {k: v.detach() for k, v in misa_losses(out).items()}
    private, shared, recon, projected = (
        {m: z.detach().double().numpy() for m, z in part.items()}
        for part in (out.private, out.shared, out.reconstructed, out.projected)
    )
    both = [0, 2, 4]  # the rows of INDEX that have both
    diff = difference_by_loops(private["visual"][[2, 0, 3]], private["audio"][[1, 0, 2]]) + sum(
        difference_by_loops(private[m], shared[m]) for m in INPUTS
    )
    assert [int(INDEX["visual"][i]) for i in both] == [2, 0, 3]
    assert float(losses["diff"]) == pytest.approx(diff, rel=1e-4)

    cmd = 0.0
    for k in range(1, 6):
        moments = [
            z.mean(0) if k == 1 else np.mean((z - z.mean(0)) ** k, axis=0) for z in shared.values()
        ]
        cmd += np.sqrt(np.sum((moments[0] - moments[1]) ** 2))
    assert float(losses["cmd"]) == pytest.approx(cmd, rel=1e-4)

    errors = [np.mean((recon[m] - projected[m]) ** 2) for m in INPUTS]
    assert float(losses["recon"]) == pytest.approx(np.mean(errors), rel=1e-4)


def test_losses_of_one_modality():
    net = make_net()
    with torch.no_grad():
        out = net(audio=cells()["audio"])
        losses = misa_losses(out)
    assert losses["cmd"] == 0
    expected = difference_loss(out.private["audio"], out.shared["audio"])
    assert float(losses["diff"]) == pytest.approx(float(expected))
    assert float(losses["recon"]) > 0


def test_unpaired_rows_compare_no_private_representations():
    net = make_net()
    rows = torch.arange(4)
    apart = {
        "visual": torch.cat([rows, torch.full((4,), -1)]),
        "audio": torch.cat([torch.full((4,), -1), rows]),
    }
    with torch.no_grad():
        paired, unpaired = (net(**cells(), index=i) for i in (None, apart))
        losses, other = misa_losses(paired), misa_losses(unpaired)
    between = difference_loss(paired.private["visual"], paired.private["audio"])
    assert float(losses["diff"] - other["diff"]) == pytest.approx(float(between), rel=1e-4)
    assert float(losses["cmd"]) == pytest.approx(float(other["cmd"]), rel=1e-6)
    assert len(unpaired.logits["fused"]) == 8


# ---------------------------------------------------------------------- gradients


def parameters_touched(net, loss):
    net.zero_grad()
    loss.backward(retain_graph=True)
    return {n for n, p in net.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}


def test_gradients_reach_what_they_must():
    images = {"visual": InputSpec("image", uint8=True), "audio": InputSpec("image")}
    net = make_net(images, backbone="cnn", input_size=32)
    x = {
        "visual": torch.randint(0, 255, (6, 3, 32, 32), dtype=torch.uint8),
        "audio": torch.randn(6, 1, 32, 32),
    }
    out = net(**x)
    losses = misa_losses(out)
    names = {n for n, _ in net.named_parameters()}
    heads = {n for n in names if n.split(".")[0] in ("attention", "fusion", "classifier")}
    private = {n for n in names if n.startswith("private")}
    shared = {n for n in names if n.startswith("shared")}
    recon = {n for n in names if n.startswith("reconstruction")}
    cross_entropy = torch.nn.functional.cross_entropy(out.logits["fused"], torch.arange(6) % 3)
    assert parameters_touched(net, cross_entropy) == names - recon
    assert parameters_touched(net, losses["diff"]) == names - recon - heads
    assert parameters_touched(net, losses["cmd"]) == names - recon - heads - private
    assert parameters_touched(net, losses["recon"]) == names - heads
    assert len(private) == 4
    assert len(shared) == 2
    assert len(recon) == 4


# ---------------------------------------------------------------------- fusion


def fused_by_loops(net, out):
    """Tokens, masked attention, post-norm feed-forward and fusion, a row at a time."""
    p = {n: t.detach().double().numpy() for n, t in net.named_parameters()}
    rows = []
    for i in range(len(INDEX["audio"])):
        tokens, kept = [], []
        for part in (out.private, out.shared):
            for m in INPUTS:
                there = INDEX[m][i] >= 0
                kept.append(bool(there))
                if there:
                    tokens.append(part[m][INDEX[m][i]].numpy())
        tokens = np.array(tokens)
        qkv = tokens @ p["attention.self_attn.in_proj_weight"].T
        qkv = (qkv + p["attention.self_attn.in_proj_bias"]).reshape(len(tokens), 3, 2, 4)
        heads = []
        for h in range(2):
            q, k, v = qkv[:, 0, h], qkv[:, 1, h], qkv[:, 2, h]
            weights = np.exp(q @ k.T / np.sqrt(4))
            heads.append(weights / weights.sum(1, keepdims=True) @ v)
        attended = np.hstack(heads) @ p["attention.self_attn.out_proj.weight"].T
        attended += p["attention.self_attn.out_proj.bias"]

        def norm(z, which):
            z = (z - z.mean(1, keepdims=True)) / np.sqrt(z.var(1, keepdims=True) + 1e-5)
            return z * p[f"attention.{which}.weight"] + p[f"attention.{which}.bias"]

        z = norm(tokens + attended, "norm1")
        inner = z @ p["attention.linear1.weight"].T + p["attention.linear1.bias"]
        inner = np.maximum(inner, 0) @ p["attention.linear2.weight"].T
        z = norm(z + inner + p["attention.linear2.bias"], "norm2")
        side_by_side = np.zeros((4, 8))
        side_by_side[kept] = z
        fused = side_by_side.ravel() @ p["fusion.0.weight"].T + p["fusion.0.bias"]
        rows.append(np.maximum(fused, 0) @ p["classifier.weight"].T + p["classifier.bias"])
    return np.array(rows)


@pytest.mark.parametrize("inference", [False, True])
def test_fusion_is_the_formula(inference):
    net = make_net().eval()
    with torch.inference_mode(inference):
        out = double(net, **cells(), index=INDEX)
        logits = out.logits["fused"].detach().numpy()
        out.private = {m: z.detach() for m, z in out.private.items()}
        out.shared = {m: z.detach() for m, z in out.shared.items()}
        expected = fused_by_loops(net, out)
    np.testing.assert_allclose(logits, expected, rtol=1e-10)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("modality", ["visual", "audio"])
def test_ignored_modality_has_no_influence_at_all(modality, training):
    net = make_net(dropout=0.3).train(training)
    ignored = {m: torch.full((4,), m == modality) for m in INPUTS}
    here, there = cells(), cells()
    there[modality] = 100 * torch.randn(4, INPUTS[modality].n_features)
    rows = {m: torch.arange(4) for m in INPUTS}
    results = []
    for x in (here, there):
        torch.manual_seed(3)
        results.append(net(**x, index=rows, ignored=ignored).logits["fused"])
    assert torch.equal(*results)
    # Just as if the cells had not been given.
    torch.manual_seed(3)
    rest = next(m for m in INPUTS if m != modality)
    alone = net(**{rest: here[rest]}, index={rest: rows[rest]}).logits["fused"]
    torch.testing.assert_close(alone, results[0])
    # What is ignored is ignored by the fusion alone, and only where it is told to.
    some = {m: torch.tensor([m == modality, False, False, False]) for m in INPUTS}
    net.eval()
    changed = net(**here).logits["fused"] - net(**here, index=rows, ignored=some).logits["fused"]
    assert changed[0].abs().max() > 1e-4
    assert changed[1:].abs().max() < 1e-5


def test_a_row_depends_on_itself_alone():
    net = make_net().eval()
    with torch.inference_mode():
        together = double(net, **cells(), index=INDEX).logits["fused"]
        for i in range(5):
            one = {m: index[[i]] for m, index in INDEX.items()}
            alone = double(net, **cells(), index=one).logits["fused"]
            torch.testing.assert_close(alone[0], together[i], rtol=1e-12, atol=1e-12)


# ---------------------------------------------------------------------- parts


def test_widths_follow_the_modalities():
    assert make_net(hidden=128).fusion[0].weight.shape == (256, 512)
    alone = make_net({"audio": INPUTS["audio"]})
    assert alone.fusion[0].weight.shape == (8, 16)
    assert alone(audio=cells()["audio"]).logits["fused"].shape == (4, 3)
    with pytest.raises(ValueError, match="hidden=9 can't be divided among n_heads=2"):
        make_net(hidden=9)


def test_a_frozen_backbone_stays_as_it_is():
    images = {"audio": InputSpec("image")}
    net = make_net(images, backbone="cnn", input_size=32, backbone_trainable=False).train()
    before = [b.clone() for b in net.backbones.buffers()]
    net(audio=torch.randn(3, 1, 32, 32)).logits["fused"].sum().backward()
    assert all(map(torch.equal, before, net.backbones.buffers()))
    assert all(p.grad is None for p in net.backbones.parameters())
