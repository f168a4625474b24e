import copy
import pathlib
import platform

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, jacrev, vmap

from skfdan.nn import FDANNet, InputSpec, products
from skfdan.nn.products import Linear, stacked_product
from skfdan.nn.stacked import StackedHeads

ONEDNN = products._product_of_onednn()
needs_onednn = pytest.mark.skipif(ONEDNN is None, reason="this torch has no oneDNN")


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture(params=["onednn", "torch"])
def by(request, monkeypatch):
    """Compute products, of whatever size, by the one or by the other."""
    if request.param == "onednn" and ONEDNN is None:
        pytest.skip("this torch has no oneDNN")
    chosen = ONEDNN if request.param == "onednn" else None
    monkeypatch.setattr(products, "_onednn", lambda: chosen)
    monkeypatch.setattr(products, "_WORTH", 1)
    return request.param


@pytest.fixture
def calls(monkeypatch):
    """Count what oneDNN is asked for."""
    asked = []

    def product(*args):
        asked.append(args)
        return ONEDNN(*args)

    monkeypatch.setattr(products, "_onednn", lambda: product)
    monkeypatch.setattr(products, "_WORTH", 1)
    return asked


def pair(bias=True, dtype=torch.float32):
    """Return a layer and torch's, with the same weights."""
    ours = Linear(24, 40, bias=bias, dtype=dtype)
    plain = nn.Linear(24, 40, bias=bias, dtype=dtype)
    plain.load_state_dict(ours.state_dict())
    return ours, plain


def close(a, b):
    scale = max(1.0, float(b.detach().abs().max())) if b.numel() else 1.0
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * scale)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(6, 24), (1, 24), (0, 24), (24,), (2, 3, 24)])
def test_values_and_gradients_are_those_of_torch(by, bias, shape):
    found, expected = pair(bias)
    x = torch.randn(shape)
    results = []
    for layer in (found, expected):
        inputs = x.clone().requires_grad_()
        y = layer(inputs)
        y.square().sum().backward()
        results.append([y, inputs.grad, *(p.grad for p in layer.parameters())])
    for a, b in zip(*results, strict=True):
        close(a, b)


def test_gradients_of_any_layout(by):
    found, expected = pair()
    x = torch.randn(48, 6).T[:, ::2]  # neither rows nor columns lie side by side
    for layer in (found, expected):
        layer(x).sum().backward()  # its gradient is one number, repeated
    close(found.weight.grad, expected.weight.grad)
    found.zero_grad(), expected.zero_grad()
    for layer in (found, expected):
        (layer(x).T @ torch.ones(6, 3)).sum().backward()
    close(found.weight.grad, expected.weight.grad)


def test_a_gradient_can_be_differentiated_again(by):
    results = []
    ours, plain = pair()
    x = torch.randn(6, 24)
    for layer in (ours, plain):
        inputs = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(layer(inputs).pow(3).sum(), inputs, create_graph=True)
        slope.square().sum().backward()
        results.append([inputs.grad, *(p.grad for p in layer.parameters())])
    for a, b in zip(*results, strict=True):
        close(a, b)


@needs_onednn
def test_gradients_that_nobody_asks_for_are_not_computed(calls):
    layer = Linear(24, 40).requires_grad_(False)
    x = torch.randn(6, 24, requires_grad=True)
    layer(x).sum().backward()
    assert len(calls) == 2  # forward, and of x
    calls.clear()
    layer.requires_grad_(True)
    layer(x.detach()).sum().backward()
    assert len(calls) == 2  # forward, and of the weight


def test_function_transforms(by):
    ours, plain = pair()
    x = torch.randn(6, 24)
    close(jacrev(ours)(x), jacrev(plain)(x))
    many = torch.randn(3, 6, 24)
    close(vmap(ours)(many), plain(many))

    def slopes(layer, x):
        weights = dict(layer.named_parameters())
        loss = grad(lambda w, x: functional_call(layer, w, (x,)).square().sum())
        return vmap(loss, (None, 0))(weights, x)

    for a, b in zip(slopes(ours, many).values(), slopes(plain, many).values(), strict=True):
        close(a, b)


@needs_onednn
def test_who_goes_by_onednn(calls, monkeypatch):
    def asked(layer, x):
        calls.clear()
        y = layer(x)
        assert y.dtype == nn.functional.linear(x, layer.weight, layer.bias).dtype
        return bool(calls)

    layer = Linear(24, 40)
    x = torch.randn(6, 24)
    assert asked(layer, x)
    assert not asked(layer.double(), x.double())
    assert not asked(Linear(24, 40).to("meta"), x.to("meta"))
    with torch.autocast("cpu", torch.bfloat16):
        assert not asked(Linear(24, 40), x)
    monkeypatch.setattr(products, "_WORTH", 6 * 24 * 40)
    assert asked(Linear(24, 40), x)
    assert not asked(Linear(24, 40), x[:5])


@pytest.mark.filterwarnings("ignore:Guards may run slower")  # on Python 3.13.0
def test_compiled_it_is_torchs_layer(monkeypatch):
    monkeypatch.setattr(products, "_WORTH", 1)
    products._onednn.cache_clear()  # a compiler would have to read what it reads
    ours, plain = pair()
    x = torch.randn(6, 24)
    compiled = torch.compile(ours, fullgraph=True, backend="eager")
    close(compiled(x), plain(x))


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace")  # deprecated, and still in use
def test_traced_it_is_torchs_layer(calls):
    ours, plain = pair()
    x = torch.randn(6, 24)
    traced = torch.jit.trace(ours, x, check_trace=False)
    calls.clear()
    close(traced(x), plain(x))
    assert not calls
    assert "^" not in str(traced.graph)  # as functions in Python are written


AMD = "vendor_id\t: AuthenticAMD\ncpu family\t: {}\nmodel\t\t: 2\n"


@pytest.mark.parametrize(
    ("about", "capability", "expected"),
    [
        (AMD.format(26), "AVX512", True),
        (AMD.format(27), "AVX512", True),
        (AMD.format(25), "AVX512", False),  # AVX-512 there is no faster than AVX2
        (AMD.format(26), "AVX2", False),
        ("vendor_id\t: GenuineIntel\ncpu family\t: 26\n", "AVX512", False),
        ("", "AVX512", False),
    ],
)
@pytest.mark.parametrize("system", ["Linux", "Windows"])
def test_only_where_mkl_is_slower(monkeypatch, about, capability, expected, system):
    def read_text(self):
        if system == "Linux":
            return about
        raise FileNotFoundError(self)

    numbers = about.replace("\t", "").splitlines()
    name = f"AMD64 Family {numbers[1].split(': ')[1]}, {numbers[0].split(': ')[1]}" if about else ""
    monkeypatch.setattr(pathlib.Path, "read_text", read_text)
    monkeypatch.setattr(platform, "processor", lambda: name if system == "Windows" else "x86_64")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    products._onednn.cache_clear()
    try:
        assert products._onednn() is (ONEDNN if expected else None)
        products._onednn.cache_clear()
        monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
        assert products._onednn() is None
    finally:
        products._onednn.cache_clear()


def test_a_torch_without_onednn(monkeypatch):
    class Without:
        def __getattr__(self, name):
            raise AttributeError(name)

    monkeypatch.setattr(torch.ops, "mkldnn", Without())
    assert products._product_of_onednn() is None


@pytest.mark.parametrize("with_bias", [True, False])
def test_stacked_products(by, with_bias):
    a, b = torch.randn(3, 6, 8), torch.randn(3, 5, 8)
    bias = torch.randn(3, 5) if with_bias else None
    expected = torch.stack([x @ y.T for x, y in zip(a, b, strict=True)])
    if with_bias:
        expected = expected + bias[:, None]
    close(stacked_product(a, b, bias), expected)
    close(stacked_product(a[:1].expand(3, 6, 8), b), a[:1] @ b.mT)
    if not with_bias:
        out = torch.empty(3, 40)[:, :30].view(3, 6, 5)
        assert stacked_product(a, b, out=out) is out
        close(out, expected)
        close(stacked_product(a.mT.contiguous().mT, b.mT.contiguous().mT), expected)


@needs_onednn
def test_heads_are_the_same_by_either(calls, monkeypatch):
    """Values and gradients of a network, and of a stack of it."""
    inputs = {m: InputSpec("vector", n_features=12) for m in ("visual", "audio")}
    net = FDANNet(4, inputs, bottleneck=8, n_layers=2)
    x = {"visual": torch.randn(7, 12), "audio": torch.randn(5, 12)}
    results = []
    for chosen in (products._onednn(), None):
        monkeypatch.setattr(products, "_onednn", lambda chosen=chosen: chosen)
        one = copy.deepcopy(net)
        logits = one(**x).logits
        sum(z.square().sum() for z in logits.values()).backward()
        stack = StackedHeads([net, net])
        of_stack = stack(x).logits
        sum(z.square().sum() for z in of_stack.values()).backward()
        results.append(
            [*logits.values(), *of_stack.values(), stack.gradients]
            + [p.grad for p in one.parameters()]
        )
        assert bool(calls) is (chosen is not None)
        calls.clear()
    for a, b in zip(*results, strict=True):
        close(a, b)


def test_saved_weights_are_torchs():
    ours, plain = pair()
    assert list(ours.state_dict()) == list(plain.state_dict())
    assert isinstance(ours, nn.Linear)
