import itertools
import json
import os
import time
import tracemalloc
from fractions import Fraction

import av
import numpy as np
import pandas as pd
import pytest
import soundfile
from PIL import Image
from sklearn.utils import Bunch

from skfdan import make_table, unpair
from skfdan.datasets import _examine, check_corpus, load_folder, load_ravdess, make_emotion_clips
from skfdan.datasets._check_problems import Problems, check_labels
from skfdan.datasets._examine import clipped_share, examine
from skfdan.preprocessing import DecodeLimits, media
from skfdan.preprocessing._workers import WorkerError
from skfdan.table import SKIP

RATE = 16000


def noise(seed, seconds=1.0, peak=0.1):
    sound = np.random.default_rng(seed).uniform(-1, 1, round(seconds * RATE))
    return peak * sound / np.abs(sound - sound.mean()).max()


def write(path, sound, rate=RATE, subtype=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, sound, rate, subtype=subtype)
    return str(path)


def write_frames(path, n=10, seed=0, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 64
        for _ in range(n):
            frame = av.VideoFrame.from_ndarray(random.integers(0, 256, (64, 64, 3), np.uint8))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return str(path)


def write_sound_in_matroska(path, pcm):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return str(path)


def cut(source, target, share=0.5):
    with open(source, "rb") as file:
        data = file.read()
    target.write_bytes(data[: int(share * len(data))])
    return str(target)


def found(check, *columns):
    rows = check.problems[list(columns or ("row", "kind", "severity"))].astype(object)
    rows = rows.where(rows.notna(), None)
    return sorted(map(tuple, rows.itertuples(index=False)), key=str)


def check(table, y=None, groups=None, timeout=None, **options):
    return check_corpus(table, y, groups, timeout=timeout, verbose=0, **options)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return make_emotion_clips(
        8,
        2,
        emotions=["anger", "sadness"],
        duration=0.5,
        frame_size=64,
        random_state=0,
        root=tmp_path_factory.mktemp("clips"),
    )


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_a_good_corpus_gives_no_problem(clips, n_jobs):
    good = check(clips, n_jobs=n_jobs)
    assert good.ok
    assert good.problems.empty
    assert list(good.problems) == ["file", "row", "stage", "kind", "detail", "severity"]
    expected = pd.DataFrame(
        {"anger": [2, 2, 4], "sadness": [2, 2, 4], "total": [4, 4, 8]},
        index=["speaker00", "speaker01", "total"],
    )
    pd.testing.assert_frame_equal(
        good.balance, expected, check_index_type=False, check_column_type=False
    )
    hours = good.summary.pop("hours_of_sound"), good.summary.pop("hours_of_video")
    assert np.allclose(hours, 8 * 0.5 / 3600)
    assert good.summary == {
        "rows": 8,
        "files": 16,
        "unlabelled_files": 0,
        "sample_rates": {RATE: 8},
        "frame_sizes": {"64x64": 8},
        "speakers": 2,
        "emotions": 2,
        "errors": 0,
        "warnings": 0,
    }


def test_what_is_wrong_with_sound(tmp_path, clips):
    bad_number = noise(14)
    bad_number[5] = np.nan
    flat = np.where(np.arange(RATE) % 500 < 3, 1.0, noise(10))
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("<html>not found</html>")
    write_frames(tmp_path / "mute.mp4")
    Image.new("RGB", (8, 8)).save(tmp_path / "face.png")
    cases = [
        (write(tmp_path / "good.wav", noise(0)), None),
        (write(tmp_path / "good.flac", noise(1)), None),
        (str(tmp_path / "nowhere.wav"), "missing"),
        (str(tmp_path / "empty.wav"), "broken"),
        (str(tmp_path / "text.wav"), "broken"),
        (str(tmp_path), "broken"),
        (cut(write(tmp_path / "2.wav", noise(2)), tmp_path / "cut.wav"), "truncated"),
        (cut(write(tmp_path / "3.flac", noise(3)), tmp_path / "cut.flac"), "broken"),
        (cut(write(tmp_path / "4.mp3", noise(4, 3)), tmp_path / "cut.mp3"), "truncated"),
        (write(tmp_path / "nan.wav", bad_number, subtype="FLOAT"), "broken"),
        (str(tmp_path / "mute.mp4"), "no sound"),
        (str(tmp_path / "face.png"), "no sound"),
        (write(tmp_path / "zero.wav", np.zeros(RATE)), "silent"),
        (write(tmp_path / "hum.wav", 0.3 + noise(6, peak=10 ** (-62 / 20))), "silent"),
        (write(tmp_path / "low.wav", 0.3 + noise(7, peak=10 ** (-55 / 20))), "quiet"),
        (write(tmp_path / "soft.wav", noise(8, peak=10 ** (-48 / 20))), None),
        (write(tmp_path / "flat.wav", flat), "clipped"),
        (write(tmp_path / "peaks.wav", np.where(np.arange(RATE) % 50 < 2, 1.0, noise(9))), None),
        (write(tmp_path / "short.wav", noise(11, 0.29)), "too short"),
        (write(tmp_path / "word.wav", noise(12, 0.31)), None),
        (write(tmp_path / "long.wav", noise(13, 4.1)), "too long"),
        (clips.table["visual"][0], None),  # the sound of a video
        (np.full((4, 5), np.inf), "broken"),
        (np.zeros((4, 5), np.float32), None),
    ]
    table = make_table(audio=[cell for cell, _ in cases])
    y, groups = ["anger", "sadness"] * 12, ["ann", "ann", "bob", "bob"] * 6
    result = check(table, y, groups, max_seconds=4, n_jobs=2)
    warnings = ("quiet", "clipped", "too short", "too long")
    assert found(result) == sorted(
        [
            (row, kind, "warning" if kind in warnings else "error")
            for row, (_, kind) in enumerate(cases)
            if kind
        ],
        key=str,
    )
    files = result.problems.set_index("row")["file"]
    assert all(files[row] == cases[row][0] for row in files.index if row != 22)
    details = result.problems.set_index("row")["detail"]
    assert "0 bytes" in details[3]
    assert details[12] == "digital silence"
    assert float(details[13].split()[1]) == pytest.approx(-62, abs=0.2)
    assert details[16] == "0.60% of the samples are cut off"
    assert not result.ok
    # Errors come first.
    assert result.problems["severity"].is_monotonic_increasing


def test_what_is_wrong_with_pictures(tmp_path, clips):
    for name in ("2.png", "10.png"):
        (tmp_path / "frames").mkdir(exist_ok=True)
        Image.new("RGB", (9, 7), int(name[:-4])).save(tmp_path / "frames" / name)
    (tmp_path / "bare").mkdir()
    random = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    Image.fromarray(random).save(tmp_path / "face.png")
    whole = write_frames(tmp_path / "whole.mp4", n=40, movflags="faststart")
    last = write_frames(tmp_path / "last.mp4", n=40, seed=1)
    cases = [
        (clips.table["visual"][0], None),
        (str(tmp_path / "frames"), None),
        (str(tmp_path / "face.png"), None),
        (whole, None),
        (str(tmp_path / "nowhere"), "missing"),
        (str(tmp_path / "bare"), "no pictures"),
        (write(tmp_path / "a.wav", noise(0)), "no pictures"),
        (cut(tmp_path / "face.png", tmp_path / "cut.png"), "broken"),
        (cut(whole, tmp_path / "cut.mp4"), "truncated"),
        (cut(last, tmp_path / "headless.mp4"), "broken"),
        (write_frames(tmp_path / "short.mp4", n=2, seed=2), "too short"),
        (np.zeros((3, 6, 5), np.uint8), None),
        (np.zeros((3, 0, 5), np.uint8), "broken"),
        ("face as a word", "missing"),
        (object(), "broken"),
    ]
    result = check(make_table(visual=[cell for cell, _ in cases]))
    assert found(result, "row", "kind") == sorted(
        [(row, kind) for row, (_, kind) in enumerate(cases) if kind], key=str
    )
    assert result.summary["frame_sizes"] == {"64x64": 4, "9x7": 1, "40x40": 1, "5x6": 1}
    # Without labels: one column.
    assert result.balance.to_dict() == {
        "(unlabelled)": {"(all)": 15, "total": 15},
        "total": {"(all)": 15, "total": 15},
    }


def test_clipped_share_against_loops():
    random = np.random.default_rng(0)
    for channels in (1, 2):
        sound = random.choice([-1.0, -0.9995, 0.0, 0.5, 0.9991, 1.0], (500, channels))
        worst = 0
        for channel in sound.T:
            total = 0
            signs = [int(np.sign(v)) if abs(v) >= 0.999 else 0 for v in channel]
            for sign, run in itertools.groupby(signs):
                n = len(list(run))
                total += n if sign and n >= 3 else 0
            worst = max(worst, total / 500)
        assert worst > 0
        assert clipped_share(sound) == pytest.approx(worst)


def test_thresholds_are_parameters(tmp_path):
    flat = np.where(np.arange(RATE) % 500 < 3, 1.0, noise(0))
    files = [
        write(tmp_path / "a.wav", flat),
        write(tmp_path / "b.wav", noise(1, peak=10 ** (-55 / 20))),
        write(tmp_path / "c.wav", noise(2, 0.2)),
    ]
    table = make_table(audio=files)
    assert found(check(table), "row", "kind") == [(0, "clipped"), (1, "quiet"), (2, "too short")]
    assert found(check(table, quiet_db=-60, clipped_share=0.01, min_seconds=0.1)) == []
    strict = check(table, silence_db=-50, max_seconds=0.9)
    assert found(strict, "row", "kind") == [
        (0, "clipped"),
        (0, "too long"),
        (1, "silent"),
        (1, "too long"),
        (2, "too short"),
    ]


@pytest.fixture
def copies(tmp_path):
    """The same sound in several forms, and another one."""
    pcm = np.round(noise(0) * 32767).astype(np.int16)
    write(tmp_path / "a.wav", pcm)
    (tmp_path / "bytes.wav").write_bytes((tmp_path / "a.wav").read_bytes())
    write(tmp_path / "a.flac", pcm)
    write(tmp_path / "stereo.wav", np.stack([pcm, pcm], axis=1))
    write_sound_in_matroska(tmp_path / "a.mkv", pcm)
    write(tmp_path / "other.wav", noise(1))
    write(tmp_path / "rate.wav", pcm, rate=8000)
    return tmp_path


@pytest.mark.parametrize("copy", ["bytes.wav", "a.flac", "stereo.wav", "a.mkv", "a.wav"])
@pytest.mark.parametrize(
    ("y", "groups", "split", "severity", "said"),
    [
        (["x", "x", "x"], ["s", "s", "s"], ["t", "t", "t"], "warning", None),
        (["x", "y", "y"], ["s", "s", "s"], None, "error", "label (x, y)"),
        (["x", "x", "x"], ["s", "r", "r"], None, "error", "speaker (r, s)"),
        (["x", "x", "x"], ["s", "s", "s"], ["train", "test", "test"], "error", "split (test, tr"),
        # What is not known differs from nothing.
        (["x", None, "x"], ["s", None, "s"], ["t", "", "t"], "warning", None),
    ],
)
def test_copies(copies, copy, y, groups, split, severity, said):
    table = make_table(audio=[str(copies / n) for n in ("a.wav", copy, "other.wav")])
    result = check(table, y, groups, split=split)
    problem = result.problems[result.problems["kind"] == "duplicate"].iloc[0]
    assert found(result, "kind").count(("duplicate",)) == 1
    assert (problem["row"], problem["file"]) == (1, str(copies / copy))
    assert problem["severity"] == severity
    assert f"as row 0 {copies / 'a.wav'}" in problem["detail"]
    assert ("differs" in problem["detail"]) == (said is not None)
    assert said is None or said in problem["detail"]
    how = {"a.wav": "the same file", "bytes.wav": "the same bytes"}.get(copy, "the same sound")
    assert problem["detail"].startswith(how)


def test_what_is_no_copy(copies, clips):
    # Other rate, other sound; silence is reported as such alone.
    zeros = [write(copies / f"zero{i}.wav", np.zeros(RATE)) for i in range(2)]
    table = make_table(audio=[str(copies / n) for n in ("a.wav", "rate.wav", "other.wav")] + zeros)
    assert found(check(table), "row", "kind") == [
        (3, "silent"),
        (4, "silent"),
        (None, "mixed rates"),
    ]
    # One take as video and as sound, in one row or in a row each.
    video = clips.table["visual"].tolist()
    both = make_table(visual=video, audio=video)
    assert check(both, clips.target, clips.groups).problems.empty
    rows, y, groups = unpair(both, clips.target, clips.groups)
    result = check(rows, y, groups)
    assert result.problems.empty
    assert (result.summary["rows"], result.summary["files"]) == (16, 8)


def test_arrays_as_the_transformers_take_them():
    sounds = [(noise(i).astype(np.float32), RATE) for i in range(3)]
    sounds.append((sounds[0][0], RATE // 2))  # not the same sound
    sounds += [(noise(4, 0.1), RATE), (noise(5), "16 kHz"), sounds[1]]
    result = check(make_table(audio=sounds), groups=list("abcdefg"))
    assert found(result) == [
        (4, "too short", "warning"),
        (5, "broken", "error"),
        (6, "duplicate", "error"),
        (None, "mixed rates", "warning"),
    ]
    assert "rate '16 kHz'" in result.problems["detail"].str.cat()
    random = np.random.default_rng(0)
    for shape in ((20, 30, 3), (3, 20, 30), (5, 20, 30, 3), (5, 3, 20, 30), (20, 30, 1)):
        fact = examine(random.integers(0, 256, shape, np.uint8), ["visual"])["visual"]
        assert fact.size == (30, 20)


def test_samples_with_a_rate_are_heard_as_files_are():
    loud = noise(0)
    whole = (32767 * loud / np.abs(loud).max()).astype(np.int16)
    cells = [np.zeros(RATE), 1e-5 * loud, np.clip(50 * loud, -1, 1), whole, whole.astype(np.int64)]
    result = check(make_table(audio=[(cell, RATE) for cell in cells]))
    assert found(result) == [
        (0, "silent", "error"),
        (1, "silent", "error"),
        (2, "clipped", "warning"),
        (4, "broken", "error"),
    ]
    assert result.summary["sample_rates"] == {RATE: 4}
    assert "int64 samples" in result.problems["detail"].str.cat()


def test_speakers_of_one_clip_each_are_known_where_the_loader_says_so(tmp_path):
    for i in range(4):
        soundfile.write(tmp_path / f"{i}.wav", noise(i), RATE)
    rows = [f"{i}.wav,{e}" for i, e in enumerate(["anger", "joy"] * 2)]
    for name, head, of in (("with", "speaker,", "p{},"), ("without", "", "")):
        lines = [of.format(i) + row for i, row in enumerate(rows)]
        (tmp_path / f"{name}.csv").write_text("\n".join([f"{head}audio,emotion", *lines]))
    known = check_corpus(load_folder(tmp_path / "with.csv"), timeout=None, verbose=0)
    assert known.summary["speakers"] == 4
    assert "not known" not in str(known)
    unknown = load_folder(tmp_path / "without.csv")
    # Two rows of one group are no speaker.
    unknown.groups[1] = unknown.groups[0]
    assert check_corpus(unknown, timeout=None, verbose=0).summary["speakers"] is None


def test_rows_to_skip_are_no_problem():
    sounds = [noise(0), SKIP, None, noise(1)]
    pictures = [None, np.ones((8, 8, 3), np.uint8), None, None]
    assert found(check(make_table(visual=pictures, audio=sounds))) == [(2, "missing", "error")]
    assert found(check(make_table(audio=[SKIP, SKIP]))) == []


def test_copies_of_pictures(tmp_path, clips):
    face = np.random.default_rng(0).integers(0, 256, (3, 8, 8), np.uint8)
    Image.fromarray(np.moveaxis(face, 0, 2)).save(tmp_path / "a.png")
    Image.fromarray(np.moveaxis(face, 0, 2)).save(tmp_path / "a.bmp")
    mkv = tmp_path / "copy.mkv"
    with av.open(clips.table["visual"][0]) as source, av.open(str(mkv), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    cells = [
        clips.table["visual"][0],
        str(mkv),
        clips.table["visual"][1],
        str(tmp_path / "a.png"),
        str(tmp_path / "a.bmp"),
        face,
        face.copy(),
        face + 1,
    ]
    result = check(make_table(visual=cells), groups=list("aabbbbcc"))
    assert found(result) == [
        (1, "duplicate", "warning"),
        (4, "duplicate", "warning"),
        (6, "duplicate", "error"),
    ]
    assert result.problems["detail"].str.startswith("the same pictures").all()


def test_labels_and_balance(tmp_path):
    files = [write(tmp_path / f"{i}.wav", noise(i)) for i in range(8)]
    y = np.array(["joy", "joy", "fear", "fear", None, "", np.nan, "awe"], dtype=object)
    groups = ["ann", "bob", "ann", "ann", "ann", "bob", None, "bob"]
    result = check(make_table(audio=files), y, groups)
    assert found(result) == [
        (4, "unlabelled", "warning"),
        (5, "unlabelled", "warning"),
        (6, "unlabelled", "warning"),
        (7, "rare emotion", "warning"),
    ]
    assert result.balance.index.tolist() == ["ann", "bob", "(unknown)", "total"]
    assert result.balance.to_dict("list") == {
        "awe": [0, 1, 0, 1],
        "fear": [2, 0, 0, 2],
        "joy": [1, 1, 0, 2],
        "(unlabelled)": [1, 1, 1, 3],
        "total": [4, 3, 1, 8],
    }
    text = str(result)
    assert "3 of 3 speakers lack an emotion" in text
    line = next(line for line in text.splitlines() if line.startswith("bob"))
    assert line.split() == ["bob", "1", ".", "1", "1", "3"]


def test_names_that_may_be_one(tmp_path):
    files = [write(tmp_path / f"{i}.wav", noise(i)) for i in range(6)]
    y = ["Very happy", "Very happy", "very_happy", "sad", "sad", "Very happy "]
    groups = ["1-11", "11-1", "1-11", "Ann", "ann", "ann"]
    result = check(make_table(audio=files), y, groups)
    alike = result.problems[result.problems["kind"] == "alike names"]
    assert alike["row"].tolist() == [3, 5]
    assert alike["severity"].eq("warning").all()
    speakers, emotions = alike["detail"]
    assert emotions.startswith("emotions that differ in case")
    assert "'very_happy' (1 rows)" in emotions
    assert "sad" not in emotions
    assert speakers.endswith("alone: 'Ann' (1 rows), 'ann' (2 rows)")


def test_numbers_are_sorted_as_numbers(tmp_path):
    file = write(tmp_path / "a.wav", noise(0))
    result = check(make_table(audio=[file] * 4), [10, 9, 10, 9], [2, 10, 2, 10])
    assert result.balance.index.tolist() == [2, 10, "total"]
    assert result.balance.columns.tolist() == [9, 10, "total"]


def test_rows_without_cells(tmp_path):
    file = write(tmp_path / "a.wav", noise(0))
    result = check(make_table(audio=[file, None]), ["x", "x"])
    assert found(result) == [(1, "missing", "error")]


def test_mixed_rates(tmp_path):
    files = [write(tmp_path / f"{i}.wav", noise(i), rate=8000 if i == 1 else RATE) for i in (0, 1)]
    files.append(write(tmp_path / "2.wav", noise(2)))
    result = check(make_table(audio=files))
    assert found(result) == [(None, "mixed rates", "warning")]
    assert result.problems["detail"][0] == (
        f"8000 Hz in 1 file(s), 16000 Hz in 2 file(s); e.g. {files[1]}"
    )
    assert result.summary["sample_rates"] == {8000: 1, RATE: 2}


def test_what_a_loader_left_out_is_opened_too(tmp_path):
    write(tmp_path / "happy" / "a.wav", noise(0))
    write(tmp_path / "happy" / "b.wav", noise(1))
    write(tmp_path / "stray.wav", noise(0))
    (tmp_path / "broken.wav").touch()
    (tmp_path / "happy" / "notes.txt").touch()
    (tmp_path / ".hidden.wav").touch()
    result = check(load_folder(tmp_path, emotions=["happiness"]))
    assert found(result, "file", "row", "kind", "severity") == sorted(
        [
            (str(tmp_path / "stray.wav"), None, "unlabelled", "warning"),
            (str(tmp_path / "stray.wav"), None, "duplicate", "warning"),
            (str(tmp_path / "broken.wav"), None, "unlabelled", "warning"),
            (str(tmp_path / "broken.wav"), None, "broken", "error"),
            (str(tmp_path / "happy" / "notes.txt"), None, "left out", "warning"),
        ],
        key=str,
    )
    assert result.summary["unlabelled_files"] == 2
    assert result.summary["rows"] == 2


def test_a_manifest_that_names_a_missing_file(tmp_path):
    write(tmp_path / "a.wav", noise(0))
    manifest = tmp_path / "clips.csv"
    manifest.write_text("audio,emotion,speaker,split\na.wav,joy,ann,train\nb.wav,joy,ann,test\n")
    data = load_folder(manifest)
    result = check(data)
    assert (str(tmp_path / "b.wav"), "missing", "error") in found(
        result, "file", "kind", "severity"
    )
    # The Bunch's own split is read: a copy on the other side of it is an error.
    write(tmp_path / "b.wav", noise(0))
    assert found(check(load_folder(manifest))) == [(1, "duplicate", "error")]
    # A clip of the corpus's own list is no path that somebody named.
    report = pd.DataFrame([("dev_dia1_utt1", "media", "no media")], columns=list(data.report))
    known = check(data, report=report)
    assert ("missing", "warning") in found(known, "kind", "severity")


def test_one_file_never_ends_the_check(tmp_path, monkeypatch):
    files = [write(tmp_path / f"{i}.wav", noise(i)) for i in range(3)]
    read = media.read_audio

    def failing(path, *args, **options):
        if path == files[0]:
            raise MemoryError
        if path == files[1]:
            raise PermissionError(13, "Permission denied", path)
        return read(path, *args, **options)

    monkeypatch.setattr(media, "read_audio", failing)
    result = check(make_table(audio=files))
    assert found(result) == [(0, "broken", "error"), (1, "broken", "error")]
    assert result.problems["detail"].tolist() == [
        "cannot be read (MemoryError: no reason given)",
        "cannot be read (PermissionError: Permission denied)",
    ]


def test_limits(tmp_path):
    write_frames(tmp_path / "film.mp4", n=10)
    Image.new("RGB", (100, 100)).save(tmp_path / "face.png")
    sound = write(tmp_path / "a.wav", noise(0))
    table = make_table(
        visual=[str(tmp_path / "film.mp4"), str(tmp_path / "face.png")], audio=[sound, None]
    )
    assert check(table).problems.empty
    tight = DecodeLimits(max_seconds=0.9, max_frames=9, max_pixels=9999)
    assert found(check(table, limits=tight)) == [
        (0, "too large", "error"),
        (0, "too large", "error"),
        (1, "too large", "error"),
    ]
    small = check(table, limits=DecodeLimits(max_pixels=64 * 64 - 1))
    assert found(small, "file", "kind")[1] == (str(tmp_path / "film.mp4"), "too large")


@pytest.mark.slow
def test_worker_processes_tell_the_same(tmp_path, clips):
    empty = tmp_path / "empty.wav"
    empty.touch()
    table = make_table(
        visual=[*clips.table["visual"], str(tmp_path), np.zeros((3, 4, 4), np.uint8)],
        audio=[*clips.table["audio"], str(empty), None],
    )
    here, there = (check(table, timeout=timeout, n_jobs=2) for timeout in (None, 120))
    pd.testing.assert_frame_equal(here.problems, there.problems)
    assert found(there, "row", "kind") == [(8, "broken"), (8, "no pictures")]
    assert here.summary == there.summary


def test_time_limit(tmp_path, monkeypatch):
    files = [write(tmp_path / f"{i}.wav", noise(i)) for i in range(2)]
    victim, good = files[0], examine(files[1], ["audio"])

    def slow(cell, modalities, limits=None):
        if cell == victim:
            time.sleep(60)
        return good

    monkeypatch.setattr(_examine, "examine", slow)
    result = check(make_table(audio=files), timeout=2)
    assert found(result) == [(0, "broken", "error")]
    assert "took longer than 2 s" in result.problems["detail"][0]


def test_a_crash_of_a_decoder(tmp_path, monkeypatch):
    files = [write(tmp_path / f"{i}.wav", noise(i)) for i in range(3)]
    parent, victim, good = os.getpid(), files[1], examine(files[0], ["audio"])

    def crashing(cell, modalities, limits=None):
        assert os.getpid() != parent
        if cell == victim:
            os.abort()
        return good

    monkeypatch.setattr(_examine, "examine", crashing)
    result = check(make_table(audio=[files[0], victim]), timeout=120)
    assert found(result) == [(1, "broken", "error")]
    assert "crashed" in result.problems["detail"][0]


def test_without_worker_processes(tmp_path, monkeypatch):
    def nothing(*args, **options):
        raise WorkerError("no processes here")

    monkeypatch.setattr(_examine.Isolated, "__call__", nothing)
    table = make_table(audio=[write(tmp_path / "a.wav", noise(0)), str(tmp_path / "none.wav")])
    with pytest.warns(UserWarning, match="no processes here"):
        result = check(table, timeout=60)
    assert found(result) == [(1, "missing", "error")]


def test_every_file_is_decoded_once(tmp_path, monkeypatch):
    file = write(tmp_path / "a.wav", noise(0))
    calls = []
    read = media.read_audio
    monkeypatch.setattr(media, "read_audio", lambda *a, **k: calls.append(a) or read(*a, **k))
    check(make_table(audio=[file, file, file]))
    assert len(calls) == 1


def test_csv_round_trip(tmp_path):
    file = write(tmp_path / 'a, "b"\n.wav', np.zeros(RATE))
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.wav")
    result = check(make_table(audio=[file, odd]), ["joy", "joy"], ["ann", "ann"])
    result.to_csv(tmp_path / "out.csv")
    result.to_csv(tmp_path)
    for name in ("out.csv", "problems.csv"):
        again = pd.read_csv(tmp_path / name, dtype=str, keep_default_na=False)
        assert again["row"].astype(int).tolist() == [1, 0]
        assert again["file"].tolist() == [odd.replace("\udcff", "\\udcff"), file]
        for column in ("stage", "kind", "detail", "severity"):
            assert again[column].tolist() == result.problems[column].tolist()
    balance = pd.read_csv(tmp_path / "balance.csv", index_col="speaker")
    assert balance.to_dict("list") == result.balance.to_dict("list")
    assert balance.index.tolist() == ["ann", "total"]
    # A line a file, whatever its name holds.
    assert "\\n.wav" in str(result)
    assert "\\udcff" in str(result)


def test_long_lists_are_cut_in_the_text_only(tmp_path):
    files = [str(tmp_path / f"{i:02d}.wav") for i in range(50)]
    y, groups = ["joy", "fear"] * 50, np.repeat([f"s{i:02d}" for i in range(50)], 2)
    result = check(make_table(audio=np.repeat(files, 2)), y, groups)
    assert len(result.problems) == 100
    assert len(result.balance) == 51
    text = str(result)
    assert "error: missing (100)" in text
    assert "... and 95 more" in text
    assert "... and 10 more speakers" in text
    assert len(text.splitlines()) < 60
    json.dumps(result.summary)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        (("clips",), TypeError, "check_corpus\\(load_folder\\(path\\)\\)"),
        ((Bunch(data=1),), TypeError, "got Bunch"),
        ((pd.DataFrame({"path": ["a"]}),), ValueError, r"columns \['path'\]"),
        ((make_table(audio=["a"]), ["x", "y"]), ValueError, "1 rows but y has 2"),
        ((make_table(audio=["a"]), None, []), ValueError, "groups has 0"),
        ((make_table(audio=[]),), ValueError, "no row"),
    ],
)
def test_arguments(arguments, error, match):
    with pytest.raises(error, match=match):
        check(*arguments)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"min_seconds": 31}, "max_seconds=30"),
        ({"min_seconds": -1}, "at least 0"),
        ({"quiet_db": -70}, "must not be above"),
        ({"quiet_db": 1}, "at most 0"),
        ({"clipped_share": 0}, "above 0"),
        ({"timeout": 0}, "seconds above 0"),
    ],
)
def test_thresholds_out_of_order(options, match):
    with pytest.raises(ValueError, match=match):
        check(make_table(audio=["a"]), **options)


@pytest.mark.slow
def test_ravdess(real_data):
    result = check(load_ravdess(real_data / "ravdess"), timeout=60, n_jobs=-1)
    assert result.ok
    # The pair of identical takes that the corpus is known for, and nothing else.
    assert found(result, "kind", "severity") == [("duplicate", "warning")]
    problem = result.problems.iloc[0]
    assert "03-01-03-01-02-02-07" in problem["file"]
    assert "03-01-03-01-02-01-07" in problem["detail"]
    assert result.balance.loc["total"].tolist() == [192] * 5 + [96] + [192] * 2 + [1440]
    assert result.balance.shape == (25, 9)


@pytest.mark.slow
@pytest.mark.long
def test_real_clips(real_data):
    films = sorted(map(str, (real_data / "clips").glob("*.mp4")))
    result = check(make_table(visual=films, audio=films), n_jobs=-1)
    assert result.problems.empty
    assert result.summary["frame_sizes"] == {"1920x1080": 5}
    assert result.summary["sample_rates"] == {48000: 5}


def test_channels_that_cancel_each_other(tmp_path):
    left, right = noise(0), noise(1)
    files = [
        write(tmp_path / "out_of_phase.wav", np.stack([left, -left], axis=1)),
        write(tmp_path / "one_empty.wav", np.stack([left, 0 * left], axis=1)),
        write(tmp_path / "two.wav", np.stack([left, right], axis=1)),
        write(tmp_path / "low.wav", noise(2, peak=10 ** (-55 / 20))),
    ]
    result = check(make_table(audio=files))
    assert found(result, "row", "kind") == [(0, "silent"), (3, "quiet")]
    details = result.problems.set_index("row")["detail"]
    assert details[0].startswith("digital silence; its channels, with a peak of -20.0 dBFS, cancel")
    assert "channels" not in details[3]


def test_peaks_need_no_copy_of_the_samples():
    sound = np.zeros(4_000_000, np.float32)
    sound[7] = 0.5
    tracemalloc.start()
    assert _examine._peak(sound) == pytest.approx(20 * np.log10(0.5), abs=1e-3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < sound.nbytes / 10


@pytest.mark.parametrize(
    ("y", "groups", "split", "said"),
    [
        (["joy", "joy", "fear"], ["ann", "bob", "ann"], None, "speaker (ann, bob)"),
        (["joy", "fear", "joy"], ["ann", "ann", "ann"], None, "label (fear, joy)"),
        (["joy"] * 3, ["ann"] * 3, ["train", "test", "test"], "split (test, train)"),
        (["joy"] * 3, ["ann"] * 3, None, None),  # as of unpair
    ],
)
def test_one_video_as_the_face_and_the_voice_of_two_rows(clips, y, groups, split, said):
    film, other = clips.table["visual"][:2]
    same = os.path.join(os.path.dirname(film), ".", os.path.basename(film))
    table = make_table(visual=[film, None, other], audio=[None, same, other])
    result = check(table, y, groups, split=split)
    copies = result.problems[result.problems["kind"] == "duplicate"]
    assert len(copies) == (said is not None)
    if said:
        problem = copies.iloc[0]
        assert (problem["row"], problem["severity"]) == (1, "error")
        assert f"is the visual cell of row 0 {film}; differs in {said}" in problem["detail"]


def test_rows_of_words_alone_have_a_cell():
    table = make_table(audio=[noise(0), None, None, None], text=["Hello", "Words", " ", SKIP])
    assert found(check(table)) == [(2, "missing", "error")]


def test_names_in_two_forms_of_unicode(tmp_path):
    files = [write(tmp_path / f"{i}.wav", noise(i)) for i in range(4)]
    names = ["Zo\u00eb", "Zo\u00eb", "Zoe\u0308", "Ann"]
    problems = check(make_table(audio=files), ["joy"] * 4, names).problems
    assert problems["kind"].tolist() == ["alike names"]
    assert problems["row"].tolist() == [2]
    assert "Unicode form" in problems["detail"][0]


def test_a_link_that_leads_nowhere_is_missing(tmp_path):
    write(tmp_path / "joy/a.wav", noise(0))
    write(tmp_path / "fear/a.wav", noise(1))
    os.symlink(tmp_path / "gone", tmp_path / "joy/b.wav")
    problem = check(load_folder(tmp_path)).problems.iloc[0]
    assert (problem["kind"], problem["severity"]) == ("missing", "error")
    assert "git annex get" in problem["detail"]


def test_labels_that_are_all_different_are_compared_a_few_times():
    compared = []

    class Name(str):
        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, other):
            compared.append(1)
            return str.__eq__(self, other)

    n = 400
    names = [Name(f"clip{i}{case}") for i in range(n // 2) for case in ("a", "A")]
    found = Problems()
    check_labels(names, names, found)
    rows = found.to_frame()
    assert rows.row[rows.kind == "rare emotion"].tolist() == [*range(n)]
    alike = rows.row[rows.kind == "alike names"]
    assert alike.tolist() == np.repeat(range(1, n, 2), 2).tolist()  # of labels, of speakers
    assert len(compared) < 20 * n
