"""What this package costs, beside what the same work costs done plainly.

    python benchmarks/speed.py --quick            # a few minutes
    python benchmarks/speed.py --only lmmd head   # some parts
    python benchmarks/speed.py --out speed        # speed.md and speed.json

Every ratio is of two sides that ran in turn in this process, on one thread and by CPU time
unless ``--wall`` is given. The plain sides are written here from the published formulas, and
checked to give the same values.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import warnings
from dataclasses import asdict
from pathlib import Path

# Before the libraries that read them are imported.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"

import numpy as np  # noqa: E402
from _timing import Ratio, machine, markdown, ratio, times_of  # noqa: E402

N_CLASSES = 7


# ---------------------------------------------------------------------- LMMD


def broadcast_lmmd(z_v, z_a, y_v, y_a, n_classes):
    """Eq. 8 as the DSAN code does it: all (n, n, d) differences, one exponential a kernel."""
    import torch
    from torch.nn.functional import one_hot

    z = torch.cat([z_v, z_a])
    n = len(z)
    distance = ((z[None, :, :] - z[:, None, :]) ** 2).sum(2)
    bandwidth = distance.detach().sum() / (n * n - n)
    kernel = sum(torch.exp(-distance / (bandwidth * 2.0**q)) for q in range(-2, 3))
    w_v, w_a = (one_hot(y, n_classes).to(z.dtype) for y in (y_v, y_a))
    w = torch.cat([w_v / w_v.sum(0), -w_a / w_a.sum(0)])
    return ((w @ w.T) * kernel).sum() / n_classes


def _features(n, d=256, dtype=None):
    import torch

    g = torch.Generator().manual_seed(0)
    y = torch.arange(n) % N_CLASSES
    z_v, z_a = (torch.randn(n, d, generator=g, dtype=dtype) + shift for shift in (0.0, 0.3))
    return z_v.requires_grad_(), z_a.requires_grad_(), y, y


def _step(loss, features):
    features[0].grad = features[1].grad = None
    loss(*features, N_CLASSES).backward()
    return features[0].grad


def lmmd_ratios(options) -> list[Ratio]:
    """LMMD, forward and backward."""
    import torch

    from skfdan.nn import lmmd

    exact = _features(40, 16, torch.float64)
    difference = (_step(lmmd, exact) - _step(broadcast_lmmd, exact)).abs().max()
    assert difference < 1e-10, f"the two sides differ by {difference}"
    found = []
    for n, repeats, bound, of_limit in (
        (32, 40, 6, None),
        (128, 10, 100, None),
        (512, 3, 180, 1.7),
        (2048, 3, None, 1.3),
    ):
        features = _features(n)
        sides = {"ours": lambda f=features: _step(lmmd, f)}
        if bound is not None:
            sides["plain"] = lambda f=features: _step(broadcast_lmmd, f)
        times = times_of(sides, repeats, options.wall)
        if bound is not None:
            name = f"LMMD forward+backward, n = {n}: broadcast / ours"
            found.append(ratio(name, times["plain"], times["ours"], bound))
        if of_limit is not None:
            z, g = torch.cat(features[:2]).detach(), torch.randn(2 * n, 2 * n)
            times = times_of(
                {"ours": sides["ours"], "limit": lambda z=z, g=g: (z @ z.T, g @ z)},
                max(repeats, 7),
                options.wall,
            )
            name = f"LMMD forward+backward, n = {n}: ours / two matrix products"
            found.append(ratio(name, times["ours"], times["limit"], of_limit, at_least=False))
    peaks = {side: _peak(side) for side in ("ours", "plain")}
    found.append(
        Ratio(
            "LMMD at n = 512, peak memory: ours / broadcast",
            *[peaks["ours"] / peaks["plain"]] * 3,
            bound=0.01,
            at_least=False,
            detail={f"MiB {side}": peak / 2**20 for side, peak in peaks.items()},
        )
    )
    return found


def _peak(side: str) -> float:
    """Return the bytes that one step takes at its peak, in a process of its own."""
    import subprocess

    code = (
        f"import re, sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import speed, torch; from skfdan.nn import lmmd; torch.set_num_threads(1)\n"
        "def peak():\n"
        "    status = open('/proc/self/status').read()\n"
        "    return int(re.search(r'VmHWM:\\s+(\\d+)', status)[1])\n"
        f"loss = {'lmmd' if side == 'ours' else 'speed.broadcast_lmmd'}\n"
        "speed._step(loss, speed._features(8)); f = speed._features(512)\n"
        "before = peak(); speed._step(loss, f); print(peak() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # The system counts in pages: what fits into memory freed before shows as nothing.
    return max(1024.0 * int(done.stdout), 2**16)


# ---------------------------------------------------------------------- backbone


def backbone_ratios(options) -> list[Ratio]:
    """A ResNet-34 on 224 pixels, beside matrix products of the same arithmetic."""
    import torch

    from skfdan.nn.backbones import embed, make_backbone

    network, _ = make_backbone("resnet34", None)
    network.eval()
    n = 8
    images = torch.randn(n, 3, 224, 224)
    flops = 7.33e9 * n  # multiplications and additions of a ResNet-34
    a = torch.randn(2048, 2048)
    products = flops / (2 * 2048**3)

    def ours(precision):
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision):
            embed(network, images)

    def default():
        with torch.inference_mode():
            network(images)

    times = times_of(
        {
            "ours": lambda: ours(False),
            "bfloat16": lambda: ours(True),
            "default": default,
            "sgemm": lambda: a @ a,
        },
        3 if options.quick else 9,
        options.wall,
    )
    return [
        ratio(
            "ResNet-34 embedding rate / rate of sgemm",
            times["sgemm"] * products,
            times["ours"],
            0.95,
            images_per_second=float(n / np.median(times["ours"])),
        ),
        ratio(
            "ResNet-34, default (NCHW, float32) / ours in bfloat16",
            times["default"],
            times["bfloat16"],
            2.2,
        ),
        ratio("ResNet-34, default (NCHW) / ours, float32", times["default"], times["ours"]),
    ]


# ---------------------------------------------------------------------- training and search


def corpus(n_audio: int, n_visual: int, d: int = 512):
    """Return features of two modalities that know their class, as a modality table."""
    from skfdan import stack_modalities

    rng = np.random.default_rng(0)
    centres = rng.normal(size=(N_CLASSES, d))

    def some(n):
        y = np.arange(n) % N_CLASSES
        return (rng.normal(size=(n, d)) + 0.15 * centres[y]).astype(np.float32), y

    (audio, y_a), (visual, y_v) = some(n_audio), some(n_visual)
    return stack_modalities(
        visual=(list(visual), y_v, np.arange(n_visual) % 10 + 100),
        audio=(list(audio), y_a, np.arange(n_audio) % 10),
    )


def classifier(epochs: int, **parameters):
    """Return the classifier of all measurements."""
    from skfdan import FDANClassifier

    settings = {"lr": 1e-3, "momentum": 0.9, "device": "cpu", "random_state": 0, "verbose": 0}
    return FDANClassifier(max_epochs=epochs, **settings | parameters)


def bare_loop(table, y, epochs: int):
    """Train the same network on the same features with nothing but torch."""
    import torch
    from torch.nn.functional import cross_entropy

    from skfdan.nn import FDANNet, InputSpec, lmmd

    torch.manual_seed(0)
    cells, labels = {}, {}
    for m in ("visual", "audio"):
        filled = table[m].notna().to_numpy()
        cells[m] = torch.from_numpy(np.stack(table[m][filled]))
        labels[m] = torch.from_numpy(y[filled])
    specs = {
        m: InputSpec("vector", False, x.shape[1], x.mean(0).numpy(), x.std(0).numpy())
        for m, x in cells.items()
    }
    net = FDANNet(N_CLASSES, specs)
    settings = {"lr": 1e-3, "momentum": 0.9, "weight_decay": 1e-4, "fused": True}
    optimizer = torch.optim.SGD(net.parameters(), **settings)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    rng = np.random.RandomState(0)
    n = len(cells["audio"])
    for _ in range(epochs):
        steps = -(-n // 32)
        parts = np.array_split(rng.permutation(n), steps)
        others = rng.permutation(len(cells["visual"]))[: 32 * steps].reshape(steps, -1)
        for i, j in zip(parts, others, strict=True):
            pick = {"visual": torch.from_numpy(j), "audio": torch.from_numpy(i)}
            out = net(**{m: cells[m][k] for m, k in pick.items()})
            loss = sum(cross_entropy(out.logits[m], labels[m][k]) for m, k in pick.items())
            z = {m: out.layers[m][1] for m in pick}
            y_v, y_a = (labels[m][k] for m, k in pick.items())
            loss = loss + 1e-3 * lmmd(z["visual"], z["audio"], y_v, y_a, N_CLASSES)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()
        schedule.step()


def head_ratios(options) -> list[Ratio]:
    """A fit on features, beside a loop in plain torch; and its cost against size."""
    import torch

    torch.set_num_threads(1)
    epochs = 20 if options.quick else 50
    table, y, _ = corpus(480, 1440)
    times = times_of(
        {
            "ours": lambda: classifier(epochs).fit(table, y),
            "bare": lambda: bare_loop(table, y, epochs),
        },
        3 if options.quick else 9,
        options.wall,
    )
    found = [
        ratio("fit on features / bare PyTorch loop", times["ours"], times["bare"], 1.05, False)
    ]
    sizes = {k: corpus(120 * k, 120 * k) for k in (1, 2, 4, 8)}
    times = times_of(
        {str(k): lambda t=t, y=y: classifier(5).fit(t, y) for k, (t, y, _) in sizes.items()},
        3,
        options.wall,
    )
    for k in (2, 4, 8):
        name = f"fit: {120 * k} clips / {k} x 120 clips"
        found.append(ratio(name, times[str(k)], k * times["1"], 1.1, at_least=False))
    return found


GRID = {"alpha": [1e-3, 1e-4, 1e-5], "weight_decay": [1e-3, 1e-4]}


def _search(kind, epochs, table, y, groups, **parameters):
    from sklearn.model_selection import GroupKFold

    from skfdan import AudioHoldout

    cv = AudioHoldout(GroupKFold(5), visual="all")
    search = kind(
        classifier(epochs, **parameters), GRID, cv=cv, refit=False, scoring="balanced_accuracy"
    )
    return search.fit(table, y, groups=groups)


def search_ratios(options) -> list[Ratio]:
    """Six candidates in five folds, on features."""
    import torch
    from sklearn.model_selection import GridSearchCV

    from skfdan.model_selection import FDANSearchCV

    torch.set_num_threads(1)
    epochs = 2 if options.quick else 15
    data = corpus(480, 1440)
    ours, plain = (_search(kind, epochs, *data) for kind in (FDANSearchCV, GridSearchCV))
    difference = np.abs(
        ours.cv_results_["mean_test_score"] - plain.cv_results_["mean_test_score"]
    ).max()
    assert difference < 0.01, f"the scores of the two searches differ by {difference}"
    times = times_of(
        {
            "ours": lambda: _search(FDANSearchCV, epochs, *data),
            "plain": lambda: _search(GridSearchCV, epochs, *data),
        },
        2 if options.quick else 5,
        options.wall,
        warm=False,
    )
    return [
        ratio(
            f"GridSearchCV / FDANSearchCV, same features and folds, {epochs} epochs",
            times["plain"],
            times["ours"],
            2.0,
            largest_difference_of_scores=float(difference),
        )
    ]


def frozen_ratios(options) -> list[Ratio]:
    """A search with a frozen ResNet-34, beside one that runs it in every step.

    Neither side is run in full (the second would take a day): steps, embeddings and fits are
    timed, and multiplied by how many of them 6 candidates x 5 folds x 50 epochs on 480 voices
    and 1,440 faces have.
    """
    import torch

    from skfdan.classifiers import _embedding
    from skfdan.nn.backbones import embed, make_backbone

    torch.set_num_threads(1)
    network, _ = make_backbone("resnet34", None)
    network.eval()
    batch = torch.randn(8, 3, 224, 224)

    def rerun():  # of one step, which has 32 + 32 images
        with torch.inference_mode():
            network(batch)

    def ours():
        with torch.inference_mode():
            embed(network, batch)

    forward = times_of({"rerun": rerun, "ours": ours}, 3 if options.quick else 9, options.wall)
    rng = np.random.default_rng(0)
    y = np.arange(32) % N_CLASSES
    faces = rng.integers(0, 256, (32, 3, 224, 224), dtype=np.uint8)
    sound = rng.normal(size=(32, 128, 120)).astype(np.float32)

    def fit(epochs, trainable=False):
        clf = classifier(epochs, backbone="resnet34", weights=None, backbone_trainable=trainable)
        return clf.fit(faces, sound, y)

    _embedding.STORE.clear()
    fit(1)  # from now on the embeddings are there, as for all fits of a search but the first
    fits = times_of({"1": lambda: fit(1), "41": lambda: fit(41)}, 3, options.wall)
    step = (np.median(fits["41"]) - np.median(fits["1"])) / 40
    fixed = float(np.median(fits["1"])) - step
    n_fits, n_steps = 30, 30 * 50 * 12  # of five folds, four train: 384 voices, 12 steps an epoch
    embedding = forward["ours"] / 8 * 1920
    plain = n_steps * (forward["rerun"] / 8 * 64 + step)
    whole = embedding + n_fits * fixed + n_steps * step
    return [
        ratio(
            "GridSearchCV, 6 x 5, frozen ResNet-34: re-run in every step / ours (extrapolated)",
            plain,
            whole,
            300,
            hours_plain=float(np.median(plain) / 3600),
            minutes_ours=float(np.median(whole) / 60),
            seconds_a_fit_beside_its_steps=fixed,
            milliseconds_a_step=1e3 * float(step),
        )
    ]


# ---------------------------------------------------------------------- front ends


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
        many = {k: files[:3] * k for k in (1, 8)}
        times = times_of(
            {str(k): lambda f=f: mel.transform(f) for k, f in many.items()}, 9, options.wall
        )
        name = "Mel spectrogram: 24 files / 8 x 3 files"
        ratios.append(ratio(name, times["8"], 8 * times["1"], 1.1, at_least=False))
        ours = (
            "from skfdan.preprocessing import MelSpectrogram; "
            f"MelSpectrogram(**{MEL}, verbose=0, timeout=None).transform([{files[0]!r}])"
        )
        theirs = f"{LIBROSA}\nmel({files[0]!r})"
        cold = Path(folder) / "numba"
        times = _processes({"ours": ours, "librosa": theirs}, 2, numba_cache=cold)
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
    _processes(codes, 1)  # so that all is compiled and in the disk cache
    times = _processes(codes, 3 if options.quick else 7)
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
        return [crop_square(f, b, 224) if b else None for f, b in zip(frames, boxes, strict=True)]

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


# ---------------------------------------------------------------------- command line

PARTS = {
    "lmmd": lmmd_ratios,
    "backbone": backbone_ratios,
    "frozen": frozen_ratios,
    "head": head_ratios,
    "search": search_ratios,
    "mel": mel_ratios,
    "video": video_ratios,
    "faces": face_ratios,
    "imports": import_ratios,
}


def main(argv=None) -> int:
    """Measure, print a table, and write it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer repetitions, in minutes")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART")
    parser.add_argument("--wall", action="store_true", help="wall time in the place of CPU time")
    parser.add_argument("--clips", type=Path, help="folder of mp4 files with faces")
    parser.add_argument("--out", type=Path, help="write OUT.md and OUT.json")
    options = parser.parse_args(argv)
    import torch

    torch.set_num_threads(1)
    facts = machine() | {
        "command": " ".join(["python benchmarks/speed.py", *(argv or sys.argv[1:])])
    }
    ratios: list[Ratio] = []
    for part in options.only:
        print(f"{part} ...", file=sys.stderr, flush=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ratios += PARTS[part](options)
    text = markdown(ratios, facts, "wall time" if options.wall else "CPU time")
    print(text)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.with_suffix(".md").write_text(text)
        report = {"machine": facts, "ratios": [asdict(r) | {"met": r.met} for r in ratios]}
        options.out.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")
    missed = [r.name for r in ratios if r.met is False]
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
