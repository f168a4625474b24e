import pytest
import torch
from torch import nn
from torch.nn import functional as F

from skfdan.nn import FDANNet, FDANOutput, InputSpec, lmmd

IMAGES = {"visual": InputSpec("image", uint8=True), "audio": InputSpec("image", mean=0.3, std=2.0)}
VECTORS = {"visual": InputSpec("vector", n_features=9), "audio": InputSpec("vector", n_features=4)}
C = 3


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def make_net(inputs=IMAGES, **kwargs):
    kwargs = {"backbone": "cnn", "input_size": 16, "bottleneck": 12, **kwargs}
    return FDANNet(C, inputs, **kwargs)


def image_batch(n_v=6, n_a=4):
    return {
        "visual": torch.randint(0, 256, (n_v, 3, 20, 18), dtype=torch.uint8),
        "audio": torch.randn(n_a, 1, 24, 13),
    }


def vector_batch(n_v=6, n_a=4):
    return {"visual": torch.randn(n_v, 9), "audio": torch.randn(n_a, 4)}


def labels(n_v=6, n_a=4):
    return {"visual": torch.arange(n_v) % C, "audio": torch.arange(n_a) % C}


def equation_9(out, y, alpha=1.0):
    loss = sum(F.cross_entropy(out.logits[m], y[m]) for m in out.logits)
    for z in out.adapted():
        loss = loss + alpha * lmmd(z["visual"], z["audio"], y["visual"], y["audio"], C)
    return loss


# shapes and structure


def test_output_shapes_for_unequal_batches():
    out = make_net()(**image_batch())
    assert isinstance(out, FDANOutput)
    assert {m: x.shape for m, x in out.logits.items()} == {"visual": (6, C), "audio": (4, C)}
    for modality, n in (("visual", 6), ("audio", 4)):
        assert [z.shape for z in out.layers[modality]] == [(n, 12)] * 2


@pytest.mark.parametrize("size", [None, 8, 24])
def test_cells_may_differ_in_size(size):
    out = make_net(input_size=size)(**image_batch())
    assert out.logits["audio"].shape == (4, C)


@pytest.mark.parametrize("modality", ["visual", "audio"])
def test_one_modality_alone(modality):
    net = make_net().eval()
    out = net(**{modality: image_batch()[modality]})
    assert list(out.logits) == list(out.layers) == [modality]
    assert len(out.adapted()) == 1
    assert list(out.adapted()[0]) == [modality]


@pytest.mark.parametrize("empty", ["visual", "audio"])
def test_a_modality_without_rows(empty):
    net, batch = make_net().eval(), image_batch()
    out = net(**batch | {empty: batch[empty][:0]})
    other = "audio" if empty == "visual" else "visual"
    assert out.logits[empty].shape == (0, C)
    assert torch.isfinite(out.logits[other]).all()


def test_a_network_of_one_modality():
    net = make_net({"audio": IMAGES["audio"]})
    assert list(net.backbones) == ["audio"]
    assert net(audio=image_batch()["audio"]).logits["audio"].shape == (4, C)


def test_vectors_need_no_backbone():
    net = make_net(VECTORS)
    assert not list(net.backbones.parameters())
    out = net(**vector_batch())
    assert out.logits["visual"].shape == (6, C)
    assert out.logits["audio"].shape == (4, C)
    z = net.encode("audio", x := torch.randn(4, 4))
    linear = net.bottlenecks["audio"][0]
    torch.testing.assert_close(z, torch.relu(x @ linear.weight.T + linear.bias))


def test_a_vector_and_an_image_modality():
    net = make_net({"visual": IMAGES["visual"], "audio": VECTORS["audio"]}, shared_backbone=True)
    out = net(visual=image_batch()["visual"], audio=vector_batch()["audio"])
    assert out.logits["visual"].shape == (6, C)
    assert out.logits["audio"].shape == (4, C)


def test_the_stations_of_a_sample():
    """Normalise, backbone, linear and ReLU, attention, one classifier."""
    net = make_net(n_layers=2).eval()
    batch = image_batch()
    out = net(**batch)
    x = F.interpolate(batch["audio"], (16, 16), mode="bilinear", antialias=True)
    features = net.backbones["audio"](((x - 0.3) / 2.0).repeat(1, 3, 1, 1))
    linear = net.bottlenecks["audio"][0]
    z0 = torch.relu(features @ linear.weight.T + linear.bias)
    torch.testing.assert_close(out.layers["audio"][0], z0)
    z1 = net.layers[0]({m: z[0] for m, z in out.layers.items()})
    z2 = net.layers[1](z1)
    for modality in batch:
        torch.testing.assert_close(out.layers[modality][1], z1[modality])
        torch.testing.assert_close(out.layers[modality][2], z2[modality])
        logits = z2[modality] @ net.classifier.weight.T + net.classifier.bias
        torch.testing.assert_close(out.logits[modality], logits)


def test_defaults_are_the_papers():
    net = FDANNet(7, IMAGES, weights=None)
    assert net.bottlenecks["audio"][0].weight.shape == (256, 512)
    assert len(net.layers) == 1
    assert net.layers[0].n_heads == 1
    assert net.backbones["visual"] is not net.backbones["audio"]
    # ResNet-34 has 33 convolutions in its trunk and 3 in its shortcuts.
    assert sum(isinstance(m, nn.Conv2d) for m in net.backbones["visual"].modules()) == 36
    assert all(p.requires_grad for p in net.parameters())


def test_heads_ffn_and_dropout_reach_the_layers():
    net = make_net(n_heads=4, ffn_dim=5, dropout=0.25, n_layers=3)
    for layer in net.layers:
        assert layer.n_heads == 4
        assert layer.audio.ffn[0].weight.shape == (5, 12)
    assert {m.p for m in net.modules() if isinstance(m, nn.Dropout)} == {0.25}


# learning


@pytest.mark.parametrize("n_layers", [1, 2])
def test_every_parameter_learns_from_equation_9(n_layers):
    net = make_net(n_layers=n_layers).train()
    equation_9(net(**image_batch()), labels()).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


def test_the_adaptation_term_alone_reaches_everything_below_it():
    """The last layers' norms and networks too: Eq. 9 aligns what comes after attention."""
    net = make_net().train()
    y = labels()
    (z,) = net(**image_batch()).adapted()
    lmmd(z["visual"], z["audio"], y["visual"], y["audio"]).backward()
    for name, parameter in net.named_parameters():
        if name.startswith("classifier"):
            assert parameter.grad is None
        else:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name


def test_without_attention_the_bottleneck_is_adapted():
    net = make_net(n_layers=0)
    assert not any("query" in name for name, _ in net.named_parameters())
    out = net(**image_batch())
    assert [len(z) for z in out.layers.values()] == [1, 1]
    (adapted,) = out.adapted()
    for modality in ("visual", "audio"):
        assert adapted[modality] is out.layers[modality][0]
        torch.testing.assert_close(out.logits[modality], net.classifier(adapted[modality]))
    equation_9(out, labels()).backward()
    assert all(p.grad.abs().max() > 0 for p in net.parameters())


def test_every_attention_layer_is_adapted_and_the_bottleneck_is_not():
    out = make_net(n_layers=2)(**image_batch())
    adapted = out.adapted()
    assert len(adapted) == 2
    for i in (0, 1):
        for modality in ("visual", "audio"):
            assert adapted[i][modality] is out.layers[modality][i + 1]


def test_a_few_steps_lower_the_loss():
    net = make_net(VECTORS)
    batch, y = vector_batch(12, 9), labels(12, 9)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = equation_9(net(**batch), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_a_frozen_backbone_keeps_parameters_and_batch_statistics():
    net = make_net(backbone_trainable=False).train()
    before = {k: v.clone() for k, v in net.backbones.state_dict().items()}
    assert net.training
    assert net.bottlenecks.training
    assert not any(m.training for m in net.backbones.modules())
    equation_9(net(**image_batch()), labels()).backward()
    for parameter in net.backbones.parameters():
        assert not parameter.requires_grad
        assert parameter.grad is None
    for name, parameter in net.named_parameters():
        if not name.startswith("backbones"):
            assert parameter.grad.abs().max() > 0, name
    torch.optim.SGD([p for p in net.parameters() if p.grad is not None], lr=1.0).step()
    for name, value in net.backbones.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_trainable_backbone_updates_its_batch_statistics():
    net = make_net().train()
    before = net.backbones["visual"][1].running_mean.clone()
    net(**image_batch())
    assert not torch.equal(net.backbones["visual"][1].running_mean, before)


def test_a_shared_backbone_is_one():
    shared, own = make_net(shared_backbone=True), make_net()
    assert shared.backbones["visual"] is shared.backbones["audio"]
    assert own.backbones["visual"] is not own.backbones["audio"]
    n_backbone = sum(p.numel() for p in own.backbones["visual"].parameters())
    n_shared, n_own = (sum(p.numel() for p in net.parameters()) for net in (shared, own))
    assert n_own - n_shared == n_backbone
    # Bottlenecks are not shared.
    assert shared.bottlenecks["visual"] is not shared.bottlenecks["audio"]
    equation_9(shared(**image_batch()), labels()).backward()
    assert all(p.grad.abs().max() > 0 for p in shared.parameters())


def test_backbones_of_a_callable_are_separate_or_shared():
    def build():
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 10)), 10

    for shared in (False, True):
        net = make_net(backbone=build, weights=None, shared_backbone=shared)
        assert (net.backbones["visual"] is net.backbones["audio"]) is shared
        assert net(**image_batch()).logits["audio"].shape == (4, C)


# prediction


def make_reference(net, n=5):
    """Features of the faces at every layer, as a bank would keep them."""
    with torch.no_grad():
        z = net.encode("visual", image_batch(n_v=n)["visual"])
        return [{"visual": z + i} for i in range(len(net.layers))]


@pytest.mark.parametrize("n_layers", [1, 2])
def test_prediction_with_a_reference_does_not_depend_on_the_other_rows(n_layers):
    net = make_net(n_layers=n_layers).eval()
    reference = make_reference(net)
    voices = torch.randn(7, 1, 24, 13)
    with torch.no_grad():
        whole = net(audio=voices, reference=reference).logits["audio"]
        for i in range(7):
            alone = net(audio=voices[i : i + 1], reference=reference).logits["audio"]
            torch.testing.assert_close(alone, whole[i : i + 1], atol=1e-5, rtol=1e-5)
        flipped = net(audio=voices.flip(0), reference=reference).logits["audio"]
        torch.testing.assert_close(flipped.flip(0), whole, atol=1e-5, rtol=1e-5)


def test_without_a_reference_the_faces_of_the_batch_matter():
    net = make_net().eval()
    batch = image_batch()
    with torch.no_grad():
        whole = net(**batch).logits["audio"]
        fewer = net(visual=batch["visual"][:2], audio=batch["audio"]).logits["audio"]
        bare = net(audio=batch["audio"]).logits["audio"]
    assert (whole - fewer).abs().max() > 1e-4
    assert (whole - bare).abs().max() > 1e-4


def test_every_layer_uses_its_own_reference():
    net = make_net(n_layers=2).eval()
    reference = make_reference(net)
    voices = torch.randn(3, 1, 24, 13)
    with torch.no_grad():
        layers = net(audio=voices, reference=reference).layers["audio"]
        z1 = net.layers[0]({"audio": layers[0]}, reference[0])["audio"]
        z2 = net.layers[1]({"audio": z1}, reference[1])["audio"]
    torch.testing.assert_close(layers[1], z1)
    torch.testing.assert_close(layers[2], z2)
    assert (net.layers[1]({"audio": z1}, reference[0])["audio"] - z2).abs().max() > 1e-4


def test_a_reference_plays_the_part_of_the_batch():
    """The layers' features of the faces, given as a reference, give the voices' same result."""
    net = make_net(n_layers=2).eval()
    batch = image_batch()
    with torch.no_grad():
        out = net(**batch)
        reference = [{"visual": z} for z in out.layers["visual"]]
        alone = net(audio=batch["audio"], reference=reference)
    torch.testing.assert_close(alone.logits["audio"], out.logits["audio"])


def test_state_dict_round_trip():
    net, other = make_net(n_layers=2).eval(), make_net(n_layers=2).eval()
    batch = image_batch()
    with torch.no_grad():
        assert not torch.equal(net(**batch).logits["audio"], other(**batch).logits["audio"])
        other.load_state_dict(net.state_dict())
        assert torch.equal(net(**batch).logits["audio"], other(**batch).logits["audio"])
