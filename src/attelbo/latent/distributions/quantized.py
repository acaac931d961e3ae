"""A point among finitely many: an encoder's output, quantized.

van den Oord, Vinyals & Kavukcuoglu 2017, "Neural Discrete Representation Learning", sec. 3.1-3.2.

Shapes: n samples, B batch, E the event shape of z, S the positions of its codes.
"""

from typing import Self

from torch import Tensor

from attelbo.latent.arithmetic import full_precision
from attelbo.latent.distributions.base import Distribution


class Quantized(Distribution):
    """q(code|x) is 1 for one code at each position: samples are all equal, and log q = 0.

    With a prior over codes, log p(x|z) + log p(codes) is therefore a bound on log p(x).

    Args:
        z: what the decoder sees, (B, *E): the codes' vectors, with the gradient of the encoder's output.
        codes: (B, *S), int64, which the prior sees; no gradient reaches the encoder through them.
        commitment: the term that ties encoder and codebook together, (B,), or None.
    """

    deterministic = True
    reparametrized = False

    def __init__(self, z: Tensor, codes: Tensor, commitment: Tensor | None = None) -> None:
        self._z = full_precision(z)
        self.codes = codes
        self._commitment = commitment

    @property
    def mean(self) -> Tensor:
        return self._z

    def rsample(self, n: int) -> Tensor:
        return self._z.expand(n, *self._z.shape)

    def log_prob(self, z: Tensor) -> Tensor:
        """log q of its own samples, the only z for which it is known: 0."""
        return self._z.new_zeros(z.shape[:2])

    def prior_value(self, z: Tensor) -> Tensor:
        """The codes of its samples z (n, B, *E): (n, B, *S)."""
        return self.codes.expand(len(z), *self.codes.shape)

    def stop_gradient(self) -> Self:
        return type(self)(self._z.detach(), self.codes)

    @property
    def penalty(self) -> Tensor | None:
        return self._commitment
