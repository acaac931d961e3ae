"""Discriminators: networks that tell real samples from generated ones, and the losses of both players.

Goodfellow et al. 2014, "Generative Adversarial Nets", arXiv:1406.2661. The logit of an optimal discriminator is the log
density ratio log p_real / p_made, which makes it an estimator too (Sugiyama et al. 2012).

Shapes: N samples, E the shape of one, (C, H, W) an image.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attelbo.latent.arithmetic import full_precision

SLOPE = 0.2
"""Of the leaky ReLU, as in FactorVAE and DCGAN."""

BETAS = (0.5, 0.9)
"""Of Adam, as in FactorVAE's discriminator; with the usual (0.9, 0.999) VAE/GAN collapses."""


class Critic(nn.Module):
    """t (N, *E) -> logit (N,), by fully connected layers; high for real samples.

    Args:
        in_shape: E.
        hidden: units of each hidden layer; empty for a linear one.

    Raises:
        ValueError: a size below 1.
    """

    def __init__(self, in_shape: Sequence[int], hidden: Sequence[int]) -> None:
        super().__init__()
        _check_sizes("hidden", hidden)
        sizes = (math.prod(in_shape), *hidden)
        layers: list[nn.Module] = [nn.Flatten()]
        for n_in, n_out in pairwise(sizes):
            layers += [_initialize(nn.Linear(n_in, n_out)), nn.LeakyReLU(SLOPE)]
        self.layers = nn.Sequential(*layers, nn.Linear(sizes[-1], 1))

    def forward(self, t: Tensor) -> Tensor:
        return full_precision(self.layers(t)).squeeze(-1)


class ImageCritic(nn.Module):
    """x (N, C, H, W) -> logit (N,) and the features of the last level (N, F), of any image size.

    Strided 3 x 3 convolutions with group normalization over all channels: batch normalization, as in DCGAN and VAE/GAN,
    would tie the rows of a batch together. Normalized features have a fixed scale, so that distances between them are
    meaningful.

    Args:
        data_shape: (C, H, W).
        channels: of each level; each halves height and width, rounding up.

    Raises:
        ValueError: not an image, no level, or a size below 1.
    """

    def __init__(self, data_shape: Sequence[int], channels: Sequence[int]) -> None:
        super().__init__()
        if len(data_shape) != 3:
            raise ValueError(f"data_shape must be (channels, height, width) for images, got {tuple(data_shape)}")
        if not channels:
            raise ValueError("channels must name at least one level, got []")
        _check_sizes("channels", channels)
        layers: list[nn.Module] = []
        for c_in, c_out in pairwise((data_shape[0], *channels)):
            convolution = _initialize(nn.Conv2d(c_in, c_out, 3, stride=2, padding=1))
            layers += [convolution, nn.GroupNorm(1, c_out), nn.LeakyReLU(SLOPE)]
        self.layers = nn.Sequential(*layers)
        height, width = (math.ceil(size / 2 ** len(channels)) for size in data_shape[1:])
        self.output = nn.Linear(channels[-1] * height * width, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = full_precision(self.layers(x)).flatten(1)
        return full_precision(self.output(features)).squeeze(-1), features


def loss_of_critic(real: Tensor, *made: Tensor) -> Tensor:
    """The cross-entropies of logits of real samples and of one or several kinds of made ones, (N,) each, added, a
    scalar, nats: log 2 for each at chance."""
    loss = F.softplus(-real).mean()
    for each in made:
        loss = loss + F.softplus(each).mean()
    return loss


def loss_of_maker(made: Tensor) -> Tensor:
    """-log D(made), a scalar, nats, of logits (N,): in place of log(1 - D), whose gradient vanishes where the critic is
    certain (Goodfellow et al., sec. 3)."""
    return F.softplus(-made).mean()


def shuffled(z: Tensor) -> Tensor:
    """z (K, B, D) with each dimension permuted over the batch by itself: draws from the product of the marginals.

    Kim & Mnih 2018, "Disentangling by Factorising", algorithm 1.
    """
    order = torch.rand(z.shape, dtype=z.dtype, device=z.device).argsort(1)
    return z.gather(1, order)


def _initialize(layer: nn.Linear | nn.Conv2d) -> nn.Module:
    nn.init.kaiming_normal_(layer.weight, SLOPE)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


def _check_sizes(name: str, sizes: Sequence[int]) -> None:
    if any(size < 1 for size in sizes):
        raise ValueError(f"{name} must be positive numbers, got {list(sizes)}")
