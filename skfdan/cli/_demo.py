"""``skfdan demo``."""

from __future__ import annotations

import argparse
import os
import shlex
from pathlib import Path

from skfdan.cli._predict import add_modality
from skfdan.cli._shared import OK, add_command, show

DESCRIPTION = """\
Show the commands at work, in about half a minute: make synthetic clips, train a
small model on them, predict one clip of a speaker it has not met. The clips are
a toy: their scores say that the code works, nothing about people.

With --model, open a page instead, on which you record or drop clips and see what
the model makes of them. It can be reached from this machine alone, asks nothing of
the network and keeps nothing; it needs pip install "skfdan[web]".

What is recognised is an expression, acted or labelled, not what a person feels."""
END = """\
examples:
  skfdan demo --out demo-output
  skfdan demo --model demo-output/model

exit codes:
  0 done (the page: ended with Ctrl-C), 2 wrong usage, or the folder, model or port
  can't be used, 130 interrupted"""

OUT = Path("demo-output")
#: Of 7 emotions by each of 8 speakers, three clips.
CLIPS, SPEAKERS = 168, 8


def add(commands) -> None:
    """Add the command."""
    demo = add_command(
        commands,
        "demo",
        run,
        help="make toy clips, train on them and predict one; with --model, open a page",
        description=DESCRIPTION,
        end=END,
    )
    demo.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        help=f"folder for the toy's clips and model (default: {OUT})",
    )
    page = demo.add_argument_group("the page")
    page.add_argument("--model", metavar="MODEL", help="folder of a saved model; opens the page")
    add_modality(page)
    page.add_argument(
        "--host",
        metavar="HOST",
        help="name or address to listen at (default: 127.0.0.1, which others can't reach); "
        "there is no password",
    )
    page.add_argument(
        "--port",
        metavar="N",
        type=_port,
        help="port to listen at, 0 for any (default: 7860, or any if that is taken)",
    )


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to 65535")
    return int(text)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    if arguments.model is None:
        for name in ("host", "port", "modality"):
            if getattr(arguments, name) is not None:
                raise ValueError(f"--{name} is for the page; give --model too.")
        return toy(OUT if arguments.out is None else arguments.out)
    if arguments.out is not None:
        raise ValueError("--out is for the toy; the page of --model keeps nothing.")

    from skfdan.web import serve

    host = "127.0.0.1" if arguments.host is None else arguments.host
    serve(arguments.model, host=host, port=arguments.port, modality=arguments.modality)
    return OK


def toy(out: Path, clips: int = CLIPS, epochs: int | None = None) -> int:
    """Make clips, train on them, predict one."""
    from skfdan.cli import main
    from skfdan.cli._train import check_out
    from skfdan.datasets import load_folder, make_emotion_clips

    out = out.expanduser()
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
  skfdan demo --model {_quoted(model)}
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
