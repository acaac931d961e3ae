"""A deterministic encoder (Ghosh, Sajjadi, Vergari, Black & Schoelkopf 2020, "From Variational to Deterministic
Autoencoders", arXiv:1903.12436, sec. 4; of adversarial autoencoders: Makhzani et al. 2016, sec. 2).

Shapes: B batch, F the encoder's output shape, D = latent_dim.
"""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from attelbo.checks import check_at_least
from attelbo.latent.distributions import Point
from attelbo.latent.posteriors.base import Posterior, flat_features


class DeterministicPosterior(Posterior):
    """z = one linear map of the flattened features h, without noise.

    There is no density, so no bound on log p(x), no KL and no likelihood by importance sampling; samples of the prior
    look like the z that the decoder was trained on only as far as the objective, or a prior fitted afterwards, ensures
    it.

    Args:
        in_shape: F, the shape of h for one x.
        latent_dim: D, the number of dimensions of z.

    Raises:
        ValueError: latent_dim below 1.
    """

    distribution = Point
    has_density = False

    def __init__(self, in_shape: Sequence[int], latent_dim: int) -> None:
        super().__init__()
        check_at_least(1, latent_dim=latent_dim)
        self.latent_shape = (latent_dim,)
        self.head = nn.Linear(math.prod(in_shape), latent_dim)

    def forward(self, h: Tensor) -> Point:
        return Point(self.head(flat_features(h)))
