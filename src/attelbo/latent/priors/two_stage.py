"""A second, small VAE as prior on the latents of the first (Dai & Wipf 2019, "Diagnosing and Enhancing VAE Models",
arXiv:1903.05789, section 4).

    p(z) = integral p(z|u) p(u) du,   u ~ N(0, I),   z|u ~ N(g(u), gamma^2 I)

The integral has no closed form. With samples of q(u|z) = N(m(z), diag(s(z)^2)) its value is estimated without bias:

    p(z) = E[1/S sum_s w_s],   w_s = p(z|u_s) p(u_s) / q(u_s|z),   u_s ~ q(u|z)

so log p(z) is at least the expectation of the logarithm of the mean weight (Burda et al. 2016, "Importance Weighted
Autoencoders", eq. 8), which takes its place. Bounds on log p(x) stay bounds, each a little looser: with u beside z they
are those of a VAE with two layers. And p(x|z) / q(z|x) times the mean weight is p(x) in expectation over z and u, so
importance sampling converges to log p(x) itself, whatever S.

Shapes: S samples of u, n samples of z, B batch, E event shape, D its number of dimensions, of z and of u.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from attelbo.checks import check_at_least
from attelbo.latent.arithmetic import LOG_2PI, bound_log_std, full_precision
from attelbo.latent.distributions import DiagonalNormal
from attelbo.latent.flows.base import check_hidden
from attelbo.latent.priors.standardized import Standardized

_GAMMA = 0.3
"""The initial gamma, where z has a std of 1, and the initial std of q(u|z)."""


class TwoStage(Standardized):
    """u ~ N(0, I), z|u = center + spread * N(g(u), gamma^2 I), of z flattened; as many u as z, as in the paper.

    ``log_prob`` is an estimate with fresh noise, in expectation at most log p(z): see above. gamma is learned, which is
    what the paper's theory rests on.

    Differs from the paper: the mean of z given u is u + network(u), and that of u given z likewise, where the paper has
    the inputs beside the last hidden layer; and gamma starts at 0.3, not 1. So p(z) starts as a normal distribution
    of which u explains nearly all. From gamma = 1, or with networks alone, training ends with a collapsed posterior of
    u, and p(z) is still a normal distribution. S = 1 is the paper's objective; more samples tighten the bound in
    training too.

    Args:
        latent_shape: E, the shape of one z.
        hidden: units of each hidden layer of both networks.
        n_samples: S.

    Raises:
        ValueError: n_samples below 1, no hidden layer, or one without a unit.
    """

    estimates = True

    def __init__(self, latent_shape: Sequence[int], hidden: Sequence[int] = (128, 128), n_samples: int = 8) -> None:
        super().__init__(latent_shape)
        check_at_least(1, n_samples=n_samples)
        check_hidden(hidden)
        self.n_samples = n_samples
        dim = math.prod(self.latent_shape)
        self.encoder = _network((dim, *hidden, 2 * dim), [0.0] * dim + [math.log(_GAMMA)] * dim)
        self.decoder = _network((dim, *hidden, dim), [0.0] * dim)
        self.log_gamma = nn.Parameter(torch.tensor(math.log(_GAMMA)))

    def log_prob(self, z: Tensor) -> Tensor:
        t, log_scale = self._standardize(z)
        q = self.infer(t.flatten(0, 1))
        u, log_q = q.rsample_with_log_prob(self.n_samples)  # (S, n B, D), (S, n B)
        log_joint = self.log_joint(t.flatten(0, 1), u)
        log_mean = (log_joint - log_q).logsumexp(0) - math.log(self.n_samples)
        return log_mean.unflatten(0, t.shape[:2]) + log_scale

    def sample(self, n: int) -> Tensor:
        u, noise = torch.randn((2, n, len(self.center)), dtype=self.center.dtype, device=self.center.device)
        return self._place(torch.addcmul(self.decode(u), self.log_gamma.exp(), noise))

    def infer(self, t: Tensor) -> DiagonalNormal:
        """q(u|t) of standardized latents t (N, D)."""
        shift, log_std = self.encoder(t).chunk(2, dim=-1)
        return DiagonalNormal(t + full_precision(shift), bound_log_std(log_std))

    def decode(self, u: Tensor) -> Tensor:
        """g(u) of u (..., D), the same shape."""
        return u + full_precision(self.decoder(u))

    def log_joint(self, t: Tensor, u: Tensor) -> Tensor:
        """log p(t, u) of t (N, D) and u (S, N, D): (S, N), nats."""
        deviation = (t - self.decode(u)) * (-self.log_gamma).exp()
        normalizer = t.shape[-1] * (LOG_2PI + self.log_gamma)
        return -0.5 * (deviation.square() + u.square()).sum(-1) - normalizer


def _network(sizes: Sequence[int], start: Sequence[float]) -> nn.Sequential:
    """Linear layers with ELU between them, whose initial output is a constant."""
    *hidden, output = [nn.Linear(n_inputs, n_outputs) for n_inputs, n_outputs in pairwise(sizes)]
    with torch.no_grad():
        output.weight.zero_()
        output.bias.copy_(torch.tensor(start))
    return nn.Sequential(*(layer for linear in hidden for layer in (linear, nn.ELU())), output)
