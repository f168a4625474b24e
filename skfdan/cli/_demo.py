"""``skfdan demo``."""

from __future__ import annotations

import argparse
import os
import shlex
from pathlib import Path

from skfdan.cli._shared import OK, add_command, show

DESCRIPTION = """\
Show the commands at work, in about half a minute: make synthetic clips, train a
small model on them, predict one clip of a speaker it has not met. The clips are
a toy: their scores say that the code works, nothing about people."""
END = """\
example:
  skfdan demo --out demo-output

exit codes:
  0 done, 2 the folder can't be used, 130 interrupted"""

#: Of 7 emotions by each of 8 speakers, three clips.
CLIPS, SPEAKERS = 168, 8


def add(commands) -> None:
    """Add the command."""
    demo = add_command(
        commands,
        "demo",
        run,
        help="make toy clips, train on them and predict one, in half a minute",
        description=DESCRIPTION,
        end=END,
    )
    demo.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        default=Path("demo-output"),
        help="folder for clips and model (default: %(default)s)",
    )


def run(arguments: argparse.Namespace, clips: int = CLIPS, epochs: int | None = None) -> int:
    """Run the command."""
    from skfdan.cli import main
    from skfdan.cli._train import check_out
    from skfdan.datasets import load_folder, make_emotion_clips

    out = arguments.out.expanduser()
    model, manifest = out / "model", out / "clips.csv"
    check_out(model, overwrite=True)
    made = make_emotion_clips(clips, SPEAKERS, root=out / "clips", random_state=0, verbose=1)
    _write_manifest(made.frame, manifest)
    show(
        f"{clips} synthetic clips of {SPEAKERS} speakers are in {out / 'clips'}; {manifest} says "
        "which emotion and speaker each is of."
    )
    train = ["train", manifest, "--quick", "--out", model, "--overwrite", "--cache", out / "cache"]
    if epochs is not None:
        train += ["--epochs", epochs]
    code = _call(main, train)
    if code != OK:
        return code
    clip, emotion = _held_out(load_folder(manifest))
    code = _call(main, ["predict", model, clip])
    if code != OK:
        return code
    show(
        f"""(made to be {emotion}; nothing of its speaker was in the training)

Next, try
  skfdan predict {_quoted(model)} {_quoted(clip.replace(".wav", ".mp4"))} --modality fused
  skfdan evaluate {_quoted(model)} {_quoted(manifest)}
  skfdan check {_quoted(manifest)}
and with clips of your own, in folders named after emotions,
  skfdan train FOLDER --quick --out MODEL"""
    )
    return OK


def _write_manifest(frame, path: Path) -> None:
    for column in ("visual", "audio"):
        frame = frame.assign(
            **{column: [os.path.relpath(file, path.parent.absolute()) for file in frame[column]]}
        )
    frame.drop(columns="corpus").to_csv(path, index=False)


def _held_out(data) -> tuple[str, str]:
    """Return a voice that was held out by the draw of `skfdan train`, and its emotion."""
    from skfdan.cli._holdout import hold_out

    split = hold_out(data, None, 0.2, 0)
    return split.test["audio"].iloc[0], str(split.y_test[0])


def _call(main, arguments: list) -> int:
    words = [str(argument) for argument in arguments]
    show(f"\n$ skfdan {shlex.join(words)}")
    return main(words)


def _quoted(path) -> str:
    return shlex.quote(str(path))
