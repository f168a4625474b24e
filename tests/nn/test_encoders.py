import pytest
import torch

from skfdan.nn.encoders import FrozenEncoder
from skfdan.nn.inputs import InputSpec


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_features_are_single_whatever_the_backbone_computes_in(precision):
    net = FrozenEncoder(InputSpec("image", uint8=True), "cnn", None, 32, precision)
    with torch.inference_mode():
        features = net.features("cells", torch.zeros(2, 3, 32, 32, dtype=torch.uint8))
    assert features.dtype == torch.float32
