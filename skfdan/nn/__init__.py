"""Networks and losses: plain torch, no files and no tables."""

from skfdan.nn.adaptation import ADAPTATIONS, AdaptationLoss, cmd, coral, memberships, mmd
from skfdan.nn.adversarial import DAANLoss, DANNLoss, a_distance, dynamic_factor, grad_reverse
from skfdan.nn.attention import CrossAttentionLayer, cross_attention
from skfdan.nn.backbones import make_backbone
from skfdan.nn.coattention import CoAttentionNet
from skfdan.nn.encoders import Embedded, freeze
from skfdan.nn.fdan import FDANNet, FDANOutput
from skfdan.nn.fdan_official import OfficialFDANNet
from skfdan.nn.fdrl import FDRL_ABLATIONS, FDRLLoss, FDRLNet, FDRLOutput, paper_factor
from skfdan.nn.gated import GatedCrossModalAttention
from skfdan.nn.gmtcnet import GMTCNet
from skfdan.nn.inputs import InputNorm, InputSpec, Padded
from skfdan.nn.losses import LMMDLoss, dsan_ramp, lmmd
from skfdan.nn.lvc import AGRU, AGRULVC, LVC
from skfdan.nn.margin import homogeneous_margin_loss
from skfdan.nn.misa import MISANet, MISAOutput, difference_loss, misa_losses
from skfdan.nn.pretrained_layers import LastLayers, LayerShape, PretrainedLayers
from skfdan.nn.sdt import SDTNet, SDTOutput, sdt_loss
from skfdan.nn.tfmix import TFMixNet, TFMixOutput
from skfdan.nn.torchvision_net import TorchvisionNet
from skfdan.nn.wavfusion import (
    WavFusionNet,
    WavFusionOutput,
    wavfusion_loss,
)
from skfdan.nn.wavfusion_wav2vec2 import WavFusionWav2Vec2, insert_gated_layers

__all__ = [
    "ADAPTATIONS",
    "AGRU",
    "AGRULVC",
    "FDRL_ABLATIONS",
    "LVC",
    "AdaptationLoss",
    "CoAttentionNet",
    "CrossAttentionLayer",
    "DAANLoss",
    "DANNLoss",
    "Embedded",
    "FDANNet",
    "FDANOutput",
    "FDRLLoss",
    "FDRLNet",
    "FDRLOutput",
    "GMTCNet",
    "GatedCrossModalAttention",
    "InputNorm",
    "InputSpec",
    "LMMDLoss",
    "LastLayers",
    "LayerShape",
    "MISANet",
    "MISAOutput",
    "OfficialFDANNet",
    "Padded",
    "PretrainedLayers",
    "SDTNet",
    "SDTOutput",
    "TFMixNet",
    "TFMixOutput",
    "TorchvisionNet",
    "WavFusionNet",
    "WavFusionOutput",
    "WavFusionWav2Vec2",
    "a_distance",
    "cmd",
    "coral",
    "cross_attention",
    "difference_loss",
    "dsan_ramp",
    "dynamic_factor",
    "freeze",
    "grad_reverse",
    "homogeneous_margin_loss",
    "insert_gated_layers",
    "lmmd",
    "make_backbone",
    "memberships",
    "misa_losses",
    "mmd",
    "paper_factor",
    "sdt_loss",
    "wavfusion_loss",
]
