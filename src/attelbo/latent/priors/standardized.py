"""The base of priors that are learned on standardized latents: z = center + spread * t, t of mean 0 and std 1.

Shapes: n samples, B batch, E event shape, D its number of dimensions.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from attelbo.latent.priors.base import Prior


class Standardized(Prior):
    """A subclass defines p(t); center and spread are buffers, not learned.

    Args:
        latent_shape: E, the shape of one z.
    """

    center: Tensor
    spread: Tensor

    def __init__(self, latent_shape: Sequence[int]) -> None:
        super().__init__()
        self.latent_shape = tuple(latent_shape)
        dim = math.prod(self.latent_shape)
        self.register_buffer("center", torch.zeros(dim))
        self.register_buffer("spread", torch.ones(dim))

    @torch.no_grad()
    def start_from(self, z: Tensor) -> None:
        """Set center and spread to the mean and the std of z (n, *E)."""
        self.center.copy_(z.flatten(1).mean(0))
        self.spread.copy_(z.flatten(1).std(0, correction=0).clamp(min=1e-3))

    def _standardize(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """t (n, B, D) of z (n, B, *E), and log |det dt/dz|."""
        return (z.flatten(2) - self.center) / self.spread, -self.spread.log().sum()

    def _place(self, t: Tensor) -> Tensor:
        """z (n, *E) of t (n, D)."""
        return (t * self.spread + self.center).reshape(-1, *self.latent_shape)
