"""Pictures for the page, as addresses that hold their content: no file is written."""

from __future__ import annotations

import base64
import io

import numpy as np

from skfdan.web._reader import Sound

__all__ = ["picture_of_crop", "picture_of_sound"]

#: Inches and dots an inch: large enough for two columns, and legible in the width of a phone.
_SIZE, _DPI = (4.5, 3.6), 192
_DARK = "#d4d4d8"


def picture_of_crop(crop: np.ndarray) -> str:
    """Return the address of a picture (H, W, 3)."""
    from PIL import Image

    return _address(lambda file: Image.fromarray(crop).save(file, "PNG"))


def picture_of_sound(sound: Sound, marks: list[float] | None, *, dark: bool) -> str:
    """Return the address of waveform and Mel spectrogram, for a light or dark page.

    ``marks`` are times of pictures. What the model does not hear is shaded.
    """
    from matplotlib.figure import Figure  # not pyplot, whose state all threads share

    from skfdan.inspection import ClipDisplay

    figure = Figure(figsize=_SIZE, layout="constrained")
    display = ClipDisplay.from_arrays(
        sound.waveform, sound.mel.sample_rate, mel=sound.mel, ax=figure.add_subplot()
    )
    wave, mel = display.axes_["waveform"], display.axes_["mel"]
    for time in marks or ():
        wave.axvline(time, color="#D55E00", linestyle="--", linewidth=1)
    if sound.window is not None:
        for start, end in ((0, sound.window[0]), (sound.window[1], sound.seconds)):
            wave.axvspan(start, end, color="0.5", alpha=0.3, linewidth=0)
            mel.axvspan(start, end, color="0.5", alpha=0.6, linewidth=0)
    if dark:
        _on_dark(figure)
        wave.lines[0].set_color("#56B4E9")
    return _address(lambda file: figure.savefig(file, dpi=_DPI, transparent=True))


def _on_dark(figure) -> None:
    """Turn what is black light."""
    from matplotlib.axes import Axes
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_color(_DARK)
    for axes in figure.findobj(Axes):
        axes.tick_params(color=_DARK)
        axes.spines[:].set_edgecolor(_DARK)


def _address(save) -> str:
    file = io.BytesIO()
    save(file)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
