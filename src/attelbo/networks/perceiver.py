"""Encoders that read a set of pixels or tokens by learned queries, and a decoder that is queried for each pixel.

    pixels or tokens -- value, place --> elements -- Perceiver --> latents --> h
    z --> latents -- transformer blocks --> latents <-- queried by each pixel's place --> eta

Source: Jaegle et al. 2021, "Perceiver", arXiv:2103.03206 (encoding; places as Fourier features, section 3.2), and
"Perceiver IO", arXiv:2107.14795 (decoding, section 3.1). Neither knows which pixels are neighbours except by their
places, so both take images of any size; rows of a set may be of different lengths (:class:`SetReader`). Ours differs:
the posterior reads all latents, where the paper takes their mean for a classifier; scores of pixels are scaled up.

Shapes: B batch, S elements, F features of an element, M latents, E features of a latent, N rows of latents, (P C, H, W)
the parameters of a likelihood, K bands, T tokens.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from attelbo.attention import FeedForward, Learned, MultiHeadAttention, Padding, Perceiver, TransformerBlock
from attelbo.attention.layer import check_heads
from attelbo.attention.sets.perceiver import LookBlock
from attelbo.checks import check_at_least, check_repetitions
from attelbo.networks.base import Decoder, Encoder
from attelbo.networks.layers import image_shape, positive

_SHARPNESS = 8.0
"""The factor of scores between places. Without it, attention starts as nearly uniform: all latents read the same from
all pixels, and all pixels the same from all latents, for so long that a VAE learns to ignore z. With it, on digits, h
initially varies over x by 0.2 of its variation over features, not 0.04, and eta with z in 11 directions, not in 1.

Tokens differ from each other anyway: with it each latent would attend to a single one from the start, and hardly learn
to attend to others. The order of three words is learned in 150 steps without it, but not with it.
"""


class SetReader(nn.Module):
    """A set (B, S, F) of any size -> h (B, M E) by M learned queries, whatever the order of its elements.

    Args:
        features: F.
        dim: E.
        n_latents: M.
        heads: of every attention, also to the elements, where the paper has one; must divide ``dim``.
        layers: transformer blocks of the latents in each round.
        rounds: how often they attend to the set.
        sharpness: a factor of the scores of elements, besides 1 / sqrt(E / heads).

    Raises:
        ValueError: a size below 1, or heads that do not divide ``dim``.
    """

    def __init__(
        self,
        features: int,
        *,
        dim: int = 64,
        n_latents: int = 16,
        heads: int = 4,
        layers: int = 1,
        rounds: int = 1,
        sharpness: float = 1.0,
    ) -> None:
        super().__init__()
        check_heads(dim, heads)
        check_at_least(1, features=features)
        self.out_features = n_latents * dim
        self.project = nn.Linear(features, dim)
        self.perceiver = Perceiver(
            dim,
            n_latents=n_latents,
            heads=heads,
            look_heads=heads,
            layers=layers,
            rounds=rounds,
            hidden=2 * dim,
            look_scale=sharpness * (dim // heads) ** -0.5,
        )
        self.norm = nn.LayerNorm(dim)

    def forward(self, elements: Tensor, mask: Padding | None = None) -> Tensor:
        """Elements (B, S, F), without padding -> (B, M E)."""
        return self.norm(self.perceiver(self.project(elements), mask=mask)).flatten(1)


class PerceiverEncoder(Encoder):
    """x (B, C, H, W) as the set of its pixels -> h (B, M E).

    Args:
        in_shape: (C, H, W).
        dim: E.
        n_latents: M.
        heads: must divide ``dim``.
        layers: transformer blocks of the latents in each round.
        rounds: how often they attend to the pixels.
        bands: K, frequencies of the Fourier features of a place.

    Raises:
        ValueError: not an image, a size below 1, or heads that do not divide ``dim``.
    """

    places: Tensor

    def __init__(
        self,
        in_shape: Sequence[int],
        *,
        dim: int = 64,
        n_latents: int = 16,
        heads: int = 4,
        layers: int = 1,
        rounds: int = 1,
        bands: int = 4,
    ) -> None:
        super().__init__()
        self.in_shape = image_shape("in_shape", in_shape)
        self.register_buffer("places", fourier_features(self.in_shape[1:], bands), persistent=False)
        self.reader = SetReader(
            self.in_shape[0] + self.places.shape[1],
            dim=dim,
            n_latents=n_latents,
            heads=heads,
            layers=layers,
            rounds=rounds,
            sharpness=_SHARPNESS,
        )
        self.out_shape = (self.reader.out_features,)

    def elements(self, x: Tensor) -> Tensor:
        """The pixels of x (B, C, H, W), each its value and its place: (B, H W, C + 2 (2 K + 1))."""
        return torch.cat([x.flatten(2).mT, self.places.expand(len(x), -1, -1)], -1)

    def forward(self, x: Tensor) -> Tensor:
        return self.reader(self.elements(x))


class PerceiverTextEncoder(nn.Module):
    """Tokens x (B, T), padding at the end -> h (B, M E): reads the tokens, but not padding, with a learned position
    embedding added to each, as in Perceiver IO for language.

    Args:
        embedding: of tokens.
        padding: the padding token.
        max_length: the most tokens.
        dim: E.
        n_latents: M.
        heads: must divide ``dim``.
        layers: transformer blocks of the latents in each round.
        rounds: how often they attend to the tokens.

    Raises:
        ValueError: a size below 1, or heads that do not divide ``dim``.
    """

    def __init__(
        self,
        embedding: nn.Embedding,
        padding: int,
        max_length: int,
        *,
        dim: int = 64,
        n_latents: int = 16,
        heads: int = 4,
        layers: int = 1,
        rounds: int = 1,
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.padding = padding
        self.position = Learned(embedding.embedding_dim, max_length)
        self.reader = SetReader(
            embedding.embedding_dim, dim=dim, n_latents=n_latents, heads=heads, layers=layers, rounds=rounds
        )
        self.out_features = self.reader.out_features

    def forward(self, x: Tensor) -> Tensor:
        return self.reader(self.position.at_input(self.embedding(x)), Padding(x != self.padding))


class PerceiverDecoder(Decoder):
    """z of any shape -> eta (N, *out_shape): each pixel's place queries the latents computed from z.

    Args:
        in_shape: the shape of one z.
        out_shape: (P C, H, W).
        dim: E.
        n_latents: M.
        heads: must divide ``dim``.
        layers: transformer blocks of the latents.
        bands: K, frequencies of the Fourier features of a place.

    Raises:
        ValueError: not an image, a size below 1, or heads that do not divide ``dim``.
    """

    places: Tensor

    def __init__(
        self,
        in_shape: Sequence[int],
        out_shape: Sequence[int],
        *,
        dim: int = 64,
        n_latents: int = 16,
        heads: int = 4,
        layers: int = 1,
        bands: int = 4,
    ) -> None:
        super().__init__()
        check_heads(dim, heads)
        self.in_shape = positive("in_shape", in_shape)
        self.out_shape = image_shape("out_shape", out_shape)
        check_at_least(1, n_latents=n_latents)
        check_repetitions(layers=layers)
        self.register_buffer("places", fourier_features(self.out_shape[1:], bands), persistent=False)
        self.latents = nn.Linear(math.prod(self.in_shape), n_latents * dim)
        nn.init.normal_(self.latents.weight, std=self.latents.in_features**-0.5)  # latents of unit variance
        self.blocks = nn.Sequential(
            *(TransformerBlock(MultiHeadAttention(dim, heads), FeedForward(dim, 2 * dim)) for _ in range(layers))
        )
        self.ask = nn.Linear(self.places.shape[1], dim)
        self.look = LookBlock(dim, dim, heads, 2 * dim, _SHARPNESS * (dim // heads) ** -0.5)
        self.norm = nn.LayerNorm(dim)
        self.output = nn.Linear(dim, self.out_shape[0])

    def forward(self, z: Tensor) -> Tensor:
        latents = self.latents(z.flatten(1))
        latents = self.blocks(latents.unflatten(1, (-1, self.ask.out_features)))
        asking = self.ask(self.places).expand(len(z), -1, -1)  # (N, H W, E)
        seen = self.look(asking, latents, None)
        return self.output(self.norm(seen)).mT.unflatten(2, self.out_shape[1:])


def fourier_features(size: Sequence[int], bands: int) -> Tensor:
    """Places of the pixels of an image, row by row: (H W, 2 (2 K + 1)).

    Of each of the two coordinates, in [-1, 1], sin and cos of pi f, and the coordinate itself; K frequencies f, equally
    spaced from 1 to half the pixels along the longer side (Jaegle et al. 2021, section 3.2).

    Raises:
        ValueError: no bands.
    """
    check_at_least(1, bands=bands)
    ends = [(torch.arange(n, dtype=torch.float64) + 0.5) * 2 / n - 1 for n in size]
    places = torch.cartesian_prod(*ends)  # (H W, 2)
    angles = math.pi * places.unsqueeze(-1) * torch.linspace(1, max(max(size) / 2, 1), bands, dtype=torch.float64)
    return torch.cat([angles.sin(), angles.cos(), places.unsqueeze(-1)], -1).flatten(1).float()
