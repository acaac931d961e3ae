"""Encoders and decoders: networks between data and latents."""

from attelbo.networks.base import Decoder, Encoder
from attelbo.networks.conv import ConvDecoder, ConvEncoder
from attelbo.networks.mlp import MLPDecoder, MLPEncoder
from attelbo.networks.resnet import ResNetDecoder, ResNetEncoder

__all__ = [
    "ConvDecoder",
    "ConvEncoder",
    "Decoder",
    "Encoder",
    "MLPDecoder",
    "MLPEncoder",
    "ResNetDecoder",
    "ResNetEncoder",
]
