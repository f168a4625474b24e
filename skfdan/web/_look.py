"""What is read of a clip in a process of its own: it imports neither torch nor Gradio."""

from __future__ import annotations

import numpy as np

from skfdan.preprocessing import DecodeLimits

__all__ = ["look", "warm_up"]


def look(
    path: str, rate: int | None, limits: DecodeLimits | None
) -> tuple[np.ndarray | None, float | None]:
    """Return the sound at a rate, unless that is None, and how long the pictures last."""
    from skfdan.inspection.clip import _contents
    from skfdan.preprocessing.media import read_audio

    sound = None if rate is None else read_audio(path, rate, limits=limits)[0]
    return sound, _contents(path)[2]


def warm_up() -> None:
    """Import what takes time."""
    import av  # noqa: F401
    import soundfile  # noqa: F401
    import soxr  # noqa: F401
