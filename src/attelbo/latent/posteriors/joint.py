"""Normal and categorical latents together (Dupont 2018, "Learning Disentangled Joint Continuous and Discrete
Representations", arXiv:1804.00104).

Shapes: B batch, F the encoder's output shape, D = latent_dim normal dimensions, C variables of K_c classes.
"""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from attelbo.building import Spec
from attelbo.checks import check_at_least
from attelbo.latent.arithmetic import bound_log_std
from attelbo.latent.distributions import DiagonalNormal, Joint, OneHotCategorical, RelaxedOneHot
from attelbo.latent.posteriors.base import Posterior, flat_features
from attelbo.latent.posteriors.gumbel_softmax import scheduled_temperature
from attelbo.latent.spaces import OneHot, Product, Real


class JointPosterior(Posterior):
    """q(z|x) = N(m(h), diag(s(h)^2)) prod_c Categorical(softmax(l_c(h))), all of them one linear map of the features.

    z is the D normal numbers, then the one-hot vectors, concatenated; relaxed in training, true samples in evaluation.

    Args:
        in_shape: F, the shape of h for one x.
        latent_dim: D, the number of normal dimensions.
        categories: K_c, the classes of each categorical variable.
        temperature: of the relaxation, a number or a schedule (``attelbo.latent.schedules``); 0.67 in the paper.

    Raises:
        ValueError: latent_dim below 1, no categories, one with fewer than 2 classes, or a temperature that is not
            positive.
    """

    distribution = Joint

    def __init__(
        self,
        in_shape: Sequence[int],
        latent_dim: int,
        categories: Sequence[int] = (10,),
        temperature: Spec | float = 0.67,
    ) -> None:
        super().__init__()
        check_at_least(1, latent_dim=latent_dim)
        if not categories:
            raise ValueError("categories must name at least one variable, got []")
        check_at_least(2, categories=min(categories))
        self.latent_shape = (latent_dim + sum(categories),)
        self._sizes = [latent_dim, latent_dim, *categories]
        self._parts = (Real((latent_dim,)), *(OneHot((1, n_classes)) for n_classes in categories))
        self.temperature = scheduled_temperature(temperature)
        self.head = nn.Linear(math.prod(in_shape), sum(self._sizes))

    @property
    def space(self) -> Product:
        return Product(self.latent_shape, self._parts)

    def at_step(self, step: int, total_steps: int) -> None:
        self.temperature.at_step(step, total_steps)

    def forward(self, h: Tensor) -> Joint:
        mean, log_std, *logits = self.head(flat_features(h)).split(self._sizes, dim=-1)
        normal = DiagonalNormal(mean, bound_log_std(log_std))
        choices = [self._choice(own.unsqueeze(1)) for own in logits]
        return Joint((normal, *choices), [part.shape for part in self._parts])

    def _choice(self, logits: Tensor) -> OneHotCategorical:
        return RelaxedOneHot(logits, self.temperature.value) if self.training else OneHotCategorical(logits)
