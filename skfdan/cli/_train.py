"""``skfdan train``."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from skfdan.cli._shared import (
    FOLDER,
    OK,
    add_command,
    add_corpus,
    add_jobs,
    as_text,
    count,
    describe_corpus,
    load_corpus,
    n_speakers,
    positive,
    show,
    tell,
    tell_left_out,
)

if TYPE_CHECKING:
    from sklearn.compose import ColumnTransformer
    from sklearn.utils import Bunch

    from skfdan.classifiers import FDANClassifier
    from skfdan.cli._holdout import Holdout

DESCRIPTION = f"""\
Train FDAN on a corpus, test it on a part that was held out, and save it.

{FOLDER}
A row of the csv file may have a face alone or a voice alone, so that the faces of
other people teach too.

A fifth of the speakers is held out (of the clips, where speakers are unknown) and
takes no part in any choice: epochs and parameters are those given. The model that
was tested is the one that is saved, so its card's scores are its own; to train on
every clip, give --protocol none, which tests nothing.

Without --quick this is the setting of the FDAN paper: two ResNet-34 from ImageNet
weights, which are downloaded once, and 300 epochs; days of work without a GPU."""
END = """\
examples:
  skfdan train clips --speaker-pattern "(spk[0-9]+)_" --quick --out model
  skfdan train RAVDESS --corpus ravdess --out model --cache cache --checkpoint state

exit codes:
  0 trained and saved (a warning tells of files that could not be read), 2 wrong usage
  or nothing trained, 130 interrupted (with --checkpoint, the same command goes on)"""

#: What can be done within minutes on a processor; as in benchmarks/run.py --quick.
QUICK = {
    "backbone": "cnn",
    "weights": None,
    "input_size": 48,
    "lr": 0.01,
    "momentum": 0.9,
    "max_epochs": 30,
}
QUICK_FACES = {"size": 48}
QUICK_MEL = {"n_mels": 64, "hop_length": 512, "duration": 3.5}


def add(commands) -> None:
    """Add the command."""
    train = add_command(
        commands,
        "train",
        run,
        help="train a model, test it on speakers held out, and save it",
        description=DESCRIPTION,
        end=END,
    )
    add_corpus(train)
    train.add_argument(
        "--out", metavar="MODEL", required=True, type=Path, help="folder the model is saved to"
    )
    train.add_argument("--overwrite", action="store_true", help="replace a model that is there")
    train.add_argument(
        "--quick", action="store_true", help="small network, 48 pixels, 30 epochs, no download"
    )
    train.add_argument("--epochs", metavar="N", type=positive, help="default: 300; quick: 30")
    train.add_argument("--lr", type=float, help="learning rate (default: 0.001; quick: 0.01)")
    train.add_argument("--alpha", type=float, help="weight of the LMMD loss (default: 0.001)")
    train.add_argument(
        "--protocol",
        choices=("disjoint", "paper", "none"),
        help="what is tested: disjoint, speakers of whom nothing trains; paper, voices at random, "
        "all faces train; none, nothing (default: disjoint; clips at random where speakers are "
        "unknown)",
    )
    train.add_argument(
        "--holdout",
        metavar="SHARE",
        type=_share,
        default=0.2,
        help="share of the speakers, voices or clips that is tested (default: %(default)s)",
    )
    train.add_argument(
        "--seed",
        metavar="N",
        type=_seed,
        default=0,
        help="of weights, batches and the draw of what is tested (default: %(default)s)",
    )
    train.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 (default: auto)")
    train.add_argument(
        "--on-error",
        choices=("missing", "raise", "skip"),
        default="missing",
        help="an unreadable file counts as missing, ends the command, or takes its whole clip "
        "along (default: %(default)s)",
    )
    train.add_argument("--cache", metavar="DIR", type=_folder, help="keeps what was decoded")
    train.add_argument(
        "--checkpoint",
        metavar="DIR",
        type=_folder,
        help="keeps the state of the training, so that the same command goes on where it was",
    )
    add_jobs(train)


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 < share < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number between 0 and 1")
    return share


def _folder(text: str) -> Path:
    path = Path(text).expanduser()
    if not text or (path.exists() and not path.is_dir()):
        raise argparse.ArgumentTypeError(f"{text!r} is no folder, nor the name of a new one")
    return path


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to 2**32 - 1")
    return int(text)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    out = arguments.out.expanduser()
    for option in ("cache", "checkpoint"):
        folder = getattr(arguments, option)
        if folder is not None and folder.resolve().is_relative_to(out.resolve()):
            raise ValueError(
                f"--{option} {str(folder)!r} is in --out {str(out)!r}, which will hold a model and "
                "nothing else; give another folder."
            )
    check_out(out, arguments.overwrite)
    data = load_corpus(arguments)

    from sklearn.pipeline import make_pipeline

    from skfdan.cli._holdout import hold_out
    from skfdan.persistence import save_pretrained

    split = hold_out(data, arguments.protocol, arguments.holdout, arguments.seed)
    prepare, classifier = _estimators(arguments, split.lead)
    show(describe_corpus(data))
    tell_left_out(data)
    show(f"protocol {split.description}")
    if split.speakers:
        show(f"held out: {', '.join(split.speakers)}")
    start = time.perf_counter()
    cells = prepare.fit_transform(split.table)
    # Before the training: a file that ends the command must not do so after days.
    test_cells = prepare.transform(split.test) if len(split.test) else None
    decoded = time.perf_counter()
    classifier.fit(cells, split.y)
    show(
        f"decoding {decoded - start:.0f} s, training {time.perf_counter() - decoded:.0f} s "
        f"({count(len(classifier.history_), 'epoch')} on {classifier.device_})"
    )
    predicted = None
    if test_cells is not None:
        predicted = classifier.predict(test_cells)
        _show_scores(split, predicted)
    save_pretrained(
        make_pipeline(prepare, classifier),
        out,
        corpora=_corpora(arguments, data, split),
        protocol=split.description,
        y_true=None if predicted is None else split.y_test,
        y_pred=predicted,
        overwrite=arguments.overwrite,
    )
    which = "which tested nothing" if predicted is None else "the one that was tested"
    show(f"saved {out}, {which}; its card is {out / 'README.md'}")
    return OK


def check_out(out: Path, overwrite: bool) -> None:
    """Refuse a place where a model can't be saved, before anything is trained."""
    from skfdan.persistence._folder import check_place, free_for

    try:
        free_for(out, overwrite)
    except FileExistsError as error:
        message = str(error).replace("overwrite=True", "--overwrite")
        raise FileExistsError(f"--out {message}") from None
    try:
        check_place(out)
    except OSError as error:
        raise OSError(
            f"--out {str(out)!r}: no model can be saved there: {error.strerror or error}; give "
            "another folder."
        ) from error


def _estimators(
    arguments: argparse.Namespace, lead: str
) -> tuple[ColumnTransformer, FDANClassifier]:
    from sklearn.compose import ColumnTransformer

    from skfdan.classifiers import FDANClassifier
    from skfdan.preprocessing import FaceFrames, MelSpectrogram

    common = {
        "on_error": arguments.on_error,
        "cache_dir": arguments.cache,
        "n_jobs": arguments.jobs,
    }
    faces, mel, fdan = (QUICK_FACES, QUICK_MEL, QUICK) if arguments.quick else ({}, {}, {})
    prepare = ColumnTransformer(
        [
            ("visual", FaceFrames(on_no_face="center", **faces, **common), ["visual"]),
            ("audio", MelSpectrogram(**mel, **common), ["audio"]),
        ]
    )
    asked = {"max_epochs": arguments.epochs, "lr": arguments.lr, "alpha": arguments.alpha}
    fdan = fdan | {name: value for name, value in asked.items() if value is not None}
    state = arguments.checkpoint
    classifier = FDANClassifier(
        **fdan,
        predict_modality=lead,
        on_error=arguments.on_error,
        # A folder for each fit: another seed or corpus starts anew instead of being refused.
        checkpoint_dir=None if state is None else state / "{fit}",
        device=arguments.device,
        random_state=arguments.seed,
    )
    # What is wrong with options is told before files are decoded for hours.
    classifier._check_params()
    classifier._resolve_device()
    return prepare, classifier


def _show_scores(split: Holdout, predicted) -> None:
    from skfdan.cli._scores import confusion, scores_line

    frame = confusion(split.y_test, predicted, sorted({*split.y.tolist(), *split.y_test.tolist()}))
    show(f"\n{scores_line(split.y_test, predicted)}\n")
    show(f"{as_text(frame)}\n(rows: true, columns: predicted)\n")
    untested = sorted({*split.y.tolist()} - {*split.y_test.tolist()})
    if untested:
        tell(f"no clip of the tested part shows {', '.join(untested)}")


def _corpora(arguments: argparse.Namespace, data: Bunch, split: Holdout) -> str:
    name = Path(arguments.folder).expanduser().resolve().name
    kind = "" if arguments.corpus == "folder" else f" ({arguments.corpus})"
    n = n_speakers(data)
    voices, faces = (int(split.table[m].notna().sum()) for m in ("audio", "visual"))
    of = f" of {count(n - len(split.speakers), 'speaker')}" if n else ""
    return (
        f"`{name}`{kind}: {describe_corpus(data)}. {count(voices, 'voice')} and "
        f"{count(faces, 'face')}{of} trained."
    )
