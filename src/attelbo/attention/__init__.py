"""Attention mechanisms in pure torch: usable without Lightning and Hydra.

score(q, k) + position's bias -- soft cap --> normalizer, mask -- kernel --> output
"""

from attelbo.attention.alignment import Attention
from attelbo.attention.blocks import BlockCache, FeedForward, TransformerBlock
from attelbo.attention.cache import KeyValueCache, KeyValues
from attelbo.attention.differential import DifferentialAttention
from attelbo.attention.feature_maps import (
    CBAM,
    FEATURE_MAP_ATTENTION,
    AxialAttention2d,
    FeatureMapAttention,
    NonLocal2d,
    SelfAttention2d,
    SqueezeExcite,
    WindowAttention2d,
)
from attelbo.attention.forgetting import ForgettingAttention
from attelbo.attention.gated import GatedAttention
from attelbo.attention.glimpses import GaussianWindow, gaussian_window
from attelbo.attention.hyper_connections import HyperConnection
from attelbo.attention.kernels import KERNELS, Call, Kernel, KernelName, Mechanism, attention_weights
from attelbo.attention.latent import LatentAttention
from attelbo.attention.layer import AttentionLayer, HeadFeatures
from attelbo.attention.linear import EluFeatures, LinearAttention, LinearCache, PositiveRandomFeatures
from attelbo.attention.masks import (
    And,
    Behind,
    Block,
    BlockCausal,
    Causal,
    Document,
    Full,
    Global,
    Mask,
    Or,
    Padding,
    Prefix,
    SlidingWindow,
)
from attelbo.attention.multi_head import AttentionOptions, MultiHeadAttention
from attelbo.attention.normalizers import (
    Entmax15,
    LearnedSink,
    Normalizer,
    Sigmoid,
    Softmax,
    SoftmaxOffByOne,
    Sparsemax,
    TopK,
)
from attelbo.attention.norms import norm_layer
from attelbo.attention.persistent import PersistentMemoryAttention
from attelbo.attention.positions import (
    Alibi,
    AxialRotary,
    Contextual,
    ContinuousBias,
    Learned,
    NoPosition,
    Position,
    RelativeBias,
    Rotary,
    Sinusoidal,
    Sinusoidal2d,
    XPos,
)
from attelbo.attention.recording import Attends, RecordedMaps, attention_layers, record_attention
from attelbo.attention.residual_scores import ResidualScoreAttention
from attelbo.attention.residuals import Residual
from attelbo.attention.scores import (
    Additive,
    Concat,
    Cosine,
    Distance,
    Dot,
    DotProductScore,
    General,
    Location,
    ScaledDot,
    Score,
)
from attelbo.attention.sets import ISAB, MAB, PMA, SAB, Perceiver, SlotAttention
from attelbo.attention.stacked import Handed, StackedAttention
from attelbo.attention.talking import TalkingHeadsAttention
from attelbo.attention.value_residual import ValueResidualAttention

__all__ = [
    "CBAM",
    "FEATURE_MAP_ATTENTION",
    "ISAB",
    "KERNELS",
    "MAB",
    "PMA",
    "SAB",
    "Additive",
    "Alibi",
    "And",
    "Attends",
    "Attention",
    "AttentionLayer",
    "AttentionOptions",
    "AxialAttention2d",
    "AxialRotary",
    "Behind",
    "Block",
    "BlockCache",
    "BlockCausal",
    "Call",
    "Causal",
    "Concat",
    "Contextual",
    "ContinuousBias",
    "Cosine",
    "DifferentialAttention",
    "Distance",
    "Document",
    "Dot",
    "DotProductScore",
    "EluFeatures",
    "Entmax15",
    "FeatureMapAttention",
    "FeedForward",
    "ForgettingAttention",
    "Full",
    "GatedAttention",
    "GaussianWindow",
    "General",
    "Global",
    "Handed",
    "HeadFeatures",
    "HyperConnection",
    "Kernel",
    "KernelName",
    "KeyValueCache",
    "KeyValues",
    "LatentAttention",
    "Learned",
    "LearnedSink",
    "LinearAttention",
    "LinearCache",
    "Location",
    "Mask",
    "Mechanism",
    "MultiHeadAttention",
    "NoPosition",
    "NonLocal2d",
    "Normalizer",
    "Or",
    "Padding",
    "Perceiver",
    "PersistentMemoryAttention",
    "Position",
    "PositiveRandomFeatures",
    "Prefix",
    "RecordedMaps",
    "RelativeBias",
    "Residual",
    "ResidualScoreAttention",
    "Rotary",
    "ScaledDot",
    "Score",
    "SelfAttention2d",
    "Sigmoid",
    "Sinusoidal",
    "Sinusoidal2d",
    "SlidingWindow",
    "SlotAttention",
    "Softmax",
    "SoftmaxOffByOne",
    "Sparsemax",
    "SqueezeExcite",
    "StackedAttention",
    "TalkingHeadsAttention",
    "TopK",
    "TransformerBlock",
    "ValueResidualAttention",
    "WindowAttention2d",
    "XPos",
    "attention_layers",
    "attention_weights",
    "gaussian_window",
    "norm_layer",
    "record_attention",
]
