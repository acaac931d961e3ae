"""A learned mixture of diagonal Gaussians as prior (Dilokthanakul et al. 2016; the "MoG" baseline of
Tomczak & Welling 2018, "VAE with a VampPrior").

Shapes: n samples, B batch, E event shape, M components.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from attelbo.checks import check_at_least
from attelbo.latent.arithmetic import LOG_2PI, sum_event
from attelbo.latent.priors.base import Prior


class MixtureOfGaussians(Prior):
    """p(z) = sum_m w_m N(z; mean_m, diag(std_m^2)), with weights, means and stds learned.

    Starts from equal weights, unit stds and means drawn from N(0, I): distinct, or all components would always receive
    the same gradient. No closed-form KL exists; the K-sample estimate is used. Memory grows with n * B * M * D.

    Args:
        latent_shape: E, the shape of one z.
        n_components: M.

    Raises:
        ValueError: n_components below 1.
    """

    def __init__(self, latent_shape: Sequence[int], n_components: int = 10) -> None:
        super().__init__()
        check_at_least(1, n_components=n_components)
        self.latent_shape = tuple(latent_shape)
        self.logits = nn.Parameter(torch.zeros(n_components))
        self.means = nn.Parameter(torch.randn(n_components, *self.latent_shape))
        self.log_stds = nn.Parameter(torch.zeros(n_components, *self.latent_shape))

    def log_prob(self, z: Tensor) -> Tensor:
        # Not expanded into matrix products, which would cancel in float32.
        standardized = (z.unsqueeze(2) - self.means) * (-self.log_stds).exp()  # (n, B, M, *E)
        normalizer = sum_event(self.log_stds + 0.5 * LOG_2PI, 1)  # (M,)
        log_components = -0.5 * sum_event(standardized.square(), 3) - normalizer  # (n, B, M)
        return torch.logsumexp(log_components + self.logits.log_softmax(0), dim=-1)

    @torch.no_grad()
    def start_from(self, z: Tensor) -> None:
        """Means at samples drawn from z (n, *E), each dimension's std that of z shared among the components."""
        m = len(self.means)
        self.means.copy_(z[torch.randint(len(z), (m,), device=z.device)])
        shrink = m ** (-1 / z[0].numel())  # so that together they fill about the volume of z
        self.log_stds.copy_((z.std(0, correction=0) * shrink).clamp(min=1e-3).log().expand_as(self.log_stds))

    def sample(self, n: int) -> Tensor:
        component = torch.multinomial(self.logits.softmax(0), n, replacement=True)
        means = self.means[component]
        return torch.addcmul(means, self.log_stds[component].exp(), torch.randn_like(means))
