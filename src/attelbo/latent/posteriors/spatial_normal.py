"""A map of diagonal normals (Rombach et al. 2022, "High-Resolution Image Synthesis with Latent Diffusion Models",
sec. 3.1, the KL-regularized autoencoder).

Shapes: B batch, (C, H, W) the encoder's feature map, or (C,), one pixel; D = latent_dim, z (D, H, W) or (D,).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from attelbo.checks import check_at_least, check_positive
from attelbo.latent.arithmetic import bound_log_std
from attelbo.latent.distributions import DiagonalNormal
from attelbo.latent.posteriors.base import Posterior


class SpatialNormalPosterior(Posterior):
    """q(z|x) = N(m(h), diag(s(h)^2)) over maps z (D, H, W), with (m, log s) a 1 x 1 convolution of the features h.

    ``log s`` is clamped to [-10, 10]: see ``attelbo.latent.arithmetic.LOG_STD_BOUND``.

    Differs from the paper: there the KL weighs about 1e-6 in the loss, here 1 unless
    ``model.objective.weight`` says otherwise.

    Args:
        in_shape: (C, H, W) or (C,).
        latent_dim: D, the dimensions of z at each pixel.
        initial_std: about what ``s`` is at first.

    Raises:
        ValueError: latent_dim below 1, or a standard deviation that is not positive.
    """

    distribution = DiagonalNormal

    def __init__(self, in_shape: Sequence[int], latent_dim: int, initial_std: float = 1.0) -> None:
        super().__init__()
        check_at_least(1, latent_dim=latent_dim)
        check_positive(initial_std=initial_std)
        channels, *pixels = in_shape
        self.latent_shape = (latent_dim, *pixels)
        self.head = nn.Linear(channels, 2 * latent_dim)
        with torch.no_grad():
            self.head.bias[latent_dim:] += math.log(initial_std)

    def forward(self, h: Tensor) -> DiagonalNormal:
        mean, log_std = self.head(h.movedim(1, -1)).movedim(-1, 1).chunk(2, dim=1)
        return DiagonalNormal(mean, bound_log_std(log_std))
