"""The diagonal normal posterior (Kingma & Welling 2014, "Auto-Encoding Variational Bayes", eq. 9).

Shapes: B batch, F the encoder's output shape, D = latent_dim.
"""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from attelbo.checks import check_at_least
from attelbo.latent.arithmetic import bound_log_std
from attelbo.latent.distributions import DiagonalNormal
from attelbo.latent.posteriors.base import Posterior, flat_features


class DiagonalNormalPosterior(Posterior):
    """q(z|x) = N(m(h), diag(s(h)^2)), with (m, log s) one linear map of the flattened features h.

    ``log s`` is clamped to [-10, 10]: see ``attelbo.latent.arithmetic.LOG_STD_BOUND``.

    Args:
        in_shape: F, the shape of h for one x.
        latent_dim: D, the number of dimensions of z.

    Raises:
        ValueError: latent_dim below 1.
    """

    distribution = DiagonalNormal

    def __init__(self, in_shape: Sequence[int], latent_dim: int) -> None:
        super().__init__()
        check_at_least(1, latent_dim=latent_dim)
        self.latent_shape = (latent_dim,)
        self.head = nn.Linear(math.prod(in_shape), 2 * latent_dim)

    def forward(self, h: Tensor) -> DiagonalNormal:
        mean, log_std = self.head(flat_features(h)).chunk(2, dim=-1)
        return DiagonalNormal(mean, bound_log_std(log_std))
