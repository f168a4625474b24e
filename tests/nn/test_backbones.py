import gc
import pickle
import threading
import urllib.error
import weakref
from contextlib import nullcontext

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from skfdan.nn import make_backbone
from skfdan.nn.backbones import _FOLDED, BACKBONES, embed

RESNET18_FILE = "resnet18-f37072fd.pth"
RESNET18_URL = f"https://download.pytorch.org/models/{RESNET18_FILE}"


@pytest.fixture(scope="module")
def resnet18():
    """torchvision's network with random weights and batch statistics that differ from 0 and 1."""
    from torchvision import models

    torch.manual_seed(0)
    network = models.resnet18(num_classes=7)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return network.eval()


@pytest.fixture(scope="module")
def images():
    return torch.randn(2, 3, 48, 40, generator=torch.Generator().manual_seed(1))


def penultimate(network, layer, images):
    """What enters the last layer of a torchvision network."""
    caught = []
    hook = layer.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
    with torch.no_grad():
        network(images)
    hook.remove()
    return caught[0]


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty torch.hub cache and no network."""

    def offline(*args, **kwargs):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "urlopen", offline)
    return tmp_path / "hub" / "checkpoints"


# features


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
@pytest.mark.parametrize("last", ["kept", "left out", "other classes"])
def test_resnet18_gives_torchvisions_penultimate_activations(
    resnet18, images, tmp_path, suffix, last
):
    state = resnet18.state_dict()
    if last == "left out":
        state = {k: v for k, v in state.items() if not k.startswith("fc.")}
    elif last == "other classes":
        state = {**state, "fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    path = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(state, path)

    backbone, n_features = make_backbone("resnet18", weights=path)
    backbone.eval()
    with torch.no_grad():
        features = backbone(images)
    assert n_features == 512
    assert features.shape == (2, 512)
    torch.testing.assert_close(features, penultimate(resnet18, resnet18.fc, images))


def test_weights_may_be_a_string(resnet18, tmp_path):
    torch.save(resnet18.state_dict(), tmp_path / "w.pth")
    backbone, _ = make_backbone("resnet18", weights=str(tmp_path / "w.pth"))
    assert torch.equal(backbone.conv1.weight, resnet18.conv1.weight)


def test_weights_of_the_old_file_format(resnet18, tmp_path):
    """torchvision still serves files from before torch 1.6."""
    torch.save(resnet18.state_dict(), tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    backbone, _ = make_backbone("resnet18", weights=tmp_path / "w.pth")
    assert torch.equal(backbone.layer4[1].bn2.running_var, resnet18.layer4[1].bn2.running_var)


def test_weights_from_before_the_batch_counter(hub, resnet18, images):
    """torchvision's resnet18-5c106cde.pth has 102 entries: no ``num_batches_tracked``."""
    state = {k: v for k, v in resnet18.state_dict().items() if not k.endswith("tracked")}
    assert len(state) == 102
    hub.mkdir(parents=True)
    torch.save(state, hub / RESNET18_FILE)
    for weights in ("DEFAULT", hub / RESNET18_FILE):
        backbone, _ = make_backbone("resnet18", weights)
        backbone.eval()
        with torch.no_grad():
            features = backbone(images)
        torch.testing.assert_close(features, penultimate(resnet18, resnet18.fc, images))


def test_no_weights_are_random_weights():
    torch.manual_seed(0)
    one = make_backbone("resnet18", weights=None)[0].conv1.weight
    two = make_backbone("resnet18", weights=None)[0].conv1.weight
    torch.manual_seed(0)
    three = make_backbone("resnet18", weights=None)[0].conv1.weight
    assert not torch.equal(one, two)
    assert torch.equal(one, three)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet18", 512),
        ("resnet34", 512),
        ("resnet50", 2048),
        ("vgg16", 4096),
        ("vgg19", 4096),
        ("cnn", 128),
    ],
)
def test_number_of_features(name, expected):
    # Nothing is computed or stored on the meta device, only shapes are.
    with torch.device("meta"):
        backbone, n_features = make_backbone(name, weights=None)
        features = backbone(torch.zeros(2, 3, 64, 64))
    assert n_features == expected
    assert features.shape == (2, expected)
    assert name in BACKBONES


def test_every_name_is_tested():
    assert set(BACKBONES) == {"resnet18", "resnet34", "resnet50", "vgg16", "vgg19", "cnn"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["vgg16", pytest.param("vgg19", marks=pytest.mark.long), "resnet34", "resnet50"]
)
def test_other_networks_give_torchvisions_penultimate_activations(name, images, tmp_path):
    from torchvision import models

    torch.manual_seed(0)
    network = models.get_model(name, weights=None).eval()
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    backbone, _ = make_backbone(name, weights=tmp_path / "w.safetensors")
    backbone.eval()
    layer = network.fc if name.startswith("resnet") else network.classifier[6]
    with torch.no_grad():
        features = backbone(images)
    torch.testing.assert_close(features, penultimate(network, layer, images))


@pytest.mark.parametrize("size", [1, 8, 15, 32, 64])
def test_small_network_takes_images_of_any_size(size):
    backbone, n_features = make_backbone("cnn", weights=None)
    features = backbone(torch.rand(3, 3, size, size + 3))
    assert features.shape == (3, n_features)
    assert torch.isfinite(features).all()


def test_small_network_takes_default_for_random():
    assert make_backbone("cnn")[1] == 128


@pytest.mark.parametrize("weights", [None, "DEFAULT"])
def test_of_a_callable_a_copy_is_taken(weights):
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 5))
    one, n_features = make_backbone(lambda: (network, 5), weights)
    other, _ = make_backbone(lambda: (network, 5), weights)
    assert n_features == 5
    theirs = {id(p) for net in (network, other) for p in net.parameters()}
    assert theirs.isdisjoint(map(id, one.parameters()))
    images = torch.rand(2, 3, 4, 4)
    assert torch.equal(one(images), network(images))


# errors


def test_unknown_name():
    with pytest.raises(ValueError, match=r"backbone='resnet19' is unknown; choose one of resnet18"):
        make_backbone("resnet19", weights=None)


class _Locked(nn.Flatten):
    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (nn.Flatten, r"backbone=Flatten: it must return .*\(network, 512\); .* a Flatten\.$"),
        (lambda: (nn.Flatten, 48), r"it returned the class Flatten and 48\.$"),
        (lambda: (nn.Flatten(), "48"), r"it returned a Flatten and '48'\.$"),
        (lambda: (nn.Flatten(), 0), r"it returned a Flatten and 0\.$"),
        (lambda: None, r"it returned a NoneType\.$"),
        (lambda: (_Locked(), 48), r"its _Locked can't be copied with copy\.deepcopy"),
    ],
)
def test_what_a_callable_must_return(function, message):
    with pytest.raises(ValueError, match=message):
        make_backbone(function)


@pytest.mark.parametrize(
    ("network", "found"),
    [
        (nn.Flatten(), r"\(2, 48\)"),
        (nn.Identity(), r"\(2, 3, 4, 4\)"),
        (nn.Sequential(nn.Flatten(), nn.LSTM(48, 7)), "a tuple"),
    ],
)
def test_a_callable_must_keep_its_word(network, found):
    backbone, _ = make_backbone(lambda: (network, 7))
    for n in (1, 2):
        with pytest.raises(ValueError, match=rf"gives {found} for 2 images, .* of 7 features"):
            embed(backbone, torch.rand(n, 3, 4, 4))


@pytest.mark.parametrize("name", ["cnn", lambda: (nn.Flatten(), 48)])
def test_a_path_where_no_weights_can_be_loaded(name, tmp_path):
    with pytest.raises(ValueError, match="set weights=None"):
        make_backbone(name, weights=tmp_path / "w.pth")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_missing_file(tmp_path, suffix):
    path = tmp_path / f"none{suffix}"
    with pytest.raises(FileNotFoundError, match=rf"none{suffix}': there is no such file"):
        make_backbone("resnet18", weights=path)
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        make_backbone("resnet18", weights=tmp_path)


@pytest.mark.parametrize("content", [b"", b"<html>404 Not Found</html>", b"PK\x03\x04 cut short"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_garbage_file(tmp_path, suffix, content):
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    with pytest.raises(RuntimeError, match=rf"w{suffix}' could not be read"):
        make_backbone("resnet18", weights=path)


class Trap:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return (type(self.trace).touch, (self.trace,))


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_a_file_that_would_run_code_is_refused(tmp_path, writer):
    path, trace = tmp_path / "w.pth", tmp_path / "trace"
    if writer == "torch":
        torch.save({"fc.weight": Trap(trace)}, path)
    else:
        path.write_bytes(pickle.dumps(Trap(trace)))
    with pytest.raises(RuntimeError, match="could not be read"):
        make_backbone("resnet18", weights=path)
    assert not trace.exists()


def test_a_pickled_model_is_refused(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "model.pth")
    with pytest.raises(RuntimeError, match="could not be read"):
        make_backbone("resnet18", weights=tmp_path / "model.pth")


@pytest.mark.parametrize(
    ("content", "kind"),
    [([torch.zeros(2)], "list"), (torch.zeros(2), "Tensor"), ({"epoch": 3}, "dict")],
)
def test_a_file_of_something_else(tmp_path, content, kind):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(RuntimeError, match=rf"holds a {kind}, not a state dict of tensors"):
        make_backbone("resnet18", weights=tmp_path / "w.pth")


def test_weights_of_another_network(resnet18, tmp_path):
    path = tmp_path / "w.safetensors"
    save_file(resnet18.state_dict(), path)
    # Of ResNet-34's 36 convolutions and as many norms ResNet-18 has 20: 16 x 5 are missing.
    with pytest.raises(RuntimeError, match="does not fit resnet34: 80 parameters are missing"):
        make_backbone("resnet34", weights=path)


def test_weights_with_foreign_names_or_shapes(resnet18, tmp_path):
    path = tmp_path / "w.safetensors"
    state = resnet18.state_dict()
    save_file({f"module.{k}": v for k, v in state.items()}, path)
    with pytest.raises(RuntimeError, match=r"122 are unknown \(such as \['module\."):
        make_backbone("resnet18", weights=path)
    save_file({**state, "conv1.weight": torch.zeros(64, 1, 7, 7)}, path)
    with pytest.raises(RuntimeError, match=r"1 have another shape \(such as \['conv1\.weight'\]"):
        make_backbone("resnet18", weights=path)


# ImageNet weights


def test_offline_default_names_file_url_and_place(hub, capsys):
    with pytest.raises(RuntimeError) as caught:
        make_backbone("resnet18")
    message = str(caught.value)
    assert RESNET18_URL in message
    assert str(hub / RESNET18_FILE) in message
    assert f"weights='path/to/{RESNET18_FILE}'" in message
    assert "Name or service not known" in message
    assert "weights=None" in message
    assert isinstance(caught.value.__cause__, urllib.error.URLError)


def test_a_file_in_the_download_cache_is_used(hub, resnet18):
    hub.mkdir(parents=True)
    torch.save({**resnet18.state_dict(), "fc.weight": torch.zeros(1000, 512)}, hub / RESNET18_FILE)
    backbone, n_features = make_backbone("resnet18", weights="DEFAULT")
    assert n_features == 512
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, resnet18.state_dict()[name])


def test_the_advice_for_offline_machines_works(hub, resnet18):
    with pytest.raises(RuntimeError, match="put it at") as caught:
        make_backbone("resnet18")
    place = str(caught.value).split("put it at ")[1].split(", or name it")[0]
    torch.save(resnet18.state_dict(), place)
    assert torch.equal(make_backbone("resnet18")[0].conv1.weight, resnet18.conv1.weight)


@pytest.mark.parametrize("content", [b"", b"<html>404 Not Found</html>"])
def test_a_damaged_file_in_the_cache_is_named(hub, content):
    hub.mkdir(parents=True)
    (hub / RESNET18_FILE).write_bytes(content)
    with pytest.raises(RuntimeError, match=r"could not be loaded") as caught:
        make_backbone("resnet18")
    assert str(hub / RESNET18_FILE) in str(caught.value)


def test_a_file_in_the_cache_that_would_run_code_is_refused(hub, tmp_path):
    hub.mkdir(parents=True)
    torch.save({"fc.weight": Trap(tmp_path / "trace")}, hub / RESNET18_FILE)
    with pytest.raises(RuntimeError, match="could not be loaded"):
        make_backbone("resnet18")
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("name", ["cnn", "resnet18"])
def test_a_lone_image_gives_what_it_gives_among_others(name):
    backbone, _ = make_backbone(name, weights=None)
    images = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        together = embed(backbone.eval(), images)
        for i in range(5):
            assert torch.equal(embed(backbone, images[i : i + 1]), together[i : i + 1])
    # Batch normalisation refuses one value a channel in training.
    assert torch.isfinite(embed(backbone.train(), images[:1])).all()


# inference


def with_statistics(name):
    """A network whose batch statistics differ from 0 and 1."""
    torch.manual_seed(0)
    network, _ = make_backbone(name, weights=None)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
    return network.eval().requires_grad_(False)


@pytest.mark.parametrize("no_gradient", [torch.inference_mode, nullcontext])
@pytest.mark.parametrize("stop", [None, "last"])
@pytest.mark.parametrize("name", ["cnn", "resnet18", "resnet50"])
def test_inference_gives_what_the_network_gives(name, stop, no_gradient, images):
    network = with_statistics(name)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    stop = None if stop is None else network.stages[-2]
    with torch.no_grad():
        expected = network(images, stop=stop)
    with no_gradient():
        got = embed(network, images, stop=stop)
    assert len(_FOLDED[network]) == 1
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


@pytest.mark.parametrize("name", ["cnn", "resnet18", pytest.param("vgg16", marks=pytest.mark.slow)])
def test_inference_in_bfloat16_gives_nearly_what_the_network_gives(name, images):
    network = with_statistics(name)
    with torch.no_grad():
        expected = network(images)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        got = embed(network, images)
    assert got.dtype == torch.bfloat16
    assert float((got - expected).norm() / expected.norm()) < 0.02


def test_batch_normalisation_is_not_run_in_inference():
    network = with_statistics("resnet18")
    images = torch.rand(2, 3, 32, 32)
    with torch.inference_mode(), torch.profiler.profile(acc_events=True) as profile:
        embed(network, images)
    names = {event.key for event in profile.key_averages()}
    assert "aten::conv2d" in names
    assert not any("batch_norm" in name for name in names)


@pytest.mark.parametrize("wanted", ["weights", "images"])
def test_where_a_gradient_is_wanted_it_is_there(wanted):
    network = with_statistics("cnn")
    images = torch.rand(2, 3, 32, 32)
    if wanted == "images":
        images.requires_grad_()
    else:
        next(network.parameters()).requires_grad_()
    embed(network, images).sum().backward()
    assert network not in _FOLDED
    assert (images if wanted == "images" else next(network.parameters())).grad.abs().sum() > 0


@pytest.mark.parametrize("register", ["register_forward_hook", "register_forward_pre_hook"])
def test_hooks_are_called(register):
    network = with_statistics("resnet18")
    images, seen = torch.rand(2, 3, 32, 32), []
    with torch.inference_mode():
        embed(network, images)
        hook = getattr(network.layer4, register)(lambda *args: seen.append(args))
        embed(network, images)
        hook.remove()
        embed(network, images)
    assert len(seen) == 1


@pytest.mark.slow
def test_what_is_trained_is_never_stale():
    """Fused optimisers, the default here, change weights without torch's counting it."""
    torch.manual_seed(0)
    network, _ = make_backbone("vgg16", weights=None)
    network.eval()
    images = torch.rand(2, 3, 32, 32)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, fused=True)
    embed(network, images).square().sum().backward()

    def predict(run):
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            return run(images)

    old = predict(lambda x: embed(network, x))
    optimizer.step()
    new = predict(lambda x: embed(network, x))
    assert not torch.equal(old, new)
    assert torch.equal(new, predict(network))


def in_place(network):
    next(network.parameters()).mul_(-1.0)


def load_others(network):
    network.load_state_dict(with_statistics("cnn").state_dict())


def replace_data(network):
    weight = next(network.parameters())
    weight.data = 2.0 * weight.data


@pytest.mark.parametrize("change", [in_place, load_others, replace_data])
def test_inference_follows_the_weights(change):
    torch.manual_seed(1)
    network, _ = make_backbone("cnn", weights=None)
    network.eval().requires_grad_(False)
    images = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        old = embed(network, images)
    change(network)
    with torch.no_grad():
        expected = network(images)
    with torch.inference_mode():
        new = embed(network, images)
    assert not torch.allclose(old, new, rtol=1e-2)
    torch.testing.assert_close(new, expected, rtol=1e-4, atol=1e-5)


def test_inference_takes_a_network_that_was_made_in_inference_mode():
    images = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        network = with_statistics("cnn")
        old = embed(network, images)
        torch.testing.assert_close(old, network(images))
        next(network.parameters()).mul_(2.0)
        torch.testing.assert_close(embed(network, images), network(images))


def test_what_inference_keeps_ends_with_the_network():
    network = with_statistics("cnn")
    with torch.inference_mode():
        embed(network, torch.rand(2, 3, 32, 32))
    ((_, copy),) = _FOLDED[network].values()
    copy = weakref.ref(copy)
    assert copy() is not None
    del network
    gc.collect()
    assert copy() is None
