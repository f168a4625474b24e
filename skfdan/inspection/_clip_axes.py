"""The parts of the picture of a clip."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ._figure import COLOURS, font_size, split_place

__all__ = [
    "draw_frames",
    "draw_mel",
    "draw_probabilities",
    "draw_waveform",
    "hertz_to_mel",
    "outline",
    "place_axes",
]

_TICKS = np.array([0, 500, 1000, 2000, 4000, 8000, 16000])
_IN_A_ROW = 4
#: More than a picture has.
_COLUMNS = 5000


def hertz_to_mel(hertz):
    """Return Mel on Slaney's scale: linear to 1 kHz, logarithmic above.

    Examples
    --------
    >>> hertz_to_mel([0, 1000, 6400]).tolist()
    [0.0, 15.0, 42.0]
    """
    hertz = np.asarray(hertz, dtype=float)
    above = 15 + 27 * np.log(np.maximum(hertz, 1000) / 1000) / np.log(6.4)
    return np.where(hertz < 1000, hertz * 3 / 200, above)


def place_axes(
    plt: Any, ax: Any, *, sound: bool, n_frames: int, n_classes: int, title: str | None
) -> tuple[Any, dict[str, Any]]:
    """Return a figure and axes: sound on the left, faces and emotions on the right."""
    right = bool(n_frames or n_classes)
    widths = [ratio for ratio, there in ((3, sound), (2, right)) if there]
    if ax is None:
        figure = plt.figure(figsize=(2.2 * sum(widths) + 0.4, 5.0), layout="constrained")
        outer = figure.add_gridspec(1, len(widths), width_ratios=widths)
    else:
        figure = ax.figure
        outer = split_place(ax, 1, len(widths), width_ratios=widths)
    axes = {}
    if sound:
        left = outer[0].subgridspec(2, 1, height_ratios=[1, 2])
        axes["waveform"] = figure.add_subplot(left[0])
        axes["mel"] = figure.add_subplot(left[1])
    if right:
        heights = [r for r, there in ((1, n_frames), (1.6, n_classes)) if there]
        inner = outer[len(widths) - 1].subgridspec(len(heights), 1, height_ratios=heights)
        if n_frames:
            n_cols = min(n_frames, _IN_A_ROW) if n_classes else math.ceil(math.sqrt(n_frames))
            grid = inner[0].subgridspec(-(-n_frames // n_cols), n_cols)
            for k in range(n_frames):
                axes[f"frame{k}"] = figure.add_subplot(grid[divmod(k, n_cols)])
        if n_classes:
            axes["probabilities"] = figure.add_subplot(inner[len(heights) - 1])
    if title is not None:
        next(iter(axes.values())).set_title(title, fontsize=11, loc="left")
    return figure, axes


def draw_waveform(
    axis: Any, waveform: np.ndarray, rate: float, frame_times: Sequence[float] | None
) -> None:
    """Draw the sound over its seconds, and where frames were taken."""
    axis.plot(*outline(waveform, rate), color=COLOURS[0], linewidth=0.6)
    for time in frame_times or ():
        axis.axvline(time, color=COLOURS[5], linestyle="--", linewidth=1)
    axis.set(xlim=(0, len(waveform) / rate), ylabel="Amplitude")
    axis.tick_params(labelbottom=False, labelsize=9)
    axis.grid(alpha=0.3)


def outline(waveform: np.ndarray, rate: float) -> tuple[np.ndarray, np.ndarray]:
    """Return times and values of a line that looks as one through all samples does.

    Of more than some seconds, these are the least and the greatest sample of every short part.

    Examples
    --------
    >>> times, values = outline(np.sin(np.arange(9_600_000)), 16000)
    >>> len(times) == len(values) < 11_000, values[:2].round(2).tolist()
    (True, [-1.0, 1.0])
    """
    step = len(waveform) // _COLUMNS
    if step < 20:
        return np.arange(len(waveform)) / rate, waveform
    parts = waveform[: len(waveform) // step * step].reshape(-1, step)
    starts = np.arange(len(parts)) * step / rate
    return np.repeat(starts, 2), np.stack([parts.min(1), parts.max(1)], axis=1).ravel()


def draw_mel(
    axis: Any, log_mel: np.ndarray, times: np.ndarray, band: tuple[float, float], cmap: Any
) -> None:
    """Draw the spectrogram: seconds to the right, Mel upwards, with ticks in Hz."""
    n_mels = len(log_mel)
    low, high = hertz_to_mel(band)
    # n triangles between n + 2 evenly spaced edges: each peaks at the edge in its middle.
    step = (high - low) / (n_mels + 1)
    half = (times[1] - times[0]) / 2 if len(times) > 1 else 0.01
    image = axis.imshow(
        log_mel,
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        cmap=cmap,
        extent=(times[0] - half, times[-1] + half, low + step / 2, high - step / 2),
    )
    ticks = _TICKS[(band[0] <= _TICKS) & (band[1] >= _TICKS)]
    axis.set_yticks(hertz_to_mel(ticks), [f"{tick:,}" for tick in ticks])
    axis.set_ylim(low, high)
    axis.set(xlabel="Time (s)", ylabel="Frequency (Hz, Mel scale)")
    axis.tick_params(labelsize=9)
    # In axes of its own beside the picture, so that both time axes stay in line.
    scale = axis.figure.colorbar(image, cax=axis.inset_axes([1.015, 0, 0.02, 1]))
    scale.ax.set_title("dB", fontsize=8)
    scale.ax.tick_params(labelsize=8)


def draw_frames(
    axes: dict[str, Any], frames: Sequence[np.ndarray], times: Sequence[float] | None
) -> None:
    """Draw the faces, and when they are shown."""
    for k, frame in enumerate(frames):
        axis = axes[f"frame{k}"]
        axis.imshow(frame)
        axis.set(xticks=[], yticks=[])
        if times is not None:
            axis.set_xlabel(f"{times[k]:.2f} s", fontsize=9)


def draw_probabilities(axis: Any, probabilities: np.ndarray, classes: np.ndarray) -> None:
    """Draw a bar an emotion; the likeliest is dark and hatched."""
    n = len(classes)
    best = int(np.argmax(probabilities))
    bars = axis.barh(np.arange(n), probabilities, color=COLOURS[4], edgecolor="0.2", linewidth=0.8)
    bars[best].set(facecolor=COLOURS[0], hatch="//", edgecolor="white")
    inches = axis.get_window_extent().height / axis.figure.dpi
    size = font_size(inches, n, 9.0)
    for i, value in enumerate(probabilities):
        axis.text(
            value + 0.02,
            i,
            f"{value:.2f}",
            va="center",
            fontsize=size,
            weight="bold" if i == best else "normal",
        )
    axis.set_yticks(np.arange(n), [str(label) for label in classes])
    axis.tick_params(axis="y", labelsize=size)
    axis.tick_params(axis="x", labelsize=9)
    axis.set(xlim=(0, 1.15), ylim=(n - 0.4, -0.6), xlabel="Probability")
    axis.set_xticks([0, 0.25, 0.5, 0.75, 1])
