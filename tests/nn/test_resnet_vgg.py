"""ResNets and VGGs against torchvision's, which are independent implementations."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from skfdan.nn._resnet_vgg import IMAGENET_URLS, StagedNetwork, make_resnet, make_vgg
from skfdan.nn.backbones import BACKBONES, embed, make_backbone

NAMES = ("resnet18", "resnet34", "resnet50", "vgg16", "vgg19")


def make(name):
    return make_resnet(name) if name.startswith("resnet") else make_vgg(name)


# Has 138 million weights.
VGG16 = pytest.param("vgg16", marks=[pytest.mark.slow, pytest.mark.long])


@pytest.fixture(scope="module", params=["resnet18", "resnet50", VGG16])
def pair(request):
    """Our network, torchvision's, and the next random number after each."""
    from torchvision import models

    torch.manual_seed(3)
    ours = make(request.param)
    after = torch.rand(1)
    torch.manual_seed(3)
    theirs = models.get_model(request.param, weights=None)
    return ours, theirs, (after, torch.rand(1))


@pytest.fixture(scope="module")
def images():
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


# against torchvision


@pytest.mark.parametrize("name", NAMES)
def test_names_and_shapes(name):
    from torchvision import models

    with torch.device("meta"):
        ours, theirs = make(name), models.get_model(name, weights=None)
    for kind in ("state_dict", "named_parameters"):  # optimizers go by the order
        listed = [
            [(k, v.shape, v.dtype) for k, v in dict(getattr(network, kind)()).items()]
            for network in (ours, theirs)
        ]
        assert listed[0] == listed[1]


def test_the_same_seed_gives_the_same_weights(pair):
    ours, theirs, (after_ours, after_theirs) = pair
    state = ours.state_dict()
    for key, value in theirs.state_dict().items():
        assert torch.equal(state[key], value), key
    # What is drawn next, such as a layer on top of the network, does not change either.
    assert torch.equal(after_ours, after_theirs)


def test_evaluation_and_training_give_the_same_values(pair, images):
    ours, theirs, _ = pair
    generator = torch.Generator().manual_seed(2)
    for module in theirs.modules():
        # Fresh networks would not show whether statistics and biases are read.
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1, generator=generator)
            nn.init.uniform_(module.running_var, 0.5, 2.0, generator=generator)
            nn.init.uniform_(module.weight, 0.5, 1.0, generator=generator)
        if getattr(module, "bias", None) is not None:
            nn.init.normal_(module.bias, std=0.1, generator=generator)
    ours.load_state_dict(theirs.state_dict())
    out = {}
    with torch.inference_mode():
        for key, network in (("ours", ours), ("theirs", theirs)):
            evaluated = network.eval()(images)
            torch.manual_seed(0)  # of dropout
            out[key] = evaluated, network.train()(images)
    for ours_out, theirs_out in zip(out["ours"], out["theirs"], strict=True):
        assert theirs_out.std() > 0.01
        torch.testing.assert_close(ours_out, theirs_out, rtol=1e-6, atol=1e-6)
    assert not torch.equal(*out["ours"])
    for (key, value), expected in zip(
        ours.state_dict().items(), theirs.state_dict().values(), strict=True
    ):
        if "running" in key or "tracked" in key:
            torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-6, msg=key)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_gradients_are_the_same(name, images):
    from torchvision import models

    gradients = []
    for build in (make, lambda n: models.get_model(n, weights=None)):
        torch.manual_seed(0)
        network = build(name)
        network(images).square().mean().backward()
        gradients.append({k: p.grad for k, p in network.named_parameters()})
    for key, gradient in gradients[0].items():
        expected = gradients[1][key]
        assert expected.abs().max() > 0
        atol = 1e-5 * expected.abs().max().item()
        torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=atol, msg=key)


@pytest.mark.parametrize("name", NAMES)
def test_the_imagenet_weights_are_torchvisions_default(name):
    from torchvision import models

    assert IMAGENET_URLS[name] == models.get_model_weights(name).DEFAULT.url


def test_every_network_with_weights_has_an_address():
    assert set(IMAGENET_URLS) == set(BACKBONES) - {"cnn"}


# in parts


@pytest.fixture(scope="module", params=["resnet18", "resnet50", VGG16, "cnn"])
def backbone(request):
    return request.param, make_backbone(request.param, weights=None)[0]


@pytest.mark.parametrize("training", [False, True])
def test_parts_give_what_the_whole_gives(backbone, training, images):
    _, network = backbone
    network.train(training)

    def run(x, **stages):
        torch.manual_seed(0)
        return network(x, **stages)

    with torch.inference_mode():
        expected = run(images)
        for cut in network.stages:
            below = run(images, stop=cut)
            kept = below.clone()
            assert torch.equal(run(below, start=cut), expected), cut
            # Stored maps are used again in the next epoch.
            assert torch.equal(below, kept), cut
        one_by_one = images
        for stage, after in zip(network.stages, [*network.stages[1:], None], strict=True):
            one_by_one = run(one_by_one, start=stage, stop=after)
        assert torch.equal(one_by_one, expected)


#: Channels and side of what enters each stage, by the papers' tables, for 64 pixels.
SHAPES = {
    "resnet18": [(3, 64), (64, 16), (64, 16), (128, 8), (256, 4), (512, 2)],
    "resnet50": [(3, 64), (64, 16), (256, 16), (512, 8), (1024, 4), (2048, 2)],
    "vgg16": [(3, 64), (64, 32), (128, 16), (256, 8), (512, 4), (512, 2)],
    "cnn": [(3, 64), (16, 16), (32, 8), (64, 4), (128, 2)],
}


def test_what_enters_each_stage(backbone, images):
    name, network = backbone
    assert len(network.stages) == len(SHAPES[name])
    with torch.inference_mode():
        for stage, (channels, side) in zip(network.stages, SHAPES[name], strict=True):
            assert network(images, stop=stage).shape == (2, channels, side, side), stage


def test_no_stage_is_left_of_an_empty_part(images):
    network, _ = make_backbone("cnn")
    assert network(images, start="block2", stop="block2") is images


def test_every_module_of_the_small_network_belongs_to_a_stage():
    network, _ = make_backbone("cnn")
    staged = [m for stage in network.stages for m in network.stage_modules(stage)]
    assert staged == list(network)
    assert isinstance(network, StagedNetwork)
    assert next(iter(network.state_dict())) == "0.weight"


@pytest.mark.parametrize("parameter", ["start", "stop"])
def test_unknown_stage(parameter, images):
    network, _ = make_backbone("cnn")
    message = rf"{parameter}='layer9' is no stage of this network; choose one of block1, .*head"
    with pytest.raises(ValueError, match=message):
        network(images, **{parameter: "layer9"})


def test_stages_in_the_wrong_order(images):
    network, _ = make_backbone("cnn")
    with pytest.raises(ValueError, match="stop='block1' comes before start='head'; the order is"):
        network(images, start="head", stop="block1")


def test_stages_share_no_parameter_and_leave_none_out(backbone):
    _, network = backbone
    staged = [
        p
        for stage in network.stages
        for module in network.stage_modules(stage)
        for p in module.parameters()
    ]
    assert len(staged) == len(set(staged))
    assert set(staged) == set(network.parameters())


@pytest.mark.parametrize("name", ["resnet18", "cnn"])
def test_a_lone_image_gives_in_parts_what_it_gives_among_others(name, images):
    network, _ = make_backbone(name, weights=None)
    network.eval()
    cut = network.stages[-2]
    with torch.inference_mode():
        below = embed(network, images, stop=cut)
        together = embed(network, below, start=cut)
        assert torch.equal(together, embed(network, images))
        alone = embed(network, images[:1], stop=cut)
        assert torch.equal(alone, below[:1])
        assert torch.equal(embed(network, alone, start=cut), together[:1])


# start-up

FORWARD = """
import sys
import torch
from skfdan import FDANClassifier
from skfdan.nn import FDANNet, InputSpec

FDANClassifier(backbone="resnet18", weights=None)
net = FDANNet(2, {"audio": InputSpec("image")}, backbone="resnet18", weights=None, input_size=32)
net(audio=torch.zeros(2, 1, 32, 32))
print([name for name in ("torchvision", "torch._dynamo") if name in sys.modules])
"""
# Optimizers of torch import its compiler, torch._dynamo, by themselves.
FIT = """
import sys
import numpy as np
from skfdan import FDANClassifier, make_table

rng = np.random.default_rng(0)
X = make_table(audio=list(rng.normal(size=(4, 32, 32)).astype("float32")))
clf = FDANClassifier(backbone="resnet18", weights=None, input_size=32, max_epochs=1)
clf.fit(X, ["anger", "joy"] * 2).predict(X)
print([name for name in ("torchvision",) if name in sys.modules])
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "code",
    [FORWARD, pytest.param(FIT, marks=pytest.mark.long)],
    ids=["forward", "fit"],
)
def test_torchvision_is_not_imported(code):
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
