"""The words and pictures of the page as HTML. Everything that is not ours is escaped."""

from __future__ import annotations

from html import escape

from skfdan.nn.fdan import FUSED
from skfdan.web._pictures import picture_of_crop, picture_of_sound
from skfdan.web._reader import Clip, ClipReader, Faces, Sound

__all__ = ["CHOICES", "EMPTY", "answer", "header"]

#: What a model may go by, and what it went by.
CHOICES = {"audio": "Voice", "visual": "Face", FUSED: "Both"}
_USED = {"audio": "voice only", "visual": "face only", FUSED: "voice and face"}

EMPTY = '<div class="skf-empty">Record or drop a clip: the answer appears here.</div>'


def header(reader: ClipReader, *, local: bool) -> str:
    """Return the title, what this is not, and what the model knows."""
    where = "this machine" if local else "the machine that serves this page"
    reads = _USED[reader.choices[0]] if len(reader.choices) == 1 else "voice, face, or both"
    return f"""
<header class="skf-header">
<h1>What does this clip express?</h1>
<p class="skf-use"><strong>Recognises acted or labelled expressions, not feelings.</strong>
Runs on {where} only; nothing is kept.</p>
<p class="skf-model">The model <b>{escape(reader.name)}</b> goes by {reads}, and knows
{escape(", ".join(reader.classes))}.</p>
</header>"""


def answer(clip: Clip) -> str:
    """Return what is shown of a clip."""
    if clip.error is not None:
        return f"""
<div class="skf-error" role="alert"><b>This clip can't be read.</b><br>
{escape(clip.name)}: {escape(clip.error)}</div>"""
    parts = [_emotions(clip), *map(_warning, clip.warnings)]
    if clip.faces is not None:
        parts.append(_faces(clip.faces))
    if clip.sound is not None:
        parts.append(_sound(clip.sound, clip.faces))
    return f'<div class="skf-answer">{"".join(parts)}</div>'


def _emotions(clip: Clip) -> str:
    modality = clip.used[0] if len(clip.used) == 1 else FUSED
    best = escape(next(iter(clip.probabilities)))
    used = _USED[modality]
    rows = "".join(
        f"""<tr{' class="skf-best"' if i == 0 else ""}><th scope="row">{escape(label)}</th>
<td class="skf-bar"><div style="width:{100 * p:.2f}%"></div></td>
<td class="skf-number">{100 * p:.1f} %</td></tr>"""
        for i, (label, p) in enumerate(clip.probabilities.items())
    )
    return f"""
<section>
<p class="skf-file">{escape(clip.name)}</p>
<h2 class="skf-emotion">{best} <span class="skf-used">{used}</span></h2>
<table class="skf-table"><caption class="skf-hidden">Probability of every emotion</caption>
<tbody>{rows}</tbody></table>
</section>"""


def _warning(text: str) -> str:
    return f'<p class="skf-warning"><b>Mind:</b> {escape(text)}</p>'


def _faces(faces: Faces) -> str:
    figures = []
    for k, crop in enumerate(faces.crops):
        time = "" if faces.times is None else f"{faces.times[k]:.2f} s"
        alt = f"Face {k + 1} of {len(faces.crops)}"
        figures.append(
            f'<figure><img src="{picture_of_crop(crop)}" alt="{alt}">'
            f"<figcaption>{time}</figcaption></figure>"
        )
    side = len(faces.crops[0])
    return f"""
<section><h3>What the model saw</h3>
<div class="skf-faces">{"".join(figures)}</div>
<p class="skf-note">As the model has them: {side} × {side} pixels.</p></section>"""


def _sound(sound: Sound, faces: Faces | None) -> str:
    marks = None if faces is None else faces.times
    images = "".join(
        f'<img class="skf-{name}" src="{picture_of_sound(sound, marks, dark=name == "dark")}" '
        'alt="Waveform and Mel spectrogram">'
        for name in ("light", "dark")
    )
    told = [f"Waveform and Mel spectrogram ({sound.mel.n_mels} bands) of {sound.seconds:.1f} s."]
    if sound.window is not None:
        heard = sound.window[1] - sound.window[0]
        told.append(f"The model hears the {heard:.1f} s in the middle; the rest is shaded.")
    if marks:
        told.append("Dashed: when the faces are shown.")
    return f"""
<section><h3>What the model heard</h3>{images}
<p class="skf-note">{" ".join(told)}</p></section>"""
