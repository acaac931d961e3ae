"""Shared by quantizing posteriors: vectors at the places of a feature map, and their codes.

Shapes: B batch, F the encoder's output, (C,) or (C, H, W); (H, W) its places, none for a vector; Q codes at each place,
S = (H, W), (Q,) or (H, W, Q) the positions of codes; D = latent_dim.
"""

from abc import abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

from attelbo.checks import check_at_least
from attelbo.latent.arithmetic import full_precision, sum_event
from attelbo.latent.distributions import Quantized
from attelbo.latent.posteriors.base import Posterior
from attelbo.latent.spaces import Codes


class QuantizingPosterior(Posterior):
    """Features h -> D numbers at each place, by one linear map -> Q codes at each place -> z.

    A feature map (C, H, W) is mapped pixel by pixel, a 1 x 1 convolution, and z is a map (D, H, W); a vector (C,) is
    one place, and z is (D,).

    Args:
        in_shape: F.
        latent_dim: D.
        n_codes: K, to choose from at each position.
        codes_per_place: Q.
        n_codebooks: Q if each of the Q codes has its own codebook, else 1.

    Raises:
        ValueError: latent_dim below 1.
    """

    distribution = Quantized

    def __init__(
        self, in_shape: Sequence[int], latent_dim: int, n_codes: int, codes_per_place: int, n_codebooks: int
    ) -> None:
        super().__init__()
        check_at_least(1, latent_dim=latent_dim)
        channels, *places = in_shape
        self.latent_shape = (latent_dim, *places)
        single = codes_per_place == 1 and len(places) > 0
        self._space = Codes((*places,) if single else (*places, codes_per_place), n_codes, n_codebooks)
        self._per_place = (codes_per_place,)
        self.head = nn.Linear(channels, latent_dim)

    @property
    def space(self) -> Codes:
        return self._space

    def forward(self, h: Tensor) -> Quantized:
        v = full_precision(self.head(h.movedim(1, -1)))  # (B, H, W, D)
        z, codes, penalty = self.quantize(v)
        penalty = None if penalty is None else sum_event(penalty, 1)
        return Quantized(z.movedim(-1, 1), codes.view(len(h), *self.space.shape), penalty)

    def from_prior(self, value: Tensor) -> Tensor:
        """z (n, *E) of codes (n, *S)."""
        places = self.latent_shape[1:]
        return self.look_up(value.view(len(value), *places, *self._per_place)).movedim(-1, 1)

    @abstractmethod
    def quantize(self, v: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """v (B, ..., D) as z (B, ..., D), with the gradient of v; codes (B, ..., Q); a penalty (B, ...) or None."""

    @abstractmethod
    def look_up(self, codes: Tensor) -> Tensor:
        """z (n, ..., D) of codes (n, ..., Q)."""


def straight_through(v: Tensor, quantized: Tensor) -> Tensor:
    """The quantized values, with the gradient of v (Bengio et al. 2013, arXiv:1308.3432): dz / dv is the identity."""
    return v + (quantized - v).detach()
