import copy

import numpy as np
import pytest
import torch
from torch.func import functional_call
from torch.nn import functional as F

from skfdan.nn import TFMixNet

MEMBERS = ["cnn", "bilstm", "transformer"]


def make_net(n_classes=3, n_features=6, seed=0, **parameters):
    torch.manual_seed(seed)
    small = {"channels": 8, "lstm_hidden": 4, "n_heads": 2, "fc_width": 5, "dropout": 0.0}
    return TFMixNet(n_classes, n_features, **(small | parameters))


def make_batch(n=7, n_features=6, length=20, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 1, n_features, length, generator=generator)
    return x, torch.arange(n) % 3


def loss_of(out, y):
    return sum(F.cross_entropy(logits, y) for logits in out.members.values())


def test_every_parameter_of_every_member_gets_a_gradient():
    net = make_net(n_layers=2)
    x, y = make_batch()
    loss_of(net(audio=x), y).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("member", MEMBERS)
def test_members_share_no_parameter(member):
    net = make_net()
    x, y = make_batch()
    F.cross_entropy(net(audio=x).members[member], y).backward()
    moved = {name.split(".")[1] for name, p in net.named_parameters() if p.grad is not None}
    assert moved == {member}


def test_members_are_the_networks_of_the_paper():
    net = make_net(n_layers=2)
    kinds = {
        name: {type(m).__name__ for m in member.modules()} & {"LSTM", "TransformerEncoderLayer"}
        for name, member in net.members.items()
    }
    assert kinds == {
        "cnn": set(),
        "bilstm": {"LSTM"},
        "transformer": {"LSTM", "TransformerEncoderLayer"},
    }
    assert all(m.lstm.bidirectional for m in net.members.values() if m.lstm is not None)
    logits = list(make_net()(audio=make_batch()[0]).members.values())
    for i in range(3):
        assert not torch.allclose(logits[i], logits[i - 1], atol=1e-3)
    assert 3e5 < sum(p.numel() for p in TFMixNet(7, 98).parameters()) < 1e6


def test_training_together_is_training_each_alone():
    x, y = make_batch()
    together = make_net()
    start = copy.deepcopy(together.state_dict())

    def train(net, loss):
        optimizer = torch.optim.Adam(net.parameters(), lr=0.01, weight_decay=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            loss(net(audio=x)).backward()
            optimizer.step()

    train(together, lambda out: loss_of(out, y))
    for member in MEMBERS:
        alone = make_net(seed=1)
        alone.load_state_dict(start)
        train(alone, lambda out, member=member: F.cross_entropy(out.members[member], y))
        for a, b in zip(
            together.members[member].parameters(), alone.members[member].parameters(), strict=True
        ):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("weights", [None, (0.5, 0.2, 0.3), (0.0, 1.0, 0.0)])
def test_logits_are_the_logarithm_of_the_weighted_average(weights):
    net = make_net().eval()
    if weights is None:
        weights = (1 / 3, 1 / 3, 1 / 3)
    else:
        net.member_weights.copy_(torch.tensor(weights))
    with torch.no_grad():
        out = net(audio=make_batch()[0])
    average = np.zeros((7, 3))
    for weight, name in zip(weights, MEMBERS, strict=True):
        scores = np.exp(out.members[name].double().numpy())
        average += weight * scores / scores.sum(1, keepdims=True)
    np.testing.assert_allclose(np.exp(out.logits["audio"].numpy()), average, atol=1e-6)
    np.testing.assert_allclose(average.sum(1), 1)


def test_layers_are_what_enters_the_last_layers():
    net = make_net().eval()
    out = net(audio=make_batch()[0])
    (features,) = out.layers["audio"]
    assert features.shape == (7, net.n_features_out) == (7, 15)
    for part, name in zip(features.split(5, dim=1), MEMBERS, strict=True):
        torch.testing.assert_close(net.members[name].classifier(part), out.members[name])


def test_every_feature_row_is_standardised():
    plain, scaled = make_net(), make_net()
    x, _ = make_batch()
    rng = np.random.default_rng(0)
    mean, std = rng.normal(size=6), 10 ** rng.uniform(-3, 3, 6)
    scaled.standardise(mean, std)
    stretched = x * torch.from_numpy(std)[:, None] + torch.from_numpy(mean)[:, None]
    torch.testing.assert_close(
        scaled(audio=stretched.float()).logits, plain(audio=x).logits, atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("length", [1, 2, 3, 17])
def test_any_number_of_frames(length):
    x, _ = make_batch(length=length)
    assert make_net()(audio=x).logits["audio"].shape == (7, 3)


def test_vectors_are_sequences_of_one_frame_and_channels_are_features():
    net = make_net()
    x, _ = make_batch(length=1)
    expected = net(audio=x).logits["audio"]
    torch.testing.assert_close(net(audio=x[:, 0, :, 0]).logits["audio"], expected)
    x, _ = make_batch(length=9)
    folded = x.reshape(7, 3, 2, 9)
    torch.testing.assert_close(net(audio=folded).logits, net(audio=x).logits)


def test_one_row_in_double_precision_does_not_depend_on_the_others():
    net = make_net(dropout=0.5).eval()
    double = {name: p.detach().double() for name, p in net.named_parameters()}
    x, _ = make_batch()
    with torch.inference_mode():
        together = functional_call(net, double, kwargs={"audio": x}).logits["audio"]
        alone = [functional_call(net, double, kwargs={"audio": row[None]}) for row in x]
    assert together.dtype == torch.float64
    for row, out in zip(together, alone, strict=True):
        torch.testing.assert_close(out.logits["audio"][0], row, atol=1e-12, rtol=0)
