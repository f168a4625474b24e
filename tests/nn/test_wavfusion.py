"""WavFusion's parts, losses and networks, against formulas written out."""

import copy
import itertools

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torchaudio.models import wav2vec2_model

from skfdan.nn import (
    AGRULVC,
    LVC,
    GatedCrossModalAttention,
    WavFusionNet,
    WavFusionWav2Vec2,
    homogeneous_margin_loss,
    insert_gated_layers,
    wavfusion_loss,
)
from skfdan.nn.lvc import Encoding, MultiHead
from skfdan.nn.wavfusion_wav2vec2 import _Inserted

WIDTHS = {"audio": 6, "text": 5, "visual": 8}


def arrays(module):
    return {k: v.detach().numpy() for k, v in module.state_dict().items()}


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def softmax(a):
    e = np.exp(a - a.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ----------------------------------------------------------------- margin loss


def margin_by_loops(x, modality, emotion, margin):
    def cosine(a, b):
        return a @ b / (a.norm() * b.norm())

    hinges = [
        (margin - cosine(x[i], x[j]) + cosine(x[i], x[k])).clamp_min(0)
        for i, j, k in itertools.product(range(len(x)), repeat=3)
        if modality[i] != modality[j]
        and modality[i] == modality[k]
        and emotion[i] == emotion[j]
        and emotion[i] != emotion[k]
    ]
    return sum(hinges) / len(hinges)


@pytest.mark.parametrize("margin", [0.0, 0.2, 1.0, 3.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_margin_loss_equals_all_triplets_with_its_gradient(margin, seed):
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(rng.normal(size=(14, 3))).requires_grad_()
    modality, emotion = (torch.from_numpy(rng.integers(0, 3, 14)) for _ in range(2))
    expected = margin_by_loops(x, modality, emotion, margin)
    value = homogeneous_margin_loss(x, modality, emotion, margin)
    torch.testing.assert_close(value, expected)
    gradients = [torch.autograd.grad(v, x)[0] for v in (value, expected)]
    torch.testing.assert_close(*gradients)
    assert torch.autograd.gradcheck(
        lambda z: homogeneous_margin_loss(z, modality, emotion, margin), x
    )


def test_margin_loss_without_triplets_is_zero_with_zero_gradient():
    x = randn(4, 3).requires_grad_()
    for modality, emotion in (([0, 0, 0, 0], [0, 1, 0, 1]), ([0, 0, 1, 1], [0, 0, 0, 0])):
        value = homogeneous_margin_loss(x, torch.tensor(modality), torch.tensor(emotion))
        assert value == 0
        assert not torch.autograd.grad(value, x)[0].any()
    empty = torch.zeros(0, dtype=torch.long)
    assert homogeneous_margin_loss(x[:0], empty, empty) == 0


def test_margin_loss_keeps_its_precision_in_mixed_precision():
    x, modality = randn(12, 5).float(), torch.arange(12) % 3
    expected = homogeneous_margin_loss(x, modality, torch.arange(12) // 6)
    with torch.autocast("cpu", torch.bfloat16):
        value = homogeneous_margin_loss(x, modality, torch.arange(12) // 6)
    assert torch.equal(value, expected)


def test_margin_loss_refuses_unequal_rows():
    with pytest.raises(ValueError, match="4 rows, 3 modalities"):
        homogeneous_margin_loss(randn(4, 3), torch.zeros(3), torch.zeros(4))


# ------------------------------------------------------------------------- LVC


def test_encoding_equals_its_formula():
    torch.manual_seed(0)
    encoding = Encoding(4, n_codes=6).double()
    x, w = randn(2, 5, 4), arrays(encoding)
    b, s = w["codewords"], w["scales"]
    assert np.abs(b).max() <= 1 / np.sqrt(24)
    assert (s > -1).all()
    assert (s <= 0).all()
    expected = np.zeros((2, 6, 4))
    for n in range(2):
        for frame in x[n].numpy():
            a = softmax(np.array([s[k] * ((frame - b[k]) ** 2).sum() for k in range(6)]))
            for k in range(6):
                expected[n, k] += a[k] * (frame - b[k])
    np.testing.assert_allclose(encoding(x).detach(), expected, atol=1e-12)


def trained_statistics(module, *shape):
    """Give the batch norms something else than zeros and ones to use."""
    module.train()
    for seed in range(3):
        module(2.0 + randn(*shape, seed=seed))
    return module.eval()


def test_lvc_equals_its_formula():
    torch.manual_seed(0)
    lvc = trained_statistics(LVC(8, n_codes=6).double(), 3, 5, 8)
    w, x = arrays(lvc), randn(2, 5, 8, seed=9)

    def norm(name, z):
        mean, var = w[f"{name}.running_mean"], w[f"{name}.running_var"]
        return (z - mean) / np.sqrt(var + 1e-5) * w[f"{name}.weight"] + w[f"{name}.bias"]

    def relu(z):
        return np.maximum(z, 0)

    z = relu(norm("norm1", x.numpy() @ w["reduce.weight"].T))
    around = np.pad(z, ((0, 0), (1, 1), (0, 0)))
    z = sum(around[:, i : i + 5] @ w["conv.weight"][:, :, i].T for i in range(3))
    z = norm("norm3", relu(norm("norm2", z)) @ w["expand.weight"].T)
    z = relu(z + norm("shortcut_norm", x.numpy() @ w["shortcut.weight"].T))
    mixed = relu(norm("mix_norm", z @ w["mix.weight"].T))
    codes = lvc.encoding(torch.from_numpy(mixed)).detach().numpy()
    codes = relu(norm("code_norm", codes.swapaxes(1, 2))).mean(2)
    gamma = sigmoid(codes @ w["gate.weight"].T + w["gate.bias"])
    np.testing.assert_allclose(lvc(x).detach(), relu(z + z * gamma[:, None]), atol=1e-12)


@pytest.mark.parametrize("block", [LVC, lambda c, n_codes: AGRULVC(c, 4, 2, n_codes)])
def test_padding_changes_nothing(block):
    torch.manual_seed(0)
    block = trained_statistics(block(8, n_codes=6).double(), 3, 5, 8)
    x = randn(2, 5, 8)
    padded = torch.cat([x, 100 * randn(2, 3, 8, seed=1)], 1)
    mask = (torch.arange(8) < 5).expand(2, 8)
    torch.testing.assert_close(block(padded, mask)[:, :5], block(x))
    # The batch statistics of the training are those of the frames alone.
    block.train()
    torch.testing.assert_close(block(padded, mask)[:, :5], block(x))


def test_lvc_trains_on_a_single_frame():
    assert LVC(4, n_codes=3).train()(torch.randn(1, 1, 4)).isfinite().all()
    assert LVC(1, n_codes=3).train()(torch.randn(1, 1, 1)).isfinite().all()


# ------------------------------------------------------------- gated attention


def attend(attention, queries, keys):
    w, h = arrays(attention), attention.n_heads
    q, k, v = (
        z @ w[f"{name}.weight"].T + w[f"{name}.bias"]
        for name, z in (("q_proj", queries), ("k_proj", keys), ("v_proj", keys))
    )
    d = q.shape[1] // h
    heads = [
        softmax(q[:, i * d : i * d + d] @ k[:, i * d : i * d + d].T / np.sqrt(d))
        @ v[:, i * d : i * d + d]
        for i in range(h)
    ]
    return np.concatenate(heads, 1) @ w["out_proj.weight"].T + w["out_proj.bias"]


def test_gated_attention_equals_its_formula_for_whole_and_partial_rows():
    torch.manual_seed(0)
    gated = GatedCrossModalAttention(8, 2, {"text": 5, "visual": 3}).double()
    x, text, visual = randn(4, 6, 8), randn(4, 3, 5, seed=1), randn(4, 7, 3, seed=2)
    rows = {
        "text": torch.tensor([True, True, False, False]),
        "visual": torch.tensor([True, False, True, False]),
    }
    masks = {"text": rows["text"][:, None].repeat(1, 3), "visual": torch.arange(7) < 5}
    masks["visual"] = masks["visual"] & rows["visual"][:, None]
    mask = torch.arange(6) < torch.tensor([6, 6, 6, 4])[:, None]
    given = {"text": text, "visual": visual}
    out = gated(x, given, masks, mask).detach().numpy()
    for n in range(4):
        f1 = attend(gated.cross["text"], x[n].numpy(), text[n].numpy())
        f2 = attend(gated.cross["visual"], x[n].numpy(), visual[n, :5].numpy())
        w = arrays(gated.gate)
        p = sigmoid(np.concatenate([f1, f2], 1) @ w["weight"].T + w["bias"])
        alone = attend(gated.self_attention, x[n].numpy(), x[n, : 6 if n < 3 else 4].numpy())
        expected = [p * f1 + (1 - p) * f2, f1, f2, alone][n]
        np.testing.assert_allclose(out[n], expected, atol=1e-12)


def test_attention_refuses_what_it_cannot_do():
    with pytest.raises(ValueError, match="n_heads=3; take a multiple"):
        MultiHead(8, 3)
    with pytest.raises(ValueError, match="chooses between two"):
        GatedCrossModalAttention(8, 2, {"a": 1, "b": 1, "c": 1})


# ----------------------------------------------------------------- the network


def network(widths=WIDTHS, **params):
    torch.manual_seed(0)
    defaults = {"dim": 8, "hidden": 4, "n_heads": 2, "common_dim": 4, "n_codes": 5, "dropout": 0}
    return WavFusionNet(3, widths, **defaults | params).double()


LENGTHS = {"audio": 7, "text": 4, "visual": 5}
Y = torch.tensor([0, 1, 2, 0, 1, 2])


def frames(n=6, widths=WIDTHS, seed=0):
    return {m: randn(n, LENGTHS[m], w, seed=seed + i) for i, (m, w) in enumerate(widths.items())}


def logits(net, **inputs):
    return net(**inputs).logits["fused"]


@pytest.mark.parametrize("fusion", ["gated", "concat"])
def test_padding_and_other_rows_change_no_row(fusion):
    net, x = network(fusion=fusion).eval(), frames()
    present = {
        "audio": torch.tensor([1, 1, 1, 0, 1, 0], dtype=torch.bool),
        "text": torch.tensor([1, 0, 1, 1, 0, 0], dtype=torch.bool),
        "visual": torch.tensor([1, 1, 0, 1, 0, 1], dtype=torch.bool),
    }
    together = logits(net, **x, present=present)
    assert together.isfinite().all()
    for n in range(6):
        own = {m: z[n : n + 1] for m, z in x.items() if present[m][n]}
        torch.testing.assert_close(logits(net, **own), together[n : n + 1])
    masks = {m: torch.arange(z.shape[1] + 2).expand(6, -1) < z.shape[1] for m, z in x.items()}
    padded = {m: F.pad(z, (0, 0, 0, 2), value=torch.nan) for m, z in x.items()}
    torch.testing.assert_close(logits(net, **padded, masks=masks, present=present), together)


def test_training_of_other_rows_is_not_touched_by_missing_ones():
    net, x = network().train(), frames()
    present = {"visual": torch.arange(6) < 4}
    before = copy.deepcopy(net.state_dict())
    whole = logits(net, **x, present=present)
    net.load_state_dict(before)
    x["visual"] = torch.cat([x["visual"][:4], 100 + x["visual"][4:]])
    torch.testing.assert_close(logits(net, **x, present=present), whole)


def test_mixed_precision_runs():
    net, x = network().float(), {m: z.float() for m, z in frames().items()}
    present = {m: torch.arange(6) < n for m, n in (("text", 2), ("visual", 4))}
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = wavfusion_loss(net(**x, present=present), Y)
    loss.backward()
    assert loss.isfinite()


def test_what_is_absent_stays_so_where_other_rows_are_ignored():
    net, x = network().eval(), frames()
    rows = torch.arange(6)
    expected = logits(net, **x, present={"text": rows > 1, "visual": rows != 3, "audio": rows != 5})
    both = {
        "present": {"text": rows != 0, "visual": rows != 3},
        "ignored": {"text": rows == 1, "audio": rows == 5},
    }
    torch.testing.assert_close(logits(net, **x, **both), expected)


@pytest.mark.parametrize("fusion", ["gated", "concat"])
def test_without_deep_layers_the_means_stand_side_by_side(fusion):
    net, x = network(n_deep=0, fusion=fusion).eval(), frames()
    out = net(**x)
    assert out.layers["fused"][0].shape == (6, 8 + 4 + (4 + 8))
    assert not torch.allclose(logits(net, **x | {"text": x["text"] + 1}), out.logits["fused"])
    assert not torch.allclose(logits(net, **x | {"visual": x["visual"] + 1}), out.logits["fused"])


def test_vectors_are_sequences_of_one_frame():
    net, x = network().eval(), {m: z[:, 0] for m, z in frames().items()}
    torch.testing.assert_close(
        logits(net, **x), logits(net, **{m: z[:, None] for m, z in x.items()})
    )


@pytest.mark.parametrize(
    "modalities", [["audio"], ["text"], ["visual"], ["audio", "text"], ["audio", "visual"]]
)
def test_subsets_of_the_modalities(modalities):
    widths = {m: WIDTHS[m] for m in modalities}
    net = network(widths)
    out = net(**frames(widths=widths))
    loss, terms = wavfusion_loss(out, Y)
    loss.backward()
    assert out.logits["fused"].shape == (6, 3)
    assert set(out.common) == (set(modalities) if len(modalities) > 1 else set())
    assert (terms["margin"] > 0) == (len(modalities) > 1)
    assert not any("gate" in name for name, _ in net.named_parameters() if "layers" in name)


def test_ablations_leave_out_what_they_name():
    whole = {name for name, _ in network().named_parameters()}
    assert any("lvc" in name for name in whole)
    assert network(lvc=False).rest.context == {"text": 4, "visual": 4}
    assert not any("lvc" in n for n, _ in network(lvc=False).named_parameters())
    concat = network(fusion="concat")
    assert not any(
        "cross" in n or "layers.0.attention.gate" in n for n, _ in concat.named_parameters()
    )
    assert concat.rest.classifier.in_features == 8 + 4 + (4 + 8)
    assert len(network(n_deep=1).layers) == 1
    values = [
        wavfusion_loss(net(**frames()), Y)[0].item()
        for net in (network(), network(lvc=False), concat, network(n_deep=1))
    ]
    assert len({round(v, 9) for v in values}) == 4


def test_loss_is_the_sum_of_its_terms_and_skips_missing_rows():
    net, x = network().eval(), frames()
    present = {"visual": torch.arange(6) != 1}
    out = net(**x, present=present)
    loss, terms = wavfusion_loss(out, Y, weight=0.3, margin=0.5)
    torch.testing.assert_close(loss, terms["task"] + 0.3 * terms["margin"])
    torch.testing.assert_close(terms["task"], F.cross_entropy(out.logits["fused"], Y).detach())
    z = [out.common["audio"], out.common["text"], out.common["visual"][present["visual"]]]
    modality = torch.tensor([0] * 6 + [1] * 6 + [2] * 5)
    emotion = torch.cat([Y, Y, Y[present["visual"]]])
    expected = margin_by_loops(torch.cat(z), modality, emotion, 0.5)
    torch.testing.assert_close(terms["margin"], expected.detach())
    assert not terms["margin"].requires_grad


def test_loss_of_rows_without_labels():
    out = network().eval()(**frames())
    _, terms = wavfusion_loss(out, torch.where(torch.arange(6) < 2, Y, -1))
    expected = F.cross_entropy(out.logits["fused"][:2], Y[:2]).detach()
    torch.testing.assert_close(terms["task"], expected)
    loss, _ = wavfusion_loss(out, torch.full_like(Y, -1))
    assert loss == 0


def test_training_learns():
    net, x = network().float(), {m: z.float() for m, z in frames().items()}
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    losses = []
    for _ in range(25):
        loss, _ = wavfusion_loss(net(**x), Y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_state_dict_goes_to_another_network():
    net, x = network().eval(), frames()
    other = WavFusionNet(3, WIDTHS, 8, 4, n_heads=2, common_dim=4, n_codes=5).double().eval()
    other.load_state_dict(net.state_dict())
    torch.testing.assert_close(logits(other, **x), logits(net, **x))


def test_network_refuses_what_it_cannot_do():
    with pytest.raises(ValueError, match="fusion='sum' is unknown"):
        network(fusion="sum")
    with pytest.raises(ValueError, match="choose among"):
        network({"smell": 3})
    with pytest.raises(ValueError, match="needs audio"):
        network({"text": 5, "visual": 8})
    both = network({"text": 5, "visual": 8}, fusion="concat")
    x = frames()
    assert logits(both, text=x["text"], visual=x["visual"]).shape == (6, 3)


# ----------------------------------------------------------------- wav2vec 2.0


def torchaudio_model(last=True):
    torch.manual_seed(0)
    return wav2vec2_model(
        extractor_mode="group_norm" if last else "layer_norm",
        extractor_conv_layer_config=[(8, 10, 5), (8, 8, 4)],
        extractor_conv_bias=False,
        encoder_embed_dim=16,
        encoder_projection_dropout=0.1,
        encoder_pos_conv_kernel=8,
        encoder_pos_conv_groups=2,
        encoder_num_layers=4,
        encoder_num_heads=2,
        encoder_attention_dropout=0.1,
        encoder_ff_interm_features=32,
        encoder_ff_interm_dropout=0.1,
        encoder_dropout=0.1,
        encoder_layer_norm_first=not last,
        encoder_layer_drop=0.5,
        aux_num_out=None,
    )


def transformers_model():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    return transformers.Wav2Vec2Model(
        transformers.Wav2Vec2Config(
            hidden_size=16,
            num_hidden_layers=4,
            num_attention_heads=2,
            intermediate_size=32,
            conv_dim=(8, 8),
            conv_kernel=(10, 8),
            conv_stride=(5, 4),
            num_feat_extract_layers=2,
            num_conv_pos_embeddings=8,
            num_conv_pos_embedding_groups=2,
        )
    )


MODELS = {
    "torchaudio": torchaudio_model,
    "torchaudio, norm first": lambda: torchaudio_model(last=False),
    "transformers": transformers_model,
}
LONG = torch.tensor([900, 700, 800])


def original(model, waveforms, lengths):
    if hasattr(model.encoder, "transformer"):
        return model(waveforms, lengths)[0]
    mask = (torch.arange(waveforms.shape[1]) < lengths[:, None]).long()
    return model(waveforms, attention_mask=mask).last_hidden_state


def sound():
    return torch.where(torch.arange(900) < LONG[:, None], randn(3, 900).float(), 0.0)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("n_deep", [0, 2])
def test_wav2vec2_without_context_is_the_original(kind, n_deep):
    model, x = MODELS[kind]().eval(), sound()
    expected = original(model, x, LONG)
    net = WavFusionWav2Vec2(3, model, {"text": 5}, n_deep=n_deep, hidden=4, n_heads=2)
    _, frames, mask = net.eval().audio(x, LONG)
    torch.testing.assert_close(frames[mask], expected[mask], rtol=1e-4, atol=1e-5)
    if n_deep == 0:
        assert torch.equal(frames, expected)
        # What is frozen does not drop anything in training either.
        assert torch.equal(net.train().audio(x, LONG)[1], expected)


@pytest.mark.parametrize("kind", MODELS)
def test_padding_matters_to_group_norm_alone(kind):
    """As the docstring of ``audio`` says, with the way out that it names."""
    net = WavFusionWav2Vec2(3, MODELS[kind](), {}, n_deep=1, hidden=4, n_heads=2).eval()
    x = sound()
    together = logits(net, waveforms=x, lengths=LONG)
    alone = torch.cat([logits(net, waveforms=x[[i], : LONG[i]]) for i in range(3)])
    whole = logits(net, waveforms=x[:, :700])
    torch.testing.assert_close(
        whole, torch.cat([logits(net, waveforms=x[[i], :700]) for i in range(3)])
    )
    same = torch.isclose(together, alone, rtol=1e-3, atol=1e-4).all(1).tolist()
    assert same == ([True] * 3 if kind == "torchaudio, norm first" else [True, False, False])


@pytest.mark.parametrize("kind", MODELS)
def test_inserted_layers_give_as_many_values_as_are_taken_apart(kind):
    net = WavFusionWav2Vec2(3, MODELS[kind](), {"text": 5}, n_deep=1, hidden=4, n_heads=2).eval()
    (inserted,) = (m for m in net.modules() if isinstance(m, _Inserted))
    x = randn(2, 7, inserted.embed_dim).float()
    now, _ = inserted(x, attention_mask=None)
    before, _, _ = inserted(x, attention_mask=None, output_attentions=False)  # transformers 5.8
    assert torch.equal(now, before)
    assert now.shape == x.shape


@pytest.mark.parametrize("kind", MODELS)
def test_wav2vec2_trains_its_last_layers_alone(kind):
    net = WavFusionWav2Vec2(
        3, MODELS[kind](), {"text": 16, "visual": 8}, n_deep=2, hidden=16, n_heads=2, n_codes=4
    )
    before = copy.deepcopy(net.state_dict())
    others = {"text": randn(3, 4, 16).float(), "visual": randn(3, 5, 8).float()}
    optimizer = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], 1e-2)
    for _ in range(2):
        loss, _ = wavfusion_loss(net(sound(), LONG, **others), torch.tensor([0, 1, 2]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    moved = {k for k, v in net.state_dict().items() if not torch.equal(v, before[k])}
    moved = {k for k in moved if k.startswith("wav2vec2.")}
    assert moved
    assert all(".layers.2." in k or ".layers.3." in k for k in moved)
    assert any("cross.text" in k for k in moved)
    assert any("gate" in k for k in moved)
    assert any("layer_norm" in k for k in moved)
    assert not any(layer.attention.context for layer in net._deep())


def test_inserted_attention_starts_from_the_original_where_it_fits():
    model = torchaudio_model()
    first = copy.deepcopy(model.encoder.transformer.layers[3].attention).state_dict()
    inserted = insert_gated_layers(model, {"text": 16, "visual": 8}, n_deep=1)[0].gated
    for attention in (inserted.self_attention, inserted.cross["text"]):
        for name, value in attention.state_dict().items():
            torch.testing.assert_close(value, first[name])
    for name, value in inserted.cross["visual"].state_dict().items():
        assert torch.equal(value, first[name]) == name.startswith(("q_proj", "out_proj"))


@pytest.mark.parametrize("kind", ["torchaudio, norm first", "transformers"])
def test_wav2vec2_reads_the_other_modalities_row_by_row(kind):
    net = WavFusionWav2Vec2(
        3, MODELS[kind](), {"text": 5, "visual": 8}, n_deep=2, hidden=4, n_heads=2, n_codes=4
    ).eval()
    x, text, visual = sound(), randn(3, 4, 5).float(), randn(3, 5, 8).float()
    whole = logits(net, waveforms=x, lengths=LONG, text=text, visual=visual)
    present = {"text": torch.tensor([True, False, True])}
    partial = logits(net, waveforms=x, lengths=LONG, text=text, visual=visual, present=present)
    torch.testing.assert_close(partial[[0, 2]], whole[[0, 2]])
    assert not torch.allclose(partial[1], whole[1])
    alone = logits(net, waveforms=x, lengths=LONG, visual=visual)
    torch.testing.assert_close(partial[1], alone[1])
    out = net(x, LONG, text=text, visual=visual)
    assert set(out.common) == {"audio", "text", "visual"}


def test_wav2vec2_refuses_what_it_cannot_do():
    with pytest.raises(ValueError, match="n_deep=5, but the model has 4 layers"):
        insert_gated_layers(torchaudio_model(), {}, n_deep=5)
    with pytest.raises(ValueError, match="has no wav2vec"):
        insert_gated_layers(torch.nn.Linear(2, 2), {})
    with pytest.raises(ValueError, match="audio is the model's"):
        WavFusionWav2Vec2(3, torchaudio_model(), {"audio": 3})
