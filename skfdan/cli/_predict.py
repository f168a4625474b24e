"""``skfdan predict``."""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from skfdan.cli._shared import NOUNS, OK, PROBLEMS, add_command, add_jobs, show, tell

if TYPE_CHECKING:
    from skfdan.cli._predictor import Predictor

DESCRIPTION = """\
Tell the emotion in sound or video files with a model that `skfdan train` or
save_pretrained has saved. Prints, for each file, the emotion and the probability of
every emotion the model knows.

MODEL is a folder, or hf://user/model on the Hugging Face Hub. A file that can't be
read gives a line that says why; the others are predicted all the same.

What is recognised is an expression, acted or labelled, not what a person feels."""
END = """\
examples:
  skfdan predict model take1.wav take2.mp4
  find clips -name "*.wav" | skfdan predict model - --csv > emotions.csv

exit codes:
  0 every file predicted, 1 some could not be, or of some only the voice or only the
  face could be read, 2 wrong usage or no model, 130 interrupted"""


def add(commands) -> None:
    """Add the command."""
    predict = add_command(
        commands,
        "predict",
        run,
        help="tell the emotion in sound or video files",
        description=DESCRIPTION,
        end=END,
    )
    predict.add_argument("model", metavar="MODEL", help="folder of a saved model")
    predict.add_argument(
        "files",
        metavar="FILE",
        nargs="+",
        help="sound or video files; - stands for a list on the standard input, a path a line",
    )
    add_modality(predict)
    form = predict.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_true", help="print a csv table")
    form.add_argument("--json", action="store_true", help="print JSON")
    add_jobs(predict)


def add_modality(command: argparse.ArgumentParser) -> None:
    """Add which cells a prediction reads."""
    command.add_argument(
        "--modality",
        choices=("audio", "visual", "fused"),
        help="hear the voice, look at the face, or both (default: as the model was saved)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from skfdan.cli._predictor import Predictor, chunks

    predictor = Predictor(arguments.model, arguments.modality, arguments.jobs)
    form = {True: _Text, arguments.csv: _Csv, arguments.json: _Json}[True](predictor)
    n = n_bad = 0
    for files in chunks(_files(arguments.files)):
        probabilities, errors, left_out = predictor.files(files)
        for file, p, error in zip(files, probabilities, errors, strict=True):
            form.add(file, p, error)
        form.flush()
        for (modality, row), reason in left_out.items():
            tell(
                f"skfdan: warning: {files[row]}: the {NOUNS[modality]} could not be read and is "
                f"left out: {reason}"
            )
        n += len(files)
        n_bad += sum(error is not None for error in errors) + len(left_out)
    if not n:
        raise ValueError("the list of files on the standard input is empty.")
    form.end()
    return PROBLEMS if n_bad else OK


def _files(names: list[str]) -> Iterator[str]:
    for name in names:
        if name != "-":
            yield name
            continue
        if hasattr(sys.stdin, "reconfigure"):
            sys.stdin.reconfigure(errors="surrogateescape")  # names need not be text
        for line in sys.stdin:
            if line.strip():
                yield line.rstrip("\r\n")


class _Text:
    """A line a file: name, emotion, and all probabilities from high to low."""

    def __init__(self, predictor: Predictor):
        self.classes = predictor.classes
        self.lines: list[str] = []

    def add(self, file: str, p, error: str | None) -> None:
        if error is not None:
            self.lines.append(f"{file}: error: {error}")
            return
        ranked = sorted(zip(self.classes, p, strict=True), key=lambda pair: -pair[1])
        told = ", ".join(f"{label} {value:.3f}" for label, value in ranked)
        self.lines.append(f"{file}: {ranked[0][0]} ({told})")

    def flush(self) -> None:
        show("\n".join(self.lines))
        self.lines = []

    def end(self) -> None:
        pass


class _Csv(_Text):
    """Columns file, emotion, error, and p_... for every emotion."""

    def __init__(self, predictor: Predictor):
        super().__init__(predictor)
        self._row(["file", "emotion", "error", *(f"p_{label}" for label in self.classes)])

    def _row(self, values: list) -> None:
        line = io.StringIO()
        csv.writer(line, lineterminator="").writerow(values)
        self.lines.append(line.getvalue())

    def add(self, file: str, p, error: str | None) -> None:
        if error is not None:
            self._row([file, "", error, *("" for _ in self.classes)])
        else:
            self._row([file, self.classes[p.argmax()], "", *(f"{value:.6g}" for value in p)])


class _Json(_Text):
    """A list of objects: file, emotion, error, probabilities."""

    def add(self, file: str, p, error: str | None) -> None:
        found: dict = {"file": file, "emotion": None, "error": error, "probabilities": None}
        if error is None:
            found["emotion"] = self.classes[p.argmax()]
            found["probabilities"] = dict(zip(self.classes, map(float, p), strict=True))
        self.lines.append(json.dumps(found))

    def flush(self) -> None:
        pass

    def end(self) -> None:
        show("[\n" + ",\n".join(self.lines) + "\n]")
