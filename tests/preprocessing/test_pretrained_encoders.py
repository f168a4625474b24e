"""Transformers that send cells through pretrained networks of others."""

import json
import pickle
import shutil
import subprocess
import sys
import urllib.error
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import SkipTestWarning
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks, get_tags

from skfdan import make_table
from skfdan.classifiers import WavFusionClassifier
from skfdan.persistence import load_pretrained, save_pretrained
from skfdan.preprocessing import (
    FrameEmbedding,
    MediaError,
    TextEmbedding,
    Wav2Vec2Embedding,
    _networks,
)
from skfdan.preprocessing._embedding_store import STORE
from skfdan.table import SKIP

SMALL_FRAMES = {"model": "resnet18", "weights": None, "input_size": 32, "random_state": 0}
CHECKED = [FrameEmbedding(**SMALL_FRAMES), TextEmbedding(), Wav2Vec2Embedding()]
SMALL = {
    "hidden_size": 8,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "i", "am", "so", "glad", "sad", "##der", "!"]
TEXTS = ["I am glad", "sad!", "so so sadder", "I am so so so glad!", "am I sad"]


@pytest.fixture(autouse=True)
def _nothing_is_known():
    STORE.clear()


@pytest.fixture
def computed(monkeypatch):
    """Counts the networks that are loaded: those that are known already are forgotten."""
    _networks._loaded.cache_clear()
    return lambda: _networks._loaded.cache_info().misses


def save(model, folder):
    from transformers.utils import logging

    # Newer versions show a bar when they save.
    logging.disable_progress_bar()
    model.eval().save_pretrained(folder)
    logging.enable_progress_bar()
    return folder


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("bert")
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    config = BertConfig(vocab_size=len(WORDS), max_position_embeddings=12, **SMALL)
    return save(BertModel(config), folder)


@pytest.fixture(scope="module")
def roberta(tmp_path_factory):
    from transformers import RobertaConfig, RobertaModel

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("roberta")
    tokens = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "h", "i", "hi", "\u0120"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\nh i\n")
    config = RobertaConfig(vocab_size=len(tokens), max_position_embeddings=12, **SMALL)
    return save(RobertaModel(config), folder)


def save_wav2vec2(folder, *, normalize=None, **settings):
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    torch.manual_seed(0)
    config = Wav2Vec2Config(
        conv_dim=(8, 8, 8),
        conv_kernel=(10, 8, 4),
        conv_stride=(8, 8, 5),
        num_feat_extract_layers=3,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
        **SMALL,
        **settings,
    )
    save(Wav2Vec2Model(config), folder)
    if normalize is not None:
        settings = {"do_normalize": normalize, "sampling_rate": 16000}
        (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture(scope="module")
def wav2vec2(tmp_path_factory):
    return save_wav2vec2(tmp_path_factory.mktemp("wav2vec2"), normalize=True)


def load(folder):
    from transformers import AutoModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    model = AutoModel.from_pretrained(folder).eval()
    logging.enable_progress_bar()
    return model


def close(found, expected):
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------- scikit-learn


def checks_without_a_matrix():
    # Most checks need a matrix of numbers, and scikit-learn says that it leaves them out.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkipTestWarning)
        return [pair for e in CHECKED for pair in estimator_checks.estimator_checks_generator(e)]


@pytest.mark.parametrize(
    ("estimator", "check"), checks_without_a_matrix(), ids=estimator_checks._get_check_estimator_ids
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("estimator", CHECKED, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize(
    "check",
    [
        estimator_checks.check_estimator_cloneable,
        estimator_checks.check_estimator_repr,
        estimator_checks.check_estimator_tags_renamed,
        estimator_checks.check_valid_tag_types,
        estimator_checks.check_no_attributes_set_in_init,
        estimator_checks.check_parameters_default_constructible,
        estimator_checks.check_get_params_invariance,
        estimator_checks.check_set_params,
        estimator_checks.check_do_not_raise_errors_in_init_or_set_params,
        estimator_checks.check_mixin_order,
        estimator_checks.check_set_output_transform,
    ],
    ids=lambda check: check.__name__,
)
def test_scikit_learn_checks_that_need_no_matrix(estimator, check):
    check(type(estimator).__name__, clone(estimator))


def test_importing_and_fitting_imports_no_network():
    code = (
        "import sys; from skfdan.preprocessing import TextEmbedding, Wav2Vec2Embedding\n"
        "from skfdan.preprocessing import FrameEmbedding; FrameEmbedding()\n"
        "Wav2Vec2Embedding().fit(['a.wav']); TextEmbedding().fit(['hello'])\n"
        "assert not {'torch', 'torchaudio', 'torchvision', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (TextEmbedding(output="max"), "output must be 'sequence', 'mean' or 'cls'; got 'max'"),
        (TextEmbedding(max_length=2), "max_length=2 must be at least 3"),
        (TextEmbedding(batch_size=1.5), "batch_size=1.5 must be a whole number"),
        (TextEmbedding(model=None), "model must be a folder or a name; got None"),
        (TextEmbedding(layer=0), "layers are counted from 1"),
        (TextEmbedding(layer=1.5), "layer=1.5 must be a whole number or None"),
        (Wav2Vec2Embedding(output="cls"), "output must be 'sequence' or 'mean'; got 'cls'"),
        (Wav2Vec2Embedding(layer=0), "layers are counted from 1"),
        (Wav2Vec2Embedding(layer="last"), "layer='last' must be a whole number or None"),
        (Wav2Vec2Embedding(model=None), "model must be a folder or the name of a bundle"),
        (FrameEmbedding(output="cls"), "output must be 'sequence' or 'mean'; got 'cls'"),
        (FrameEmbedding(model=None), "model must be the name of a network of torchvision"),
    ],
)
def test_parameters_out_of_range(estimator, message):
    with pytest.raises(ValueError, match=message):
        estimator.fit([None])


# ---------------------------------------------------------------------------- text


def by_hand(folder, text):
    from transformers import AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")
    with torch.inference_mode():
        return load(folder)(**tokens).last_hidden_state[0].numpy()


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_texts_equal_the_model_called_by_hand(name, request):
    folder = request.getfixturevalue(name)
    texts = TEXTS if name == "bert" else ["hi", "hi hi", "h i hi"]
    found = TextEmbedding(model=folder).fit_transform(texts)
    assert found.shape == (len(texts), 1)
    for cell, text in zip(found[:, 0], texts, strict=True):
        close(cell, by_hand(folder, text))
    means, firsts = (
        TextEmbedding(model=str(folder), output=o).transform(texts)[:, 0] for o in ("mean", "cls")
    )
    for sequence, mean, first in zip(found[:, 0], means, firsts, strict=True):
        close(mean, sequence.mean(axis=0))
        np.testing.assert_array_equal(first, sequence[0])
    assert np.ptp(np.stack(firsts), axis=0).max() > 1e-3


def test_texts_of_a_layer(bert):
    from transformers import AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(bert)(TEXTS[0], return_tensors="pt")
    with torch.inference_mode():
        states = load(bert)(**tokens, output_hidden_states=True).hidden_states
    for layer, expected in ((1, states[1]), (3, states[3]), (-1, states[3]), (-3, states[1])):
        (cell,) = TextEmbedding(model=bert, layer=layer).transform(TEXTS[:1])[:, 0]
        close(cell, expected[0].numpy())
    with pytest.raises(ValueError, match="layer=4 is not there: the model has 3 layers"):
        TextEmbedding(model=bert, layer=4).transform(TEXTS)


def test_a_text_gives_in_a_batch_what_it_gives_alone(bert):
    embed = TextEmbedding(model=bert, batch_size=3)
    together = embed.transform(TEXTS)[:, 0]
    for text, cell in zip(TEXTS, together, strict=True):
        STORE.clear()
        close(cell, embed.transform([text])[0, 0])


def test_a_text_is_words_and_blanks_are_missing(bert, tmp_path, monkeypatch):
    (tmp_path / "glad").write_text("sad")
    monkeypatch.chdir(tmp_path)
    frame = pd.DataFrame({"text": ["glad", None, " \n", SKIP, np.nan]}, index=[5, 4, 3, 2, 1])
    embed = TextEmbedding(model=bert).set_output(transform="pandas")
    out = embed.fit_transform(frame)
    assert out.index.tolist() == [5, 4, 3, 2, 1]
    assert embed.get_feature_names_out().tolist() == out.columns.tolist() == ["text"]
    close(out["text"].iloc[0], by_hand(bert, "glad"))
    assert out["text"].iloc[1:].tolist() == [None, None, SKIP, None]
    assert not get_tags(embed).requires_fit
    with pytest.raises(TypeError, match=r"row 1 .*is no text; a cell is a str"):
        embed.transform(pd.DataFrame({"text": ["glad", np.zeros(3)]}))
    with pytest.raises(ValueError, match=r"row 1 holds '\\udcff', a byte that is no text"):
        embed.transform(pd.DataFrame({"text": ["glad", "i am \udcff glad"]}))
    with pytest.raises(ValueError, match=r"'glad' is a single text; give a list"):
        TextEmbedding(model=bert).transform("glad")
    table = make_table(audio=[np.zeros(9)], text=["glad"])
    with pytest.raises(ValueError, match=r"Pick one: .*TextEmbedding\(\), \['text'\]"):
        TextEmbedding(model=bert).transform(table)
    with pytest.raises(ValueError, match=r"Pick one: .*Wav2Vec2Embedding\(\), \['audio'\]"):
        Wav2Vec2Embedding().transform(table)


def test_texts_are_saved_with_their_pipeline(bert, tmp_path):
    words = ["sad", "glad", "i am sad", "i am glad"]
    embed = ColumnTransformer([("text", TextEmbedding(model=bert, output="mean"), ["text"])])
    clf = WavFusionClassifier(
        modalities=("text",), dim=8, hidden=8, max_epochs=1, random_state=0, verbose=0
    )
    pipe = make_pipeline(embed, clf).fit(make_table(text=words), [0, 1, 0, 1])
    again = load_pretrained(save_pretrained(pipe, tmp_path / "model"))
    assert again[0].named_transformers_["text"].model == str(bert)
    X = make_table(text=words[::-1])
    np.testing.assert_array_equal(again.predict_proba(X), pipe.predict_proba(X))
    frames = FrameEmbedding(weights=None)
    with pytest.raises(TypeError, match=r"FrameEmbedding, which can't be saved: .*alone"):
        save_pretrained(make_pipeline(frames.fit([None]), clf), tmp_path / "other")


def test_long_texts_are_cut_off(bert, roberta):
    # Of RoBERTa's positions the first two stand for padding.
    for folder, word, most in ((bert, "sad ", 12), (roberta, "hi", 10)):
        with pytest.warns(UserWarning, match=rf"1 of 2 texts have more than the {most} tokens.*1"):
            found = TextEmbedding(model=folder).transform([word, word * 30])[:, 0]
        assert len(found[1]) == most
    assert len(TextEmbedding(model=bert, max_length=4).transform(["sad " * 30])[0, 0]) == 4
    assert len(TextEmbedding(model=bert).transform(["sad " * 10])[0, 0]) == 12
    with pytest.raises(ValueError, match="max_length=13: the model takes 12 tokens at most"):
        TextEmbedding(model=bert, max_length=13).transform(["sad"])


def test_texts_are_kept_by_the_content_of_the_model(bert, tmp_path, computed):
    folder = tmp_path / "model"
    shutil.copytree(bert, folder)
    embed = TextEmbedding(model=folder, cache_dir=tmp_path / "kept", output="mean")
    first = embed.transform(TEXTS)[:, 0]
    STORE.clear()
    before = computed()
    again = pickle.loads(pickle.dumps(clone(embed))).set_params(model=bert).transform(TEXTS)[:, 0]
    np.testing.assert_array_equal(np.stack(again), np.stack(first))
    assert computed() - before == 1  # the tokenizer of the other folder
    again[0][:] = 7
    np.testing.assert_array_equal(embed.transform(TEXTS)[0, 0], first[0])
    # Other weights in the same place.
    model = load(folder)
    with torch.no_grad():
        model.embeddings.word_embeddings.weight.mul_(2)
    save(model, folder)
    assert not np.allclose(embed.transform(TEXTS)[0, 0], first[0])


def test_a_model_that_is_not_there(bert, wav2vec2, tmp_path, monkeypatch):
    import huggingface_hub

    def offline(*args, **kwargs):
        raise ConnectionError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(
        RuntimeError,
        match=r"'bert-base-uncased' is no folder.*no network.*Run this once with a network.*"
        r"config\.json, model\.safetensors or pytorch_model\.bin, and its tokenizer",
    ):
        TextEmbedding().transform(["hello"])
    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        TextEmbedding(model=tmp_path / "none").transform(["hello"])
    with pytest.raises(FileNotFoundError, match=r"lacks config\.json and model\.safetensors .*"):
        TextEmbedding(model=tmp_path).transform(["hello"])
    with pytest.raises(FileNotFoundError, match=r"lacks a tokenizer's files"):
        TextEmbedding(model=wav2vec2).transform(["hello"])
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *a, **k: str(bert))
    close(TextEmbedding(model="some/bert").transform(["sad"])[0, 0], by_hand(bert, "sad"))


def test_weights_that_do_not_fit(bert, tmp_path):
    from safetensors.torch import load_file, save_file

    for name in ("config.json", "vocab.txt"):
        (tmp_path / name).write_bytes((bert / name).read_bytes())
    state = load_file(bert / "model.safetensors")
    torch.save(
        {k: v for k, v in state.items() if "pooler" not in k}, tmp_path / "pytorch_model.bin"
    )
    close(TextEmbedding(model=tmp_path).transform(["sad"])[0, 0], by_hand(bert, "sad"))
    lacking = {k: v for k, v in state.items() if "layer.1" not in k}
    save_file(lacking, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"do not fit its config\.json: \d+ are missing"):
        TextEmbedding(model=tmp_path).transform(["sad"])
    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(ValueError, match="could not be loaded"):
        TextEmbedding(model=tmp_path).transform(["sad"])


def test_without_transformers(bert, wav2vec2, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    for embed, cell in (
        (TextEmbedding(model=bert), "sad"),
        (Wav2Vec2Embedding(model=wav2vec2), np.zeros(800)),
    ):
        with pytest.raises(ImportError, match=r'pip install "skfdan\[transformers\]"'):
            embed.transform([cell])


# --------------------------------------------------------------------------- sound


def sounds(*lengths):
    rng = np.random.default_rng(0)
    return [0.1 * rng.normal(size=n).astype(np.float32) for n in lengths]


def run_by_hand(folder, samples, *, normalize, layer=None):
    from transformers import Wav2Vec2FeatureExtractor

    tool = Wav2Vec2FeatureExtractor(do_normalize=normalize)
    x = tool(samples, sampling_rate=16000, return_tensors="pt")["input_values"]
    with torch.inference_mode():
        out = load(folder)(x, output_hidden_states=True)
    return (out.last_hidden_state if layer is None else out.hidden_states[layer])[0].numpy()


def test_sound_equals_the_model_called_by_hand(wav2vec2):
    clips = sounds(4000, 6001, 5000)
    embed = Wav2Vec2Embedding(model=wav2vec2)
    found = embed.fit_transform(clips)[:, 0]
    for clip, cell in zip(clips, found, strict=True):
        close(cell, run_by_hand(wav2vec2, clip, normalize=True))
        # Nothing of its neighbours, and no padding.
        np.testing.assert_array_equal(embed.transform([clip])[0, 0], cell)
    for layer in (1, 2, -2, -1, 3):
        cell = clone(embed).set_params(layer=layer).transform(clips[:1])[0, 0]
        close(cell, run_by_hand(wav2vec2, clips[0], normalize=True, layer=layer))
    means = clone(embed).set_params(output="mean").transform(clips)[:, 0]
    for mean, cell in zip(means, found, strict=True):
        close(mean, cell.mean(axis=0))
    with pytest.raises(ValueError, match="layer=4 is not there: the network has 3 layers"):
        # Not a fault of the cell.
        clone(embed).set_params(layer=4, on_error="missing").transform(clips[:1])


@pytest.mark.parametrize("normalize", [None, False])
def test_what_is_not_to_be_normalised(tmp_path, normalize):
    folder = save_wav2vec2(
        tmp_path, normalize=normalize, feat_extract_norm="layer", do_stable_layer_norm=True
    )
    (clip,) = sounds(4000)
    found = Wav2Vec2Embedding(model=folder).transform([clip])[0, 0]
    close(found, run_by_hand(folder, clip, normalize=False))


def test_settings_as_transformers_5_writes_them(tmp_path):
    (clip,) = sounds(4000)
    folder = save_wav2vec2(tmp_path / "m", feat_extract_norm="layer", do_stable_layer_norm=True)
    settings = {"feature_extractor": {"do_normalize": True, "sampling_rate": 16000}}
    embed = Wav2Vec2Embedding(model=folder, cache_dir=tmp_path / "kept")
    plain = embed.transform([clip])[0, 0]
    (folder / "processor_config.json").write_text(json.dumps(settings))
    close(embed.transform([clip])[0, 0], run_by_hand(folder, clip, normalize=True))
    # They stand above those of the other file, as for transformers itself.
    (folder / "preprocessor_config.json").write_text(json.dumps({"do_normalize": False}))
    close(embed.transform([clip])[0, 0], run_by_hand(folder, clip, normalize=True))
    (folder / "processor_config.json").write_text(json.dumps({"processor_class": "Processor"}))
    np.testing.assert_array_equal(embed.transform([clip])[0, 0], plain)


def test_a_folder_may_be_called_as_a_bundle_might(wav2vec2, tmp_path, monkeypatch):
    shutil.copytree(wav2vec2, tmp_path / "WAV2VEC")
    monkeypatch.chdir(tmp_path)
    (clip,) = sounds(4000)
    expected = Wav2Vec2Embedding(model=wav2vec2).transform([clip])[0, 0]
    found = Wav2Vec2Embedding(model="WAV2VEC").transform([clip])[0, 0]
    np.testing.assert_array_equal(found, expected)


def test_files_waveforms_and_what_is_no_sound(wav2vec2, write_wav, tmp_path):
    (clip,) = sounds(16000)
    path, short = write_wav("a.wav", clip), write_wav("short.wav", clip[:500])
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"RIFF....WAVE")
    embed = Wav2Vec2Embedding(model=wav2vec2)
    assert embed._network().get().reach == 10 + 7 * 8 + 3 * 64
    out = embed.transform([path, clip, None, SKIP, (clip, 16000)])[:, 0]
    close(out[0], run_by_hand(wav2vec2, clip, normalize=True))
    np.testing.assert_array_equal(out[1], out[0])
    np.testing.assert_array_equal(out[4], out[0])
    assert out[2] is None
    assert out[3] is SKIP
    slow = embed.transform([(clip[::2], 8000)])[0, 0]
    assert slow.shape == out[0].shape
    with pytest.raises(MediaError, match=r"row 1 .*too short: it has 200 samples.*needs 258"):
        embed.transform([short, clip[:200]])
    # In worker processes, which are sent no network.
    careful = clone(embed).set_params(on_error="skip", timeout=60)
    with pytest.warns(UserWarning, match="1 of 3 cells could not be read"):
        out = careful.transform([str(path), str(bad), clip])[:, 0]
    np.testing.assert_array_equal(out[0], out[2])
    assert out[1] is SKIP
    assert careful.report_["row"].tolist() == [1]


def test_sounds_are_kept_per_file_and_by_the_content_of_the_model(
    wav2vec2, write_wav, tmp_path, computed
):
    paths = [write_wav(f"{i}.wav", clip) for i, clip in enumerate(sounds(4000, 5000))]
    folder = tmp_path / "model"
    shutil.copytree(wav2vec2, folder)
    embed = Wav2Vec2Embedding(model=folder, cache_dir=tmp_path / "kept")
    first = embed.transform(paths)[:, 0]
    before = computed()
    other = pickle.loads(pickle.dumps(clone(embed))).set_params(model=wav2vec2)
    for a, b in zip(other.transform(paths)[:, 0], first, strict=True):
        np.testing.assert_array_equal(a, b)
    assert computed() == before  # found, so that nothing is loaded
    settings = {"do_normalize": False}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    assert not np.allclose(embed.transform(paths)[0, 0], first[0])


@pytest.mark.parametrize("large", [False, True])
def test_a_bundle_of_torchaudio(large, monkeypatch, tmp_path, computed):
    import torchaudio

    params = {
        "extractor_mode": "layer_norm" if large else "group_norm",
        "extractor_conv_layer_config": [(8, 10, 8), (8, 8, 8)],
        "extractor_conv_bias": large,
        "encoder_embed_dim": 8,
        "encoder_projection_dropout": 0.1,
        "encoder_pos_conv_kernel": 8,
        "encoder_pos_conv_groups": 2,
        "encoder_num_layers": 3,
        "encoder_num_heads": 2,
        "encoder_attention_dropout": 0.1,
        "encoder_ff_interm_features": 16,
        "encoder_ff_interm_dropout": 0.0,
        "encoder_dropout": 0.1,
        "encoder_layer_norm_first": large,
        "encoder_layer_drop": 0.05,
        "aux_num_out": None,
    }
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    bundle = replace(torchaudio.pipelines.WAV2VEC2_BASE, _params=params, _normalize_waveform=large)
    monkeypatch.setattr(torchaudio.pipelines, "WAV2VEC2_BASE", bundle)
    clips = sounds(4000, 6001)
    embed = Wav2Vec2Embedding(n_jobs=2)

    def offline(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(
        RuntimeError,
        match=r"no network.*https://download\.pytorch\.org/torchaudio/models/wav2vec2_fairseq_base"
        rf"_ls960\.pth.*into the folder {tmp_path}/checkpoints",
    ):
        embed.transform(clips)
    torch.manual_seed(0)
    file = tmp_path / "checkpoints" / bundle._path
    torch.save(torchaudio.models.wav2vec2_model(**params).state_dict(), file)
    model = bundle.get_model()
    for layer in (None, 1, 2, -2):
        found = clone(embed).set_params(layer=layer).transform(clips)[:, 0]
        for clip, cell in zip(clips, found, strict=True):
            with torch.inference_mode():
                x = torch.from_numpy(clip)[None]
                layers = model.extract_features(x)[0]
                # Lists count from 0 where layers count from 1.
                expected = {None: model(x)[0], 1: layers[0], 2: layers[1], -2: layers[1]}[layer]
            close(cell, expected[0].numpy())
    file.write_bytes(b"damaged")
    with pytest.raises(ValueError, match="WAV2VEC2_BASE in torch's download cache could not be r"):
        clone(embed).set_params(on_error="missing").transform(clips)


def test_without_a_cell_no_network_is_needed(tmp_path):
    embed = Wav2Vec2Embedding(model=tmp_path / "none")
    assert embed.fit_transform([None, SKIP])[:, 0].tolist() == [None, SKIP]
    assert embed.report_.empty


def test_models_that_are_no_wav2vec2(bert, tmp_path):
    (clip,) = sounds(4000)
    with pytest.raises(ValueError, match=r"'WAV2VEC3' is no wav2vec 2\.0 of torchaudio"):
        Wav2Vec2Embedding(model="WAV2VEC3").transform([clip])
    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        Wav2Vec2Embedding(model=str(tmp_path / "none")).transform([clip])
    with pytest.raises(ValueError, match="is a bert, not a network of waveforms"):
        Wav2Vec2Embedding(model=bert).transform([clip])


def test_ravdess(real_data, wav2vec2):
    # Copies of the corpus may be packed without loss.
    paths = sorted(p for p in (real_data / "ravdess").rglob("*") if p.suffix in (".wav", ".flac"))
    if not paths:
        pytest.skip("needs sound files of RAVDESS in SKFDAN_DATA/ravdess")
    paths = paths[:: len(paths) // 3][:3]
    out = Wav2Vec2Embedding(model=wav2vec2, n_jobs=2).fit_transform(paths)[:, 0]
    for path, cell in zip(paths, out, strict=True):
        seconds = soundfile.info(path).duration
        assert abs(len(cell) - seconds * 50) < 2
        assert np.isfinite(cell).all()
        assert cell.std(axis=0).min() > 0


# -------------------------------------------------------------------------- frames


def faces(*counts):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (n, 3, 40, 36), dtype=np.uint8) for n in counts]


@pytest.mark.parametrize(
    ("model", "last"),
    [
        ("efficientnet_b0", "classifier.1"),
        ("mobilenet_v3_small", "classifier.3"),
        ("resnet18", "fc"),
    ],
)
def test_frames_equal_the_network_called_by_hand(model, last, tmp_path):
    from torchvision.models import get_model

    torch.manual_seed(0)
    network = get_model(model, weights=None).eval()
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    clips = faces(2, 3)
    given = {"model": model, "weights": tmp_path / "weights.pth", "input_size": None}
    embed = FrameEmbedding(**given, cache_dir=tmp_path / "kept").fit(clips)
    found = embed.transform([*clips, clips[0][1], None, SKIP])[:, 0]
    network.set_submodule(last, torch.nn.Identity())
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    for clip, cell in zip([*clips, clips[0][1:]], found, strict=False):
        x = (torch.from_numpy(clip) / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
        with torch.inference_mode():
            expected = network(x).numpy()
        scale = np.abs(expected).max()
        assert cell.dtype == np.float32
        np.testing.assert_allclose(cell, expected, atol=1e-4 * scale)
    assert found[3] is None
    assert found[4] is SKIP
    means = FrameEmbedding(**given, output="mean").fit_transform(clips)[:, 0]
    for single, cell in zip(means, found[:2], strict=True):
        np.testing.assert_allclose(single, cell.mean(axis=0), atol=1e-4 * scale)
    STORE.clear()
    again = pickle.loads(pickle.dumps(embed)).transform(clips)[:, 0]
    np.testing.assert_array_equal(again[1], found[1])
    # Without the last layer, and as safetensors.
    from safetensors.torch import save_file

    state = {k: v for k, v in network.state_dict().items() if not k.startswith(last)}
    save_file(state, tmp_path / "w.safetensors")
    STORE.clear()
    other = FrameEmbedding(**given | {"weights": tmp_path / "w.safetensors"}).fit_transform(clips)
    np.testing.assert_array_equal(other[1, 0], found[1])


def test_weights_of_frames_that_are_not_there(monkeypatch, tmp_path):
    def offline(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    for model in ("efficientnet_b0", "resnet18"):
        with pytest.raises(
            RuntimeError, match=rf"{model} could not.*no network.*put it at .*\.pth"
        ):
            FrameEmbedding(model=model).fit(faces(1))
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        FrameEmbedding(weights=tmp_path / "none.pth").fit(faces(1))
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(RuntimeError, match="does not fit efficientnet_b0"):
        FrameEmbedding(weights=tmp_path / "other.pth").fit(faces(1))


@pytest.mark.parametrize(
    ("model", "cell", "message"),
    [
        ("lenet", faces(1)[0], "'lenet' is no network of torchvision"),
        ("squeezenet1_0", faces(1)[0], "'squeezenet1_0' does not end in a linear classifier"),
        ("resnet18", "a.mp4", r"row 0 \(a\.mp4\) is a path\. Put FaceFrames\(\) before"),
        ("resnet18", np.zeros((3, 9, 9)), "FrameEmbedding: row 0 .*is no picture of bytes"),
        ("resnet18", np.zeros((9, 9, 3), np.uint8), "FrameEmbedding: row 0 .*channels are last"),
    ],
)
def test_what_is_no_network_or_picture(model, cell, message):
    with pytest.raises(ValueError, match=message):
        FrameEmbedding(model=model, weights=None).fit([cell])
