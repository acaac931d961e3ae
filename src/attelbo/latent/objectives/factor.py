"""FactorVAE: the total correlation of the latents, estimated by a discriminator (Kim & Mnih 2018, "Disentangling by
Factorising", arXiv:1802.05983, eq. 2-3, algorithm 2).

Shapes: K samples, B batch, D latent dimensions.
"""

from collections.abc import Sequence

from torch import Tensor

from attelbo.checks import check_at_least, check_not_negative, check_positive
from attelbo.latent.critics import BETAS, Critic, loss_of_critic, shuffled
from attelbo.latent.evidence import Evidence
from attelbo.latent.objectives.base import Objective, Turn
from attelbo.latent.spaces import OneHot, Product, Space, Sphere


class Factor(Objective):
    """loss = -ELBO + gamma * TC, TC = KL(q(z) || prod_j q(z_j)) estimated by the mean logit of a discriminator.

    The discriminator tells z of the batch from z whose dimensions were permuted over the batch, each by itself; it
    takes its step after the model and, if the optimizer is Adam, has betas (0.5, 0.9). In the paper each side has its
    own minibatch (ours: the same one, with fresh noise), and the discriminator has six layers of 1,000 units and two
    logits in place of one; gamma is 10 to 40 on dSprites.

    Args:
        latent_shape: (D,).
        gamma: weight of the total correlation.
        hidden: units of the discriminator's hidden layers.
        n_samples: K, samples of z for each x.
        discriminator_rate: the learning rate of the discriminator, as a multiple of the model's.
        space: where z lives, real numbers if None. Numbers that depend on each other whatever q is, those of a one-hot
            vector or of a unit vector, have a total correlation that nothing but a collapse takes away.

    Raises:
        ValueError: latents that are no vector, or choices or unit vectors, a negative gamma, no rate, or a size or
            n_samples below 1.
    """

    def __init__(
        self,
        latent_shape: Sequence[int],
        gamma: float = 2.0,
        hidden: Sequence[int] = (256, 256, 256),
        n_samples: int = 1,
        discriminator_rate: float = 1.0,
        space: Space | None = None,
    ) -> None:
        super().__init__()
        check_at_least(1, n_samples=n_samples)
        if len(latent_shape) != 1:
            raise ValueError(f"latents must be a vector to be permuted by dimension, got shape {tuple(latent_shape)}")
        parts = space.parts if isinstance(space, Product) else (space,)
        if any(isinstance(part, OneHot | Sphere) for part in parts):
            raise ValueError(f"latents must be numbers that may be independent of each other, and there are {space}")
        check_not_negative(gamma=gamma)
        check_positive(discriminator_rate=discriminator_rate)
        self.discriminator_rate = discriminator_rate
        self.n_samples = n_samples
        self.gamma = gamma
        self.critic = Critic(latent_shape, hidden)

    def turns(self) -> Sequence[Turn]:
        return (
            Turn(self.forward, "model"),
            Turn(
                self.loss_of_discriminator,
                "objective",
                "discriminator",
                decodes=False,
                betas=BETAS,
                rate=self.discriminator_rate,
            ),
        )

    def forward(self, evidence: Evidence) -> Tensor:
        return evidence.distortion + evidence.rate + self.gamma * self.total_correlation(evidence.z)

    def total_correlation(self, z: Tensor) -> Tensor:
        """The estimate of TC in nats, a scalar, from z (K, B, D)."""
        return self.critic(z.flatten(0, 1)).mean()

    def loss_of_discriminator(self, evidence: Evidence) -> Tensor:
        z = evidence.z
        return loss_of_critic(self.critic(z.flatten(0, 1)), self.critic(shuffled(z).flatten(0, 1)))
