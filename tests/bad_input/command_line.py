"""The command ``skfdan``."""

import io
import socket
import sys
from pathlib import Path

from bad_input.shared import Case
from skfdan.cli import main


class Exited(Exception):
    """A command ended with an exit code that is not 0, and these words."""


def _run(*arguments: str):
    def case(c: Case):
        capsys = c.request.getfixturevalue("capsys")
        capsys.readouterr()
        try:
            words = [a.replace("TMP", str(c.tmp)) for a in arguments]
            model = str(c.model_of_voices) if "MODEL" in words else ""
            code = main([word.replace("MODEL", model) for word in words])
        except SystemExit as end:
            code = end.code
        printed = capsys.readouterr()
        assert printed.out == ""
        # argparse prints its usage before the error.
        raise Exited(code, printed.err.strip().splitlines()[-1])

    return case


def _with_clips(*names: str, then):
    """Do something with files of the shared folder in folders named after emotions."""

    def case(c: Case):
        for name in names:
            file = c.tmp / "clips" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(Path(c.files("a.wav")).read_bytes())
        then(c)

    return case


def _no_list(c: Case):
    c.monkeypatch.setattr("sys.stdin", io.StringIO(""))
    _run("predict", "MODEL", "-")(c)


def _taken(c: Case):
    (c.tmp / "model").mkdir()
    (c.tmp / "model" / "mine.txt").touch()
    _run("train", "TMP", "--out", "TMP/model")(c)


def _no_gradio(c: Case):
    c.monkeypatch.setitem(sys.modules, "gradio", None)
    _run("demo", "--model", "MODEL", "--port", "0")(c)


def _port_taken(c: Case):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        _run("demo", "--model", "MODEL", "--port", str(other.getsockname()[1]))(c)


def _file_above(c: Case):
    (c.tmp / "file").touch()
    _run("train", "TMP", "--out", "TMP/file/model")(c)


def _arrays_alone(c: Case):
    _run("predict", str(c.model), "a.wav")(c)


FOUR = ("anger/ann_1.wav", "anger/ann_2.wav", "fear/ann_1.wav", "fear/ann_2.wav")
TRAIN = ("train", "TMP/clips", "--out", "TMP/model", "--quick")


def _csv_of_another_kind(c: Case):
    c.written("notes.csv", "audio,emotion\n")
    _run("check", "TMP", "--csv", "TMP/notes.csv")(c)


CASES = {
    "`skfdan tarin`": _run("tarin"),
    "`skfdan train` without a corpus": _run("train", "--out", "TMP/model"),
    "`skfdan train` into a folder that is taken": _taken,
    "`skfdan train --cache` in the folder of the model": _run(*TRAIN, "--cache", "TMP/model/cache"),
    "`skfdan train` into a folder that can't be made": _file_above,
    "`skfdan train --holdout 20`": _run(*TRAIN, "--holdout", "20"),
    "`skfdan train --lr -1`": _with_clips(
        *FOUR, then=_run(*TRAIN, "--lr", "-1", "--holdout", "0.5")
    ),
    "`skfdan train` on one emotion": _with_clips(*FOUR[:2], then=_run(*TRAIN)),
    "`skfdan train` on one speaker": _with_clips(
        *FOUR, then=_run(*TRAIN, "--speaker-pattern", "[a-z]+_")
    ),
    "`skfdan train` with too few clips": _with_clips(*FOUR, then=_run(*TRAIN)),
    "`skfdan train --protocol disjoint` without speakers": _with_clips(
        *FOUR, then=_run(*TRAIN, "--protocol", "disjoint")
    ),
    "`skfdan predict` with a model that is not there": _run("predict", "TMP/none", "a.wav"),
    "`skfdan predict` with a folder that is no model": _run("predict", "TMP", "a.wav"),
    "`skfdan predict` with a classifier of arrays alone": _arrays_alone,
    "`skfdan predict` of a list without files": _no_list,
    "`skfdan predict --modality visual` with a model of voices": _run(
        "predict", "MODEL", "a.wav", "--modality", "visual"
    ),
    "`skfdan evaluate` on emotions that the model does not know": _with_clips(
        "envy/a.wav", then=_run("evaluate", "MODEL", "TMP/clips")
    ),
    "`skfdan evaluate --groups zodiac`": _with_clips(
        *FOUR, then=_run("evaluate", "MODEL", "TMP/clips", "--groups", "zodiac")
    ),
    "`skfdan check` of a folder that is not there": _run("check", "TMP/none"),
    "`skfdan check` of an empty folder": _run("check", "TMP"),
    "`skfdan check --corpus emovo`": _run("check", "TMP", "--corpus", "emovo"),
    "`skfdan check --corpus ravdess` of another folder": _run(
        "check", "TMP", "--corpus", "ravdess"
    ),
    "`skfdan check --speaker-pattern` with no regular expression": _run(
        "check", "TMP", "--speaker-pattern", "(spk"
    ),
    "`skfdan check --jobs 0`": _run("check", "TMP", "--jobs", "0"),
    "`skfdan check --csv` into a folder that is not there": _run(
        "check", "TMP", "--csv", "TMP/none/out.csv"
    ),
    "`skfdan check --csv` to a file of another kind": _csv_of_another_kind,
    "`skfdan demo --port 8000` without a model": _run("demo", "--port", "8000"),
    "`skfdan demo --model` with `--out`": _run("demo", "--model", "MODEL", "--out", "TMP"),
    "`skfdan demo --model` with a folder that is no model": _run("demo", "--model", "TMP"),
    "`skfdan demo --model` without Gradio": _no_gradio,
    "`skfdan demo --port http`": _run("demo", "--port", "http"),
    "`skfdan demo --port` with one that is taken": _port_taken,
}
