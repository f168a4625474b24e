"""Toy transcripts: what the words tell, and that files do not change for them."""

import hashlib
import itertools

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline

from skfdan.datasets import _words, make_emotion_clips
from skfdan.datasets.synthetic import EMOTIONS, KNOWN_EMOTIONS

FEW = {"emotions": ["anger", "fear"], "duration": 0.5, "frame_size": 32, "sample_rate": 8000}


def sentences(separation, n=700):
    labels = [EMOTIONS[i % len(EMOTIONS)] for i in range(n)]
    texts = [
        _words.say(label, EMOTIONS, separation, np.random.default_rng([3, i]))
        for i, label in enumerate(labels)
    ]
    return texts, labels


def test_every_emotion_has_words_and_no_word_has_two():
    assert set(_words.EMOTION_WORDS) == set(KNOWN_EMOTIONS)
    words = list(itertools.chain(_words.EVERYDAY_WORDS, *_words.EMOTION_WORDS.values()))
    assert len(words) == len(set(words))


@pytest.mark.parametrize(("separation", "low", "high"), [(1.0, 0.35, 0.8), (0.0, 0.0, 0.25)])
def test_words_carry_part_of_the_label(separation, low, high):
    model = make_pipeline(CountVectorizer(), LogisticRegression(max_iter=300))
    assert low < cross_val_score(model, *sentences(separation), cv=3).mean() < high


def test_texts_leave_the_files_as_they_are(tmp_path):
    def digests(folder):
        return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}

    plain = make_emotion_clips(2, 1, root=tmp_path / "a", random_state=0, **FEW)
    told = make_emotion_clips(2, 1, root=tmp_path / "b", random_state=0, text=True, **FEW)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    assert list(plain.table.columns) == ["visual", "audio"]
    assert "text" not in plain.frame
    assert list(told.table.columns) == ["visual", "audio", "text"]
    assert told.table["text"].tolist() == told.frame["text"].tolist()
    # The files that are there serve, and the words are of the same seed.
    again = make_emotion_clips(2, 1, root=tmp_path / "a", random_state=0, text=True, **FEW)
    assert again.table["text"].tolist() == told.table["text"].tolist()
    longer = make_emotion_clips(3, 1, root=tmp_path / "a", random_state=0, text=True, **FEW)
    assert longer.table["text"].tolist()[:2] == told.table["text"].tolist()
