"""What a kernel is: a way to compute one mechanism of attention.

    score(q, k) + bias -- soft cap --> scores -- normalizer, mask --> weights;   output = weights v

All kernels that can compute the same thing agree within rounding; what one cannot compute it refuses, and says why.

Shapes: B batch, N heads, M heads of keys and values (N / M queries' heads share one), T queries, S keys, D features of
a head, V of a value.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from torch import Tensor

from attelbo.attention.masks import Mask
from attelbo.attention.normalizers import Normalizer, Softmax
from attelbo.attention.positions import NoPosition, Position
from attelbo.attention.scores import Score


@dataclass(frozen=True, eq=False)
class Mechanism:
    """What is computed, whatever the kernel."""

    score: Score
    normalizer: Normalizer = field(default_factory=Softmax)
    position: Position = field(default_factory=NoPosition)
    """Its bias on the scores only: query and key have been told where they stand."""
    soft_cap: float | None = None
    """c: scores become c tanh(score / c) (Gemma 2; Bello et al. 2017), bias included; no cap if None."""


class Kernel(ABC):
    """One way to compute attention."""

    name: str

    @abstractmethod
    def refuses(self, mechanism: Mechanism, *, dropout: float, mask: Mask | None) -> str | None:
        """Why it cannot compute this; None if it can."""

    @abstractmethod
    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mechanism: Mechanism,
        *,
        mask: Mask | None = None,
        offset: int | None = None,
        dropout: float = 0.0,
    ) -> Tensor:
        """query (B, N, T, D), key (B, M, S, D), value (B, M, S, V) -> (B, N, T, V).

        Args:
            query: of T tokens.
            key: of S tokens.
            value: of the same.
            mechanism: what is computed.
            mask: who may attend to whom; everyone to all if None.
            offset: the position of the first query, where the first key stands at 0; S - T if None.
            dropout: the probability with which each weight is dropped *now*: the caller passes 0 in evaluation, since
                a kernel does not know whether it is training.
        """


def grouped(tensor: Tensor, heads: int) -> Tensor:
    """Keys or values (B, M, S, D) for each of N heads (B, N, S, D): each is repeated for N / M neighbouring heads."""
    shared = heads // tensor.shape[1]
    return tensor if shared == 1 else tensor.repeat_interleave(shared, dim=1)
