"""Networks and losses: plain torch, no files and no tables."""

from skfdan.nn.attention import CrossAttentionLayer, cross_attention
from skfdan.nn.backbones import make_backbone
from skfdan.nn.fdan import FDANNet, FDANOutput
from skfdan.nn.fdan_official import OfficialFDANNet
from skfdan.nn.inputs import InputNorm, InputSpec
from skfdan.nn.losses import LMMDLoss, dsan_ramp, lmmd

__all__ = [
    "CrossAttentionLayer",
    "FDANNet",
    "FDANOutput",
    "InputNorm",
    "InputSpec",
    "LMMDLoss",
    "OfficialFDANNet",
    "cross_attention",
    "dsan_ramp",
    "lmmd",
    "make_backbone",
]
