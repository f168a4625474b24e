"""FDRL's network and losses, against formulas written out."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from skfdan.nn import FDRL_ABLATIONS, FDRLLoss, FDRLNet, InputSpec, paper_factor

SPECS = {"audio": InputSpec("vector", n_features=5), "text": InputSpec("vector", n_features=7)}


def network(**params):
    torch.manual_seed(0)
    return FDRLNet(3, SPECS, **{"hidden": 8, "dropout": 0.0} | params).double()


def cells(n=6, seed=1):
    rng = torch.Generator().manual_seed(seed)
    return {
        "audio": torch.randn(n, 5, generator=rng, dtype=torch.float64),
        "text": torch.randn(n, 7, generator=rng, dtype=torch.float64),
    }


Y = torch.tensor([0, 1, 2, 0, 1, 2])


def loss_of(**params):
    torch.manual_seed(1)
    return FDRLLoss(8, 3, **params).double()


def encode(layers, z):
    return linear(layers[2], np.maximum(linear(layers[0], z), 0))


def softmax(a):
    e = np.exp(a - a.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def linear(layer, z):
    return z @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()


def test_network_equals_formulas():
    net, x = network().eval(), cells()
    out = net(**x)
    z = {m: linear(net.projections[m], x[m].float().double().numpy()) for m in x}
    shared = {m: encode(net.shared, v) for m, v in z.items()}
    private = {m: encode(net.private[m], v) for m, v in z.items()}
    for m in x:
        np.testing.assert_allclose(out.shared[m].detach(), shared[m], rtol=1e-12)
        np.testing.assert_allclose(out.private[m].detach(), private[m], rtol=1e-12)
        np.testing.assert_allclose(
            out.predicted[m].detach(), linear(net.predictor, private[m]), rtol=1e-12
        )
    both = linear(net.predictor, shared["audio"] + shared["text"])
    np.testing.assert_allclose(out.predicted["shared"].detach(), both, rtol=1e-12)
    # The four tokens through an attention of four heads of width 2.
    tokens = np.stack([shared["audio"], shared["text"], private["audio"], private["text"]], 1)
    w = net.attention.in_proj_weight.detach().numpy()
    b = net.attention.in_proj_bias.detach().numpy()
    q, k, v = (
        (tokens @ w[8 * i : 8 * i + 8].T + b[8 * i : 8 * i + 8]).reshape(6, 4, 4, 2).swapaxes(1, 2)
        for i in range(3)
    )
    heads = softmax(q @ k.swapaxes(2, 3) / np.sqrt(2)) @ v
    fused = linear(net.attention.out_proj, heads.swapaxes(1, 2).reshape(6, 4, 8)).reshape(6, 32)
    np.testing.assert_allclose(out.layers["fused"][0].detach(), fused, rtol=1e-9)
    np.testing.assert_allclose(out.logits["fused"].detach(), linear(net.classifier, fused), 1e-9)


def test_losses_equal_formulas():
    net, loss, x = network(), loss_of(mu=0.25), cells()
    out = net(**x)
    value, terms = loss(out, Y, 2.0, 0.5, 3.0)
    ce = F.cross_entropy
    expected = dict.fromkeys(("global", "local", "private", "difference", "predictor"), 0.0)
    for k, m in enumerate(("audio", "text")):
        is_m = torch.full((6,), k)
        expected["global"] += ce(loss.discriminators["global"][0](out.shared[m]), is_m)
        p = net.predictor(out.shared[m]).softmax(1)
        for c in range(3):
            expected["local"] += (
                ce(loss.discriminators["local"][c](p[:, [c]] * out.shared[m]), is_m) / 3
            )
        expected["private"] += ce(loss.discriminators["private"][0](out.private[m]), is_m) / 2
        a, b = out.shared[m] - out.shared[m].mean(0), out.private[m] - out.private[m].mean(0)
        a, b = a / a.norm(dim=1, keepdim=True), b / b.norm(dim=1, keepdim=True)
        expected["difference"] += (a.T @ b).square().mean()
        expected["predictor"] += ce(net.predictor(out.private[m]), Y) / 3
    expected["predictor"] += ce(net.predictor(out.shared["audio"] + out.shared["text"]), Y) / 3
    for name, term in expected.items():
        torch.testing.assert_close(terms[name], term, msg=name)
    total = 2.0 * (0.75 * expected["global"] + 0.25 * expected["local"])
    total = total + 0.5 * (expected["private"] + expected["difference"])
    torch.testing.assert_close(value, total + 3.0 * expected["predictor"])
    reverse = loss_of(mu=0.25, mu_rule="reversed")(out, Y, 2.0, 0.0, 0.0)[0]
    torch.testing.assert_close(reverse, 2.0 * (0.25 * terms["global"] + 0.75 * terms["local"]))


def test_literal_forms_of_the_paper():
    net, x = network(), cells()
    out = net(**x)
    loss = loss_of(orthogonality="paper", local_weighting="output")
    _, terms = loss(out, Y)
    literal = sum((out.shared[m].T @ out.private[m]).norm() ** 2 for m in x)
    torch.testing.assert_close(terms["difference"], literal)
    local = 0.0
    for k, m in enumerate(x):
        p = net.predictor(out.shared[m]).softmax(1)
        for c in range(3):
            logits = p[:, [c]] * loss.discriminators["local"][c](out.shared[m])
            local = local + F.cross_entropy(logits, torch.full((6,), k)) / 3
    torch.testing.assert_close(terms["local"], local)


def gradients(term, coefficient):
    net, loss, x = network(), loss_of(mu=0.5), cells()
    _, terms = loss(net(**x), Y, coefficient=coefficient)
    terms[term].backward()
    encoder = net.shared[0].weight.grad
    kind = {"global": "global", "local": "local", "private": "private"}[term]
    return encoder, loss.discriminators[kind][0][0].weight.grad


@pytest.mark.parametrize("term", ["global", "local"])
def test_alignment_reverses_the_gradient_of_the_encoder_alone(term):
    encoder, discriminator = gradients(term, 1.0)
    # A coefficient of -1 undoes the reversal.
    plain_encoder, plain_discriminator = gradients(term, -1.0)
    assert encoder.abs().max() > 0
    torch.testing.assert_close(encoder, -plain_encoder)
    torch.testing.assert_close(discriminator, plain_discriminator)


def test_private_discriminator_is_not_reversed():
    net, loss, x = network(), loss_of(), cells()
    loss(net(**x), Y)[1]["private"].backward()
    before = loss(net(**x), Y)[1]["private"].item()
    with torch.no_grad():
        for p in net.private.parameters():
            p -= 0.1 * p.grad
    assert loss(net(**x), Y)[1]["private"].item() < before


def test_mu_of_losses_leaves_its_bounds_and_that_of_error_rates_does_not():
    assert paper_factor(torch.tensor(0.3), torch.tensor(1.0)).item() == pytest.approx(-2 / 3)
    assert paper_factor(torch.tensor(0.3), torch.tensor(0.72)).item() == pytest.approx(-10, 1e-4)
    assert paper_factor(torch.tensor(0.3), torch.tensor(0.7)).isfinite()
    rng = torch.Generator().manual_seed(0)
    seen = []
    for _ in range(50):
        loss = loss_of()
        loss._seen += 10
        loss._wrong += 10 * torch.rand(loss._wrong.shape, generator=rng, dtype=torch.float64)
        loss.end_epoch()
        seen.append(loss.mu_.item())
    assert 0 <= min(seen) < 0.4
    assert 0.6 < max(seen) <= 1


def test_mu_follows_the_error_rates_of_an_epoch():
    net, loss, x = network(), loss_of(), cells(seed=4)
    out = net(**x)
    assert loss(out, Y)[1]["mu"].item() == 0.5
    loss(out, Y)
    wrong = []
    for k, m in enumerate(x):
        p = net.predictor(out.shared[m]).softmax(1).detach()
        said = [loss.discriminators["global"][0](out.shared[m]).argmax(1)]
        said += [
            d(p[:, [c]] * out.shared[m]).argmax(1)
            for c, d in enumerate(loss.discriminators["local"])
        ]
        weights = [torch.ones(6, dtype=torch.float64), *p.T]
        pairs = zip(said, weights, strict=True)
        wrong.append([float(((s != k) * w).sum() / w.sum()) for s, w in pairs])
    rate = np.mean(wrong, 0)
    d = 2 * (1 - 2 * np.minimum(rate, 1 - rate))
    loss.end_epoch()
    assert loss.mu_.item() == pytest.approx(d[0] / (d[0] + d[1:].mean()), abs=1e-6)
    loss.end_epoch()  # nothing was seen: it stays
    assert loss.mu_.item() == pytest.approx(d[0] / (d[0] + d[1:].mean()), abs=1e-6)


def test_mu_of_the_paper_is_that_of_the_batch():
    loss = loss_of(mu="paper")
    _, terms = loss(network()(**cells()), Y)
    local = terms["local"]
    assert terms["mu"].item() == pytest.approx(paper_factor(terms["global"], local).item(), 1e-6)


@pytest.mark.parametrize("ablation", FDRL_ABLATIONS)
def test_ablation_has_neither_the_terms_nor_their_parameters(ablation):
    net, loss, x = network(), loss_of(ablation=ablation), cells()
    gone = FDRL_ABLATIONS[ablation]
    value, terms = loss(net(**x), Y)
    assert not set(gone) & set(terms)
    assert not set(gone) & set(loss.discriminators)
    value.backward()
    reached = {
        "shared": net.shared[0].weight.grad is not None,
        "predictor": net.predictor.weight.grad is not None,
    }
    assert reached["predictor"] == ("predictor" not in gone)
    assert reached["shared"] == (ablation != "never")
    whole = loss_of()(net(**x), Y)[0]
    assert not torch.isclose(whole, value)


def test_rows_that_lack_a_modality_and_rows_that_do_not_are_apart():
    net, x = network().eval(), cells()
    index = {"audio": torch.tensor([0, 1, -1, 3]), "text": torch.tensor([0, -1, 2, 3])}
    out = net(**x, index=index)
    whole = net(**x).logits["fused"]
    torch.testing.assert_close(out.logits["fused"][[0, 3]], whole[[0, 3]])
    alone = net(audio=x["audio"][1:2])
    torch.testing.assert_close(out.logits["fused"][1], alone.logits["fused"][0])
    ignored = {"audio": torch.zeros(6, dtype=torch.bool), "text": torch.arange(6) == 1}
    masked = net(**x, index={m: torch.arange(6) for m in x}, ignored=ignored)
    torch.testing.assert_close(masked.logits["fused"][1], alone.logits["fused"][0])


def test_batch_of_one_modality_has_losses_without_nan():
    net, loss = network(), loss_of()
    value, terms = loss(net(audio=cells()["audio"]), Y)
    value.backward()
    assert value.isfinite()
    assert terms["global"] == terms["local"] == terms["private"] == 0
    assert terms["predictor"] > 0


def test_label_of_a_missing_modality_does_not_count():
    net, loss, x = network(), loss_of(), cells()
    index = {"audio": torch.arange(6), "text": torch.tensor([0, 1, 2, -1, -1, -1])}
    text = net.predictor(net(**x).private["text"])[:3]
    out = net(audio=x["audio"], text=x["text"][:3], index=index)
    expected = (
        F.cross_entropy(out.predicted["shared"], Y)
        + F.cross_entropy(out.predicted["audio"], Y)
        + F.cross_entropy(text, Y[:3])
    ) / 3
    torch.testing.assert_close(loss(out, Y)[1]["predictor"], expected)


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="n_heads=3; take a multiple"):
        network(n_heads=3)
    with pytest.raises(ValueError, match="audio cells are images"):
        FDRLNet(3, {"audio": InputSpec("image")})
