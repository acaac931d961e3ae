"""Encoder and decoder of images as tokens: a transformer over patches on either side of z.

    x -- PatchEmbedding --> tokens -- network --> tokens, a feature map h
    z -- linear --> tokens, with positions -- network --> tokens -- linear --> patches, eta

Source: Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words", arXiv:2010.11929 (encoder); Yu et al. 2022,
"Vector-quantized Image Modeling with Improved VQGAN", arXiv:2110.04627, section 3.1 (ViT-VQGAN: both sides, one code or
latent for each patch). Ours differs: attention consists of any configured parts; patches are a linear function of
tokens, without a hidden layer; images that patches do not tile are padded with zeros, and outputs cropped.

Shapes: B batch, N rows of latents, P x P pixels of a patch, (h, w) patches, E features of a token, (C', H, W) the
parameters of a likelihood.
"""

from collections.abc import Sequence
from typing import Unpack

from torch import Tensor, nn
from torch.nn import functional as F

from attelbo.building import Spec, part
from attelbo.checks import check_at_least, check_below_one
from attelbo.networks.attention_parts import AttentionParts, AttentionSpecs
from attelbo.networks.base import Decoder, Encoder
from attelbo.networks.layers import Size, ToFeatureMap, image_shape, positive
from attelbo.networks.token_encoder import PatchEmbedding


class ViTEncoder(Encoder):
    """x (B, C, H, W) -> a feature map (B, E, h, w), H / P x W / P rounded up.

    Args:
        in_shape: (C, H, W).
        network: of the tokens, such as a stack of transformer blocks.
        patch: P.
        dim: E.
        dropout: on the embedded patches, in training.
        specs: those of :class:`~attelbo.networks.AttentionSpecs`.

    Raises:
        ValueError: not an image, a size below 1, or a dropout outside [0, 1).
        ConfigError: an argument of a part is out of range, or the parts do not fit together.
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        *,
        network: Spec,
        patch: int = 4,
        dim: int = 64,
        dropout: float = 0.0,
        **specs: Unpack[AttentionSpecs],
    ) -> None:
        super().__init__()
        self.in_shape = image_shape("in_shape", in_shape)
        check_at_least(1, patch=patch, dim=dim)
        check_below_one(dropout=dropout)
        height, width = self.in_shape[1:]
        size = _patches((height, width), patch)
        self.out_shape = (dim, *size)
        self.fill = (0, size[1] * patch - width, 0, size[0] * patch - height)  # to the right and below
        parts = AttentionParts(**specs, where="encoder")
        places = parts.position_of(dim, size[0] * size[1], size=size)
        filled = (self.in_shape[0], size[0] * patch, size[1] * patch)
        self.embedding = PatchEmbedding(filled, patch, dim, places, dropout)
        self.network = part("encoder.network", network, dim=dim, parts=parts, position=places, causal=False)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.network(self.embedding(F.pad(x, self.fill) if any(self.fill) else x))
        return tokens.mT.unflatten(2, self.out_shape[1:])


class ViTDecoder(Decoder):
    """z of any shape -> eta (N, *out_shape); of a map (D, h, w) each pixel is a token, any other z is spread over all.

    Args:
        in_shape: the shape of one z.
        out_shape: (C', H, W).
        network: of the tokens, such as a stack of transformer blocks.
        patch: P.
        dim: E.
        dropout: on the tokens that z becomes, in training.
        specs: those of :class:`~attelbo.networks.AttentionSpecs`.

    Raises:
        ValueError: not an image, a size below 1, or a dropout outside [0, 1).
        ConfigError: an argument of a part is out of range, or the parts do not fit together.
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        out_shape: Sequence[int],
        *,
        network: Spec,
        patch: int = 4,
        dim: int = 64,
        dropout: float = 0.0,
        **specs: Unpack[AttentionSpecs],
    ) -> None:
        super().__init__()
        self.in_shape = positive("in_shape", in_shape)
        self.out_shape = image_shape("out_shape", out_shape)
        check_at_least(1, patch=patch, dim=dim)
        check_below_one(dropout=dropout)
        self.patch, self.size = patch, _patches(self.out_shape[1:], patch)
        parts = AttentionParts(**specs, where="decoder")
        self.places = parts.position_of(dim, self.size[0] * self.size[1], size=self.size)
        self.tokens = ToFeatureMap(self.in_shape, dim, self.size)
        self.dropout = nn.Dropout(dropout)
        self.network = part("decoder.network", network, dim=dim, parts=parts, position=self.places, causal=False)
        self.output = nn.Linear(dim, self.out_shape[0] * patch**2)

    def forward(self, z: Tensor) -> Tensor:
        tokens = self.dropout(self.places.at_input(self.tokens(z).flatten(2).mT))
        patches = self.output(self.network(tokens)).mT.unflatten(2, self.size)  # (N, C' P P, h, w)
        height, width = self.out_shape[1:]
        return F.pixel_shuffle(patches, self.patch)[..., :height, :width].contiguous()


def _patches(image: Size, patch: int) -> Size:
    """Rows and columns of patches that cover an image (H, W)."""
    height, width = image
    return -(-height // patch), -(-width // patch)
