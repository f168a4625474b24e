"""The card says what a user has to know, and only what is true."""

import json

import numpy as np
import pytest

from persistence import small_models as small
from skfdan import uar_score, war_score, weighted_f1_score
from skfdan.persistence import save_pretrained
from skfdan.preprocessing import MelSpectrogram


def card(folder):
    return (folder / "README.md").read_text(encoding="utf-8")


def section(text, title):
    return text.split(f"## {title}\n\n", 1)[1].split("\n\n## ", 1)[0]


@pytest.fixture(scope="module")
def pipeline():
    return small.PIPELINES["table"]()


def test_a_card_with_everything(pipeline, tmp_path):
    pipeline, _ = pipeline
    y_true = np.array(["anger", "anger", "fear", "joy"])
    y_pred = np.array(["anger", "fear", "fear", "sadness"])
    folder = save_pretrained(
        pipeline,
        tmp_path / "model",
        corpora="Tones and bars (CC0).",
        protocol="one fold",
        y_true=y_true,
        y_pred=y_pred,
    )
    text = card(folder)
    front = text.split("---\n")[1]
    assert "library_name: skfdan\npipeline_tag: audio-classification\ntags:\n- skfdan\n" in front
    assert 'load_pretrained("this-folder")' in section(text, "Use")
    parameters = section(text, "Parameters")
    assert "- audio of audio: MelSpectrogram: hop\\_length=64, n\\_fft=64" in parameters
    assert "bottleneck=8" in parameters
    assert "batch\\_size" not in parameters  # it has its default
    assert "- visual: pictures of bytes" in section(text, "Input")
    assert section(text, "Classes") == "anger, fear, joy, sadness"
    assert section(text, "Corpora") == "Tones and bars (CC0)."
    scores = section(text, "Evaluation")
    assert "Protocol: one fold" in scores
    expected = [score(y_true, y_pred) for score in (war_score, uar_score, weighted_f1_score)]
    assert "WAR {:.3f}, UAR {:.3f}, wF1 {:.3f}, on 4 rows".format(*expected) in scores
    assert "| anger | 0.500 | 2 |\n| fear | 1.000 | 1 |\n| joy | 0.000 | 1 |" in scores
    training = section(text, "Training")
    assert "- epochs: 2\n- labelled rows: anger 4, fear 4, joy 4, sadness 4\n" in training
    assert f"train\\_loss {pipeline[-1].history_[-1]['train_loss']:.4g}" in training
    limits = " ".join(section(text, "Limits").split())
    assert "Do not base decisions about people on them." in limits
    assert "skfdan 0." in section(text, "Versions")
    facts = json.loads((folder / "config.json").read_text())["facts"]
    assert facts["scores"]["WAR"] == 0.5
    assert facts["scores"]["classes"][1] == {"label": "fear", "recall": 1.0, "support": 1}


def test_what_is_not_known_is_said(tmp_path):
    clf, _ = small.CLASSIFIERS["gmtcnet"]()
    text = card(clf.save_pretrained(tmp_path / "model"))
    assert section(text, "Corpora") == "Not stated."
    assert section(text, "Evaluation") == "Protocol: not stated\n\nNot evaluated."
    assert 'GMTCNetClassifier.from_pretrained("this-folder")' in text
    assert "Fidelity to the published method: exact." in text


def test_transformers_alone_are_no_classifier(tmp_path):
    text = card(save_pretrained(MelSpectrogram(n_mels=8), tmp_path / "mel"))
    assert "pipeline_tag" not in text
    assert "## Classes" not in text
    assert "MelSpectrogram: n\\_mels=8" in text


def test_labels_do_not_become_markup(tmp_path):
    labels = np.array(["a|b", "<script>", "x`y", "[l](http://e.org)"])[np.arange(16) % 4]
    clf = small.fdan(max_epochs=1).fit(small.MATRIX, labels)
    text = card(clf.save_pretrained(tmp_path / "model", y_true=labels, y_pred=labels))
    assert "a\\|b" in text
    assert "\\<script>" in text
    assert "\\[l](" in text


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"y_true": ["joy"]}, "both y_true and y_pred"),
        ({"y_true": ["joy"], "y_pred": ["joy", "fear"]}, "labels of the same rows"),
        ({"y_true": [], "y_pred": []}, "labels of the same rows"),
    ],
)
def test_scores_need_both(given, message, tmp_path, pipeline):
    with pytest.raises(ValueError, match=message):
        save_pretrained(pipeline[0], tmp_path / "model", **given)
    assert not list(tmp_path.iterdir())


def test_texts_are_texts(tmp_path, pipeline):
    with pytest.raises(TypeError, match="corpora must be a text or None, not list"):
        save_pretrained(pipeline[0], tmp_path / "model", corpora=["RAVDESS"])
