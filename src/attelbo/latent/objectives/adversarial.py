"""Adversarial autoencoders (Makhzani, Shlens, Jaitly, Goodfellow & Frey 2016, "Adversarial Autoencoders",
arXiv:1511.05644, sec. 2).

Shapes: B batch, E event shape of z.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from attelbo.checks import check_positive
from attelbo.latent.critics import Critic, loss_of_critic, loss_of_maker
from attelbo.latent.evidence import Evidence
from attelbo.latent.objectives.base import Objective, Turn, prior_samples


class Adversarial(Objective):
    """Three turns on each minibatch, each with its own optimizer:

      - encoder and decoder reconstruct: -E_q[log p(x|z)], the loss that is reported;
      - the discriminator tells samples of the prior from z of the batch;
      - the encoder makes z that it takes for samples of the prior: -log D(z).

    This matches the aggregate posterior to the prior, which needs no density, only samples; the parameters of a prior
    are not trained. q(z|x) may be a point or a distribution; in the latter case the reported ELBO is a bound on log
    p(x) as always, though it is not maximized. Two hidden layers of 1,000 ReLU units in the paper.

    Args:
        latent_shape: E.
        hidden: units of the discriminator's hidden layers.
        discriminator_rate: the learning rate of the discriminator, as a multiple of the model's.

    Raises:
        ValueError: a size below 1, or no rate.
    """

    n_samples = 1
    needs_generative = True
    needs_density = False
    watched = None

    def __init__(
        self, latent_shape: Sequence[int], hidden: Sequence[int] = (256, 256), discriminator_rate: float = 1.0
    ) -> None:
        super().__init__()
        check_positive(discriminator_rate=discriminator_rate)
        self.discriminator_rate = discriminator_rate
        self.critic = Critic(latent_shape, hidden)

    def turns(self) -> Sequence[Turn]:
        return (
            Turn(self.forward, "model"),
            Turn(self.loss_of_discriminator, "objective", "discriminator", decodes=False, rate=self.discriminator_rate),
            Turn(self.loss_of_generator, "inference", "generator", decodes=False),
        )

    def forward(self, evidence: Evidence) -> Tensor:
        return evidence.distortion

    def loss_of_discriminator(self, evidence: Evidence) -> Tensor:
        z = evidence.z.flatten(0, 1)
        with torch.no_grad():
            drawn = prior_samples(evidence)
        return loss_of_critic(self.critic(drawn), self.critic(z))

    def loss_of_generator(self, evidence: Evidence) -> Tensor:
        return loss_of_maker(self.critic(evidence.z.flatten(0, 1)))
