"""What networks of diffusion priors share: the embedding of the noise level, layers that are steered by it, and the
network for latents in no order.

    x + gate(c) layer(norm(x) (1 + scale(c)) + shift(c))

Source: Peebles & Xie 2023, "Scalable Diffusion Models with Transformers", arXiv:2212.09748, section 3.2 (adaLN-Zero:
shift, scale and gate start at zero, so that each layer starts as the identity).

Shapes: N rows, D dimensions of z, E features, L noise levels, W waves.
"""

import math
from typing import Protocol

import torch
from torch import Tensor, nn

_WAVES = 16


class Steered(Protocol):
    """The layer inside of :class:`Adaptive`."""

    def __call__(self, x: Tensor, /) -> Tensor: ...


class NoiseLevels(nn.Module):
    """A vector (..., E) for each of the noise levels with these indices (...), learned from sines and cosines.

    Args:
        log_snr: the levels, (L,).
        dim: E.
    """

    waves: Tensor

    def __init__(self, log_snr: Tensor, dim: int) -> None:
        super().__init__()
        # From one wave over twice the range of levels to one over a fifteenth of it.
        frequencies = math.pi * torch.logspace(0, math.log10(30), _WAVES, dtype=log_snr.dtype)
        place = (log_snr - log_snr.min()) / (log_snr.max() - log_snr.min()).clamp(min=1e-9)
        angle = place.unsqueeze(-1) * frequencies
        self.register_buffer("waves", torch.cat([angle.sin(), angle.cos()], -1).float(), persistent=False)
        self.layers = nn.Sequential(nn.Linear(2 * _WAVES, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, level: Tensor) -> Tensor:
        return self.layers(self.waves[level])


class Adaptive(nn.Module):
    """x (..., E) -> x + gate * layer(norm(x) * (1 + scale) + shift), all three linear in the condition c (..., E).

    Args:
        dim: E.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, elementwise_affine=False)
        self.steer = _zero(nn.Linear(dim, 3 * dim))

    def forward(self, x: Tensor, c: Tensor, layer: Steered) -> Tensor:
        shift, scale, gate = self.steer(nn.functional.silu(c)).chunk(3, -1)
        return x + gate * layer(self.norm(x) * (1 + scale) + shift)


class AdaptiveOutput(nn.Module):
    """x (..., E) -> (..., O), linear in norm(x) * (1 + scale(c)) + shift(c); starts at zero.

    Args:
        dim: E.
        out_dim: O.
    """

    def __init__(self, dim: int, out_dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, elementwise_affine=False)
        self.steer = _zero(nn.Linear(dim, 2 * dim))
        self.linear = _zero(nn.Linear(dim, out_dim))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale = self.steer(nn.functional.silu(c)).chunk(2, -1)
        return self.linear(self.norm(x) * (1 + scale) + shift)


class ResidualDenoiser(nn.Module):
    """z_t (N, D) with a condition (N, E) or (1, E) -> (N, 2 D), by a residual network of fully connected layers.

    Args:
        n_latent: D.
        dim: E.
        layers: of the network, each with 2 E hidden units.
    """

    def __init__(self, n_latent: int, dim: int, layers: int) -> None:
        super().__init__()
        self.input = nn.Linear(n_latent, dim)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(dim, 2 * dim), nn.SiLU(), nn.Linear(2 * dim, dim)) for _ in range(layers)
        )
        self.around = nn.ModuleList(Adaptive(dim) for _ in range(layers))
        self.output = AdaptiveOutput(dim, 2 * n_latent)

    def forward(self, z: Tensor, c: Tensor) -> Tensor:
        h = self.input(z)
        for around, layer in zip(self.around, self.layers, strict=True):
            h = around(h, c, layer)
        return self.output(h, c)


def _zero(linear: nn.Linear) -> nn.Linear:
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear
