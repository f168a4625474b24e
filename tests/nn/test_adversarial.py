import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skfdan.nn import DAANLoss, DANNLoss, a_distance, dynamic_factor, grad_reverse

D, C = 5, 3


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def features(n_s=6, n_t=4, shift=0.7):
    return torch.randn(n_s, D).double(), torch.randn(n_t, D).double() + shift


def probabilities(n_s=6, n_t=4):
    return tuple(torch.randn(n, C).double().softmax(1) for n in (n_s, n_t))


def logit(discriminator, x):
    """A two-layer perceptron, written out."""
    w = {k: v.numpy() for k, v in discriminator.state_dict().items()}
    x = np.maximum(0, w["0.weight"] @ x + w["0.bias"])
    x = np.maximum(0, w["3.weight"] @ x + w["3.bias"])
    return float((w["6.weight"] @ x + w["6.bias"])[0])


def expected_loss(discriminator, z_s, z_t, p_s=None, p_t=None):
    """Mean over the domains of the mean -log of the probability of the true domain."""
    sides = []
    for z, p, sign in ((z_s, p_s, 1), (z_t, p_t, -1)):
        weights = np.ones(len(z)) if p is None else p.numpy()
        logits = [logit(discriminator, w * x) for w, x in zip(weights, z.numpy(), strict=True)]
        # The source is 1: its probability is 1 / (1 + exp(-logit)).
        sides.append(np.mean([math.log(1 + math.exp(-sign * v)) for v in logits]))
    return sum(sides) / 2


def numerical_gradient(function, x, step=1e-6):
    gradient = torch.zeros_like(x)
    for i in range(x.numel()):
        up, down = x.detach().clone(), x.detach().clone()
        up.view(-1)[i] += step
        down.view(-1)[i] -= step
        gradient.view(-1)[i] = (function(up) - function(down)).item() / (2 * step)
    return gradient


# ---------------------------------------------------------------------- gradient reversal


@pytest.mark.parametrize("coefficient", [0.0, 0.3, 1.0, 2.5])
def test_gradient_reversal(coefficient):
    x = torch.randn(3, 2).double().requires_grad_()

    def function(x):
        return (torch.sin(grad_reverse(x, coefficient)) * x.detach()).sum()

    assert torch.equal(grad_reverse(x, coefficient), x)
    function(x).backward()
    fixed = x.detach()
    forward = numerical_gradient(lambda x: (torch.sin(x) * fixed).sum(), x)
    assert forward.abs().max() > 0.1
    torch.testing.assert_close(x.grad, -coefficient * forward, rtol=1e-6, atol=1e-8)


# ---------------------------------------------------------------------- DANN


def test_dann_value():
    loss, z = DANNLoss(D, hidden=7).double().eval(), features()
    assert loss(*z).item() == pytest.approx(expected_loss(loss.discriminator, *z), rel=1e-10)


def test_dann_reverses_the_features_gradient_and_not_the_discriminators():
    loss = DANNLoss(D).double().eval()
    z_s, z_t = (z.requires_grad_() for z in features())
    loss(z_s, z_t, 0.4).backward()
    for z, plain in (
        (z_s, numerical_gradient(lambda x: loss(x, z_t.detach()), z_s)),
        (z_t, numerical_gradient(lambda x: loss(z_s.detach(), x), z_t)),
    ):
        assert plain.abs().max() > 1e-4
        torch.testing.assert_close(z.grad, -0.4 * plain, rtol=1e-5, atol=1e-8)
    with torch.no_grad():
        before = loss(z_s, z_t)
        for p in loss.parameters():
            p -= 1e-2 * p.grad
        assert loss(z_s, z_t) < before


def test_dann_trains_a_discriminator_whose_domains_keep_their_labels():
    loss, (z_s, z_t) = DANNLoss(D, hidden=16).double(), features(40, 40, shift=3.0)
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.01)
    for step in range(60):
        optimizer.zero_grad()
        # Whatever the coefficient and the iteration, the source is 1 and the target 0.
        loss.train()(z_s, z_t, coefficient=step / 60).backward()
        optimizer.step()
    loss.eval()
    assert (loss.discriminator(z_s) > 0).double().mean() > 0.95
    assert (loss.discriminator(z_t) < 0).double().mean() > 0.95


def test_a_blind_discriminator_is_at_ln_2():
    loss = DANNLoss(D)
    torch.nn.init.zeros_(loss.discriminator[-1].weight)
    torch.nn.init.zeros_(loss.discriminator[-1].bias)
    assert loss(torch.randn(6, D), torch.randn(1, D)).item() == pytest.approx(math.log(2))


def test_published_widths():
    shapes = [tuple(p.shape) for p in DANNLoss(256).parameters() if p.ndim == 2]
    assert shapes == [(256, 256), (256, 256), (1, 256)]
    shapes = [tuple(p.shape) for p in DAANLoss(256, 2).parameters() if p.ndim == 2]
    assert shapes == 3 * [(1024, 256), (1024, 1024), (1, 1024)]
    assert [m.p for m in DANNLoss(8, dropout=0.2).modules() if isinstance(m, torch.nn.Dropout)] == [
        0.2,
        0.2,
    ]


# ---------------------------------------------------------------------- DAAN's factor


def factor_of_error_rates(errors):
    """μ from the error rates of the global and the local discriminators."""
    distances = [2 * (1 - 2 * min(e, 1 - e)) for e in errors]
    local = sum(distances[1:]) / len(distances[1:])
    total = distances[0] + local
    return 0.5 if total == 0 else distances[0] / total


def factor_of_losses(loss_global, loss_local):
    """The same formula as printed, with losses in the place of error rates."""
    d_global, d_local = 2 * (1 - 2 * loss_global), 2 * (1 - 2 * loss_local)
    return d_global / (d_global + d_local)


def test_losses_in_the_place_of_error_rates_leave_the_interval():
    assert factor_of_losses(0.3, 1.0) == pytest.approx(-0.67, abs=0.005)
    assert factor_of_losses(0.3, 0.72) == pytest.approx(-10)
    # Discriminators that guess have the loss 2 ln 2, a distance below any possible one.
    assert 2 * (1 - 2 * 2 * math.log(2)) == pytest.approx(-3.55, abs=0.005)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=8))
def test_error_rates_stay_in_the_interval(errors):
    distances = a_distance(torch.tensor(errors, dtype=torch.float64))
    assert distances.min() >= 0
    assert distances.max() <= 2
    mu = dynamic_factor(distances[0], distances[1:].mean()).item()
    assert 0 <= mu <= 1
    assert mu == pytest.approx(factor_of_error_rates(errors), abs=1e-9)


def test_dynamic_factor_without_distances_and_outside_the_interval():
    zero, one = torch.tensor(0.0), torch.tensor(1.0, requires_grad=True)
    assert dynamic_factor(zero, zero).item() == 0.5
    assert dynamic_factor(one, zero).item() == 1
    assert dynamic_factor(zero, one).item() == 0
    # Distances that a caller made of losses.
    assert dynamic_factor(torch.tensor(0.8), torch.tensor(-2.0)).item() == 0
    assert not dynamic_factor(one, one).requires_grad


# ---------------------------------------------------------------------- DAAN


@pytest.mark.parametrize("rule", ["published", "released"])
@pytest.mark.parametrize("mu", [0.0, 0.3, 1.0])
def test_daan_value(rule, mu):
    loss = DAANLoss(D, C, hidden=8, mu_rule=rule).double().eval()
    loss.mu.fill_(mu)
    z, p = features(), probabilities()
    first, *others = loss.discriminators
    of_global = expected_loss(first, *z)
    of_local = np.mean([expected_loss(d, *z, p[0][:, c], p[1][:, c]) for c, d in enumerate(others)])
    share = mu if rule == "published" else 1 - mu
    expected = (1 - share) * of_global + share * of_local
    for coefficient in (0.0, 0.5, 1.0):  # the coefficient changes the gradient only
        assert loss(*z, *p, coefficient).item() == pytest.approx(expected, rel=1e-10)
    assert abs(of_global - of_local) > 1e-3


def test_unknown_rule():
    with pytest.raises(ValueError, match=r"mu_rule='paper' is unknown; choose .*'published'"):
        DAANLoss(D, C, mu_rule="paper")
    assert "mu_rule='released'" in repr(DAANLoss(D, C, mu_rule="released"))


def test_each_domain_keeps_its_label_in_every_iteration():
    """A port of DAAN marks both domains as the source from the second iteration on."""
    loss = DAANLoss(D, C, hidden=8, dropout=0.0).double().train()
    optimizer = torch.optim.SGD(loss.parameters(), lr=0.5)
    for iteration in range(4):
        z, p = features(), probabilities()
        first, *others = loss.discriminators
        expected = 0.5 * expected_loss(first, *z) + 0.5 * np.mean(
            [expected_loss(d, *z, p[0][:, c], p[1][:, c]) for c, d in enumerate(others)]
        )
        value = loss(*z, *p, coefficient=0.1 * iteration)
        assert value.item() == pytest.approx(expected, rel=1e-9)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()


def test_a_local_discriminator_sees_the_rows_of_its_class():
    loss = DAANLoss(D, C, hidden=8).double().eval()
    loss.mu.fill_(1.0)  # local losses only
    z_s, z_t = features()
    p_s, p_t = torch.eye(C).double()[[0, 0, 1, 1, 2, 2]], torch.eye(C).double()[[0, 1, 2, 2]]
    source, weights = loss._logits(z_s, p_s, 1.0)
    # A row of another class reaches discriminator c as nought, whatever the row is.
    moved, _ = loss._logits(z_s + 3, p_s, 1.0)
    changed = (source - moved).abs() > 1e-9
    assert torch.equal(changed[:, 1:], p_s > 0)
    assert changed[:, 0].all()
    assert torch.equal(weights[:, 1:], p_s)
    with torch.no_grad():  # half the probability of twice the features is the same input
        torch.testing.assert_close(
            loss(2 * z_s, 2 * z_t, 0.5 * p_s, 0.5 * p_t), loss(z_s, z_t, p_s, p_t)
        )
        assert loss(z_s, z_t, 0.5 * p_s, 0.5 * p_t) != loss(z_s, z_t, p_s, p_t)


def test_daan_reverses_the_gradient_and_leaves_the_probabilities_alone():
    loss = DAANLoss(D, C, hidden=8).double().eval()
    loss.mu.fill_(0.3)
    z_s, z_t = (z.requires_grad_() for z in features())
    p_s, p_t = (p.requires_grad_() for p in probabilities())
    loss(z_s, z_t, p_s, p_t, 0.6).backward()
    plain = numerical_gradient(lambda x: loss(x, z_t.detach(), p_s, p_t), z_s)
    assert plain.abs().max() > 1e-4
    torch.testing.assert_close(z_s.grad, -0.6 * plain, rtol=1e-5, atol=1e-8)
    assert p_s.grad is None
    assert p_t.grad is None


def test_mu_comes_from_the_error_rates_of_an_epoch():
    loss = DAANLoss(D, C, hidden=8, dropout=0.0).double().train()
    for _ in range(2):  # the second epoch forgets the first
        wrong, seen = np.zeros((2, 1 + C)), np.zeros((2, 1 + C))
        for n_s, n_t in ((6, 4), (5, 9), (3, 1)):
            z, p = features(n_s, n_t), probabilities(n_s, n_t)
            before = loss.mu.item()
            value = loss(*z, *p)
            assert loss.mu.item() == before
            assert value.requires_grad
            for domain in (0, 1):
                for x, q in zip(z[domain].numpy(), p[domain].numpy(), strict=True):
                    for i, d in enumerate(loss.discriminators):
                        weight = 1.0 if i == 0 else q[i - 1]
                        says_source = logit(d, x * weight) > 0
                        seen[domain, i] += weight
                        wrong[domain, i] += weight * (says_source == (domain == 1))
        loss.end_epoch()
        errors = (wrong / seen).mean(0)
        assert len(set(np.round(errors, 6))) > 1
        assert loss.mu.item() == pytest.approx(factor_of_error_rates(errors), rel=1e-6)
        for d in loss.discriminators:
            torch.nn.init.normal_(d[-1].weight)


def test_mu_stays_without_new_rows():
    loss = DAANLoss(D, C).double()
    loss.mu.fill_(0.3)
    loss.end_epoch()
    assert loss.mu.item() == pytest.approx(0.3)
    loss.eval()(*features(), *probabilities())  # evaluation is no training
    loss.end_epoch()
    assert loss.mu.item() == pytest.approx(0.3)


def test_a_class_without_any_probability_tells_nothing():
    loss = DAANLoss(D, C, hidden=8, dropout=0.0).double().train()
    z_s, z_t = features()
    with torch.no_grad():  # discriminators that always say "source", by a margin
        for d in loss.discriminators:
            d[-1].bias.fill_(50.0)
    p = torch.tensor([[1.0, 0.0, 0.0]]).double()
    loss(z_s, z_t, p.expand(6, C), p.expand(4, C))
    loss.end_epoch()
    # Right on the source, wrong on the target: no discriminator tells the domains apart.
    assert loss.mu.item() == 0.5


def test_a_larger_gap_between_the_domains_raises_mu():
    """Domains that differ, but not within the classes that p names."""
    loss = DAANLoss(D, C, hidden=8, dropout=0.0).double().train()
    with torch.no_grad():
        for i, d in enumerate(loss.discriminators):
            for p in d.parameters():
                p.zero_()
            if i == 0:  # says "source" where the first feature is positive
                d[0].weight[0, 0], d[3].weight[0, 0], d[6].weight[0, 0] = 1.0, 1.0, 1.0
                d[6].bias.fill_(-1e-3)
    z_s, z_t = torch.ones(6, D).double(), -torch.ones(4, D).double()
    loss(z_s, z_t, *probabilities())
    loss.end_epoch()
    assert loss.mu.item() == 1.0


@pytest.mark.parametrize("empty", ["source", "target"])
def test_mu_stays_until_both_domains_were_seen(empty):
    loss = DAANLoss(5, 3).double().train()
    loss.mu.fill_(0.3)
    n = {"source": 6, "target": 4} | {empty: 0}
    z = [torch.randn(k, 5, dtype=torch.float64) for k in n.values()]
    p = [torch.full((k, 3), 1 / 3, dtype=torch.float64) for k in n.values()]
    loss(*z, *p)
    loss.end_epoch()
    assert loss.mu.item() == pytest.approx(0.3)
