"""SDT's network and loss, against plain formulas."""

import numpy as np
import pytest
import torch

from skfdan.nn import InputSpec, SDTNet, sdt_loss

WIDTHS = {"text": 5, "audio": 4, "visual": 3}


def network(inputs=WIDTHS, **params):
    torch.manual_seed(0)
    settings = {"n_speakers": 2, "hidden": 8, "n_heads": 2} | params
    return SDTNet(3, inputs, **settings).double().eval()


def vectors(n, widths=WIDTHS, seed=1):
    g = torch.Generator().manual_seed(seed)
    return {m: torch.randn(n, d, generator=g, dtype=torch.float64) for m, d in widths.items()}


def weights(net):
    return {name: t.detach().numpy() for name, t in net.state_dict().items()}


def softmax(x, axis=-1):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def transformer(w, name, read, asking, n_heads):
    def linear(part, x):
        return x @ w[f"transformers.{name}.{part}.weight"].T + w[f"transformers.{name}.{part}.bias"]

    q = linear("attention.q_proj", asking)
    k, v = (linear(f"attention.{part}", read) for part in ("k_proj", "v_proj"))
    d = q.shape[1] // n_heads
    heads = [
        softmax(q[:, i : i + d] @ k[:, i : i + d].T / np.sqrt(d)) @ v[:, i : i + d]
        for i in range(0, q.shape[1], d)
    ]
    x = asking + linear("attention.out_proj", np.hstack(heads))
    centred = x - x.mean(1, keepdims=True)
    normed = centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-6)
    normed = normed * w[f"transformers.{name}.norm.weight"] + w[f"transformers.{name}.norm.bias"]
    return x + linear("ffn.3", gelu(linear("ffn.0", normed)))


def by_hand(net, x, speaker):
    """One dialogue without anything missing."""
    w = weights(net)
    n, width = len(speaker), net.hidden
    place = np.zeros((n, width))
    for p in range(n):
        for i in range(0, width, 2):
            place[p, i] = np.sin(p / 10000 ** (i / width))
            place[p, i + 1] = np.cos(p / 10000 ** (i / width))
    context = place + w["speakers.weight"][speaker]
    xs = {m: x[m].numpy() @ w[f"projections.{m}.weight"].T + context for m in net.modalities}
    reduced = {}
    for b in net.modalities:
        parts = []
        for a in net.modalities:
            z = transformer(w, f"{a}_{b}", xs[a], xs[b], 2)
            key = f"gates.{a}_{b}.weight.weight"
            inner = z @ w[key].T if key in w else z
            parts.append(z / (1 + np.exp(-inner)))
        reduced[b] = np.hstack(parts) @ w[f"reductions.{b}.weight"].T + w[f"reductions.{b}.bias"]
    stacked = np.stack([reduced[m] for m in net.modalities])
    fused = (softmax(stacked @ w["last_gate.weight"].T, 0) * stacked).sum(0)
    logits = {
        m: np.maximum(z, 0) @ w[f"heads.{m}.2.weight"].T + w[f"heads.{m}.2.bias"]
        for m, z in reduced.items()
    }
    logits["fused"] = fused @ w["classifier.weight"].T + w["classifier.bias"]
    return fused, logits


@pytest.mark.parametrize("gate", ["learned", "frozen"])
@pytest.mark.parametrize(
    "modalities", [("text", "audio", "visual"), ("audio", "text"), ("visual",)]
)
def test_network_is_the_formulas(gate, modalities):
    widths = {m: WIDTHS[m] for m in modalities}
    net = network(widths, unimodal_gate=gate)
    x, speaker = vectors(4, widths), torch.tensor([0, 1, 1, 0])
    out = net(**x, lengths=torch.tensor([4]), speaker=speaker)
    fused, logits = by_hand(net, x, speaker.numpy())
    np.testing.assert_allclose(out.layers["fused"][0].detach(), fused, rtol=1e-10)
    assert set(out.logits) == {"fused", *modalities}
    for name, expected in logits.items():
        np.testing.assert_allclose(out.logits[name].detach(), expected, rtol=1e-10, atol=1e-12)


def test_second_modality_asks_and_first_is_read():
    net = network()
    x = vectors(3)
    calls = {}
    for name, module in net.transformers.items():
        module.attention.q_proj.register_forward_hook(
            lambda m, i, o, name=name: calls.setdefault(name, {}).update(asks=i[0])
        )
        for part in ("k_proj", "v_proj"):
            getattr(module.attention, part).register_forward_hook(
                lambda m, i, o, name=name, part=part: calls[name].update({part: i[0]})
            )
    net(**x, lengths=torch.tensor([3]))
    assert len(calls) == 9
    own = {m: calls[f"{m}_{m}"]["asks"] for m in WIDTHS}
    for name, call in calls.items():
        a, b = name.split("_")
        assert torch.equal(call["asks"], own[b])
        assert torch.equal(call["k_proj"], own[a])
        assert torch.equal(call["v_proj"], own[a])


def test_padding_and_other_dialogues_change_nothing():
    net = network()
    x, speaker = vectors(9), torch.tensor([0, 1, 0, 1, -1, 0, 0, 1, 1])
    lengths = torch.tensor([2, 6, 1])
    together = net(**x, lengths=lengths, speaker=speaker)
    start = 0
    for n in lengths.tolist():
        part = slice(start, start + n)
        alone = net(
            **{m: v[part] for m, v in x.items()}, lengths=torch.tensor([n]), speaker=speaker[part]
        )
        for name in together.logits:
            torch.testing.assert_close(
                together.logits[name][part], alone.logits[name], rtol=1e-10, atol=1e-12
            )
        start += n


def test_context_place_and_speaker_matter():
    net = network()
    x, two = vectors(2), torch.tensor([2])
    speaker = torch.tensor([0, 1])
    base = net(**x, lengths=two, speaker=speaker).logits["fused"]
    assert not torch.allclose(base, net(**x, speaker=speaker).logits["fused"])
    assert not torch.allclose(base, net(**x, lengths=two).logits["fused"])
    other = {m: torch.stack([v[0] + 1, v[1]]) for m, v in x.items()}
    assert not torch.allclose(
        base[1], net(**other, lengths=two, speaker=speaker).logits["fused"][1]
    )
    # Later utterances are read too.
    later = {m: torch.stack([v[0], v[1] + 1]) for m, v in x.items()}
    assert not torch.allclose(
        base[0], net(**later, lengths=two, speaker=speaker).logits["fused"][0]
    )
    turned = {m: v.flip(0) for m, v in x.items()}
    swapped = net(**turned, lengths=two, speaker=speaker.flip(0)).logits["fused"].flip(0)
    assert not torch.allclose(base, swapped)


def test_nobody_known_adds_nothing_and_learns_nothing():
    net = network().train()
    x = vectors(3)
    nobody = torch.full((3,), -1)
    net(**x, speaker=nobody).logits["fused"].sum().backward()
    assert net.speakers.weight.grad.abs().sum() == 0
    assert net.speakers.weight[-1].abs().sum() == 0
    net.eval()
    torch.testing.assert_close(
        net(**x, speaker=nobody).logits["fused"], net(**x).logits["fused"], rtol=0, atol=0
    )


def test_what_is_missing_is_not_read():
    net = network()
    x, lengths = vectors(4), torch.tensor([3, 1])
    index = {m: torch.arange(4) for m in WIDTHS}
    index["audio"] = torch.tensor([0, -1, 2, -1])
    out = net(**x, index=index, lengths=lengths)
    changed = x | {"audio": x["audio"].clone()}
    changed["audio"][[1, 3]] = 99.0
    again = net(**changed, index=index, lengths=lengths)
    torch.testing.assert_close(out.logits["fused"], again.logits["fused"], rtol=0, atol=0)
    assert out.present["audio"].tolist() == [True, False, True, False]
    # Ignored is the same as missing.
    ignored = {m: index[m] < 0 for m in WIDTHS}
    alike = net(**x, lengths=lengths, ignored=ignored)
    torch.testing.assert_close(out.logits["fused"], alike.logits["fused"], rtol=1e-12, atol=1e-12)
    # Nor is a modality that the whole batch lacks.
    last = {m: v[3:] for m, v in x.items() if m != "audio"}
    alone = net(**last)
    torch.testing.assert_close(out.logits["fused"][3:], alone.logits["fused"], rtol=1e-12, atol=0)
    out.logits["fused"].sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)


def rows_of_kl(p, q):
    return (p * (np.log(p) - np.log(q))).sum(1)


@pytest.mark.parametrize("temperature", [1.0, 8.0])
def test_loss_is_the_formulas(temperature):
    net = network()
    x = vectors(5)
    index = {m: torch.arange(5) for m in WIDTHS}
    index["visual"] = torch.tensor([0, 1, -1, 3, -1])
    y = torch.tensor([0, 2, 1, -1, 0])
    out = net(**x, index=index, lengths=torch.tensor([5]))
    loss, terms = sdt_loss(out, y, 0.5, 2.0, temperature)
    z = {m: v.detach().numpy() for m, v in out.logits.items()}
    there = {m: (i >= 0).numpy() for m, i in index.items()}
    labelled = y.numpy() >= 0

    def nll(m, rows):
        return -np.log(softmax(z[m]))[rows, y.numpy()[rows]].mean()

    task = nll("fused", labelled)
    unimodal = sum(nll(m, labelled & there[m]) for m in WIDTHS)
    teacher = softmax(z["fused"] / temperature)
    kept = sum(rows_of_kl(teacher, softmax(z[m] / temperature))[there[m]].mean() for m in WIDTHS)
    assert terms["task"].item() == pytest.approx(task, rel=1e-10)
    assert terms["unimodal"].item() == pytest.approx(unimodal, rel=1e-10)
    assert terms["distillation"].item() == pytest.approx(kept, rel=1e-10)
    assert loss.item() == pytest.approx(task + 0.5 * unimodal + 2 * kept, rel=1e-10)


def test_teacher_learns_from_distillation_unless_detached():
    grads = []
    for detach in (False, True):
        net = network()
        out = net(**vectors(4))
        loss, _ = sdt_loss(out, torch.full((4,), -1), detach_teacher=detach)
        loss.backward()
        grads.append(net.classifier.weight.grad)
        assert net.heads["text"][2].weight.grad.abs().sum() > 0
    assert grads[0].abs().sum() > 0
    assert grads[1] is None or grads[1].abs().sum() == 0


def test_settings_change_what_they_should():
    def names(**params):
        return {n for n, _ in network(**params).named_parameters()}

    assert len([n for n in names() if n.startswith("gates.")]) == 9
    assert not [n for n in names(unimodal_gate="frozen") if n.startswith("gates.")]
    assert not [n for n in names() if n.startswith(("projections", "last_gate")) and "bias" in n]
    two = network({"text": 5, "audio": 4})
    assert len(two.transformers) == 4
    assert two.reductions["text"].in_features == 16
    assert all(t.norm.eps == 1e-6 for t in two.transformers.values())
    # With the published width, the released network has as many parameters.
    with torch.device("meta"):
        net = SDTNet(7, {"text": 1024, "audio": 300, "visual": 342}, n_speakers=9)
    h, block = 1024, 6 * (1024**2 + 1024) + 2 * 1024
    expected = (10 * h + (1024 + 300 + 342) * h + 9 * (block + h * h) + 3 * (3 * h * h + h)) + (
        h * h + 4 * (7 * h + 7)
    )
    assert sum(p.numel() for p in net.parameters()) == expected


def test_specs_normalise_and_widths_do_not():
    x = vectors(3, {"text": 5})["text"]
    spec = InputSpec("vector", False, 5, np.full(5, 2.0), np.full(5, 4.0))
    plain, normed = network({"text": 5}), network({"text": spec})
    plain.load_state_dict({k: v for k, v in normed.state_dict().items() if "inputs" not in k})
    a = normed(text=4 * x + 2).logits["fused"]
    torch.testing.assert_close(a, plain(text=x).logits["fused"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("inputs", "params", "message"),
    [
        ({"smell": 3}, {}, r"inputs has the modalities \['smell'\]; choose among"),
        ({}, {}, r"inputs has the modalities \[\]"),
        ({"text": 3}, {"hidden": 9}, "hidden=9 can't be divided among n_heads=8"),
        ({"text": 3}, {"unimodal_gate": "open"}, "unimodal_gate='open' is unknown"),
        ({"visual": InputSpec("image", uint8=True)}, {}, "The visual cells are of kind image"),
    ],
)
def test_what_is_refused(inputs, params, message):
    with pytest.raises(ValueError, match=message):
        SDTNet(3, inputs, **params)


def test_gradients_are_those_of_differences():
    net = network({"text": 2, "audio": 2}, hidden=4)
    x = {m: v.requires_grad_() for m, v in vectors(3, {"text": 2, "audio": 2}).items()}
    y = torch.tensor([0, 2, 1])

    def loss(text, audio):
        return sdt_loss(net(text=text, audio=audio, lengths=torch.tensor([2, 1])), y)[0]

    assert torch.autograd.gradcheck(loss, (x["text"], x["audio"]))
