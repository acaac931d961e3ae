"""Aggressive training of the encoder (He et al. 2019, "Lagging Inference Networks and Posterior Collapse in Variational
Autoencoders", arXiv:1901.05534, algorithm 1).
"""

from attelbo.building import Spec
from attelbo.checks import check_at_least
from attelbo.latent.objectives.elbo import ELBO
from attelbo.latent.schedules import Pulse


class Lagging(ELBO):
    """The ELBO; in the first part of a run encoder and posterior take ``inner_steps`` steps, each on a new minibatch,
    for each step of decoder, likelihood and prior.

    The paper continues the inner loop until the bound stops improving, and ends the first part when the mutual
    information does; here both are fixed. While a side waits, its learning rate is 0 but its optimizer keeps averaging
    gradients, so that its next step rests on more than one minibatch.

    Args:
        inner_steps: of the inference side for each of the other.
        fraction: of the run's steps, the first part.
        weight: as of ELBO.
        free_bits: as of ELBO.
        n_samples: K, samples of z for each x.

    Raises:
        ValueError: inner_steps below 1, fraction outside 0 to 1, or as ELBO does.
    """

    def __init__(
        self,
        inner_steps: int = 10,
        fraction: float = 0.2,
        weight: Spec | float = 1.0,
        free_bits: float = 0.0,
        n_samples: int = 1,
    ) -> None:
        super().__init__(weight, free_bits, n_samples)
        check_at_least(1, inner_steps=inner_steps)
        self.generation_rate = Pulse(inner_steps, fraction)
