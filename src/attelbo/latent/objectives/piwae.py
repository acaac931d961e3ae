"""The partially importance-weighted autoencoder (Rainforth et al. 2018, "Tighter Variational Bounds are Not Necessarily
Better", arXiv:1802.04537, sec. 5.3).

Shapes: M groups of K samples, B batch.
"""

from collections.abc import Sequence

from torch import Tensor

from attelbo.latent.evidence import Evidence
from attelbo.latent.objectives.base import Turn, log_weights_of
from attelbo.latent.objectives.iwae import importance_bound
from attelbo.latent.objectives.miwae import MIWAE


class PIWAE(MIWAE):
    """Decoder, likelihood and prior are trained with the tight bound of all M K samples; encoder and posterior, whose
    signal-to-noise ratio vanishes as the bound gets tight, with that of MIWAE.

    Two optimizers that take turns on each minibatch, first the generative side. The paper takes both gradients from the
    same samples; here the second turn draws its own.

    Args:
        n_samples: M K, all samples of z for each x.
        n_groups: M, of the inference side.

    Raises:
        ValueError: a number below 1, or n_groups does not divide n_samples.
    """

    def turns(self) -> Sequence[Turn]:
        return (Turn(self, "generation"), Turn(super().forward, "inference", name="inference"))

    def forward(self, evidence: Evidence) -> Tensor:
        return -importance_bound(log_weights_of(evidence)).mean()
