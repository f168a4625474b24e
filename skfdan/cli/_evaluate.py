"""``skfdan evaluate``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from skfdan.cli._predict import add_modality
from skfdan.cli._shared import (
    FOLDER,
    OK,
    PROBLEMS,
    add_command,
    add_corpus,
    add_jobs,
    as_text,
    count,
    describe_corpus,
    load_corpus,
    n_speakers,
    show,
    tell,
    tell_left_out,
)

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from sklearn.utils import Bunch

    from skfdan.cli._predictor import Predictor

DESCRIPTION = f"""\
Score a saved model on a corpus: WAR, UAR, weighted F1, recall of each emotion, the
confusion matrix, and the scores of each speaker with mean and standard deviation.

{FOLDER}

A model does not keep which clips and speakers it was trained on, so this command
can't tell whether some of them are in the corpus; it prints what the model's card
says. Scores on people who were in the training say little about others."""
END = """\
example:
  skfdan evaluate model CREMA-D --corpus crema_d
  skfdan evaluate model RAVDESS --corpus ravdess --groups sex

exit codes:
  0 scored, 1 scored, but some files could not be read, 2 wrong usage, no model or
  nothing to score, 130 interrupted"""


def add(commands) -> None:
    """Add the command."""
    evaluate = add_command(
        commands,
        "evaluate",
        run,
        help="score a model on a corpus, in all and speaker by speaker",
        description=DESCRIPTION,
        end=END,
    )
    evaluate.add_argument("model", metavar="MODEL", help="folder of a saved model")
    add_corpus(evaluate)
    evaluate.add_argument(
        "--groups",
        metavar="COLUMN",
        default="speaker",
        help="column of the corpus whose values are scored one by one, such as sex "
        "(default: %(default)s)",
    )
    add_modality(evaluate)
    form = evaluate.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_true", help="print a csv table of all scores")
    form.add_argument("--json", action="store_true", help="print JSON")
    add_jobs(evaluate)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    data = load_corpus(arguments)
    tell_left_out(data)
    groups = _groups(data, arguments.groups)

    import numpy as np

    from skfdan.cli._predictor import Predictor
    from skfdan.cli._scores import by_group, confusion, scores
    from skfdan.metrics import SCORES

    own = arguments.groups in ("clips", *SCORES) or arguments.groups.startswith("recall_")
    if arguments.csv and own:
        raise ValueError(
            f"--groups {arguments.groups}: the csv table has a column of that name of its own; "
            "give the corpus's column another name, or use --json."
        )
    predictor = Predictor(arguments.model, arguments.modality, arguments.jobs)
    rows = _rows(data, predictor)
    y = np.asarray(data.target)[rows].astype(str)
    predicted, n_bad = _predict(data, rows, predictor)
    table = confusion(y, predicted, predictor.classes)
    groups = None if groups is None else groups[rows]
    parts = None if groups is None else by_group(y, predicted, groups)
    facts = _facts(arguments.model)
    if arguments.csv:
        show(_as_csv(y, predicted, groups, arguments.groups, table.index))
    elif arguments.json:
        document = {
            "model": arguments.model,
            "trained_on": facts["corpora"],
            "tested_by_its_maker": facts["protocol"],
            "modality": predictor.modality,
            "clips": len(y),
            "unreadable": n_bad,
            **scores(y, predicted),
            "recall": table["recall"].to_dict(),
            "confusion": table.drop(columns="recall").to_dict("index"),
            "groups": None if parts is None else parts.to_dict("index"),
        }
        show(json.dumps(document, indent=1))
    else:
        show(_as_text(data, y, predicted, table, parts, arguments.groups, predictor, facts))
    return PROBLEMS if n_bad else OK


def _groups(data: Bunch, column: str) -> np.ndarray | None:
    """Return the group of each clip, or None if speakers are asked for and unknown."""
    if column == "speaker" and n_speakers(data) is None:
        tell("the speakers are unknown, so there are no scores by speaker")
        return None
    if column not in data.frame:
        raise ValueError(f"--groups {column}: the corpus has the columns {list(data.frame)}.")
    values = data.frame[column]
    return values.where(values.notna(), "(none)").astype(str).to_numpy()


def _rows(data: Bunch, predictor: Predictor) -> np.ndarray:
    """Return the rows that can be right: the model knows their emotion, and there is a file."""
    import numpy as np

    known = np.isin(np.asarray(data.target).astype(str), predictor.classes)
    for emotion in sorted(set(np.asarray(data.target)[~known].tolist())):
        n = int((np.asarray(data.target) == emotion).sum())
        tell(f"skfdan: warning: the model does not know {emotion!r}: {count(n, 'clip')} left out")
    there = data.table[list(predictor.wanted)].notna().any(axis=1).to_numpy()
    if (known & ~there).any():
        n = int((known & ~there).sum())
        tell(f"{count(n, 'clip')} without a {predictor.noun} left out")
    if not (known & there).any():
        raise ValueError(
            f"Nothing can be scored: no clip has a {predictor.noun} and an emotion that the model "
            f"knows; the model knows {predictor.classes}, and the corpus has "
            f"{sorted(set(np.asarray(data.target).tolist()))}."
        )
    return np.flatnonzero(known & there)


def _predict(data: Bunch, rows: np.ndarray, predictor: Predictor) -> tuple[np.ndarray, int]:
    """Return the predictions, and how many files could not be read."""
    import numpy as np

    from skfdan.cli._predictor import CHUNK

    clf, found, n_bad, n_half = predictor.classifier, [], 0, 0
    for start in range(0, len(rows), CHUNK):
        chunk = rows[start : start + CHUNK]
        table = data.table.iloc[chunk]
        probabilities, errors, left_out = predictor.table(table)
        for (modality, row), reason in left_out.items():
            n_half += 1
            tell(f"skfdan: warning: {table.iloc[row][modality]}: {reason}")
        for row, error in enumerate(errors):
            if error is not None:
                n_bad += 1
                cells = [c for c in table.iloc[row][list(predictor.wanted)] if c is not None]
                tell(f"skfdan: warning: {' and '.join(map(str, cells))}: {error}")
                probabilities[row] = clf.class_count_
        found.append(probabilities.argmax(axis=1))
    if n_bad:
        tell(
            f"skfdan: warning: {count(n_bad, 'clip')} could not be read and count with the most "
            "frequent emotion of the training"
        )
    if n_half:
        tell(
            f"skfdan: warning: of {count(n_half, 'clip')} only the voice or only the face could be "
            "read and was scored"
        )
    return np.array(predictor.classes)[np.concatenate(found)], n_bad + n_half


def _facts(model: str) -> dict:
    """Return what the model's maker says about it."""
    if model.startswith("hf://"):
        from skfdan.persistence._hub import load_facts

        return load_facts(model.removeprefix("hf://"))
    from skfdan.persistence._folder import find_model
    from skfdan.persistence._format import CONFIG, read_config

    return read_config(find_model(Path(model).expanduser()) / CONFIG)["facts"]


def _as_text(data, y, predicted, table, parts, column, predictor, facts) -> str:
    from skfdan.cli._scores import scores_line

    lines = [
        describe_corpus(data),
        f"scored: {count(len(y), 'clip')}, {predictor.modality}",
        f"the model's training: {facts['corpora'] or 'not stated.'}",
        "Clips or speakers that were in it make these scores too good; a model does not keep "
        "which they were.",
        "",
        scores_line(y, predicted),
        "",
        as_text(table),
        "(rows: true, columns: predicted)",
    ]
    if parts is not None:
        lines += ["", f"by {column}:", as_text(parts), _spread(parts, column)]
    return "\n".join(lines)


def _spread(parts: pd.DataFrame, column: str) -> str:
    told = "  ".join(
        f"{name} {parts[name].mean():.3f} ± {parts[name].std(ddof=0):.3f}"
        for name in parts.columns.drop("clips")
    )
    return f"mean ± standard deviation over {count(len(parts), 'group')}: {told}"


def _as_csv(y, predicted, groups, column: str, labels) -> str:
    """One line for all clips and one a group, with the recall of every emotion."""
    import pandas as pd

    from skfdan.cli._scores import confusion, scores

    lines = []
    for group in ["(all)", *([] if groups is None else sorted(set(groups.tolist())))]:
        of = slice(None) if not lines else groups == group
        recall = confusion(y[of], predicted[of], sorted({*labels, *predicted.tolist()}))["recall"]
        line = {column: group, "clips": len(y[of])} | scores(y[of], predicted[of])
        lines.append(line | {f"recall_{label}": recall.get(label) for label in labels})
    return pd.DataFrame(lines).to_csv(index=False).rstrip("\n")
