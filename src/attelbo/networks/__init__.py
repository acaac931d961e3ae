"""Networks: encoders and decoders between data and latents, stacks of attention over tokens."""

from attelbo.networks.base import Decoder, Encoder
from attelbo.networks.conv import ConvDecoder, ConvEncoder
from attelbo.networks.mlp import MLPDecoder, MLPEncoder
from attelbo.networks.resnet import ResNetDecoder, ResNetEncoder
from attelbo.networks.transformer import AttentionParts, TokenEmbedding, Transformer

__all__ = [
    "AttentionParts",
    "ConvDecoder",
    "ConvEncoder",
    "Decoder",
    "Encoder",
    "MLPDecoder",
    "MLPEncoder",
    "ResNetDecoder",
    "ResNetEncoder",
    "TokenEmbedding",
    "Transformer",
]
