import warnings

import av
import librosa
import numpy as np
import pytest
import soundfile
from PIL import Image, ImageFilter


@pytest.fixture(scope="session")
def face():
    """A photograph with one face, in the middle third: uint8 (512, 512, 3)."""
    from skimage.data import astronaut

    return astronaut()


@pytest.fixture(scope="session")
def moving_frames():
    """A function: n frames in which everything moves, so that no two are alike."""

    def make(n, height=64, width=96):
        rng = np.random.default_rng(0)
        noise = rng.integers(0, 255, (height + n, width + n, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(noise).filter(ImageFilter.GaussianBlur(1)))
        return [np.ascontiguousarray(smooth[i : i + height, i : i + width]) for i in range(n)]

    return make


@pytest.fixture
def write_video(tmp_path):
    """A function that writes frames, and if asked a tone, to a video file."""

    def write(name, frames, *, gop=12, codec="libx264", options=None, seconds=0.0, title=None):
        path = tmp_path / name
        with av.open(str(path), "w") as container:
            picture = sound = None
            if title:
                container.metadata["title"] = title
            if len(frames):
                picture = container.add_stream(codec, rate=25, options=options or {})
                picture.height, picture.width = frames[0].shape[:2]
                picture.pix_fmt = "yuv420p"
                picture.gop_size, picture.bit_rate = gop, 4_000_000
            if seconds:
                sound = container.add_stream("aac", rate=48000, layout="mono")
            for frame in frames:
                container.mux(picture.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            if picture is not None:
                container.mux(picture.encode(None))
            if seconds:
                n = int(48000 * seconds)
                tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(n) / 48000).astype(np.float32)
                for start in range(0, n, 1024):
                    block = av.AudioFrame.from_ndarray(
                        tone[None, start : start + 1024], format="fltp", layout="mono"
                    )
                    block.sample_rate, block.pts = 48000, start
                    container.mux(sound.encode(block))
                container.mux(sound.encode(None))
        return path

    return write


@pytest.fixture
def write_wav(tmp_path):
    """A function that writes samples to a 32-bit float WAV file, so that nothing is rounded."""

    def write(name, samples, rate=16000):
        path = tmp_path / name
        soundfile.write(path, samples, rate, subtype="FLOAT")
        return path

    return write


@pytest.fixture
def librosa_load():
    """``librosa.load``, whose imports are deprecated in Python."""

    def load(path, **kwargs):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            return librosa.load(path, **kwargs)[0]

    return load


@pytest.fixture
def sweep():
    """A function: a chirp with a little noise, loud then quiet."""

    def make(seconds=2.0, rate=16000, seed=0):
        t = np.arange(int(seconds * rate)) / rate
        chirp = np.sin(2 * np.pi * (100 * t + 0.2 * rate / seconds * t**2))
        noise = np.random.default_rng(seed).standard_normal(len(t))
        return (np.linspace(0.8, 0.01, len(t)) * chirp + 1e-3 * noise).astype(np.float32)

    return make
