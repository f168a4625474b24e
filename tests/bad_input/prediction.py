"""Predicting with fitted classifiers."""

import numpy as np

from bad_input.shared import Case, fdan
from bad_input.training import _with
from skfdan import make_table
from skfdan.classifiers import SDTClassifier
from skfdan.preprocessing import MelSpectrogram


def _shares(c: Case):
    clf = c.fitted("voices", on_error="missing")
    proba = clf.predict_proba(make_table(audio=_with(c.sound, 2, None)))
    np.testing.assert_allclose(proba[2], 1 / 3)


def _alone(c: Case):
    talks = make_table(text=np.ones((4, 8))).assign(dialogue=["a", "a", "b", "b"])
    clf = SDTClassifier(hidden=8, max_epochs=1, verbose=0, random_state=0)
    clf.fit(talks, ["joy", "fear"] * 2).predict(talks.drop(columns="dialogue"))


CASES = {
    "`SDTClassifier.predict(X)` without the dialogues that `fit` had": _alone,
    "`FDANClassifier().predict(X)` before `fit`": lambda c: fdan().predict(c.X),
    "`FDANClassifier.predict(X)` with other features than `fit` saw": lambda c: c.fitted(
        "vectors"
    ).predict(c.X[:, :4]),
    "`FDANClassifier.predict(X)` with one spectrogram": lambda c: c.fitted("voices").predict(
        c.sound[0]
    ),
    "`FDANClassifier.predict(X)` with one path": lambda c: c.fitted("voices").predict("me.wav"),
    "`FDANClassifier.predict(table)` on infinite values": lambda c: c.fitted("voices").predict(
        make_table(audio=np.where(c.sound > 2, np.inf, c.sound))
    ),
    "`FDANClassifier.predict(table)` with cells of another kind than `fit` saw": lambda c: c.fitted(
        "voices"
    ).predict(make_table(audio=c.X)),
    "`FDANClassifier.predict(table)` of faces after a fit on voices": lambda c: c.fitted(
        "voices", predict_modality="visual"
    ).predict(make_table(visual=c.faces)),
    "`FDANClassifier.predict(table)` with the voice missing": lambda c: c.fitted("voices").predict(
        make_table(visual=c.faces, audio=_with(c.sound, 2, None))
    ),
    '`FDANClassifier(on_error="missing").predict(table)` with the voice missing': _shares,
    "`FDANClassifier.predict(table)` on a row without any cell": lambda c: c.fitted("both").predict(
        make_table(audio=_with(c.sound, 2, None))
    ),
    '`FDANClassifier(predict_modality="fused").predict(array)`': lambda c: c.fitted("both").predict(
        c.sound
    ),
    "`FDANClassifier.predict(table)` with a broken file": lambda c: c.fitted(
        "voices", audio_transformer=MelSpectrogram()
    ).predict(make_table(audio=[c.files("empty.wav")])),
    "`FDANClassifier.score(X, y)` with too few labels": lambda c: c.fitted("vectors").score(
        c.X, c.y[:3]
    ),
    "`FDANClassifier.set_params` with an unknown parameter": lambda c: fdan().set_params(rate=1),
}
