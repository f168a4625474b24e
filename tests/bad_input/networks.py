"""Networks and losses."""

import torch

from bad_input.shared import Case
from skfdan.nn import (
    AGRU,
    AGRULVC,
    AdaptationLoss,
    CoAttentionNet,
    CrossAttentionLayer,
    DAANLoss,
    FDANNet,
    FDRLNet,
    GatedCrossModalAttention,
    InputSpec,
    LayerShape,
    LMMDLoss,
    MISANet,
    OfficialFDANNet,
    PretrainedLayers,
    SDTNet,
    TFMixNet,
    TorchvisionNet,
    WavFusionNet,
    WavFusionWav2Vec2,
    cmd,
    coral,
    difference_loss,
    insert_gated_layers,
    lmmd,
    make_backbone,
    mmd,
)

VECTORS = {"visual": InputSpec("vector", n_features=4), "audio": InputSpec("vector", n_features=6)}
PICTURES = {"audio": InputSpec("image")}


def _ones(*shape: int) -> torch.Tensor:
    return torch.ones(*shape)


def _labels(n: int) -> torch.Tensor:
    return torch.zeros(n, dtype=torch.long)


def _other_weights(c: Case):
    torch.save({"weight": torch.ones(2)}, c.tmp / "other.pt")
    make_backbone("resnet18", c.tmp / "other.pt")


def _no_state(c: Case):
    torch.save([1, 2], c.tmp / "list.pt")
    make_backbone("resnet18", c.tmp / "list.pt")


CASES = {
    "`lmmd` with features of different widths": lambda c: lmmd(
        _ones(4, 3), _ones(4, 2), _labels(4), _labels(4)
    ),
    "`lmmd` with fewer labels than rows": lambda c: lmmd(
        _ones(4, 3), _ones(4, 3), _labels(2), _labels(4)
    ),
    "`lmmd` with memberships of different numbers of classes": lambda c: lmmd(
        _ones(4, 3), _ones(4, 3), _ones(4, 2), _ones(4, 5)
    ),
    "`lmmd` with labels of more classes than `n_classes`": lambda c: lmmd(
        _ones(4, 3), _ones(4, 3), _labels(4), _labels(4) + 1, 1
    ),
    "`lmmd` with a bandwidth of 0": lambda c: lmmd(
        _ones(4, 3), _ones(4, 3), _labels(4), _labels(4), bandwidth=0
    ),
    "`LMMDLoss` with features of different widths": lambda c: LMMDLoss(3)(
        _ones(4, 3), _ones(4, 2), _labels(4), _labels(4)
    ),
    "`mmd` with features of different widths": lambda c: mmd(_ones(4, 3), _ones(4, 2)),
    "`coral` with features of different widths": lambda c: coral(_ones(4, 3), _ones(4, 2)),
    "`cmd` with features of different widths": lambda c: cmd(_ones(4, 3), _ones(4, 2)),
    "`difference_loss` with different numbers of rows": lambda c: difference_loss(
        _ones(4, 3), _ones(3, 3)
    ),
    "`AdaptationLoss` with an unknown name": lambda c: AdaptationLoss("mmmd", 1, 4, 3),
    "`DAANLoss` with an unknown rule": lambda c: DAANLoss(4, 3, mu_rule="own"),
    "`CrossAttentionLayer` with heads that do not divide the width": lambda c: CrossAttentionLayer(
        8, n_heads=3
    ),
    "`OfficialFDANNet` on modalities of different widths": lambda c: OfficialFDANNet(3, VECTORS),
    "`MISANet` with heads that do not divide the width": lambda c: MISANet(
        3, VECTORS, hidden=8, n_heads=3
    ),
    "`FDRLNet` with heads that do not divide the width": lambda c: FDRLNet(
        3, VECTORS, hidden=8, n_heads=3
    ),
    "`FDRLNet` on pictures": lambda c: FDRLNet(3, PICTURES),
    "`CoAttentionNet` with three modalities": lambda c: CoAttentionNet(
        3, {"audio": 4, "text": 4, "visual": 4}
    ),
    "`SDTNet` with heads that do not divide the width": lambda c: SDTNet(
        3, {"audio": 4}, hidden=8, n_heads=3
    ),
    "`SDTNet` on sequences": lambda c: SDTNet(
        3, {"audio": InputSpec("sequence", n_features=4)}, hidden=8
    ),
    "`WavFusionNet` with an unknown modality": lambda c: WavFusionNet(3, {"smell": 4}),
    "`WavFusionNet` on text and faces, with gates": lambda c: WavFusionNet(
        3, {"text": 4, "visual": 4}
    ),
    "`WavFusionNet(audio_layers=...)` on audio of another width": lambda c: WavFusionNet(
        3, {"audio": 4}, audio_layers=LayerShape(8, 2, 16)
    ),
    "`PretrainedLayers` of another network": lambda c: PretrainedLayers.of(
        torch.nn.Linear(2, 2), 1
    ),
    "`AGRU` or `AGRULVC` with heads that do not divide the width": lambda c: (
        AGRULVC(4, 8),
        AGRU(4, 8, n_heads=3),
    ),
    "`GatedCrossModalAttention` of three modalities": lambda c: GatedCrossModalAttention(
        8, 2, {"a": 4, "b": 4, "c": 4}
    ),
    "`insert_gated_layers` of another network": lambda c: insert_gated_layers(
        torch.nn.Linear(2, 2), {}
    ),
    "`WavFusionWav2Vec2` with the audio's width": lambda c: WavFusionWav2Vec2(
        3, torch.nn.Linear(2, 2), {"audio": 4}
    ),
    "`TFMixNet` with heads that do not divide the width": lambda c: TFMixNet(
        3, 8, lstm_hidden=4, n_heads=3
    ),
    "`FDANNet` with an unknown backbone": lambda c: FDANNet(3, PICTURES, backbone="lenet"),
    "`TorchvisionNet` with an unknown backbone": lambda c: TorchvisionNet(3, PICTURES, "lenet"),
    "`make_backbone` with a function that returns a network alone": lambda c: make_backbone(
        lambda: torch.nn.Flatten()
    ),
    '`make_backbone("cnn")` with a file of weights': lambda c: make_backbone("cnn", "own.pt"),
    "`make_backbone` with an unknown name": lambda c: make_backbone("resnet1000"),
    "`make_backbone` with a file that is not there": lambda c: make_backbone(
        "resnet18", c.tmp / "none.pt"
    ),
    "`make_backbone` with a file that holds no weights": lambda c: make_backbone(
        "resnet18", c.written("text.pt", "These are words.")
    ),
    "`make_backbone` with a file that holds something else": _no_state,
    "`make_backbone` with the weights of another network": _other_weights,
}
