"""The last layers of wav2vec 2.0, BERT and RoBERTa beside the models that they are of."""

import pytest
import torch
from torchaudio.models import wav2vec2_model

from skfdan.nn import GatedCrossModalAttention, LastLayers, LayerShape, PretrainedLayers
from skfdan.nn.gated import GatedLayer

SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 24,
}


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def torchaudio_model(norm_first):
    return wav2vec2_model(
        extractor_mode="layer_norm" if norm_first else "group_norm",
        extractor_conv_layer_config=[(8, 10, 5), (8, 8, 4)],
        extractor_conv_bias=False,
        encoder_embed_dim=16,
        encoder_projection_dropout=0.1,
        encoder_pos_conv_kernel=8,
        encoder_pos_conv_groups=2,
        encoder_num_layers=4,
        encoder_num_heads=2,
        encoder_attention_dropout=0.1,
        encoder_ff_interm_features=24,
        encoder_ff_interm_dropout=0.1,
        encoder_dropout=0.1,
        encoder_layer_norm_first=norm_first,
        encoder_layer_drop=0.5,
        aux_num_out=None,
    )


def transformers_model(kind, **settings):
    transformers = pytest.importorskip("transformers")
    if kind in ("Wav2Vec2", "Hubert"):
        settings |= {
            "conv_dim": (8, 8),
            "conv_kernel": (10, 8),
            "conv_stride": (5, 4),
            "num_feat_extract_layers": 2,
            "num_conv_pos_embeddings": 8,
            "num_conv_pos_embedding_groups": 2,
        }
    config = getattr(transformers, f"{kind}Config")(**SMALL | settings)
    return getattr(transformers, f"{kind}Model")(config)


MODELS = {
    "torchaudio": lambda: torchaudio_model(False),
    "torchaudio, norm first": lambda: torchaudio_model(True),
    "wav2vec2": lambda: transformers_model("Wav2Vec2"),
    "wav2vec2, norm first": lambda: transformers_model("Wav2Vec2", do_stable_layer_norm=True),
    "hubert": lambda: transformers_model("Hubert"),
    "bert": lambda: transformers_model("Bert", vocab_size=30, layer_norm_eps=1e-3),
    "roberta": lambda: transformers_model("Roberta", vocab_size=30, max_position_embeddings=40),
}


def make(kind):
    """A model whose layer norms and biases are not those that it was made with."""
    torch.manual_seed(0)
    model = MODELS[kind]().eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim == 1:
                p.add_(0.3 * torch.randn_like(p))
            elif "encoder" in name and p.ndim == 2:
                p.add_(0.2 * torch.randn_like(p))
    return model


def states(model, n):
    """The hidden states of four clips of unequal length before the last n layers, and after."""
    before, after = [], []
    for i, length in enumerate((21, 12, 30, 9)):
        with torch.inference_mode():
            if hasattr(model, "feature_extractor") and hasattr(model.encoder, "transformer"):
                x = randn(1, 40 * length, seed=i)
                before.append(model.extract_features(x)[0][3 - n][0])
                after.append(model(x)[0][0])
                continue
            if model.main_input_name == "input_ids":
                x = {"input_ids": 2 + torch.arange(length)[None] * (i + 1) % 28}
            else:
                x = {"input_values": randn(1, 40 * length, seed=i)}
            out = model(**x, output_hidden_states=True)
            before.append(out.hidden_states[4 - n][0])
            after.append(out.last_hidden_state[0])
    return before, after


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("n", [1, 3])
def test_last_layers_give_what_the_model_gives_padding_included(kind, n):
    model = make(kind)
    last = PretrainedLayers.of(model, n)
    assert last.shape == LayerShape(
        16, 2, 24, 1e-3 if kind == "bert" else last.shape.eps, "norm first" in kind
    )
    tail = LastLayers(last.shape, n).eval()
    last.give(tail)
    before, after = states(model, n)
    padded = torch.nn.utils.rnn.pad_sequence(before, batch_first=True, padding_value=100.0)
    mask = torch.arange(padded.shape[1]) < torch.tensor([len(b) for b in before])[:, None]
    found = tail(padded, mask)
    for row, expected in zip(found, after, strict=True):
        torch.testing.assert_close(row[: len(expected)], expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(before[0], after[0], atol=0.1)


@pytest.mark.parametrize("kind", ["torchaudio, norm first", "bert"])
def test_layers_are_trained_and_the_norm_behind_them_is_not(kind):
    last = PretrainedLayers.of(make(kind), 2)
    tail = LastLayers(last.shape, 2)
    last.give(tail)
    tail(randn(2, 5, 16)).square().sum().backward()
    assert all(p.grad.abs().max() > 0 for n, p in tail.layers.named_parameters() if "k_proj.b" in n)
    assert all(p.grad is not None for p in tail.layers.parameters())
    assert all(p.grad is None for p in tail.last_norm.parameters())


def test_weights_are_copies():
    model = make("bert")
    last = PretrainedLayers.of(model, 1)
    first = last.layers[0]["q_proj.weight"].clone()
    with torch.no_grad():
        model.encoder.layer[-1].attention.self.query.weight.zero_()
    assert torch.equal(last.layers[0]["q_proj.weight"], first)


def test_what_a_layer_with_gates_takes_of_one_without():
    layer = GatedLayer(16, 2, {"text": 16, "visual": 8}, 24, 0.1)
    last = PretrainedLayers.of(make("wav2vec2"), 1)
    names = layer.sources()
    own = set(layer.state_dict()) - set(names)
    parts = [f"attention.cross.visual.{p}_proj" for p in "kv"] + ["attention.gate"]
    assert own == {f"{part}.{kind}" for part in parts for kind in ("weight", "bias")}
    network = torch.nn.Module()
    network.layers, network.last_norm = torch.nn.ModuleList([layer]), torch.nn.Identity()
    last.give(network)
    state = layer.state_dict()
    for name in ("self_attention", "cross.text"):
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            torch.testing.assert_close(
                state[f"attention.{name}.{part}.weight"], last.layers[0][f"{part}.weight"]
            )


def test_self_attention_alone_needs_no_gate():
    attention = GatedCrossModalAttention(8, 2, {}).eval()
    x = randn(2, 5, 8)
    torch.testing.assert_close(attention(x), attention.self_attention(x, x))


def test_models_without_such_layers_are_refused():
    with pytest.raises(ValueError, match="Linear has no 1 layers like those of wav2vec 2"):
        PretrainedLayers.of(torch.nn.Linear(2, 2), 1)
    with pytest.raises(ValueError, match="Wav2Vec2Model has no 5 layers"):
        PretrainedLayers.of(torchaudio_model(False), 5)
    wavlm = torch.nn.Module()
    wavlm.encoder = torch.nn.Module()
    wavlm.encoder.layers = torch.nn.ModuleList([torch.nn.TransformerEncoderLayer(8, 2)])
    with pytest.raises(ValueError, match="has no 1 layers"):
        PretrainedLayers.of(wavlm, 1)
