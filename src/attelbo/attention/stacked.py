"""Attention whose layers hand something on to those behind them in a stack: what each has made of the same tokens.

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
    """What one layer hands on in one pass over the tokens."""

    before: "Handed | None" = None
    """What the layer before it has handed on; None: it is the first."""
    parts: tuple[Tensor, ...] = ()
    """What it hands on itself, (B, ...) each; nothing until it has been called."""


class StackedAttention(MultiHeadAttention):
    """Multi-head attention that looks, in self-attention, at what the layer before it has handed on. By itself, and
    where it attends to a memory, it is multi-head attention.

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
        """As in ``MultiHeadAttention``; ``handed`` takes what this layer hands on, and has what was before it."""
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
        q, k, _ = self.continued(*self.project(query), Handed(handed and handed.before))
        return self.attention_weights(q, k, self.masked(mask))

    @abstractmethod
    def continued(self, q: Tensor, k: Tensor, v: Tensor, handed: Handed) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, N, T, D), keys and values (B, M, S, D), those of a cache among them, as the kernel takes them;
        what is for the next layer goes into ``handed``."""
