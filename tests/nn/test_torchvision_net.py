import numpy as np
import pytest
import torch
from torch import nn
from torchvision import models

from skfdan.nn import InputSpec, TorchvisionNet

ARCHITECTURES = {
    "resnet18": "fc",
    "resnet34": "fc",
    "resnet50": "fc",
    "vgg16": "classifier.6",
    "vgg19": "classifier.6",
}


def as_torchvision(net, modality, last):
    """The state dict of one of the networks, under torchvision's names."""
    state = {f"{last}.{k}": v for k, v in net.classifiers[modality].state_dict().items()}
    return state | net.backbones[modality].state_dict()


def with_new_head(arch, last, n_classes):
    """torchvision's network, its last layer replaced in the usual way."""
    network = models.get_model(arch, weights=None)
    n_features = network.get_submodule(last).in_features
    network.set_submodule(last, nn.Linear(n_features, n_classes))
    return network


@pytest.mark.parametrize(("arch", "last"), ARCHITECTURES.items())
def test_parameters_are_torchvisions_with_a_new_last_layer(arch, last):
    # Shapes tell as much as values here, and 140 million values take seconds.
    with torch.device("meta"):
        net = TorchvisionNet(5, {"audio": InputSpec("image")}, arch, weights=None)
        expected = with_new_head(arch, last, 5).state_dict()
    state = as_torchvision(net, "audio", last)
    assert {k: v.shape for k, v in state.items()} == {k: v.shape for k, v in expected.items()}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of a ResNet-18 whose batch statistics differ from 0 and 1."""
    torch.manual_seed(0)
    network = models.resnet18()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(network.state_dict(), path)
    return path


def test_weights_and_outputs_are_torchvisions(weights):
    spec = InputSpec("image", mean=-20.0, std=9.0)
    net = TorchvisionNet(5, {"audio": spec}, "resnet18", weights, input_size=None).eval()
    expected = models.resnet18()
    expected.load_state_dict(torch.load(weights))
    expected.fc = nn.Linear(512, 5)
    own = expected.state_dict()
    state = as_torchvision(net, "audio", "fc")
    assert all(torch.equal(v, own[k]) for k, v in state.items() if not k.startswith("fc."))

    expected.fc.load_state_dict(net.classifiers["audio"].state_dict())
    cells = torch.randn(3, 1, 40, 36) * 9 - 20
    with torch.no_grad():
        out = net(audio=cells)
        logits = expected.eval()(((cells + 20) / 9).repeat(1, 3, 1, 1))
    torch.testing.assert_close(out.logits["audio"], logits)
    head = net.classifiers["audio"]
    np.testing.assert_allclose(
        out.layers["audio"][-1].numpy() @ head.weight.detach().numpy().T
        + head.bias.detach().numpy(),
        logits.numpy(),
        atol=1e-4,
    )


def test_modalities_start_from_the_same_weights_and_share_nothing(weights):
    inputs = {"visual": InputSpec("image", uint8=True), "audio": InputSpec("image")}
    net = TorchvisionNet(4, inputs, "resnet18", weights, input_size=32)
    backbones = net.backbones["visual"].state_dict(), net.backbones["audio"].state_dict()
    assert all(map(torch.equal, backbones[0].values(), backbones[1].values()))
    of = {m: [p for k, p in net.named_parameters() if f".{m}." in k] for m in inputs}
    assert sum(map(len, of.values())) == len(list(net.parameters()))
    out = net(audio=torch.randn(4, 1, 32, 32))
    assert set(out.logits) == {"audio"}
    out.logits["audio"].square().sum().backward()
    assert all(p.grad is None for p in of["visual"])
    assert all(p.grad.abs().sum() > 0 for p in of["audio"])


def test_a_frozen_backbone_keeps_weights_and_batch_statistics(weights):
    net = TorchvisionNet(
        4, {"audio": InputSpec("image")}, "resnet18", weights, backbone_trainable=False
    ).train()
    before = {k: v.clone() for k, v in net.backbones.state_dict().items()}
    net(audio=torch.randn(4, 1, 32, 32)).logits["audio"].sum().backward()
    assert all(map(torch.equal, before.values(), net.backbones.state_dict().values()))
    assert {k for k, p in net.named_parameters() if p.grad is not None} == {
        "classifiers.audio.weight",
        "classifiers.audio.bias",
    }


def test_vectors_go_straight_into_the_last_layer():
    mean, std = np.array([1.0, 2.0, 3.0]), np.array([2.0, 1.0, 4.0])
    net = TorchvisionNet(4, {"audio": InputSpec("vector", False, 3, mean, std)})
    x = torch.randn(6, 3)
    out = net(audio=x)
    head = net.classifiers["audio"]
    features = (x.numpy() - mean) / std
    np.testing.assert_allclose(out.layers["audio"][-1].numpy(), features, atol=1e-5)
    expected = features @ head.weight.detach().numpy().T + head.bias.detach().numpy()
    np.testing.assert_allclose(out.logits["audio"].detach().numpy(), expected, atol=1e-5)


def test_callable_architecture():
    def flat():
        return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten()), 12

    net = TorchvisionNet(3, {"audio": InputSpec("image")}, flat, input_size=8)
    assert net(audio=torch.randn(2, 1, 9, 9)).layers["audio"][0].shape == (2, 12)
