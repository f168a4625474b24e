"""What is the same for every row of a run: the paper's setting, and a reduced one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Setting:
    """What is the same for every network of a run."""

    quick: bool
    epochs: int
    backbone: str
    weights: str | None
    input_size: int
    lr: float
    momentum: float
    folds: int
    seeds: int
    n_mels: int
    hop_length: int
    duration: float
    #: Pretrained networks of the companion tables: a name, or a folder; None is each
    #: table's own.
    speech_model: str | None = None
    text_model: str | None = None
    face_model: str | None = None

    @property
    def face_size(self) -> int:
        """Side of the face pictures in memory; the network resizes them."""
        return min(self.input_size, 112)

    @property
    def network(self) -> dict[str, Any]:
        """Parameters of a network on spectrograms."""
        return {**self.training, "backbone": self.backbone}

    @property
    def training(self) -> dict[str, Any]:
        """Parameters of training and input, without the backbone."""
        return {
            "max_epochs": self.epochs,
            "weights": self.weights,
            "input_size": self.input_size,
            "lr": self.lr,
            "momentum": self.momentum,
            "verbose": 0,
        }


#: The paper's (section 3.2). It is silent about learning rate, input size, Mel
#: parameters, folds and seeds: there it is what FDANClassifier and MelSpectrogram default to.
PAPER = Setting(
    quick=False,
    epochs=300,
    backbone="resnet34",
    weights="DEFAULT",
    input_size=224,
    lr=1e-3,
    momentum=0.99,
    folds=5,
    seeds=3,
    n_mels=128,
    hop_length=256,
    duration=4.0,
)
#: Epochs of the companion tables: FDRL's upper bound, the only number that is published.
COMPANION_EPOCHS = 100
QUICK = Setting(
    quick=True,
    epochs=30,
    backbone="cnn",
    weights=None,
    # FER2013's own size.
    input_size=48,
    lr=0.01,
    momentum=0.9,
    folds=3,
    seeds=2,
    n_mels=64,
    hop_length=512,
    duration=3.5,
)
