"""The normal posterior whose means are normalized over the batch (Zhu et al. 2020, "A Batch Normalized Inference
Network Keeps the KL Vanishing Away", arXiv:2004.12585, eqs. 6 - 8 and algorithm 1).

    m_d = gamma (m'_d - average of m'_d) / deviation of m'_d + beta_d

gamma is fixed, beta learned: over the data, each mean has the variance gamma^2. With a standard normal prior the KL is,
whatever the decoder does, at least D gamma^2 / 2 nats, for

    E[KL] = 1/2 sum_d (Var(m_d) + E[m_d]^2 + E[s_d^2 - log s_d^2 - 1]) >= D gamma^2 / 2

as long as the variance of m'_d is far above eps.

Shapes: B batch, F the encoder's output shape, D = latent_dim.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from attelbo.checks import check_at_least, check_positive
from attelbo.latent.arithmetic import bound_log_std, full_precision
from attelbo.latent.distributions import DiagonalNormal
from attelbo.latent.posteriors.base import Posterior, flat_features


class BatchNormalizedPosterior(Posterior):
    """q(z|x) = N(m(h), diag(s(h)^2)), each mean normalized over the batch in training, and in evaluation by moving
    averages from training, where each q depends on its own x only and the bound is valid.

    A batch that is computed in parts (``trainer.micro_batches``) or on several devices is normalized part by part; the
    moving averages are over all parts. A batch of one row, such as an epoch's last, has no variance: it is normalized
    as in evaluation and does not move the averages.

    Args:
        in_shape: F, the shape of h for one x.
        latent_dim: D, the number of dimensions of z.
        gamma: the standard deviation of each mean over the data.
        momentum: the weight of a batch in the moving averages.
        eps: added to the variance.

    Raises:
        ValueError: latent_dim below 1, gamma or eps not positive, or a momentum outside (0, 1].
    """

    distribution = DiagonalNormal
    running_averages = ("average", "variance")
    average: Tensor
    variance: Tensor

    def __init__(
        self,
        in_shape: Sequence[int],
        latent_dim: int,
        gamma: float = 0.5,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        check_at_least(1, latent_dim=latent_dim)
        check_positive(gamma=gamma, eps=eps)
        if not 0 < momentum <= 1:
            raise ValueError(f"momentum must be in (0, 1], got {momentum}")
        self.latent_shape = (latent_dim,)
        self.gamma = gamma
        self.momentum = momentum
        self.eps = eps
        n_features = math.prod(in_shape)
        self.means = nn.Linear(n_features, latent_dim, bias=False)  # the normalization would cancel it
        self.log_stds = nn.Linear(n_features, latent_dim)
        self.shift = nn.Parameter(torch.zeros(latent_dim))
        self.register_buffer("average", torch.zeros(latent_dim))
        self.register_buffer("variance", torch.ones(latent_dim))

    def forward(self, h: Tensor) -> DiagonalNormal:
        h = flat_features(h)
        mean = self.gamma * self._normalized(full_precision(self.means(h))) + self.shift
        return DiagonalNormal(mean, bound_log_std(self.log_stds(h)))

    def _normalized(self, raw: Tensor) -> Tensor:
        """(B, D) with mean 0 and variance 1, by the statistics of the batch or the moving ones."""
        if not self.training or len(raw) < 2:
            return (raw - self.average) * (self.variance + self.eps).rsqrt()
        average, variance = raw.mean(0), raw.var(0, correction=0)
        with torch.no_grad():
            self.average.lerp_(average.to(self.average.dtype), self.momentum)
            self.variance.lerp_(variance.to(self.variance.dtype), self.momentum)
        return (raw - average) * (variance + self.eps).rsqrt()
