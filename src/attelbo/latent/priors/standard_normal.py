"""The standard normal prior (Kingma & Welling 2014, "Auto-Encoding Variational Bayes", appendix B).

Shapes: n samples, B batch, E event shape, D its number of dimensions.
"""

import torch
from torch import Tensor

from attelbo.latent.arithmetic import LOG_2PI, sum_event
from attelbo.latent.distributions import DiagonalNormal, Distribution, FullNormal, LowRankNormal
from attelbo.latent.priors.base import FixedPrior


class StandardNormal(FixedPrior):
    """p(z) = N(0, I). The KL of a normal posterior is exact.

    Args:
        latent_shape: E, the shape of one z.
    """

    def log_prob(self, z: Tensor) -> Tensor:
        dimensions = z[0, 0].numel()
        return -0.5 * (sum_event(z.square(), 2) + dimensions * LOG_2PI)

    def sample(self, n: int) -> Tensor:
        return torch.randn((n, *self.latent_shape), dtype=self._zero.dtype, device=self._zero.device)

    def exact_kl(self, q: Distribution) -> Tensor | None:
        """KL(q || N(0, I)), nats: of a diagonal normal by dimension (B, D), of any other (B, 1)."""
        if isinstance(q, DiagonalNormal):
            return q.divergence_from_standard.flatten(1)
        if isinstance(q, FullNormal):
            trace = q.scale_tril.square().sum((-2, -1))
            quadratic = trace + q.mean.square().sum(-1) - q.mean.shape[-1]
            return (0.5 * quadratic - q.half_log_det).unsqueeze(-1)
        if isinstance(q, LowRankNormal):
            quadratic = (q.variance + q.mean.square() - 1).sum(-1)
            return (0.5 * quadratic - q.half_log_det).unsqueeze(-1)
        return None
