"""Multi-head attention over tokens.

Source: Vaswani et al. 2017, "Attention Is All You Need", section 3.2.2; heads that share keys and values: Shazeer 2019
(multi-query), Ainslie et al. 2023 (grouped-query).

    head_n = attend(x W_q, m W_k, m W_v)_n,   output = [head_1, ..., head_N] W_o

Shapes: B batch, T queries, S tokens of the memory m, E features of a token, N heads, M heads of keys and values (M
divides N; neighbouring heads share), D features of a head, E / N if nothing else is said.
"""

from typing import Unpack

import torch.nn.functional as F
from torch import Tensor, nn

from attelbo.attention.cache import KeyValueCache, KeyValues
from attelbo.attention.layer import AttentionLayer, LayerOptions, join_heads, split_heads
from attelbo.checks import check_at_least, divisors


class AttentionOptions(LayerOptions, total=False):
    """The arguments that :class:`MultiHeadAttention` and its variants take by keyword."""

    head_dim: int | None
    """D; E / N if None."""
    kv_heads: int | None
    """M; must divide the heads. N if None; 1 is multi-query attention."""
    memory_dim: int | None
    """E', of a memory whose tokens have another size; such attention is cross-attention only."""
    bias: bool
    """Whether the projections have one."""


class MultiHeadAttention(AttentionLayer):
    """Self-attention over tokens (B, T, E), or cross-attention from them to a memory (B, S, E').

    The input projections are one packed layer, laid out like ``torch.nn.MultiheadAttention``'s ``in_proj_weight``: one
    matrix product in self-attention, two in cross-attention.

    Args:
        dim: E.
        heads: N; must divide ``dim``, unless ``head_dim`` is given.
        head_dim, kv_heads, memory_dim, bias: see :class:`AttentionOptions`.
        options: those of :class:`~attelbo.attention.layer.LayerOptions`: score, normalizer, position, mask, soft_cap,
            dropout, kernel.

    Raises:
        ValueError: a size below 1, heads that do not divide, a dropout outside [0, 1), a kernel that cannot compute
            this.
    """

    n_maps = 1
    """Attention maps of each head: each has its own queries and keys, all share the values."""

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        head_dim: int | None = None,
        kv_heads: int | None = None,
        memory_dim: int | None = None,
        bias: bool = True,
        **options: Unpack[LayerOptions],
    ) -> None:
        scored = self.head_features(dim, heads, head_dim=head_dim).scored
        check_at_least(1, memory_dim=memory_dim)
        if kv_heads is not None and (kv_heads < 1 or heads % kv_heads):
            raise ValueError(f"kv_heads must divide the {heads} heads: one of {divisors(heads)}, got {kv_heads}")
        super().__init__(dim, heads, scored, **options)
        self.kv_heads = heads if kv_heads is None else kv_heads
        head_dim = dim // heads if head_dim is None else head_dim
        self.widths = [heads * head_dim, self.kv_heads * head_dim, self.kv_heads * head_dim]
        if memory_dim is None or memory_dim == dim:
            self.qkv = nn.Linear(dim, sum(self.widths), bias=bias)
            self.from_memory = None
        else:
            self.qkv = nn.Linear(dim, self.widths[0], bias=bias)
            self.from_memory = nn.Linear(memory_dim, sum(self.widths[1:]), bias=bias)
        self.output = nn.Linear(self.widths[0], dim, bias=bias)
        self.reset_parameters()

    def reset_parameters(self, gain: float = 1.0) -> None:
        """Glorot-uniform for each of the four projections by itself, with a gain for values and output; biases zero."""
        weights = [*self.qkv.weight.split(self.widths if self.from_memory is None else self.widths[:1])]
        if self.from_memory is not None:
            weights += self.from_memory.weight.chunk(2)
        for projection, own in zip((*weights, self.output.weight), (1, 1, gain, gain), strict=True):
            nn.init.xavier_uniform_(projection, own)
        for layer in (self.qkv, self.from_memory, self.output):
            if layer is not None and layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def project(
        self, query: Tensor, memory: Tensor | KeyValues | None = None, cache: KeyValueCache | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        if memory is not None:
            weight, bias = self._rows(0, self.widths[0])
            k, v = memory if isinstance(memory, KeyValues) else self.keys_values(memory)
            return split_heads(F.linear(query, weight, bias), self.n_maps * self.heads), k, v
        q, k, v = self.placed(query, 0 if cache is None else cache.length)
        if cache is not None:
            k, v = cache.extend(k, v)
        return q, k, v

    def placed(self, x: Tensor, first: int) -> tuple[Tensor, Tensor, Tensor]:
        """q (B, N, T, D), k and v (B, M, T, D) of tokens x (B, T, E) at positions ``first``, first + 1, ..."""
        n_heads = (self.n_maps * self.heads, self.n_maps * self.kv_heads, self.kv_heads)
        parts = self.qkv(x).split(self.widths, -1)
        q, k, v = (split_heads(*pair) for pair in zip(parts, n_heads, strict=True))
        return *self.position.at_query_key(q, k, first), v

    def keys_values(self, memory: Tensor, values: Tensor | None = None) -> KeyValues:
        """Keys and values of a memory (B, S, E'); the values of other tokens (B, S, E') if given."""
        first, middle, last = self.widths[0], sum(self.widths[:2]), sum(self.widths)
        if values is None:
            k, v = F.linear(memory, *self._rows(first, last)).split(self.widths[1:], -1)
        else:
            k, v = F.linear(memory, *self._rows(first, middle)), F.linear(values, *self._rows(middle, last))
        return KeyValues(split_heads(k, self.n_maps * self.kv_heads), split_heads(v, self.kv_heads))

    def combine(self, heads: Tensor, query: Tensor) -> Tensor:
        return self.output(join_heads(heads))

    def _rows(self, first: int, last: int) -> tuple[Tensor, Tensor | None]:
        """These rows of the packed projection."""
        layer = self.qkv
        if self.from_memory is not None and first:
            layer, first, last = self.from_memory, first - self.widths[0], last - self.widths[0]
        return layer.weight[first:last], None if layer.bias is None else layer.bias[first:last]
