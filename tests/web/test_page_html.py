import base64
import io
import re
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from skfdan.preprocessing import MelSpectrogram
from skfdan.web import _page
from skfdan.web._reader import Clip, Faces, Sound

EVIL = "<img src=x onerror=alert(1)>"
RATE = 16000


def sound(seconds=2.0, window=None):
    samples = np.sin(np.arange(int(seconds * RATE)) * 0.1).astype(np.float32)
    return Sound(samples, MelSpectrogram(n_mels=40, verbose=0), window)


def pictures(html):
    """Decode the pictures of a page."""
    found = re.findall(r'<img([^>]*)src="data:image/png;base64,([^"]+)"', html)
    return [Image.open(io.BytesIO(base64.b64decode(data))) for _, data in found]


def test_answer():
    crops = [np.full((8, 8, 3), value, np.uint8) for value in (10, 20, 30)]
    clip = Clip(
        "a.mp4",
        probabilities={"anger": 0.9376, "joy": 0.0624},
        used=("visual", "audio"),
        warnings=["Something is odd."],
        sound=sound(),
        faces=Faces(crops, [0.1, 0.2, 0.3]),
    )
    html = _page.answer(clip)
    rows = re.findall(r'<th scope="row">(.*?)</th>.*?"width:(.*?)".*?(\d+\.\d) %', html, re.DOTALL)
    assert rows == [("anger", "93.76%", "93.8"), ("joy", "6.24%", "6.2")]
    assert re.search(r"<h2[^>]*>anger ", html)
    assert "voice and face</span>" in html
    assert "Something is odd." in html
    *faces, light, dark = pictures(html)
    assert [np.unique(face).tolist() for face in faces] == [[10], [20], [30]]
    assert "0.20 s" in html
    assert "(40 bands) of 2.0 s" in html
    # Black on light, light on dark, on whatever the page has below.
    for picture, ink in ((light, 0), (dark, 212)):
        pixels = np.asarray(picture.convert("RGBA"))
        assert pixels[0, 0, 3] == 0
        written = pixels[pixels[..., 3] == 255][:, :3]
        assert (written == (ink, ink, ink if ink == 0 else 216)).all(axis=1).any()
    assert light.size == dark.size


@pytest.mark.parametrize(("used", "words"), [("audio", "voice only"), ("visual", "face only")])
def test_what_the_model_went_by(used, words):
    assert words in _page.answer(Clip("a.wav", probabilities={"joy": 1.0}, used=(used,)))


def test_a_part_of_a_long_clip():
    html = _page.answer(
        Clip("a.wav", probabilities={"joy": 1.0}, used=("audio",), sound=sound(10, (3, 7)))
    )
    assert "The model hears the 4.0 s in the middle; the rest is shaded." in html


def test_error():
    html = _page.answer(Clip("a.wav", "is not a media file"))
    assert 'role="alert"' in html
    assert "a.wav: is not a media file" in html


def test_what_others_have_written_is_escaped():
    reader = SimpleNamespace(name=EVIL, classes=["joy", EVIL], choices=["audio"])
    clip = Clip(EVIL, probabilities={EVIL: 1.0}, used=("audio",), warnings=[EVIL])
    for html, n in (
        (_page.header(reader, local=True), 2),
        (_page.answer(clip), 4),
        (_page.answer(Clip(EVIL, EVIL)), 2),
    ):
        assert "<img" not in html
        assert html.count("&lt;img src=x") == n


def test_header():
    reader = SimpleNamespace(name="toy/model", classes=["anger", "joy"], choices=["audio"])
    html = " ".join(_page.header(reader, local=True).split())
    assert "Recognises acted or labelled expressions, not feelings." in html
    assert "Runs on this machine only; nothing is kept." in html
    assert "goes by voice only, and knows anger, joy." in html
    assert "this machine" not in _page.header(reader, local=False)
    reader.choices = ["audio", "visual", "fused"]
    assert "voice, face, or both" in _page.header(reader, local=False)
