"""Shared by quantizing posteriors: vectors at the places of a feature map, and their codes.

Shapes: B batch, F the encoder's output, (C,) or (C, H, W); (H, W) its places, none for a vector; S the positions of
codes, for Q of them at each place (H, W), (Q,) or (H, W, Q); D = latent_dim.
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
    """Features h -> D numbers at each place, by one linear map -> codes -> z.

    A feature map (C, H, W) is mapped pixel by pixel, a 1 x 1 convolution, and z is a map (D, H, W); a vector (C,) is
    one place, and z is (D,).

    Args:
        in_shape: F.
        latent_dim: D.
        space: of the codes.

    Raises:
        ValueError: latent_dim below 1.
    """

    distribution = Quantized

    def __init__(self, in_shape: Sequence[int], latent_dim: int, space: Codes) -> None:
        super().__init__()
        check_at_least(1, latent_dim=latent_dim)
        channels, *places = in_shape
        self.latent_shape = (latent_dim, *places)
        self._space = space
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
        return self.look_up(value).movedim(-1, 1)

    @abstractmethod
    def quantize(self, v: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """v (B, ..., D) as z (B, ..., D), with the gradient of v; codes in the order of S; a penalty (B, ...) or
        None."""

    @abstractmethod
    def look_up(self, codes: Tensor) -> Tensor:
        """z (n, ..., D) of codes (n, *S)."""

    def by_place(self, codes: Tensor) -> Tensor:
        """Codes (n, *S), Q at each place, as (n, ..., Q)."""
        return codes.view(len(codes), *self.latent_shape[1:], -1)


def codes_at_places(in_shape: Sequence[int], per_place: int, n_codes: int, n_codebooks: int = 1) -> Codes:
    """``per_place`` codes at each place of F; one code at a place has no dimension of its own."""
    places = tuple(in_shape[1:])
    return Codes(places if places and per_place == 1 else (*places, per_place), n_codes, n_codebooks)


def straight_through(v: Tensor, quantized: Tensor) -> Tensor:
    """The quantized values, with the gradient of v (Bengio et al. 2013, arXiv:1308.3432): dz / dv is the identity."""
    return v + (quantized - v).detach()
