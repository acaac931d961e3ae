"""Networks: encoders and decoders between data and latents, stacks of attention over tokens."""

from attelbo.networks.attention_parts import AttentionParts, AttentionSpecs
from attelbo.networks.base import Decoder, Encoder
from attelbo.networks.bidirectional import BidirectionalGRU
from attelbo.networks.code_transformer import AutoregressiveTransformer
from attelbo.networks.conv import ConvDecoder, ConvEncoder
from attelbo.networks.diffusion_transformer import DiffusionTransformer
from attelbo.networks.encoder_decoder import Decoding, EncoderDecoder
from attelbo.networks.layers import Standardize
from attelbo.networks.mlp import MLPDecoder, MLPEncoder
from attelbo.networks.neural_process import AttentivePath, MeanPath, PointDecoder, Summary
from attelbo.networks.next_scale_transformer import NextScaleTransformer
from attelbo.networks.perceiver import PerceiverDecoder, PerceiverEncoder, PerceiverTextEncoder, SetReader
from attelbo.networks.pooling import AttentionPooling, ClassToken, MeanPooling, Pooling
from attelbo.networks.recurrent import RecurrentEncoder
from attelbo.networks.recurrent_translation import RecurrentEncoderDecoder
from attelbo.networks.resnet import ResNetDecoder, ResNetEncoder
from attelbo.networks.search import Found, Tokens, beam_search
from attelbo.networks.sets import DeepSets, SetTransformer
from attelbo.networks.slots import SlotDecoder, SlotEncoder
from attelbo.networks.text import RecurrentTextDecoder, RecurrentTextEncoder, TextDecoder, TransformerTextDecoder
from attelbo.networks.token_encoder import PatchEmbedding, TokenEncoder, patch_grid
from attelbo.networks.transformer import TokenEmbedding, Transformer
from attelbo.networks.translation import TransformerEncoderDecoder
from attelbo.networks.vit import ViTDecoder, ViTEncoder

__all__ = [
    "AttentionParts",
    "AttentionPooling",
    "AttentionSpecs",
    "AttentivePath",
    "AutoregressiveTransformer",
    "BidirectionalGRU",
    "ClassToken",
    "ConvDecoder",
    "ConvEncoder",
    "Decoder",
    "Decoding",
    "DeepSets",
    "DiffusionTransformer",
    "Encoder",
    "EncoderDecoder",
    "Found",
    "MLPDecoder",
    "MLPEncoder",
    "MeanPath",
    "MeanPooling",
    "NextScaleTransformer",
    "PatchEmbedding",
    "PerceiverDecoder",
    "PerceiverEncoder",
    "PerceiverTextEncoder",
    "PointDecoder",
    "Pooling",
    "RecurrentEncoder",
    "RecurrentEncoderDecoder",
    "RecurrentTextDecoder",
    "RecurrentTextEncoder",
    "ResNetDecoder",
    "ResNetEncoder",
    "SetReader",
    "SetTransformer",
    "SlotDecoder",
    "SlotEncoder",
    "Standardize",
    "Summary",
    "TextDecoder",
    "TokenEmbedding",
    "TokenEncoder",
    "Tokens",
    "Transformer",
    "TransformerEncoderDecoder",
    "TransformerTextDecoder",
    "ViTDecoder",
    "ViTEncoder",
    "beam_search",
    "patch_grid",
]
