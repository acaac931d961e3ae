"""VAE/GAN: reconstruction in the features of a discriminator of images (Larsen, Sonderby, Larochelle & Winther 2016,
"Autoencoding beyond pixels using a learned similarity metric", arXiv:1512.09300, algorithm 1).

Shapes: B batch, (C, H, W) image, F features.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from attelbo.checks import check_not_negative, check_positive
from attelbo.latent.critics import BETAS, ImageCritic, loss_of_critic, loss_of_maker
from attelbo.latent.evidence import Evidence
from attelbo.latent.objectives.base import Objective, Turn, generative_of


class VAEGAN(Objective):
    """Three turns on each minibatch, each with its own optimizer; x^ = E[x|z] of q(z|x), x_p = E[x|z] of the prior:

      - the encoder: KL(q || p) + L, with L = |f(x) - f(x^)|^2 / 2 over the features f of the discriminator's last
        level, which is -log N(f(x); f(x^), I) but for a constant, nats: the loss that is reported;
      - the decoder: gamma * L - log D(x^) - log D(x_p);
      - the discriminator: -log D(x) - log(1 - D(x^)) - log(1 - D(x_p)).

    The paper computes all three from one forward pass, and the decoder's adversarial part is log(1 - D); ours computes
    each turn with the networks as updated by the one before, and uses -log D, whose gradient does not vanish. If the
    optimizer is Adam, its betas are (0.5, 0.9) for all three: with the usual ones the game collapses. The likelihood's
    own log p(x|z) is not trained: ELBO and reconstruction are reported for comparison only.

    Real images should have values that the decoder's mean can have: grey levels (``data.binarize=none``).

    Args:
        data_shape: (C, H, W).
        channels: of the discriminator's levels; each halves height and width.
        gamma: weight of L for the decoder.
        discriminator_rate: the learning rate of the discriminator, as a multiple of the model's.

    Raises:
        ValueError: no images, no level, a size below 1, a negative gamma, or no rate.
    """

    n_samples = 1
    needs_generative = True
    needs_eta = True
    watched = None

    def __init__(
        self,
        data_shape: Sequence[int],
        channels: Sequence[int] = (32, 64, 128),
        gamma: float = 1.0,
        discriminator_rate: float = 1.0,
    ) -> None:
        super().__init__()
        check_not_negative(gamma=gamma)
        check_positive(discriminator_rate=discriminator_rate)
        self.discriminator_rate = discriminator_rate
        self.gamma = gamma
        self.critic = ImageCritic(data_shape, channels)

    def turns(self) -> Sequence[Turn]:
        return (
            Turn(self.forward, "inference", betas=BETAS),
            Turn(self.loss_of_decoder, "generation", "decoder", betas=BETAS),
            Turn(self.loss_of_discriminator, "objective", "discriminator", betas=BETAS, rate=self.discriminator_rate),
        )

    def forward(self, evidence: Evidence) -> Tensor:
        x, reconstructed = self._images(evidence)
        return evidence.rate + _distance(self.critic(x)[1], self.critic(reconstructed)[1])

    def loss_of_decoder(self, evidence: Evidence) -> Tensor:
        x, reconstructed = self._images(evidence)
        logits, features = self.critic(reconstructed)
        invented, _ = self.critic(self._invented(evidence))
        return self.gamma * _distance(self.critic(x)[1], features) + loss_of_maker(logits) + loss_of_maker(invented)

    def loss_of_discriminator(self, evidence: Evidence) -> Tensor:
        with torch.no_grad():
            made = (*self._images(evidence), self._invented(evidence))
        real, reconstructed, invented = (self.critic(images)[0] for images in made)
        return loss_of_critic(real, reconstructed, invented)

    @staticmethod
    def _images(evidence: Evidence) -> tuple[Tensor, Tensor]:
        """x and x^, (B, C, H, W)."""
        assert evidence.x is not None
        assert evidence.eta is not None
        return evidence.x, generative_of(evidence).likelihood.mean(evidence.eta[0])

    @staticmethod
    def _invented(evidence: Evidence) -> Tensor:
        """x_p, as many as there are x, and of the same labels."""
        generative, y = generative_of(evidence), evidence.y
        z = generative.sample_prior(evidence.z.shape[1], y)
        return generative.likelihood.mean(generative.decode(z.unsqueeze(0), y)[0])


def _distance(real: Tensor, made: Tensor) -> Tensor:
    """|f - f^|^2 / 2 of features (B, F), the mean over the batch."""
    return 0.5 * (real - made).square().sum(1).mean()
