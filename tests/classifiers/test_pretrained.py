"""Classifiers that train the last layers of wav2vec 2.0, BERT and RoBERTa along."""

import json
import pickle
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.base import clone
from skorch.callbacks import Callback
from torch.nn import functional as F

from skfdan import load_pretrained, make_table
from skfdan.classifiers import FDRLClassifier, WavFusionClassifier
from skfdan.classifiers._pretrained import _read_speech, _read_text
from skfdan.nn import LayerShape, WavFusionNet, WavFusionWav2Vec2
from skfdan.preprocessing import TextEmbedding, Wav2Vec2Embedding

transformers = pytest.importorskip("transformers")

SMALL = {
    "hidden_size": 8,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "i", "am", "so", "glad", "sad"]
TEXTS = ["i am glad", "sad", "so so sad", "i am so so so glad", "am i sad", "glad glad"]
QUICK = {"hidden": 8, "max_epochs": 2, "batch_size": 4, "random_state": 0, "verbose": 0}
Y = np.array(["joy", "anger", "anger", "joy", "anger", "joy"])


def save(model, folder):
    """Save a model whose every layer does something."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "encoder.layer" in name:
                p.add_(0.2 * torch.randn_like(p))
    transformers.utils.logging.disable_progress_bar()
    model.eval().save_pretrained(folder)
    transformers.utils.logging.enable_progress_bar()
    return folder


def speech_folder(folder, kind="Wav2Vec2", **settings):
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(
        conv_dim=(8, 8, 8),
        conv_kernel=(10, 8, 4),
        conv_stride=(8, 8, 5),
        num_feat_extract_layers=3,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
        **SMALL,
        **settings,
    )
    return save(getattr(transformers, f"{kind}Model")(config), folder)


def text_folder(folder, kind="Bert", **settings):
    torch.manual_seed(0)
    folder.mkdir(exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    if kind == "Roberta":
        (folder / "vocab.json").write_text(json.dumps({"<s>": 0, "<pad>": 1, "</s>": 2, "a": 3}))
        (folder / "merges.txt").write_text("#version: 0.2\n")
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=len(WORDS), max_position_embeddings=16, **SMALL, **settings
    )
    return save(getattr(transformers, f"{kind}Model")(config), folder)


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    return speech_folder(tmp_path_factory.mktemp("speech"))


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return text_folder(tmp_path_factory.mktemp("bert"))


@pytest.fixture(params=["torchaudio", "torchaudio, norm first"])
def bundle(request, monkeypatch, tmp_path):
    """A bundle of torchaudio; with the norm first, it normalises the waveform."""
    return make_bundle("norm" in request.param, monkeypatch, tmp_path)


def make_bundle(large, monkeypatch, tmp_path):
    import torchaudio

    params = {
        "extractor_mode": "layer_norm" if large else "group_norm",
        "extractor_conv_layer_config": [(8, 10, 8), (8, 8, 8)],
        "extractor_conv_bias": large,
        "encoder_embed_dim": 8,
        "encoder_projection_dropout": 0.1,
        "encoder_pos_conv_kernel": 8,
        "encoder_pos_conv_groups": 2,
        "encoder_num_layers": 4,
        "encoder_num_heads": 2,
        "encoder_attention_dropout": 0.1,
        "encoder_ff_interm_features": 16,
        "encoder_ff_interm_dropout": 0.0,
        "encoder_dropout": 0.1,
        "encoder_layer_norm_first": large,
        "encoder_layer_drop": 0.05,
        "aux_num_out": None,
    }
    bundle = replace(torchaudio.pipelines.WAV2VEC2_BASE, _params=params, _normalize_waveform=large)
    monkeypatch.setattr(torchaudio.pipelines, "WAV2VEC2_BASE", bundle)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    torch.manual_seed(0)
    model = torchaudio.models.wav2vec2_model(**params)
    torch.save(model.state_dict(), tmp_path / "checkpoints" / bundle._path)
    return bundle


def sounds(n=6):
    rng = np.random.default_rng(0)
    return [0.1 * rng.normal(size=1500 + 300 * i).astype(np.float32) for i in range(n)]


def cells(speech, bert, depth):
    """The hidden states before the last layers of both."""
    voices, words = (
        embedding.transform(column)[:, 0]
        for embedding, column in (
            (Wav2Vec2Embedding(model=speech, layer=-1 - depth), sounds()),
            (TextEmbedding(model=bert, layer=-1 - depth), TEXTS),
        )
    )
    return make_table(audio=list(voices), text=list(words))


# ------------------------------------------------ WavFusion, beside the real wav2vec 2.0


def check_surgery(name, model, waveforms):
    """Compare the two networks and their gradients, on every clip."""
    last = _read_speech("test", name, 2)
    torch.manual_seed(2)
    # Text that fits the voice's width, and faces that do not.
    widths = {"text": 5, "visual": 3}
    sizes = {"hidden": 8, "n_heads": 2, "n_codes": 4, "common_dim": 4, "lvc": False}
    net = WavFusionNet(3, {"audio": 8, **widths}, n_deep=2, audio_layers=last.shape, **sizes)
    last.give(net)
    surgery = WavFusionWav2Vec2(3, model, widths, n_deep=2, **sizes)
    surgery.rest.load_state_dict(net.rest.state_dict())
    for layer, original in zip(net.layers, surgery._deep(), strict=True):
        own, lent = layer.state_dict(), layer.sources()
        new = {n.removeprefix("attention."): own[n] for n in own if n not in lent}
        assert new  # the gate
        original.attention.gated.load_state_dict(new, strict=False)
    net.eval()
    surgery.eval()
    states = Wav2Vec2Embedding(model=name, layer=-3).transform(sounds())[:, 0]
    for i, (x, wave) in enumerate(zip(states, waveforms, strict=True)):
        others = {m: torch.from_numpy(np.random.default_rng(i).normal(size=(1, 4, d))).float()
                  for m, d in widths.items()}  # fmt: skip
        found = net(audio=torch.from_numpy(x)[None], **others)
        expected = surgery(wave[None], **others)
        torch.testing.assert_close(
            found.logits["fused"], expected.logits["fused"], rtol=1e-4, atol=1e-5
        )
        for m, z in expected.common.items():
            torch.testing.assert_close(found.common[m], z, rtol=1e-4, atol=1e-5)
        for out in (found, expected):
            out.logits["fused"][0, 0].backward()
    for layer, original in zip(net.layers, surgery._deep(), strict=True):
        gated = {f"attention.{n}": p.grad for n, p in original.attention.gated.named_parameters()}
        linear = original.feed_forward.intermediate_dense.weight.grad
        torch.testing.assert_close(layer.ffn[0].weight.grad, linear, rtol=1e-3, atol=1e-5)
        for n, p in layer.named_parameters():
            if n in gated and gated[n] is not None:
                torch.testing.assert_close(p.grad, gated[n], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("norm_first", [False, True])
def test_wavfusion_is_the_surgery_within_transformers(tmp_path, norm_first):
    folder = speech_folder(tmp_path, do_stable_layer_norm=norm_first)
    model = transformers.AutoModel.from_pretrained(folder)
    check_surgery(folder, model, [torch.from_numpy(s) for s in sounds()])


def test_wavfusion_is_the_surgery_within_torchaudio(bundle):
    model = bundle.get_model()
    waves = [torch.from_numpy(s) for s in sounds()]
    if bundle._normalize_waveform:
        waves = [F.layer_norm(w, w.shape) for w in waves]
    check_surgery("WAV2VEC2_BASE", getattr(model, "model", model), waves)


# ------------------------------------------------------------------- both classifiers


def wavfusion(speech, bert=None, **params):
    given = {"modalities": ("audio", "text"), "common_dim": 4, "n_deep": 2, "n_heads": 2}
    return WavFusionClassifier(speech_model=speech, **QUICK | given | params)


def fdrl(speech, bert, **params):
    return FDRLClassifier(
        speech_model=speech, text_model=bert, n_trainable_layers=2, **QUICK | params
    )


def trained(clf):
    """The layers of each encoder within the network."""
    if isinstance(clf, WavFusionClassifier):
        return {"audio": clf.module_.layers}
    return {m: tail.layers for m, tail in clf.module_.encoders.items()}


@pytest.mark.parametrize("make", [wavfusion, fdrl])
def test_layers_start_from_the_model_and_move(make, speech, bert):
    X = cells(speech, bert, 2)
    X.loc[0, "text"] = None  # a voice alone reads itself
    still = make(speech, bert, lr=0.0, encoder_lr=0.0, weight_decay=0.0).fit(X, Y)
    moved = make(speech, bert, lr=0.0, weight_decay=0.0).fit(X, Y)
    reads = {"audio": _read_speech("test", speech, 2), "text": _read_text("test", bert, 2)}
    for m, layers in trained(still).items():
        assert still.encoder_layers_[m] == reads[m].shape._asdict()
        for layer, after, weights in zip(layers, trained(moved)[m], reads[m].layers, strict=True):
            new = dict(after.named_parameters())
            for name, source in layer.sources().items():
                torch.testing.assert_close(layer.state_dict()[name], weights[source])
                assert not torch.equal(new[name], weights[source]), name
    # With a rate of their own they are all that moves.
    changed = {
        n
        for (n, p), q in zip(
            still.module_.named_parameters(), moved.module_.parameters(), strict=True
        )
        if not torch.equal(p, q)
    }
    assert changed
    assert all(".layers." in f".{n}" for n in changed)
    assert not any("gate" in n for n in changed)
    # Voices are read as the model made them.
    norm = moved.module_.inputs["audio"]
    assert not norm.mean.any()
    assert (norm.std == 1).all()


@pytest.mark.parametrize("make", [wavfusion, fdrl])
def test_nothing_but_fit_needs_the_files(make, speech, bert, tmp_path):
    places = [tmp_path / "speech", tmp_path / "bert"]
    for place, folder in zip(places, (speech, bert), strict=True):
        shutil.copytree(folder, place)
    X = cells(speech, bert, 2)
    clf = make(places[0], places[1]).fit(X, Y)
    expected = clf.predict_proba(X)
    for place in places:
        shutil.rmtree(place)
    clf.save_pretrained(tmp_path / "model")
    kept = [pickle.loads(pickle.dumps(clf)), load_pretrained(tmp_path / "model")]
    for again in kept:
        np.testing.assert_array_equal(again.predict_proba(X), expected)
        assert again.encoder_layers_ == clf.encoder_layers_
        again.partial_fit(X, Y)
        assert not np.array_equal(again.predict_proba(X), expected)
    assert kept[1].speech_model == str(places[0])
    with pytest.raises(FileNotFoundError, match=r"\(speech_model=\.\.\.\): model=.*no such folder"):
        clone(clf).fit(X, Y)
    # A fit that is refused leaves what was fitted.
    with pytest.raises(FileNotFoundError):
        clf.fit(X, Y)
    np.testing.assert_array_equal(clf.predict_proba(X), expected)


@pytest.mark.parametrize("make", [wavfusion, fdrl])
def test_checkpoint_goes_on_without_the_files(make, speech, bert, tmp_path):
    class Stop(Exception):
        pass

    class Interrupt(Callback):
        only_watches = True

        def on_epoch_begin(self, net, **kwargs):
            if len(net.history_) == 2:
                raise Stop

    places = [tmp_path / "speech", tmp_path / "bert"]
    for place, folder in zip(places, (speech, bert), strict=True):
        shutil.copytree(folder, place)
    X = cells(speech, bert, 2)
    params = {"max_epochs": 3, "checkpoint_dir": tmp_path / "kept"}
    whole = make(*places, **params | {"checkpoint_dir": None}).fit(X, Y)
    with pytest.raises(Stop):
        make(*places, callbacks=[Interrupt()], **params).fit(X, Y)
    for place in places:
        shutil.rmtree(place)
    resumed = make(*places, **params).fit(X, Y)
    np.testing.assert_array_equal(resumed.predict_proba(X), whole.predict_proba(X))


@pytest.mark.parametrize("make", [wavfusion, fdrl])
def test_checkpoint_is_none_of_other_weights_in_the_same_place(make, speech, bert, tmp_path):
    place = tmp_path / "speech"
    shutil.copytree(speech, place)
    X = cells(speech, bert, 2)
    kept = {"checkpoint_dir": tmp_path / "kept"}
    make(place, bert, **kept).fit(X, Y)
    model = transformers.AutoModel.from_pretrained(place)
    with torch.no_grad():
        model.encoder.layers[-1].feed_forward.output_dense.weight.mul_(2)
    save(model, place)
    with pytest.raises(ValueError, match="what speech_model names has another content now"):
        make(place, bert, **kept).fit(X, Y)


@pytest.mark.parametrize("make", [wavfusion, fdrl])
def test_partial_fit_starts_from_the_model_too(make, speech, bert):
    X = cells(speech, bert, 2)
    still = {"lr": 0.0, "encoder_lr": 0.0, "weight_decay": 0.0}
    a = make(speech, bert, **still).fit(X, Y)
    b = make(speech, bert, **still).partial_fit(X, Y)
    for m, layers in trained(a).items():
        assert b.encoder_layers_ == a.encoder_layers_
        for layer, other in zip(layers, trained(b)[m], strict=True):
            torch.testing.assert_close(layer.ffn.state_dict(), other.ffn.state_dict())


@pytest.mark.parametrize("make", [wavfusion, fdrl])
def test_a_fit_leaves_the_random_numbers_of_others_alone(make, speech, bert):
    X = cells(speech, bert, 2)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    make(speech, bert).fit(X, Y)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("make", [wavfusion, fdrl])
def test_rows_that_lack_a_modality_and_single_ones(make, speech, bert):
    X = cells(speech, bert, 2)
    X.loc[0, "text"] = X.loc[1, "audio"] = None
    clf = make(speech, bert).fit(X, Y)
    together = clf.predict_proba(X)
    alone = np.concatenate([clf.predict_proba(X.iloc[[i]]) for i in range(len(X))])
    np.testing.assert_allclose(together, alone, rtol=1e-5)


def test_a_stored_shape_that_no_encoder_has_is_refused(speech, bert, tmp_path):
    from skfdan.persistence._format import ModelError

    X = cells(speech, bert, 2)
    for key, value in (("n_heads", 0), ("eps", 2.0), ("norm_first", 1), ("width", 6)):
        clf = fdrl(speech, bert, max_epochs=1).fit(X, Y)
        clf.encoder_layers_["audio"][key] = value
        with pytest.raises((ModelError, ValueError), match="encoder_layers_ is not what"):
            clf.save_pretrained(tmp_path / "model")


# ------------------------------------------------------------------------------ FDRL


def test_fdrl_trains_the_encoder_that_is_named(bert, speech):
    X = cells(speech, bert, 2)
    words = FDRLClassifier(text_model=bert, n_trainable_layers=2, **QUICK).fit(X, Y)
    assert set(words.module_.encoders) == set(words.encoder_layers_) == {"text"}
    assert words.module_.inputs["audio"].mean.any()
    assert words._specs["audio"].kind == "vector"


def test_fdrl_reads_the_mean_of_the_last_hidden_states(bert, speech):
    clf = fdrl(speech, bert, lr=0.0, encoder_lr=0.0).fit(cells(speech, bert, 2), Y)
    seen = {m: [] for m in clf.module_.projections}
    for m, layer in clf.module_.projections.items():
        layer.register_forward_hook(lambda _, args, out, m=m: seen[m].append(args[0]))
    clf.predict(cells(speech, bert, 2))
    final = {
        "audio": Wav2Vec2Embedding(model=speech, output="mean").transform(sounds())[:, 0],
        "text": TextEmbedding(model=bert, output="mean").transform(TEXTS)[:, 0],
    }
    for m, vectors in final.items():
        torch.testing.assert_close(
            torch.cat(seen[m]).float(), torch.from_numpy(np.stack(vectors)), rtol=1e-4, atol=1e-5
        )


# ---------------------------------------------------------------------------- models


@pytest.mark.parametrize("kind", ["Hubert", "Data2VecAudio"])
def test_models_of_sound_with_the_same_layers(tmp_path, kind):
    assert _read_speech("test", speech_folder(tmp_path, kind), 3).shape == LayerShape(8, 2, 16)


def test_models_of_text_with_the_same_layers(tmp_path):
    shape = _read_text("test", text_folder(tmp_path, "Roberta"), 3).shape
    assert shape == LayerShape(8, 2, 16, eps=1e-12)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "WavLM"}, "its layers compute something else"),
        ({"hidden_act": "relu"}, "its layers compute something else"),
        ({"add_adapter": True}, "its layers compute something else|can't be trained along"),
    ],
)
def test_models_of_sound_with_other_layers_are_refused(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        _read_speech("test", speech_folder(tmp_path, **settings), 2)


@pytest.mark.parametrize("settings", [{"is_decoder": True}, {"kind": "RoFormer"}])
def test_models_of_text_with_other_layers_are_refused(tmp_path, settings):
    with pytest.raises(ValueError, match="its layers compute something else"):
        _read_text("test", text_folder(tmp_path, **settings), 2)


@pytest.mark.parametrize(
    ("make", "params", "message"),
    [
        (fdrl, {"n_trainable_layers": 0}, "n_trainable_layers=0 trains no layer"),
        (fdrl, {"n_trainable_layers": 4}, "has 4 layers, of which at most 3 can be trained, not 4"),
        (fdrl, {"n_trainable_layers": 1.5}, "n_trainable_layers=1.5: it must be a whole number"),
        (fdrl, {"modalities": ("audio", "visual")}, "text_model=.* is of text, and modalities="),
        (fdrl, {"text_model": 3}, "text_model=3: give the name or folder of a model, or None"),
        (fdrl, {"speech_model": None, "text_model": None}, "n_trainable_layers=2: of which models"),
        (fdrl, {"encoder_lr": -1}, "encoder_lr=-1: it must be a number, at least 0"),
        (fdrl, {"speech_model": "WAV2VEC3"}, "model='WAV2VEC3' is no wav2vec 2.0 of torchaudio"),
        (wavfusion, {"n_deep": 0}, "n_deep=0 trains no layer"),
        (wavfusion, {"n_deep": 4}, "has 4 layers, of which at most 3 can be trained, not 4"),
        (wavfusion, {"modalities": ("text",)}, "is of audio, and modalities="),
        (wavfusion, {"speech_model": "WAV2VEC3"}, "is no wav2vec 2.0 of torchaudio"),
    ],
)
def test_parameters_are_refused(make, params, message, speech, bert):
    with pytest.raises(ValueError, match=message):
        make(speech, bert).set_params(**params).fit(cells(speech, bert, 2), Y)


@pytest.mark.parametrize("make", [wavfusion, fdrl])
def test_cells_of_another_model_are_refused(make, speech, bert):
    X = cells(speech, bert, 2)
    with pytest.raises(
        ValueError,
        match=r"its hidden states have 8 features, and the audio cells have 5\. Make them with "
        r'Wav2Vec2Embedding\(model=.*, layer=-3, output="sequence"\)',
    ):
        make(speech, bert).fit(X.assign(audio=[c[:, :5] for c in X["audio"]]), Y)
    with pytest.raises(ValueError, match=r"X has no audio cell\. Make them with Wav2Vec2Embedding"):
        make(speech, bert).fit(X.assign(audio=None), Y)
