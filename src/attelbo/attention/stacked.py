"""Attention whose layers pass something on to the layers after them in a stack, computed from the same tokens.

    layer 1 -- handed --> layer 2 -- handed --> ... layer L

Shapes: B batch, T queries, S keys, E features of a token, N heads, M heads of keys and values, D features of a head.
"""

from abc import abstractmethod
from dataclasses import dataclass

from torch import Tensor

from attelbo.attention.cache import KeyValueCache, KeyValues
from attelbo.attention.masks import Mask
from attelbo.attention.multi_head import MultiHeadAttention


@dataclass
class Handed:
    """What one layer passes on in one pass over the tokens."""

    before: tuple[Tensor, ...] = ()
    """What the layer before it has passed on, (B, ...) each; empty: it is the first layer."""
    parts: tuple[Tensor, ...] = ()
    """What it passes on itself; empty until it has been called."""


class StackedAttention(MultiHeadAttention):
    """Multi-head attention that, in self-attention, also uses what the layer before it has passed on. By itself, or
    attending to a memory, it is plain multi-head attention.

    Args: those of ``MultiHeadAttention``.
    """

    def forward(
        self,
        query: Tensor,
        memory: Tensor | KeyValues | None = None,
        *,
        mask: Mask | None = None,
        cache: KeyValueCache | None = None,
        handed: Handed | None = None,
    ) -> Tensor:
        """As in ``MultiHeadAttention``; ``handed`` holds what was passed on before, and receives what this layer passes
        on."""
        if memory is not None:
            return super().forward(query, memory, mask=mask, cache=cache)
        self.check_call(query, memory, cache)
        q, k, v = self.continued(*self.project(query, None, cache), handed or Handed())
        return self.combine(self.attend(q, k, v, self.masked(mask)), query)

    def weights(
        self,
        query: Tensor,
        memory: Tensor | KeyValues | None = None,
        *,
        mask: Mask | None = None,
        handed: Handed | None = None,
    ) -> Tensor:
        if memory is not None:
            return super().weights(query, memory, mask=mask)
        q, k, _ = self.continued(*self.project(query), Handed(handed.before if handed else ()))
        return self.attention_weights(q, k, self.masked(mask))

    @abstractmethod
    def continued(self, q: Tensor, k: Tensor, v: Tensor, handed: Handed) -> tuple[Tensor, Tensor, Tensor]:
        """From queries (B, N, T, D), keys and values (B, M, S, D), those of a cache included, to what the kernel takes;
        what the next layer needs is put into ``handed``."""
