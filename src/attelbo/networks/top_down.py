"""The blocks of a deep top-down hierarchy (Child 2021, "Very Deep VAEs Generalize Autoregressive Models and Can
Outperform Them on Images", arXiv:2011.10650, section 3 and figure 3).

Shapes: N rows, C channels, H x W pixels of a level, Z latents at each pixel.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attelbo.networks.layers import Size, initialize


class Bottleneck(nn.Module):
    """(N, c_in, H, W) -> (N, c_out, H, W): four convolutions, 1-3-3-1, over c_hidden channels, each after a GELU.

    On maps of up to 2 x 2 pixels the middle ones are 1 x 1 too, as in the authors' code. With ``residual`` the input is
    added, which takes c_out = c_in.

    Args:
        c_in: channels of the input.
        c_hidden: of the middle.
        c_out: of the output.
        size: (H, W).
        residual: whether the input is added.
        last_scale: of the last convolution's initial weights; 0: starts at zero.
    """

    def __init__(
        self, c_in: int, c_hidden: int, c_out: int, size: Size, *, residual: bool = False, last_scale: float = 1.0
    ) -> None:
        super().__init__()
        kernel = 3 if min(size) > 2 else 1
        middle = [nn.Conv2d(c_hidden, c_hidden, kernel, padding=kernel // 2) for _ in range(2)]
        convolutions = [nn.Conv2d(c_in, c_hidden, 1), *middle]
        last = initialize(nn.Conv2d(c_hidden, c_out, 1))
        with torch.no_grad():
            last.weight.mul_(last_scale)
        layers: list[nn.Module] = []
        for convolution in convolutions:
            layers += [nn.GELU(), initialize(convolution, "gelu")]
        self.layers = nn.Sequential(*layers, nn.GELU(), last)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


Behind = Callable[[Size], nn.Module | None]
"""A layer that follows each residual block on maps of this size (H, W), from their shape to the same; None: none."""


def residual_block(channels: int, size: Size, depth: int, behind: Behind) -> nn.Module:
    """(N, C, H, W) -> (N, C, H, W): a residual bottleneck over a quarter of the channels, and what is to follow it.

    Args:
        channels: C.
        size: (H, W).
        depth: the number of layers of the hierarchy: initial branches are divided by its root.
        behind: what follows.
    """
    scale = 1 / math.sqrt(depth)
    block = Bottleneck(channels, max(channels // 4, 1), channels, size, residual=True, last_scale=scale)
    following = behind(size)
    return block if following is None else nn.Sequential(block, following)


class TopDownBlock(nn.Module):
    """One layer of latents: from the state h and the activations of x at this size to the parameters of q and of p, and
    from the chosen z to the next state.

    Args:
        channels: C.
        n_latent: Z.
        size: (H, W).
        depth: as of :func:`residual_block`.
        behind: what follows the residual block at the end.
    """

    def __init__(self, channels: int, n_latent: int, size: Size, depth: int, behind: Behind) -> None:
        super().__init__()
        hidden = max(channels // 4, 1)
        self.channels = channels
        self.n_latent = n_latent
        self.posterior = Bottleneck(2 * channels, hidden, 2 * n_latent, size)
        # Starts at N(0, 1), with no features.
        self.prior = Bottleneck(channels, hidden, 2 * n_latent + channels, size, last_scale=0.0)
        self.from_latent = initialize(nn.Conv2d(n_latent, channels, 1))
        with torch.no_grad():
            self.from_latent.weight.mul_(1 / math.sqrt(depth))
        self.out = residual_block(channels, size, depth, behind)

    def of_posterior(self, h: Tensor, activation: Tensor) -> Tensor:
        """(mean, log std) of q, (N, 2 Z, H, W)."""
        return self.posterior(torch.cat([h, activation], 1))

    def of_prior(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """(mean, log std) of p, (N, 2 Z, H, W), and features that are added to the state, (N, C, H, W)."""
        parameters, features = self.prior(h).split([2 * self.n_latent, self.channels], 1)
        return parameters, features

    def after(self, h: Tensor, features: Tensor, z: Tensor) -> Tensor:
        """The state below z (N, Z, H, W)."""
        return self.out(h + features + self.from_latent(z))


def resize(x: Tensor, size: Size) -> Tensor:
    """(N, C, ...) to (N, C, *size): up by nearest neighbour, down by average pooling."""
    if x.shape[-2:] == size:
        return x
    if size == (1, 1):
        return x.mean((2, 3), keepdim=True)  # the same numbers; pooling to one pixel has no rule for stacked replicas
    larger = size[0] > x.shape[-2] or size[1] > x.shape[-1]
    return F.interpolate(x, size) if larger else F.adaptive_avg_pool2d(x, size)
