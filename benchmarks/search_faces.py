"""Look for a setting in which other people's faces help unseen speakers.

RAVDESS voices of actors 1-12 only, three folds of whole speakers: what is found
there can be tested on actors 13-24 (``--actors 13 24 --rows ...``). Every row has
the same folds, seeds, steps, spectrograms and small network from random weights;
only what the faces do differs. The gain is that over the same network on voices
alone, fold by fold and seed by seed.

    python benchmarks/search_faces.py --ravdess RAVDESS --fer2013 fer2013.csv
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from sklearn.model_selection import GroupKFold

from skfdan import FDANClassifier, uar_score
from skfdan.datasets import load_fer2013, load_ravdess
from skfdan.nn import make_backbone
from skfdan.preprocessing import FaceFrames, MelSpectrogram

SETTING = {
    "backbone": "cnn",
    "weights": None,
    "input_size": 48,
    "lr": 0.01,
    "momentum": 0.9,
    "max_epochs": 30,
    "verbose": 0,
}
PLAIN = {"n_layers": 0, "alpha": 0.0}
GUARDED = {"ramp": "dsan", "lmmd_normalize": True}


class LightFaces(FDANClassifier):
    """Faces count for a tenth of the voices in the loss."""

    def _loss_terms(self, output, y):
        loss, terms = super()._loss_terms(output, y)
        return loss - 0.9 * terms["ce_visual"], terms


def prototypes(head):
    """Return a classifier whose last layer is the faces' one, and stays it."""

    class Prototypes(FDANClassifier):
        def _make_module(self):
            network = super()._make_module()
            network.classifier.load_state_dict(head)
            network.classifier.requires_grad_(False)
            return network

    return Prototypes


def pretrain(X, y, epochs):
    """Train a network on faces alone; return its backbone's and last layer's weights."""
    faces = FDANClassifier(
        **SETTING | {"max_epochs": epochs}, **PLAIN, predict_modality="visual", random_state=0
    ).fit({"visual": X}, y)
    return faces.module_.backbones["visual"].state_dict(), faces.module_.classifier.state_dict()


def rows(backbone_state, head):
    """Return name, class, parameters and whether faces train, of every row."""

    def seen_faces():
        network, n_features = make_backbone("cnn", None)
        network.load_state_dict(backbone_state)
        return network, n_features

    first = {"backbone": seen_faces}
    return [
        ("voices only", FDANClassifier, PLAIN, False),
        ("shared classifier", FDANClassifier, PLAIN, True),
        ("shared classifier, faces weigh 0.1", LightFaces, PLAIN, True),
        ("shared bottleneck", FDANClassifier, PLAIN | {"shared_bottleneck": True}, True),
        ("shared backbone", FDANClassifier, PLAIN | {"shared_backbone": True}, True),
        ("FDAN, α = 1e-3", FDANClassifier, {}, True),
        ("FDAN1, α = 1e-3", FDANClassifier, {"n_layers": 0}, True),
        ("FDAN1, α = 1e-2", FDANClassifier, {"n_layers": 0, "alpha": 0.01}, True),
        (
            "FDAN1, α = 0.1, ramp, normalised",
            FDANClassifier,
            {"n_layers": 0, "alpha": 0.1} | GUARDED,
            True,
        ),
        (
            "FDAN1, α = 1, ramp, normalised",
            FDANClassifier,
            {"n_layers": 0, "alpha": 1.0} | GUARDED,
            True,
        ),
        ("FDAN, α = 1, ramp, normalised", FDANClassifier, {"alpha": 1.0} | GUARDED, True),
        ("backbone trained on faces first, voices only", FDANClassifier, PLAIN | first, False),
        ("backbone trained on faces first, shared classifier", FDANClassifier, PLAIN | first, True),
        ("the faces' class prototypes, voices only", prototypes(head), PLAIN, False),
    ]


def main() -> None:
    """Print a Markdown table, a row as it is finished."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--ravdess", required=True, help="folder of RAVDESS")
    parser.add_argument("--fer2013", required=True, help="fer2013.csv, an npz file or folders")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--actors", type=int, nargs=2, default=(1, 12), help="first and last")
    parser.add_argument("--face-epochs", type=int, default=10, help="where faces train first")
    parser.add_argument("--rows", nargs="+", help="only these beside voices only")
    parser.add_argument("--cache", help="folder to keep decoded files in")
    args = parser.parse_args()
    torch.set_num_threads(1)

    voices = load_ravdess(args.ravdess, emotions={"calm": None})
    faces = load_fer2013(args.fer2013)
    mel = MelSpectrogram(n_mels=64, hop_length=512, duration=3.5, cache_dir=args.cache)
    first, last = args.actors
    some = np.flatnonzero([first <= int(str(actor)[-2:]) <= last for actor in voices.groups])
    X = list(mel.fit_transform(voices.table[["audio"]].iloc[some])[:, 0])
    X, y, speakers = np.stack(X), voices.target[some], voices.groups[some]
    X_vis = FaceFrames(detector=None, size=48).fit_transform(faces.table[["visual"]])[:, 0]
    X_vis = np.stack(list(X_vis))
    splits = list(GroupKFold(3).split(X, groups=speakers))

    print("| faces | UAR | gain over voices only |\n|---|---|---|")
    base = None
    for name, kind, parameters, with_faces in rows(
        *pretrain(X_vis, faces.target, args.face_epochs)
    ):
        if base is not None and args.rows and name not in args.rows:
            continue
        scores = []
        for train, test in splits:
            for seed in range(args.seeds):
                model = kind(**SETTING | parameters, random_state=seed)
                if with_faces:
                    model.fit(X_vis, X[train], y_vis=faces.target, y_aud=y[train])
                else:
                    model.fit({"audio": X[train]}, y[train])
                scores.append(100 * uar_score(y[test], model.predict(X[test])))
        scores = np.array(scores)
        base = scores if base is None else base
        gain = scores - base
        print(
            f"| {name} | {scores.mean():.1f} ± {scores.std():.1f} "
            f"| {gain.mean():+.1f} ± {gain.std():.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
