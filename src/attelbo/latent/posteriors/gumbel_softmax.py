"""The categorical posterior (Jang, Gu & Poole 2017, "Categorical Reparameterization with Gumbel-Softmax"; Maddison
et al. 2017, "The Concrete Distribution").

Shapes: B batch, F the encoder's output shape, G = latent_dim variables of K classes.
"""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from attelbo.building import Spec
from attelbo.checks import check_at_least
from attelbo.latent.distributions import OneHotCategorical, RelaxedOneHot
from attelbo.latent.posteriors.base import Posterior, flat_features
from attelbo.latent.scheduled import Scheduled
from attelbo.latent.spaces import OneHot


class GumbelSoftmaxPosterior(Posterior):
    """q(z|x) = prod_g Categorical(softmax(l_g(h))), with the logits l one linear map of the flattened features h.

    In training z is relaxed; in evaluation it is a one-hot sample of the categorical, so that ELBO and NLL are bounds
    for the discrete model: see :class:`~attelbo.latent.distributions.RelaxedOneHot`.

    Args:
        in_shape: F, the shape of h for one x.
        latent_dim: G, the number of variables.
        n_classes: K.
        temperature: of the relaxation, a number or a schedule (``attelbo.latent.schedules``); 2/3 is what Maddison et
            al. advise for 8 classes, Jang et al. go from 1 to 1/2.
        hard: one-hot in training too, with the gradient of the relaxed z.

    Raises:
        ValueError: latent_dim below 1, n_classes below 2, or a temperature that is not positive.
    """

    distribution = OneHotCategorical

    def __init__(
        self,
        in_shape: Sequence[int],
        latent_dim: int,
        n_classes: int = 10,
        temperature: Spec | float = 0.67,
        hard: bool = False,
    ) -> None:
        super().__init__()
        check_at_least(1, latent_dim=latent_dim)
        check_at_least(2, n_classes=n_classes)
        self.latent_shape = (latent_dim, n_classes)
        self.hard = hard
        self.temperature = scheduled_temperature(temperature)
        self.head = nn.Linear(math.prod(in_shape), latent_dim * n_classes)

    @property
    def space(self) -> OneHot:
        return OneHot(self.latent_shape)

    def at_step(self, step: int, total_steps: int) -> None:
        self.temperature.at_step(step, total_steps)

    def forward(self, h: Tensor) -> OneHotCategorical:
        logits = self.head(flat_features(h)).unflatten(-1, self.latent_shape)
        return RelaxedOneHot(logits, self.temperature.value, self.hard) if self.training else OneHotCategorical(logits)


def scheduled_temperature(temperature: Spec | float) -> Scheduled:
    """A temperature that follows its schedule.

    Raises:
        ValueError: it is not positive at each step of a run of 1,000.
    """
    scheduled = Scheduled(temperature, "temperature")
    lowest = min(scheduled.schedule(step, 1000) for step in range(1001))
    if lowest <= 0:
        raise ValueError(f"temperature must be positive, got {lowest}")
    return scheduled
