"""Networks and losses: plain torch, no files and no tables."""

from skfdan.nn.adaptation import ADAPTATIONS, AdaptationLoss, cmd, coral, memberships, mmd
from skfdan.nn.adversarial import DAANLoss, DANNLoss, a_distance, dynamic_factor, grad_reverse
from skfdan.nn.attention import CrossAttentionLayer, cross_attention
from skfdan.nn.backbones import make_backbone
from skfdan.nn.encoders import Embedded, freeze
from skfdan.nn.fdan import FDANNet, FDANOutput
from skfdan.nn.fdan_official import OfficialFDANNet
from skfdan.nn.gmtcnet import GMTCNet
from skfdan.nn.inputs import InputNorm, InputSpec
from skfdan.nn.losses import LMMDLoss, dsan_ramp, lmmd
from skfdan.nn.misa import MISANet, MISAOutput, difference_loss, misa_losses
from skfdan.nn.tfmix import TFMixNet, TFMixOutput
from skfdan.nn.torchvision_net import TorchvisionNet

__all__ = [
    "ADAPTATIONS",
    "AdaptationLoss",
    "CrossAttentionLayer",
    "DAANLoss",
    "DANNLoss",
    "Embedded",
    "FDANNet",
    "FDANOutput",
    "GMTCNet",
    "InputNorm",
    "InputSpec",
    "LMMDLoss",
    "MISANet",
    "MISAOutput",
    "OfficialFDANNet",
    "TFMixNet",
    "TFMixOutput",
    "TorchvisionNet",
    "a_distance",
    "cmd",
    "coral",
    "cross_attention",
    "difference_loss",
    "dsan_ramp",
    "dynamic_factor",
    "freeze",
    "grad_reverse",
    "lmmd",
    "make_backbone",
    "memberships",
    "misa_losses",
    "mmd",
]
