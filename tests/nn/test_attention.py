import numpy as np
import pytest
import torch

from skfdan.nn import CrossAttentionLayer, cross_attention
from skfdan.nn.attention import other_modality

D = 6


def softmax(x):
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def attend(q, k, v, n_heads=1):
    """Eq. 3, column block by column block."""
    width = q.shape[1] // n_heads
    blocks = [slice(h * width, (h + 1) * width) for h in range(n_heads)]
    return np.hstack([softmax(q[:, b] @ k[:, b].T / np.sqrt(width)) @ v[:, b] for b in blocks])


def layer_norm(x, norm):
    mean = x.mean(1, keepdims=True)
    var = ((x - mean) ** 2).mean(1, keepdims=True)
    weight, bias = norm.weight.detach().numpy(), norm.bias.detach().numpy()
    return (x - mean) / np.sqrt(var + norm.eps) * weight + bias


def linear(x, module):
    y = x @ module.weight.detach().numpy().T
    return y if module.bias is None else y + module.bias.detach().numpy()


def update(layer, own, other, z_own, z_other):
    """Eq. 2-4 for one modality; without a partner only Eq. 4 with a zero update."""
    side, source = getattr(layer, own), getattr(layer, other)
    if z_other is not None:
        z_own = z_own + attend(
            linear(z_own, side.query),
            linear(z_other, source.key),
            linear(z_other, source.value),
            layer.n_heads,
        )
    z_own = layer_norm(z_own, side.norm1)
    hidden = np.maximum(linear(z_own, side.ffn[0]), 0)
    return layer_norm(z_own + linear(hidden, side.ffn[-1]), side.norm2)


def make_layer(**kwargs):
    torch.manual_seed(0)
    layer = CrossAttentionLayer(D, **kwargs).double()
    for parameter in layer.parameters():
        # Norms start as the identity, which would hide their part.
        torch.nn.init.normal_(parameter, std=0.7)
    return layer


def features(n_v, n_a, seed=1):
    g = torch.Generator().manual_seed(seed)
    return {
        "visual": torch.randn(n_v, D, generator=g, dtype=torch.float64),
        "audio": torch.randn(n_a, D, generator=g, dtype=torch.float64) - 1,
    }


def test_other_modality():
    assert other_modality("visual") == "audio"
    assert other_modality("audio") == "visual"


@pytest.mark.parametrize("n_heads", [1, 2, 3, 6])
@pytest.mark.parametrize(("n_q", "n_k"), [(5, 3), (2, 7), (1, 1)])
def test_cross_attention_is_equation_3(n_q, n_k, n_heads):
    g = torch.Generator().manual_seed(0)
    q = torch.randn(n_q, D, generator=g, dtype=torch.float64)
    k, v = (torch.randn(n_k, D, generator=g, dtype=torch.float64) for _ in range(2))
    got = cross_attention(q, k, v, n_heads)
    assert got.shape == (n_q, D)
    np.testing.assert_allclose(got.numpy(), attend(q.numpy(), k.numpy(), v.numpy(), n_heads))


def test_heads_differ():
    q, k, v = (torch.randn(4, D, generator=torch.Generator().manual_seed(s)) for s in range(3))
    one, two = cross_attention(q, k, v, 1), cross_attention(q, k, v, 2)
    assert (one - two).abs().max() > 1e-3


@pytest.mark.parametrize("n_heads", [1, 3])
@pytest.mark.parametrize(("n_v", "n_a"), [(5, 3), (2, 6), (4, 4)])
@pytest.mark.parametrize("ffn_dim", [None, 4])
def test_layer_is_equations_2_to_4(n_v, n_a, n_heads, ffn_dim):
    layer = make_layer(n_heads=n_heads, ffn_dim=ffn_dim)
    z = features(n_v, n_a)
    out = layer(z)
    v, a = z["visual"].numpy(), z["audio"].numpy()
    np.testing.assert_allclose(
        out["visual"].detach().numpy(), update(layer, "visual", "audio", v, a), atol=1e-6, rtol=0
    )
    # The voices use the faces as they were before, not their update.
    np.testing.assert_allclose(
        out["audio"].detach().numpy(), update(layer, "audio", "visual", a, v), atol=1e-6, rtol=0
    )


def test_both_sides_use_what_the_other_was_before_the_update():
    layer = make_layer()
    z = features(5, 3)
    both = layer(z)
    for own in ("visual", "audio"):
        alone = layer({own: z[own]}, reference={other_modality(own): z[other_modality(own)]})
        torch.testing.assert_close(both[own], alone[own])
    swapped = layer(dict(reversed(z.items())))
    for modality in z:
        torch.testing.assert_close(swapped[modality], both[modality])


def test_the_input_is_left_alone():
    layer = make_layer()
    z = features(5, 3)
    before = {m: x.clone() for m, x in z.items()}
    out = layer(z)
    assert set(out) == set(z)
    for modality in z:
        assert torch.equal(z[modality], before[modality])


def test_a_row_does_not_depend_on_the_other_rows_of_its_modality():
    layer = make_layer()
    z = features(5, 3)
    out = layer(z)["audio"]
    for i in range(3):
        row = layer({"visual": z["visual"], "audio": z["audio"][i : i + 1]})["audio"]
        torch.testing.assert_close(row, out[i : i + 1])


def test_a_row_depends_on_the_partner_but_not_on_the_order_of_its_rows():
    layer = make_layer()
    z = features(5, 3)
    out = layer(z)["audio"]
    shuffled = layer({"visual": z["visual"].flip(0), "audio": z["audio"]})["audio"]
    torch.testing.assert_close(shuffled, out)
    fewer = layer({"visual": z["visual"][:2], "audio": z["audio"]})["audio"]
    assert (fewer - out).abs().max() > 1e-3


@pytest.mark.parametrize("modality", ["visual", "audio"])
def test_nothing_is_propagated_without_a_partner(modality):
    layer = make_layer()
    z = features(5, 3)[modality]
    expected = update(layer, modality, other_modality(modality), z.numpy(), None)
    for reference in (None, {}, {modality: z + 1}):
        out = layer({modality: z}, reference)
        assert list(out) == [modality]
        np.testing.assert_allclose(out[modality].detach().numpy(), expected, atol=1e-6, rtol=0)


def test_the_reference_gives_way_to_what_is_there():
    layer = make_layer()
    z = features(5, 3)
    out, plain = layer(z, reference=features(4, 4, seed=9)), layer(z)
    for modality in z:
        assert torch.equal(out[modality], plain[modality])


def test_modalities_own_their_projections():
    layer = make_layer()
    z = features(4, 4)
    same = {"visual": z["visual"], "audio": z["visual"]}
    out = layer(same)
    assert (out["visual"] - out["audio"]).abs().max() > 1e-2


def test_projections_are_square_and_the_ffn_is_twice_as_wide():
    layer = CrossAttentionLayer(D)
    for side in (layer.visual, layer.audio):
        for projection in (side.query, side.key, side.value):
            assert projection.weight.shape == (D, D)
            assert projection.bias is None
        assert side.ffn[0].weight.shape == (2 * D, D)


def test_dropout_acts_within_the_ffn_in_training_only():
    layer = make_layer(dropout=0.5)
    z = features(5, 3)
    torch.manual_seed(1)
    one, two = layer(z), layer(z)
    assert not torch.equal(one["audio"], two["audio"])
    layer.eval()
    torch.testing.assert_close(
        layer(z)["audio"],
        torch.tensor(update(layer, "audio", "visual", z["audio"].numpy(), z["visual"].numpy())),
    )


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="n_heads=4 does not divide the feature dimension 6"):
        CrossAttentionLayer(D, n_heads=4)
