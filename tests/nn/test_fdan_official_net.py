import pytest
import torch
from torch.nn import functional as F

from skfdan.nn import InputSpec, OfficialFDANNet, lmmd

IMAGES = {"visual": InputSpec("image", uint8=True), "audio": InputSpec("image")}
VECTORS = {m: InputSpec("vector", n_features=9) for m in ("visual", "audio")}
C = 3


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def make_net(inputs=IMAGES, **kwargs):
    kwargs = {"backbone": "cnn", "input_size": 16, "bottleneck": 12, **kwargs}
    return OfficialFDANNet(C, inputs, **kwargs)


def image_batch(n_v=6, n_a=4):
    return {
        "visual": torch.randint(0, 256, (n_v, 3, 20, 18), dtype=torch.uint8),
        "audio": torch.randn(n_a, 1, 24, 13),
    }


def vector_batch(n_v=6, n_a=4):
    return {"visual": torch.randn(n_v, 9), "audio": torch.randn(n_a, 9)}


def bottleneck(net, batch):
    """Bottleneck features in training mode; vectors have no batch statistics to disturb."""
    weight, bias = net.bottleneck[0].weight, net.bottleneck[0].bias
    return {m: torch.relu(x @ weight.T + bias) for m, x in batch.items()}


def test_in_training_attention_touches_row_0_only():
    net = make_net(VECTORS).train()
    batch = vector_batch()
    out, z = net(**batch), bottleneck(net, batch)
    for modality in batch:
        (features,) = out.layers[modality]
        torch.testing.assert_close(features[1:], z[modality][1:])
        assert (features[0] - z[modality][0]).abs().max() > 1e-3
        torch.testing.assert_close(out.logits[modality], net.classifier(features))


def test_row_0_is_what_the_released_code_computes():
    """Method card 1.2: pre-norm, tokens are the own row 0 and the other's rows 1, 2, ..."""
    net = make_net(VECTORS).train()
    batch = vector_batch()
    out, z = net(**batch), bottleneck(net, batch)
    for own, other in (("visual", "audio"), ("audio", "visual")):
        block = net.attention[own]
        row = F.linear(z[own][0], block.project_in.weight, block.project_in.bias)
        tokens = torch.stack([row, *z[other][1:]])
        tokens = F.layer_norm(tokens, (12,), block.norm.weight, block.norm.bias)
        q, k, v = (tokens @ m.weight.T for m in (block.query, block.key, block.value))
        heads = []
        for columns in (slice(0, 32), slice(32, 64)):
            scores = k[:, columns] @ q[0, columns] / 32**0.5
            heads.append(scores.softmax(0) @ v[:, columns])
        attended = F.linear(torch.cat(heads), block.out.weight, block.out.bias)
        expected = F.linear(row + attended, block.project_out.weight, block.project_out.bias)
        torch.testing.assert_close(out.layers[own][0][0], expected)


def test_row_0_of_the_other_modality_is_not_attended_to():
    net = make_net(VECTORS).train()
    batch = vector_batch()
    before = net(**batch).layers["audio"][0]
    batch["visual"][0] += 5
    assert torch.equal(net(**batch).layers["audio"][0], before)
    batch["visual"][1] += 5
    after = net(**batch).layers["audio"][0]
    assert not torch.equal(after[0], before[0])
    assert torch.equal(after[1:], before[1:])


def test_attention_is_frozen():
    net = make_net().train()
    out = net(**image_batch())
    y = {"visual": torch.arange(6) % C, "audio": torch.arange(4) % C}
    loss = sum(F.cross_entropy(out.logits[m], y[m]) for m in y)
    (z,) = out.adapted()
    (loss + lmmd(z["visual"], z["audio"], y["visual"], y["audio"])).backward()
    for name, parameter in net.named_parameters():
        if name.startswith("attention"):
            assert not parameter.requires_grad
            assert parameter.grad is None
        else:
            assert parameter.grad.abs().max() > 0, name
    # Switching the backbone's gradient on and off does not wake the attention.
    assert not any(p.requires_grad for p in net.eval().train().attention.parameters())


def test_in_evaluation_attention_is_bypassed():
    net = make_net().eval()
    batch = image_batch()
    both = net(**batch)
    for modality, x in batch.items():
        alone = net(**{modality: x})
        assert torch.equal(both.logits[modality], alone.logits[modality])
        z = net.encode(modality, x)
        assert torch.equal(both.layers[modality][0], z)
        assert torch.equal(both.logits[modality], net.classifier(z))
        torch.testing.assert_close(
            net(**{modality: x[:1]}).logits[modality], alone.logits[modality][:1]
        )


def test_one_modality_alone_bypasses_attention_in_training():
    net = make_net(VECTORS).train()
    batch = vector_batch()
    out = net(audio=batch["audio"])
    torch.testing.assert_close(out.layers["audio"][0], bottleneck(net, batch)["audio"])
    assert list(out.logits) == ["audio"]


def test_both_modalities_share_everything_but_the_attention():
    net = make_net()
    n_backbone = sum(p.numel() for p in net.backbone.parameters())
    n_trained = sum(p.numel() for p in net.parameters() if p.requires_grad)
    assert n_trained == n_backbone + (128 * 12 + 12) + (12 * C + C)
    z = net.eval().encode("audio", image_batch()["audio"])
    assert z.shape == (4, 12)
    # The same vector is the same sample, whichever modality it is said to be.
    vectors = make_net(VECTORS).eval()
    x = torch.randn(5, 9)
    assert torch.equal(vectors.encode("visual", x), vectors.encode("audio", x))
    out = vectors(visual=x, audio=x)
    assert torch.equal(out.logits["visual"], out.logits["audio"])


def test_attention_has_as_many_parameters_as_the_released_code():
    net = make_net(bottleneck=256)
    assert sum(p.numel() for p in net.attention.parameters()) == 395_776
    assert len(net.attention) == 2


def test_layers_hold_the_one_adapted_output():
    out = make_net().train()(**image_batch())
    (adapted,) = out.adapted()
    assert {m: z.shape for m, z in adapted.items()} == {"visual": (6, 12), "audio": (4, 12)}


def test_a_frozen_backbone_keeps_its_batch_statistics():
    net = make_net(backbone_trainable=False).train()
    before = {k: v.clone() for k, v in net.backbone.state_dict().items()}
    out = net(**image_batch())
    out.logits["audio"].sum().backward()
    assert net.bottleneck[0].weight.grad.abs().max() > 0
    assert all(p.grad is None for p in net.backbone.parameters())
    for name, value in net.backbone.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize(
    "inputs",
    [
        {"visual": IMAGES["visual"], "audio": VECTORS["audio"]},
        {"visual": InputSpec("vector", n_features=3), "audio": VECTORS["audio"]},
    ],
)
def test_modalities_that_cannot_share_a_network(inputs):
    with pytest.raises(ValueError, match="both be images or vectors of equal length"):
        make_net(inputs)
