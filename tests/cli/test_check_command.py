import json
import os
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import soundfile

import skfdan
from skfdan import datasets
from skfdan.cli import main

RATE = 16000


@pytest.fixture
def folder(tmp_path):
    """Two clips of each of two speakers in each of two emotions; no problem anywhere."""
    root = tmp_path / "clips"
    random = np.random.default_rng(0)
    for emotion in ("happy", "sad"):
        for name in ("ann_1", "ann_2", "bob_1", "bob_2"):
            file = root / emotion / f"{name}.wav"
            file.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(file, random.uniform(-0.1, 0.1, RATE // 2), RATE)
    return root


def test_a_good_folder(folder, capsys):
    assert main(["check", str(folder), "--speaker-pattern", "([a-z]+)_"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines() == [
        "8 rows, 8 files, 2 speakers, 2 emotions",
        "sound: 4.0 s, 16000 Hz (8)",
        "no problems",
        "",
        "rows by speaker and emotion (. is none)",
        "      happiness sadness total",
        "ann           2       2     4",
        "bob           2       2     4",
        "total         4       4     8",
    ]


def test_errors_give_1_and_warnings_0(folder, capsys):
    (folder / "stray.txt").touch()
    assert main(["check", str(folder)]) == 0
    assert "warning: left out (1)" in capsys.readouterr().out
    (folder / "sad" / "empty.wav").touch()
    assert main(["check", str(folder), "--jobs", "2"]) == 1
    out = capsys.readouterr().out
    assert "1 error, 1 warning" in out
    assert f"{folder / 'sad' / 'empty.wav'}: is empty (0 bytes)" in out


def test_loose_files_are_unlabelled_and_checked(folder, capsys):
    for name in ("ann_1", "ann_2"):
        (folder / "happy" / f"{name}.wav").rename(folder.parent / f"{name}.wav")
    loose = folder.parent
    for emotion in ("happy", "sad"):
        for file in (folder / emotion).iterdir():
            file.unlink()
    assert main(["check", str(loose)]) == 0
    out = capsys.readouterr().out
    assert "warning: unlabelled (2)" in out
    assert "ann_1.wav: not in an emotion's folder" in out
    assert "no clip has a label" in out
    (loose / "broken.wav").touch()
    assert main(["check", str(loose)]) == 1
    assert "error: broken (1)" in capsys.readouterr().out


def test_a_manifest(folder, capsys):
    manifest = folder / "clips.csv"
    manifest.write_text("audio,emotion,speaker\nhappy/ann_1.wav,joy,ann\nsad/none.wav,sad,ann\n")
    assert main(["check", str(manifest)]) == 1
    assert "error: missing (1)" in capsys.readouterr().out


def test_thresholds_and_corpus(folder, tmp_path, capsys):
    assert main(["check", str(folder), "--min-seconds", "0.6"]) == 0
    assert "warning: too short (8)" in capsys.readouterr().out
    assert main(["check", str(folder), "--max-seconds", "0.4"]) == 0
    assert "warning: too long (8)" in capsys.readouterr().out
    emodb = tmp_path / "emodb" / "wav"
    emodb.mkdir(parents=True)
    (folder / "happy" / "ann_1.wav").rename(emodb / "03a01Fa.wav")
    assert main(["check", str(emodb.parent), "--corpus", "emodb"]) == 0
    out = capsys.readouterr().out
    assert "happiness" in out
    assert "rare emotion (1)" in out


def test_rows_of_words_alone_are_left_out(folder, capsys):
    manifest = folder / "list.csv"
    manifest.write_text("audio,emotion,text\nhappy/ann_1.wav,joy,Hello\n,joy,Words alone\n")
    main(["check", str(manifest)])
    out = capsys.readouterr().out
    assert "data row 2 has no file and is left out" in out
    assert "neither a visual nor an audio cell" not in out


def test_json(folder, capsys):
    (folder / "sad" / "empty.wav").touch()
    (folder / "stray.wav").touch()
    assert main(["check", str(folder), "--json", "--speaker-pattern", "[a-z]+_?"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is False
    assert document["summary"]["errors"] == 2
    assert document["summary"]["sample_rates"] == {"16000": 8}
    first, second = (p for p in document["problems"] if p["kind"] == "broken")
    assert first["file"].endswith("empty.wav")
    assert isinstance(first["row"], int)
    assert second["file"].endswith("stray.wav")
    assert second["row"] is None
    assert document["balance"]["total"]["total"] == 9


def test_csv(folder, tmp_path, capsys):
    (folder / "sad" / "empty.wav").touch()
    out = tmp_path / "out.csv"
    assert main(["check", str(folder), "--csv", str(out)]) == 1
    problems = pd.read_csv(out)
    assert problems["kind"].tolist() == ["broken"]
    assert problems["file"].tolist() == [str(folder / "sad" / "empty.wav")]


def test_names_that_are_no_text(folder, capsys):
    name = os.fsdecode(os.fsencode(folder) + b"/\xff.wav")
    with open(name, "wb"):
        pass
    assert main(["check", str(folder)]) == 1
    assert "\\udcff.wav" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "does not exist"),
        (["EMPTY"], "fits emotion folders"),
        (["EMPTY", "--corpus", "ravdess"], "RAVDESS file names"),
        (["FOLDER", "--speaker-pattern", "zoe"], "finds no speaker in any clip"),
        (["FOLDER", "--corpus", "ravdess", "--speaker-pattern", "a"], "--speaker-pattern is for"),
        (["FOLDER", "--min-seconds", "5", "--max-seconds", "1"], "max_seconds=1"),
    ],
)
def test_what_cannot_run_gives_2(folder, tmp_path, capsys, arguments, said):
    (tmp_path / "empty").mkdir()
    places = {"FOLDER": str(folder), "EMPTY": str(tmp_path / "empty")}
    assert main(["check", *(places.get(a, a) for a in arguments)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("skfdan: error: ")
    assert said in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "COMMAND"),
        (["czech"], "invalid choice"),
        (["check"], "FOLDER"),
        (["check", ".", "--corpus", "fer2013"], "invalid choice"),
        (["check", ".", "--speaker-pattern", "("], "no regular expression"),
        (["check", ".", "--jobs", "0"], "whole number above 0"),
        (["check", ".", "--min-seconds", "x"], "invalid float"),
        (["check", ".", "--csv", "no/such/folder/out.csv"], "there is no folder"),
    ],
)
def test_wrong_usage_gives_2(capsys, arguments, said):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert said in capsys.readouterr().err


def _in_a_class_body():
    # Python 3.11 makes a RuntimeError of what a descriptor raises.
    raise RuntimeError("Error calling __set_name__") from KeyboardInterrupt()


def _plainly():
    raise KeyboardInterrupt


@pytest.mark.parametrize("where", [_plainly, _in_a_class_body])
def test_interrupted(folder, capsys, monkeypatch, where):
    def interrupt(*args, **kwargs):
        where()

    monkeypatch.setattr(datasets, "check_corpus", interrupt)
    assert main(["check", str(folder)]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_version_and_help(capsys):
    commands = ("check", "train", "predict", "evaluate", "demo")
    for arguments in (["--version"], ["--help"], *([name, "--help"] for name in commands)):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 0
    out = capsys.readouterr().out
    assert f"skfdan {skfdan.__version__}\n" in out
    for name in commands:
        assert re.search(rf"examples?:\n  skfdan {name} ", out)
    assert out.count("130 interrupted") == len(commands)


@pytest.mark.slow
def test_the_command_itself(folder, run):
    (folder / "sad" / "empty.wav").touch()
    done = run("check", folder)
    assert done.returncode == 1
    assert "error: broken (1)" in done.stdout
    # No progress bar where nobody watches.
    assert done.stderr == ""


@pytest.mark.slow
def test_a_reader_that_has_seen_enough(folder):
    with subprocess.Popen(
        [sys.executable, "-m", "skfdan", "check", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        process.stdout.close()
        assert process.wait(timeout=300) == 0
        assert process.stderr.read() == b""


def test_help_imports_no_decoder_and_no_network():
    code = "import sys, skfdan.cli; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300
    )
    modules = set(done.stdout.split())
    assert "skfdan.cli" in modules
    assert not modules & {"torch", "av", "soundfile", "skimage", "librosa", "skfdan.datasets"}


def test_no_other_file_is_overwritten(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    text = "emotion,audio,speaker\nanger,happy/ann_1.wav,ann\nsad,sad/bob_1.wav,bob\n"
    (folder / "clips.csv").write_text(text)
    clip = (folder / "happy/ann_1.wav").read_bytes()
    for corpus, target in (("clips.csv", "clips.csv"), (".", "happy/ann_1.wav")):
        assert main(["check", corpus, "--csv", target]) == 2
        assert f"--csv {target}: there is a file that is no list of problems" in (
            capsys.readouterr().err
        )
    assert (folder / "clips.csv").read_text() == text
    assert (folder / "happy/ann_1.wav").read_bytes() == clip
    for _ in range(2):  # a list of problems may be made anew
        assert main(["check", "clips.csv", "--csv", "problems.csv"]) == 0
    assert (folder / "problems.csv").read_text().startswith("file,row,stage,")
