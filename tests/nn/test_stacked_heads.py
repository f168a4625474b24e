import numpy as np
import pytest
import torch
from torch.nn import functional as F

from skfdan.nn import FDANNet
from skfdan.nn.adaptation import AdaptationLoss
from skfdan.nn.inputs import InputSpec
from skfdan.nn.stacked import StackedHeads, stacked_discrepancy

INPUTS = {
    "visual": InputSpec("vector", n_features=7),
    "audio": InputSpec("vector", n_features=5),
}
N = {"visual": 6, "audio": 9}


def networks(modalities=("visual", "audio"), **parameters):
    """Three networks of different weights, in float64."""
    torch.manual_seed(0)
    inputs = {m: INPUTS[m] for m in modalities}
    settings = {"bottleneck": 8, "ffn_dim": 11} | parameters
    nets = [FDANNet(3, inputs, **settings) for _ in range(3)]
    for net in nets:
        for p in net.parameters():  # norms begin with ones and zeros, which hide mistakes
            p.data += 0.3 * torch.randn_like(p)
    return [net.double() for net in nets]


def batch(modalities=("visual", "audio")):
    g = torch.Generator().manual_seed(1)
    return {
        # Numbers that float32 holds, to which networks round their cells.
        m: torch.randn(N[m], INPUTS[m].n_features, generator=g).double()
        for m in modalities
    }


def some_loss(output, weights):
    """A loss that every output of a network takes part in, in its own way."""
    total = 0.0
    for m, logits in output.logits.items():
        total = total + (logits * weights[m]).square().sum((-2, -1))
        for z in output.layers[m]:
            total = total + z.sin().sum((-2, -1))
    return total


@pytest.mark.parametrize(
    ("modalities", "parameters"),
    [
        (("visual", "audio"), {}),
        (("visual", "audio"), {"n_layers": 0}),
        (("visual", "audio"), {"n_layers": 2, "n_heads": 4}),
        (("visual", "audio"), {"bottleneck": 6}),  # 36 weights, no multiple of the alignment
        (("audio",), {"n_layers": 2}),
    ],
)
def test_outputs_and_gradients_are_those_of_each_network(modalities, parameters):
    nets, x = networks(modalities, **parameters), batch(modalities)
    weights = {m: torch.rand(3, dtype=torch.float64) for m in modalities}
    heads = StackedHeads(nets)
    for _ in range(2):  # gradients of a second pass replace those of the first
        together = heads(x)
        some_loss(together, weights).sum().backward()
    for i, net in enumerate(nets):
        alone = net(**x)
        for m in modalities:
            torch.testing.assert_close(together.logits[m][i], alone.logits[m])
            for z, expected in zip(together.layers[m], alone.layers[m], strict=True):
                torch.testing.assert_close(z[i], expected)
        some_loss(alone, weights).backward()
        found = heads.split(heads.rows[i].grad)
        expected = {n: p.grad for n, p in net.named_parameters() if p.grad is not None}
        # Parameters without a gradient are no part of the stack.
        assert found.keys() == expected.keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(found[name], gradient, msg=name)


def test_matrices_lie_in_memory_by_their_longer_side():
    heads = StackedHeads(networks())
    matrices = {n: block.of(heads.values) for n, block in heads._blocks.items()}
    matrices = {n: w for n, w in matrices.items() if w.ndim == 3}
    assert {n for n, w in matrices.items() if w.stride(2) != 1} == {
        # 8 -> 24 and 8 -> 11; a bottleneck is 7 -> 8 or 5 -> 8
        *(f"layers.0.{m}.query+key+value.weight" for m in N),
        *(f"layers.0.{m}.ffn.0.weight" for m in N),
        *(f"bottlenecks.{m}.0.weight" for m in N),
    }
    for w in matrices.values():
        assert max(w.stride()[1:]) == max(w.shape[1:])


def test_a_frozen_backbone_is_no_part_of_the_stack():
    inputs = {"audio": InputSpec("image")}
    net = FDANNet(3, inputs, backbone="cnn", weights=None, bottleneck=8, backbone_trainable=False)
    heads = StackedHeads([net])
    assert not any(name.startswith("backbones") for name in heads.split(heads.values))


def test_dropout_drops_what_one_network_would_drop():
    nets, x = networks(dropout=0.4), batch()
    torch.manual_seed(5)
    together = StackedHeads(nets)(x)
    for i, net in enumerate(nets):
        torch.manual_seed(5)
        alone = net.train()(**x)
        assert (alone.layers["audio"][0] == 0).float().mean() > 0.5
        torch.testing.assert_close(together.logits["audio"][i], alone.logits["audio"])


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_rows_are_optimised_and_given_back(optimizer):
    settings = {"lr": 0.1, "weight_decay": 0.3}
    if optimizer is torch.optim.SGD:
        settings["momentum"] = 0.7
    nets, x = networks(), batch()
    heads = StackedHeads(nets)
    rows = [optimizer([row], **settings) for row in heads.rows]
    weights = dict.fromkeys(N, 1.0)
    for _ in range(3):
        some_loss(heads(x), weights).sum().backward()
        for row in rows:
            row.step()
    fresh = networks()
    for i, net in enumerate(nets):
        alone = optimizer(net.parameters(), **settings)
        for _ in range(3):
            alone.zero_grad()
            some_loss(net(**x), weights).backward()
            alone.step()
        heads.write_back(i, fresh[i])
        state = heads.optimizer_state(i, rows[i].state[heads.rows[i]])
        for name, p in net.named_parameters():
            torch.testing.assert_close(fresh[i].get_parameter(name), p, msg=name)
            assert state[name].keys() == alone.state[p].keys()
            for key, value in alone.state[p].items():
                torch.testing.assert_close(state[name][key], value, msg=f"{key} of {name}")
                assert state[name][key].stride() == value.stride()


@pytest.mark.parametrize("name", ["lmmd", "mmd"])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("shared", [True, False])
def test_the_discrepancy_is_that_of_each_network(name, normalize, shared):
    adapt = AdaptationLoss(name, n_layers=2, n_features=4, n_classes=5, normalize=normalize)
    g = torch.Generator().manual_seed(0)
    layers = [
        {m: torch.randn(3, n, 4, generator=g, dtype=torch.float64) for m, n in N.items()}
        for _ in range(2)
    ]
    for z in layers:
        for part in z.values():
            part.requires_grad_()
    y = {
        "visual": torch.arange(6) % 3,
        "audio": torch.arange(9) % 4 if shared else 4 + 0 * torch.arange(9),
    }
    scale = torch.tensor([1.0, 2.0, -3.0], dtype=torch.float64)
    together = stacked_discrepancy(adapt, layers, y)
    (together * scale).sum().backward()
    found = [{m: z[m].grad.clone() for m in N} for z in layers]
    for i in range(3):
        own = [{m: z[m][i].detach().requires_grad_() for m in N} for z in layers]
        alone = adapt(own, {}, y, 0.0)
        torch.testing.assert_close(together[i], alone)
        if alone.requires_grad:
            (alone * scale[i]).backward()
        for gradients, z in zip(found, own, strict=True):
            for m in N:
                torch.testing.assert_close(gradients[m][i], z[m].grad)


def test_a_network_of_nan_spoils_no_other():
    nets, x = networks(), batch()
    expected = [net(**x).logits["audio"].detach() for net in nets]
    for p in nets[1].parameters():
        p.data.fill_(np.nan)
    heads = StackedHeads(nets)
    output = heads(x)
    adapt = AdaptationLoss("lmmd", n_layers=1, n_features=8, n_classes=3)
    y = {m: torch.arange(n) % 3 for m, n in N.items()}
    loss = sum(
        F.cross_entropy(output.logits[m].flatten(0, 1), y[m].repeat(3), reduction="none")
        .view(3, -1)
        .mean(1)
        for m in N
    )
    (loss + stacked_discrepancy(adapt, output.adapted(), y)).sum().backward()
    for i in (0, 2):
        torch.testing.assert_close(output.logits["audio"][i], expected[i])
        assert torch.isfinite(heads.gradients[i]).all()
    assert heads.gradients[1].isnan().any()


@pytest.mark.parametrize("divide_by_all", [True, False])
def test_the_discrepancy_divides_as_the_loss_does(divide_by_all):
    adapt = AdaptationLoss("lmmd", 1, 4, 5, divide_by_all=divide_by_all)
    z = {"visual": torch.randn(3, 6, 4), "audio": torch.randn(3, 9, 4)}
    y = {"visual": torch.arange(6) % 3, "audio": torch.arange(9) % 4}
    together = stacked_discrepancy(adapt, [z], y)
    alone = [adapt([{m: z[m][i] for m in z}], {}, y, 0.0) for i in range(3)]
    torch.testing.assert_close(together, torch.stack(alone))
