"""Speed of what reads sound and faces, and of imports."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from _timing import Ratio, ratio, times_of


def _write_sounds(folder: Path, n: int) -> list[str]:
    import soundfile

    rng = np.random.default_rng(0)
    files = [str(folder / f"{i}.wav") for i in range(n)]
    for file in files:
        soundfile.write(file, 0.1 * rng.normal(size=int(3.8 * 44100)), 44100)
    return files


MEL = {"sample_rate": 16000, "n_fft": 1024, "hop_length": 256, "n_mels": 128}

LIBROSA = """
import numpy as np, librosa
def mel(file):
    samples, _ = librosa.load(file, sr=16000)
    power = librosa.feature.melspectrogram(
        y=samples, sr=16000, n_fft=1024, hop_length=256, n_mels=128)
    return librosa.power_to_db(power)
"""


def mel_ratios(options) -> list[Ratio]:
    """Mel spectrograms, beside librosa's."""
    from sklearn.base import clone

    from skfdan.preprocessing import MelSpectrogram

    with tempfile.TemporaryDirectory() as folder:
        files = _write_sounds(Path(folder), 24 if options.quick else 96)
        mel = MelSpectrogram(**MEL, duration=None, n_jobs=1, timeout=None, verbose=0)
        scope: dict = {}
        exec(LIBROSA, scope)
        found, expected = mel.transform(files[:1])[0, 0], scope["mel"](files[0])
        found, expected = (x - x.max() for x in (found, expected))
        difference = np.abs(found[:, : expected.shape[1]] - expected).max()
        assert difference < 0.1, f"the two sides differ by {difference} dB"

        times = times_of(
            {
                "ours": lambda: mel.transform(files),
                "librosa": lambda: [scope["mel"](file) for file in files],
            },
            3 if options.quick else 9,
            options.wall,
        )
        ratios = [
            ratio(
                "Mel spectrogram: librosa, file by file / ours",
                times["librosa"],
                times["ours"],
                2.5,
                largest_difference_in_dB=float(difference),
            )
        ]
        two = clone(mel).set_params(n_jobs=2)
        times = times_of(
            {
                "ours": lambda: two.transform(files),
                "librosa": lambda: [scope["mel"](file) for file in files],
            },
            3 if options.quick else 9,
            wall=True,
        )
        name = "Mel spectrogram, wall time: librosa, file by file / ours in two threads"
        ratios.append(ratio(name, times["librosa"], times["ours"]))
        many = {str(k): files[:12] * k for k in (1, 2, 4, 8)}
        times = times_of(
            {k: lambda f=f: mel.transform(f) for k, f in many.items()},
            5 if options.quick else 9,
            options.wall,
        )
        growth = {k: ratio("", times[k], int(k) * times["1"]).median for k in ("2", "4", "8")}
        worst = max(growth, key=growth.get)
        name = f"Mel spectrogram: {worst} x 12 files / {worst} times 12 files, the worst of 2, 4, 8"
        detail = {f"{k} x 12 files": median for k, median in growth.items()}
        above, below = times[worst], int(worst) * times["1"]
        ratios.append(ratio(name, above, below, 1.1, at_least=False, **detail))
        ours = (
            "from skfdan.preprocessing import MelSpectrogram; "
            f"MelSpectrogram(**{MEL}, verbose=0, timeout=None).transform([{files[0]!r}])"
        )
        theirs = f"{LIBROSA}\nmel({files[0]!r})"
        cold = Path(folder) / "numba"
        times = _processes(
            {"ours": ours, "librosa": theirs}, 1 if options.quick else 3, numba_cache=cold
        )
        name = "first Mel spectrogram in a process: librosa, nothing compiled yet / ours"
        ratios.append(ratio(name, times["librosa"], times["ours"], 5))
    return ratios


def _processes(codes: dict[str, str], repeats: int, numba_cache: Path | None = None):
    """Time new processes in turn, by their CPU time."""
    import resource
    import shutil
    import subprocess

    times: dict[str, list[float]] = {name: [] for name in codes}
    for _ in range(repeats):
        for name, code in codes.items():
            environment = dict(os.environ)
            if numba_cache is not None:
                shutil.rmtree(numba_cache, ignore_errors=True)
                environment["NUMBA_CACHE_DIR"] = str(numba_cache)
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([sys.executable, "-c", code], check=True, env=environment)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            times[name].append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return {name: np.array(t) for name, t in times.items()}


def import_ratios(options) -> list[Ratio]:
    """Imports, each in processes of their own."""
    theirs = "import torch, skorch, sklearn.model_selection"
    codes = {
        "package": "import skfdan",
        "classifier": "from skfdan import FDANClassifier",
        "theirs": theirs,
    }
    for code in codes.values():
        exec(code, {})  # so that all is compiled and in the disk cache
    times = _processes(codes, 2 if options.quick else 7)
    return [
        ratio(f"`{codes[side]}` / `{theirs}`", times[side], times["theirs"], 1.1, at_least=False)
        for side in ("package", "classifier")
    ]


def write_video(path: Path, group: int, n: int = 75) -> None:
    """Write three seconds of a moving square, with a key frame every ``group`` frames."""
    import av

    y, x = np.mgrid[:480, :640]
    waves = [np.sin(x / (40 + 9 * c)) * np.cos(y / (30 + 7 * c)) for c in range(3)]
    background = np.stack([90 + 60 * wave for wave in waves], axis=2).astype(np.uint8)
    with av.open(str(path), "w") as container:
        options = {"g": str(group), "sc_threshold": "0"}
        stream = container.add_stream("libx264", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 640, 480, "yuv420p"
        for i in range(n):
            picture = background.copy()
            picture[200:280, 4 * i : 4 * i + 80] = 220
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def video_ratios(options) -> list[Ratio]:
    """Three frames of a video, beside decoding all of it."""
    import av

    from skfdan.preprocessing.media import read_frames, sample_indices

    def decode_all(path):
        with av.open(str(path)) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        return [frames[i] for i in sample_indices(len(frames), 3)]

    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        for group, bound, what in ((12, 4, "a key frame every 12"), (250, 1.6, "one key frame")):
            path = Path(folder) / f"{group}.mp4"
            write_video(path, group)
            for ours, plain in zip(read_frames(path, 3), decode_all(path), strict=True):
                assert np.array_equal(ours, plain), "the two sides give other frames"
            times = times_of(
                {"ours": lambda p=path: read_frames(p, 3), "all": lambda p=path: decode_all(p)},
                5 if options.quick else 15,
                options.wall,
            )
            name = f"3 of 75 frames, {what}: decode all / ours"
            ratios.append(ratio(name, times["all"], times["ours"], bound))
    return ratios


def face_ratios(options) -> list[Ratio]:
    """Three face crops of a clip, beside detection at full resolution."""
    from skimage.color import rgb2gray
    from skimage.data import lbp_frontal_face_cascade_filename
    from skimage.feature import Cascade

    from skfdan.preprocessing import FaceFrames
    from skfdan.preprocessing.faces import crop_square
    from skfdan.preprocessing.media import read_frames

    if options.clips is None:
        return []
    clips = sorted(options.clips.glob("*.mp4"))[: 3 if options.quick else None]
    cascade = Cascade(lbp_frontal_face_cascade_filename())
    faces = FaceFrames(n_frames=3, n_jobs=1, timeout=None, verbose=0)

    def full(image):
        side = max(image.shape) // 16  # the smallest face that ours finds
        found = cascade.detect_multi_scale(
            (255 * rgb2gray(image)).astype(np.uint8),
            scale_factor=1.2,
            step_ratio=1,
            min_size=(side, side),
            max_size=(min(image.shape[:2]) + 1,) * 2,
        )
        boxes = [(f["c"], f["r"], f["width"], f["height"]) for f in found]
        return max(boxes, key=lambda box: box[2] * box[3], default=None)

    def plain(clip):
        frames = read_frames(clip, 3)
        boxes = [full(frame) for frame in frames]
        return [
            crop_square(frame, box, faces.size, faces.margin) if box else None
            for frame, box in zip(frames, boxes, strict=True)
        ]

    frames = [frame for clip in clips for frame in read_frames(clip, 3)]
    overlaps = [_overlap(full(frame), faces._find(frame)) for frame in frames]
    times = times_of(
        {
            "ours": lambda: faces.transform([str(clip) for clip in clips]),
            "full": lambda: [plain(clip) for clip in clips],
        },
        2 if options.quick else 5,
        options.wall,
        warm=False,
    )
    finding = times_of(
        {
            "ours": lambda: [faces._find(frame) for frame in frames],
            "full": lambda: [full(frame) for frame in frames],
        },
        2 if options.quick else 5,
        options.wall,
        warm=False,
    )
    return [
        ratio("face detection alone: at full resolution / ours", finding["full"], finding["ours"]),
        ratio(
            f"3 face crops of {len(clips)} clips: detection at full resolution / ours",
            times["full"],
            times["ours"],
            2,
            frames=len(overlaps),
            same_face=f"{sum(o >= 0.7 for o in overlaps)} of {len(overlaps)} (IoU at least 0.7)",
        ),
    ]


def _overlap(a, b) -> float:
    if a is None or b is None:
        return 0.0
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    shared = max(0, width) * max(0, height)
    return shared / (a[2] * a[3] + b[2] * b[3] - shared)
