"""Co-attention of two sequences, against its formula written out."""

import numpy as np
import pytest
import torch

from skfdan.nn import CoAttentionNet, Padded

WIDTHS = {"audio": 6, "text": 5}


def softmax(a):
    e = np.exp(a - a.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def layer_norm(x, weight, bias):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * weight + bias


def network(fusion="both", **params):
    torch.manual_seed(0)
    net = CoAttentionNet(3, WIDTHS, dim=8, n_heads=2, fusion=fusion, **params).double().eval()
    for p in net.parameters():
        p.data.normal_(0, 0.5)
    return net


def sequences(n=4):
    rng = np.random.default_rng(0)
    return {
        m: [rng.normal(size=(rng.integers(2, 6), d)) for _ in range(n)] for m, d in WIDTHS.items()
    }


def formula(net, row):
    """Logits of one row of unpadded sequences, with NumPy alone."""
    p = {k: v.numpy() for k, v in net.state_dict().items()}

    def linear(x, name):
        return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]

    def attend(x, keys, name):
        q, k, v = (
            linear(z, f"{name}.attention.{c}_proj") for z, c in ((x, "q"), (keys, "k"), (keys, "v"))
        )
        heads = []
        for h in (slice(0, 4), slice(4, 8)):
            heads.append(softmax(q[:, h] @ k[:, h].T / 2.0) @ v[:, h])
        read = linear(np.hstack(heads), f"{name}.attention.out_proj")
        y = layer_norm(x + read, p[f"{name}.norm.weight"], p[f"{name}.norm.bias"])
        z = linear(np.maximum(linear(y, f"{name}.ffn.0"), 0), f"{name}.ffn.3")
        return layer_norm(y + z, p[f"{name}.final_norm.weight"], p[f"{name}.final_norm.bias"])

    xs = {m: np.maximum(linear(x, f"projections.{m}"), 0) for m, x in row.items()}
    logits = []
    if net.fusion != "late":
        means = []
        for m in WIDTHS:
            others = [xs[o] for o in xs if o != m]
            y = attend(xs[m], others[0] if others else xs[m], f"layers.{m}") if m in xs else None
            means.append(np.zeros(8) if y is None else y.mean(0))
        logits.append(linear(np.concatenate(means), "classifier"))
    if net.fusion != "early":
        logits += [linear(x.mean(0), f"classifiers.{m}") for m, x in xs.items()]
    return np.mean(logits, 0)


@pytest.mark.parametrize("fusion", ["both", "early", "late"])
def test_formula(fusion):
    net, cells = network(fusion), sequences()
    rows = [{m: c[i] for m, c in cells.items()} for i in range(4)]
    del rows[1]["text"], rows[2]["audio"]
    padded = {m: Padded.of([torch.from_numpy(x) for x in c]) for m, c in cells.items()}
    present = {
        "audio": torch.tensor([True, True, False, True]),
        "text": torch.tensor([True, False, True, True]),
    }
    with torch.no_grad():
        out = net(**padded, present=present)
    expected = np.stack([formula(net, row) for row in rows])
    np.testing.assert_allclose(out.logits["fused"].numpy(), expected, rtol=1e-10, atol=1e-12)
    assert out.layers["fused"][0].shape == (4, 32 if fusion == "both" else 16)


def test_what_is_lacking_cannot_matter():
    net = network()
    x = torch.randn(3, 4, 6, dtype=torch.float64)
    other = torch.randn(3, 2, 5, dtype=torch.float64)
    nowhere = {"text": torch.zeros(3, dtype=torch.bool)}
    with torch.no_grad():
        alone = net(audio=x).logits["fused"]
        masked = net(audio=x, text=other, present=nowhere).logits["fused"]
        together = net(audio=x, text=other).logits["fused"]
    torch.testing.assert_close(alone, masked)
    assert not torch.allclose(alone, together)


def test_what_is_absent_stays_so_where_other_rows_are_ignored():
    net, rows = network(), torch.arange(3)
    x = {m: torch.randn(3, 4, d, dtype=torch.float64) for m, d in WIDTHS.items()}
    with torch.no_grad():
        found = net(
            **x, present={"text": rows != 0}, ignored={"text": rows == 1, "audio": rows > 1}
        )
        expected = net(**x, present={"text": rows > 1, "audio": rows < 2})
    torch.testing.assert_close(found.logits["fused"], expected.logits["fused"])


@pytest.mark.parametrize("given", [["audio", "text"], ["audio"], ["text"]])
def test_every_parameter_that_is_read_learns(given):
    net = CoAttentionNet(3, WIDTHS, dim=8, n_heads=2)
    cells = {m: torch.randn(4, 3, WIDTHS[m]) for m in given}
    net(**cells).logits["fused"].square().sum().backward()
    for name, p in net.named_parameters():
        lacks = {"audio", "text"} - set(given)
        if not any(m in name.split(".") for m in lacks):
            assert p.grad is not None, name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"inputs": {"smell": 3}}, "give one or two of"),
        ({"inputs": {}}, "give one or two of"),
        ({"inputs": {"audio": 1, "text": 1, "visual": 1}}, "give one or two of"),
        ({"inputs": WIDTHS, "fusion": "sum"}, "fusion='sum' is unknown"),
        ({"inputs": WIDTHS, "dim": 30}, "can't be divided among n_heads=4"),
    ],
)
def test_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        CoAttentionNet(3, **arguments)
